"""Regression tables: test RMSE, NLL, coverage and seconds of BALI with its defaults next to tuned baselines.

Run: python examples/uci.py [--data FOLDER] [--openml NAME ...] [--sets a,b] [--methods a,b] [--splits 5] [--out DIR]

FOLDER holds npz files (arrays X and y; a prefix "uci_" of the name is dropped) or CSV files (the last column is the
target). Without it the sample data (yacht) and scikit-learn's diabetes are run; diabetes is run with a folder too.

Protocol: split s = default_rng(s).permutation(N), the first round(0.9 N) rows train; inputs and targets standardised by
the training part; one hidden layer of 50 ReLU; RMSE and mean NLL per test row in original units, 90 % coverage of the
central normal interval, mean ± standard error over the splits. BALI is BALIRegressor(random_state=s), nothing changed.
The baselines pick settings, stopping and (where they do not learn it) noise on a random fifth of the training part
and are then fitted to all of it; their seconds are CPU seconds of that last fit, the search is given apart.

Every figure goes at once into DIR/uci_cache.jsonl; a second run computes only what is missing. A row is missing again
when the method's grid changes, and BALI's also when balinp's source does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from baselines import METHODS, Prediction, report, tuned

import balinp
from balinp import NUMPY, BALIRegressor
from balinp.metrics import gaussian_nll, interval_coverage, rmse

SAMPLE = Path(__file__).parent / "data" / "yacht.csv"
EXTRA = ("gp", "mlp")
# Of the code as it was imported: taken now, lest an edit during a long run be credited with older figures.
BALI_SOURCE = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(balinp.__file__).parent.glob("*.py")))
).hexdigest()[:12]


def read_folder(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every table of the folder with one numeric target: X (n, d), y (n,); other files are passed over."""
    tables = {}
    for path in sorted(folder.glob("*.npz")) + sorted(folder.glob("*.csv")):
        if path.suffix == ".csv":
            tables[path.stem] = read_csv(path)
            continue
        with np.load(path, allow_pickle=False) as arrays:
            if {"X", "y"} <= set(arrays.files):
                X, y = arrays["X"].astype(float), arrays["y"].astype(float).reshape(len(arrays["X"]), -1)
                if y.shape[1] == 1:
                    tables[path.stem.removeprefix("uci_")] = (X, y[:, 0])
    return tables


def read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A table of numbers, its first line names or numbers; the last column is the target."""
    with path.open(encoding="utf-8") as lines:
        first = lines.readline().strip().split(",")
    try:
        [float(cell) for cell in first]
        header = 0
    except ValueError:
        header = 1
    table = np.loadtxt(path, delimiter=",", skiprows=header, ndmin=2)
    return table[:, :-1], table[:, -1]


def read_openml(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The numeric columns of an OpenML set, rows with a missing number left out."""
    from sklearn.datasets import fetch_openml

    data = fetch_openml(name, version=1, as_frame=True)
    X = data.data.select_dtypes("number").to_numpy(float)
    y = np.asarray(data.target, float)
    whole = np.isfinite(X).all(axis=1) & np.isfinite(y)
    return X[whole], y[whole]


def data_sets(folder: Path | None, openml: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    tables = {"yacht": read_csv(SAMPLE)} if folder is None else read_folder(folder)
    try:
        from sklearn.datasets import load_diabetes
    except ImportError:
        print("diabetes left out: scikit-learn is not installed", file=sys.stderr)
    else:
        tables["diabetes"] = load_diabetes(return_X_y=True)
    tables.update({name: read_openml(name) for name in openml})
    return dict(sorted(tables.items(), key=lambda item: len(item[1][1])))


class Split:
    """One split of one set, standardised by its training part."""

    def __init__(self, X: np.ndarray, y: np.ndarray, seed: int):
        order, train = np.random.default_rng(seed).permutation(len(X)), round(0.9 * len(X))
        self.seed = seed
        self.X, self.y = (X[order[:train]], X[order[train:]]), (y[order[:train]], y[order[train:]])
        deviation = self.X[0].std(axis=0)
        centre, scale = self.X[0].mean(axis=0), np.where(deviation > 0, deviation, 1.0)
        self.offset, self.scale = float(self.y[0].mean()), float(self.y[0].std()) or 1.0
        self.x, self.x_test = ((part - centre) / scale for part in self.X)
        self.t = (self.y[0] - self.offset) / self.scale
        self.t_test = (self.y[1] - self.offset) / self.scale

    def scores(self, nll: float, mean: np.ndarray, std: np.ndarray) -> dict[str, float]:
        """From standardised predictions to original units."""
        return {
            "nll": nll + float(np.log(self.scale)),
            "rmse": rmse(self.t_test, mean) * self.scale,
            "coverage": interval_coverage(self.t_test, mean, std),
        }


def run_bali(split: Split) -> dict[str, Any]:
    start = time.process_time()
    model = BALIRegressor(random_state=split.seed).fit(split.X[0], split.y[0])
    seconds = time.process_time() - start
    mean, std = model.predict(split.X[1], return_std=True)
    nll = -float(model.predict_distribution(split.X[1]).log_density(split.y[1][:, None], NUMPY).mean())
    return {
        "nll": nll,
        "rmse": rmse(split.y[1], mean),
        "coverage": interval_coverage(split.y[1], mean, std),
        "seconds": seconds,
        "search_seconds": 0.0,
        "settings": {"iterations": model.n_iter_},
    }


def run_baseline(name: str, split: Split, map_settings: dict[str, Any] | None) -> dict[str, Any]:
    """Search on the inner cut, then the fit; ``map_settings`` for the methods that start from the MAP network."""
    method, y = METHODS[name], split.t[:, None]
    base = None if map_settings is None else (METHODS["map"], map_settings)
    start = time.process_time()
    settings = tuned(method, split.x, y, "regression", split.seed, base, **batch_settings(len(y)))
    search = time.process_time() - start
    start = time.process_time()
    model = method.fit(split.x, y, "regression", np.random.default_rng(split.seed), **settings)
    seconds = time.process_time() - start
    p: Prediction = model.predict(split.x_test, np.random.default_rng(1000 + split.seed))
    scores = split.scores(p.nll(split.t_test[:, None]), p.mean[:, 0], p.std[:, 0])
    kept = {k: np.asarray(v).tolist() if isinstance(v, np.ndarray) else v for k, v in settings.items()}
    return {**scores, "seconds": seconds, "search_seconds": search, "settings": kept}


def batch_settings(rows: int) -> dict[str, Any]:
    """Batches of 32, beyond 5 000 rows of 128."""
    return {"batch_size": 128} if rows > 5_000 else {"batch_size": 32}


def run_gp(split: Split) -> dict[str, Any]:
    """Exact Gaussian process, one length scale per input: kernel by evidence on 500 rows at most, then 2 000."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    start, rows = time.process_time(), np.random.default_rng(split.seed).permutation(len(split.x))
    d = split.x.shape[1]
    kernel = ConstantKernel(1.0, (1e-2, 1e4)) * RBF(np.full(d, d**0.5), (1e-1, 1e4)) + WhiteKernel(0.1, (1e-6, 1e1))
    few, many = rows[:500], rows[:2000]
    found = GaussianProcessRegressor(kernel).fit(split.x[few], split.t[few]).kernel_
    model = GaussianProcessRegressor(found, optimizer=None).fit(split.x[many], split.t[many])
    seconds = time.process_time() - start
    mean, std = model.predict(split.x_test, return_std=True)
    scores = split.scores(gaussian_nll(split.t_test, mean, std), mean, std)
    return {**scores, "seconds": seconds, "search_seconds": 0.0, "settings": {"kernel": str(found)}}


def run_mlp(split: Split) -> dict[str, Any]:
    """scikit-learn's MLPRegressor, stopped early on a fifth; the noise is that of a network kept from a fifth."""
    from sklearn.neural_network import MLPRegressor

    def fit(x: np.ndarray, t: np.ndarray) -> MLPRegressor:
        own = {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 50, "max_iter": 2000}
        return MLPRegressor(hidden_layer_sizes=(50,), learning_rate_init=0.01, random_state=split.seed, **own).fit(x, t)

    order, cut = np.random.default_rng(split.seed).permutation(len(split.x)), round(0.8 * len(split.x))
    a, v = order[:cut], order[cut:]
    start = time.process_time()
    std = rmse(split.t[v], fit(split.x[a], split.t[a]).predict(split.x[v]))
    search, start = time.process_time() - start, time.process_time()
    model = fit(split.x, split.t)
    seconds, mean = time.process_time() - start, model.predict(split.x_test)
    scores = split.scores(gaussian_nll(split.t_test, mean, std), mean, np.full(len(mean), std))
    return {**scores, "seconds": seconds, "search_seconds": search, "settings": {}}


def settings_hash(name: str, rows: int) -> str:
    """What a cached row depends on besides set and split."""
    if name == "bali":
        return BALI_SOURCE
    parts: tuple[Any, ...] = (name,)
    if name in METHODS:
        grids = [METHODS[name].grid] + ([METHODS["map"].grid] if METHODS[name].from_map else [])
        defaults = [METHODS[m].fit.__kwdefaults__ for m in (name, "map")]
        defaults = [{k: v for k, v in d.items() if k != "checks"} for d in defaults]  # how often watched
        parts = (name, grids, batch_settings(rows), *defaults)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


class Cache:
    """Rows in a JSON lines file, by (set, split, method, settings hash, balinp version)."""

    def __init__(self, path: Path):
        self.path, self.rows = path, {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.rows[tuple(row["key"])] = row

    def get(self, key: tuple[Any, ...], make: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
        """The row of this key, made and stored if it is not there yet; and whether it was made now."""
        if key in self.rows:
            return self.rows[key], False
        row = {"key": list(key), **make()}
        self.rows[key] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row, True


def one_row(method: str, table: str, split: Split, cache: Cache) -> tuple[dict[str, Any], bool]:
    """The row of a method on a split of the set called ``table``; and whether it was computed now."""
    rows = len(split.y[0]) + len(split.y[1])
    key = (table, split.seed, method, settings_hash(method, rows), balinp.__version__)
    if method not in METHODS:
        own = {"bali": run_bali, "gp": run_gp, "mlp": run_mlp}[method]
        return cache.get(key, lambda: own(split))
    base = None
    if METHODS[method].from_map and key not in cache.rows:
        base = with_arrays(one_row("map", table, split, cache)[0]["settings"])
    return cache.get(key, lambda: run_baseline(method, split, base))


def with_arrays(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of their arrays."""
    return {k: np.array(v) if isinstance(v, list) else v for k, v in settings.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of npz (X, y) or CSV tables")
    parser.add_argument("--openml", nargs="*", default=[], metavar="NAME", help="sets to fetch from OpenML")
    parser.add_argument("--sets", help="comma-separated names; default: all there are")
    parser.add_argument("--methods", help=f"comma-separated, from: bali, {', '.join([*METHODS, *EXTRA])}; default: all")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # scikit-learn's and balinp's notes on convergence
    tables = data_sets(options.data, options.openml)
    methods = options.methods.split(",") if options.methods else ["bali", *METHODS, *EXTRA]
    names = options.sets.split(",") if options.sets else list(tables)
    unknown = [m for m in methods if m not in ("bali", *METHODS, *EXTRA)] + [n for n in names if n not in tables]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; sets here: {', '.join(tables)}")
    options.out.mkdir(parents=True, exist_ok=True)
    cache, rows = Cache(options.out / "uci_cache.jsonl"), []
    count = len(names) * options.splits * len(methods)
    for name in names:
        X, y = tables[name]
        for seed in range(options.splits):
            split = Split(X, y, seed)
            for method in methods:
                row, new = one_row(method, name, split, cache)
                rows.append({"set": name, "split": seed, "method": method, **row})
                if new:
                    figures = f"NLL {row['nll']:.3f}, RMSE {row['rmse']:.3g}, {row['seconds']:.1f} s"
                    print(f"[{len(rows)}/{count}] {name} split {seed} {method}: {figures}", file=sys.stderr, flush=True)
    command = "python examples/uci.py" + (" --data FOLDER" if options.data else "")
    command += f" --openml {' '.join(options.openml)}" if options.openml else ""
    command += "".join(f" --{k} {v}" for k, v in (("sets", options.sets), ("methods", options.methods)) if v)
    single = ["bali", "mlp", *(name for name, method in METHODS.items() if method.single)]
    header = report.header(f"{command} --splits {options.splits}", range(options.splits))
    text = report.tables(rows, names, methods, [m for m in methods if m in single])
    (options.out / "uci_table.md").write_text(report.markdown_header(header) + text, encoding="utf-8")
    report.write_json(options.out / "uci_table.json", {**header, "rows": rows})
    print(text)


if __name__ == "__main__":
    main()
