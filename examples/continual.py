"""A stream whose task drifts: BALI with forgetting, without, and left as the first batches made it.

Run: python examples/continual.py [--seeds 3] [--batches 400] [--out DIR]

Batches of 32 rows, x uniform in [−2, 2]², y = sin(1.5 x₁ + a) + ½ x₂ cos a + noise of deviation 0.2. The angle a turns
once over the stream and jumps by 1.5 after five eighths of it. Every model is fitted to the first twenty batches; then
each batch is predicted (the prequential NLL) before it is learnt by one call of partial_fit. No prediction can be
better on average than the noise's entropy, ½ log(2πe 0.2²) = −0.19 nats.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from baselines.report import header, markdown_header, write_json

from balinp import NUMPY, BALIRegressor
from balinp.plots import save_figure

ROWS, FIRST, NOISE = 32, 20, 0.2
MODEL: dict[str, Any] = {"hidden_widths": (50,), "relevance": False, "validation_fraction": 0, "max_iterations": 200}
FROZEN = "frozen after 20 batches"
VARIANTS: dict[str, dict[str, Any]] = {
    FROZEN: {},
    "partial_fit, no forgetting": {},
    "forgetting 0.2": {"forgetting": 0.2},
    "forgetting 0.1": {"forgetting": 0.1},
    "forgetting 0.05": {"forgetting": 0.05},
    "forgetting 0.02": {"forgetting": 0.02},
    "forgetting 0.05, trust region": {"forgetting": 0.05, "settings": {"trust_region": True}},
}
DRAWN = {  # one each, of a dash of its own
    FROZEN: ("0.6", ":"),
    "partial_fit, no forgetting": ("0.45", "--"),
    "forgetting 0.2": ("tab:orange", "-."),
    "forgetting 0.05": ("black", "-"),
}


def stream(batches: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches (x (32, 2), y (32,)) in their order."""
    rng = np.random.default_rng(seed)
    for t in range(batches):
        angle = 2 * np.pi * t / batches + (1.5 if 8 * t >= 5 * batches else 0)
        x = rng.uniform(-2, 2, (ROWS, 2))
        y = np.sin(1.5 * x[:, 0] + angle) + 0.5 * x[:, 1] * np.cos(angle)
        yield x, y + NOISE * rng.standard_normal(ROWS)


def prequential(name: str, batches: int, seed: int) -> np.ndarray:
    """Mean NLL in nats of every batch after the first twenty, predicted before it is learnt."""
    data = list(stream(batches, seed))
    model = BALIRegressor(random_state=seed, **MODEL, **VARIANTS[name])
    model.fit(*(np.concatenate(part) for part in zip(*data[:FIRST])))
    losses = []
    for x, y in data[FIRST:]:
        losses.append(-float(model.predict_distribution(x).log_density(y[:, None], NUMPY).mean()))
        if name != FROZEN:
            model.partial_fit(x, y)
    return np.array(losses)


def figures(losses: np.ndarray, batches: int) -> dict[str, float]:
    """Of losses (seeds, batches after the first twenty): the mean, its standard error over seeds, the median batch, the
    twenty batches from the jump on, the mean of the last hundred."""
    means, jump = losses.mean(axis=1), -(-5 * batches // 8) - FIRST
    spread = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0
    return {
        "mean": float(means.mean()),
        "error": spread,
        "median": float(np.median(losses)),
        "jump": float(losses[:, jump : jump + 20].mean()),
        "last": float(losses[:, -100:].mean()),
    }


def draw(results: dict[str, np.ndarray], path: Path) -> None:
    """Median over seeds of the NLL, smoothed over nine batches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axis = figure.subplots()
    for name, (colour, style) in DRAWN.items():
        values = np.median(results[name], axis=0)
        smooth = [np.median(values[max(0, t - 4) : t + 5]) for t in range(len(values))]
        axis.plot(FIRST + np.arange(len(values)), smooth, style, color=colour, lw=1.6, label=name)
    axis.axhline(0.5 * np.log(2 * np.pi * np.e * NOISE**2), color="0.3", lw=0.8, label="entropy of the noise")
    axis.set(xlabel="batch", ylabel="NLL of the batch before it is learnt (nats per row)")
    axis.set(ylim=(-0.3, 1.5), title="the frozen model leaves the picture above")
    axis.legend(fontsize=8, loc="upper center")
    axis.grid(alpha=0.25)
    save_figure(figure, path)


def table(found: dict[str, dict[str, float]], seeds: int) -> str:
    lines = [
        f"Nats per row, mean ± standard error over {seeds} streams; a memory of 1/forgetting batches.",
        "",
        "| model | NLL | median batch | 20 batches from the jump on | last 100 batches |",
        "|---|---|---|---|---|",
    ]
    for name, f in found.items():
        rest = f"{f['median']:.3f} | {f['jump']:.3f} | {f['last']:.3f} |"
        lines.append(f"| {name} | {f['mean']:.3f} ± {f['error']:.3f} | {rest}")
    return "\n".join([*lines, "", "![NLL over the stream](continual.png)"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="streams (default 3)")
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in VARIANTS:
        results[name] = np.array([prequential(name, options.batches, seed) for seed in range(options.seeds)])
        print(f"{name}: {results[name].mean():.3f}", file=sys.stderr, flush=True)
    found = {name: figures(losses, options.batches) for name, losses in results.items()}
    head = header("python examples/continual.py", list(range(options.seeds)))
    draw(results, options.out / "continual.png")
    (options.out / "continual.md").write_text(markdown_header(head) + table(found, options.seeds), encoding="utf-8")
    write_json(options.out / "continual.json", {**head, "figures": found})
    print(table(found, options.seeds))


if __name__ == "__main__":
    main()
