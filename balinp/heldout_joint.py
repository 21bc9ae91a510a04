"""What held-out rows say where predictions are by the joint posterior: the noise, and the noise it is to believe in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .backend import Array
from .joint_posterior import joint_posterior, weight_jacobian, with_joint_draws
from .likelihoods import Gaussian
from .most_probable import most_probable, row_losses
from .predictive import predict_joint
from .settings import Settings
from .state import BALIState
from .trial import HeldOut, Trial, with_enough_noise


def held_out_joint(trial: Trial, settings: Settings, label: str = "") -> HeldOut | None:
    """The noise σ² and the joint posterior's noise ν under which the targets held out are most probable.
    (eq:held-out-joint)

    None if a fit was interrupted.
    """
    found = trial.results(settings, label)
    if found is None:
        return None
    core, known, w = trial.mlp.backend, trial.likelihood.noise_variance, trial.weights(found)
    square = trial.squared_residuals(found)
    mean = np.maximum(np.average(square, axis=0, weights=w), settings.noise_floor)  # ρ_k
    if known.ndim == 0:
        mean = np.full_like(mean, mean.mean())
    shares, eigenvalues = [], []
    for k, (out, state, _) in enumerate(found):
        x, missing = (core.asarray(rows.astype(np.float64)) for rows in trial.seen(k, out))
        kept = None if trial.weight is None else core.asarray(trial.weight[~out])
        posterior = joint_posterior(state, Gaussian(core.asarray(mean), core), x, settings, kept)
        wide = [m.astype(np.float64) for m in state.means]
        jacobian = weight_jacobian(state.mlp, wide, state.mlp.forward(wide, missing))
        shares.append(core.to_host(posterior.shares(jacobian)))
        eigenvalues.append(core.to_host(posterior.eigenvalues))
    noise, heat = most_probable_joint(square, shares, eigenvalues, mean, w, settings.noise_floor, known.ndim == 0)
    total = noise + _variances(shares, eigenvalues, heat)[0]
    losses = row_losses(square, total, w)

    def likelihood(variance: np.ndarray) -> Gaussian:
        return Gaussian(core.asarray(variance.astype(trial.y.dtype)), core)

    chosen = likelihood(noise.reshape(known.shape))
    return HeldOut(settings, float(losses.mean()), losses, chosen, posterior_noise=likelihood(heat * mean))


def applied_jointly(
    held: HeldOut, state: BALIState, x: Array, y: Array, sample_weight: Array | None, generator: Any, draws: int
) -> BALIState:
    """``state`` of a fit on all rows, x (N, D), y (N, K), sample_weight (N,), to predict by so many draws of its joint
    posterior with the noise that held-out rows chose, or more.   (eq:held-out-joint)"""
    noise = held.likelihood
    assert noise is not None
    assert held.posterior_noise is not None
    state = replace(state, likelihood=noise)
    state = with_joint_draws(state, held.posterior_noise, x, generator, draws, held.settings, sample_weight)
    return with_enough_noise(state, predict_joint(state, x), y, sample_weight)


def most_probable_joint(
    square: np.ndarray,
    shares: Sequence[np.ndarray],
    eigenvalues: Sequence[np.ndarray],
    mean: np.ndarray,
    weight: np.ndarray,
    floor: float,
    shared: bool = False,
) -> tuple[np.ndarray, float]:
    """(σ² (k,), or (1,) if ``shared``, and h) that maximise ∑ w_n log N(r_nk | 0, σ_k² + v_nk(h)) − ½ (log θ)²,
    θ = h ρ̄/σ̄² by geometric means.   (eq:held-out-joint)

    Shapes: squared residuals (n, k), of one fit after the other, whose ``shares`` (n_f, k, p) and ``eigenvalues`` (p,)
    give v; ``mean`` ρ (k,), weights (n,); each σ_k² is at least ``floor``.
    """
    level = float(np.exp(np.mean(np.log(mean))))  # ρ̄
    noise, theta = most_probable(square, weight, floor, lambda s: _variances(shares, eigenvalues, s / level), shared)
    return noise, float(theta * np.exp(np.mean(np.log(noise))) / level)


def _variances(
    shares: Sequence[np.ndarray], eigenvalues: Sequence[np.ndarray], heat: float
) -> tuple[np.ndarray, np.ndarray]:
    """v(h) (n, k) and its derivative in log h: ∑_i (JV)²_i h/(h + λ_i), and with h λ_i/(h + λ_i)².
    (eq:held-out-joint)"""
    pairs = [(part, heat / (heat + values)) for part, values in zip(shares, eigenvalues)]
    value = np.concatenate([part @ kept for part, kept in pairs])
    return value, np.concatenate([part @ (kept * (1 - kept)) for part, kept in pairs])
