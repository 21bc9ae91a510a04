"""Deep ensemble (Lakshminarayanan, Pritzel and Blundell, 2017): MAP networks from independent starts, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import map as map_
from .common import Model, Watch

GRID: tuple[dict[str, Any], ...] = ({},)  # the members are tuned as MAP is; validation picks the noise anew


@dataclass(frozen=True)
class Ensemble(Model):
    members: tuple[map_.MAP, ...]

    def draws(self, x: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        """One draw per member."""
        return np.concatenate([member.draws(x, 1, generator) for member in self.members])


def fit(
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    generator: np.random.Generator,
    *,
    members: int = 5,
    start: map_.MAP | None = None,
    watch: Watch | None = None,
    **settings: Any,
) -> Ensemble:
    """``settings`` are those of map.fit; ``start`` is a member trained before."""
    first = () if start is None else (start,)
    rest = generator.spawn(members - len(first))
    fitted = (*first, *(map_.fit(x, y, task, own, **settings) for own in rest))
    noise = np.mean([member.noise_variance for member in fitted], axis=0)
    model = Ensemble(fitted[0].mlp, task, noise, fitted)
    if watch is not None:
        watch(1.0, model)
    return model
