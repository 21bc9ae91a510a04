"""Rows that stay where they are: files read block by block here, Dask arrays in ``distributed.py``.

A RowSource stands in for an array wherever the fit, the checks and the scales take rows: it has shape, dtype, len and
[rows], and every pass over it goes by ``blocks.reduce_blocks``, so no more than a block is ever in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Self

import numpy as np

from .backend import Backend
from .blocks import is_dask, reduce_blocks

BLOCK_NUMBERS = 2**21  # of a block that is checked or measured: 16 MiB in float64


class RowSource(ABC):
    """Rows, all of one shape and dtype, that ``map`` turns into others without reading them."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]: ...

    @property
    @abstractmethod
    def dtype(self) -> np.dtype: ...

    @abstractmethod
    def map(self, convert: Callable[[np.ndarray], np.ndarray]) -> Self:
        """The rows that ``convert`` makes of these, block for block, whenever they are read."""

    @abstractmethod
    def gathered(self) -> np.ndarray:
        """All rows, in memory here."""

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def astype(self, dtype: Any) -> Self:
        """The same numbers in another dtype."""
        return self if self.dtype == dtype else self.map(partial(_cast, np.dtype(dtype)))

    def __mul__(self, factor: np.ndarray) -> Self:
        return self.map(partial(np.multiply, factor))

    def sum(self) -> Any:
        """The sum of all entries, as a NumPy number in float64."""
        return reduce_blocks(_sum, block_rows(self), self)


@dataclass(frozen=True)
class MappedRows(RowSource):
    """The rows of a memory-mapped array, each read from the file, and converted, when it is asked for."""

    values: np.ndarray
    converts: tuple[Callable[[np.ndarray], np.ndarray], ...] = ()

    def __getitem__(self, rows: Any) -> np.ndarray:
        block = self.values[rows.get() if hasattr(rows, "get") else rows]  # a batch's row numbers may be on a GPU
        for convert in self.converts:
            block = convert(block)
        return np.ascontiguousarray(block)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.values), *self[:0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self[:0].dtype

    def map(self, convert: Callable[[np.ndarray], np.ndarray]) -> MappedRows:
        return MappedRows(self.values, (*self.converts, convert))

    def gathered(self) -> np.ndarray:
        return self[:]


def row_source(values: Any) -> RowSource | None:
    """``values`` as a RowSource, if they are a memory-mapped array, a Dask array or one already; None of others."""
    if isinstance(values, RowSource):
        return values
    if is_dask(values):
        from .distributed import DaskRows  # Dask is optional

        return DaskRows.of(values)
    mapped = values
    while isinstance(mapped, np.ndarray) and not isinstance(mapped, np.memmap):
        mapped = mapped.base  # of a view
    if not isinstance(mapped, np.memmap):
        return None
    # NumPy calls a copy of a memory map one too
    return MappedRows(values) if mapped._mmap is not None else None  # type: ignore[attr-defined]


def block_rows(rows: Any) -> int:
    """The rows of a block that holds BLOCK_NUMBERS numbers."""
    return max(1, BLOCK_NUMBERS // max(1, prod(rows.shape[1:])))


def gathered(rows: Any) -> Any:
    """The rows of a source as an array; an array, or None, as it is."""
    return rows.gathered() if isinstance(rows, RowSource) else rows


def on_backend(rows: Any, backend: Backend) -> Any:
    """An array where ``backend`` works; a source, whose blocks go there one by one, and None as they are."""
    return rows if rows is None or isinstance(rows, RowSource) else backend.asarray(rows)


def _cast(dtype: np.dtype, block: np.ndarray) -> np.ndarray:
    return block.astype(dtype, copy=False)


def _sum(start: int, block: np.ndarray) -> Any:
    return np.sum(block, dtype=np.float64)
