"""IVON (Shen et al., 2024): variational online Newton with a diagonal Gaussian, gradients at sampled weights."""

from __future__ import annotations

import numpy as np

from . import map as map_
from .bayes_by_backprop import MeanField
from .common import LEAST_LOG_NOISE, Watch, batches, join, network, split, targets

GRID = tuple({"prior_precision": p} for p in (1.0, 10.0, 50.0))


def hessian_update(hessian: np.ndarray, estimate: np.ndarray, decay: float, memory: float) -> np.ndarray:
    """β₂ h + (1 − β₂) ĥ + ½ (1 − β₂)² (h − ĥ)²/(h + δ), which keeps h + δ positive."""
    rate = 1 - memory
    return hessian + rate * (estimate - hessian) + (rate * (hessian - estimate)) ** 2 / (2 * (hessian + decay))


def fit(
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    generator: np.random.Generator,
    *,
    hidden_widths: tuple[int, ...] = (50,),
    prior_precision: float = 1.0,
    step: float = 0.1,
    iterations: int = 8_000,
    stop: float = 1.0,
    batch_size: int = 32,
    initial_hessian: float = 1.0,
    memory: float = 0.9999,
    watch: Watch | None = None,
    checks: int = 40,
) -> MeanField:
    """``prior_precision`` is τ of every weight; the step falls linearly to zero. q(w) = N(m, 1/(N(h + τ/N)))."""
    mlp = network(x, y, task, hidden_widths)
    rows, total = targets(y, mlp, task), len(x)
    mean = join(mlp.initial_weights(generator, bias_scale=0.5))
    decay, size = prior_precision / total, len(mean)
    hessian, momentum = np.full(size, initial_hessian), np.zeros(size)
    log_noise = np.zeros(mlp.widths[-1])

    def model() -> MeanField:
        log_deviations = -np.log(total * (hessian + decay)) / 2
        means, logs = split(mean, mlp.shapes), split(log_deviations, mlp.shapes)
        return MeanField(mlp, task, np.exp(log_noise), means, logs)

    every = max(1, iterations // checks)
    for i, chosen in enumerate(batches(total, batch_size, round(stop * iterations), generator)):
        deviation = 1 / np.sqrt(total * (hessian + decay))
        noise = generator.standard_normal(size)
        theta = np.concatenate([mean + deviation * noise, log_noise])
        g = map_.gradient(theta, mlp, x[chosen], rows[chosen], task, 0.0, total)
        # Newton's step for log σ², whose loss has curvature ½ at its minimum; small, as the batch is.
        log_noise = np.maximum(log_noise - 0.02 * np.clip(g[size:], -5, 1), LEAST_LOG_NOISE)
        g = g[:size]
        momentum += 0.1 * (g - momentum)
        hessian = hessian_update(hessian, g * noise / deviation, decay, memory)
        direction = (momentum / (1 - 0.9 ** (i + 1)) + decay * mean) / (hessian + decay)
        mean = mean - step * (1 - i / iterations) * direction
        if watch is not None and (i + 1) % every == 0 and watch((i + 1) / iterations, model()):
            break
    return model()
