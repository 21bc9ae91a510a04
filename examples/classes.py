"""Tables of classes: NLL, accuracy and calibration error of BALI with its defaults next to tuned baselines.

Run: python examples/classes.py [--data FOLDER] [--sets a,b] [--methods a,b] [--splits 5] [--out DIR]

Three sets of scikit-learn's and five made ones: moons (two inputs), checker (a chessboard of two inputs, 1 500 rows),
line (20 inputs of which five count, by a logistic rule that a line parts, 300 rows), noise (three classes that ten
inputs say nothing of, 400 rows), counts (two inputs of five values each, every cell a probability of its own, 1 500
rows). FOLDER holds more: npz files with arrays X (n, d) and y (n,), labels from 0.

Protocol: split s = default_rng(s).permutation(N), the first round(0.8 N) rows train; inputs standardised by them; one
hidden layer of 50 ReLU. BALI is BALIClassifier(random_state=s), nothing changed; without held-out rows it is
BALIClassifier(validation_fraction=0). The baselines pick settings and stopping on a random fifth of the training part;
logistic regression is scikit-learn's LogisticRegressionCV, by NLL over eight penalties and five folds. Mean ± standard
error over the splits. Figures go at once into DIR/classes_cache.jsonl; a second run computes what is missing, and
BALI's again when the source of balinp has changed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from baselines import METHODS, report, tuned
from uci import BALI_SOURCE, Cache, settings_hash, with_arrays

import balinp
from balinp import BALIClassifier
from balinp.metrics import accuracy, calibration_error, categorical_nll

BALI: dict[str, dict[str, Any]] = {"bali": {}, "bali_plain": {"validation_fraction": 0}}
PEERS = ("map", "mc_dropout", "swag", "laplace_kfac", "ensemble")
NAMES = report.NAMES | {"bali_plain": "BALI, no held-out rows", "logistic": "logistic regression (scikit-learn)"}
FIGURES = {"nll": "Test NLL, nats a row", "accuracy": "Accuracy", "calibration_error": "Calibration error"}

Table = tuple[np.ndarray, np.ndarray]


def tables(folder: Path | None) -> dict[str, Table]:
    """The sets by name, with X (n, d) and labels (n,) from 0."""
    from sklearn import datasets

    rng = np.random.default_rng(0)
    found: dict[str, Table] = {
        name: getattr(datasets, f"load_{name}")(return_X_y=True) for name in ("iris", "wine", "breast_cancer")
    }
    found["moons"] = datasets.make_moons(600, noise=0.25, random_state=0)
    square = rng.uniform(-2, 2, (1500, 2))
    found["checker"] = square, np.floor(square).sum(axis=1).astype(int) % 2
    many = rng.standard_normal((300, 20))
    found["line"] = many, (many[:, :5].sum(axis=1) + rng.logistic(size=300) > 0).astype(int)
    found["noise"] = rng.standard_normal((400, 10)), rng.integers(0, 3, 400)
    cells, chance = rng.integers(0, 5, (1500, 2)), rng.uniform(0.05, 0.95, (5, 5))
    found["counts"] = cells.astype(float), (rng.random(1500) < chance[cells[:, 0], cells[:, 1]]).astype(int)
    for path in sorted(folder.glob("*.npz")) if folder else []:
        with np.load(path, allow_pickle=False) as arrays:
            if {"X", "y"} <= set(arrays.files) and arrays["y"].ndim == 1 and arrays["y"].dtype.kind in "iu":
                found[path.stem] = arrays["X"].astype(float), arrays["y"].astype(int)
    return found


def one_row(method: str, name: str, data: Table, seed: int, cache: Cache) -> tuple[dict[str, Any], bool]:
    """The figures of a method on a split of the set called ``name``; and whether they were computed now."""
    source = BALI_SOURCE if method in BALI else settings_hash(method, len(data[1]))
    key = (name, seed, method, source, balinp.__version__)
    base = None
    if method in METHODS and METHODS[method].from_map and key not in cache.rows:
        base = with_arrays(one_row("map", name, data, seed, cache)[0]["settings"])
    return cache.get(key, lambda: scores(method, data, seed, base))


def scores(method: str, data: Table, seed: int, map_settings: dict[str, Any] | None) -> dict[str, Any]:
    X, y = data
    order, train = np.random.default_rng(seed).permutation(len(X)), round(0.8 * len(X))
    a, t = order[:train], order[train:]
    deviation = X[a].std(axis=0)
    x, x_test = ((X[rows] - X[a].mean(axis=0)) / np.where(deviation > 0, deviation, 1) for rows in (a, t))
    start, settings = time.process_time(), {}
    if method in BALI:
        p = BALIClassifier(random_state=seed, **BALI[method]).fit(X[a], y[a]).predict_proba(X[t])
    elif method == "logistic":
        from sklearn.linear_model import LogisticRegressionCV

        p = LogisticRegressionCV(Cs=8, scoring="neg_log_loss", max_iter=1000).fit(x, y[a]).predict_proba(x_test)
    else:
        base = None if map_settings is None else (METHODS["map"], map_settings)
        settings = tuned(METHODS[method], x, y[a], "classification", seed, base, batch_size=32)
        model = METHODS[method].fit(x, y[a], "classification", np.random.default_rng(seed), **settings)
        p = model.predict(x_test, np.random.default_rng(1000 + seed)).probabilities
    return {
        "nll": categorical_nll(y[t], p),
        "accuracy": accuracy(y[t], p.argmax(axis=1)),
        "calibration_error": calibration_error(y[t], p),
        "seconds": time.process_time() - start,
        "settings": {k: np.asarray(v).tolist() if isinstance(v, np.ndarray) else v for k, v in settings.items()},
    }


def text(rows: list[dict[str, Any]], sets: list[str], methods: list[str]) -> str:
    rank = report.mean_ranks(report.collect(rows, "nll"), sets, methods)
    found = ""
    for figure, title in FIGURES.items():
        values, last = report.collect(rows, figure), figure == "nll"
        head = ["method", *sets, *(["mean rank"] if last else [])]
        lines = [
            [NAMES[m], *(report.mean_error(values[s, m], 3) for s in sets), *([f"{rank[m]:.2f}"] if last else [])]
            for m in methods
        ]
        found += report.table(f"{title}, mean ± standard error over the splits.", head, lines)
    seconds = report.collect(rows, "seconds")
    lines = [[NAMES[m], *(f"{np.median(seconds[s, m]):.1f}" for s in sets)] for m in methods]
    return found + report.table("CPU seconds with the search for settings, medians.", ["method", *sets], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of more npz tables (X, y)")
    parser.add_argument("--sets", help="comma-separated names; default: all there are")
    parser.add_argument("--methods", help=f"comma-separated, from: {', '.join([*BALI, 'logistic', *METHODS])}")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # notes on convergence
    found = tables(options.data)
    methods = options.methods.split(",") if options.methods else [*BALI, "logistic", *PEERS]
    names = options.sets.split(",") if options.sets else list(found)
    unknown = [m for m in methods if m not in (*BALI, "logistic", *METHODS)] + [n for n in names if n not in found]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; sets here: {', '.join(found)}")
    options.out.mkdir(parents=True, exist_ok=True)
    cache, rows = Cache(options.out / "classes_cache.jsonl"), []
    count = len(names) * options.splits * len(methods)
    for name in names:
        for seed in range(options.splits):
            for method in methods:
                row, new = one_row(method, name, found[name], seed, cache)
                rows.append({"set": name, "split": seed, "method": method, **row})
                if new:
                    figures = f"NLL {row['nll']:.3f}, accuracy {row['accuracy']:.3f}, {row['seconds']:.1f} s"
                    print(f"[{len(rows)}/{count}] {name} split {seed} {method}: {figures}", file=sys.stderr, flush=True)
    command = "python examples/classes.py" + (" --data FOLDER" if options.data else "")
    command += "".join(f" --{k} {v}" for k, v in (("sets", options.sets), ("methods", options.methods)) if v)
    header = report.header(f"{command} --splits {options.splits}", range(options.splits))
    page = report.markdown_header(header) + text(rows, names, methods)
    (options.out / "classes.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
