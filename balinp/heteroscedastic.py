"""The Gaussian likelihood whose noise depends on the input: a mean and a log-variance per target.

Outputs h (N, 2K) for K targets: the K means m first, then the K log-variances ρ. Targets y (N, K).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite, log, pi
from typing import Any

from .backend import NUMPY, Array, Backend
from .errors import InvalidArgumentError


@dataclass(frozen=True)
class Heteroscedastic:
    """y | h ~ N(m, diag(s²)), s² = floor + 1/(e^−ρ + 1/ceiling), for outputs h = (m_1 … m_K, ρ_1 … ρ_K).

    Well between the limits s² = e^ρ and ρ is the log-variance. The limits keep the density of a row that the network
    fits exactly finite and an extrapolated ρ from overflowing; both are smooth, so the gradient is exact everywhere.
    Write t for ∂ log s²/∂ρ, which is 1 between the limits and falls to 0 beyond them, and q = (y − m)²/s².

    Derivation of the curvature.   (eq:heteroscedastic-curvature)
    ℓ = ½ ∑_k [q_k + log s_k² + log 2π], so ∂ℓ/∂m = (m − y)/s² and ∂ℓ/∂ρ = ½ t (1 − q). Per target and in the
    coordinates (m, log s²) the Hessian is [[1/s², (y − m)/s²], [(y − m)/s², ½ q]]: its determinant −½ q/s² is negative
    wherever y ≠ m, so ℓ is not convex. Its expectation over y ~ N(m, s²), where E[y − m] = 0 and E q = 1, is the Fisher
    information diag(1/s², ½), and the chain rule with E ∂ℓ/∂ρ = 0 makes it diag(1/s², ½ t²) in (m, ρ): positive
    semi-definite, and the Gauss–Newton curvature of the network under this likelihood.

    It is no bound. In m alone it is exact. Along ρ the second derivative is ½ q (t = 1), which ½ bounds where the
    residual is within the predicted deviation and which grows without limit with the residual, so no constant bounds
    it; and the cross term leaves diag(1/s², ½) below the Hessian somewhere in (m, ρ) wherever y ≠ m.

    Row weights.   (eq:heteroscedastic-rows)
    A layer's curvature is a mean over data times the Gram matrix of its inputs: B ⊗ AᵀA. Where noise varies a
    hundredfold between rows, a row of little noise has a curvature far above the mean and its prediction overshoots,
    ever further; and one whose q is large would have its ρ thrown by q − 1 at once. So row n counts
        ω_n = max(1, max_k 1/(s²_nk c_k), max_k q_nk)
    times in the Gram matrix, c the mean of 1/s² over the data (``reference_precision``: of the iterations before). Then
    ω_n diag(c, ½) ⪰ diag(1/s_n², ½ max(1, q_n)): the Kronecker product of the means bounds the Fisher information of
    the output layer and the diagonal of its Hessian, row by row. The mean of the first two is at most 1 + K
    for K targets.

    Raises InvalidArgumentError unless 0 < floor < ceiling, both finite, and reference_precision is positive.
    """

    floor: float = 1e-4
    ceiling: float = 100.0
    reference_precision: Any = 1.0
    backend: Backend = NUMPY

    def __post_init__(self) -> None:
        for name in ("floor", "ceiling"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not (0 < self.floor < self.ceiling and isfinite(self.ceiling)):
            raise InvalidArgumentError(
                f"floor and ceiling must be finite with 0 < floor < ceiling, got {self.floor!r} and {self.ceiling!r}"
            )
        reference = self.backend.asarray(self.reference_precision)
        good, given = (reference > 0) & self.backend.xp.isfinite(reference), self.reference_precision
        self.backend.refuse_if(
            ~self.backend.xp.all(good),
            lambda: InvalidArgumentError(f"reference_precision must be positive and finite, got {given!r}"),
        )
        object.__setattr__(self, "reference_precision", reference)

    def split(self, h: Array) -> tuple[Array, Array]:
        """The means and the log-variances, each (..., K), of outputs h (..., 2K); raises InvalidArgumentError for an
        odd number of outputs.   (eq:heteroscedastic-variance)
        """
        k, odd = divmod(h.shape[-1], 2)
        if odd:
            raise InvalidArgumentError(f"outputs must be a mean and a log-variance per target, got {h.shape[-1]}")
        return h[..., :k], h[..., k:]

    def _parts(self, h: Array, y: Array) -> tuple[Array, Array, Array]:
        """m − y, s² and ρ, (N, K); raises InvalidArgumentError unless y has that shape (it would be broadcast)."""
        m, rho = self.split(h)
        if y.shape != m.shape:
            raise InvalidArgumentError(f"y must have the shape of the means, {m.shape}, got {y.shape}")
        return m - y, self.variance(rho), rho

    def variance(self, log_variance: Array) -> Array:
        """s² = floor + 1/(e^−ρ + 1/ceiling), of the shape of ρ.   (eq:heteroscedastic-variance)"""
        return self.floor + self._free(log_variance)

    def _free(self, rho: Array) -> Array:
        """1/(e^−ρ + 1/ceiling), through the exponential of −|ρ − log ceiling|, which cannot overflow."""
        xp, shifted = self.backend.xp, rho - log(self.ceiling)
        above = xp.real(shifted) > 0
        e = xp.exp(xp.where(above, -shifted, shifted))
        return self.ceiling * xp.where(above, 1, e) / (1 + e)

    def _slope(self, rho: Array) -> Array:
        """t = ∂ log s²/∂ρ = (v/s²)(1 − v/ceiling) with v = s² − floor.   (eq:heteroscedastic-variance)"""
        v = self._free(rho)
        return v / (v + self.floor) * (1 - v / self.ceiling)

    def row_weights(self, h: Array, y: Array) -> Array:
        """ω_n = max(1, 1/(s²c), (y − m)²/s²), the largest over the targets, (N,).   (eq:heteroscedastic-rows)"""
        xp, (r, s2, _) = self.backend.xp, self._parts(h, y)
        largest = xp.maximum(1 / self.reference_precision.astype(h.dtype, copy=False), r**2) / s2
        return xp.maximum(1, xp.max(largest, axis=1))

    def referred_to(self, curvature: Array) -> Heteroscedastic:
        """The same likelihood with c the mean precisions, from the mean ``curvature`` (2K, 2K) of the outputs.
        (eq:heteroscedastic-curvature)
        """
        return replace(self, reference_precision=self.backend.xp.diagonal(curvature)[: len(curvature) // 2].copy())

    def loss(self, h: Array, y: Array) -> Array:
        """−log p(y_n | h_n) in nats, (N,).   (eq:heteroscedastic-loss)"""
        xp, (r, s2, _) = self.backend.xp, self._parts(h, y)
        return xp.sum(r**2 / s2 + xp.log(s2), axis=1) / 2 + r.shape[1] * log(2 * pi) / 2

    def gradient(self, h: Array, y: Array) -> Array:
        """((m − y)/s², ½ t (1 − (y − m)²/s²)), (N, 2K).   (eq:heteroscedastic-gradient)"""
        r, s2, rho = self._parts(h, y)
        return self.backend.xp.concatenate([r / s2, self._slope(rho) * (1 - r**2 / s2) / 2], axis=1)

    def curvature(self, h: Array) -> Array:
        """The Fisher information diag(1/s², ½ t²), (N, 2K, 2K).   (eq:heteroscedastic-curvature)"""
        return self.backend.xp.eye(h.shape[1], dtype=h.dtype) * self._fisher(h)[:, None, :]

    def layer_curvature(self, h: Array) -> Array:
        """The same.   (eq:output-curvature)"""
        return self.curvature(h)

    def row_curvature(self, h: Array) -> Array:
        """The same.   (eq:row-curvature)"""
        return self.curvature(h)

    def probe(self, h: Array, noise: Array) -> Array:
        """Rows z = (ε_m/s, ε_ρ t/√2) with E[zᵀz] the curvature, for noise ε (N, 2K) of mean 0, covariance I.

        (eq:heteroscedastic-probe)
        """
        return noise * self._fisher(h) ** 0.5

    def _fisher(self, h: Array) -> Array:
        rho = self.split(h)[1]
        return self.backend.xp.concatenate([1 / self.variance(rho), self._slope(rho) ** 2 / 2], axis=1)

    def aleatoric(self, h: Array, log_variance_variance: Any = 0.0) -> Array:
        """Cov(y | h) = diag(s²), (N, K, K), averaged over ρ ~ N(ρ_n, ``log_variance_variance``), (N, K) or 0.

        E e^ρ = e^(ρ + v/2), the log-normal mean, goes through the ceiling as e^ρ does. By Jensen that is never below
        the true average, and equal to it where the ceiling is far.   (eq:heteroscedastic-aleatoric)
        """
        s2 = self.variance(self.split(h)[1] + log_variance_variance / 2)
        return self.backend.xp.eye(s2.shape[1], dtype=h.dtype) * s2[:, None, :]
