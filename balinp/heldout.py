"""What rows held out of fits made for it say: the noise, the predictive's temperature, and which settings do better."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from .errors import ConvergenceWarning
from .likelihoods import Gaussian
from .mlp import MLP
from .predictive import Predictive, predict_linearized, predict_monte_carlo
from .session import Session
from .settings import Settings
from .solver import BALIState

FOLDS, DRAWS = 2, 100
FEWEST_ROWS, MOST_ROWS = 20, 5_000  # fewer say nothing; of more, a network like the default forgets next to nothing
CANDIDATES: tuple[dict[str, Any], ...] = (
    {},  # the settings as they are; the others must be better, not as good
    {"prior_precision": 0.01, "max_temperature": 0.02},  # follows curves that the first takes for noise
)


@dataclass(frozen=True)
class HeldOut:
    """What the held-out rows said of ``settings``: the noise and the temperature (relative to that noise) under which
    they are most probable, and their mean −log p(y) in nats."""

    settings: Settings
    likelihood: Gaussian
    temperature: float
    loss: float

    def applied(self, state: BALIState) -> BALIState:
        """``state`` of a fit on all rows, to predict with this noise at this temperature.   (eq:held-out-noise)

        Its covariances are those of the noise that its training learnt: θ σ̄²/s̄² makes them those of this noise.
        """
        noise, learnt = _mean_noise(self.likelihood), _mean_noise(state.likelihood)
        heat = self.temperature * noise / learnt if state.temperature > 0 else 0.0
        return replace(state, likelihood=self.likelihood, predictive_temperature=heat)


@dataclass(frozen=True)
class Trial:
    """Fits without a ``fraction`` of the rows, ``FOLDS`` times, and ``predictive`` of the rows that each lacked.

    Shapes: x (N, D), y (N, K), weight (N,), on the host. ``seed`` says which rows, the same for all settings. Equal
    rows are held out together, so that a weight of two still is a row twice.   (eq:held-out-noise)
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    mlp: MLP
    likelihood: Gaussian
    seed: int
    fraction: float
    predictive: str = "monte_carlo"
    session: Session = field(default_factory=Session)

    def predicted(self, state: BALIState, x: Any, generator: Any) -> Predictive:
        """The predictive of ``state`` at ``x`` (n, D) that the noise and the temperature are to be for.
        (eq:held-out-noise)"""
        if self.predictive == "linearized":
            return predict_linearized(state, x)
        return predict_monte_carlo(state, x, generator, DRAWS)


def best_held_out(trial: Trial, settings: Settings, chosen: Collection[str] = ()) -> HeldOut | None:
    """Of ``settings`` and their variants in CANDIDATES the one under which held-out rows are most probable.
    (eq:held-out-choice)

    All see the same rows held out. Settings named in ``chosen`` stay. None if a fit was interrupted.
    """
    best: HeldOut | None = None
    for number, changes in enumerate(CANDIDATES):
        variant = replace(settings, **{name: value for name, value in changes.items() if name not in chosen})
        if best is not None and variant == settings:
            continue
        found = held_out_noise(trial, variant, f", variant {number + 1} of {len(CANDIDATES)}")
        if found is None:
            return None
        if best is None or found.loss < best.loss:
            best = found
    return best


def held_out_noise(trial: Trial, settings: Settings, label: str = "") -> HeldOut | None:
    """The noise σ² and the temperature θ under which the held-out rows of ``trial`` are most probable.
    (eq:held-out-noise)

    The residuals of training make σ² too small once a network has parameters for a good part of its rows, and draws are
    kept colder than the posterior for the sake of the training. One σ² per output, or for all where the trial's
    likelihood has one; ``label`` tells fits apart in what is reported. None if a fit was interrupted.
    """
    core, generator, y = trial.mlp.backend, np.random.default_rng(trial.seed), trial.y
    _, group = np.unique(np.column_stack([trial.x, y]), axis=0, return_inverse=True)
    place = generator.permutation(group.max() + 1)[group.reshape(-1)] / (group.max() + 1)  # in [0, 1)
    squares, units, weights = [], [], []
    for k in range(FOLDS):
        out = (place >= k * trial.fraction) & (place < (k + 1) * trial.fraction)
        kept = None if trial.weight is None else core.asarray(trial.weight[~out])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the fit on all rows says it
            rows = core.asarray(trial.x[~out]), core.asarray(y[~out]), trial.mlp, trial.likelihood, generator, settings
            name = f"held-out rows {k + 1} of {FOLDS}{label}"
            result = trial.session.fit(name, *rows, sample_weight=kept)
        if result.interrupted:
            return None
        state = result.state
        p = trial.predicted(state, core.asarray(trial.x[out]), generator)
        variance = core.to_host(core.xp.diagonal(p.epistemic, axis1=1, axis2=2)).astype(np.float64)
        unit = max(state.temperature, 1e-12) * _mean_noise(state.likelihood)  # temperature 0: no variance either
        units.append(variance / unit)
        squares.append((y[out] - core.to_host(p.mean)).astype(np.float64) ** 2)
        weights.append(np.ones(out.sum()) if trial.weight is None else trial.weight[out])
    square, u, w = np.concatenate(squares), np.concatenate(units), np.concatenate(weights).astype(np.float64)
    known = trial.likelihood.noise_variance
    found, heat = most_probable_noise(square, u, w, settings.noise_floor, shared=known.ndim == 0)
    total = found + heat * np.exp(np.mean(np.log(found))) * u
    loss = float(w @ (np.log(2 * np.pi * total) + square / total).sum(axis=1) / w.sum()) / 2
    noise = Gaussian(core.asarray(np.asarray(found, y.dtype).reshape(known.shape)), trial.likelihood.backend)
    return HeldOut(settings, noise, heat, loss)


def most_probable_noise(
    square: np.ndarray, unit: np.ndarray, weight: np.ndarray, floor: float, shared: bool = False
) -> tuple[np.ndarray, float]:
    """(σ² (k,), or (1,) if ``shared``, and θ) that maximise ∑ w_n log N(r_nk | 0, σ_k² + θ σ̄² u_nk) − ½ (log θ)².
    (eq:held-out-noise)

    σ̄² is the geometric mean of the σ_k², each at least ``floor``. Shapes: squared residuals r² (n, k), variances u
    (n, k) per unit of noise at temperature 1, weights w (n,).
    """
    k = square.shape[1]
    outputs = 1 if shared else k

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        noise, scale = np.exp(p[:-1]), np.exp(p[-1] + np.mean(p[:-1]))
        total = noise + scale * unit
        slope = weight[:, None] * (1 / total - square / total**2) / 2
        by_noise = noise * (slope.sum(axis=0) if not shared else slope.sum())
        by_scale = scale * np.sum(slope * unit)
        loss = weight @ (np.log(total) + square / total).sum(axis=1) / 2 + p[-1] ** 2 / 2
        return float(loss), np.append(by_noise + by_scale / outputs, by_scale + p[-1])

    each = square.mean() if shared else square.mean(axis=0)
    low = float(np.log(floor))
    high = max(float(np.log(square.max() + floor)), low + 1)  # beyond the largest residual the likelihood only falls
    start = np.clip(np.log(np.broadcast_to(each, outputs) / 2 + floor), low, high)
    bounds = [(low, high)] * outputs + [(-8.0, 8.0)]
    tries = [
        minimize(objective, np.append(start, heat), jac=True, method="L-BFGS-B", bounds=bounds)
        for heat in (-3.0, 0.0, 3.0)  # it may have more than one maximum
    ]
    best = min(tries, key=lambda found: found.fun)
    return np.exp(best.x[:-1]), float(np.exp(best.x[-1]))


def _mean_noise(likelihood: Any) -> float:
    """σ̄², the geometric mean of a Gaussian's noise variances."""
    return float(np.exp(np.mean(np.log(likelihood.backend.to_host(likelihood.noise_variance)))))
