"""Toy problems: posterior predictives of BALI with its defaults beside baselines on the same data.

Run: python examples/toy.py [--methods a,b] [--seed 0] [--out DIR]

Regression, 120 rows with a gap in the inputs. Sines-trend: y = x + 0.3 sin 2πx + 0.3 sin 4πx + N(0, 0.05²), x uniform
on [0, 0.35] and [0.65, 1]. Sinc: y = sin(πx)/(πx) + N(0, 0.05²), x uniform on [−3, 0.5] and [1.7, 3]. Classification:
two moons of 100 rows each with noise 0.15. BALI is BALIRegressor() and BALIClassifier() with nothing changed but
random_state; the baselines see standardised data, have one hidden layer of 50 as well, and pick settings and stopping
on a random fifth of the rows (baselines.tuned).

Besides the pictures it writes what they show as figures: error and NLL on 1 000 fresh rows, and how much the epistemic
deviation (or, for classes, the entropy) grows in the gap and outside the data.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baselines import METHODS, tuned
from baselines.report import NAMES, header, markdown_header, write_json
from scipy.special import entr, softmax

from balinp import BALIClassifier, BALIRegressor
from balinp.metrics import accuracy, categorical_nll, gaussian_nll, rmse
from balinp.plots import save_figure

DEFAULT = ("bali", "bayes_by_backprop", "mc_dropout", "ensemble", "laplace_kfac")


@dataclass(frozen=True)
class Curve:
    """A one-dimensional regression toy: rows on two intervals, a gap between them, plotted on a wider range."""

    function: Callable[[np.ndarray], np.ndarray]
    intervals: tuple[tuple[float, float], tuple[float, float]]
    shown: tuple[float, float]
    noise: float = 0.05

    def rows(self, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, 1) and targets (n,)."""
        ends = np.array(self.intervals)[generator.integers(0, 2, n)]
        x = generator.uniform(ends[:, 0], ends[:, 1])
        return x[:, None], self.function(x) + self.noise * generator.standard_normal(n)

    def parts(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Which of the inputs lie on the data, in the middle half of the gap, and outside by a quarter of the data."""
        (low, left), (right, high) = self.intervals
        middle, half = (left + right) / 2, (right - left) / 4
        reach = (high - low) / 4
        on_data = ((x >= low) & (x <= left)) | ((x >= right) & (x <= high))
        return {"data": on_data, "gap": abs(x - middle) < half, "outside": (x < low - reach) | (x > high + reach)}


CURVES = {
    "sines-trend": Curve(
        lambda x: x + 0.3 * np.sin(2 * np.pi * x) + 0.3 * np.sin(4 * np.pi * x), ((0, 0.35), (0.65, 1)), (-0.6, 1.6)
    ),
    "sinc": Curve(np.sinc, ((-3, 0.5), (1.7, 3)), (-5.5, 5.5)),
}


def moons(n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles of radius 1 with noise 0.15; inputs (n, 2), labels (n,)."""
    labels = np.arange(n) % 2
    angle = np.pi * generator.random(n)
    sign = 1 - 2 * labels
    x = np.column_stack([np.cos(angle) * sign + labels, np.sin(angle) * sign + labels / 2])
    return x + 0.15 * generator.standard_normal((n, 2)), labels


def baseline(method: str, x: np.ndarray, y: np.ndarray, task: str, seed: int) -> Any:
    """A tuned baseline fitted to standardised rows."""
    chosen = METHODS[method]
    base = None
    if chosen.from_map:
        base = (METHODS["map"], tuned(METHODS["map"], x, y, task, seed))
    settings = tuned(chosen, x, y, task, seed, base)
    return chosen.fit(x, y, task, np.random.default_rng(seed), **settings)


def regression(
    method: str, x: np.ndarray, y: np.ndarray, seed: int
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Fits; the function that gives mean, total and epistemic deviation, each (n,), at inputs (n, 1)."""
    if method == "bali":
        model = BALIRegressor(random_state=seed).fit(x, y)

        def bali(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            p = model.predict_distribution(x)
            return p.mean[:, 0], np.sqrt(p.covariance[:, 0, 0]), np.sqrt(p.epistemic[:, 0, 0])

        return bali
    offset, scale, shift, size = x.mean(axis=0), x.std(axis=0), y.mean(), y.std()
    fitted = baseline(method, (x - offset) / scale, ((y - shift) / size)[:, None], "regression", seed)

    def other(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        p = fitted.predict((x - offset) / scale, np.random.default_rng(seed))
        epistemic = np.sqrt(np.maximum(p.std[:, 0] ** 2 - fitted.noise_variance[0], 0))
        return p.mean[:, 0] * size + shift, p.std[:, 0] * size, epistemic * size

    return other


def classification(
    method: str, x: np.ndarray, y: np.ndarray, seed: int
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Fits; the function that gives probabilities (n, K), total entropy and its epistemic part (n,), in nats.

    The epistemic part is the mutual information of label and weights: the entropy of the mean of the sampled
    probabilities less the mean of their entropies. BALI's probabilities and total are those of its default predictive.
    """
    if method == "bali":
        model = BALIClassifier(random_state=seed).fit(x, y)

        def bali(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            p = model.predict_proba(x)
            default, model.predictive = model.predictive, "monte_carlo"
            draws: Any = model.predict_distribution(x).draws
            model.predictive = default
            return p, entr(p).sum(axis=1), information(draws)

        return bali
    offset, scale = x.mean(axis=0), x.std(axis=0)
    fitted = baseline(method, (x - offset) / scale, y, "classification", seed)

    def other(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        z = (x - offset) / scale
        p = fitted.predict(z, np.random.default_rng(seed)).probabilities
        return p, entr(p).sum(axis=1), information(fitted.draws(z, 100, np.random.default_rng(seed)))

    return other


def information(logits: np.ndarray) -> np.ndarray:
    """Mutual information of label and weights, (n,), from sampled logits (S, n, K)."""
    p = softmax(logits, axis=2)
    return np.maximum(entr(p.mean(axis=0)).sum(axis=1) - entr(p).sum(axis=2).mean(axis=0), 0)


def draw_curves(name: str, methods: list[str], seed: int, out: Path) -> dict[str, dict[str, float]]:
    """The picture of a regression toy, toy_NAME.png; the figures of each method."""
    curve, generator = CURVES[name], np.random.default_rng(seed)
    x, y = curve.rows(120, generator)
    fresh, truth = curve.rows(1000, generator)
    grid = np.linspace(*curve.shown, 400)
    parts, results = curve.parts(grid), {}
    figure, axes = new_figure(1, len(methods))
    values = curve.function(grid)
    low, high = y.min(), y.max()
    for axis, method in zip(axes[0], methods):
        predict, seconds = timed(regression, method, x, y, seed)
        mean, total, epistemic = predict(grid[:, None])
        for k, alpha in ((2, 0.15), (1, 0.3)):
            axis.fill_between(grid, mean - k * total, mean + k * total, color="#1b5e9b", alpha=alpha, lw=0)
        axis.plot(grid, values, "k--", lw=0.9, label="truth")
        axis.plot(grid, mean, color="#1b5e9b", lw=1.6, label="mean ± 1, 2 total deviations")
        axis.plot(x[:, 0], y, ".", color="#d9770f", ms=4, label="data")
        axis.set(
            title=NAMES[method],
            xlim=curve.shown,
            ylim=(low - 0.6 * (high - low), high + 0.6 * (high - low)),
            xlabel="x",
        )
        m, s, _ = predict(fresh)
        spread = {part: float(epistemic[rows].mean()) for part, rows in parts.items()}
        results[method] = {
            "rmse": rmse(truth, m),
            "nll": gaussian_nll(truth, m, s),
            "epistemic_on_data": spread["data"],
            "gap_over_data": spread["gap"] / max(spread["data"], 1e-12),
            "outside_over_data": spread["outside"] / max(spread["data"], 1e-12),
            "seconds_with_search": seconds,
        }
    handles = axes[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(f"{name}, 120 rows, one hidden layer of 50")
    save_figure(figure, out / f"toy_{name}.png")
    return results


def draw_moons(methods: list[str], seed: int, out: Path) -> dict[str, dict[str, float]]:
    """The picture of the two moons, toy_moons.png; the figures of each method."""
    generator = np.random.default_rng(seed)
    x, y = moons(200, generator)
    fresh, labels = moons(1000, generator)
    across, up = np.linspace(-2.5, 3.5, 90), np.linspace(-2.5, 3, 84)
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    far = np.min(np.linalg.norm(grid[:, None] - x[None], axis=2), axis=1) > 1.5
    figure, axes = new_figure(3, len(methods), 2.6)
    results = {}
    for column, method in enumerate(methods):
        predict, seconds = timed(classification, method, x, y, seed)
        p, total, epistemic = predict(grid)
        rows = (("probability of class 1", p[:, 1], 1.0), ("total entropy", total, np.log(2)))
        for row, (label, field, top) in enumerate((*rows, ("epistemic part", epistemic, np.log(2)))):
            axis = axes[row][column]
            kind = "RdBu_r" if row == 0 else "viridis"
            mesh = axis.pcolormesh(across, up, field.reshape(len(up), -1), cmap=kind, vmin=0, vmax=top, shading="auto")
            if row == 0:
                axis.set_title(NAMES[method])
                axis.contour(across, up, field.reshape(len(up), -1), levels=[0.5], colors="k", linewidths=0.8)
            for c, mark in ((0, "o"), (1, "^")):
                axis.plot(*x[y == c].T, mark, ms=3, mfc="white" if c else "k", mec="k" if c else "white", mew=0.5)
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(label)
            if column == len(methods) - 1:
                figure.colorbar(mesh, ax=axis, shrink=0.8)
        q, fresh_entropy, fresh_information = predict(fresh)
        results[method] = {
            "accuracy": accuracy(labels, q.argmax(axis=1)),
            "nll": categorical_nll(labels, q),
            "entropy_on_data": float(fresh_entropy.mean()),
            "entropy_far": float(total[far].mean()),
            "epistemic_on_data": float(fresh_information.mean()),
            "epistemic_far": float(epistemic[far].mean()),
            "seconds_with_search": seconds,
        }
    figure.suptitle("two moons, 200 rows, one hidden layer of 50 (entropies in nats)")
    save_figure(figure, out / "toy_moons.png")
    return results


def timed(fit: Callable[..., Any], method: str, *arguments: Any) -> tuple[Any, float]:
    start = time.process_time()
    print(f"{method} ...", end=" ", file=sys.stderr, flush=True)
    result = fit(method, *arguments)
    print(f"{time.process_time() - start:.1f} s", file=sys.stderr, flush=True)
    return result, time.process_time() - start


def new_figure(rows: int, columns: int, height: float = 3.2) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * columns, height * rows + 0.4), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def table(name: str, results: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(results.values())))
    lines = [f"## {name}", "", f"![{name}](toy_{name}.png)", "", f"| method | {' | '.join(columns)} |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for method, figures in results.items():
        lines.append(f"| {NAMES[method]} | {' | '.join(f'{figures[c]:.3g}' for c in columns)} |")
    return "\n".join([c.replace("_", " ") if c.startswith("| method") else c for c in lines]) + "\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(DEFAULT), help=f"from: bali, {', '.join(METHODS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    methods = options.methods.split(",")
    unknown = [m for m in methods if m not in ("bali", *METHODS)]
    if unknown:
        parser.error(f"unknown methods: {', '.join(unknown)}")
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    results = {name: draw_curves(name, methods, options.seed, options.out) for name in CURVES}
    results["moons"] = draw_moons(methods, options.seed, options.out)
    command = "python examples/toy.py" + (
        "" if options.methods == ",".join(DEFAULT) else f" --methods {options.methods}"
    )
    head = header(command, [options.seed])
    text = markdown_header(head) + "".join(table(name, figures) for name, figures in results.items())
    (options.out / "toy.md").write_text(text, encoding="utf-8")
    write_json(options.out / "toy.json", {**head, "figures": results})
    print(text)


if __name__ == "__main__":
    main()
