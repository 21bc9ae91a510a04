"""Checks that are put off: on a GPU each look at a result waits for it, so an iteration looks at all of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeAlias

from .errors import NotPositiveDefiniteError

Check: TypeAlias = Callable[[], Exception | None]  # what to raise when a check is bad; None: false alarm


class Deferred:
    """The checks of one ``Backend.deferred`` block that nobody has waited for yet, in the order they were made."""

    def __init__(self, fetch: Callable[..., list[float]]):
        self._fetch = fetch
        self.checks: list[tuple[Any, Check]] = []

    def floats(self, *values: Any) -> list[float]:
        """``Backend.floats`` of ``values`` and, in the same transfer, the checks: the first bad one raises.
        (eq:precision)
        """
        checks, self.checks = self.checks, []
        numbers = self._fetch(*values, *(bad for bad, _ in checks))
        for bad, (_, error) in zip(numbers[len(values) :], checks):
            refusal = error() if bad else None
            if refusal is not None:
                raise refusal
        return numbers[: len(values)]

    @contextmanager
    def in_layer(self, layer: int) -> Iterator[None]:
        """A matrix that is not positive definite, checked inside or put off, is said to be of this layer.
        (eq:cholesky)
        """
        first = len(self.checks)
        try:
            yield
        except NotPositiveDefiniteError as error:
            raise error.in_layer(layer) from None
        self.checks[first:] = [(bad, partial(_in_layer, error, layer)) for bad, error in self.checks[first:]]


def _in_layer(error: Check, layer: int) -> Exception | None:
    refusal = error()
    return refusal.in_layer(layer) if isinstance(refusal, NotPositiveDefiniteError) else refusal


current: ContextVar[Deferred | None] = ContextVar("deferred", default=None)  # of the innermost block, per thread
