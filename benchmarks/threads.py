"""How long fits and predictions take with the threads that BLAS would take by itself, and with the one they give it.

Run: python benchmarks/threads.py [--repeats 3]

BALIRegressor, wall-clock seconds, in turn, medians of the repeats: on the sample table (examples/data/yacht.csv) with
its defaults; and eight iterations on 8 000 rows of 100 inputs with two layers of 200, half of threads.SMALL; and
predictions for 20 000 rows of 8 inputs with two layers of 100.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import balinp
from balinp import BALIRegressor, doctor, learning, prediction


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fit(x: np.ndarray, y: np.ndarray, **parameters: Any) -> BALIRegressor:
    return BALIRegressor(random_state=0, **parameters).fit(x, y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    table = np.loadtxt(Path(__file__).parent.parent / "examples/data/yacht.csv", delimiter=",", skiprows=1)
    large, calm = np.random.default_rng(0).standard_normal((8_000, 101)), learning.calm_threads
    once = {"max_iterations": 8, "relevance": False, "validation_fraction": 0}
    many = np.random.default_rng(1).standard_normal((20_000, 9))
    model = fit(many[:1000, 1:], many[:1000, 0], hidden_widths=(100, 100), **once)
    cases: dict[str, Callable[[], Any]] = {
        "fit of the sample table": lambda: fit(table[:, :-1], table[:, -1]),
        "fit of 8 000 rows": lambda: fit(large[:, 1:], large[:, 0], hidden_widths=(200, 200), **once),
        "predictions for 20 000 rows": lambda: model.predict(many[:, 1:], return_std=True),
    }
    print(f"Output of `python benchmarks/threads.py --repeats {repeats}`; balinp {balinp.__version__},")
    print(f"numpy {np.__version__}, python {platform.python_version()}, {os.cpu_count()} cores, {doctor.blas()}.\n")
    print("| work | threads as BLAS would: seconds, median (least, most) | one, as balinp | ratio |\n|---|---|---|---|")
    for case, work in cases.items():
        times: list[list[float]] = [[], []]
        for _ in range(repeats):
            for kept, chosen in zip(times, (lambda *_: nullcontext(), calm)):
                learning.calm_threads = prediction.calm_threads = chosen
                kept.append(seconds(work))
        cells = (f"{np.median(t):.1f} ({min(t):.1f}, {max(t):.1f})" for t in times)
        print(f"| {case} | {' | '.join(cells)} | {np.median(times[0]) / np.median(times[1]):.1f} |", flush=True)


if __name__ == "__main__":
    main()
