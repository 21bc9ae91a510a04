"""How long a default fit takes with the threads that BLAS would take by itself, and with the one that the fit gives it.

Run: python benchmarks/threads.py [--repeats 3]

BALIRegressor on the sample table (examples/data/yacht.csv), wall-clock seconds, in turn, medians of the repeats.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import balinp
from balinp import BALIRegressor, doctor, learning


def seconds(x: np.ndarray, y: np.ndarray) -> float:
    start = time.perf_counter()
    BALIRegressor(random_state=0).fit(x, y)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")
    table = np.loadtxt(Path(__file__).parent.parent / "examples/data/yacht.csv", delimiter=",", skiprows=1)
    x, y, calm = table[:, :-1], table[:, -1], learning.calm_threads
    found: dict[str, list[float]] = {"as BLAS would": [], "as the fit does": []}
    for _ in range(repeats):
        for name, chosen in (("as BLAS would", lambda *_: nullcontext()), ("as the fit does", calm)):
            learning.calm_threads = chosen
            found[name].append(seconds(x, y))
    print(f"Output of `python benchmarks/threads.py --repeats {repeats}`; balinp {balinp.__version__},")
    print(f"numpy {np.__version__}, python {platform.python_version()}, {os.cpu_count()} cores, {doctor.blas()}.\n")
    print("| threads | seconds, median (least, most) | over one thread |\n|---|---|---|")
    one = np.median(found["as the fit does"])
    for name, times in found.items():
        print(
            f"| {name} | {np.median(times):.1f} ({min(times):.1f}, {max(times):.1f}) | {np.median(times) / one:.1f} |"
        )


if __name__ == "__main__":
    main()
