"""Where blocks, batches and workers meet: one reduction over rows, wherever they are.

Neither core nor shell: the passes of the core go through it and the checks and scales of the shell as well, each with
arrays of its own; no array library is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from operator import add
from typing import Any


def blocks(rows: int, block_rows: int) -> Iterator[slice]:
    """Consecutive slices of at most ``block_rows`` rows.   (eq:block-sum)"""
    return (slice(start, min(start + block_rows, rows)) for start in range(0, rows, block_rows))


def reduce_blocks(
    of: Callable[..., Any], block_rows: int, x: Any, *others: Any, combine: Callable[[Any, Any], Any] = add
) -> Any:
    """``of(start, x[rows], *others[rows])`` of every block of rows, combined in their order; None of no rows.

    Every pass over data is this one, wherever the rows are: an array, a file that is read block by block, or a source
    that knows better (``x.reduce_blocks``: workers that reduce the rows they hold). ``start`` is the position of the
    block's first row among all; of ``others`` each has as many rows as x, or is None.   (eq:block-sum)
    """
    elsewhere = getattr(x, "reduce_blocks", None)
    if elsewhere is not None:
        return elsewhere(of, block_rows, *others, combine=combine)
    total = None
    for rows in blocks(len(x), block_rows):
        part = of(rows.start, *(None if array is None else array[rows] for array in (x, *others)))
        total = part if total is None else combine(total, part)
    return total


def is_dask(values: Any) -> bool:
    """Whether ``values`` are one of Dask's collections, which is found out without importing it.   (eq:block-sum)"""
    return type(values).__module__.partition(".")[0] in ("dask", "dask_expr")


def held_rows(x: Any, *others: Any) -> tuple[Any, ...]:
    """x and what goes with it, ready for many passes: Dask arrays held by the workers, others as they are.

    (eq:block-sum)
    """
    if not any(is_dask(rows) or hasattr(rows, "reduce_blocks") for rows in (x, *others)):
        return (x, *others)
    return import_module(".distributed", __package__).held(x, *others)  # Dask is optional
