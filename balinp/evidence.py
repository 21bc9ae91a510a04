"""How a layer's posterior is made Kronecker under either prior, and what the data say about the prior precision.

Per layer: U = AᵀA (D, D) running Gram matrix, B (K, K) mean curvature per datum, so that B ⊗ U is the Gauss–Newton
precision of vec W under the likelihood. Scalars are Python floats or 0-d arrays of the arrays' own dtype: they never
change the dtype of an array.
"""

from __future__ import annotations

from typing import Any

from .backend import Array
from .matrix_normal import MatrixNormal
from .settings import Settings

PRECISION_BOUNDS = (1e-4, 1e5)  # of a prior precision estimated by evidence
ROUNDING = 4  # in units of eps · tr B: what Q has at least where B has nothing, lest rounding make it indefinite


def step_curvature(curvature: Array, settings: Settings, xp: Any) -> Array:
    """The curvature (K, K) that the step kind takes for B: B + δ tr(B)/K · I, tr(B)/K · I, or I/α.   (eq:step-kinds)"""
    k = len(curvature)
    eye = xp.eye(k, dtype=curvature.dtype)
    if settings.step == "gradient":
        return eye / settings.step_size
    if settings.step == "natural" and not settings.damping:
        return curvature
    mean, least = xp.trace(curvature) / k, _least(curvature, xp)
    # a dead layer: the tied prior's covariance is S ⊗ P⁻¹, which a mean of 1 keeps finite
    mean = xp.where(mean < least, 1.0 if settings.prior == "tied" else least, mean)
    if settings.step == "isotropic":
        return eye * mean
    return curvature + eye * (settings.damping * mean)


def _least(curvature: Array, xp: Any) -> float:
    """tiny^¼: a layer that has died has curvature 0, and any b far below its prior leaves it to the prior."""
    return float(xp.finfo(curvature.dtype).tiny) ** 0.25


def kronecker_precision(
    curvature: Array, prior_precision: float, previous: MatrixNormal, determined: float, prior: str
) -> tuple[Any, Array]:
    """(π, Q) of the layer's posterior precision Q ⊗ (U + πI); π a number (a 0-d array, lest the host wait for it).

    Tied prior: π = λ, Q = B; exact.   (eq:tied-prior)
    Independent prior, precision B ⊗ U + τI: the matrix-normal nearest to it in KL(q ‖ ·) has
    (eq:kronecker-projection)
        π = τ/b,  Q = κ B + (1 − κ) b I,  b = tr(BΣ)/tr(Σ),  κ = tr(U(U + πI)⁻¹)/D,
    a fixed point in (κ, Σ = Q⁻¹) that is iterated along with the fit: κ (``determined``) and Σ are the last
    iteration's.
    Where B = bI (any scalar output, and classes) this is exact; elsewhere eq:projection-error says how far it is off.
    B is a sum over rows and may be singular (a wide layer), and rounding must make neither Q nor Σ indefinite: 1 − κ is
    taken as √eps at least, and (1 − κ)b as 4 eps tr B, since b shrinks with the variance that Σ has where B is 0.
    """
    if prior == "tied":
        return prior_precision, curvature
    xp, sigma = previous.backend.xp, previous.column_covariance
    k = len(curvature)
    # eq:kronecker-projection
    b = xp.maximum(xp.sum(curvature * sigma) / xp.trace(sigma), _least(curvature, xp))
    eps = float(xp.finfo(curvature.dtype).eps)
    rest = max(1 - determined, eps**0.5)  # 1 − κ, not below the rounding of B
    least = xp.maximum(rest * b, ROUNDING * eps * xp.trace(curvature))  # of Q's eigenvalues, where B has none
    return prior_precision / b, (1 - rest) * curvature + xp.eye(k, dtype=curvature.dtype) * least


def determined_share(posterior: MatrixNormal, row_prior: float) -> float:
    """κ = tr(U P⁻¹)/D = 1 − π tr(P⁻¹)/D: the share of a layer's input directions that the data determine.
    (eq:determined-share)
    """
    return 1 - row_prior * posterior.traces[0] / posterior.mean.shape[0]


def effective_parameters(posterior: MatrixNormal, prior_precision: float, determined: float, prior: str) -> float:
    """γ = DK − tr(prior precision · posterior covariance).   (eq:effective-parameters)

    Independent: DK − τ tr(P⁻¹) tr(Σ); tied: K D κ.
    """
    d, k = posterior.mean.shape
    if prior == "tied":
        return k * d * determined
    rows, columns = posterior.traces
    return max(d * k - prior_precision * rows * columns, 0.0)


def prior_norm(mean: Array, noise_covariance: Array, prior: str, backend: Any) -> Any:
    """‖M‖² as the prior measures it: tr(MᵀM), or tr(Σ⁻¹MᵀM) for the tied prior with ``noise_covariance`` Σ; a 0-d
    array.   (eq:mackay)
    """
    if prior == "independent":
        return backend.xp.sum(mean**2)
    return backend.xp.sum(backend.solve_triangular(backend.cholesky(noise_covariance, "noise covariance"), mean.T) ** 2)


def updated_prior_precision(prior_precision: float, gamma: float, norm: float, rate: float) -> float:
    """MacKay's fixed point τ ← γ/‖M‖², damped in log space: τ^(1−rate) q^rate, q = γ/‖M‖² kept within PRECISION_BOUNDS.
    (eq:mackay)
    """
    low, high = PRECISION_BOUNDS
    target = min(max(gamma / norm if norm > 0 else high, low), high)
    return float(prior_precision ** (1 - rate) * target**rate)


def updated_share(share: float, spread: float, heat: float, targets: float, rate: float) -> float:
    """Effective parameters per target as the outputs show them: spread/(T · N · outputs), damped in log space like τ.
    (eq:output-spread)

    ``spread`` is data_spread of one draw at temperature T = ``heat`` over N · outputs ``targets``. The sum of the
    layers' γ counts what the Kronecker factors claim; this counts what the outputs of a draw do.
    """
    measured = spread / (heat * targets)
    return float(share ** (1 - rate) * max(measured, 1e-12) ** rate) if measured < float("inf") else share


def temperature(share: float, layers: int, settings: Settings) -> float:
    """min(max_temperature, tempering / share) for ``share`` effective parameters per target.
    (eq:tempering, eq:conjugate-layer, eq:rank-bound)

    A single layer's posterior is exact and is never tempered.
    """
    if settings.tempering is None or layers == 1:
        return 1.0
    return min(settings.max_temperature, settings.tempering / max(share, 1e-12))
