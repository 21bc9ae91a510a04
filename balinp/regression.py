"""One layer: multivariate Bayesian linear regression on pseudo-targets."""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi

from .backend import NUMPY, Array, Backend
from .errors import InvalidArgumentError
from .matrix_normal import MatrixNormal
from .statistics import LayerStatistics


@dataclass(frozen=True)
class Prior:
    """The tied prior W ~ MN(M₀, Λ₀⁻¹, Σ): mean M₀ (D, K), precision Λ₀ (D, D); Σ is the layer's noise covariance.
    (eq:prior)
    """

    mean: Array
    precision: Array


def pseudo_targets(outputs: Array, gradients: Array, step: Array | float) -> Array:
    """T = H − G S, the layer outputs moved along the back-propagated gradients.   (eq:pseudo-targets)

    Shapes: outputs H (N, K), gradients G (N, K) with rows ∂ℓ_n/∂h_n, step S a number α (S = αI) or a matrix (K, K).
    """
    if getattr(step, "ndim", 0) == 2:
        return outputs - gradients @ step
    return outputs - gradients * step


def layer_posterior(
    statistics: LayerStatistics, prior: Prior, noise_covariance: Array, backend: Backend = NUMPY
) -> MatrixNormal:
    """Exact posterior of one layer's weights given its regression statistics.

    Implements eq:layer-posterior.  P = Λ₀ + AᵀA,  M = P⁻¹(Λ₀M₀ + AᵀT),  W ~ MN(M, P⁻¹, Σ).

    Shapes: statistics.gram (D, D), statistics.cross (D, K), noise_covariance Σ (K, K);
    result mean (D, K).
    Raises NotPositiveDefiniteError, naming the first failing pivot, if P is not positive definite.
    """
    if prior.mean.shape != statistics.cross.shape or prior.precision.shape != statistics.gram.shape:
        raise InvalidArgumentError(
            f"prior must have mean {statistics.cross.shape} and precision {statistics.gram.shape}, "
            f"got {prior.mean.shape} and {prior.precision.shape}"
        )
    P = prior.precision + statistics.gram  # eq:layer-posterior
    right = prior.precision @ prior.mean + statistics.cross
    precision = MatrixNormal(right, P, noise_covariance, backend)  # its factor of P serves the mean, then the caller
    return precision.with_mean(backend.cho_solve(precision.row_factor, right))


def log_evidence(statistics: LayerStatistics, prior: Prior, noise_covariance: Array, backend: Backend = NUMPY) -> Array:
    """log p(T) for T ~ MN(A M₀, I + A Λ₀⁻¹ Aᵀ, Σ), in nats, at D × D cost; a 0-d array.   (eq:log-evidence)

    −½[N K log 2π + N log|Σ| + K(log|P| − log|Λ₀|) + tr(Σ⁻¹(TᵀT + M₀ᵀΛ₀M₀ − MᵀPM))], by the determinant lemma and
    Woodbury, with P and M of eq:layer-posterior. Needs statistics.target_gram.
    Raises NotPositiveDefiniteError if P, Λ₀ or Σ is not positive definite.
    """
    xp, n, k = backend.xp, statistics.count, statistics.cross.shape[1]
    posterior = layer_posterior(statistics, prior, noise_covariance, backend)
    prior_normal = MatrixNormal(prior.mean, prior.precision, noise_covariance, backend)
    right = prior.precision @ prior.mean + statistics.cross  # = P M
    explained = right.T @ posterior.mean - prior.mean.T @ (prior.precision @ prior.mean)
    quadratic = xp.trace(backend.cho_solve(posterior.column_factor, statistics.target_gram - explained))
    rows = posterior.row_log_determinant - prior_normal.row_log_determinant
    return -(n * (k * log(2 * pi) + posterior.column_log_determinant) + k * rows + quadratic) / 2
