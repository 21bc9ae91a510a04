"""The sums over data that a layer's posterior needs: one commutative monoid.

Full batch is a sum over blocks, mini-batch an exponential moving average, distributed a tree of sums, continual
learning a decay: all of them are ``+``, ``scale`` and ``decay`` on LayerStatistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .backend import NUMPY, Array, Backend, plain
from .errors import InvalidArgumentError


def _negative(weights: Array) -> InvalidArgumentError:
    return InvalidArgumentError(f"weights must not be negative, got {float(weights.min()):g}")


@dataclass(frozen=True)
class LayerStatistics:
    """Sums over the rows of one layer's regression of targets T (N, K) on inputs A (N, D).   (eq:statistics)

    count ∑ w_n, gram AᵀA (D, D), cross AᵀT (D, K), target_gram TᵀT (K, K) and curvature ZᵀZ (K, K), the Gram matrix
    of back-propagated probe rows Z (zero when there were none); row n weighted by w_n throughout.
    """

    count: Any
    gram: Array
    cross: Array
    target_gram: Array
    curvature: Array

    @classmethod
    def from_batch(
        cls,
        inputs: Array,
        targets: Array,
        weights: Array | None = None,
        probes: Array | None = None,
        backend: Backend = NUMPY,
        total_weight: Any = None,
    ) -> LayerStatistics:
        """The sums of one batch; ``inputs`` already carry the ones column.   (eq:statistics, eq:cost)

        Shapes: inputs (N, D), targets (N, K), weights (N,), probes (N, K); ``total_weight`` is ∑ w_n if the caller has
        it already (else a GPU is waited for). Raises InvalidArgumentError when the numbers of rows differ or a weight
        is negative.
        """
        rows = [len(a) for a in (inputs, targets, weights, probes) if a is not None]
        if len(set(rows)) > 1:
            raise InvalidArgumentError(f"inputs, targets, weights and probes must have one number of rows, got {rows}")
        count: Any = float(len(inputs))
        left, right, z = inputs, targets, probes
        if weights is not None:
            weights = backend.asarray(weights, dtype=inputs.dtype)
            count = total_weight if total_weight is not None else backend.floats(backend.xp.sum(weights))[0]
            backend.refuse_if(backend.xp.any(weights < 0), partial(_negative, weights))
            root = backend.xp.sqrt(weights)[:, None]  # both factors scaled, so that Gram matrices stay symmetric
            left, right = root * inputs, root * targets
            z = None if probes is None else root * probes
        k = targets.shape[1]
        curvature = backend.xp.zeros((k, k), dtype=targets.dtype) if z is None else z.T @ z
        return cls(count, left.T @ left, left.T @ right, right.T @ right, curvature)

    def __add__(self, other: LayerStatistics) -> LayerStatistics:
        """The statistics of both sets of rows together.   (eq:block-sum)"""
        return self._combine(other, lambda a, b: a + b)

    def scale(self, weight: Any) -> LayerStatistics:
        """Every row counted ``weight`` times.   (eq:precision)"""
        factor = plain(weight)
        return self._map(lambda sums: factor * sums)

    def decay(self, other: LayerStatistics, rate: Any) -> LayerStatistics:
        """(1 − rate)·self + rate·other: one step of the exponential moving average.   (eq:ema, eq:natural-gradient)"""
        new = plain(rate)
        return self._combine(other, lambda a, b: (1 - new) * a + new * b)

    def map_targets(self, matrix: Array) -> LayerStatistics:
        """The statistics of targets T·matrix instead of T; matrix (K, K).   (eq:statistics)"""
        cross, target_gram = self.cross @ matrix, matrix.T @ self.target_gram @ matrix
        return LayerStatistics(self.count, self.gram, cross, target_gram, self.curvature)

    def _map(self, f: Callable[[Any], Any]) -> LayerStatistics:
        return LayerStatistics(f(self.count), f(self.gram), f(self.cross), f(self.target_gram), f(self.curvature))

    def _combine(self, other: LayerStatistics, f: Callable[[Any, Any], Any]) -> LayerStatistics:
        if self.gram.shape != other.gram.shape or self.cross.shape != other.cross.shape:
            got = f"{self.cross.shape} and {other.cross.shape}"
            raise InvalidArgumentError(f"statistics of one layer only can be added: got cross products of shapes {got}")
        return LayerStatistics(
            f(self.count, other.count),
            f(self.gram, other.gram),
            f(self.cross, other.cross),
            f(self.target_gram, other.target_gram),
            f(self.curvature, other.curvature),
        )
