"""The means that a fit ends at: moving averages of those that its drawn iterations left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .backend import Array
from .solver import moving_rate


@dataclass(frozen=True)
class AveragedMeans:
    """M̄ of every layer, (D_l, K_l), over ``count`` iterations at drawn weights.   (eq:averaged-means)"""

    means: tuple[Array, ...]
    count: int


def averaged_means(before: AveragedMeans | None, means: Sequence[Array], rate: float) -> AveragedMeans:
    """M̄ + a (M − M̄), a = max(ω, 1/count), with the layers' ``means`` M after one more such iteration; ``rate`` is ω.
    (eq:averaged-means)"""
    if before is None:
        return AveragedMeans(tuple(means), 1)
    a = moving_rate(rate, before.count)
    return AveragedMeans(tuple(old + a * (new - old) for old, new in zip(before.means, means)), before.count + 1)
