"""What BALIRegressor's defaults gain or lose against other choices that its parameters and settings offer.

Run: python benchmarks/choices.py [--data FOLDER] [--splits 3] [--jobs 2] [--only averages]

Ten tables, and with FOLDER its boston, energy and wine; splits of their own, default_rng(1000 + s), apart from those
of examples/uci.py: 90 % of the rows train. Every choice is fitted to the same splits as the defaults, one BLAS thread
each, and compared with them split by split.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of the processes that fit

import balinp
from balinp import NUMPY, BALIRegressor
from balinp.metrics import rmse

LAYERWISE = {"joint_iterations": 0, "warmup": 10, "rate": 0.3}
CHOICES: dict[str, dict[str, Any]] = {
    "predictive='monte_carlo'": {"predictive": "monte_carlo"},
    "no held-out rows": {"validation_fraction": 0},
    "no relevance": {"relevance": False},
    "layerwise from the start, 600 iterations": {"settings": LAYERWISE, "max_iterations": 600},
    "15 joint iterations": {"settings": {"joint_iterations": 15}},
    "45 joint iterations": {"settings": {"joint_iterations": 45}},
    "600 iterations": {"max_iterations": 600},
    "colder training": {"settings": {"max_temperature": 0.05}},
    "hotter training": {"settings": {"max_temperature": 0.45}},
    "descent at every draw": {"settings": {"allowed_rise": 0.0}},
    "steps of any size": {"settings": {"trust_region": False}},
    "last means, not averages": {"settings": {"averaging": None}},
    "averages over twenty iterations": {"settings": {"averaging": 0.05}},
    "no hidden layers": {"hidden_widths": ()},
}


def tables(folder: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from sklearn.datasets import load_diabetes, make_friedman1, make_friedman2, make_friedman3

    generator = np.random.default_rng(7)
    yacht = np.loadtxt(Path(__file__).parent.parent / "examples/data/yacht.csv", delimiter=",", skiprows=1)
    linear, waves, powers = (generator.standard_normal(shape) for shape in ((200, 8), (300, 2), (350, 4)))
    noise = generator.standard_normal(350)
    found = {
        "yacht": (yacht[:, :-1], yacht[:, -1]),
        "diabetes": load_diabetes(return_X_y=True),
        "friedman 1": make_friedman1(600, noise=1.0, random_state=1),
        "friedman 2": make_friedman2(500, noise=40.0, random_state=2),
        "friedman 3": make_friedman3(500, noise=0.05, random_state=3),
        "linear": (linear, linear @ generator.standard_normal(8) + 2 * noise[:200]),
        "waves": (waves, np.sin(2 * waves[:, 0]) * np.cos(1.5 * waves[:, 1]) + 0.1 * noise[:300]),
        "powers": (powers, np.exp(1.3 * powers[:, 0]) * (1 + powers[:, 1] / 2) + 0.05 * noise),
    }
    many = generator.standard_normal((220, 40))
    found |= {"noise": (many, noise[:220]), "lines": (many, many[:, :10] @ np.full(10, 0.3) + noise[:220])}
    for name in ("boston", "energy", "wine") if folder else ():
        with np.load(Path(str(folder)) / f"uci_{name}.npz", allow_pickle=False) as arrays:
            found[name] = arrays["X"].astype(float), arrays["y"].astype(float).ravel()
    return found


def scores(folder: Path | None, job: tuple[str, int, dict[str, Any]]) -> tuple[float, float, float]:
    """Test NLL in nats a row, RMSE and CPU seconds of the fit."""
    name, split, parameters = job
    warnings.simplefilter("ignore")
    X, y = tables(folder)[name]
    order, cut = np.random.default_rng(1000 + split).permutation(len(X)), round(0.9 * len(X))
    train, test = order[:cut], order[cut:]
    start = time.process_time()
    model = BALIRegressor(random_state=split, **parameters).fit(X[train], y[train])
    seconds = time.process_time() - start
    found = model.predict_distribution(X[test])
    return -float(found.log_density(y[test, None], NUMPY).mean()), rmse(y[test], found.mean[:, 0]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with uci_boston.npz, uci_energy.npz and uci_wine.npz")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="choices whose names contain this")
    options = parser.parse_args()
    names, seeds = list(tables(options.data)), range(options.splits)
    command = f"python benchmarks/choices.py{' --data FOLDER' if options.data else ''} --splits {options.splits}"
    command += f" --only {options.only}" if options.only else ""
    print(f"Output of `{command}`; seeds {list(seeds)}; balinp {balinp.__version__}, numpy {np.__version__},")
    print(f"python {platform.python_version()}, OPENBLAS_NUM_THREADS 1.\n")
    print("Defaults: test NLL in nats a row (RMSE, CPU seconds), means over the splits. Other choices: NLL minus that")
    print("of the defaults on the same splits ± standard error (RMSE, CPU seconds: ratio of the means).\n")
    print(f"| choice | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    with get_context("spawn").Pool(options.jobs) as pool:
        found: dict[str, np.ndarray] = {}
        for choice, parameters in {"defaults": {}, **CHOICES}.items():
            if choice != "defaults" and options.only not in choice:
                continue
            jobs = [(name, seed, parameters) for name in names for seed in seeds]
            flat = np.array(pool.map(partial(scores, options.data), jobs, chunksize=1))
            found[choice] = flat.reshape(len(names), len(seeds), 3)
            print(f"| {choice} | {' | '.join(cells(found[choice], found['defaults'], choice))} |", flush=True)


def cells(of: np.ndarray, defaults: np.ndarray, choice: str) -> list[str]:
    """A cell per table from scores (tables, splits, 3)."""
    mean, base = of.mean(axis=1), defaults.mean(axis=1)
    if choice == "defaults":
        return [f"{nll:.3f} ({error:.3g}, {seconds:.1f})" for nll, error, seconds in mean]
    differences = of[:, :, 0] - defaults[:, :, 0]
    errors = differences.std(axis=1, ddof=1) / differences.shape[1] ** 0.5
    each = zip(differences.mean(axis=1), errors, mean[:, 1] / base[:, 1], mean[:, 2] / base[:, 2])
    return [f"{nll:+.3f} ± {error:.3f} ({ratio:.2f}, {cost:.1f})" for nll, error, ratio, cost in each]


if __name__ == "__main__":
    main()
