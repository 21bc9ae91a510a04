"""The matrix-normal distribution with its row precision and column covariance; no Kronecker product is formed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi
from typing import Any

from .backend import NUMPY, Array, Backend, plain
from .errors import InvalidArgumentError


@dataclass(frozen=True)
class MatrixNormal:
    """W ~ MN(M, P⁻¹, Σ): Cov(vec W) = Σ ⊗ P⁻¹, vec stacking columns.   (eq:matrix-normal)

    Shapes: mean M (D, K), row_precision P (D, D), column_covariance Σ (K, K), both symmetric positive definite.
    Raises InvalidArgumentError when the shapes disagree; the methods raise NotPositiveDefiniteError when P or Σ is not.
    """

    mean: Array
    row_precision: Array
    column_covariance: Array
    backend: Backend = NUMPY

    def __post_init__(self) -> None:
        if self.mean.ndim != 2:
            raise InvalidArgumentError(f"mean must have two dimensions (D, K), got shape {self.mean.shape}")
        d, k = self.mean.shape
        if self.row_precision.shape != (d, d) or self.column_covariance.shape != (k, k):
            raise InvalidArgumentError(
                f"mean {self.mean.shape} needs row_precision {(d, d)} and column_covariance {(k, k)}, "
                f"got {self.row_precision.shape} and {self.column_covariance.shape}"
            )

    @cached_property
    def row_factor(self) -> Array:
        """Lower L with P = L Lᵀ, (D, D).   (eq:cholesky)"""
        return self.backend.cholesky(self.row_precision, "row_precision")

    @cached_property
    def column_factor(self) -> Array:
        """Lower R with Σ = R Rᵀ, (K, K).   (eq:cholesky)"""
        return self.backend.cholesky(self.column_covariance, "column_covariance")

    @cached_property
    def row_log_determinant(self) -> Array:
        """log|P|.   (eq:log-determinant)"""
        return 2 * self.backend.xp.sum(self.backend.xp.log(self.backend.xp.diagonal(self.row_factor)))

    @cached_property
    def column_log_determinant(self) -> Array:
        """log|Σ|.   (eq:log-determinant)"""
        return 2 * self.backend.xp.sum(self.backend.xp.log(self.backend.xp.diagonal(self.column_factor)))

    @cached_property
    def row_covariance_trace(self) -> Array:
        """tr P⁻¹ = ‖L⁻¹‖²_F.   (eq:matrix-normal)"""
        return self.backend.xp.sum(self.backend.triangular_inverse(self.row_factor) ** 2)

    @cached_property
    def traces(self) -> tuple[float, float]:
        """(tr P⁻¹, tr Σ) as Python numbers, fetched together.   (eq:effective-parameters)"""
        rows, columns = self.backend.floats(self.row_covariance_trace, self.backend.xp.trace(self.column_covariance))
        return rows, columns

    def with_traces(self, rows: float, columns: float) -> MatrixNormal:
        """The same, its ``traces`` already fetched by the caller.   (eq:effective-parameters)"""
        other = self.with_mean(self.mean)
        other.__dict__["traces"] = (rows, columns)
        return other

    def log_determinant(self) -> Array:
        """log|Cov(vec W)| = D log|Σ| − K log|P|.   (eq:log-determinant)"""
        d, k = self.mean.shape
        return d * self.column_log_determinant - k * self.row_log_determinant

    def log_density(self, w: Array) -> Array:
        """log p(W) = −½[tr(Σ⁻¹(W−M)ᵀP(W−M)) + DK log 2π + log|Cov|] in nats; w (D, K).   (eq:log-density)
        (eq:vec-kronecker)
        """
        d, k = self.mean.shape
        return -(self._squared_distance(w - self.mean) + d * k * log(2 * pi) + self.log_determinant()) / 2

    def _squared_distance(self, difference: Array) -> Array:
        whitened = self.backend.solve_triangular(self.column_factor, (self.row_factor.T @ difference).T)
        return self.backend.xp.sum(whitened**2)

    def sample(self, z: Array) -> Array:
        """W = M + L⁻ᵀ z Rᵀ for standard-normal draws z (D, K) or (S, D, K), in the same shape.   (eq:sampling)"""
        xp, (d, k) = self.backend.xp, self.mean.shape
        draws = z.reshape(-1, d, k)
        columns = xp.moveaxis(draws, 0, 1).reshape(d, -1)  # all draws side by side: one triangular solve
        rows = self.backend.solve_triangular(self.row_factor, columns, transposed=True).reshape(d, -1, k)  # eq:sampling
        return self.mean + (xp.moveaxis(rows, 1, 0) @ self.column_factor.T).reshape(z.shape)

    def entropy(self) -> Array:
        """½[DK(1 + log 2π) + log|Cov|] in nats.   (eq:entropy)"""
        d, k = self.mean.shape
        return (d * k * (1 + log(2 * pi)) + self.log_determinant()) / 2

    def kl_divergence(self, other: MatrixNormal) -> Array:
        """KL(self ‖ other) in nats.   (eq:kl)

        ½[tr(P₂P₁⁻¹) tr(Σ₂⁻¹Σ₁) + tr(Σ₂⁻¹(M₁−M₂)ᵀP₂(M₁−M₂)) − DK + log|Cov₂| − log|Cov₁|].
        """
        xp, b, (d, k) = self.backend.xp, self.backend, self.mean.shape
        if other.mean.shape != (d, k):
            raise InvalidArgumentError(f"other must have a mean of shape {(d, k)}, got {other.mean.shape}")
        rows = xp.sum(b.solve_triangular(self.row_factor, other.row_factor) ** 2)
        columns = xp.sum(b.solve_triangular(other.column_factor, self.column_factor) ** 2)
        distance = other._squared_distance(self.mean - other.mean)  # eq:kl
        return (rows * columns + distance - d * k + other.log_determinant() - self.log_determinant()) / 2

    def natural_parameters(self) -> tuple[Array, Array, Array]:
        """(Σ⁻¹ (K, K), P (D, D), P M Σ⁻¹ (D, K)): the precision of vec W is Σ⁻¹ ⊗ P, its linear term vec(P M Σ⁻¹).
        (eq:natural-parameters)
        """
        xp, b, R = self.backend.xp, self.backend, self.column_factor
        linear = b.cho_solve(R, (self.row_precision @ self.mean).T).T
        return b.cho_solve(R, xp.eye(len(R), dtype=R.dtype)), self.row_precision, linear

    @classmethod
    def from_natural_parameters(
        cls, column_precision: Array, row_precision: Array, linear: Array, backend: Backend = NUMPY
    ) -> MatrixNormal:
        """The distribution with these natural parameters (the inverse of ``natural_parameters``).
        (eq:natural-parameters)
        """
        column = backend.cholesky(column_precision, "column_precision")
        row = backend.cholesky(row_precision, "row_precision")
        sigma = backend.cho_solve(column, backend.xp.eye(len(column), dtype=column.dtype))
        return cls(backend.cho_solve(row, linear @ sigma), row_precision, sigma, backend)

    def row_variance(self, a: Array) -> Array:
        """a_n P⁻¹ a_nᵀ for each row of a (N, D); (N,).   (eq:matrix-normal, eq:layer-predictive)"""
        return self.backend.xp.sum(self.backend.solve_triangular(self.row_factor, a.T) ** 2, axis=0)

    def predictive(self, a: Array) -> tuple[Array, Array]:
        """a_n W ~ N(a_n M, (a_n P⁻¹ a_nᵀ) Σ): means (N, K) and covariances (N, K, K), for a (N, D).
        (eq:layer-predictive)
        """
        return a @ self.mean, self.row_variance(a)[:, None, None] * self.column_covariance

    def tempered(self, temperature: Any) -> MatrixNormal:
        """The same mean, every covariance multiplied by ``temperature``.   (eq:tempering)"""
        return self.with_column_covariance(plain(temperature) * self.column_covariance)

    def with_column_covariance(self, sigma: Array) -> MatrixNormal:
        """The same mean and row precision with another column covariance (K, K).   (eq:matrix-normal)"""
        other = replace(self, column_covariance=sigma)
        return self._hand_on(other, "row_factor", "row_log_determinant", "row_covariance_trace")

    def with_mean(self, mean: Array) -> MatrixNormal:
        """The same covariance about another mean (D, K).   (eq:matrix-normal)"""
        return self._hand_on(replace(self, mean=mean), *_CACHED)

    def _hand_on(self, other: MatrixNormal, *names: str) -> MatrixNormal:
        """Give ``other`` those cached values, already computed here, that are equally true of it."""
        other.__dict__.update({name: self.__dict__[name] for name in names if name in self.__dict__})
        return other


_CACHED = (
    "row_factor",
    "column_factor",
    "row_log_determinant",
    "column_log_determinant",
    "row_covariance_trace",
    "traces",
)
