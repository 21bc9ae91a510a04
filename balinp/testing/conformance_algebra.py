"""Conformance of what the method rests on: matrix identities, linear algebra, dtypes, draws, pseudo-targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special

from .conformance_layer import SHAPES, Measurement, norm, ratio
from .oracles import inverse, kronecker, vec
from .reference_network import Signs, categorical_loss, gaussian_loss, sign_patterns, softmax
from .residuals import cholesky_residual, solve_residual
from .strategies import random_layer_problem, random_spd


def _regressions(seed: int) -> Iterator[tuple[np.random.Generator, Any, str]]:
    for i, shape in enumerate(SHAPES):
        problem = random_layer_problem(2000 + 1000 * seed + i, 7, shape, "float64", 10.0, 10.0)
        yield np.random.default_rng([seed, 20, i]), problem, f"{shape[0]} × {shape[1]}"


def kronecker_products(core: Any, seed: int) -> Iterator[Measurement]:
    """vec(D)ᵀ(Σ⁻¹ ⊗ P)vec(D) out of the density; Cov(vec W) out of its traces and row variances."""
    for generator, problem, what in _regressions(seed):
        M, P, sigma = problem.prior.mean, problem.prior.precision, problem.noise_covariance
        q, D = core.MatrixNormal(M, P, sigma), generator.standard_normal(M.shape)
        precision = kronecker(inverse(sigma), P)
        expected = vec(D) @ precision @ vec(D)
        got = -2 * (np.asarray(q.log_density(M + D)) - np.asarray(q.log_density(M)))
        scale = abs(expected) + 20.0 * M.size
        yield "eq:vec-kronecker", what, ratio(got, expected, "float64", scale, float(np.linalg.cond(precision)))
        trace = np.asarray(q.row_covariance_trace) * np.trace(sigma)
        condition = float(np.linalg.cond(P))
        expected = np.trace(kronecker(sigma, inverse(P)))
        yield "eq:matrix-normal", f"trace, {what}", ratio(trace, expected, "float64", condition=condition)
        a = generator.standard_normal((3, len(M)))
        got = np.asarray(q.row_variance(a))[:, None] * np.diagonal(sigma)
        design = [np.kron(np.eye(len(sigma)), row[None, :]) for row in a]
        expected = np.stack([np.diag(d @ kronecker(sigma, inverse(P)) @ d.T) for d in design])
        yield "eq:matrix-normal", f"variances, {what}", ratio(got, expected, "float64", condition=condition)


def woodbury(core: Any, seed: int) -> Iterator[Measurement]:
    """I − A P⁻¹ Aᵀ and |P|/|Λ₀| as log_evidence uses them, against the N × N matrix I + A Λ₀⁻¹ Aᵀ."""
    for _, problem, what in _regressions(seed):
        A, T, M0, precision, _ = problem.dense_arguments
        prior, eye = core.Prior(0 * M0, precision), np.eye(T.shape[1])
        rows = np.eye(len(A)) + A @ inverse(precision) @ A.T
        empty, full = (
            np.asarray(core.log_evidence(core.LayerStatistics.from_batch(A, x), prior, eye)) for x in (0 * T, T)
        )
        condition = float(np.linalg.cond(rows) * np.linalg.cond(precision))
        expected = np.trace(T.T @ np.linalg.solve(rows, T))
        scale = norm(T) ** 2 + abs(float(full)) + 10.0 * T.size
        yield "eq:woodbury", f"inverse, {what}", ratio(2 * (empty - full), expected, "float64", scale, condition)
        expected = T.shape[1] * (len(A) * np.log(2 * np.pi) + np.linalg.slogdet(rows)[1])
        yield "eq:woodbury", f"determinant, {what}", ratio(-2 * empty, expected, "float64", scale, condition)


def bayes_rule(core: Any, seed: int) -> Iterator[Measurement]:
    """log p(T|W) + log p(W) − log p(W|T) = log p(T) at any W."""
    for generator, problem, what in _regressions(seed):
        A, T, M0, precision, sigma = problem.dense_arguments
        prior, sums = core.Prior(M0, precision), core.LayerStatistics.from_batch(A, T)
        posterior, evidence = core.layer_posterior(sums, prior, sigma), core.log_evidence(sums, prior, sigma)
        for W in M0 + generator.standard_normal((2, *M0.shape)):
            terms = (
                np.asarray(core.MatrixNormal(A @ W, np.eye(len(A)), sigma).log_density(T)),
                np.asarray(core.MatrixNormal(M0, precision, sigma).log_density(W)),
                -np.asarray(posterior.log_density(W)),
            )
            scale = float(np.sum(np.abs(terms))) + 10.0 * T.size
            condition = float(np.linalg.cond(precision) * np.linalg.cond(sigma))
            yield "eq:layer-model", what, ratio(evidence, np.sum(terms), "float64", scale, condition)


def linear_algebra(core: Any, seed: int) -> Iterator[Measurement]:
    """Factor, solves and logsumexp; draws are those of the Generator."""
    backend = core.get_backend("numpy")
    for dtype in ("float64", "float32"):
        generator = np.random.default_rng([seed, 21])
        for n in (1, 3, 8):
            matrix = random_spd(generator, n, 30.0, dtype, 2.0)
            right = generator.standard_normal((n, 2)).astype(dtype)
            factor = np.asarray(backend.cholesky(matrix))
            what = f"{n} × {n}, {dtype}"
            yield "eq:cholesky", f"factor, {what}", cholesky_residual(factor, matrix)
            solution = np.asarray(backend.cho_solve(factor, right))
            yield "eq:cholesky", f"solve, {what}", solve_residual(matrix, solution, right)
            half = np.asarray(backend.solve_triangular(factor, right, transposed=True))
            yield "eq:cholesky", f"transposed, {what}", solve_residual(factor.T.copy(), half, right)
            yield "eq:precision", f"dtype of a factor and a solve, {what}", _kept(dtype, factor, solution, half)
        for shift in (0.0, 80.0, -2000.0):
            values = (generator.standard_normal((4, 3)) + shift).astype(dtype)
            expected = special.logsumexp(values.astype(float), axis=1)
            got = ratio(backend.logsumexp(values, axis=1), expected, dtype, 10.0 + abs(shift))
            yield "eq:logsumexp", f"shift {shift:g}, {dtype}", got
        draws = np.asarray(backend.standard_normal(np.random.default_rng(seed), (5, 2), dtype))
        expected = np.random.default_rng(seed).standard_normal((5, 2)).astype(dtype)
        yield "eq:draws", dtype, 0.0 if np.array_equal(draws, expected) and draws.dtype == dtype else np.inf


def _kept(dtype: str, *results: Any) -> float:
    return 0.0 if all(np.asarray(r).dtype == np.dtype(dtype) for r in results) else np.inf


def precision(core: Any, seed: int) -> Iterator[Measurement]:
    """Scalars of NumPy's float64 leave float32 arrays float32."""
    for dtype in ("float64", "float32"):
        generator = np.random.default_rng([seed, 22])
        A, T = (generator.standard_normal((4, k)).astype(dtype) for k in (3, 2))
        sums, factor = core.LayerStatistics.from_batch(A, T), np.float64(0.25)
        q = core.MatrixNormal(np.zeros((3, 2), dtype), np.eye(3, dtype=dtype), np.eye(2, dtype=dtype))
        moved = (sums.scale(factor).gram, sums.decay(sums, factor).cross, q.tempered(factor).column_covariance)
        kept = _kept(dtype, *moved, core.pseudo_targets(T, T, factor))
        yield "eq:precision", f"scalars with {dtype}", kept


def proximal(core: Any, seed: int) -> Iterator[Measurement]:
    """log N(t|aW, Σ) differs between two W as −[gδ + ½δΣ⁻¹δᵀ] does, for S = Σ a matrix or a number."""
    for generator, problem, what in _regressions(seed):
        A, H, _, _, sigma = problem.dense_arguments
        G, W = generator.standard_normal(H.shape), generator.standard_normal((2, A.shape[1], H.shape[1]))
        for S, dense in ((sigma, sigma), (0.3, 0.3 * np.eye(len(sigma)))):
            T = np.asarray(core.pseudo_targets(H, G, S))
            noise = inverse(dense)
            densities = [np.asarray(core.MatrixNormal(A @ w, np.eye(len(A)), dense).log_density(T)) for w in W]
            model = [-np.sum(G * (A @ w - H)) - np.sum((A @ w - H) @ noise * (A @ w - H)) / 2 for w in W]
            scale = float(np.sum(np.abs(densities)) + np.sum(np.abs(model)))
            got = ratio(
                densities[0] - densities[1], model[0] - model[1], "float64", scale, float(np.linalg.cond(dense))
            )
            yield "eq:proximal-target", f"S {np.ndim(S)}-dimensional, {what}", got


def likelihood_bounds(core: Any, seed: int) -> Iterator[Measurement]:
    """ℓ(h + δ) ≤ ℓ(h) + gδ + ½δBδᵀ, with equality for the Gaussian; the covariance of y given h."""
    generator = np.random.default_rng([seed, 23])
    h, labels = 3 * generator.standard_normal((40, 3)), generator.integers(0, 3, 40)
    y, variance = generator.standard_normal(h.shape), np.array([0.2, 1.0, 3.0])
    cases: tuple[tuple[Any, Any, Any], ...] = (
        (core.Gaussian(variance), y, lambda z: gaussian_loss(z, y, variance)),
        (core.Categorical(), labels, lambda z: categorical_loss(z, labels)),
    )
    for likelihood, target, loss in cases:
        what, B = type(likelihood).__name__, np.asarray(likelihood.curvature(h))
        g = np.asarray(likelihood.gradient(h, target))
        for size in (0.1, 1.0, 10.0):
            delta = size * generator.standard_normal(h.shape)
            model = loss(h) + np.sum(g * delta, axis=1) + np.einsum("ni,nij,nj->n", delta, B, delta) / 2
            gap, scale = loss(h + delta) - model, norm(model) + norm(loss(h)) + norm(g) * norm(delta)
            if target is labels:
                gap = np.maximum(gap, 0)
            yield "eq:lower-bound", f"{what}, δ of size {size:g}", ratio(gap, 0 * gap, "float64", scale)
    gaussian = np.broadcast_to(np.diag(variance), (40, 3, 3))
    yield "eq:aleatoric", "Gaussian", ratio(core.Gaussian(variance).aleatoric(h), gaussian, "float64")
    p, one_hot = softmax(h), np.eye(3)
    mean = p @ one_hot
    label = np.einsum("nk,ki,kj->nij", p, one_hot, one_hot) - np.einsum("ni,nj->nij", mean, mean)
    yield "eq:aleatoric", "categorical", ratio(core.Categorical().aleatoric(h), label, "float64", 1.0)


def target_variance(core: Any, seed: int) -> Iterator[Measurement]:
    """Covariances of targets centred at the mean and at the sample, over all sign patterns of the sampled noise."""
    generator, variances = np.random.default_rng([seed, 24]), np.array([0.2, 1.0, 3.0])
    for sigma in (np.diag(variances), random_spd(generator, 3, 10.0, "float64", 0.3)):
        values, vectors = np.linalg.eigh(sigma)
        root = (vectors * np.sqrt(values)) @ vectors.T
        h, y, v = generator.standard_normal(3), generator.standard_normal(3), 0.7
        delta = np.sqrt(v) * sign_patterns(3) @ root  # mean 0, covariance vΣ, exactly
        rows, targets = np.broadcast_to(h, delta.shape), np.broadcast_to(y, delta.shape)
        g = np.asarray(core.Gaussian(variances).gradient(rows + delta, targets))
        X = root @ np.diag(1 / variances) @ root
        for centre, half in ((rows, X), (rows + delta, np.eye(3) - X)):
            T = np.asarray(core.pseudo_targets(centre.copy(), g, sigma))
            left = T - np.mean(T, axis=0)
            expected, what = v * root @ half @ half @ root, "mean" if centre is rows else "sample"
            scale = (1 + norm(X)) ** 2 * norm(sigma) * 10
            got = ratio(left.T @ left / len(T), expected, "float64", scale, 10.0)
            yield "eq:target-variance", f"centred at the {what}", got


def natural_gradient(core: Any, seed: int) -> Iterator[Measurement]:
    """Averaging statistics averages the natural parameters of the posteriors: a natural-gradient step of length β."""
    for generator, problem, what in _regressions(seed):
        A, T, M0, precision, sigma = problem.dense_arguments
        prior = core.Prior(M0, precision)
        old = core.LayerStatistics.from_batch(A, T)
        new = core.LayerStatistics.from_batch(A[:3], generator.standard_normal(T[:3].shape)).scale(2.0)
        eta = [core.layer_posterior(s, prior, sigma).natural_parameters() for s in (old, new, old.decay(new, 0.3))]
        for name, a, b, c in zip(("Σ⁻¹", "P", "PMΣ⁻¹"), *eta):
            a, b = np.asarray(a), np.asarray(b)
            condition = 10.0 * float(np.linalg.cond(precision + A.T @ A) * np.linalg.cond(sigma))
            scale = norm(a) + norm(b) + norm(T) * norm(A) * norm(inverse(sigma))
            got = ratio(c, 0.7 * a + 0.3 * b, "float64", scale, condition)
            yield "eq:natural-gradient", f"{name}, {what}", got


def initial(core: Any, seed: int) -> Iterator[Measurement]:
    """Weights √(2/fan-in) times the draws, biases 0 but for the first layer's; zero without hidden layers."""
    pattern = np.random.default_rng([seed, 25]).standard_normal(4)
    weights = core.MLP((4, 4, 4)).initial_weights(Signs(pattern), "float64", 0.5)
    for l, w in enumerate(weights):
        expected = np.tile(pattern * np.sqrt(2 / 4), (5, 1))
        expected[-1] = 0.5 * pattern if l == 0 else 0
        yield "eq:initial-weights", f"layer {l}", ratio(w, expected, "float64")
    (single,) = core.MLP((4, 4)).initial_weights(Signs(pattern), "float64")
    yield "eq:initial-weights", "no hidden layer", ratio(single, np.zeros((5, 4)), "float64", 1.0)


LAYER = ("MatrixNormal", "Prior", "LayerStatistics", "layer_posterior", "log_evidence")
CHECKS = (
    (
        kronecker_products,
        ("MatrixNormal",),
        {
            "eq:vec-kronecker": "tr(Σ⁻¹DᵀPD) = vec(D)ᵀ(Σ⁻¹ ⊗ P)vec(D)",
            "eq:matrix-normal": "Cov(vec W) = Σ ⊗ P⁻¹",
        },
    ),
    (woodbury, LAYER, {"eq:woodbury": "|I + AΛ₀⁻¹Aᵀ| = |P|/|Λ₀|, its inverse I − AP⁻¹Aᵀ"}),
    (bayes_rule, LAYER, {"eq:layer-model": "log p(T|W) + log p(W) − log p(W|T) = log p(T)"}),
    (
        linear_algebra,
        ("get_backend",),
        {
            "eq:cholesky": "L Lᵀ = P, and solves with it",
            "eq:logsumexp": "log ∑ exp without overflow",
            "eq:draws": "draws are the Generator's, rounded to the dtype",
            "eq:precision": "results keep the dtype of the data",
        },
    ),
    (
        precision,
        ("LayerStatistics", "MatrixNormal", "pseudo_targets"),
        {"eq:precision": "results keep the dtype of the data"},
    ),
    (proximal, ("pseudo_targets", "MatrixNormal"), {"eq:proximal-target": "log N(t|aW, Σ) = −[gδ + ½δΣ⁻¹δᵀ] + const"}),
    (
        likelihood_bounds,
        ("Gaussian", "Categorical"),
        {
            "eq:lower-bound": "ℓ(h + δ) ≤ ℓ(h) + gδ + ½δBδᵀ",
            "eq:aleatoric": "Cov(y | h) = diag(σ²), or diag(p) − ppᵀ",
        },
    ),
    (
        target_variance,
        ("Gaussian", "pseudo_targets"),
        {"eq:target-variance": "Cov T = vΣ½X²Σ½, or vΣ½(I − X)²Σ½ about the sample"},
    ),
    (natural_gradient, LAYER, {"eq:natural-gradient": "averaged sums have averaged natural parameters"}),
    (initial, ("MLP",), {"eq:initial-weights": "weights N(0, 2/fan-in), first biases N(0, s²)"}),
)
