"""What the baselines share: predictions, Adam over one flat parameter vector, and tuning on a validation cut.

A method is a function ``fit(x, y, task, generator, *, watch=None, **settings) → Model``. ``task`` is "regression", y
(N, K) floats, or "classification", y (N,) class indices; inputs and targets come standardised. A model has
``draws(x, n, generator)``, n sampled outputs (n, rows, K), and ``predict(x, generator)``, a Prediction. ``watch(share,
model)`` sees the model along the way and ends the fit by returning True; share is the part of the schedule done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from balinp import MLP

Watch = Callable[[float, "Model"], bool]
LEAST_LOG_NOISE = float(np.log(1e-5))  # of the standardised target: keeps 1/σ² in range should a net interpolate


@dataclass(frozen=True)
class Prediction:
    """An equal mixture over S draws: N(y | outputs_s, variance) or softmax(outputs_s).

    Shapes: outputs (S, n, K); variance, regression only, broadcasts against it.
    """

    task: str
    outputs: np.ndarray
    variance: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return self.outputs.mean(axis=0)

    @property
    def std(self) -> np.ndarray:
        """Total deviation of y, (n, K)."""
        return np.sqrt(self.outputs.var(axis=0) + np.broadcast_to(self.variance, self.outputs.shape).mean(axis=0))

    @property
    def probabilities(self) -> np.ndarray:
        return softmax(self.outputs, axis=2).mean(axis=0)

    def nll(self, y: np.ndarray) -> float:
        """Mean −log p(y_n) in nats per row."""
        if self.task == "classification":
            each = np.take_along_axis(log_softmax(self.outputs, axis=2), y[None, :, None], axis=2)[..., 0]
        else:
            each = -((y - self.outputs) ** 2 / self.variance + np.log(2 * np.pi * self.variance)).sum(axis=2) / 2
        return float(np.mean(np.log(len(each)) - logsumexp(each, axis=0)))


@dataclass(frozen=True)
class Model:
    """A fitted network; ``noise_variance`` (K,) is that of the Gaussian likelihood."""

    mlp: MLP
    task: str
    noise_variance: np.ndarray

    def draws(self, x: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        raise NotImplementedError

    def predict(self, x: np.ndarray, generator: np.random.Generator, n: int = 100) -> Prediction:
        return Prediction(self.task, self.draws(x, n, generator), self.noise_variance)


def network(x: np.ndarray, y: np.ndarray, task: str, hidden_widths: tuple[int, ...], activation: str = "relu") -> MLP:
    outputs = y.shape[1] if task == "regression" else int(y.max()) + 1
    return MLP((x.shape[1], *hidden_widths, outputs), activation)


def targets(y: np.ndarray, mlp: MLP, task: str) -> np.ndarray:
    """Rows (N, K): y itself, or one-hot."""
    return y if task == "regression" else np.eye(mlp.widths[-1])[y]


def split(vector: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Views of consecutive parts of ``vector`` in these shapes."""
    views, start = [], 0
    for shape in shapes:
        end = start + math.prod(shape)
        views.append(vector[start:end].reshape(shape))
        start = end
    return views


def join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for part in parts])


def output_gradient(
    task: str, h: np.ndarray, y: np.ndarray, log_noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray | float]:
    """∂ℓ_n/∂h_n (n, K), and the sum over rows of ∂ℓ_n/∂log σ² (K,)."""
    if task == "classification":
        return softmax(h, axis=1) - y, 0.0
    g = (h - y) * np.exp(-log_noise)
    return g, (1 - g * (h - y)).sum(axis=0) / 2


class Adam:
    """Adam (Kingma and Ba, 2015) on a flat vector, changed in place."""

    def __init__(self, size: int, step: float):
        self.step, self.count = step, 0
        self.first, self.second = np.zeros(size), np.zeros(size)

    def update(self, theta: np.ndarray, gradient: np.ndarray, share: float) -> None:
        self.count += 1
        self.first += 0.1 * (gradient - self.first)
        self.second += 0.001 * (gradient * gradient - self.second)
        size = self.step * share / (1 - 0.9**self.count)
        theta -= size * self.first / (np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-8)


def batches(rows: int, size: int, count: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """``count`` mini-batches of (at most) ``size`` rows; the rows are shuffled again in every pass."""
    while True:
        order = generator.permutation(rows)
        for start in range(0, max(rows - size, 0) + 1, size):  # a pass leaves out the short rest
            if count == 0:
                return
            count -= 1
            yield order[start : start + size]


def minimise(
    theta: np.ndarray,
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rows: int,
    generator: np.random.Generator,
    *,
    iterations: int,
    stop: float,
    batch_size: int,
    step: float,
    decay: bool = True,
    watch: Callable[[float, np.ndarray], bool] | None = None,
    checks: int = 40,
) -> None:
    """Adam with a step that falls linearly to zero over ``iterations``, up to the share ``stop`` of them; changes
    theta. ``gradient(theta, rows)`` is that of the mean loss; ``watch`` runs ``checks`` times over the schedule."""
    adam, every = Adam(len(theta), step), max(1, iterations // checks)
    for i, chosen in enumerate(batches(rows, batch_size, round(stop * iterations), generator)):
        adam.update(theta, gradient(theta, chosen), 1 - i / iterations if decay else 1.0)
        if watch is not None and (i + 1) % every == 0 and watch((i + 1) / iterations, theta):
            return


class Validation:
    """Watches a fit on held-out rows: remembers the share of the schedule, and the noise, with the least NLL there.

    ``pick_noise``: the noise variance with the least NLL on a grid around the mean squared residual, for methods whose
    own estimate comes from residuals of rows they may have interpolated. Ends a fit that has not improved for
    ``patience`` of its schedule.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, pick_noise: bool, patience: float = 0.3):
        self.x, self.y, self.pick_noise, self.patience = x, y, pick_noise, patience
        self.nll, self.found = np.inf, {"stop": 1.0}

    def __call__(self, share: float, model: Model) -> bool:
        prediction = model.predict(self.x, np.random.default_rng(0), 20)
        found: dict[str, Any] = {"stop": share}
        if self.pick_noise and model.task == "regression":
            square = ((self.y - prediction.mean) ** 2).mean(axis=0)
            guesses = [replace(prediction, variance=square * f) for f in np.geomspace(0.1, 1.5, 15)]
            prediction = min(guesses, key=lambda p: p.nll(self.y))
            found["noise_variance"] = prediction.variance
        nll = prediction.nll(self.y)
        if nll < self.nll:
            self.nll, self.found = nll, found
        return share > self.found["stop"] + self.patience


@dataclass(frozen=True)
class Method:
    """A baseline: its fit, the grid of settings to pick from, whether it starts from the tuned MAP network, whether the
    validation rows pick its noise, and whether it is one network."""

    fit: Callable[..., Model]
    grid: tuple[dict[str, Any], ...]
    from_map: bool = False
    pick_noise: bool = True
    single: bool = True


def tuned(
    method: Method,
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    seed: int,
    base: tuple[Method, dict[str, Any]] | None = None,
    **fixed: Any,
) -> dict[str, Any]:
    """The settings with the least NLL on a random fifth of the rows, stopping and noise among them, ``fixed`` included.

    ``method.fit(x, y, task, generator, **settings)`` on all rows is then the fit. ``base``: the MAP method and its own
    tuned settings, for methods that start from it.
    """
    order, cut = np.random.default_rng(seed).permutation(len(x)), round(0.8 * len(x))
    a, v = order[:cut], order[cut:]
    if base is not None:
        fixed = {**fixed, **base[1]}
    start = {}
    if method.from_map and base is not None:  # one inner MAP network serves all candidates
        start = {"start": base[0].fit(x[a], y[a], task, np.random.default_rng(seed), **fixed)}
    best, choice = np.inf, dict(fixed)
    for settings in method.grid:
        watch = Validation(x[v], y[v], method.pick_noise)
        method.fit(x[a], y[a], task, np.random.default_rng(seed), watch=watch, **start, **{**fixed, **settings})
        if watch.nll < best:
            found = {k: w for k, w in watch.found.items() if not (method.from_map and k == "stop")}
            best, choice = watch.nll, {**fixed, **settings, **found}
    return choice
