"""Conformance of one iteration: statistics, noise, posterior mean, prior, temperature, each worked out densely.

With one output and probes of ±1 the curvature estimate does not depend on the draws, so that a whole iteration has one
right answer; with several outputs its average over all sign patterns has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from .conformance_layer import DTYPES, Measurement, norm, ratio
from .oracles import dense_evidence, dense_posterior, kronecker, unvec, vec
from .reference_network import ReferenceNetwork, Signs, gaussian_loss, sign_patterns, softmax, with_ones

LITERAL = {
    "step": "gradient",
    "step_size": 0.3,
    "gradients": "mean",
    "prior": "tied",
    "prior_precision": 0.7,
    "evidence": False,
    "rate": 1.0,
    "step_scale": None,
    "warmup": 0,
    "tempering": None,
    "learn_noise": False,
}
LEARNING = {"evidence": True, "learn_noise": True, "warmup": 2, "rate": 0.4, "step_scale": 0.2}
LEARNING |= {"tempering": 0.05, "max_temperature": 0.25}
KINDS: tuple[dict[str, Any], ...] = (
    LITERAL,
    {**LITERAL, **LEARNING, "step": "natural", "damping": 0.1},
    {**LITERAL, **LEARNING, "step": "isotropic", "prior": "independent", "prior_precision": 0.1},
    {**LITERAL, **LEARNING, "step": "natural", "prior": "independent", "prior_precision": 0.1},
    {**LITERAL, **LEARNING, "step": "natural", "prior": "independent", "prior_precision": 0.1, "gradients": "sampled"},
)
WIDTHS, ROWS, VARIANCE = (2, 3, 1), 12, 0.3


def problem(core: Any, seed: int, kind: dict[str, Any], widths: tuple[int, ...] = WIDTHS) -> tuple[Any, ...]:
    """(state before any data, x, y, settings) of a tanh network with Gaussian noise."""
    generator, settings = np.random.default_rng([seed, 7]), core.Settings(**kind)
    x, y = generator.standard_normal((ROWS, widths[0])), generator.standard_normal((ROWS, widths[-1]))
    mlp, likelihood = core.MLP(widths, "tanh"), core.Gaussian(VARIANCE)
    return core.initial_state(mlp, likelihood, generator, settings, "float64"), x, y, settings


def sampled_weights(state: Any, seed: int) -> list[np.ndarray]:
    """M + L⁻ᵀ Z Rᵀ with P = L Lᵀ and Σ tempered = R Rᵀ, one draw Z per layer in order; at temperature 0 the means."""
    generator, weights = np.random.default_rng(seed), []
    for layer in state.layers:
        M, q = np.asarray(layer.posterior.mean), layer.posterior
        if state.temperature:
            L, R = np.linalg.cholesky(q.row_precision), np.linalg.cholesky(state.temperature * q.column_covariance)
            M = M + np.linalg.solve(L.T, generator.standard_normal(M.shape)) @ R.T
        weights.append(M)
    return weights


def mean_weights(state: Any, seed: int = 0) -> list[np.ndarray]:
    """The means, as float64 NumPy arrays."""
    return [np.asarray(layer.posterior.mean, dtype=np.float64) for layer in state.layers]


def dense_iteration(
    state: Any, x: np.ndarray, y: np.ndarray, kind: dict[str, Any], total: float, weights: list[np.ndarray]
) -> list[SimpleNamespace]:
    """Per layer what one iteration on m rows that stand for ``total`` must give, for one output.

    The running sums U, C and count; the old mean M and the full step Δ; P, Q = Σ⁻¹ = S⁻¹ and Q ⊗ P; τ, κ and γ; and the
    regression of this iteration: inputs, targets, prior mean, prior precision and noise covariance.
    """
    network, factor = ReferenceNetwork("tanh"), total / len(x)
    beta = max(kind["rate"], 1 / (state.iteration + 1))
    s2 = float(state.likelihood.noise_variance)
    G = network.gradients(weights, x, lambda h: gaussian_loss(h, y, s2))
    layers = []
    for layer, A, g, J in zip(
        state.layers, network.forward(weights, x).inputs, G, network.jacobians(weights, x), strict=True
    ):
        old, M, tau, q = layer.statistics, np.asarray(layer.posterior.mean), layer.prior_precision, layer.posterior
        U = (1 - beta) * np.asarray(old.gram) + beta * factor * A.T @ A
        C = (1 - beta) * np.asarray(old.curvature) + beta * factor * np.einsum("nai,naj->ij", J, J) / s2
        count = (1 - beta) * old.count + beta * total
        (d, k), B = M.shape, C / count
        mean, eye = np.trace(B) / k, np.eye(k)
        damped = B + kind.get("damping", 0.0) * mean * eye
        Q = {"gradient": eye / kind["step_size"], "isotropic": mean * eye, "natural": damped}[kind["step"]]
        pi, pull = tau, kronecker(Q, tau * np.eye(d)) @ vec(M)
        prior = kronecker(Q, tau * np.eye(d))
        if kind["prior"] == "independent":
            b = np.trace(Q @ q.column_covariance) / np.trace(q.column_covariance)
            pi, Q = tau / b, layer.determined * Q + (1 - layer.determined) * b * eye
            prior, pull = tau * np.eye(d * k), tau * vec(M)
        P, S = U + pi * np.eye(d), np.linalg.inv(Q)
        precision = kronecker(Q, P)
        delta = unvec(np.linalg.solve(precision, -factor * vec(A.T @ g) - pull), d)
        kappa = 1 - pi * np.trace(np.linalg.inv(P)) / d
        gamma = d * k - np.trace(prior @ np.linalg.inv(precision))
        regression = (A, -g @ S, -unvec(np.linalg.solve(kronecker(Q, pi * np.eye(d)), pull), d), pi * np.eye(d), S)
        sums = {"U": U, "C": C, "count": count, "regression": regression}
        posterior = {"M": M, "P": P, "Q": Q, "S": S, "delta": delta, "precision": precision}
        layers.append(SimpleNamespace(**sums, **posterior, tau=tau, kappa=kappa, gamma=gamma))
    return layers


def iteration(core: Any, seed: int) -> Iterator[Measurement]:
    """Four iterations of every kind of step and prior: on all rows, then on rows that stand for 30."""
    for kind in KINDS:
        state, x, y, settings = problem(core, seed, kind)
        what = f"{kind['step']} step, {kind['prior']} prior, {kind['gradients']} gradients"
        for t in range(4):
            rows, total = (slice(3, 11), 30.0) if t else (slice(0, None), float(ROWS))
            before = state
            weights = (sampled_weights if kind["gradients"] == "sampled" else mean_weights)(before, t)
            layers = dense_iteration(before, x[rows], y[rows], kind, total, weights)
            state = core.bali_step(before, x[rows], y[rows], np.random.default_rng(t), settings, total)
            for l, (layer, dense) in enumerate(zip(state.layers, layers, strict=True)):
                yield from _layer(layer, dense, kind, f"layer {l}, iteration {t}, {what}", l + 1 == len(layers))
                if kind is LITERAL and t == 0:
                    expected = dense_evidence(*dense.regression)
                    scale = abs(expected) + norm(dense.regression[1]) ** 2 * norm(dense.Q) + 100.0
                    condition = float(np.linalg.cond(dense.P))
                    got = ratio(layer.log_evidence, expected, "float64", scale, condition)
                    yield "eq:log-evidence", f"of layer {l}, {what}", got
            drawn = _outputs(weights, x[rows])
            moved = drawn - _outputs(mean_weights(before), x[rows])
            left = y[rows] - drawn, moved
            yield from _learnt(before, state, layers, kind, total, left, f"iteration {t}, {what}")


def _layer(layer: Any, dense: Any, kind: dict[str, Any], what: str, last: bool) -> Iterator[Measurement]:
    """One layer's sums, covariance, mean and effective parameters after an iteration."""
    q, condition = layer.posterior, 10.0 * float(np.linalg.cond(dense.precision))
    yield "eq:ema", f"AᵀA, {what}", ratio(layer.statistics.gram, dense.U, "float64")
    yield "eq:ema", f"count, {what}", ratio(layer.statistics.count, dense.count, "float64")
    if last or kind["step"] != "gradient":  # the gradient step needs no probes
        probe = "eq:output-curvature" if last else "eq:curvature-probe"
        yield probe, what, ratio(layer.statistics.curvature, dense.C, "float64", condition=condition)
    tied = kind["prior"] == "tied"
    noise, mean = ("eq:step-kinds", "eq:step-form") if tied else ("eq:kronecker-projection", "eq:prior-gradient")
    yield noise, f"Σ, {what}", ratio(q.column_covariance, dense.S, "float64", condition=condition)
    rows = "eq:tied-prior" if tied else noise
    yield rows, f"P, {what}", ratio(q.row_precision, dense.P, "float64", condition=condition)
    beta_or_scale = kind["step_scale"] if kind["step_scale"] is not None else kind["rate"]
    expected = dense.M + beta_or_scale * dense.delta
    got = ratio(q.mean, expected, "float64", norm(dense.M) + norm(dense.delta), condition)
    yield "eq:step-form", f"mean, {what}", got
    if mean != "eq:step-form":
        yield mean, f"mean, {what}", got
    yield "eq:determined-share", what, ratio(layer.determined, dense.kappa, "float64", 1.0, condition)
    gamma = ratio(layer.effective_parameters, max(dense.gamma, 0.0), "float64", dense.M.size, condition)
    yield "eq:effective-parameters", what, gamma


def _learnt(
    before: Any, state: Any, layers: Any, kind: dict[str, Any], total: float, left: tuple[np.ndarray, ...], what: str
) -> Iterator[Measurement]:
    """Temperature, prior precisions and noise variance after an iteration with residuals ``left[0]``, its outputs
    ``left[1]`` from those of the means."""
    t, beta = before.iteration, max(kind["rate"], 1 / (before.iteration + 1))
    gammas = [max(dense.gamma, 0.0) for dense in layers]
    condition = 100.0 * max(float(np.linalg.cond(dense.precision)) for dense in layers)
    heat, share, s2 = 0.0, sum(gammas) / total, float(before.likelihood.noise_variance)
    if kind["gradients"] == "sampled" and before.temperature > 0:
        measured = np.sum(left[1] ** 2) / s2 / (before.temperature * left[1].size)
        share = before.parameters_per_target ** (1 - beta) * measured**beta
    got = ratio(state.parameters_per_target, share, "float64", condition=condition)
    yield "eq:output-spread", f"parameters per target, {what}", got
    if t + 1 >= kind["warmup"]:
        heat = 1.0 if kind["tempering"] is None else min(kind["max_temperature"], kind["tempering"] / share)
    got = ratio(state.temperature, heat, "float64", condition=condition)
    yield "eq:tempering", f"temperature, {what}", got
    for l, (layer, dense, gamma) in enumerate(zip(state.layers, layers, gammas, strict=True)):
        M, expected = np.asarray(layer.posterior.mean), dense.tau
        if kind["evidence"] and t + 1 >= kind["warmup"]:
            length = np.trace(M.T @ M @ (dense.Q if kind["prior"] == "tied" else np.eye(M.shape[1])))
            target = np.clip(min(gamma, 0.9 * total) / length, 1e-4, 1e5)
            expected = dense.tau ** (1 - beta) * target**beta
        got = ratio(layer.prior_precision, expected, "float64", condition=condition)
        yield "eq:mackay", f"layer {l}, {what}", got
    expected_variance = s2
    if kind["learn_noise"] and t >= kind["warmup"]:
        residual = float(np.mean(left[0] ** 2))
        if kind["gradients"] == "mean":
            residual += s2 * heat * sum(gammas) / total
        expected_variance = (1 - beta) * s2 + beta * residual
    got = ratio(state.likelihood.noise_variance, expected_variance, "float64", condition=condition)
    yield "eq:noise-update", what, got


def linear_layer(core: Any, seed: int) -> Iterator[Measurement]:
    """One linear layer: one iteration is the conjugate posterior, whole data or weighted rows, in both dtypes."""
    for dtype in DTYPES:
        kind = {**LITERAL, "step_size": VARIANCE}
        for step in ("gradient", "natural", "isotropic"):
            settings = core.Settings(**{**kind, "step": step})
            generator = np.random.default_rng([seed, 8])
            x, y = (generator.standard_normal((ROWS, k)).astype(dtype) for k in (3, 2))
            w = generator.integers(1, 4, ROWS).astype(dtype)
            likelihood = core.Gaussian(np.asarray(VARIANCE, dtype=dtype))
            before = core.initial_state(core.MLP((3, 2)), likelihood, generator, settings, dtype)
            for weights in (None, w):
                q = core.bali_step(before, x, y, generator, settings, None, weights).layers[0].posterior
                A, M0 = with_ones(x.astype(float)), np.zeros((4, 2))
                dense = dense_posterior(A, y, M0, 0.7 * np.eye(4), VARIANCE * np.eye(2), weights)
                condition = 10.0 * float(np.linalg.cond(dense.precision))
                what = f"{step} step, {dtype}{'' if weights is None else ', weighted rows'}"
                yield "eq:iteration", f"mean, {what}", ratio(q.mean, unvec(dense.mean, 4), dtype, condition=condition)
                columns = np.linalg.inv(np.asarray(q.column_covariance, dtype=np.float64))
                precision = kronecker(columns, q.row_precision).astype(dtype)
                got = ratio(precision, dense.precision, dtype, condition=condition)
                yield "eq:iteration", f"precision, {what}", got


def probes(core: Any, seed: int) -> Iterator[Measurement]:
    """Several outputs: the curvature of every layer is ∑ J_lᵀ B J_l, averaged over all signs of the probes."""
    kind, widths = {**LITERAL, "step": "natural", "damping": 0.1}, (2, 3, 3)
    state, x, y, settings = problem(core, seed, kind, widths)
    labels = np.random.default_rng([seed, 9]).integers(0, 3, len(x))
    bounds = ((core.Gaussian(VARIANCE), y, np.eye(3) / VARIANCE), (core.Categorical(), labels, (np.eye(3) - 1 / 3) / 2))
    weights = mean_weights(state)
    jacobians = ReferenceNetwork("tanh").jacobians(weights, x)
    for likelihood, targets, B in bounds:
        begun = core.BALIState(state.mlp, likelihood, state.layers, 0.0, 1.0)
        after = [core.bali_step(begun, x, targets, Signs(z), settings) for z in sign_patterns(3)]
        for l, J in enumerate(jacobians):
            last = l + 1 == len(jacobians)
            B = np.eye(3) / 2 if last and targets is labels else B  # a shift of all logits is curved as well
            got = np.mean([np.asarray(s.layers[l].statistics.curvature) for s in after], axis=0)
            expected = np.einsum("nai,ab,nbj->ij", J, B, J)
            statement = "eq:output-curvature" if last else "eq:curvature-probe"
            yield statement, f"layer {l}, {type(likelihood).__name__}", ratio(got, expected, "float64", condition=10.0)
        loss = gaussian_loss(_outputs(weights, x), y, VARIANCE)
        if targets is labels:
            loss = -np.log(softmax(_outputs(weights, x))[np.arange(len(x)), labels])
        got = ratio(after[0].training_loss, np.mean(loss), "float64", 10.0)
        yield "eq:iteration", f"training loss, {type(likelihood).__name__}", got


def _outputs(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    return np.asarray(ReferenceNetwork("tanh").forward(weights, x).outputs[-1])


NETWORK = ("MLP", "Gaussian", "Settings", "initial_state", "bali_step")
CHECKS = (
    (
        iteration,
        NETWORK,
        {
            "eq:ema": "moving average (1 − β)·old + β·(N/m)·new",
            "eq:curvature-probe": "a hidden layer's curvature is ∑ J_lᵀ B J_l",
            "eq:output-curvature": "the output layer's curvature is ∑ B",
            "eq:step-kinds": "Σ = S: αI, the inverse of B + δ·tr(B)/K·I, or of tr(B)/K·I",
            "eq:tied-prior": "tied prior: P = U + λI",
            "eq:kronecker-projection": "independent prior: P = U + (τ/b)I, Q = κB + (1 − κ)bI",
            "eq:step-form": "M⁺ − M = −η P⁻¹((N/m)AᵀG Σ + Λ₀M)",
            "eq:prior-gradient": "the independent prior pulls M by −τM",
            "eq:determined-share": "κ = 1 − π tr(P⁻¹)/D",
            "eq:effective-parameters": "γ = DK − tr(prior precision · covariance)",
            "eq:tempering": "tempering multiplies the covariance, and nothing else",
            "eq:output-spread": "s ← s^(1−β) (∑ (h − h̄) B (h − h̄)ᵀ/(T·N·outputs))^β of the draw",
            "eq:mackay": "τ ← τ^(1−β) (γ/‖M‖²)^β",
            "eq:noise-update": "σ² ← max((1 − β)σ² + β·residual/N, floor)",
            "eq:log-evidence": "log p(T), T ~ MN(A M₀, I + A Λ₀⁻¹ Aᵀ, Σ)",
        },
    ),
    (linear_layer, NETWORK, {"eq:iteration": "one iteration of a linear layer is conjugate regression"}),
    (
        probes,
        (*NETWORK, "Categorical", "BALIState"),
        {
            "eq:curvature-probe": "a hidden layer's curvature is ∑ J_lᵀ B J_l",
            "eq:output-curvature": "the output layer's curvature is ∑ B",
            "eq:iteration": "one iteration of a linear layer is conjugate regression",
        },
    ),
)
