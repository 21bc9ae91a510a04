"""The noise, and the spread of the outputs beside it, under which residuals of rows held out are most probable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

STARTS = (-6.0, -3.0, 0.0, 3.0)  # of log θ: there may be more than one maximum
MOST = 8.0  # of |log θ|
EXACT = {"ftol": 0.0, "gtol": 1e-12}  # until rounding ends the search: backends are to agree


def most_probable(
    square: np.ndarray,
    weight: np.ndarray,
    floor: float,
    variances: Callable[[float], tuple[np.ndarray, np.ndarray]],
    shared: bool = False,
) -> tuple[np.ndarray, float]:
    """(σ² (k,), or (1,) if ``shared``, and θ) that maximise ∑ w_n log N(r_nk | 0, σ_k² + v_nk(θ σ̄²)) − ½ (log θ)².
    (eq:held-out-noise, eq:held-out-joint)

    σ̄² is the geometric mean of the σ_k², each at least ``floor``; |log θ| ≤ 8. Shapes: squared residuals r² (n, k),
    weights w (n,); ``variances`` gives v (n, k) at a number s, and s dv/ds.
    """
    k = square.shape[1]
    outputs = 1 if shared else k

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        noise, (spread, change) = np.exp(p[:-1]), variances(float(np.exp(p[-1] + np.mean(p[:-1]))))
        total = noise + spread
        slope = weight[:, None] * (1 / total - square / total**2) / 2
        by_noise = noise * (slope.sum(axis=0) if not shared else slope.sum())
        by_scale = np.sum(slope * change)
        loss = weight @ (np.log(total) + square / total).sum(axis=1) / 2 + p[-1] ** 2 / 2
        return float(loss), np.append(by_noise + by_scale / outputs, by_scale + p[-1])

    each = square.mean(keepdims=True)[0] if shared else square.mean(axis=0)
    low = float(np.log(floor))
    high = max(float(np.log(square.max() + floor)), low + 1)  # beyond the largest residual the likelihood only falls
    start = np.clip(np.log(each / 2 + floor), low, high)
    bounds = [(low, high)] * outputs + [(-MOST, MOST)]
    tries = [
        minimize(objective, np.append(start, heat), jac=True, method="L-BFGS-B", bounds=bounds, options=EXACT)
        for heat in STARTS
    ]
    best = min(tries, key=lambda found: found.fun)
    return np.exp(best.x[:-1]), float(np.exp(best.x[-1]))


def row_losses(square: np.ndarray, total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """−log N(r_n | 0, diag total_n) in nats by weight over mean weight, (n,); squares and variances (n, k).
    (eq:held-out-choice)"""
    losses: np.ndarray = (np.log(2 * np.pi * total) + square / total).sum(axis=1) / 2 * (weight / weight.mean())
    return losses
