"""Conformance of one layer: the matrix normal, the statistics of its regression, its posterior and its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .oracles import (
    DenseGaussian,
    dense_evidence,
    dense_normal,
    dense_posterior,
    dense_predictive,
    kronecker,
    vec,
)
from .residuals import comparison_residual
from .strategies import LayerProblem, random_layer_problem, random_spd

Measurement = tuple[str, str, float]
SHAPES = ((1, 1), (2, 3), (4, 2), (3, 3))  # (D, K): the square one is where a wrong transpose has the right shape
DTYPES = ("float64", "float32")


def norm(values: Any) -> float:
    """The Frobenius norm, in float64."""
    return float(np.linalg.norm(np.asarray(values, dtype=np.float64)))


def ratio(computed: Any, expected: Any, dtype: str, scale: float = 0.0, condition: float = 1.0) -> float:
    """``comparison_residual`` in eps of ``dtype``: an array must have that dtype, a single number may have any.

    A sum of up to 30 terms lies behind every entry. Raises AssertionError for a wrong dtype or shape.
    """
    got = np.asarray(computed)
    if got.ndim and got.dtype != np.dtype(dtype):
        raise AssertionError(f"result has dtype {got.dtype}, the arguments {dtype}")
    return comparison_residual(got.astype(dtype), np.asarray(expected), condition, scale, size=30)


def _instances(seed: int) -> Iterator[tuple[np.random.Generator, tuple[int, int], str, str]]:
    for i, shape in enumerate(SHAPES):
        for dtype in DTYPES:
            yield np.random.default_rng([seed, i]), shape, dtype, f"{shape[0]} × {shape[1]}, {dtype}"


def _normals(core: Any, seed: int) -> Iterator[tuple[Any, DenseGaussian, np.random.Generator, float, str, str]]:
    """(the core's matrix normal, the dense Gaussian of its vec, Generator, condition number, dtype, what)."""
    for generator, shape, dtype, what in _instances(seed):
        q = _random_normal(core, generator, shape, dtype)
        dense = dense_normal(q.mean, q.row_precision, q.column_covariance)
        yield q, dense, generator, float(np.linalg.cond(dense.precision)), dtype, what


def _random_normal(core: Any, generator: np.random.Generator, shape: tuple[int, int], dtype: str) -> Any:
    mean = generator.standard_normal(shape).astype(dtype)
    P, sigma = (random_spd(generator, n, c, dtype, s) for n, c, s in zip(shape, (30.0, 10.0), (3.0, 0.4)))
    return core.MatrixNormal(mean, P, sigma)


def densities(core: Any, seed: int) -> Iterator[Measurement]:
    """Log determinant, density, entropy and KL divergence against the dense Gaussian of vec W."""
    for q, dense, generator, condition, dtype, what in _normals(core, seed):
        size = q.mean.size * 10.0  # logs of order one, DK of them
        yield "eq:log-determinant", what, ratio(q.log_determinant(), dense.log_determinant(), dtype, size, condition)
        yield "eq:entropy", what, ratio(q.entropy(), dense.entropy(), dtype, size, condition)
        w = (q.mean + generator.standard_normal(q.mean.shape)).astype(dtype)
        expected = dense.log_density(vec(w))
        yield "eq:log-density", what, ratio(q.log_density(w), expected, dtype, size + abs(expected), condition)
        other = _random_normal(core, generator, q.mean.shape, dtype)
        dense_other = dense_normal(other.mean, other.row_precision, other.column_covariance)
        divergence = dense.kl_divergence(dense_other)
        yield "eq:kl", what, ratio(q.kl_divergence(other), divergence, dtype, size + divergence, condition)


def sampling(core: Any, seed: int) -> Iterator[Measurement]:
    """A sample is M + F z: F is read off unit draws, and F Fᵀ must be the covariance Σ ⊗ P⁻¹ of vec W."""
    for q, dense, generator, condition, dtype, what in _normals(core, seed):
        units = np.eye(q.mean.size, dtype=dtype).reshape(-1, *q.mean.shape)
        moved = np.asarray(q.sample(units))
        F = np.stack([vec(w) for w in moved - np.asarray(q.mean)], axis=1)
        scale = norm(F) * (norm(F) + norm(q.mean))
        got = (F @ F.T).astype(dtype)
        yield "eq:sampling", f"covariance, {what}", ratio(got, dense.covariance, dtype, scale, condition)
        z = generator.standard_normal(q.mean.shape).astype(dtype)
        expected = np.asarray(q.mean, dtype=np.float64) + np.einsum("s,sdk->dk", z.ravel(), moved - np.asarray(q.mean))
        yield "eq:sampling", f"linearity, {what}", ratio(q.sample(z), expected, dtype, scale + norm(z), condition)


def natural_parameters(core: Any, seed: int) -> Iterator[Measurement]:
    """Precision Σ⁻¹ ⊗ P and linear term vec(P M Σ⁻¹), there and back."""
    name = "eq:natural-parameters"
    for q, dense, _, condition, dtype, what in _normals(core, seed):
        columns, rows, linear = (np.asarray(part) for part in q.natural_parameters())
        got = kronecker(columns, rows).astype(dtype)
        yield name, f"precision, {what}", ratio(got, dense.precision, dtype, condition=condition)
        scale = norm(dense.precision) * norm(dense.mean)
        yield name, f"linear term, {what}", ratio(vec(linear).astype(dtype), dense.linear, dtype, scale, condition)
        back = core.MatrixNormal.from_natural_parameters(columns, rows, linear)
        yield name, f"mean and back, {what}", ratio(back.mean, q.mean, dtype, condition=condition)
        sigma = ratio(back.column_covariance, q.column_covariance, dtype, condition=condition)
        yield name, f"column covariance and back, {what}", sigma


def layer_predictive(core: Any, seed: int) -> Iterator[Measurement]:
    """Mean and covariance of a W for rows a."""
    for q, dense, generator, condition, dtype, what in _normals(core, seed):
        rows = generator.standard_normal((3, len(q.mean))).astype(dtype)
        means, covariances = (np.asarray(part) for part in q.predictive(rows))
        for a, mean, covariance in zip(rows, means, covariances):
            m, V = dense_predictive(dense, a, q.mean.shape[1])
            yield "eq:layer-predictive", f"mean, {what}", ratio(mean, m, dtype, norm(a) * norm(q.mean))
            yield "eq:layer-predictive", f"covariance, {what}", ratio(covariance, V, dtype, condition=condition)


def tempering(core: Any, seed: int) -> Iterator[Measurement]:
    """Another covariance or mean after everything of the first was computed: nothing stale may be handed on."""
    for q, dense, generator, condition, dtype, what in _normals(core, seed):
        z, w, mean = (generator.standard_normal(q.mean.shape).astype(dtype) for _ in range(3))
        q.log_density(w), q.sample(z), q.entropy()  # whatever a port keeps, it has now
        for changed, centre, factor in ((q.tempered(0.25), q.mean, 0.25), (q.with_mean(mean), mean, 1.0)):
            expected = DenseGaussian(vec(centre), dense.precision / factor).log_density(vec(w))
            scale = abs(expected) + 10.0 * q.mean.size
            got = ratio(changed.log_density(w), expected, dtype, scale, condition)
            yield "eq:tempering", f"density, covariance × {factor}, {what}", got
            moved = factor**-0.5 * (np.asarray(changed.sample(z), dtype=np.float64) - np.asarray(centre))
            start = np.asarray(q.sample(z), dtype=np.float64) - np.asarray(q.mean)
            got = ratio(moved.astype(dtype), start, dtype, norm(centre) + norm(q.mean), condition)
            yield "eq:tempering", f"deviation, covariance × {factor}, {what}", got


def _problems(seed: int) -> Iterator[tuple[LayerProblem, str, str]]:
    """Regressions with fewer rows than inputs, more, and none."""
    for i, shape in enumerate(SHAPES):
        for rows in (0, 2, 12):
            for dtype in DTYPES:
                problem = random_layer_problem(1000 * seed + i, rows, shape, dtype, 10.0, 10.0)
                yield problem, dtype, f"{rows} rows, {shape[0]} × {shape[1]}, {dtype}"


def _sums(statistics: Any) -> tuple[Any, ...]:
    return statistics.count, statistics.gram, statistics.cross, statistics.target_gram, statistics.curvature


def _dense_sums(A: np.ndarray, T: np.ndarray, w: np.ndarray, Z: np.ndarray) -> tuple[Any, ...]:
    A, T, Z = (np.asarray(x, dtype=np.float64) for x in (A, T, Z))
    weighted = np.diag(np.asarray(w, dtype=np.float64))
    return float(np.trace(weighted)), A.T @ weighted @ A, A.T @ weighted @ T, T.T @ weighted @ T, Z.T @ weighted @ Z


def statistics(core: Any, seed: int) -> Iterator[Measurement]:
    """The sums of weighted rows, and +, scale and decay of them."""
    names = ("count", "gram", "cross", "target_gram", "curvature")
    for problem, dtype, what in _problems(seed):
        generator, (A, T) = problem.generator(), (problem.inputs, problem.targets)
        w, Z = generator.integers(0, 4, len(A)).astype(dtype), generator.standard_normal(T.shape).astype(dtype)
        a = core.LayerStatistics.from_batch(A, T, weights=w, probes=Z)
        b = core.LayerStatistics.from_batch(A[: len(A) // 2], T[: len(A) // 2])
        left, half = _dense_sums(A, T, w, Z), len(A) // 2
        right = _dense_sums(A[:half], T[:half], np.ones(half), 0 * T[:half])
        scale = 3 * (norm(A) + norm(T) + norm(Z) + 1) ** 2
        cases: tuple[tuple[str, str, Any, Callable[[Any, Any], Any]], ...] = (
            ("eq:statistics", "sums", a, lambda x, y: x),
            ("eq:block-sum", "a + b", a + b, lambda x, y: x + y),
            ("eq:block-sum", "a twice", a.scale(2.0), lambda x, y: 2 * x),
            ("eq:ema", "decay of a", a.decay(b, 0.3), lambda x, y: 0.7 * x + 0.3 * y),
        )
        for statement, operation, got, f in cases:
            for name, value, x, y in zip(names, _sums(got), left, right):
                yield statement, f"{name} of {operation}, {what}", ratio(value, f(x, y), dtype, scale)


def prior(core: Any, seed: int) -> Iterator[Measurement]:
    """Λ₀M₀ and log|Λ₀|, of any precision and of a multiple of the identity."""
    for problem, dtype, what in _problems(seed):
        M = problem.prior.mean
        for made in (core.Prior(M, problem.prior.precision), core.Prior.isotropic(M, 0.3)):
            L = np.asarray(made.precision, dtype=np.float64)
            scale = norm(L) * norm(M)
            yield "eq:prior", f"Λ₀M₀, {what}", ratio(made.linear_term, L @ M.astype(np.float64), dtype, scale)
            expected = np.linalg.slogdet(L)[1]
            yield "eq:prior", f"log|Λ₀|, {what}", ratio(made.log_determinant, expected, dtype, 10.0, 10.0)
        identity = 0.3 * np.eye(len(M))
        yield "eq:prior", f"isotropic Λ₀, {what}", ratio(core.Prior.isotropic(M, 0.3).precision, identity, dtype)


def pseudo_targets(core: Any, seed: int) -> Iterator[Measurement]:
    """H − G S for a matrix and for a number."""
    for problem, dtype, what in _problems(seed):
        H, S = problem.targets, problem.noise_covariance
        G = problem.generator().standard_normal(H.shape).astype(dtype)
        for step, dense in ((S, S.astype(np.float64)), (0.3, 0.3 * np.eye(len(S)))):
            expected = H - G.astype(np.float64) @ dense
            got = ratio(core.pseudo_targets(H, G, step), expected, dtype, norm(H) + norm(G) * norm(dense))
            yield "eq:pseudo-targets", f"S {np.ndim(step)}-dimensional, {what}", got


def layer_posterior(core: Any, seed: int) -> Iterator[Measurement]:
    """Posterior and evidence of one layer against Bayes' rule for vec W, unweighted and with weighted rows."""
    for problem, dtype, what in _problems(seed):
        A, T, M0, precision, sigma = problem.dense_arguments
        prior = core.Prior(M0, precision)
        w = problem.generator().integers(0, 4, len(A)).astype(dtype)
        for weights in (None, w):
            sums = core.LayerStatistics.from_batch(A, T, weights=weights)
            q = core.layer_posterior(sums, prior, sigma)
            dense = dense_posterior(A, T, M0, precision, sigma, weights)
            condition = float(np.linalg.cond(dense.precision))
            mean = ratio(vec(q.mean).astype(dtype), dense.mean, dtype, problem.term_scale, condition)
            yield "eq:layer-posterior", f"mean, {what}", mean
            columns = np.linalg.inv(np.asarray(q.column_covariance, dtype=np.float64))
            rows = kronecker(columns, q.row_precision).astype(dtype)
            yield "eq:layer-posterior", f"precision, {what}", ratio(rows, dense.precision, dtype, condition=condition)
            point = (np.asarray(q.mean) + 1).astype(dtype)
            density = dense_normal(q.mean, q.row_precision, q.column_covariance).log_density(vec(point))
            got = q.log_density(point)  # by whatever factors the posterior was handed
            own = ratio(got, density, dtype, abs(density) + 10.0 * point.size, condition)
            yield "eq:layer-posterior", f"its own density, {what}", own
        sums = core.LayerStatistics.from_batch(A, T)
        evidence = dense_evidence(A, T, M0, precision, sigma)
        scale = abs(evidence) + 10.0 * (T.size + M0.size) + (norm(T) ** 2 + norm(M0) ** 2) * norm(np.linalg.inv(sigma))
        value = core.log_evidence(sums, prior, sigma)
        yield "eq:log-evidence", what, ratio(value, evidence, dtype, scale, condition)


NORMAL = ("MatrixNormal",)
CHECKS = (
    (
        densities,
        NORMAL,
        {
            "eq:log-determinant": "log|Cov(vec W)| = D log|Σ| − K log|P|",
            "eq:entropy": "entropy = ½[DK(1 + log 2π) + log|Cov|]",
            "eq:log-density": "log p(W) is that of vec W ~ N(vec M, Σ ⊗ P⁻¹)",
            "eq:kl": "KL divergence is that of the dense Gaussians of vec W",
        },
    ),
    (sampling, NORMAL, {"eq:sampling": "W = M + L⁻ᵀ Z Rᵀ has covariance Σ ⊗ P⁻¹"}),
    (natural_parameters, NORMAL, {"eq:natural-parameters": "natural parameters are (Σ⁻¹ ⊗ P, vec(P M Σ⁻¹))"}),
    (layer_predictive, NORMAL, {"eq:layer-predictive": "a W ~ N(a M, (a P⁻¹ aᵀ) Σ)"}),
    (tempering, NORMAL, {"eq:tempering": "tempering multiplies the covariance, and nothing else"}),
    (
        statistics,
        ("LayerStatistics",),
        {
            "eq:statistics": "sums are ∑w, AᵀA, AᵀT, TᵀT, ZᵀZ over weighted rows",
            "eq:block-sum": "statistics of all rows = the sum of the blocks'",
            "eq:ema": "moving average (1 − β)·old + β·(N/m)·new",
        },
    ),
    (prior, ("Prior",), {"eq:prior": "the prior's terms are Λ₀M₀ and log|Λ₀|"}),
    (pseudo_targets, ("pseudo_targets",), {"eq:pseudo-targets": "T = H − G S"}),
    (
        layer_posterior,
        ("LayerStatistics", "Prior", "layer_posterior", "log_evidence"),
        {
            "eq:layer-posterior": "M = P⁻¹(Λ₀M₀ + AᵀT), P = Λ₀ + AᵀA",
            "eq:log-evidence": "log p(T), T ~ MN(A M₀, I + A Λ₀⁻¹ Aᵀ, Σ)",
        },
    ),
)
