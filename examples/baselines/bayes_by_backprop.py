"""Bayes by Backprop (Blundell et al., 2015) with local reparametrisation (Kingma, Salimans and Welling, 2015).

q(W) has independent weights N(M, S), S = exp(2R). A layer's outputs given its inputs are then normal with mean A M and
variance A² S (squares elementwise): one noise per row and unit in place of one per weight. The objective is
(1/n) ∑ ℓ_n + KL(q ‖ N(0, 1/τ))/N, its KL in closed form; the noise variance is learnt along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balinp import MLP, NUMPY
from balinp.activations import get_activation

from .common import LEAST_LOG_NOISE, Model, Watch, join, minimise, network, output_gradient, split, targets

GRID = tuple({"prior_precision": p} for p in (0.1, 0.3, 1.0))


@dataclass(frozen=True)
class MeanField(Model):
    """Independent normal weights: means and log deviations, layer by layer."""

    means: list[np.ndarray]
    log_deviations: list[np.ndarray]

    def draws(self, x: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        """Outputs of n networks sampled whole, so that one draw is one function."""
        outputs = []
        for _ in range(n):
            weights = [
                m + np.exp(r) * generator.standard_normal(m.shape) for m, r in zip(self.means, self.log_deviations)
            ]
            outputs.append(self.mlp.forward(weights, x).outputs[-1])
        return np.stack(outputs)


def forward(
    mlp: MLP, means: list[np.ndarray], variances: list[np.ndarray], x: np.ndarray, noise: list[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Inputs A, sampled outputs H and deviations √(A² S) of every layer; noise[l] (n, K_l) standard normal."""
    activation, a = get_activation(mlp.activation), x
    inputs, outputs, deviations = [], [], []
    for m, s, e in zip(means, variances, noise):
        inputs.append(np.column_stack([a, np.ones(len(a))]))
        deviations.append(np.sqrt(inputs[-1] ** 2 @ s))
        outputs.append(inputs[-1] @ m + deviations[-1] * e)
        a = activation.value(outputs[-1], NUMPY)
    return inputs, outputs, deviations


def kl_divergence(means: list[np.ndarray], log_deviations: list[np.ndarray], precisions: list[float]) -> float:
    """KL(∏ N(m, e^{2r}) ‖ ∏ N(0, 1/τ)) in nats, τ one number per layer."""
    return sum(
        float(np.sum(tau * (m**2 + np.exp(2 * r)) - np.log(tau) - 2 * r - 1) / 2)
        for m, r, tau in zip(means, log_deviations, precisions)
    )


def gradient(
    theta: np.ndarray,
    mlp: MLP,
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    precisions: list[float],
    total: int,
    noise: list[np.ndarray],
) -> np.ndarray:
    """Of the objective in theta = (means, log deviations, log σ²), at this noise."""
    layers, rows = len(mlp.shapes), len(x)
    shapes = [*mlp.shapes, *mlp.shapes, (mlp.widths[-1],)]
    *both, log_noise = split(theta, shapes)
    means, variances = both[:layers], [np.exp(2 * r) for r in both[layers:]]
    result = np.empty_like(theta)
    *parts, noise_part = split(result, shapes)

    inputs, outputs, deviations = forward(mlp, means, variances, x, noise)
    g, noise_gradient = output_gradient(task, outputs[-1], y, log_noise)
    g = g / rows
    noise_part[:] = np.where(log_noise > LEAST_LOG_NOISE, noise_gradient, np.minimum(noise_gradient, 0)) / rows
    for l in range(layers - 1, -1, -1):
        a, m, s = inputs[l], means[l], variances[l]
        v = g * noise[l] / (2 * deviations[l])  # ∂/∂(A² S)
        parts[l][:] = a.T @ g + precisions[l] / total * m
        parts[layers + l][:] = 2 * s * ((a**2).T @ v + precisions[l] / (2 * total)) - 1 / total
        if l:
            slope = get_activation(mlp.activation).derivative(outputs[l - 1], NUMPY)
            g = (g @ m[:-1].T + 2 * a[:, :-1] * (v @ s[:-1].T)) * slope
    return result


def fit(
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    generator: np.random.Generator,
    *,
    hidden_widths: tuple[int, ...] = (50,),
    prior_precision: float = 0.3,
    step: float = 0.01,
    iterations: int = 16_000,
    stop: float = 1.0,
    batch_size: int = 32,
    initial_deviation: float = 0.001,
    watch: Watch | None = None,
    checks: int = 40,
) -> MeanField:
    """``prior_precision`` is τ/fan-in. From a large ``initial_deviation`` whole units are pruned before they learn."""
    mlp = network(x, y, task, hidden_widths)
    rows, layers = targets(y, mlp, task), len(mlp.shapes)
    precisions = [prior_precision * d for d, _ in mlp.shapes]
    start = mlp.initial_weights(generator, bias_scale=0.5)
    log_deviations = [np.full(w.shape, np.log(initial_deviation)) for w in start]
    theta = join([*start, *log_deviations, np.zeros(mlp.widths[-1])])
    shapes = [*mlp.shapes, *mlp.shapes, (mlp.widths[-1],)]

    def model(theta: np.ndarray) -> MeanField:
        *both, log_noise = split(theta, shapes)
        return MeanField(mlp, task, np.exp(log_noise), both[:layers], both[layers:])

    def noisy_gradient(theta: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        noise = [generator.standard_normal((len(chosen), k)) for _, k in mlp.shapes]
        return gradient(theta, mlp, x[chosen], rows[chosen], task, precisions, len(x), noise)

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
