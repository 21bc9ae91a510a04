"""Whole fits of the estimators on a GPU and on the host, for gpu.py: times, figures, and whether bits repeat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from balinp import Backend, BALIClassifier, BALIRegressor
from balinp.metrics import accuracy, categorical_nll, gaussian_nll, rmse


def power(folder: Path) -> tuple[np.ndarray, ...]:
    with np.load(folder / "uci_power.npz", allow_pickle=False) as file:
        x, y = file["X"].astype(float), file["y"].astype(float)
    order = np.random.default_rng(0).permutation(len(x))
    a, t = order[: round(0.8 * len(x))], order[round(0.8 * len(x)) :]
    return x[a], y[a], x[t], y[t]


def mnist(folder: Path) -> tuple[np.ndarray, ...]:
    with np.load(folder / "mnist_10k.npz", allow_pickle=False) as file:
        x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return x / 255.0, y, x_test / 255.0, y_test


def fits(folder: Path) -> Iterator[str]:
    yield "| data | backend | dtype | fit, s | predict, s | NLL | RMSE or accuracy |"
    yield "|---|---|---|---|---|---|---|"
    images, wide = {"hidden_widths": (200, 200)}, {"hidden_widths": (1024, 1024), "max_iterations": 100}

    def few(folder: Path) -> tuple[np.ndarray, ...]:  # fewer rows than inputs
        x, y, *test = mnist(folder)
        return x[:200], y[:200], *test

    jobs: list[tuple[str, Callable[..., tuple], type, dict[str, Any], str, str]] = [
        ("power", power, BALIRegressor, {}, "numpy", "float64"),
        ("power", power, BALIRegressor, {}, "cupy", "float64"),
        ("power", power, BALIRegressor, {}, "cupy", "float32"),
        ("MNIST, 200-200", mnist, BALIClassifier, images, "cupy", "float64"),
        ("MNIST, 200-200", mnist, BALIClassifier, images, "cupy", "float32"),
        ("MNIST, 1024-1024", mnist, BALIClassifier, wide, "cupy", "float32"),
        ("MNIST, 200 images", few, BALIClassifier, {}, "numpy", "float64"),
        ("MNIST, 200 images", few, BALIClassifier, {}, "cupy", "float64"),
        ("MNIST, 200-200", mnist, BALIClassifier, images, "numpy", "float64"),
    ]
    for name, data, estimator, options, backend, dtype in jobs:
        x, y, x_test, y_test = data(folder)
        x, x_test = x.astype(dtype), x_test.astype(dtype)
        model = estimator(random_state=0, backend=backend, **options)
        began = time.perf_counter()
        model.fit(x, y)
        middle = time.perf_counter()
        if estimator is BALIRegressor:
            mean, deviation = model.predict(x_test, return_std=True)
            took = time.perf_counter() - middle
            nll, second = gaussian_nll(y_test, mean, deviation), rmse(y_test, mean)
        else:
            p = model.predict_proba(x_test)
            took = time.perf_counter() - middle
            nll, second = categorical_nll(y_test, p), accuracy(y_test, p.argmax(1))
        yield f"| {name} | {backend} | {dtype} | {middle - began:.1f} | {took:.2f} | {nll:.4f} | {second:.4f} |"


def again(gpu: Backend) -> Iterator[str]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 8))
    y = np.sin(x[:, 0]) * x[:, 1] + 0.1 * rng.standard_normal(3000)
    for name, estimator, target in (("regression", BALIRegressor, y), ("classes", BALIClassifier, y > 0)):
        models = [estimator(random_state=0, backend=gpu.name, max_iterations=60).fit(x, target) for _ in range(2)]
        on_host = estimator(random_state=0, max_iterations=60).fit(x, target)
        a, b, c = (np.asarray(m.predict(x) if name == "regression" else m.predict_proba(x)) for m in (*models, on_host))
        same = "the same bits" if np.array_equal(a, b) else f"differ by {np.abs(a - b).max():.1e}"
        apart = np.abs(a - c)
        apart = f"by {np.median(apart):.1e} in the median, {apart.max():.1e} at most"
        yield f"- {name}: two fits on the GPU: {same}; GPU and NumPy differ {apart}"
