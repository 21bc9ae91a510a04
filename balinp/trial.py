"""Fits that lack some of the rows, to be judged by them, and what the judges find (``balinp.heldout``)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np

from .backend import Array
from .errors import ConvergenceWarning
from .heteroscedastic import Heteroscedastic
from .likelihoods import Categorical, Gaussian
from .mlp import MLP
from .prediction import mapped
from .predictive import Predictive, predict_linearized, predict_monte_carlo
from .session import Session
from .settings import Settings
from .state import BALIState
from .wide import InputMap

FOLDS, DRAWS = 2, 100
FEW_ROWS, MOST_FOLDS = 60, 5  # of fewer rows two fifths are too few to tell a noise
ONE_FOLD_ROWS = 1_000  # of classes: a fifth of so many rows tells prior precisions apart


@dataclass(frozen=True)
class LogVarianceMap:
    """ρ → a + bρ of log-variances: ``shift`` a (K,), ``slope`` b.   (eq:held-out-log-variance)"""

    shift: np.ndarray
    slope: float


@dataclass(frozen=True)
class HeldOut:
    """What the held-out rows said of ``settings``: their mean −log p(y) in nats, and those of the rows (n,) by weight
    over mean weight; for a regression the noise that makes them most probable, with the temperature (relative to it) or
    the noise that the joint posterior is to believe in; for classes, and for input-dependent noise beside its map
    ``log_variance``, the temperature (relative to training's). ``mlp``: the network where it is another than asked for,
    without hidden layers."""

    settings: Settings
    loss: float
    losses: np.ndarray
    likelihood: Gaussian | None = None
    temperature: float = 1.0
    posterior_noise: Gaussian | None = None
    mlp: MLP | None = None
    log_variance: LogVarianceMap | None = None

    def applied(self, state: BALIState) -> BALIState:
        """``state`` of a fit on all rows, to predict with this noise at this temperature.   (eq:held-out-noise)

        Its covariances are those of the noise that its training learnt: θ σ̄²/s̄² makes them those of this noise. Of
        classes θ is in units of the temperature of training (eq:held-out-temperature). With a
        ``posterior_noise`` see balinp.heldout_joint.
        """
        assert self.posterior_noise is None
        if self.likelihood is None:
            return replace(state, predictive_temperature=self.temperature * state.temperature)
        noise, learnt = mean_noise(self.likelihood), mean_noise(state.likelihood)
        heat = self.temperature * noise / learnt if state.temperature > 0 else 0.0
        return replace(state, likelihood=self.likelihood, predictive_temperature=heat)


@dataclass(frozen=True)
class Trial:
    """Fits without a ``fraction`` of the rows, and ``predictive`` of the rows that each lacked.

    Shapes: x (N, D), y (N, K) or class indices (N,), weight (N,), on the host. ``seed`` says which rows, the same for
    all settings; a fit lacks at least one. Equal rows are held out together, so that a weight of two still is a row
    twice; of classes rows of equal inputs, lest those with one label speak for what those with another are.
    ``inputs(x, y, weight, name)``: what a fit on these rows sees of its inputs, of few rows learnt from them alone;
    ``label`` tells such trials apart in what is reported.   (eq:held-out-noise)
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    mlp: MLP
    likelihood: Any
    seed: int
    fraction: float
    predictive: str = "monte_carlo"
    session: Session = field(default_factory=Session)
    inputs: Callable[..., InputMap] | None = None
    label: str = ""

    @property
    def folds(self) -> int:
        """How many such fits: two, one of many labelled rows, which take long, or of few rows up to five; no more than
        there are rows to tell apart.   (eq:held-out-choice)"""
        asked = FOLDS
        if len(self.x) < FEW_ROWS:
            asked = min(MOST_FOLDS, int(1 / self.fraction))
        elif isinstance(self.likelihood, Categorical) and len(self.x) >= ONE_FOLD_ROWS:
            asked = 1
        return min(asked, self.groups)

    @cached_property
    def _group(self) -> np.ndarray:
        """The number (N,) of the group that each row is held out with."""
        classes = isinstance(self.likelihood, Categorical)
        alike = self.x if classes else np.column_stack([self.x, self.y])
        found: np.ndarray = np.unique(alike, axis=0, return_inverse=True)[1].reshape(-1)
        return found

    @property
    def groups(self) -> int:
        """How many groups of rows there are that are held out together.   (eq:held-out-choice)"""
        return int(self._group.max()) + 1

    @property
    def wide(self) -> bool:
        """Whether every fit learns what it sees of inputs that its rows are few for.   (eq:input-span)"""
        return self.inputs is not None

    @property
    def copies(self) -> float:
        """How many rows, counted by their weights, there are for every different input.   (eq:held-out-choice)"""
        rows = len(self.x) if self.weight is None else float(self.weight.sum())
        return rows / len(np.unique(self.x, axis=0))

    @property
    def plain(self) -> Trial:
        """The same without hidden layers, where predictions in closed form are exact.   (eq:held-out-choice)"""
        mlp = replace(self.mlp, widths=(self.mlp.widths[0], self.mlp.widths[-1]))
        return replace(self, mlp=mlp, predictive="linearized")

    def predicted(self, state: BALIState, x: Any, generator: Any) -> Predictive:
        """The predictive of ``state`` at ``x`` (n, D), on the host; of input-dependent noise that of the outputs
        themselves, means and log-variances alike.   (eq:held-out-noise, eq:held-out-log-variance)"""
        core = self.mlp.backend
        if isinstance(self.likelihood, Heteroscedastic):
            unit = core.xp.ones(self.mlp.widths[-1], dtype=state.means[0].dtype)
            state = replace(state, likelihood=Gaussian(unit, core))
        if self.predictive in ("linearized", "joint"):  # of the latter the mean alone is looked at
            return mapped(predict_linearized(state, core.asarray(x)), core.to_host)
        return mapped(predict_monte_carlo(state, core.asarray(x), generator, DRAWS), core.to_host)

    def results(self, settings: Settings, label: str = "") -> list[tuple[np.ndarray, BALIState, Predictive]] | None:
        """Per fit (which rows it lacked, its state, its predictive of them); ``label`` tells fits apart in what is
        reported. None if one was interrupted.   (eq:held-out-noise)"""
        core, generator, found = self.mlp.backend, np.random.default_rng(self.seed), []
        place = generator.permutation(self.groups)[self._group]
        for k in range(self.folds):
            out = (place >= self._bound(k)) & (place < self._bound(k + 1))
            kept = None if self.weight is None else core.asarray(self.weight[~out])
            name, mlp = f"held-out rows {k + 1} of {self.folds}{self.label}{label}", self.mlp
            x, missing = self.seen(k, out)
            if self.wide:
                if self.session.ended():  # while it was learnt what this fit sees
                    return None
                mlp = replace(mlp, widths=(x.shape[1], *mlp.widths[1:]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the fit on all rows says it
                rows = core.asarray(x), core.asarray(self.y[~out]), mlp, self.likelihood
                result = self.session.fit(
                    name, *rows, generator, settings, inputs=self.map_without(k, out), sample_weight=kept
                )
            if result.interrupted:
                return None
            found.append((out, result.state, self.predicted(result.state, missing, generator)))
        return found

    def _bound(self, k: int) -> int:
        """How many groups the first ``k`` fits lack together, one at least each: by whole numbers, as 3 × 0.2 > 3/5.
        (eq:held-out-noise)"""
        fraction = Fraction(float(self.fraction)).limit_denominator(10**6)  # 1/5, not the number next to it
        return ceil(k * max(fraction * self.groups, Fraction(1)))

    def seen(self, k: int, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inputs of the rows kept and of those that are ``out`` (N,) of fit ``k``, as that fit sees them.
        (eq:held-out-noise, eq:input-span)"""
        seen = self.map_without(k, out)
        return (self.x[~out], self.x[out]) if seen is None else (seen(self.x[~out]), seen(self.x[out]))

    def map_without(self, k: int, out: np.ndarray) -> InputMap | None:
        """What made those of the standardised inputs.   (eq:input-span)"""
        kept = None if self.weight is None else self.weight[~out]
        name = f" for held-out rows {k + 1} of {self.folds}"
        return None if self.inputs is None else self.inputs(self.x[~out], self.y[~out], kept, name)

    def squared_residuals(self, found: list[tuple[np.ndarray, BALIState, Predictive]]) -> np.ndarray:
        """The squared residuals (n, K) of the rows held out, one fit's after another's.   (eq:held-out-noise)"""
        return np.concatenate([(self.y[out] - p.mean).astype(np.float64) ** 2 for out, _, p in found])

    def weights(self, found: list[tuple[np.ndarray, BALIState, Predictive]]) -> np.ndarray:
        """The weights of the rows held out, one fit's after another's.   (eq:held-out-noise)"""
        weight = np.ones(len(self.x)) if self.weight is None else self.weight.astype(np.float64)
        return np.concatenate([weight[out] for out, _, _ in found])


def with_enough_noise(state: BALIState, predictive: Predictive, y: Array, sample_weight: Array | None) -> BALIState:
    """``state`` with more noise where the rows y (N, K) of its fit, sample_weight (N,), are farther from their
    ``predictive`` than rows not seen were said to be: then it is a worse fit than those that were judged.
    (eq:held-out-joint)
    """
    likelihood: Any = state.likelihood
    core, noise = state.mlp.backend, likelihood.noise_variance
    excess = core.to_host((y - predictive.mean) ** 2 - core.xp.diagonal(predictive.covariance, axis1=1, axis2=2))
    weight = None if sample_weight is None else core.to_host(sample_weight)
    lacking = np.average(excess.astype(np.float64), axis=0, weights=weight)
    if noise.ndim == 0:
        lacking = lacking.mean()
    raised = noise + core.asarray(np.maximum(lacking, 0).astype(y.dtype))
    return replace(state, likelihood=Gaussian(raised, core))


def mean_noise(likelihood: Any) -> float:
    """σ̄², the geometric mean of a Gaussian's noise variances."""
    return float(np.exp(np.mean(np.log(likelihood.backend.to_host(likelihood.noise_variance)))))
