"""Dense, slow, obvious oracles: every Kronecker product is formed, every covariance inverted, all in float64.

They share no code with the core and use the textbook form that has the fewest steps, not the cheapest. vec stacks
columns, so W ~ MN(M, P⁻¹, Σ) is vec W ~ N(vec M, Σ ⊗ P⁻¹).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


def vec(matrix: Any) -> np.ndarray:
    """The columns of ``matrix`` (D, K) under one another: (D·K,)."""
    return np.asarray(matrix, dtype=np.float64).reshape(-1, order="F")


def unvec(vector: Any, rows: int) -> np.ndarray:
    """The matrix (rows, K) with ``vec`` equal to ``vector`` (rows·K,)."""
    return np.asarray(vector, dtype=np.float64).reshape(rows, -1, order="F")


def inverse(matrix: Any) -> np.ndarray:
    """The inverse of a symmetric positive definite matrix (D, D), in float64, through its eigenvalues.

    An LU inverse would lose the log determinant by the condition number squared; this loses it once.
    """
    values, vectors = np.linalg.eigh(np.asarray(matrix, dtype=np.float64))
    return (vectors / values) @ vectors.T


def kronecker(columns: Any, rows: Any) -> np.ndarray:
    """columns ⊗ rows, (K·D, K·D) for columns (K, K) and rows (D, D), in float64.   (eq:vec-kronecker)"""
    return np.kron(np.asarray(columns, dtype=np.float64), np.asarray(rows, dtype=np.float64))


@dataclass(frozen=True)
class DenseGaussian:
    """N(mean, precision⁻¹) of a vector: mean (n,), precision (n, n)."""

    mean: np.ndarray
    precision: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """The covariance (n, n)."""
        return inverse(self.precision)

    @property
    def linear(self) -> np.ndarray:
        """The second natural parameter, precision · mean, (n,).   (eq:natural-parameters)"""
        return self.precision @ self.mean

    def log_determinant(self) -> float:
        """log|covariance|.   (eq:log-determinant)"""
        return -float(np.linalg.slogdet(self.precision)[1])

    def log_density(self, x: np.ndarray) -> float:
        """log N(x | mean, covariance) in nats, by scipy.stats; x (n,).   (eq:log-density)"""
        covariance = stats.Covariance.from_precision(self.precision)
        return float(stats.multivariate_normal(self.mean, covariance).logpdf(x))

    def entropy(self) -> float:
        """½ log|2πe · covariance| in nats.   (eq:entropy)"""
        return (len(self.mean) * (1 + np.log(2 * np.pi)) + self.log_determinant()) / 2

    def kl_divergence(self, other: DenseGaussian) -> float:
        """KL(self ‖ other) in nats.   (eq:kl)"""
        d = self.mean - other.mean
        trace = np.trace(other.precision @ self.covariance)
        dets = other.log_determinant() - self.log_determinant()
        return float(trace + d @ other.precision @ d - len(d) + dets) / 2


def dense_normal(mean: Any, row_precision: Any, column_covariance: Any) -> DenseGaussian:
    """vec W for W ~ MN(M, P⁻¹, Σ): mean (D, K), P (D, D), Σ (K, K).   (eq:matrix-normal)"""
    return DenseGaussian(vec(mean), kronecker(inverse(column_covariance), row_precision))


def matrix_normal_log_density(w: Any, mean: Any, row_precision: Any, column_covariance: Any) -> float:
    """log p(W) by scipy.stats.matrix_normal, in nats; w and mean (D, K). For well-conditioned P and Σ only, as
    scipy takes small eigenvalues for zero.   (eq:log-density)
    """
    sigma = np.asarray(column_covariance, dtype=np.float64)
    distribution = stats.matrix_normal(np.asarray(mean, dtype=np.float64), inverse(row_precision), sigma)
    return float(distribution.logpdf(np.asarray(w, dtype=np.float64)))


def dense_posterior(
    inputs: Any,
    targets: Any,
    prior_mean: Any,
    prior_precision: Any,
    noise_covariance: Any,
    weights: Any = None,
) -> DenseGaussian:
    """The posterior of vec W by Bayes' rule for vec T = (I ⊗ A) vec W + noise.   (eq:layer-posterior)

    Noise covariance Σ ⊗ diag(1/w), prior precision Σ⁻¹ ⊗ Λ₀: written out, with no use of their common factor.
    Shapes: inputs A (N, D), targets T (N, K), prior_mean (D, K), prior_precision (D, D), noise_covariance (K, K),
    weights w (N,).
    """
    A, k = np.asarray(inputs, dtype=np.float64), len(noise_covariance)
    w = np.ones(len(A)) if weights is None else np.asarray(weights, dtype=np.float64)
    design = np.kron(np.eye(k), A)
    noise = kronecker(inverse(noise_covariance), np.diag(w))
    prior = kronecker(inverse(noise_covariance), prior_precision)
    precision = prior + design.T @ noise @ design
    linear = prior @ vec(prior_mean) + design.T @ noise @ vec(targets)
    return DenseGaussian(np.linalg.solve(precision, linear), precision)


def dense_evidence(inputs: Any, targets: Any, prior_mean: Any, prior_precision: Any, noise_covariance: Any) -> float:
    """log p(T) in nats from the N·K × N·K Gaussian N(vec A M₀, Σ ⊗ (I + A Λ₀⁻¹ Aᵀ)).   (eq:log-evidence)

    Shapes as in ``dense_posterior``; 0 when there are no rows. Raises LinAlgError where the condition numbers of Σ and
    of I + A Λ₀⁻¹ Aᵀ together are beyond float64.
    """
    A = np.asarray(inputs, dtype=np.float64)
    if not len(A):
        return 0.0
    rows = np.eye(len(A)) + A @ inverse(prior_precision) @ A.T
    covariance = kronecker(noise_covariance, rows)
    mean = vec(A @ np.asarray(prior_mean, dtype=np.float64))
    factored = stats.Covariance.from_cholesky(np.linalg.cholesky(covariance))
    return float(stats.multivariate_normal(mean, factored).logpdf(vec(targets)))


def dense_predictive(gaussian: DenseGaussian, a: Any, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (K,) and covariance (K, K) of a W for one row a (D,) and vec W ~ ``gaussian``.   (eq:layer-predictive)"""
    design = np.kron(np.eye(outputs), np.asarray(a, dtype=np.float64)[None, :])
    return design @ gaussian.mean, design @ gaussian.covariance @ design.T


def independent_posterior(curvature: Any, gram: Any, prior_precision: float) -> DenseGaussian:
    """N(0, (B ⊗ U + τI)⁻¹): a layer's centred posterior under the independent prior, not Kronecker.

    Shapes: curvature B (K, K), gram U (D, D), prior_precision τ > 0.   (eq:kronecker-projection)
    """
    precision = kronecker(curvature, gram)
    return DenseGaussian(np.zeros(len(precision)), precision + prior_precision * np.eye(len(precision)))


def projection_objective(
    row_precision: Any, column_precision: Any, curvature: Any, gram: Any, prior_precision: float
) -> float:
    """KL(q ‖ p) in nats for q = N(0, (Q ⊗ P)⁻¹) and p = N(0, (B ⊗ U + τI)⁻¹).   (eq:kronecker-projection)

    Shapes: row_precision P and gram U (D, D), column_precision Q and curvature B (K, K).
    """
    precision = kronecker(column_precision, row_precision)
    q = DenseGaussian(np.zeros(len(precision)), precision)
    return q.kl_divergence(independent_posterior(curvature, gram, prior_precision))


@dataclass(frozen=True)
class ProjectionError:
    """The projection's fixed point (b, κ, π), the ratios r_ij of projected to exact precision (K, D), KL and its bound
    in nats."""

    b: float
    kappa: float
    pi: float
    ratios: np.ndarray
    divergence: float
    bound: float


def projection_error(curvature: Any, gram: Any, prior_precision: float) -> ProjectionError:
    """How far the nearest matrix-normal is from N(0, (B ⊗ U + τI)⁻¹), from eigenvalues alone.   (eq:projection-error)

    Shapes: curvature B (K, K) positive definite, gram U (D, D), prior_precision τ > 0. The best b for a given κ and the
    κ of that b are found in turn; each exchange lowers the divergence. Raises ArithmeticError if 10 000 do not settle.
    """
    beta, u = (np.maximum(np.linalg.eigvalsh(np.asarray(x, dtype=np.float64)), 0.0) for x in (curvature, gram))
    b = float(np.mean(beta))
    for _ in range(10_000):
        pi = prior_precision / b
        k = u / (u + pi)
        kappa, before = float(np.mean(k)), b
        sigma = 1 / (kappa * beta + (1 - kappa) * b)
        b = float(beta @ sigma / np.sum(sigma))
        if abs(b - before) <= 64 * np.finfo(float).eps * b:
            break
    else:
        raise ArithmeticError(f"b did not settle: {before!r}, then {b!r}")
    e = beta / b - 1
    ratios = (1 + kappa * e)[:, None] / (1 + k * e[:, None])
    chord = np.log1p(kappa * e) - kappa * np.log1p(e)
    return ProjectionError(
        b, kappa, pi, ratios, float(np.sum(np.log(ratios))) / 2, len(u) * max(float(np.sum(chord)), 0.0) / 2
    )


def dense_effective_parameters(curvature: Any, gram: Any, prior_precision: float) -> float:
    """MacKay's γ = ∑ λ/(λ + τ) over the eigenvalues λ of B ⊗ U; shapes as above.   (eq:effective-parameters)"""
    values = np.linalg.eigvalsh(kronecker(curvature, gram))
    return float(np.sum(values / (values + prior_precision)))
