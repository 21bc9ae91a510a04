"""Regressions of one input or two: what the way of curves, which held-out rows may take, is worth.

Run: OPENBLAS_NUM_THREADS=1 python benchmarks/curves.py [--seeds 2]

Sines of so many periods on [0, 1], a step, a line, noise alone, a sine that bends ever faster, and a product of two
inputs, with noise of a tenth of the function's deviation (of noise alone: 1); BALIRegressor's defaults, and the same
without the way of curves (balinp.heldout.CURVE_INPUTS = 0). Per seed: the RMSE of 1 500 new rows over their deviation;
means over the seeds of the 90 % coverage and of the processor seconds.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable

import numpy as np

import balinp
from balinp import BALIRegressor, heldout
from balinp.metrics import interval_coverage, rmse

NEW = 1500
PERIODS = ((2, 300), (3, 300), (5, 300), (8, 300), (10, 300), (13, 1000))
Table = tuple[int, int, Callable[[np.ndarray], np.ndarray]]  # rows, inputs, function
TABLES: dict[str, Table] = {
    **{f"{p} periods": (n, 1, lambda x, p=p: np.sin(2 * np.pi * p * x[:, 0])) for p, n in PERIODS},
    "5 periods, few rows": (100, 1, lambda x: np.sin(10 * np.pi * x[:, 0])),
    "step": (300, 1, lambda x: np.sign(x[:, 0] - 0.4)),
    "line": (200, 1, lambda x: 3 * x[:, 0]),
    "noise": (200, 1, lambda x: 0 * x[:, 0]),
    "ever faster": (400, 1, lambda x: np.sin(33 * x[:, 0] ** 2)),
    "product": (600, 2, lambda x: np.sin(20 * x[:, 0]) * np.cos(10 * x[:, 1])),
}


def figures(table: Table, seed: int) -> tuple[float, float, float]:
    rows, inputs, function = table
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (rows + NEW, inputs))
    mean = function(x)
    y = mean + (0.1 * mean.std() or 1.0) * rng.standard_normal(len(x))
    start = time.process_time()
    model = BALIRegressor(random_state=seed).fit(x[:rows], y[:rows])
    seconds = time.process_time() - start
    predicted, std = model.predict(x[rows:], return_std=True)
    return rmse(y[rows:], predicted) / y[rows:].std(), interval_coverage(y[rows:], predicted, std), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    seeds = range(parser.parse_args().seeds)
    warnings.simplefilter("ignore")
    print(f"Output of `OPENBLAS_NUM_THREADS=1 python benchmarks/curves.py --seeds {len(seeds)}`; seeds {list(seeds)};")
    print(f"balinp {balinp.__version__}, numpy {np.__version__}, python {platform.python_version()}\n")
    print("| table | rows | way of curves | RMSE over deviation | coverage | seconds |\n|---|---|---|---|---|---|")
    usual = heldout.CURVE_INPUTS
    for name, table in TABLES.items():
        for way, inputs in (("yes", usual), ("no", 0)):
            heldout.CURVE_INPUTS = inputs
            found = np.array([figures(table, seed) for seed in seeds])
            each, (_, coverage, seconds) = ", ".join(f"{r:.2f}" for r in found[:, 0]), found.mean(axis=0)
            print(f"| {name} | {table[0]} | {way} | {each} | {coverage:.2f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
