"""One thread for BLAS where products are small: threads that wait for one another take longer than the products."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from threadpoolctl import threadpool_limits

SMALL = 10**9  # multiply-adds in a pass; half of it takes longer with two threads: benchmarks/threads_output.md


def calm_threads(rows: int, weights: int) -> AbstractContextManager[Any]:
    """A context in which BLAS takes one thread if passes over so many ``rows`` (of a batch or block) with so many
    ``weights`` are small, and else whatever it was going to take. It holds for the whole process while it lasts."""
    return threadpool_limits(limits=1, user_api="blas") if rows * weights < SMALL else nullcontext()
