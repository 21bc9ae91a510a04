"""The table of the README: test metrics of both estimators with their defaults, nothing tuned per data set.

Run: python examples/benchmark.py [--data FOLDER] [--seeds 5] [--out FILE]

FOLDER holds uci_NAME.npz files (arrays X, y) for boston, energy, wine, yacht and power; without it the sample data
(yacht) and scikit-learn's own sets (diabetes, digits) are run, and the table says what is missing.

Protocol: regression, split s = default_rng(s).permutation(N), the first round(0.9 N) rows train; one hidden layer of
50; NLL in nats a row and RMSE in original units, mean ± standard error over the splits. Digits, X/16, 80/20, two hidden
layers of 100; calibration error with 15 equal-width bins; AUROC by predictive entropy of the test rows against
the same rows under one pixel permutation, default_rng(1000 + s), and against uniform noise, default_rng(2000 + s).
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy

import balinp
from balinp import NUMPY, BALIClassifier, BALIRegressor, ConvergenceWarning
from balinp.metrics import (
    accuracy,
    auroc,
    calibration_error,
    categorical_nll,
    interval_coverage,
    predictive_entropy,
    rmse,
)

UCI = ("yacht", "boston", "energy", "wine", "power")
SAMPLE = Path(__file__).parent / "data" / "yacht.csv"


def regression_sets(folder: Path | None) -> Iterator[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """(name, X, y) of every set of the table, X and y None where the data are missing."""
    for name in UCI:
        path = None if folder is None else folder / f"uci_{name}.npz"
        if path is not None and path.exists():
            with np.load(path, allow_pickle=False) as arrays:
                yield name, arrays["X"].astype(float), arrays["y"].astype(float)
        elif name == "yacht":
            table = np.loadtxt(SAMPLE, delimiter=",", skiprows=1)
            yield name, table[:, :-1], table[:, -1]
        else:
            yield name, None, None
    try:
        from sklearn.datasets import load_diabetes
    except ImportError:
        yield "diabetes", None, None
    else:
        yield "diabetes", *load_diabetes(return_X_y=True)


def regression_split(X: np.ndarray, y: np.ndarray, seed: int) -> list[float]:
    """Test NLL, RMSE, 90 % coverage, seconds, iterations of one split."""
    order, train = np.random.default_rng(seed).permutation(len(X)), round(0.9 * len(X))
    a, t = order[:train], order[train:]
    start = time.perf_counter()
    model = BALIRegressor(random_state=seed).fit(X[a], y[a])
    seconds = time.perf_counter() - start
    mean, std = model.predict(X[t], return_std=True)
    nll = -float(model.predict_distribution(X[t]).log_density(y[t][:, None], NUMPY).mean())
    return [nll, rmse(y[t], mean), interval_coverage(y[t], mean, std), seconds, model.n_iter_]


def digits_split(X: np.ndarray, y: np.ndarray, seed: int) -> list[float]:
    """Accuracy, NLL, calibration error, AUROC permuted, AUROC noise, seconds, iterations of one split."""
    order, train = np.random.default_rng(seed).permutation(len(X)), round(0.8 * len(X))
    a, t = order[:train], order[train:]
    start = time.perf_counter()
    model = BALIClassifier(hidden_widths=(100, 100), random_state=seed).fit(X[a], y[a])
    seconds = time.perf_counter() - start
    p = model.predict_proba(X[t])
    permuted = X[t][:, np.random.default_rng(1000 + seed).permutation(X.shape[1])]
    noise = np.random.default_rng(2000 + seed).random(X[t].shape)
    scores = [predictive_entropy(q) for q in (p, model.predict_proba(permuted), model.predict_proba(noise))]
    quality = [accuracy(y[t], p.argmax(axis=1)), categorical_nll(y[t], p), calibration_error(y[t], p)]
    return [*quality, auroc(scores[0], scores[1]), auroc(scores[0], scores[2]), seconds, model.n_iter_]


def row(name: str, figures: list[list[float]], digits: int = 3) -> str:
    """One line of a Markdown table: mean ± standard error; the last two columns are medians without it."""
    table = np.array(figures)
    mean, error = (
        table.mean(axis=0),
        table.std(axis=0, ddof=1) / np.sqrt(len(table)) if len(table) > 1 else table[0] * 0,
    )
    cells = [f"{m:.{digits}f} ± {e:.{digits}f}" for m, e in zip(mean[:-2], error[:-2])]
    cells += [f"{np.median(table[:, -2]):.2f}", f"{np.median(table[:, -1]):.0f}"]
    return f"| {name} | {' | '.join(cells)} |"


def run(folder: Path | None, seeds: int) -> Iterator[str]:
    """The lines of the report."""
    versions = f"balinp {balinp.__version__}, numpy {np.__version__}, scipy {scipy.__version__}"
    yield f"{versions}, python {platform.python_version()}, {platform.machine()}; seeds 0..{seeds - 1}"
    yield ""
    yield "| set | test NLL | RMSE | 90 % coverage | seconds | iterations |"
    yield "|---|---|---|---|---|---|"
    for name, X, y in regression_sets(folder):
        if X is None or y is None:
            yield f"| {name} | not run: no data (give --data FOLDER with uci_{name}.npz, or install scikit-learn) |||||"
        else:
            yield row(name, [regression_split(X, y, seed) for seed in range(seeds)])
    yield ""
    yield "| set | accuracy | NLL | calibration error | AUROC permuted | AUROC noise | seconds | iterations |"
    yield "|---|---|---|---|---|---|---|---|"
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        yield "| digits | not run: install scikit-learn |||||||"
        return
    X, y = load_digits(return_X_y=True)
    yield row("digits", [digits_split(X / 16, y, seed) for seed in range(seeds)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with uci_NAME.npz files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    command = "python examples/benchmark.py" + (" --data FOLDER" if options.data else "")
    lines = [f"Output of `{command}`:", ""]
    print("\n".join(lines))
    for line in run(options.data, options.seeds):
        print(line, flush=True)
        lines.append(line)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"written to {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
