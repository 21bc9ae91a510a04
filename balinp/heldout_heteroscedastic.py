"""What held-out rows say where the noise depends on the inputs: a map of the log-variances, and the temperature."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from .heteroscedastic import Heteroscedastic
from .most_probable import EXACT, MOST, STARTS, row_losses
from .settings import Settings
from .state import BALIState
from .trial import HeldOut, LogVarianceMap, Trial

MOST_SHIFT = 30.0  # of the mean log-variance: beyond either limit of the variance
LEAST_SLOPE = 0.05  # of the log-variances: more than none, so that their covariance stays positive definite


def held_out_heteroscedastic(trial: Trial, settings: Settings, label: str = "") -> HeldOut | None:
    """The map ρ → a + bρ of the log-variances and the temperature under which the targets held out are most probable.
    (eq:held-out-log-variance)

    A network that has come near its rows takes what it missed them by for the noise: too little, and by chance here
    less than there. None if a fit was interrupted.
    """
    found = trial.results(settings, label)
    if found is None:
        return None
    h = np.concatenate([outputs.mean.astype(np.float64) for _, _, outputs in found])
    variance = np.concatenate(
        [np.diagonal(outputs.epistemic, axis1=1, axis2=2) * (state.temperature > 0) for _, state, outputs in found]
    ).astype(np.float64)  # at temperature 0, not sampled yet, there is only rounding
    k, w = h.shape[1] // 2, trial.weights(found)
    square = (np.concatenate([trial.y[out] for out, _, _ in found]) - h[:, :k]) ** 2
    likelihood = Heteroscedastic(trial.likelihood.floor, trial.likelihood.ceiling)  # on the host
    change, heat = most_probable_log_variance(square, h[:, k:], variance, w, likelihood)
    total = total_variance(change, heat, h[:, k:], variance, likelihood)[0]
    losses = row_losses(square, total, w)
    return HeldOut(settings, float(losses.mean()), losses, temperature=heat, log_variance=change)


def total_variance(
    change: LogVarianceMap, heat: float, rho: Any, variance: Any, likelihood: Heteroscedastic
) -> tuple[Any, Any]:
    """t = s²(ρ') + θv_m, ρ' = a + bρ + θb²v_ρ/2, and ∂s²/∂ρ', each (n, K), of log-variances ρ (n, K) and variances
    (v_m, v_ρ) (n, 2K) of the outputs.   (eq:held-out-log-variance, eq:heteroscedastic-aleatoric)"""
    k = rho.shape[1]
    noise = likelihood.variance(change.shift + change.slope * rho + heat * change.slope**2 * variance[:, k:] / 2)
    free = noise - likelihood.floor
    return noise + heat * variance[:, :k], free * (1 - free / likelihood.ceiling)


def most_probable_log_variance(
    square: Any, rho: Any, variance: Any, weight: Any, likelihood: Heteroscedastic
) -> tuple[LogVarianceMap, float]:
    """(a (K,) and b, θ) that maximise ∑ w_n log N(r_nk | 0, t_nk) − ½ (log θ)², t by ``total_variance``; b in
    [0.05, 1], |log θ| ≤ 8.   (eq:held-out-log-variance)

    Shapes: squared residuals r², ρ (n, K); variances (v_m, v_ρ) (n, 2K); weights (n,).
    """
    k, centre = square.shape[1], np.average(rho, axis=0, weights=weight)

    def change(p: Any) -> LogVarianceMap:  # about the centre, where a and b say different things
        return LogVarianceMap(p[:k] + (1 - p[k]) * centre, float(p[k]))

    def objective(p: Any) -> tuple[float, Any]:
        heat, b = float(np.exp(p[-1])), p[k]
        total, change_of_noise = total_variance(change(p), heat, rho, variance, likelihood)
        loss = weight @ (np.log(total) + square / total).sum(axis=1) / 2 + p[-1] ** 2 / 2
        slope = weight[:, None] * (1 / total - square / total**2) / 2
        by_log_variance = slope * change_of_noise
        by_slope = np.sum(by_log_variance * (rho - centre + heat * b * variance[:, k:]))
        by_heat = heat * np.sum(by_log_variance * b**2 * variance[:, k:] / 2 + slope * variance[:, :k])
        return float(loss), np.array([*by_log_variance.sum(axis=0), by_slope, by_heat + p[-1]])

    start = np.log(np.average(square / likelihood.variance(rho), axis=0, weights=weight) + likelihood.floor)
    bounds = [(-MOST_SHIFT, MOST_SHIFT)] * k + [(LEAST_SLOPE, 1.0), (-MOST, MOST)]
    starts = [np.clip([*start, slope, heat], *np.transpose(bounds)) for slope in (1.0, 0.3) for heat in STARTS]
    tries = [minimize(objective, s, jac=True, method="L-BFGS-B", bounds=bounds, options=EXACT) for s in starts]
    best = min(tries, key=lambda found: found.fun).x
    return change(best), float(np.exp(best[-1]))


def applied_to_log_variance(held: HeldOut, state: BALIState) -> BALIState:
    """``state`` of a fit on all rows, to predict with the log-variances mapped and at the temperature that held-out
    rows chose: the outputs being linear in the last layer's weights, theirs is the map.
    (eq:held-out-log-variance)
    """
    change, xp = held.log_variance, state.mlp.backend.xp
    assert change is not None
    *layers, last = state.layers
    mean, k = last.posterior.mean, len(change.shift)
    scale = xp.ones(2 * k, dtype=mean.dtype)
    scale[k:] = change.slope
    moved = mean * scale
    moved[-1, k:] += state.mlp.backend.asarray(change.shift.astype(mean.dtype))
    covariance = last.posterior.column_covariance * scale[:, None] * scale
    posterior = replace(last.posterior, mean=moved, column_covariance=covariance)
    heat = held.temperature * state.temperature
    return replace(state, layers=(*layers, replace(last, posterior=posterior)), predictive_temperature=heat)
