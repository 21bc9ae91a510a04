"""Image classification: accuracy, NLL, calibration and seconds of BALI with its defaults on digits and MNIST.

Run: python examples/images.py [--data FOLDER] [--methods a,b] [--splits 5] [--mnist-splits 1] [--out DIR]

FOLDER holds mnist_10k.npz (x_train (10000, 784), y_train, x_test, y_test, uint8) and, for examples/ood.py,
animal_silhouettes.npz (x (n, 784), uint8). Without it digits alone are run and the table says what is missing.

Protocol: digits, X/16, split s = default_rng(s).permutation, 80/20, hidden widths (100, 100). MNIST, x/255, the 10 000
training images, the standard 10 000 for testing, hidden widths (200, 200). BALI is BALIClassifier(widths,
random_state=s), nothing else changed. Calibration error with 15 equal-width bins of confidence. Seconds are CPU seconds
of the fit. Baselines (--methods, digits only: they are written for small tables) pick settings and stopping on a random
fifth of the training rows.

Every figure goes at once into DIR/images_cache.jsonl; a second run computes only what is missing, and BALI's rows
again when the source of balinp has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from baselines import METHODS, tuned
from baselines.report import NAMES, header, markdown_header, mean_error, write_json
from uci import Cache

import balinp
from balinp import BALIClassifier
from balinp.metrics import accuracy, auroc, calibration_error, categorical_nll, predictive_entropy
from balinp.plots import plot_reliability, save_figure

MNIST, SILHOUETTES = "mnist_10k.npz", "animal_silhouettes.npz"
WIDTHS = {"digits": (100, 100), "mnist": (200, 200)}
FIGURES = {"accuracy": 4, "nll": 4, "calibration_error": 4, "auroc_permuted": 3, "auroc_noise": 3, "seconds": 1}

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def digits_split(seed: int) -> Arrays:
    """x_train, y_train, x_test, y_test of scikit-learn's digits, pixels in [0, 1]."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    order, train = np.random.default_rng(seed).permutation(len(X)), round(0.8 * len(X))
    a, t = order[:train], order[train:]
    return X[a] / 16, y[a], X[t] / 16, y[t]


def mnist_arrays(folder: Path | None) -> Arrays | None:
    """x_train, y_train, x_test, y_test with pixels in [0, 1], or None where the file is missing."""
    if folder is None or not (folder / MNIST).exists():
        return None
    with np.load(folder / MNIST, allow_pickle=False) as file:
        x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return x / 255, y.astype(int), x_test / 255, y_test.astype(int)


def outliers(x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Out-of-distribution rows made from test rows x: their pixels in another order, and uniform noise."""
    order = np.random.default_rng(1000 + seed).permutation(x.shape[1])
    return {"permuted": x[:, order], "noise": np.random.default_rng(2000 + seed).random(x.shape)}


def fit_predict(method: str, name: str, arrays: Arrays, seed: int) -> tuple[Any, float, dict[str, Any]]:
    """(function from rows to probabilities, CPU seconds of the fit, what it took to get there)."""
    x, y = arrays[:2]
    if method == "bali":
        start = time.process_time()
        model = BALIClassifier(WIDTHS[name], random_state=seed).fit(x, y)
        facts = {"iterations": model.n_iter_, "converged": model.converged_, "temperature": model.state_.temperature}
        return model.predict_proba, time.process_time() - start, facts
    offset, scale = x.mean(axis=0), float(np.sqrt(x.var(axis=0).mean()))  # one scale for all pixels, as BALI's
    z, chosen, base = (x - offset) / scale, METHODS[method], None
    fixed = {"hidden_widths": WIDTHS[name]}
    if chosen.from_map:
        base = (METHODS["map"], tuned(METHODS["map"], z, y, "classification", seed, **fixed))
    settings = tuned(chosen, z, y, "classification", seed, base, **fixed)
    start = time.process_time()
    model = chosen.fit(z, y, "classification", np.random.default_rng(seed), **settings)
    seconds = time.process_time() - start

    def predict(x: np.ndarray) -> np.ndarray:
        blocks = np.array_split((x - offset) / scale, max(1, len(x) // 500))
        return np.concatenate([model.predict(b, np.random.default_rng(seed)).probabilities for b in blocks])

    return predict, seconds, {}


def one_row(method: str, name: str, arrays: Arrays, seed: int) -> dict[str, Any]:
    """The figures of one fit, and its confidence and correctness on the test rows for the reliability diagram."""
    x_test, y_test = arrays[2:]
    predict, seconds, facts = fit_predict(method, name, arrays, seed)
    p = predict(x_test)
    entropy = predictive_entropy(p)
    far = {f"auroc_{k}": auroc(entropy, predictive_entropy(predict(v))) for k, v in outliers(x_test, seed).items()}
    quality = {"accuracy": accuracy(y_test, p.argmax(axis=1)), "nll": categorical_nll(y_test, p)}
    quality["calibration_error"] = calibration_error(y_test, p)
    kept = {"confidence": p.max(axis=1).round(4).tolist(), "right": (p.argmax(axis=1) == y_test).astype(int).tolist()}
    return {**quality, **far, "seconds": seconds, **facts, **kept}


def source_hash(method: str) -> str:
    """What a cached row depends on besides set, method and seed: BALI's source, or the baseline's grid."""
    if method != "bali":
        parts = (METHODS[method].grid, METHODS[method].fit.__kwdefaults__, METHODS["map"].grid)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    sources = sorted(Path(balinp.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Reliability of every (set, method), all splits together."""
    from matplotlib.figure import Figure

    keys = list(dict.fromkeys((row["set"], row["method"]) for row in rows))
    figure = Figure(figsize=(4.6 * min(len(keys), 4), 4.4 * -(-len(keys) // 4)), layout="constrained")
    axes = figure.subplots(-(-len(keys) // 4), min(len(keys), 4), squeeze=False).ravel()
    for axis, key in zip(axes, keys):
        mine = [row for row in rows if (row["set"], row["method"]) == key]
        confidence = np.concatenate([row["confidence"] for row in mine])
        right = np.concatenate([row["right"] for row in mine])
        rest = np.column_stack([confidence, *[(1 - confidence) / 9] * 9])  # the diagram needs the largest only
        plot_reliability(np.where(right == 1, 0, 1), rest, ax=axis)
        axis.set_title(f"{key[0]}, {NAMES[key[1]]}", fontsize=11)
        axis.legend(loc="lower right", fontsize=8, frameon=False)
    save_figure(figure, path)


def table(rows: list[dict[str, Any]], missing: list[str]) -> str:
    heads = [name.replace("auroc", "AUROC").replace("nll", "NLL").replace("_", " ") for name in FIGURES]
    lines = [f"| set | method | fits | {' | '.join(heads)} |", "|---" * (len(FIGURES) + 3) + "|"]
    for name, method in dict.fromkeys((row["set"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["set"], row["method"]) == (name, method)]
        cells = [mean_error(np.array([row[f] for row in mine]), digits) for f, digits in FIGURES.items()]
        lines.append(f"| {name} | {NAMES[method]} | {len(mine)} | {' | '.join(cells)} |")
    lines += [f"| {text} |" + " |" * (len(FIGURES) + 2) for text in missing]
    return "\n".join(lines) + "\n\nMeans ± standard error over the fits. ![reliability](images.png)\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"folder with {MNIST}")
    parser.add_argument("--methods", default="bali", help=f"from: bali, {', '.join(METHODS)}")
    parser.add_argument("--splits", type=int, default=5, help="splits of digits")
    parser.add_argument("--mnist-splits", type=int, default=1, help="fits of MNIST, each with its own seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    methods = options.methods.split(",")
    unknown = [m for m in methods if m not in ("bali", *METHODS)]
    if unknown:
        parser.error(f"unknown methods: {', '.join(unknown)}")
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    cache, rows, missing = Cache(options.out / "images_cache.jsonl"), [], []
    mnist = mnist_arrays(options.data)
    if mnist is None:
        missing.append(f"mnist: not run, no {MNIST} (give --data FOLDER)")
        print(missing[-1], file=sys.stderr)
    jobs = [("digits", m, s) for m in methods for s in range(options.splits)]
    if mnist is not None and "bali" in methods:
        jobs += [("mnist", "bali", s) for s in range(options.mnist_splits)]
    for done, (name, method, seed) in enumerate(jobs, 1):
        arrays = digits_split(seed) if name == "digits" else mnist
        assert arrays is not None
        key = (name, seed, method, source_hash(method), balinp.__version__)
        row, new = cache.get(key, lambda: one_row(method, name, arrays, seed))  # noqa: B023 (called at once)
        rows.append({"set": name, "split": seed, "method": method, **row})
        if new:
            figures = f"accuracy {row['accuracy']:.4f}, NLL {row['nll']:.4f}, {row['seconds']:.1f} s"
            print(f"[{done}/{len(jobs)}] {name} split {seed} {method}: {figures}", file=sys.stderr, flush=True)
    command = "python examples/images.py" + (" --data FOLDER" if options.data else "")
    command += "" if options.methods == "bali" else f" --methods {options.methods}"
    command += f" --splits {options.splits} --mnist-splits {options.mnist_splits}"
    head = header(command, range(max(options.splits, options.mnist_splits)))
    text = markdown_header(head) + table(rows, missing)
    draw(rows, options.out / "images.png")
    (options.out / "images.md").write_text(text, encoding="utf-8")
    bare = [{k: v for k, v in row.items() if k not in ("confidence", "right", "key")} for row in rows]
    write_json(options.out / "images.json", {**head, "missing": missing, "rows": bare})
    print(text)


if __name__ == "__main__":
    main()
