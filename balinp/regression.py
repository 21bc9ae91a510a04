"""One layer: multivariate Bayesian linear regression on pseudo-targets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log, pi
from typing import Any

from .backend import NUMPY, Array, Backend, plain
from .errors import InvalidArgumentError
from .matrix_normal import MatrixNormal
from .statistics import LayerStatistics


@dataclass(frozen=True)
class Prior:
    """The tied prior W ~ MN(M₀, Λ₀⁻¹, Σ): mean M₀ (D, K), precision Λ₀ (D, D); Σ is the layer's noise covariance.
    (eq:prior, eq:layer-model)
    """

    mean: Array
    precision: Array
    backend: Backend = NUMPY

    @classmethod
    def isotropic(cls, mean: Array, precision: Any, backend: Backend = NUMPY) -> Prior:
        """Λ₀ = ``precision`` · I (a number or 0-d array), for a mean of shape (D, K), in the mean's dtype.   (eq:prior)
        (eq:precision)
        """
        xp, d, dtype = backend.xp, len(mean), mean.dtype
        number = precision.astype(dtype) if hasattr(precision, "astype") else xp.full((), precision, dtype=dtype)
        prior = cls(mean, xp.eye(d, dtype=dtype) * number, backend)
        prior.__dict__.update(linear_term=number * mean, log_determinant=d * xp.log(number))  # needs no factorisation
        return prior

    @cached_property
    def linear_term(self) -> Array:
        """Λ₀M₀, (D, K).   (eq:prior)"""
        return self.precision @ self.mean

    @cached_property
    def log_determinant(self) -> Any:
        """log|Λ₀|; raises NotPositiveDefiniteError if Λ₀ is not positive definite.   (eq:prior)"""
        xp, factor = self.backend.xp, self.backend.cholesky(self.precision, "prior precision")
        return 2 * xp.sum(xp.log(xp.diagonal(factor)))


def pseudo_targets(outputs: Array, gradients: Array, step: Array | float) -> Array:
    """T = H − G S, the layer outputs moved along the back-propagated gradients.   (eq:pseudo-targets)

    Shapes: outputs H (N, K), gradients G (N, K) with rows ∂ℓ_n/∂h_n, step S a number α
    (S = αI) or a matrix (K, K); result (N, K).
    (eq:proximal-target, eq:target-variance)
    """
    if getattr(step, "ndim", 0) == 2:
        return outputs - gradients @ step
    return outputs - gradients * plain(step)


def layer_posterior(
    statistics: LayerStatistics, prior: Prior, noise_covariance: Array, backend: Backend = NUMPY
) -> MatrixNormal:
    """Exact posterior of one layer's weights given its regression statistics.

    Implements eq:layer-posterior.  P = Λ₀ + AᵀA,  M = P⁻¹(Λ₀M₀ + AᵀT),  W ~ MN(M, P⁻¹, Σ).

    Shapes: statistics.gram (D, D), statistics.cross (D, K), noise_covariance Σ (K, K);
    result mean (D, K).
    Raises NotPositiveDefiniteError, naming the first failing pivot, if P is not positive definite,
    InvalidArgumentError if the mean is not a number.
    """
    _check_prior(statistics, prior)
    P = prior.precision + statistics.gram  # eq:layer-posterior
    right = prior.linear_term + statistics.cross
    precision = MatrixNormal(right, P, noise_covariance, backend)  # its factor of P serves the mean, then the caller
    mean = backend.cho_solve(precision.row_factor, right)
    backend.refuse_if(
        backend.xp.any(mean != mean),
        lambda: InvalidArgumentError(
            "the posterior mean is not a number: statistics.cross or the prior's mean holds NaN"
        ),
    )
    return precision.with_mean(mean)


def log_evidence(
    statistics: LayerStatistics,
    prior: Prior,
    noise_covariance: Array,
    backend: Backend = NUMPY,
    row_factor: Array | None = None,
    column_factor: Array | None = None,
) -> Array:
    """log p(T) for T ~ MN(A M₀, I + A Λ₀⁻¹ Aᵀ, Σ), in nats, at D × D cost; a 0-d array.   (eq:log-evidence)

    −½[N K log 2π + N log|Σ| + K(log|P| − log|Λ₀|) + tr(Σ⁻¹(TᵀT + M₀ᵀΛ₀M₀ − MᵀPM))], by the determinant lemma and
    Woodbury, with P and M of eq:layer-posterior. Needs statistics.target_gram. ``row_factor`` and ``column_factor``:
    the Cholesky factors of P and Σ, when the caller has them. Raises NotPositiveDefiniteError if P, Λ₀ or Σ is not
    positive definite.   (eq:woodbury, eq:layer-model)
    """
    _check_prior(statistics, prior)
    xp, n, k = backend.xp, statistics.count, statistics.cross.shape[1]
    L = row_factor
    if L is None:
        L = backend.cholesky(prior.precision + statistics.gram, "row_precision")
    R = column_factor
    if R is None:
        R = backend.cholesky(noise_covariance, "noise_covariance")
    white = backend.solve_triangular(L, prior.linear_term + statistics.cross)  # eq:log-evidence: MᵀPM = whiteᵀ white
    quadratic = statistics.target_gram + prior.mean.T @ prior.linear_term - white.T @ white
    rows = 2 * xp.sum(xp.log(xp.diagonal(L))) - prior.log_determinant  # eq:woodbury: log |I + AΛ₀⁻¹Aᵀ|
    columns = 2 * xp.sum(xp.log(xp.diagonal(R)))
    return -(n * (k * log(2 * pi) + columns) + k * rows + xp.trace(backend.cho_solve(R, quadratic))) / 2


def _check_prior(statistics: LayerStatistics, prior: Prior) -> None:
    if prior.mean.shape != statistics.cross.shape or prior.precision.shape != statistics.gram.shape:
        raise InvalidArgumentError(
            f"prior must have mean {statistics.cross.shape} and precision {statistics.gram.shape}, "
            f"got {prior.mean.shape} and {prior.precision.shape}"
        )
