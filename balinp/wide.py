"""Tables with few rows for their inputs: what a fit sees of its inputs, learnt from its own rows alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .matrix_normal import MatrixNormal
from .mlp import MLP
from .settings import Settings
from .state import BALIState

ROWS_PER_INPUT = 2  # at most: up to there rows are few


def is_wide(x: Any, settings: Settings) -> bool:
    """Whether the rows x (N, D), distinct in memory, are few for their inputs, N ≤ 2 D, under a prior in proportion to
    these.   (eq:input-span)"""
    return bool(len(x) <= ROWS_PER_INPUT * x.shape[1]) and settings.prior == "independent"


@dataclass(frozen=True)
class Span:
    """What the rows of a fit span, by an orthonormal ``basis`` V (D, r): all that they say of the weights of D inputs.
    (eq:input-span)"""

    basis: np.ndarray

    @classmethod
    def of_rows(cls, x: np.ndarray, dtype: Any = None) -> Span:
        """The span of the rows x (N, D), of rank r ≤ min(N, D); ``dtype``: in which they were rounded (None: x's own).
        (eq:input-span)"""
        _, sizes, right = np.linalg.svd(x.astype(np.float64), full_matrices=False)
        return cls(right[sizes > sizes[0] * max(x.shape) * np.finfo(dtype or x.dtype).eps].T)

    @classmethod
    def if_part(cls, x: np.ndarray, dtype: Any = None) -> Span | None:
        """The span of the rows x (N, D), or None where that is all of the inputs, r = D.   (eq:input-span)"""
        span = cls.of_rows(x, dtype)
        return span if span.basis.shape[1] < x.shape[1] else None

    @property
    def inputs(self) -> int:
        """r + 1: the coordinates, and how far outside the span a row lies.   (eq:input-span)"""
        return self.basis.shape[1] + 1

    @property
    def unit(self) -> float:
        """√((r + 1)/D), with which a prior in proportion to the number of inputs is the same.   (eq:input-span)"""
        return float((self.inputs / len(self.basis)) ** 0.5)

    def transform(self, x: np.ndarray, dtype: Any) -> np.ndarray:
        """√((r + 1)/D) (x V, ‖x − x V Vᵀ‖), (n, r + 1), for rows x (n, D) that were rounded in ``dtype``: what is less
        than the root of its rounding outside is inside.   (eq:input-span)"""
        x = x.astype(np.float64)
        inside = x @ self.basis
        outside = np.linalg.norm(x - inside @ self.basis.T, axis=1)
        outside[outside <= np.finfo(dtype).eps ** 0.5 * np.linalg.norm(x, axis=1)] = 0
        return (self.unit * np.column_stack([inside, outside])).astype(dtype)

    def weights(self, first: np.ndarray) -> np.ndarray:
        """√((r + 1)/D) V W, the weights (D, K) of the inputs themselves, from those of ``transform``, (r + 1, K).
        (eq:input-span)"""
        return self.unit * (self.basis @ first[:-1])

    def network(self, mlp: MLP) -> MLP:
        """``mlp`` with the inputs that ``transform`` gives.   (eq:input-span)"""
        return replace(mlp, widths=(self.inputs, *mlp.widths[1:]))

    def unfolded(self, state: BALIState) -> BALIState:
        """``state`` of a network on ``transform``'s inputs as one of the D inputs: the same predictions, for rows to
        come that lie outside the span. Draws of a joint posterior are left out.   (eq:input-span)"""
        first, core = state.layers[0], state.mlp.backend
        q, sums, V, c = first.posterior, first.statistics, self.basis, self.unit
        wanted = q.row_precision, sums.gram, q.mean, sums.cross
        P, U, M, R = (core.to_host(part).astype(np.float64) for part in wanted)
        back = np.zeros((self.inputs + 1, len(V) + 1))  # the way back: x = B′z′ in the span, and the bias
        back[: self.inputs - 1, :-1], back[-1, -1] = V.T / c, 1
        precision = back.T @ P @ back
        precision[:-1, :-1] += P[-2, -2] / c**2 * (np.eye(len(V)) - V @ V.T)

        def there(array: np.ndarray) -> Any:
            return core.asarray(array, dtype=q.mean.dtype)

        mean = np.vstack([self.weights(M[:-1]), M[-1:]])
        posterior = MatrixNormal(there(mean), there(precision), q.column_covariance, core)
        sums = replace(sums, gram=there(back.T @ U @ back), cross=there(back.T @ R))
        determined = first.determined * len(back) / len(precision)  # tr(U P⁻¹) is the same, of more directions
        tau = first.prior_precision / c**2
        layer = replace(first, posterior=posterior, statistics=sums, prior_precision=tau, determined=determined)
        mlp = replace(state.mlp, widths=(len(V), *state.mlp.widths[1:]))
        return replace(state, mlp=mlp, layers=(layer, *state.layers[1:]), deviations=None)


@dataclass(frozen=True)
class InputMap:
    """Standardised inputs as a fit sees them: less their mean over its rows, ``offset`` (D,), scaled by their
    ``relevance`` (D,) and, where few rows span less than all inputs, in the coordinates of ``span``.
    (eq:input-span, eq:input-relevance)"""

    dtype: Any
    offset: np.ndarray | None = None
    relevance: np.ndarray | None = None
    span: Span | None = None

    def __call__(self, x: Any) -> Any:
        x = self.scaled(x)
        if self.span is not None:
            return self.span.transform(x, self.dtype)
        return x if self.offset is None else x.astype(self.dtype)

    def scaled(self, x: Any) -> Any:
        """x (n, D) in the inputs themselves, in float64 where there is an offset.   (eq:input-relevance)"""
        if self.offset is not None:
            x = x.astype(np.float64) - self.offset
        return x if self.relevance is None else x * self.relevance.astype(x.dtype)


class InputMaps:
    """The InputMap of every fit of a wide table, learnt once; ``relevance(x, y, weight, before, name)``, (D,) or None,
    is of inputs x that ``before`` has made.   (eq:input-span)"""

    def __init__(self, relevance: Callable[..., np.ndarray | None], dtype: Any):
        self._relevance, self._dtype = relevance, dtype
        self._known: dict[tuple[bool, str], InputMap] = {}

    def learnt(self, relevant: bool, x: np.ndarray, y: np.ndarray, weight: Any, name: str) -> InputMap:
        """That of the fit called ``name``, on rows x (N, D), y (N, K), weight (N,).   (eq:input-span)"""
        if (relevant, name) not in self._known:
            x = x.astype(np.float64)
            mean = np.average(x, axis=0, weights=weight)
            seen = InputMap(self._dtype, np.where(np.all(x == x[0], axis=0), x[0], mean))  # one value less itself is 0
            if relevant:
                seen = replace(seen, relevance=self._relevance(seen.scaled(x), y, weight, seen, name))
            self._known[relevant, name] = replace(seen, span=Span.if_part(seen.scaled(x), self._dtype))
        return self._known[relevant, name]
