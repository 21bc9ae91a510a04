"""Conformance of the Gaussian likelihood with input-dependent noise, against formulas written for complex numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .conformance_layer import Measurement, norm, ratio
from .gradients import complex_step_jacobian
from .reference_network import sign_patterns

LIMITS = ((1e-4, 100.0), (0.3, 2.0))
HERMITE = np.polynomial.hermite_e.hermegauss(5)  # exact for polynomials of degree 9


def variance(rho: Any, floor: float, ceiling: float) -> Any:
    """s² = floor + 1/(e^−ρ + 1/ceiling), for complex ρ too."""
    return floor + 1 / (np.exp(-rho) + 1 / ceiling)


def loss(h: Any, y: np.ndarray, limits: tuple[float, float]) -> Any:
    """−log N(y | m, diag(s²)), (N,), for outputs (m, ρ) (N, 2K).   (eq:heteroscedastic-loss)"""
    k = y.shape[1]
    s2 = variance(h[:, k:], *limits)
    return np.sum((y - h[:, :k]) ** 2 / s2 + np.log(2 * np.pi * s2), axis=1) / 2


def heteroscedastic(core: Any, seed: int) -> Iterator[Measurement]:
    """Variance, loss, gradient; Fisher information as E[gᵀg] by quadrature; probes; row weights; average noise."""
    for limits in LIMITS:
        generator, likelihood = np.random.default_rng([seed, 30]), core.Heteroscedastic(*limits)
        h, y = generator.standard_normal((6, 4)), generator.standard_normal((6, 2))
        what = f"limits {limits}"
        s2 = variance(h[:, 2:], *limits)
        name = "eq:heteroscedastic-"
        yield f"{name}variance", what, ratio(likelihood.variance(h[:, 2:]), s2, "float64")
        far = np.array([[-1e3], [1e3]])
        edges = np.array([[limits[0]], [sum(limits)]])
        yield f"{name}variance", f"far out, {what}", ratio(likelihood.variance(far), edges, "float64")
        yield f"{name}loss", what, ratio(likelihood.loss(h, y), loss(h, y, limits), "float64", 10.0)
        gradient = complex_step_jacobian(lambda z, y=y, e=limits: np.sum(loss(z, y, e)), h)  # type: ignore[misc]
        yield f"{name}gradient", what, ratio(likelihood.gradient(h, y), gradient, "float64", 10.0)
        fisher = _fisher(h, limits)
        yield f"{name}curvature", what, ratio(likelihood.curvature(h), fisher, "float64", condition=100.0)
        probes = [np.asarray(likelihood.probe(h, np.broadcast_to(z, h.shape))) for z in sign_patterns(4)]
        mean = np.mean([np.einsum("ni,nj->nij", z, z) for z in probes], axis=0)
        yield f"{name}probe", what, ratio(mean, fisher, "float64", condition=100.0)
        yield from _rows(likelihood, h, y, s2, what)
        v = generator.uniform(0, 1, (6, 2))
        expected = np.einsum("nk,kj->nkj", variance(h[:, 2:] + v / 2, *limits), np.eye(2))
        yield f"{name}aleatoric", what, ratio(likelihood.aleatoric(h, v), expected, "float64")


def _fisher(h: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """E[gᵀg] over y ~ N(m, s²): gradients by complex steps, the expectation by Gauss and Hermite, per target."""
    result, (nodes, weights) = np.zeros((len(h), 4, 4)), HERMITE
    deviation = np.sqrt(variance(h[:, 2:], *limits))
    for a, p in zip(nodes, weights / np.sum(weights)):
        for b, q in zip(nodes, weights / np.sum(weights)):
            y = h[:, :2] + deviation * np.array([a, b])
            g = complex_step_jacobian(lambda z, y=y: np.sum(loss(z, y, limits)), h)  # type: ignore[misc]
            result += p * q * np.einsum("ni,nj->nij", g, g)
    return result


def _rows(likelihood: Any, h: np.ndarray, y: np.ndarray, s2: np.ndarray, what: str) -> Iterator[Measurement]:
    """ω against its definition; ω diag(c, ½) above the Fisher information and the Hessian's diagonal."""
    c, q = np.mean(1 / s2, axis=0), (y - h[:, :2]) ** 2 / s2
    referred = likelihood.referred_to(np.diag([*c, 0.5, 0.5]))
    omega = np.asarray(referred.row_weights(h, y))
    expected = np.maximum(1, np.max(np.concatenate([1 / (s2 * c), q], axis=1), axis=1))
    yield "eq:heteroscedastic-rows", what, ratio(omega, expected, "float64")
    slack = np.concatenate([omega[:, None] * c - 1 / s2, omega[:, None] / 2 - np.maximum(1, q) / 2], axis=1)
    below = np.maximum(-slack, 0)
    yield "eq:heteroscedastic-rows", f"domination, {what}", ratio(below, 0 * below, "float64", norm(omega) * norm(c))


CHECKS = (
    (
        heteroscedastic,
        ("Heteroscedastic",),
        {
            "eq:heteroscedastic-variance": "s² = floor + 1/(e^−ρ + 1/ceiling)",
            "eq:heteroscedastic-loss": "ℓ = −log N(y | m, diag(s²))",
            "eq:heteroscedastic-gradient": "∂ℓ/∂(m, ρ) = ((m − y)/s², ½t(1 − q))",
            "eq:heteroscedastic-curvature": "Fisher information diag(1/s², ½t²) = E[gᵀg]",
            "eq:heteroscedastic-probe": "E[zᵀz] = diag(1/s², ½t²)",
            "eq:heteroscedastic-rows": "ω = max(1, 1/(s²c), q), and it dominates",
            "eq:heteroscedastic-aleatoric": "average noise s²(ρ + v/2)",
        },
    ),
)
