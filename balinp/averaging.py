"""The means that a fit ends at: moving averages of those its iterations leave, which the last draw has just moved."""

from __future__ import annotations

from collections.abc import Sequence

from .backend import Array
from .solver import moving_rate
from .state import BALIState

Averages = tuple[Array, ...] | None


def averaged_means(averages: Averages, means: Sequence[Array], rate: float | None, count: int) -> Averages:
    """M̄ + a (M − M̄), a = max(ω, 1/count), of the layers' means (D_l, K_l) after the ``count``-th iteration with draws;
    None before that, without a ``rate`` ω, and without hidden layers, where M is exact.   (eq:averaged-means)"""
    if rate is None or count < 1 or len(means) == 1:
        return None
    a = moving_rate(rate, count - 1)
    return tuple(means if averages is None else [old + a * (new - old) for old, new in zip(averages, means)])


def ends_at(state: BALIState, averages: Averages) -> BALIState:
    """The model of a fit that ends at ``state``.   (eq:averaged-means)"""
    return state if averages is None else state.with_means(averages)
