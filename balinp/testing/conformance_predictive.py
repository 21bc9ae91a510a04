"""Conformance of the predictive distributions, linearised and by Monte Carlo, against explicit Jacobians and sums."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from scipy import special, stats

from .conformance_iteration import LITERAL, mean_weights, problem
from .conformance_layer import Measurement, norm, ratio
from .gradients import dense_linearized_predictive, weight_jacobians
from .oracles import vec
from .reference_network import ReferenceNetwork, softmax
from .strategies import random_spd

TEMPERATURE = 0.3


def _states(core: Any, seed: int) -> Iterator[tuple[Any, np.ndarray, np.ndarray, str]]:
    """(state with random covariances, tempered; x, y and what) for two outputs and for three classes."""
    for k, likelihood in ((2, core.Gaussian(np.array([0.3, 0.1]))), (3, core.Categorical())):
        state, x, y, _ = problem(core, seed, LITERAL, (2, 3, k))
        generator, layers = np.random.default_rng([seed, k]), []
        for layer in state.layers:
            M = generator.standard_normal(np.shape(layer.posterior.mean))
            q = core.MatrixNormal(M, *(random_spd(generator, n, 10.0, "float64", 5.0) for n in M.shape))
            layers.append(core.LayerState(q, layer.statistics, layer.prior_precision))
        done = core.BALIState(state.mlp, likelihood, tuple(layers), TEMPERATURE, 1.0)
        yield done, x[:5], y[:5], type(likelihood).__name__


def _draws(state: Any, seed: int, count: int) -> list[list[np.ndarray]]:
    """``count`` draws of all weights, layer after layer, as W = M + L⁻ᵀ Z Rᵀ with Σ tempered."""
    generator, draws = np.random.default_rng(seed), []
    for _ in range(count):
        weights = []
        for layer in state.layers:
            q = layer.posterior
            L, R = np.linalg.cholesky(q.row_precision), np.linalg.cholesky(TEMPERATURE * q.column_covariance)
            weights.append(q.mean + np.linalg.solve(L.T, generator.standard_normal(q.mean.shape)) @ R.T)
        draws.append(weights)
    return draws


def _label_covariance(p: np.ndarray) -> np.ndarray:
    """diag(p) − ppᵀ over the leading axes."""
    return p[..., :, None] * np.eye(p.shape[-1]) - p[..., :, None] * p[..., None, :]


def _probit(h: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """softmax(μ/√(1 + πv/8)), μ the logits less their mean, v_k the variance of h_k − mean of the others."""
    k = h.shape[1]
    centre = np.eye(k) - 1 / k
    against = np.eye(k) - (1 - np.eye(k)) / (k - 1)
    v = np.einsum("ij,njk,ik->ni", against, covariance, against)
    return softmax(h @ centre / np.sqrt(1 + np.pi * v / 8))


def linearized(core: Any, seed: int) -> Iterator[Measurement]:
    """Mean, covariance by layer, their sum, the aleatoric part, and class probabilities."""
    for state, x, _, what in _states(core, seed):
        got = core.predict_linearized(state, x)
        posteriors = [
            SimpleNamespace(
                row_precision=q.row_precision, column_covariance=TEMPERATURE * np.asarray(q.column_covariance)
            )
            for q in (layer.posterior for layer in state.layers)
        ]
        dense = SimpleNamespace(mlp=ReferenceNetwork("tanh"), means=mean_weights(state), posteriors=posteriors)
        mean, by_layer = dense_linearized_predictive(cast(Any, dense), x)
        name = "eq:linearized-predictive"
        yield name, f"mean, {what}", ratio(got.mean, mean, "float64", 1.0)
        yield name, f"by layer, {what}", ratio(got.epistemic_by_layer, by_layer, "float64", condition=100.0)
        epistemic = np.sum(by_layer, axis=0)
        yield name, f"epistemic, {what}", ratio(got.epistemic, epistemic, "float64", condition=100.0)
        aleatoric = np.broadcast_to(np.diag([0.3, 0.1]), (len(x), 2, 2))
        if what == "Categorical":
            p = _probit(mean, epistemic)
            aleatoric = _label_covariance(p)
            yield "eq:probit", what, ratio(got.probabilities, p, "float64", condition=100.0)
        yield name, f"aleatoric, {what}", ratio(got.aleatoric, aleatoric, "float64", condition=100.0)


def probit(core: Any, seed: int) -> Iterator[Measurement]:
    """Class probabilities for logits and covariances of any size, and with a common shift that must not matter."""
    generator, likelihood = np.random.default_rng([seed, 11]), core.Categorical()
    for scale in (0.1, 1.0, 10.0):
        h = scale * generator.standard_normal((5, 4))
        V = np.stack([random_spd(generator, 4, 10.0, "float64", scale) for _ in h])
        for shift in (0.0, 3.0):
            got = core.probit_probabilities(h, V + shift, likelihood)
            condition = 100.0 * (1 + norm(h))
            yield "eq:probit", f"shift variance {shift}", ratio(got, _probit(h, V), "float64", condition=condition)


def monte_carlo(core: Any, seed: int) -> Iterator[Measurement]:
    """Moments over the documented draws: one weight draw per layer, layer after layer."""
    for state, x, _, what in _states(core, seed):
        got = core.predict_monte_carlo(state, x, np.random.default_rng(3), 7)
        h = np.stack([ReferenceNetwork("tanh").forward(w, x).outputs[-1] for w in _draws(state, 3, 7)])
        mean, left = np.mean(h, axis=0), h - np.mean(h, axis=0)
        epistemic = np.einsum("sni,snj->nij", left, left) / len(h)
        aleatoric = np.broadcast_to(np.diag([0.3, 0.1]), (len(x), 2, 2))
        name = "eq:monte-carlo-predictive"
        if what == "Categorical":
            p = softmax(h)
            aleatoric = np.mean(_label_covariance(p), axis=0)
            yield name, "probabilities", ratio(got.probabilities, np.mean(p, axis=0), "float64", condition=100.0)
        for part, expected in (("draws", h), ("mean", mean), ("epistemic", epistemic), ("aleatoric", aleatoric)):
            value = ratio(getattr(got, part), expected, "float64", norm(h) ** 2, 100.0)
            yield name, f"{part}, {what}", value


def joint(core: Any, seed: int) -> Iterator[Measurement]:
    """Mean, draws and covariance of the network linearised about its means, for draws that the state has."""
    for state, x, _, what in _states(core, seed):
        if what == "Categorical":
            continue
        generator, weights = np.random.default_rng([seed, 13]), mean_weights(state)
        deviations = tuple(generator.standard_normal((7, *w.shape)) for w in weights)
        drawing = core.BALIState(state.mlp, state.likelihood, state.layers, TEMPERATURE, 1.0, deviations=deviations)
        got, network = core.predict_joint(drawing, x), ReferenceNetwork("tanh")
        J = np.concatenate(weight_jacobians(cast(Any, network), weights, x), axis=2)
        flat = np.stack([np.concatenate([vec(part[s]) for part in deviations]) for s in range(7)])
        change, mean = np.einsum("nkp,sp->snk", J, flat), network.forward(weights, x).outputs[-1]
        epistemic, name = np.einsum("sni,snj->nij", change, change) / 7, "eq:joint-predictive"
        for part, expected in (("draws", mean + change), ("mean", mean), ("epistemic", epistemic)):
            value = ratio(getattr(got, part), expected, "float64", 1 + norm(change) ** 2, 100.0)
            yield name, part, value


def densities(core: Any, seed: int) -> Iterator[Measurement]:
    """log p(y) of both predictives for a Gaussian likelihood, against scipy; entropy of class probabilities."""
    backend = core.get_backend("numpy")
    for state, x, y, what in _states(core, seed):
        closed, sampled = (
            core.predict_linearized(state, x),
            core.predict_monte_carlo(state, x, np.random.default_rng(3), 7),
        )
        if what == "Categorical":
            for predictive in (closed, sampled):
                expected = stats.entropy(np.asarray(predictive.probabilities), axis=1)
                yield "eq:predictive-entropy", what, ratio(predictive.entropy(backend), expected, "float64", 1.0)
            continue
        noise = np.diag([0.3, 0.1])
        total = np.asarray(closed.epistemic) + noise
        one = [stats.multivariate_normal(m, V).logpdf(t) for m, V, t in zip(closed.mean, total, y, strict=True)]
        got = ratio(closed.log_density(y, backend), np.array(one), "float64", 10.0, 100.0)
        yield "eq:predictive-density", "linearised", got
        each = [
            [stats.multivariate_normal(m, np.diag([0.3, 0.1])).logpdf(t) for m, t in zip(h, y)] for h in sampled.draws
        ]
        average = special.logsumexp(each, axis=0) - np.log(len(each))
        got = ratio(sampled.log_density(y, backend), average, "float64", 10.0, 100.0)
        yield "eq:predictive-density", "Monte Carlo", got


STATES = ("MLP", "Gaussian", "Categorical", "MatrixNormal", "Settings", "initial_state", "LayerState", "BALIState")
CHECKS = (
    (
        linearized,
        (*STATES, "predict_linearized"),
        {
            "eq:linearized-predictive": "f(x) ~ N(h, ∑_l (a_l P_l⁻¹ a_lᵀ) J_l Σ_l J_lᵀ)",
            "eq:probit": "p = softmax(μ/√(1 + πv/8)), each class against the rest",
        },
    ),
    (
        probit,
        ("probit_probabilities", "Categorical"),
        {"eq:probit": "p = softmax(μ/√(1 + πv/8)), each class against the rest"},
    ),
    (
        monte_carlo,
        (*STATES, "predict_monte_carlo"),
        {"eq:monte-carlo-predictive": "moments of h over sampled networks"},
    ),
    (
        joint,
        (*STATES, "predict_joint"),
        {"eq:joint-predictive": "h_s = h_L(M) + J Δ_s, moments about h_L(M)"},
    ),
    (
        densities,
        (*STATES, "predict_linearized", "predict_monte_carlo", "get_backend"),
        {
            "eq:predictive-density": "log p(y) = log N(y | h, Cov), or of its average",
            "eq:predictive-entropy": "entropy = −∑ p log p",
        },
    ),
)
