"""Tables with few rows for their inputs: span and inputs of each fit's own rows, against the inputs themselves.

Run: OPENBLAS_NUM_THREADS=1 python benchmarks/wide.py [--data FOLDER] [--seeds 3] [--tables all_count ...]

FOLDER holds mnist_10k.npz. Each table is fitted twice in one process: with the defaults, and with wide tables treated
like all others (the fit proper and those that lack rows see all inputs, scaled by a relevance learnt from all rows);
beside them Bayesian ridge regression, or logistic regression with a cross-validated penalty. Defaults otherwise.
Seconds are of the processor, for the fit.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import sklearn
from sklearn.linear_model import BayesianRidge, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import balinp
from balinp import BALIClassifier, BALIRegressor
from balinp.metrics import accuracy, calibration_error, categorical_nll, gaussian_nll, interval_coverage, rmse
from balinp.wide import is_wide

Table = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def all_count(rng: np.random.Generator) -> Table:
    """120 rows of 300 independent inputs, each of which counts a little."""
    X = rng.standard_normal((620, 300))
    y = X @ rng.standard_normal(300) / 300**0.5 + 0.3 * rng.standard_normal(620)
    return X[:120], y[:120], X[120:], y[120:]


def three_count(rng: np.random.Generator) -> Table:
    """120 rows of 300 independent inputs, of which three count."""
    X = rng.standard_normal((620, 300))
    y = 2 * X[:, 0] - X[:, 1] + X[:, 2] + 0.3 * rng.standard_normal(620)
    return X[:120], y[:120], X[120:], y[120:]


def product_counts(rng: np.random.Generator) -> Table:
    """120 rows of 90 independent inputs, of which the product of two and a third count."""
    X = rng.standard_normal((1120, 90))
    y = X[:, 0] * X[:, 1] + X[:, 2] + 0.3 * rng.standard_normal(1120)
    return X[:120], y[:120], X[120:], y[120:]


def four_factors(rng: np.random.Generator) -> Table:
    """60 rows of 40 inputs that four numbers make but for a tenth; the target is one of these and another's square."""
    z = rng.standard_normal((1060, 4))
    X = z @ rng.standard_normal((4, 40)) / 2 + 0.1 * rng.standard_normal((1060, 40))
    y = z[:, 0] + 0.5 * z[:, 1] ** 2 + 0.2 * rng.standard_normal(1060)
    return X[:60], y[:60], X[60:], y[60:]


def spectra(rng: np.random.Generator) -> Table:
    """100 rows of 400 points of curves that five numbers make, one of which the target follows by its sine."""
    curves, z = np.cumsum(rng.standard_normal((5, 400)), axis=1) / 10, rng.standard_normal((600, 5))
    X = z @ curves + 0.05 * rng.standard_normal((600, 400))
    y = 2 * np.sin(z[:, 0]) + z[:, 1] + 0.1 * rng.standard_normal(600)
    return X[:100], y[:100], X[100:], y[100:]


def one_factor(rng: np.random.Generator) -> Table:
    """60 rows of 600 inputs, a hundred of which share a part that is the target, as genes do."""
    X = rng.standard_normal((360, 600))
    X[:, :100] += rng.standard_normal((360, 1))
    y = X[:, :100].mean(axis=1) + 0.2 * rng.standard_normal(360)
    return X[:60], y[:60], X[60:], y[60:]


def hundred_digits(folder: Path) -> Callable[[np.random.Generator], Table]:
    """100 of MNIST's training images, 784 pixels, and 3 000 test images."""
    with np.load(folder / "mnist_10k.npz", allow_pickle=False) as file:
        x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))

    def table(rng: np.random.Generator) -> Table:
        chosen = rng.permutation(len(x))[:100]
        return x[chosen] / 255, y[chosen], x_test[:3000] / 255, y_test[:3000]

    return table


def models(seed: int, classes: bool) -> Iterator[tuple[str, Any, bool]]:
    """Name, model, and whether wide tables are treated as such."""
    kind = BALIClassifier if classes else BALIRegressor
    yield "BALI", kind(random_state=seed), True
    yield "BALI, all inputs", kind(random_state=seed), False
    if classes:
        logistic = LogisticRegressionCV(Cs=8, cv=3, scoring="neg_log_loss", max_iter=2000)
        yield "logistic regression", make_pipeline(StandardScaler(), logistic), True
    else:
        yield "Bayesian ridge", make_pipeline(StandardScaler(), BayesianRidge()), True


def _never(*_: Any) -> bool:
    return False


def figures(model: Any, table: Table, classes: bool) -> list[float]:
    """NLL; RMSE and coverage, or accuracy and calibration error; seconds."""
    x, y, x_test, y_test = table
    began = time.process_time()
    model.fit(x, y)
    seconds = time.process_time() - began
    if classes:
        p, truth = model.predict_proba(x_test), np.searchsorted(model.classes_, y_test)
        return [categorical_nll(truth, p), accuracy(truth, p.argmax(axis=1)), calibration_error(truth, p), seconds]
    mean, std = model.predict(x_test, return_std=True)
    return [gaussian_nll(y_test, mean, std), rmse(y_test, mean), interval_coverage(y_test, mean, std), seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="these of the functions here alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    command = "python benchmarks/wide.py" + (" --data FOLDER" if options.data else "") + f" --seeds {options.seeds}"
    command += " --tables " + " ".join(options.tables) if options.tables else ""
    print(f"Output of `{command}`: means over as many tables.")
    versions = f"balinp {balinp.__version__}, numpy {np.__version__}, scikit-learn {sklearn.__version__}"
    print(f"{versions}, python {platform.python_version()}; {os.cpu_count()} cores, {threads} BLAS thread(s).\n")
    print("| table | rows × inputs | method | NLL | RMSE or accuracy | coverage or calibration error | seconds |")
    print("|---|---|---|---|---|---|---|")
    makers = [(all_count, False), (three_count, False), (spectra, False), (one_factor, False)]
    makers += [(product_counts, False), (four_factors, False)]
    if options.data is not None:
        makers.append((hundred_digits(options.data), True))
    if options.tables:
        makers = [each for each in makers if each[0].__name__ in options.tables]
    for make, classes in makers:
        found: dict[str, list[list[float]]] = {}
        for seed in range(options.seeds):
            table = make(np.random.default_rng(seed))
            for name, model, as_wide in models(seed, classes):
                chosen = is_wide if as_wide else _never
                with patch("balinp.learning.is_wide", chosen), patch("balinp.relevance.is_wide", chosen):
                    found.setdefault(name, []).append(figures(model, table, classes))
        label = "MNIST" if classes else make.__name__.replace("_", " ")
        for name, rows in found.items():
            nll, second, third, seconds = np.mean(rows, axis=0)
            shape = " × ".join(str(n) for n in table[0].shape)
            print(
                f"| {label} | {shape} | {name} | {nll:.3f} | {second:.3f} | {third:.3f} | {seconds:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
