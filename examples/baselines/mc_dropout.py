"""MC dropout (Gal and Ghahramani, 2016): hidden units dropped in training and in prediction alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balinp import MLP, NUMPY
from balinp.activations import get_activation

from .common import LEAST_LOG_NOISE, Model, Watch, join, minimise, network, output_gradient, split, targets

GRID = tuple({"rate": r, "prior_precision": p} for r, p in ((0.01, 0.1), (0.05, 1.0), (0.1, 1.0), (0.1, 10.0)))


def masks(mlp: MLP, rate: float, rows: int, generator: np.random.Generator) -> list[np.ndarray]:
    """One (rows, K_l) array of 0 or 1/(1 − rate) per hidden layer."""
    return [(generator.random((rows, k)) >= rate) / (1 - rate) for k in mlp.widths[1:-1]]


def forward(
    mlp: MLP, weights: list[np.ndarray], x: np.ndarray, keep: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs and outputs of every layer, hidden activations multiplied by their masks."""
    activation, a = get_activation(mlp.activation), x
    inputs, outputs = [], []
    for l, w in enumerate(weights):
        if l:
            a = activation.value(outputs[-1], NUMPY) * keep[l - 1]
        inputs.append(np.column_stack([a, np.ones(len(a))]))
        outputs.append(inputs[-1] @ w)
    return inputs, outputs


@dataclass(frozen=True)
class Dropout(Model):
    weights: list[np.ndarray]
    rate: float

    def draws(self, x: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        """Outputs of n thinned networks; a draw has one mask for all rows, so that it is one function."""
        each = [masks(self.mlp, self.rate, 1, generator) for _ in range(n)]
        return np.stack([forward(self.mlp, self.weights, x, keep)[1][-1] for keep in each])


def gradient(
    theta: np.ndarray,
    mlp: MLP,
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    prior_precision: float,
    total: int,
    keep: list[np.ndarray],
) -> np.ndarray:
    """Of (1/n) ∑ ℓ_n + τ/(2N) ‖W‖² in theta = (weights, log σ²), at these masks."""
    shapes = [*mlp.shapes, (mlp.widths[-1],)]
    *weights, log_noise = split(theta, shapes)
    inputs, outputs = forward(mlp, weights, x, keep)
    g, noise_gradient = output_gradient(task, outputs[-1], y, log_noise)
    g = g / len(x)
    result = theta * (prior_precision / total)
    *parts, noise_part = split(result, shapes)
    noise_part[:] = np.where(log_noise > LEAST_LOG_NOISE, noise_gradient, np.minimum(noise_gradient, 0)) / len(x)
    for l in range(len(weights) - 1, -1, -1):
        parts[l] += inputs[l].T @ g
        if l:
            slope = get_activation(mlp.activation).derivative(outputs[l - 1], NUMPY)
            g = (g @ weights[l][:-1].T) * keep[l - 1] * slope
    return result


def fit(
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    generator: np.random.Generator,
    *,
    hidden_widths: tuple[int, ...] = (50,),
    rate: float = 0.05,
    prior_precision: float = 0.1,
    step: float = 0.01,
    iterations: int = 8_000,
    stop: float = 1.0,
    batch_size: int = 32,
    noise_variance: np.ndarray | None = None,
    watch: Watch | None = None,
    checks: int = 40,
) -> Dropout:
    """``noise_variance`` replaces the learnt one in predictions."""
    mlp = network(x, y, task, hidden_widths)
    rows = targets(y, mlp, task)
    theta = join([*mlp.initial_weights(generator, bias_scale=0.5), np.zeros(mlp.widths[-1])])

    def model(theta: np.ndarray) -> Dropout:
        noise = np.exp(theta[-mlp.widths[-1] :]) if noise_variance is None else noise_variance
        return Dropout(mlp, task, noise, split(theta, mlp.shapes), rate)

    def noisy_gradient(theta: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        keep = masks(mlp, rate, len(chosen), generator)
        return gradient(theta, mlp, x[chosen], rows[chosen], task, prior_precision, len(x), keep)

    minimise(
        theta,
        noisy_gradient,
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
