"""Out-of-distribution detection by predictive entropy: ROC curves and AUROC of BALI with its defaults.

Run: python examples/ood.py [--data FOLDER] [--seeds 3] [--out DIR]

FOLDER as for examples/images.py. Trained on digits (X/16, 80/20, hidden widths (100, 100)) and on MNIST shrunk to 8 × 8
(means of blocks after a margin of two pixels is added, the blocks of digits; hidden widths (100, 100)), each set's
test rows are the other's outliers, as in figure 3 of the paper; and on MNIST in full (200, 200). Every model also
meets its test rows with their pixels in another order and uniform noise, the last also silhouettes of animals.
Positive is an outlier, the score is the entropy of the predictive distribution in nats. Figures are means ± standard
errors over the seeds of the fits (and of digits' cut); the picture shows the first.

Scores go into DIR/ood_cache.jsonl; a second run with the same balinp fits nothing again.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from baselines.report import header, markdown_header, write_json
from images import MNIST, SILHOUETTES, Arrays, digits_split, mnist_arrays, outliers, source_hash
from uci import Cache

import balinp
from balinp import BALIClassifier
from balinp.metrics import accuracy, auroc, categorical_nll, predictive_entropy
from balinp.plots import save_figure

STYLES = {"permuted": "-.", "noise": ":", "silhouettes": "--"}
POINTS = 400  # of a stored curve


def shrunk(x: np.ndarray) -> np.ndarray:
    """28 × 28 images (n, 784) as 8 × 8 (n, 64): a margin of two pixels, then means of 4 × 4 blocks."""
    padded = np.pad(x.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    small = padded.reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    return small.reshape(len(x), 64)


def curve(inside: np.ndarray, outside: np.ndarray) -> dict[str, Any]:
    """AUROC and a thinned ROC curve of scores."""
    thresholds = np.quantile(np.concatenate([inside, outside]), np.linspace(1, 0, POINTS))
    false = (inside[:, None] >= thresholds).mean(axis=0)
    true = (outside[:, None] >= thresholds).mean(axis=0)
    points = [[0.0, *false.round(5).tolist(), 1.0], [0.0, *true.round(5).tolist(), 1.0]]
    return {"auroc": auroc(inside, outside), "roc": points, "outliers": len(outside)}


def scores(arrays: Arrays, widths: tuple[int, ...], others: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    """Fit and test one model: its quality on its own test rows, and a curve for each set of outliers."""
    x, y, x_test, y_test = arrays
    start = time.process_time()
    model = BALIClassifier(widths, random_state=seed).fit(x, y)
    seconds = time.process_time() - start
    p = model.predict_proba(x_test)
    inside = predictive_entropy(p)
    every = {**others, **outliers(x_test, seed)}
    curves = {name: curve(inside, predictive_entropy(model.predict_proba(rows))) for name, rows in every.items()}
    quality = {"accuracy": accuracy(y_test, p.argmax(axis=1)), "nll": categorical_nll(y_test, p)}
    return {**quality, "seconds": seconds, "curves": curves}


def jobs(folder: Path | None, seed: int) -> tuple[dict[str, tuple[Arrays, tuple[int, ...], dict]], list[str]]:
    """(what to run by name of the training set, what is missing)."""
    digits, mnist = digits_split(seed), mnist_arrays(folder)
    if mnist is None:
        return {"digits": (digits, (100, 100), {})}, [f"no {MNIST}: digits against MNIST and back (give --data FOLDER)"]
    missing, extra = [], {}
    if folder is not None and (folder / SILHOUETTES).exists():
        with np.load(folder / SILHOUETTES, allow_pickle=False) as file:
            extra = {"silhouettes": file["x"] / 255}
    else:
        missing.append(f"no {SILHOUETTES}: MNIST against silhouettes")
    small: Arrays = (shrunk(mnist[0]), mnist[1], shrunk(mnist[2]), mnist[3])
    return {
        "digits": (digits, (100, 100), {"MNIST, 8 × 8": small[2]}),
        "MNIST, 8 × 8": (small, (100, 100), {"digits": digits[2]}),
        "MNIST": (mnist, (200, 200), extra),
    }, missing


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """One panel of ROC curves for every training set; one seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(results), 4.4), layout="constrained")
    for axis, (name, result) in zip(figure.subplots(1, len(results), squeeze=False)[0], results.items()):
        for other, found in result["curves"].items():
            axis.plot(*found["roc"], STYLES.get(other, "-"), lw=1.6, label=f"{other}: {found['auroc']:.3f}")
        axis.plot([0, 1], [0, 1], color="0.7", lw=0.8)
        axis.set(title=f"trained on {name}", xlabel="share of test rows taken for outliers", xlim=(-0.01, 1.01))
        axis.set(ylabel="share of outliers found", ylim=(-0.01, 1.01))
        axis.grid(alpha=0.25)
        axis.legend(title="outliers: AUROC", loc="lower right", fontsize=9)
    save_figure(figure, path)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """(mean, standard error) of every figure over the seeds."""

    def of(values: list[float]) -> tuple[float, float]:
        return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0

    figures = {k: of([run[k] for run in runs]) for k in ("accuracy", "nll", "seconds")}
    return {**figures, "auroc": {k: of([run["curves"][k]["auroc"] for run in runs]) for k in runs[0]["curves"]}}


def table(figures: dict[str, dict[str, Any]], missing: list[str]) -> str:
    lines = ["| trained on | outliers | AUROC | test accuracy | test NLL | seconds |", "|---|---|---|---|---|---|"]
    for name, found in figures.items():
        accuracy, nll = (f"{m:.4f} ± {e:.4f}" for m, e in (found["accuracy"], found["nll"]))
        quality = f"{accuracy} | {nll} | {found['seconds'][0]:.1f}"
        lines += [f"| {name} | {k} | {m:.3f} ± {e:.3f} | {quality} |" for k, (m, e) in found["auroc"].items()]
    lines += ["", *[f"Not run, {text}." for text in missing], "![ROC curves](ood.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=f"folder with {MNIST} and {SILHOUETTES}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    cache, runs, missing = Cache(options.out / "ood_cache.jsonl"), {}, []
    for seed in range(options.seeds):
        todo, missing = jobs(options.data, seed)
        for name, (arrays, widths, others) in todo.items():
            key = (name, seed, ",".join(sorted(others)), source_hash("bali"), balinp.__version__)
            run, new = cache.get(key, lambda: scores(arrays, widths, others, seed))  # noqa: B023
            runs.setdefault(name, []).append(run)
            if new:
                found = {k: round(v["auroc"], 4) for k, v in run["curves"].items()}
                place = f"[seed {seed + 1}/{options.seeds}]"
                print(f"{place} trained on {name}: {found}", file=sys.stderr, flush=True)
    for text in missing:
        print(f"not run, {text}", file=sys.stderr)
    command = "python examples/ood.py" + (" --data FOLDER" if options.data else "") + f" --seeds {options.seeds}"
    head = header(command, [*range(options.seeds)])
    draw({name: found[0] for name, found in runs.items()}, options.out / "ood.png")
    figures = {name: summary(found) for name, found in runs.items()}
    (options.out / "ood.md").write_text(markdown_header(head) + table(figures, missing), encoding="utf-8")
    write_json(options.out / "ood.json", {**head, "missing": missing, "figures": figures})
    print(table(figures, missing))


if __name__ == "__main__":
    main()
