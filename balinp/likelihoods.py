"""Likelihoods of the network's outputs h: loss, gradient, curvature bound, probe, aleatoric covariance.

All share the same verbs. Targets y: (N, K) for Gaussian, class indices (N,) or one-hot rows (N, K) for Categorical.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, pi
from typing import Any, TypeAlias

from .backend import NUMPY, Array, Backend
from .errors import InvalidArgumentError
from .heteroscedastic import Heteroscedastic


@dataclass(frozen=True)
class Gaussian:
    """y | h ~ N(h, diag(σ²)); ``noise_variance`` σ² is one number per output (K,), or one shared by all ().

    Raises InvalidArgumentError when a variance is not positive and finite; the methods raise it when there are several
    variances, but not one per output.
    """

    noise_variance: Any
    backend: Backend = NUMPY

    def __post_init__(self) -> None:
        variance = self.backend.asarray(self.noise_variance)
        if variance.dtype.kind != "f":
            variance = variance.astype("float64")
        good, given = (variance > 0) & self.backend.xp.isfinite(variance), self.noise_variance
        self.backend.refuse_if(
            ~self.backend.xp.all(good),
            lambda: InvalidArgumentError(f"noise_variance must be positive and finite, got {given!r}"),
        )
        object.__setattr__(self, "noise_variance", variance)

    def _variance(self, h: Array) -> Array:
        if self.noise_variance.shape not in ((), h.shape[1:]):
            raise InvalidArgumentError(
                f"noise_variance must be one number or {h.shape[1]}, one per output, got {self.noise_variance.shape}"
            )
        return self.noise_variance.astype(h.dtype, copy=False)

    def loss(self, h: Array, y: Array) -> Array:
        """−log p(y_n | h_n) in nats, (N,).   (eq:gaussian-loss)"""
        xp, s2 = self.backend.xp, self._variance(h)
        return xp.sum(self._error(h, y) ** 2 / s2 + xp.log(s2), axis=1) / 2 + h.shape[1] * log(2 * pi) / 2

    def gradient(self, h: Array, y: Array) -> Array:
        """∂ℓ_n/∂h_n = (h_n − y_n)/σ², (N, K).   (eq:gaussian-gradient)"""
        return self._error(h, y) / self._variance(h)

    def _error(self, h: Array, y: Array) -> Array:
        """h − y (N, K); raises InvalidArgumentError unless y has the shape of h, where broadcasting would go wrong."""
        if y.shape != h.shape:
            raise InvalidArgumentError(f"y must have the shape of the outputs, {h.shape}, got {y.shape}")
        return h - y

    def curvature(self, h: Array) -> Array:
        """∂²ℓ/∂h² = diag(1/σ²), exact and therefore its own bound; (N, K, K).   (eq:gaussian-curvature)
        (eq:lower-bound)
        """
        xp, (n, k) = self.backend.xp, h.shape
        bound = xp.eye(k, dtype=h.dtype) / self._variance(h)
        return xp.broadcast_to(bound, (n, k, k))

    def layer_curvature(self, h: Array) -> Array:
        """The same, (N, K, K).   (eq:output-curvature)"""
        return self.curvature(h)

    def row_curvature(self, h: Array) -> Array:
        """The same.   (eq:row-curvature)"""
        return self.curvature(h)

    def probe(self, h: Array, noise: Array) -> Array:
        """Rows z = ε/σ with E[zᵀz] = diag(1/σ²) for noise ε of mean 0, covariance I; (N, K).   (eq:gaussian-probe)"""
        return noise / self._variance(h) ** 0.5

    def row_weights(self, h: Array, y: Array) -> None:
        """How often each row counts in the Gram matrices beyond its sample weight: None, once.   (eq:statistics)"""

    def referred_to(self, curvature: Array) -> Gaussian:
        """Itself: its curvature bound does not depend on where the outputs are.   (eq:gaussian-curvature)"""
        return self

    def aleatoric(self, h: Array) -> Array:
        """Cov(y | h) = diag(σ²), (N, K, K).   (eq:aleatoric)"""
        xp, (n, k) = self.backend.xp, h.shape
        return xp.broadcast_to(xp.eye(k, dtype=h.dtype) * self._variance(h), (n, k, k))

    def squared_residual(self, h: Array, y: Array, weights: Array) -> Array:
        """∑_n w_n (y_n − h_n)², in the shape of the noise variance: (K,), or () averaged over outputs.
        (eq:noise-update)
        """
        total = weights @ (y - h) ** 2
        return total if self.noise_variance.ndim else self.backend.xp.mean(total)

    def moved_towards(self, residual: Array, rate: float, floor: float) -> Gaussian:
        """σ² ← max((1 − rate) σ² + rate · residual, floor): the moving average of the mean squared residual.

        (eq:noise-update)
        """
        s2 = self.noise_variance
        moved = self.backend.xp.maximum((1 - rate) * s2 + rate * residual, floor)
        return replace(self, noise_variance=moved.astype(s2.dtype))


@dataclass(frozen=True)
class Categorical:
    """y | h ~ Categorical(softmax(h)); h are the logits of the classes."""

    backend: Backend = NUMPY

    def one_hot(self, h: Array, y: Array) -> Array:
        """One-hot rows y (N, K) as they are, or those of N labels 0 … K − 1, for outputs h (N, K); raises
        InvalidArgumentError for another label or shape (it would be broadcast).   (eq:categorical-loss)
        """
        if y.shape not in (h.shape, h.shape[:1]):
            raise InvalidArgumentError(
                f"y must be labels of shape {h.shape[:1]} or one-hot rows of shape {h.shape}, got {y.shape}"
            )
        if y.ndim == 2:
            return y
        xp, k = self.backend.xp, h.shape[1]
        chosen = y[:, None] == xp.arange(k)[None, :]
        self.backend.refuse_if(
            ~xp.all(xp.any(chosen, axis=1)),
            lambda: InvalidArgumentError(f"labels must be integers from 0 to {k - 1}, got another"),
        )
        return chosen.astype(h.dtype)

    def loss(self, h: Array, y: Array) -> Array:
        """−log p(y_n | h_n) = logsumexp(h_n) − h_n·y_n in nats, (N,).   (eq:categorical-loss)"""
        return self.backend.logsumexp(h, axis=1) - self.backend.xp.sum(h * self.one_hot(h, y), axis=1)

    def gradient(self, h: Array, y: Array) -> Array:
        """∂ℓ_n/∂h_n = softmax(h_n) − y_n, (N, K).   (eq:categorical-gradient)"""
        return self.probabilities(h) - self.one_hot(h, y)

    def curvature(self, h: Array) -> Array:
        """Böhning's bound ½(I − 11ᵀ/K) ⪰ diag(p) − ppᵀ, (N, K, K).   (eq:bohning-bound, eq:lower-bound)"""
        xp, (n, k) = self.backend.xp, h.shape
        bound = (xp.eye(k, dtype=h.dtype) - 1 / k) / 2
        return xp.broadcast_to(bound, (n, k, k))

    def layer_curvature(self, h: Array) -> Array:
        """½I: the bound, and as much along the common shift of all logits, of which the loss knows nothing; (N, K, K).
        (eq:output-curvature)
        """
        return self.curvature(h) + 1 / (2 * h.shape[1])

    def row_curvature(self, h: Array) -> Array:
        """∂²ℓ_n/∂h_n² = diag(p_n) − p_n p_nᵀ at each row's own p, (N, K, K).   (eq:row-curvature)"""
        return self.aleatoric(h)

    def probe(self, h: Array, noise: Array) -> Array:
        """Rows z = (ε − mean ε)/√2 with E[zᵀz] = ½(I − 11ᵀ/K); (N, K).   (eq:bohning-probe)"""
        return (noise - self.backend.xp.mean(noise, axis=1, keepdims=True)) / 2**0.5

    def row_weights(self, h: Array, y: Array) -> None:
        """How often each row counts in the Gram matrices beyond its sample weight: None, once.   (eq:statistics)"""

    def referred_to(self, curvature: Array) -> Categorical:
        """Itself: its curvature bound does not depend on where the outputs are.   (eq:bohning-bound)"""
        return self

    def aleatoric(self, h: Array) -> Array:
        """Cov(one-hot y | h) = diag(p) − ppᵀ, (N, K, K).   (eq:aleatoric)"""
        p = self.probabilities(h)
        return p[:, :, None] * (self.backend.xp.eye(h.shape[1], dtype=h.dtype) - p[:, None, :])

    def probabilities(self, h: Array) -> Array:
        """softmax(h) along the last axis.   (eq:categorical-gradient)"""
        return self.backend.xp.exp(h - self.backend.logsumexp(h, axis=-1)[..., None])


Likelihood: TypeAlias = Gaussian | Categorical | Heteroscedastic
