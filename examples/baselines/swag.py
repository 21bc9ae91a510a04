"""SWAG (Maddox et al., 2019): a normal fitted to the weights that training with a constant step passes through.

The walk starts from the MAP network and uses Adam with a constant step in place of SGD's: the curvature of a Gaussian
loss scales with 1/σ², over decades from set to set, and one grid of steps has to serve them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import map as map_
from .common import Model, Watch, minimise, split, targets

GRID = tuple({"walk_step": s} for s in (0.0003, 0.001, 0.003))


@dataclass(frozen=True)
class Swag(Model):
    """N(mean, ½ diag(variance) + ½ DᵀD/(R − 1)) over flat weights; deviations D (R, P)."""

    mean: np.ndarray
    variance: np.ndarray
    deviations: np.ndarray

    def sample(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """n flat weight vectors, (n, P)."""
        diagonal = generator.standard_normal((n, len(self.mean))) * np.sqrt(self.variance / 2)
        rank = len(self.deviations)
        low_rank = generator.standard_normal((n, rank)) @ self.deviations / np.sqrt(2 * (rank - 1))
        return self.mean + diagonal + low_rank

    def draws(self, x: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        return np.stack([self.mlp.forward(split(w, self.mlp.shapes), x).outputs[-1] for w in self.sample(n, generator)])


def from_iterates(iterates: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance (biased, as in the paper) and the last ``rank`` deviations of weights (T, P)."""
    mean = iterates.mean(axis=0)
    return mean, iterates.var(axis=0), iterates[-rank:] - mean


def fit(
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    generator: np.random.Generator,
    *,
    walk_step: float = 0.001,
    walk: int = 2_000,
    collected: int = 80,
    rank: int = 20,
    start: map_.MAP | None = None,
    watch: Watch | None = None,
    **settings: Any,
) -> Swag:
    """``walk`` iterations from the MAP network, ``collected`` of them kept; ``settings`` are those of map.fit."""
    start = start or map_.fit(x, y, task, generator, **settings)
    mlp, theta = start.mlp, start.theta.copy()
    rows, iterates = targets(y, mlp, task), []

    def keep(share: float, theta: np.ndarray) -> bool:
        iterates.append(theta[: -mlp.widths[-1]].copy())
        return False

    minimise(
        theta,
        lambda t, chosen: map_.gradient(
            t, mlp, x[chosen], rows[chosen], task, settings.get("prior_precision", 1.0), len(x)
        ),
        len(x),
        generator,
        iterations=walk,
        stop=1.0,
        batch_size=settings.get("batch_size", 32),
        step=walk_step,
        decay=False,
        watch=keep,
        checks=collected,
    )
    model = Swag(mlp, task, start.noise_variance, *from_iterates(np.stack(iterates), rank))
    if watch is not None:
        watch(1.0, model)
    return model
