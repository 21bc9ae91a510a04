"""Conformance of what iterations add up to: fixed points, sampling, projection, rank, settings, stopping, cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .conformance_iteration import (
    KINDS,
    LITERAL,
    NETWORK,
    ROWS,
    VARIANCE,
    dense_iteration,
    mean_weights,
    problem,
    sampled_weights,
)
from .conformance_layer import Measurement, norm, ratio
from .cost import counting_backend, multiplications_per_row
from .gradients import complex_step_jacobian, dense_ggn
from .oracles import dense_posterior, projection_error, projection_objective, unvec
from .reference_network import ReferenceNetwork, gaussian_loss, with_ones

STILL = {"evidence": False, "learn_noise": False, "warmup": 0, "rate": 1.0, "step_scale": None, "tempering": None}


def fixed_points(core: Any, seed: int) -> Iterator[Measurement]:
    """P Δ S⁻¹ of a full step is minus the gradient of the penalised loss, by complex steps, at any state."""
    natural, network = {**LITERAL, "step": "natural", "damping": 0.1}, ReferenceNetwork("tanh")
    for kind in (LITERAL, natural, {**natural, "prior": "independent"}):
        before, x, y, settings = problem(core, seed, {**kind, "prior_precision": 0.7})
        for t in range(2):
            after = core.bali_step(before, x, y, np.random.default_rng(t), settings)
            weights = mean_weights(before)
            for l, (old, new) in enumerate(zip(before.layers, after.layers, strict=True)):

                def loss(w: Any, l: int = l, weights: Any = weights, y: Any = y, x: Any = x) -> Any:
                    changed = [*weights[:l], w, *weights[l + 1 :]]
                    return np.sum(gaussian_loss(network.forward(changed, x).outputs[-1], y, VARIANCE))

                P, Q = np.asarray(new.posterior.row_precision), np.linalg.inv(new.posterior.column_covariance)
                full = np.asarray(new.posterior.mean) - weights[l]
                pull = old.prior_precision * weights[l] @ (Q if kind["prior"] == "tied" else np.eye(len(Q)))
                expected = -complex_step_jacobian(loss, weights[l]) - pull
                scale = norm(P) * norm(Q) * (norm(full) + norm(weights[l])) + norm(expected)
                what = f"layer {l}, {kind['step']} step, {kind['prior']} prior"
                yield "eq:fixed-points", what, ratio(P @ full @ Q, expected, "float64", scale, 10.0)
            before = after


def conjugate(core: Any, seed: int) -> Iterator[Measurement]:
    """T = Y for S = σ², so a second iteration of a linear layer changes nothing."""
    generator = np.random.default_rng([seed, 40])
    h, y = generator.standard_normal((2, 5, 3))
    for variance in (VARIANCE, np.array([0.2, 1.0, 3.0])):
        S = np.diag(np.broadcast_to(variance, 3)).copy()
        T = core.pseudo_targets(h, core.Gaussian(variance).gradient(h, y), S)
        yield "eq:conjugate-layer", f"T = Y, σ² {np.shape(variance)}", ratio(T, y, "float64", norm(h) + norm(y))
    state, x, y, settings = problem(core, seed, {**LITERAL, "step_size": VARIANCE}, (3, 2))
    dense = dense_posterior(with_ones(x), y, np.zeros((4, 2)), 0.7 * np.eye(4), VARIANCE * np.eye(2))
    for t in range(3):
        state = core.bali_step(state, x, y, np.random.default_rng(0), settings)
        condition = 10.0 * float(np.linalg.cond(dense.precision))
        got = ratio(state.layers[0].posterior.mean, unvec(dense.mean, 4), "float64", condition=condition)
        yield "eq:conjugate-layer", f"mean after iteration {t}", got


def centred(core: Any, seed: int) -> Iterator[Measurement]:
    """Gradients at sampled weights, targets centred at the mean: the mean moves by the dense regression's step."""
    kind = {**KINDS[-1], "evidence": False, "learn_noise": False}
    state, x, y, settings = problem(core, seed, kind)
    for t in range(4):
        before, weights = state, sampled_weights(state, t)
        state = core.bali_step(before, x, y, np.random.default_rng(t), settings)
        for l, dense in enumerate(dense_iteration(before, x, y, kind, float(ROWS), weights)):
            expected, condition = dense.M + kind["step_scale"] * dense.delta, 10.0 * np.linalg.cond(dense.precision)
            scale = norm(dense.M) + norm(dense.delta)
            got = ratio(state.layers[l].posterior.mean, expected, "float64", scale, float(condition))
            yield "eq:centred-targets", f"layer {l}, iteration {t}", got


def projection(core: Any, seed: int) -> Iterator[Measurement]:
    """The core's converged (P, Σ) has the closed form's divergence; that is the dense one, and within its bound."""
    kind = {**LITERAL, **STILL, "step": "natural", "prior": "independent", "prior_precision": 1.0}
    state, x, y, settings = problem(core, seed, kind, (2, 3))
    variances = np.array([0.1, 0.5, 2.0])
    state = core.BALIState(state.mlp, core.Gaussian(variances), state.layers, 0.0, 1.0)
    for _ in range(60):
        state = core.bali_step(state, x, y, np.random.default_rng(0), settings)
    A, q = with_ones(x), state.layers[0].posterior
    B, U, tau = np.diag(1 / variances), A.T @ A, float(state.layers[0].prior_precision)
    exact = projection_error(B, U, tau)
    P, Q = np.asarray(q.row_precision), np.linalg.inv(np.asarray(q.column_covariance))
    reached = projection_objective(P, Q, B, U, tau)
    name, size = "eq:projection-error", 10.0 * P.size
    yield name, "divergence of the core's form", ratio(reached, exact.divergence, "float64", size, 10.0)
    yield name, "P of the core", ratio(P, U + exact.pi * np.eye(len(U)), "float64", condition=100.0)
    over = max(exact.divergence - exact.bound, -exact.divergence, 0.0)
    yield name, "within its bound", ratio(over, 0.0, "float64", size)
    balance = np.mean(1 / exact.ratios, axis=1)
    yield name, "mean variance ratio 1 per output", ratio(balance, np.ones(3), "float64", condition=10.0)


def rank(core: Any, seed: int) -> Iterator[Measurement]:
    """γ of the joint Gauss–Newton posterior ≤ N·rank B; ϑ∑γ of the layers ≤ N·outputs."""
    generator = np.random.default_rng([seed, 41])
    x, y = generator.standard_normal((2, 3, 2))
    kind = {**LITERAL, **STILL, "step": "natural", "damping": 0.1, "tempering": 0.5}
    kind |= {"prior_precision": 1e-3, "max_temperature": 1.0}
    state, *_, settings = problem(core, seed, kind, (2, 8, 2))
    weights = mean_weights(state)
    for likelihood, most in ((core.Gaussian(VARIANCE), 6), (core.Categorical(), 3)):
        network: Any = ReferenceNetwork("tanh")
        values = np.linalg.eigvalsh(dense_ggn(network, likelihood, weights, x))
        gamma = float(np.sum(np.maximum(values, 0) / (np.maximum(values, 0) + 1e-3)))
        over = max(gamma - most, 0.0)
        yield "eq:rank-bound", f"joint γ, {type(likelihood).__name__}", ratio(over, 0.0, "float64", 1.0, 1e3)
    after = core.bali_step(state, x, y, np.random.default_rng(0), settings)
    claimed = sum(float(layer.effective_parameters) for layer in after.layers)
    yield "eq:rank-bound", "the layers claim more", 0.0 if claimed > 6 else np.inf
    over = max(float(after.temperature) * claimed - 6, 0.0)
    yield "eq:rank-bound", "ϑ∑γ", ratio(over, 0.0, "float64", 1.0)


def literal_preset(core: Any, seed: int) -> Iterator[Measurement]:
    """preset="literal" is what the abstract fixes and nothing else."""
    literal = core.Settings.preset("literal")
    fixed = {
        "step": "gradient",
        "noise": "step",
        "gradients": "mean",
        "prior": "tied",
        "evidence": False,
        "rate": 1.0,
        "step_scale": None,
        "warmup": 0,
        "tempering": None,
        "damping": 0.0,
        "learn_noise": False,
        "trust_region": False,
        "joint_iterations": 0,
        "averaging": None,
        "batch_size": None,
    }
    for name, value in fixed.items():
        yield "eq:defaults", f"literal {name}", 0.0 if getattr(literal, name) == value else np.inf


def stopping(core: Any, seed: int) -> Iterator[Measurement]:
    """A fit ends at the first record where the median of p losses is less than the tolerance below that of p before."""
    state, x, y, _ = problem(core, seed, LITERAL)
    for tolerance, patience in ((0.05, 3), (0.01, 5)):
        settings = core.Settings(tolerance=tolerance, patience=patience, warmup=2, max_iterations=200)
        result = core.fit(x, y, state.mlp, state.likelihood, np.random.default_rng(seed), settings)
        losses = [float(record.train_nll) for record in result.history][2:]

        def ends(n: int, losses: list[float] = losses, p: int = patience, least: float = tolerance) -> bool:
            return n >= 2 * p and bool(np.median(losses[n - 2 * p : n - p]) - np.median(losses[n - p : n]) < least)

        first = next((n for n in range(len(losses) + 1) if ends(n)), None)
        right = first == len(losses) and bool(result.converged)
        yield "eq:stopping", f"tolerance {tolerance}, patience {patience}", 0.0 if right else np.inf


def cost(core: Any, seed: int) -> Iterator[Measurement]:
    """Multiply-adds per row, counted: what twice the rows cost more; with and without probes, weights and draws."""
    widths = (3, 5, 4, 2)
    for step, sampled in (("gradient", False), ("natural", False), ("natural", True)):
        for weighted in (False, True):
            counts = []
            for rows in (6, 12):
                backend, counter = counting_backend(core.NUMPY)
                generator = np.random.default_rng([seed, 42])
                x, y = generator.standard_normal((rows, 3)), generator.standard_normal((rows, 2))
                settings = core.Settings(**{**LITERAL, "step": step, "damping": 0.1})
                mlp, likelihood = core.MLP(widths, "tanh", backend), core.Gaussian(0.3, backend)
                state = core.initial_state(mlp, likelihood, generator, settings)
                if sampled:  # weights are, once there is a temperature
                    settings, state = replace(settings, gradients="sampled"), replace(state, temperature=0.1)
                counter[0] = 0
                core.bali_step(state, x, y, generator, settings, None, np.ones(rows) if weighted else None)
                counts.append(counter[0])
            expected = multiplications_per_row(widths, step == "natural", sampled)
            right = counts[1] - counts[0] == 6 * expected
            what = f"{step} step{', sampled' if sampled else ''}{', weighted rows' if weighted else ''}"
            what += f": {(counts[1] - counts[0]) / 6:g} of {expected}"
            yield "eq:cost", what, 0.0 if right else np.inf


CHECKS = (
    (fixed_points, NETWORK, {"eq:fixed-points": "P Δ S⁻¹ = −∂(∑ℓ + penalty)/∂M"}),
    (
        conjugate,
        (*NETWORK, "pseudo_targets"),
        {"eq:conjugate-layer": "T = Y for a linear layer with S = σ²"},
    ),
    (centred, NETWORK, {"eq:centred-targets": "T = A M − G(W_s)Σ, gradients at the sample"}),
    (projection, (*NETWORK, "BALIState"), {"eq:projection-error": "KL = ½∑ log (1 + κe)/(1 + ke)"}),
    (rank, (*NETWORK, "Categorical"), {"eq:rank-bound": "γ ≤ N·rank B, and ϑ∑γ within it"}),
    (literal_preset, ("Settings",), {"eq:defaults": "the literal preset is the abstract's reading"}),
    (stopping, (*NETWORK, "fit"), {"eq:stopping": "a fit ends when the median loss stops falling"}),
    (cost, (*NETWORK, "NUMPY"), {"eq:cost": "multiply-adds per row as derived"}),
)
