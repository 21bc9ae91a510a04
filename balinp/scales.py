"""The scales of columns: offset and deviation, measured block by block, so that rows may be anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .blocks import reduce_blocks
from .rows import RowSource, block_rows

ROUNDING = 4  # eps of the largest entry, by which a constant column may vary
OFTEN = 0.05  # black is in more of the rows of a pixel


@dataclass(frozen=True)
class Standardizer:
    """(v − offset)/scale per column, in float64, so that the training part has mean 0 and deviation 1.

    A constant column gets its own value as offset and a scale of its size, so it becomes exactly 0; of inputs some have
    another scale (``from_data``).
    """

    offset: np.ndarray
    scale: np.ndarray

    @classmethod
    def from_data(cls, values: Any, weights: Any = None, inputs: bool = False) -> Standardizer:
        """Mean and deviation of the columns of ``values`` (n, d), relative to the largest entry, so 1e±150 is safe.

        Three passes by blocks over an array or a RowSource; rows of ``weights`` zero do not count. Of ``inputs`` a
        column that has its smallest, or its largest, value in most rows (a category, an amount that is mostly 0) is not
        scaled by less than half the distance of the other rows from it, their root mean square: that is the deviation
        of two values that are as frequent, and the rarer a value is, the less it says, so that its effect must not be
        allowed to be larger. Columns that are evidently one measurement (pixels, say) get one scale, the root mean
        square of their deviations, lest a pixel that is lit once in a thousand images outweigh the others.
        """
        rows = block_rows(values)
        extent = reduce_blocks(_extent, rows, values, weights, combine=_joined)
        largest = np.maximum(np.abs(extent.low), np.abs(extent.high)).astype(np.float64)
        largest = np.where(largest > 0, largest, 1.0)
        total, count, apart, between = reduce_blocks(
            partial(_first, largest, extent), rows, values, weights, combine=_added
        )
        mean = total / count
        squares = reduce_blocks(partial(_second, largest, mean), rows, values, weights)
        deviation = np.sqrt(squares / count)
        # A column of float32 far from 0 may have few digits left that vary: that is not a constant one.
        spread = extent.high / largest - extent.low / largest
        constant = spread <= ROUNDING * np.finfo(values.dtype).eps
        first = extent.first
        offset = np.where(constant, first, mean * largest)
        scale = np.where(constant, np.where(first != 0, np.abs(first), 1.0), deviation * largest)
        if inputs and _one_unit(extent, between > 0, 1 - apart.min(axis=0) / count, constant):
            scale = np.full_like(scale, np.sqrt(np.mean((deviation * largest / scale.max()) ** 2)) * scale.max())
        elif inputs:
            usual = np.where(apart[0] <= apart[1], extent.low, extent.high) / largest
            others = np.where(constant, 1, apart.min(axis=0) / count)  # their share of the rows
            distance = np.sqrt((deviation**2 + (mean - usual) ** 2) / others)
            distance = np.where(between > 0, distance, spread)  # of two values, whatever the order of the rows
            scale = np.where(others < 0.5, np.maximum(scale, distance / 2 * largest), scale)
        return cls(offset.astype(np.float64), scale.astype(np.float64))

    def transform(self, values: Any, dtype: Any) -> Any:
        """The standardised values, a new array of ``dtype``; of a RowSource one that standardises what is read."""
        convert = partial(_standardized, self, np.dtype(dtype))
        return values.map(convert) if isinstance(values, RowSource) else convert(values)


def _standardized(scaler: Standardizer, dtype: np.dtype, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused by whoever asked
        return ((values - scaler.offset) / scaler.scale).astype(dtype)


@dataclass(frozen=True)
class _Extent:
    """The first row, the smallest and the largest value of every column."""

    first: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _extent(start: int, values: np.ndarray, weights: np.ndarray | None) -> _Extent | None:
    counted = values if weights is None else values[weights > 0]
    return _Extent(counted[0], counted.min(axis=0), counted.max(axis=0)) if len(counted) else None


def _joined(a: _Extent | None, b: _Extent | None) -> _Extent | None:
    if a is None or b is None:
        return a or b
    return _Extent(a.first, np.minimum(a.low, b.low), np.maximum(a.high, b.high))


def _first(
    largest: np.ndarray, extent: _Extent, start: int, values: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """The sums of the relative values and of the weights; the weights of the rows that are not at the one extreme, or
    the other, (2, d), and of those that are at neither."""
    if weights is not None:
        values, weights = values[weights > 0], weights[weights > 0]
    relative = values / largest
    if weights is not None:
        relative *= weights[:, None]
    total = relative.sum(axis=0)
    del relative  # before what follows takes as much again

    def weighed(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = rows.sum(axis=0, dtype=np.float64) if weights is None else weights @ rows
        return found

    away = [values != end for end in (extent.low, extent.high)]
    apart, between = np.stack([weighed(each) for each in away]), weighed(away[0] & away[1])
    return total, float(len(values) if weights is None else weights.sum()), apart, between


def _second(
    largest: np.ndarray, mean: np.ndarray, start: int, values: np.ndarray, weights: np.ndarray | None
) -> np.ndarray:
    """The sums of the squared differences of the relative values from ``mean``."""
    if weights is not None:
        values, weights = values[weights > 0], weights[weights > 0]
    squares = values / largest
    squares -= mean
    squares *= squares
    if weights is not None:
        squares *= weights[:, None]
    total: np.ndarray = squares.sum(axis=0)
    return total


def _added(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x + y for x, y in zip(a, b))


def _one_unit(extent: _Extent, many: np.ndarray, usual: np.ndarray, constant: np.ndarray) -> bool:
    """Whether most columns that vary, of those with ``many`` values if there are any, reach the same smallest and the
    same largest value, no column goes beyond, and one of these is met often, in the share ``usual`` of the rows:
    columns that somebody scaled to [0, 1] reach both as well, but in a row each."""
    asked = ~constant & many if np.any(~constant & many) else ~constant
    low, high = extent.low, extent.high
    reached = (low == low.min()) & (high == high.max()) & (usual >= OFTEN)
    return int(np.sum(~constant)) > 2 and bool(np.mean(reached[asked]) > 0.5)
