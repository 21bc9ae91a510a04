"""Tables with no more rows than inputs: what a fit sees of its inputs, learnt from its own rows alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from .mlp import MLP
from .settings import Settings
from .state import BALIState, initial_state

ROUNDING = 1e-8  # of a row's length: nearer than that a row lies in the span


def is_wide(x: Any) -> TypeGuard[np.ndarray]:
    """Whether the rows x (N, D) are in memory and no more than their inputs, N ≤ D.   (eq:input-span)"""
    return isinstance(x, np.ndarray) and len(x) <= x.shape[1]


@dataclass(frozen=True)
class Span:
    """What the rows of a fit span, by an orthonormal ``basis`` V (D, r): all that they say of the weights of D inputs.
    (eq:input-span)"""

    basis: np.ndarray

    @classmethod
    def of_rows(cls, x: np.ndarray) -> Span:
        """The span of the rows x (N, D), of rank r ≤ N.   (eq:input-span)"""
        _, sizes, right = np.linalg.svd(x.astype(np.float64), full_matrices=False)
        return cls(right[sizes > sizes[0] * max(x.shape) * np.finfo(np.float64).eps].T)

    @property
    def inputs(self) -> int:
        """r + 1: the coordinates, and how far outside the span a row lies.   (eq:input-span)"""
        return self.basis.shape[1] + 1

    @property
    def unit(self) -> float:
        """√((r + 1)/D), with which a prior in proportion to the number of inputs is the same.   (eq:input-span)"""
        return float((self.inputs / len(self.basis)) ** 0.5)

    def transform(self, x: np.ndarray, dtype: Any) -> np.ndarray:
        """√((r + 1)/D) (x V, ‖x − x V Vᵀ‖), (n, r + 1), for rows x (n, D).   (eq:input-span)"""
        x = x.astype(np.float64)
        inside = x @ self.basis
        outside = np.linalg.norm(x - inside @ self.basis.T, axis=1)
        outside[outside <= ROUNDING * np.linalg.norm(x, axis=1)] = 0
        return (self.unit * np.column_stack([inside, outside])).astype(dtype)

    def weights(self, first: np.ndarray) -> np.ndarray:
        """√((r + 1)/D) V W, the weights (D, K) of the inputs themselves, from those of ``transform``, (r + 1, K).
        (eq:input-span)"""
        return self.unit * (self.basis @ first[:-1])

    def network(self, mlp: MLP) -> MLP:
        """``mlp`` with the inputs that ``transform`` gives.   (eq:input-span)"""
        return replace(mlp, widths=(self.inputs, *mlp.widths[1:]))


def first_state(mlp: MLP, likelihood: Any, generator: Any, settings: Settings, dtype: Any) -> BALIState:
    """``initial_state`` for a ``Span``'s inputs, with weights zero for the last: as no row of the fit lies outside the
    span, they would stay as they were drawn, and move every new row the same way.   (eq:input-span)"""
    state = initial_state(mlp, likelihood, generator, settings, dtype)
    first = state.layers[0]
    mean = mlp.backend.xp.array(first.posterior.mean)
    mean[-2] = 0  # the last row is the bias
    return replace(state, layers=(replace(first, posterior=first.posterior.with_mean(mean)), *state.layers[1:]))


@dataclass(frozen=True)
class InputMap:
    """Inputs as a fit sees them: scaled by their ``relevance`` (D,), of a wide table in the coordinates of ``span``.
    (eq:input-span, eq:input-relevance)"""

    dtype: Any
    relevance: np.ndarray | None = None
    span: Span | None = None

    def __call__(self, x: Any) -> Any:
        scaled = x if self.relevance is None else x * self.relevance.astype(self.dtype)
        return scaled if self.span is None else self.span.transform(scaled, self.dtype)


class InputMaps:
    """The InputMap of every fit of a wide table, learnt once, where wanted with ``relevance(x, y, weight, name)``, (D,)
    or None.   (eq:input-span)"""

    def __init__(self, relevance: Callable[..., np.ndarray | None], dtype: Any):
        self._relevance, self._dtype = relevance, dtype
        self._known: dict[tuple[bool, str], InputMap] = {}

    def learnt(self, relevant: bool, x: np.ndarray, y: np.ndarray, weight: Any, name: str) -> InputMap:
        """That of the fit called ``name``, on rows x (N, D), y (N, K), weight (N,).   (eq:input-span)"""
        if (relevant, name) not in self._known:
            scaled = InputMap(self._dtype, self._relevance(x, y, weight, name) if relevant else None)
            self._known[relevant, name] = replace(scaled, span=Span.of_rows(scaled(x)))
        return self._known[relevant, name]
