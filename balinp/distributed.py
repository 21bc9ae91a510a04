"""Rows held by the workers of a Dask cluster: fits whose traffic does not grow with the number of rows.

Of every pass the workers get the weights, and give back sums: one per chunk of rows, added up in a tree that the chunks
fix, so that neither the number of workers nor who is first changes a bit. A worker that dies takes nothing along that
Dask cannot compute again, to the same bits. Needs the extra ``distributed`` and a running ``dask.distributed.Client``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from operator import add
from typing import Any, Self, TypeAlias

import dask.array as da
import numpy as np
from dask.base import annotate
from dask.core import flatten
from dask.delayed import delayed
from distributed import Client, get_client, wait

from .blocks import is_dask, reduce_blocks
from .errors import InvalidArgumentError, InvalidTypeError
from .rows import RowSource, gathered

Combine: TypeAlias = Callable[[Any, Any], Any]

FAN_IN = 8  # sums added by one task of the tree


@dataclass(frozen=True)
class ChunkBatch:
    """Batch ``index`` of ``count``: of every chunk of n rows the entries ⌊n·index/count⌋ to ⌊n·(index + 1)/count⌋ of a
    permutation that ``key`` and the chunk's number fix. The batches of one key are a partition of the rows."""

    key: int
    index: int
    count: int

    def rows(self, chunk: int, rows: int) -> np.ndarray:
        """The rows, counted within the chunk, that the batch takes of a ``chunk`` of so many ``rows``."""
        return _permutation(self.key, chunk, rows)[self._range(rows)]

    def size(self, rows: int) -> int:
        """How many those are."""
        taken = self._range(rows)
        return taken.stop - taken.start

    def _range(self, rows: int) -> slice:
        return slice(rows * self.index // self.count, rows * (self.index + 1) // self.count)


@lru_cache(maxsize=64)  # a pass asks for the same one in every batch
def _permutation(key: int, chunk: int, rows: int) -> np.ndarray:
    order = np.random.default_rng([key, chunk]).permutation(rows)
    order.flags.writeable = False
    return order


@dataclass(frozen=True)
class DaskRows(RowSource):
    """The rows of a Dask array whose chunks are cut along the rows only; ``homes``: the worker with each chunk."""

    array: Any
    homes: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Any) -> DaskRows:
        """The rows of a Dask array, its columns brought together.

        Raises InvalidTypeError for another collection of Dask's, InvalidArgumentError for unknown numbers of rows.
        """
        if not isinstance(values, da.Array):
            raise InvalidTypeError(f"rows must be a Dask array, got {type(values).__name__}; use .to_dask_array")
        if any(np.isnan(size) for size in values.shape):
            raise InvalidArgumentError(
                f"a Dask array must know the rows of its chunks, got shape {values.shape}; "
                "call its compute_chunk_sizes(), or to_dask_array(lengths=True)"
            )
        rows = tuple(n for n in values.chunks[0] if n) or (0,)
        return cls(values.rechunk((rows, *(-1 for _ in values.shape[1:]))))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """The rows of each chunk."""
        return tuple(int(rows) for rows in self.array.chunks[0])

    def map(self, convert: Callable[[np.ndarray], np.ndarray]) -> Self:
        like = convert(np.empty((0, *self.shape[1:]), self.dtype))
        chunks = (self.chunks, *((size,) for size in like.shape[1:]))
        new, old = range(1, like.ndim), range(1, self.ndim)
        axes = {"new_axis": list(new)[len(old) :], "drop_axis": list(old)[len(new) :]}
        return type(self)(self.array.map_blocks(convert, dtype=like.dtype, chunks=chunks, meta=like, **axes))

    def gathered(self) -> np.ndarray:
        return np.asarray(client().compute(self.array, sync=True))

    def __getitem__(self, rows: Any) -> Self:
        if not isinstance(rows, ChunkBatch):
            return type(self)(self.array[rows])
        chunks = (tuple(rows.size(n) for n in self.chunks), *self.array.chunks[1:])
        return type(self)(
            self.array.map_blocks(_selected, rows, dtype=self.dtype, chunks=chunks, meta=self.array._meta)
        )

    def batches(self, count: int, generator: np.random.Generator) -> Iterator[ChunkBatch]:
        """A random partition of the rows, whatever their number, by one draw: each worker permutes its own chunks."""
        key = int(generator.integers(2**63))
        return (ChunkBatch(key, index, count) for index in range(count))

    @cached_property
    def parts(self) -> list[Any]:
        """The chunks, as tasks that give arrays."""
        return list(self.array.to_delayed().reshape(-1))

    def reduce_blocks(self, of: Callable[..., Any], block_rows: int, *others: Any, combine: Combine = add) -> Any:
        """``blocks.reduce_blocks`` where the rows are: by blocks within a chunk, then over the chunks by a tree.

        ``of``, with the weights in it, is a task of its own: it goes to each worker once, and anew if a worker dies.
        A chunk's sums are made where the chunk is, as long as that worker lives.
        """
        columns = [[None] * len(self.parts) if a is None else a.parts for a in self._beside(others)]
        task, starts = delayed(of, traverse=False), np.cumsum([0, *self.chunks]).tolist()
        sums: list[Any] = []
        for start, home, *arrays in zip(starts, self.homes or [None] * len(self.parts), self.parts, *columns):
            with annotate(**_at(home)):
                sums.append(delayed(_chunk, pure=False)(task, combine, block_rows, start, *arrays))
        while len(sums) > 1:
            groups = [sums[i : i + FAN_IN] for i in range(0, len(sums), FAN_IN)]
            sums = [delayed(_combined, pure=False)(combine, *group) for group in groups]
        return client().compute(sums[0], sync=True)

    def _beside(self, others: tuple[Any, ...]) -> list[DaskRows | None]:
        """Arrays and sources with this one's rows, cut as it is."""
        return [None if other is None else self._cut_alike(other) for other in others]

    def _cut_alike(self, other: Any) -> DaskRows:
        array = other.array if isinstance(other, DaskRows) else gathered(other)
        chunks = (self.chunks, *array.shape[1:])
        if isinstance(other, DaskRows) and other.chunks == self.chunks:
            return other
        if len(array) != len(self):
            raise InvalidArgumentError(f"y and sample_weight must have {len(self)} rows as x, got {len(array)}")
        return DaskRows(array.rechunk(chunks) if is_dask(array) else da.from_array(array, chunks))


def client() -> Client:
    """The client that the rows' workers are reached by; raises InvalidArgumentError where there is none."""
    try:
        return get_client()
    except ValueError as error:
        raise InvalidArgumentError(
            "Dask arrays need a running cluster: make a dask.distributed.Client first (Client() starts one here)"
        ) from error


def held(x: Any, *others: Any) -> tuple[Any, ...]:
    """(x, *others) for a fit: a Dask ``x`` and all beside it, cut alike, in the memory of the workers, which spill to
    disk what does not fit; beside any other x, all of ``others`` in memory here. None stays None."""
    rows, *beside = (DaskRows.of(a) if is_dask(a) else a for a in (x, *others))
    if not isinstance(rows, DaskRows):
        return (rows, *(gathered(a) for a in beside))
    every = [rows, *rows._beside(tuple(beside))]
    found = [a for a in every if a is not None]
    # what belongs to the same rows comes out of one task, so that it lies on one worker and stays there
    chunks = [delayed(_together, pure=False)(*parts) for parts in zip(*(a.parts for a in found))]
    kept = client().persist([_picked(chunks, i, a) for i, a in enumerate(found)])
    wait(kept)
    holders, left = client().who_has(kept[0]), iter(kept)
    homes = tuple(next(iter(holders.get(key, ())), "") for key in flatten(kept[0].__dask_keys__()))
    return tuple(None if a is None else DaskRows(next(left), homes) for a in every)


def _at(home: str | None) -> dict[str, Any]:
    """Where a task should run: moving rows costs more than waiting for the worker that has them."""
    return {"workers": [home], "allow_other_workers": True} if home else {}


def _together(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    return arrays


def _picked(chunks: list[Any], index: int, like: DaskRows) -> Any:
    """The Dask array of the entries ``index`` of the chunks, with the shape of ``like``."""
    parts = [
        da.from_delayed(chunk[index], (rows, *like.shape[1:]), like.dtype) for chunk, rows in zip(chunks, like.chunks)
    ]
    return da.concatenate(parts)


def predicted(predict: Callable[[np.ndarray], np.ndarray], x: DaskRows) -> Any:
    """``predict`` of every chunk, a lazy Dask array whose chunks have the rows of x's; ``predict`` gives one row for
    one, whatever the number."""
    like = predict(np.zeros((1, *x.shape[1:]), x.dtype))[:0]
    chunks = (x.chunks, *((size,) for size in like.shape[1:]))
    axes = {"drop_axis": [1]} if like.ndim == 1 else {}
    return x.array.map_blocks(predict, dtype=like.dtype, chunks=chunks, meta=like, **axes)


def _selected(block: np.ndarray, batch: ChunkBatch, block_id: tuple[int, ...] = (0,)) -> np.ndarray:
    return block[batch.rows(block_id[0], len(block))]


def _chunk(
    of: Callable[..., Any], combine: Callable[[Any, Any], Any], block_rows: int, start: int, *arrays: Any
) -> Any:
    """One chunk's sums; ``start`` is the position of its first row among all."""
    return reduce_blocks(partial(_shifted, of, start), block_rows, *arrays, combine=combine)


def _shifted(of: Callable[..., Any], first: int, start: int, *arrays: Any) -> Any:
    return of(first + start, *arrays)


def _combined(combine: Combine, *parts: Any) -> Any:
    """The parts combined in their order; a batch may take no row of a small chunk, whose part is then None."""
    total = None
    for part in parts:
        if part is not None:
            total = part if total is None else combine(total, part)
    return total
