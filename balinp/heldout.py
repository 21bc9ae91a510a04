"""What rows held out of fits made for it say: the noise, the predictive's temperature, and which settings do better."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import count
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import minimize_scalar

from .heldout_heteroscedastic import held_out_heteroscedastic
from .heldout_joint import held_out_joint
from .heteroscedastic import Heteroscedastic
from .likelihoods import Categorical, Gaussian
from .most_probable import most_probable, row_losses
from .predictive import Predictive, moved_out, probit_probabilities
from .settings import Settings
from .state import BALIState
from .trial import HeldOut, Trial, mean_noise

FEWEST_ROWS, MOST_ROWS = 5, 5_000  # fewer say nothing; of more, a network like the default forgets next to nothing
MOST_COPIES = 10  # of an input, on average: of so many the counts of classes leave nothing for held-out rows to say

Ways: TypeAlias = tuple[tuple[dict[str, Any], ...], ...]
Judge: TypeAlias = Callable[[Settings], HeldOut | None]
REGRESSION: Ways = (({"prior_precision": 0.003, "max_temperature": 0.03},),)  # curves that the defaults take for noise
BENDS: dict[str, Any] = {"prior_precision": 0.001, "evidence": False, "max_temperature": 0.03}
CURVES: Ways = (({**BENDS, "joint_iterations": 100, "warmup": 100},),)  # of many periods, which take longer to find
CURVE_INPUTS, CURVE_ITERATIONS = 2, 200  # of more inputs rows are too far apart to show such bends; less have no draws
CLASSIFICATION: Ways = (({"prior_precision": 0.06}, {"prior_precision": 0.25}), ({"prior_precision": 0.003},))
PLAIN: dict[str, Any] = {"joint_iterations": 0, "trust_region": False}  # what one exact layer has no use for
LINEAR: Ways = (({"prior_precision": 0.25}, {"prior_precision": 4.0}),)  # of classes without hidden layers
LOOSE: Ways = (({"prior_precision": 0.001},),)  # of those that a line parts: surer, and surer where it is wrong
CONVEX: dict[str, Any] = {"joint_iterations": 20, "step_scale": 1.0, "batch_size": None, "patience": 30}


def best_held_out(trial: Trial, settings: Settings, chosen: Collection[str] = ()) -> HeldOut | None:
    """Of ``settings`` and their variants the one under which held-out rows are most probable.   (eq:held-out-choice)

    The variants lie on ways (REGRESSION, CLASSIFICATION) that are followed as long as it gets better, the first that
    gets better to its end and no other; for classes, better by a standard error of the difference: the default prior
    precision suits most tables. A regression of one or two inputs has a way more (CURVES), from the best so far, which
    has to be better by one too. The network is then compared with the one without hidden layers: of a regression that
    one has to be better by a standard error; of classes and of wide tables, which overfit sooner, it is taken unless
    the network is better by one: of classes the best of its way (LINEAR); of a regression on a wide table by two, as
    new rows lie outside what the fit has seen, or far from it, and its noise is the one that held-out rows speak for,
    as the rows of the fit may have chosen the inputs that it sees. All see the same rows held out. Settings named in
    ``chosen`` stay. None if a fit was interrupted, there are fewer than FEWEST_ROWS, or no two to be told apart.

    Nothing is held out of classes whose inputs occur MOST_COPIES times and more on average: a cell of a table of counts
    is in the data whole or not at all. Their fit is at the means, without draws, as there is nothing to overfit.
    """
    classes = isinstance(trial.likelihood, Categorical)
    if classes and trial.copies >= MOST_COPIES:
        gradients = settings.gradients if "gradients" in chosen else "mean"
        return HeldOut(replace(settings, gradients=gradients), float("nan"), np.empty(0))
    if len(trial.x) < FEWEST_ROWS or trial.groups == 1:
        return None
    number, wide = count(1), trial.wide

    def judged(by: Callable[..., HeldOut | None], trial: Trial = trial) -> Judge:
        return lambda settings: by(trial, settings, f", variant {next(number)}")

    if classes:
        network, linear = judged(held_out_classes), judged(held_out_classes, trial.plain)
        best = _followed(CLASSIFICATION, network, network(settings), chosen, careful=1)
        start = None if best is None else linear(convex(settings, chosen))
        other = _followed(LINEAR, linear, start, chosen, careful=0)
        if other is start:
            other = _followed(LOOSE, linear, start, chosen, careful=1)
        other = None if other is None else replace(other, mlp=trial.plain.mlp)
    elif isinstance(trial.likelihood, Heteroscedastic):
        network = judged(held_out_heteroscedastic)
        best = _followed(REGRESSION, network, network(settings), chosen, careful=1)
        other = None if best is None else judged(held_out_heteroscedastic, trial.plain)(settings)
        other = None if other is None else replace(other, mlp=trial.plain.mlp)
    else:
        network = judged(held_out_joint if trial.predictive == "joint" else held_out_noise)
        best = _followed(REGRESSION, network, network(settings), chosen, careful=0)
        time_for_it = settings.joint_iterations > 0 and settings.max_iterations >= CURVE_ITERATIONS
        if trial.x.shape[1] <= CURVE_INPUTS and time_for_it:
            best = _followed(CURVES, network, best, chosen, careful=1)
        other = None if best is None else judged(held_out_plain if wide else held_out_linear)(settings)
    if best is None or other is None:
        return None
    if classes or wide:
        return best if _better(best, other, careful=1 if classes else 2) else other
    return other if _better(other, best, careful=1) else best


def convex(settings: Settings, chosen: Collection[str] = ()) -> Settings:
    """``settings`` for classes without hidden layers, whose loss is convex: the joint steps are Newton's, and go on to
    its minimum where a bound's short ones stop far from it. Those named in ``chosen`` stay.   (eq:held-out-choice)"""
    if settings.prior != "independent" or ("batch_size" in chosen and settings.batch_size is not None):
        return settings
    few = {"joint_iterations": min(CONVEX["joint_iterations"], settings.max_iterations // 2)}  # time for draws
    return replace(settings, **{name: value for name, value in {**CONVEX, **few}.items() if name not in chosen})


def _followed(ways: Ways, judge: Judge, start: HeldOut | None, chosen: Collection[str], careful: int) -> HeldOut | None:
    """The best that ``judge`` found along the first of the ``ways`` that gets better, or ``start``; None: interrupted.
    (eq:held-out-choice)"""
    if start is None:
        return None
    best = start
    for way in ways:
        for changes in way:
            changed = {name: value for name, value in changes.items() if name not in chosen}
            variant = replace(best.settings, **changed)
            if variant == best.settings:
                break
            found = judge(variant)
            if found is None:
                return None
            if not _better(found, best, careful):
                break
            best = found
        if best is not start:
            break
    return best


def _better(one: HeldOut, other: HeldOut, careful: int) -> bool:
    """Whether the rows held out are more probable under ``one``, by ``careful`` standard errors of the difference.
    (eq:held-out-choice)"""
    differences = other.losses - one.losses
    return one.loss + careful * float(differences.std() / len(differences) ** 0.5) < other.loss


def held_out_linear(trial: Trial, settings: Settings, label: str = "") -> HeldOut | None:
    """The same of the regression without hidden layers, whose posterior and noise are exact.   (eq:held-out-choice)"""
    trial, settings = trial.plain, replace(settings, **PLAIN)
    found = trial.results(settings, label)
    if found is None:
        return None
    w = trial.weights(found)
    square = trial.squared_residuals(found)
    total = np.concatenate([np.diagonal(p.covariance, axis1=1, axis2=2).astype(np.float64) for _, _, p in found])
    losses = row_losses(square, total, w)
    return HeldOut(settings, float(losses.mean()), losses, mlp=trial.mlp)


def held_out_plain(trial: Trial, settings: Settings, label: str = "") -> HeldOut | None:
    """``held_out_noise`` of the regression without hidden layers.   (eq:held-out-choice, eq:input-span)"""
    found = held_out_noise(trial.plain, replace(settings, **PLAIN), label)
    return None if found is None else replace(found, mlp=trial.plain.mlp)


def held_out_classes(trial: Trial, settings: Settings, label: str = "") -> HeldOut | None:
    """The mean −log probability of the labels held out, at the temperature that makes them most probable.
    (eq:held-out-choice, eq:held-out-temperature)
    """
    found = trial.results(settings, label)
    if found is None:
        return None
    w = trial.weights(found)
    predicted = [(trial.y[out], p) for out, _, p in found]

    def losses(heat: float) -> np.ndarray:
        each = [probabilities_at(p, heat, trial.likelihood)[np.arange(len(y)), y] for y, p in predicted]
        return -np.log(np.maximum(np.concatenate(each).astype(np.float64), np.finfo(np.float64).tiny))

    def objective(log_heat: float) -> float:
        return float(w @ losses(float(np.exp(log_heat)))) + log_heat**2 / 2

    heat = float(np.exp(minimize_scalar(objective, bounds=(-4.0, 4.0), method="bounded").x))
    held = losses(heat) * (w / w.mean())
    return HeldOut(settings, float(held.mean()), held, temperature=heat)


def probabilities_at(predictive: Predictive, heat: float, likelihood: Categorical) -> np.ndarray:
    """Class probabilities (n, K) of ``predictive`` with the covariance of its logits times ``heat``.
    (eq:held-out-temperature)
    """
    core = likelihood.backend
    if predictive.draws is None:
        logits, covariance = core.asarray(predictive.mean), core.asarray(heat * predictive.epistemic)
        found: np.ndarray = core.to_host(probit_probabilities(logits, covariance, likelihood))
        return found
    moved = core.asarray(moved_out(predictive.draws, heat))
    found = core.to_host(likelihood.probabilities(moved).mean(axis=0))
    return found


def held_out_noise(trial: Trial, settings: Settings, label: str = "") -> HeldOut | None:
    """The noise σ² and the temperature θ under which the targets held out are most probable.   (eq:held-out-noise)

    The residuals of training make σ² too small once a network has parameters for a good part of its rows, and draws are
    kept colder than the posterior for the sake of the training. One σ² per output, or for all where the trial's
    likelihood has one. None if a fit was interrupted.
    """
    found = trial.results(settings, label)
    if found is None:
        return None
    square = trial.squared_residuals(found)
    unit, w = np.concatenate([_unit_variance(state, p) for _, state, p in found]), trial.weights(found)
    known = trial.likelihood.noise_variance
    noise, heat = most_probable_noise(square, unit, w, settings.noise_floor, shared=known.ndim == 0)
    total = noise + heat * np.exp(np.mean(np.log(noise))) * unit
    losses = row_losses(square, total, w)
    core = trial.likelihood.backend
    likelihood = Gaussian(core.asarray(noise.astype(trial.y.dtype).reshape(known.shape)), core)
    return HeldOut(settings, float(losses.mean()), losses, likelihood, heat)


def _unit_variance(state: BALIState, predictive: Predictive) -> np.ndarray:
    """u (n, K): variances of the outputs at temperature 1 per unit of noise.   (eq:held-out-noise)"""
    variance = np.diagonal(predictive.epistemic, axis1=1, axis2=2).astype(np.float64)
    if state.temperature == 0:  # not sampled yet: what there is of variance is rounding
        return 0 * variance
    return variance / (state.temperature * mean_noise(state.likelihood))


def most_probable_noise(
    square: np.ndarray, unit: np.ndarray, weight: np.ndarray, floor: float, shared: bool = False
) -> tuple[np.ndarray, float]:
    """(σ² (k,), or (1,) if ``shared``, and θ) that maximise ∑ w_n log N(r_nk | 0, σ_k² + θ σ̄² u_nk) − ½ (log θ)².
    (eq:held-out-noise)

    Shapes: squared residuals r² (n, k), variances u (n, k) per unit of noise at temperature 1, weights w (n,).
    """
    return most_probable(square, weight, floor, lambda s: (s * unit, s * unit), shared)
