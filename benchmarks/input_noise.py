"""Noise that depends on the inputs: how wide the intervals of new rows are, with held-out rows and without.

Run: OPENBLAS_NUM_THREADS=1 python benchmarks/input_noise.py [--data FOLDER] [--seeds 3]

Made tables: y = sin 2x₁ + x₂x₃ + 0.3 s ε with five normal inputs, s = exp x₄ or 1, and 2 000 new rows; with FOLDER (as
for examples/) also boston, yacht and energy, and diabetes, 90 % of whose rows are fitted. BALIRegressor's defaults with
noise="input-dependent", the same with validation_fraction=0, and with constant noise. Medians over the seeds of the
share of new rows in their 90 % intervals, the NLL in nats a row, the RMSE, and processor seconds.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes

import balinp
from balinp import NUMPY, BALIRegressor
from balinp.metrics import interval_coverage, rmse

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from uci import read_folder

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
WAYS = {
    "held-out rows": {"noise": "input-dependent"},
    "without": {"noise": "input-dependent", "validation_fraction": 0},
    "constant noise": {},
}
MADE, ROWS, NEW = ("varying", "constant"), (60, 200, 500, 1500), 2000
REAL = ("boston", "yacht", "energy")


def made(kind: str, rows: int, seed: int) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows + NEW, 5))
    deviation = 0.3 * np.exp(x[:, 3] * (kind == "varying"))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + deviation * rng.standard_normal(len(x))
    return x[:rows], y[:rows], x[rows:], y[rows:]


def split(x: np.ndarray, y: np.ndarray, seed: int) -> Data:
    train, new = np.split(np.random.default_rng(seed).permutation(len(x)), [round(0.9 * len(x))])
    return x[train], y[train], x[new], y[new]


def figures(data: Data, seed: int, way: str) -> tuple[float, float, float, float]:
    x, y, x_new, y_new = data
    start = time.process_time()
    model = BALIRegressor(random_state=seed, **WAYS[way]).fit(x, y)
    seconds = time.process_time() - start
    mean, std = model.predict(x_new, return_std=True)
    nll = -float(model.predict_distribution(x_new).log_density(y_new[:, None], NUMPY).mean())
    return interval_coverage(y_new, mean, std), nll, rmse(y_new, mean), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    command = f"input_noise.py {'--data FOLDER ' if options.data else ''}--seeds {options.seeds}"
    print(f"Output of `OPENBLAS_NUM_THREADS=1 python benchmarks/{command}`; seeds 0 to {options.seeds - 1};")
    print(f"balinp {balinp.__version__}, numpy {np.__version__}, python {platform.python_version()}\n")
    tables = {f"{kind}, {n} rows": lambda seed, kind=kind, n=n: made(kind, n, seed) for kind in MADE for n in ROWS}
    if options.data is not None:
        real = {name: table for name, table in read_folder(options.data).items() if name in REAL}
        real["diabetes"] = load_diabetes(return_X_y=True)
        tables |= {name: lambda seed, table=table: split(*table, seed) for name, table in real.items()}
    print("| table | way | 90 % coverage | NLL | RMSE | seconds |\n|---|---|---|---|---|---|")
    for name, table in tables.items():
        for way in WAYS:
            found = np.array([figures(table(seed), seed, way) for seed in range(options.seeds)])
            middle = np.median(found, axis=0)
            print(
                f"| {name} | {way} | {middle[0]:.3f} | {middle[1]:.3f} | {middle[2]:.3f} | {middle[3]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
