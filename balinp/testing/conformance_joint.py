"""Conformance of the joint regression: its products, its solver, its step and its count, against dense computations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from .conformance_layer import DTYPES, Measurement, norm, ratio
from .oracles import inverse, unvec, vec
from .reference_network import ReferenceNetwork

WIDTHS = ((3, 2), (2, 4, 1), (3, 3, 3, 3))
TAU, DAMPING = (0.02, 0.03), 0.3


def _jacobian(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """∂h_L/∂(vec W_1, vec W_2, …) of a tanh network, row by row: (N, K_L, all weights)."""
    network, wide = ReferenceNetwork("tanh"), [w.astype(float) for w in weights]
    inputs = network.forward(wide, x.astype(float)).inputs
    parts = [np.einsum("nik,nd->nikd", J, a) for J, a in zip(network.jacobians(wide, x.astype(float)), inputs)]
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)


def _flat(layers: Any, dtype: Any = float) -> np.ndarray:
    return np.concatenate([vec(part) for part in layers]).astype(dtype)


def _network(
    seed: int, widths: tuple[int, ...], n: int = 9
) -> tuple[np.random.Generator, list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng([seed, len(widths), 5])
    return (
        rng,
        [rng.standard_normal((d + 1, k)) for d, k in zip(widths, widths[1:])],
        rng.standard_normal((n, widths[0])),
    )


def products(core: Any, seed: int) -> Iterator[Measurement]:
    """dH_L, and H V with row weights, for two directions side by side."""
    for widths, dtype in itertools.product(WIDTHS, DTYPES):
        rng, weights, x = _network(seed, widths)
        directions, w = [rng.standard_normal((2, *m.shape)) for m in weights], rng.uniform(0.5, 2, len(x))
        mlp, variance = core.MLP(widths, "tanh"), np.linspace(0.5, 1, widths[-1])
        J, what = _jacobian(weights, x), f"{widths}, {dtype}"
        H = np.einsum("n,nip,i,niq->pq", w, J, 1 / variance, J)
        given = [[part.astype(dtype) for part in parts] for parts in (weights, directions)]
        x_given = x.astype(dtype)
        changes = mlp.pushforward(given[0], mlp.forward(given[0], x_given), given[1])
        growth = 10 * float(np.prod([1 + norm(m) for m in weights]))
        likelihood, rest = core.Gaussian(variance.astype(dtype)), (x_given, core.Settings(), w.astype(dtype))
        images = core.curvature_product(mlp, likelihood, *given, *rest)
        for s in range(2):
            v = _flat([part[s] for part in directions])
            yield "eq:pushforward", what, ratio(np.asarray(changes)[s], J @ v, dtype, growth)
            got = _flat([np.asarray(part)[s] for part in images], dtype)
            yield "eq:curvature-product", what, ratio(got, H @ v, dtype, norm(H) * norm(v) * growth)


def solver(core: Any, seed: int) -> Iterator[Measurement]:
    """Two systems side by side, after more steps than unknowns."""
    rng, shapes = np.random.default_rng([seed, 6]), ((3, 2), (2, 1))

    def definite(n: int) -> np.ndarray:
        a = rng.standard_normal((2 * n, n))
        matrix: np.ndarray = a.T @ a / n + np.eye(n)
        return matrix

    A = definite(8)
    posteriors = [core.MatrixNormal(np.zeros(s), definite(s[0]), definite(s[1])) for s in shapes]
    right = [rng.standard_normal((2, *s)) for s in shapes]

    def product(v: Any) -> list[np.ndarray]:
        images = [A @ _flat([np.asarray(part)[s] for part in v]) for s in range(2)]
        return [np.stack([unvec(i[:6], 3) for i in images]), np.stack([unvec(i[6:], 2) for i in images])]

    found = core.conjugate_gradients(product, right, posteriors, 16)
    for s in range(2):
        x = np.linalg.solve(A, _flat([r[s] for r in right]))
        got = _flat([np.asarray(part)[s] for part in found])
        yield "eq:conjugate-gradients", f"system {s}", ratio(got, x, "float64", norm(x), float(np.linalg.cond(A)))


def regression(core: Any, seed: int) -> Iterator[Measurement]:
    """The step against a dense solve; γ_l, for every pattern of signs, against a dense inverse."""
    widths = (1, 2, 1)
    rng, weights, x = _network(seed, widths)
    mlp, likelihood, settings = core.MLP(widths, "tanh"), core.Gaussian(np.array([0.5])), core.Settings()
    J, tau = _jacobian(weights, x)[:, 0], np.repeat(TAU, [w.size for w in weights])
    H, slopes = 2 * J.T @ J, [rng.standard_normal(w.shape) for w in weights]
    posteriors = [core.MatrixNormal(w, np.eye(len(w)), np.eye(w.shape[1])) for w in weights]

    def joint(signs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        product = lambda v: core.curvature_product(mlp, likelihood, weights, v, x, settings, None)  # noqa: E731
        steps, counts = core.joint_regression(product, slopes, TAU, DAMPING, signs, posteriors)
        return _flat(steps), np.array([float(count) for count in counts])

    damped = H + np.diag(tau) + DAMPING * np.eye(7)
    expected, condition = np.linalg.solve(damped, -_flat(slopes)), float(np.linalg.cond(damped))
    yield "eq:joint-step", "step", ratio(joint(weights)[0], expected, "float64", norm(expected), condition)
    patterns = [np.array(p) for p in itertools.product((-1.0, 1.0), repeat=7)]
    inverted, least = inverse(H + np.diag(tau)), 0.01 * np.array([4, 3])
    counts = np.array([joint([unvec(p[:4], 2), unvec(p[4:], 3)])[1] for p in patterns])
    terms = np.array([p * tau * (inverted @ p) for p in patterns])
    exact = np.stack([4 - terms[:, :4].sum(axis=1), 3 - terms[:, 4:].sum(axis=1)], axis=1)
    condition = float(np.linalg.cond(H + np.diag(tau)))
    single = ratio(counts, np.maximum(exact, least), "float64", 7.0, condition)
    yield "eq:joint-parameters", "of every pattern of signs, cut below", single


def posterior(core: Any, seed: int) -> Iterator[Measurement]:
    """H with row weights; variances and draws at a heat against a dense inverse."""
    for widths, dtype in itertools.product(WIDTHS, DTYPES):
        rng, weights, x = _network(seed, widths)
        w, mlp, variance = rng.uniform(0.5, 2, len(x)), core.MLP(widths, "tanh"), np.linspace(0.5, 1, widths[-1])
        J, what = _jacobian(weights, x), f"{widths}, {dtype}"
        growth, heat = 10 * float(np.prod([1 + norm(m) for m in weights])), 0.3
        given = [part.astype(dtype) for part in weights]
        rest = (x.astype(dtype), core.Settings(), w.astype(dtype))
        H = np.asarray(core.joint_precision(mlp, core.Gaussian(variance.astype(dtype)), given, *rest))
        expected = np.einsum("n,nip,i,niq->pq", w, J, 1 / variance, J)
        yield "eq:joint-posterior", f"H, {what}", ratio(H.astype(dtype), expected, dtype, norm(expected) * growth)
        taus = [0.5 + layer for layer in range(len(weights))]
        precision = expected / heat + np.diag(np.repeat(taus, [m.size for m in weights]))
        inverted, condition = inverse(precision), float(np.linalg.cond(precision))
        found = core.JointPosterior.of(expected, taus, mlp.shapes, mlp.backend)
        kept = heat / (heat + np.asarray(found.eigenvalues))
        v = np.einsum("nkp,pq,nkq->nk", J, inverted, J)
        got = np.asarray(found.shares(J)) @ kept
        yield "eq:joint-posterior", f"variances, {what}", ratio(got, v, "float64", norm(v), condition)
        layers = [np.asarray(part) for part in found.deviations(np.eye(len(H)), heat)]
        roots = np.stack([_flat([part[s] for part in layers]) for s in range(len(H))])
        single = ratio(roots.T @ roots, inverted, "float64", norm(inverted), condition)
        yield "eq:joint-posterior", f"draws, {what}", single


CHECKS = (
    (
        posterior,
        ("MLP", "Gaussian", "Settings", "joint_precision", "JointPosterior"),
        {"eq:joint-posterior": "C(h) = (H/h + diag τ)⁻¹ = V diag(h/(h + λ)) Vᵀ"},
    ),
    (
        products,
        ("MLP", "Gaussian", "Settings", "curvature_product"),
        {
            "eq:pushforward": "dH_l = A_l V_l + (φ′ ⊙ dH_{l−1}) W̃_l",
            "eq:curvature-product": "(HV)_l = ∑ w_n a_lᵀ(dh B J_l)",
        },
    ),
    (
        solver,
        ("MatrixNormal", "conjugate_gradients"),
        {"eq:conjugate-gradients": "A X = R after as many steps as unknowns"},
    ),
    (
        regression,
        ("MLP", "Gaussian", "Settings", "MatrixNormal", "curvature_product", "joint_regression"),
        {
            "eq:joint-step": "(H + diag τ + λ) V = −slopes",
            "eq:joint-parameters": "γ_l = D K − τ_l zᵀ(Λ⁻¹z)_l, at least a hundredth of D K",
        },
    ),
)
