"""Maximum a posteriori: Adam on the mean loss plus L2, stopped early; the noise variance is learnt along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balinp import MLP

from .common import LEAST_LOG_NOISE, Model, Watch, join, minimise, network, output_gradient, split, targets

GRID = tuple({"prior_precision": p} for p in (1.0, 10.0, 100.0))


@dataclass(frozen=True)
class MAP(Model):
    """One network; theta is the flat vector of its weights and log σ² at the end of training."""

    theta: np.ndarray

    @property
    def weights(self) -> list[np.ndarray]:
        return split(self.theta, self.mlp.shapes)

    def draws(self, x: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        """The one output there is, (1, rows, K)."""
        return self.mlp.forward(self.weights, x).outputs[-1][None]


def gradient(
    theta: np.ndarray, mlp: MLP, x: np.ndarray, y: np.ndarray, task: str, prior_precision: float, total: int
) -> np.ndarray:
    """Of (1/n) ∑ ℓ_n + τ/(2N) ‖W‖² in theta = (weights, log σ²); rows x (n, D), y (n, K) of N = ``total``."""
    shapes = [*mlp.shapes, (mlp.widths[-1],)]
    *weights, log_noise = split(theta, shapes)
    activations = mlp.forward(weights, x)
    g, noise_gradient = output_gradient(task, activations.outputs[-1], y, log_noise)
    result = theta * (prior_precision / total)
    *parts, noise_part = split(result, shapes)
    for part, a, row_gradient in zip(parts, activations.inputs, mlp.backward(weights, activations, g / len(x))):
        part += a.T @ row_gradient
    # At the least noise only a rise is let through.
    noise_part[:] = np.where(log_noise > LEAST_LOG_NOISE, noise_gradient, np.minimum(noise_gradient, 0)) / len(x)
    return result


def fit(
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    generator: np.random.Generator,
    *,
    hidden_widths: tuple[int, ...] = (50,),
    prior_precision: float = 1.0,
    step: float = 0.01,
    iterations: int = 8_000,
    stop: float = 1.0,
    batch_size: int = 32,
    noise_variance: np.ndarray | None = None,
    watch: Watch | None = None,
    checks: int = 40,
) -> MAP:
    """``noise_variance`` replaces the learnt one in predictions."""
    mlp = network(x, y, task, hidden_widths)
    rows = targets(y, mlp, task)
    theta = join([*mlp.initial_weights(generator, bias_scale=0.5), np.zeros(mlp.widths[-1])])

    def model(theta: np.ndarray) -> MAP:
        noise = np.exp(theta[-mlp.widths[-1] :]) if noise_variance is None else noise_variance
        return MAP(mlp, task, noise, theta)

    minimise(
        theta,
        lambda t, chosen: gradient(t, mlp, x[chosen], rows[chosen], task, prior_precision, len(x)),
        len(x),
        generator,
        iterations=iterations,
        stop=stop,
        batch_size=batch_size,
        step=step,
        watch=None if watch is None else lambda share, t: watch(share, model(t)),
        checks=checks,
    )
    return model(theta)
