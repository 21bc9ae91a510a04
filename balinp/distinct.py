"""Rows that say the same, counted: a weight of two and a row that stands twice are made one thing before the fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from .rows import gathered

MOST_ROWS = 1_000_000  # beyond them the search costs more than the difference between equal rows and weights can matter


def distinct_rows(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Index (m,) of the distinct rows of (x, y) with a positive weight, and the sum (m,) of the weights of each.

    x (n, d); y (n,) or (n, k), numbers; weight (n,), None: ones. Data that differ only in how they count their rows
    (twice, or once with a weight of two), in rows of weight zero and in the order of the others give the same rows with
    the same weights in the same order, which depends on nothing but their content; so a fit that draws its noise and
    its batches row by row has the same bits. Weights whose sums are exact in float64 (whole numbers, say) are meant;
    other sums carry their rounding.

    Rows that are all distinct and count alike once stay as they stand, in their order: then the weights are None, and
    so is the index unless rows of weight zero are left out. So do more than MOST_ROWS rows, with their weights.
    """
    kept = None if weight is None or np.all(weight > 0) else np.flatnonzero(weight > 0)
    if kept is not None and weight is not None:
        x, y, weight = x[kept], y[kept], weight[kept]
    if weight is not None and np.all(weight == 1):
        weight = None
    columns = [*x.T, *y.reshape(len(y), -1).T]
    if len(x) > MOST_ROWS:
        return kept, weight
    key = _content(columns)
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    alike = sorted_key[1:] == sorted_key[:-1]
    if weight is None and not alike.any():
        return kept, None
    for column in columns:  # equal keys nearly always mean equal rows; make sure of it
        alike &= column[order[1:]] == column[order[:-1]]
    first = np.flatnonzero(np.concatenate([[True], ~alike]))
    counts = np.add.reduceat(np.ones(len(x)) if weight is None else weight[order], first)
    index = order[first]
    return (index if kept is None else kept[index]), counts


def joined_rows(x: Any, y: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The distinct rows of (x, y) that have a weight, with the sums of their weights: see distinct_rows. Rows of a file
    or of workers are gathered."""
    x, y, weight = (gathered(rows) for rows in (x, y, weight))
    index, weight = distinct_rows(x, y, weight)
    return (x, y, weight) if index is None else (x[index], y[index], weight)


def _content(columns: list[np.ndarray]) -> np.ndarray:
    """A number (n,) of 64 bits for every row, mixed from the bits of its cells: FNV-1a with words for bytes."""
    key = np.full(len(columns[0]), 0xCBF29CE484222325, dtype=np.uint64)
    for column in columns:
        bits = (column.astype(np.float64) + 0.0).view(np.uint64)  # −0 and 0 are one number
        key = (key ^ bits) * np.uint64(0x100000001B3)
        key ^= key >> np.uint64(29)  # high bits, where floats differ, reach the low ones
    return key
