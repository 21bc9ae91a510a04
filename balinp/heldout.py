"""What rows held out of fits made for it say: the variance of Gaussian noise, and which settings do better."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from .errors import ConvergenceWarning
from .likelihoods import Gaussian
from .mlp import MLP
from .predictive import predict_monte_carlo
from .session import Session
from .settings import Settings

FOLDS, DRAWS = 2, 100
FEWEST_ROWS, MOST_ROWS = 20, 5_000  # fewer say nothing; of more, a network like the default forgets next to nothing
CANDIDATES: tuple[dict[str, Any], ...] = (
    {},  # the settings as they are; the others must be better, not as good
    {"prior_precision": 0.01, "max_temperature": 0.02},  # follows curves that the first takes for noise
)


@dataclass(frozen=True)
class HeldOut:
    """What the held-out rows said of ``settings``: the noise that makes them most probable, and their mean
    −log p(y) in nats under it."""

    settings: Settings
    likelihood: Gaussian
    loss: float


def best_held_out(
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    mlp: MLP,
    likelihood: Gaussian,
    settings: Settings,
    seed: int,
    fraction: float,
    chosen: Collection[str] = (),
    session: Session | None = None,
) -> HeldOut | None:
    """Of ``settings`` and their variants in CANDIDATES the one under which held-out rows are most probable.
    (eq:held-out-choice)

    All see the same rows held out (eq:held-out-noise, which see for the shapes). Settings named in ``chosen`` stay.
    None if a fit was interrupted.
    """
    best: HeldOut | None = None
    for number, changes in enumerate(CANDIDATES):
        variant = replace(settings, **{name: value for name, value in changes.items() if name not in chosen})
        if best is not None and variant == settings:
            continue
        label = f", variant {number + 1} of {len(CANDIDATES)}"
        found = held_out_noise(x, y, weight, mlp, likelihood, variant, seed, fraction, session, label)
        if found is None:
            return None
        if best is None or found.loss < best.loss:
            best = found
    return best


def held_out_noise(
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    mlp: MLP,
    likelihood: Gaussian,
    settings: Settings,
    seed: int,
    fraction: float,
    session: Session | None = None,
    label: str = "",
) -> HeldOut | None:
    """``likelihood`` with the σ² under which rows held out of ``FOLDS`` fits, ``fraction`` of all each, are most
    probable.   (eq:held-out-noise)

    The residuals of training make σ² too small once a network has parameters for a good part of its rows. σ² maximises
    ∑ w_n log N(y_n | m_n, v_n + σ²) over held-out rows n, with m_n and v_n the mean and variance of a Monte-Carlo
    predictive's outputs; per output, or one σ² for all where ``likelihood`` has one. Equal rows are held out together,
    so that a weight of two still is a row twice. Shapes: x (N, D), y (N, K), weight (N,), on the host. None if a fit
    was interrupted.
    """
    core, generator, run = mlp.backend, np.random.default_rng(seed), session or Session()
    _, group = np.unique(np.column_stack([x, y]), axis=0, return_inverse=True)
    place = generator.permutation(group.max() + 1)[group.reshape(-1)] / (group.max() + 1)  # in [0, 1)
    means, variances, targets, weights = [], [], [], []
    for k in range(FOLDS):
        out = (place >= k * fraction) & (place < (k + 1) * fraction)
        kept = None if weight is None else core.asarray(weight[~out])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the fit on all rows says it
            rows = core.asarray(x[~out]), core.asarray(y[~out])
            name = f"held-out rows {k + 1} of {FOLDS}{label}"
            result = run.fit(name, *rows, mlp, likelihood, generator, settings, sample_weight=kept)
        if result.interrupted:
            return None
        draws: Any = core.to_host(predict_monte_carlo(result.state, core.asarray(x[out]), generator, DRAWS).draws)
        means.append(draws.mean(axis=0))
        variances.append(draws.var(axis=0))
        targets.append(y[out])
        weights.append(np.ones(out.sum()) if weight is None else weight[out])
    square = ((np.concatenate(targets) - np.concatenate(means)) ** 2).astype(np.float64)
    v, w = np.concatenate(variances).astype(np.float64), np.concatenate(weights).astype(np.float64)
    columns = [slice(None)] if likelihood.noise_variance.ndim == 0 else [[k] for k in range(y.shape[1])]
    found = [most_probable_noise(square[:, c], v[:, c], w, settings.noise_floor) for c in columns]
    known, total = likelihood.noise_variance, v + np.asarray(found)
    loss = float(w @ (np.log(2 * np.pi * total) + square / total).sum(axis=1) / w.sum()) / 2
    noise = Gaussian(np.asarray(found, known.dtype).reshape(known.shape), likelihood.backend)
    return HeldOut(settings, noise, loss)


def most_probable_noise(square: np.ndarray, variance: np.ndarray, weight: np.ndarray, floor: float) -> float:
    """The σ² of at least ``floor`` that maximises ∑ w_n log N(r_nk | 0, v_nk + σ²), for squared residuals r² (n, k),
    variances v (n, k) and weights w (n,).   (eq:held-out-noise)"""

    def loss(log_noise: float) -> float:
        total = variance + np.exp(log_noise)
        return float(weight @ (square / total + np.log(total)).sum(axis=1))

    low = float(np.log(floor))
    high = max(float(np.log(square.max() + floor)), low + 1)  # beyond the largest residual the likelihood only falls
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))
