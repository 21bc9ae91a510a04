"""Pictures of a fit. Functions draw on given axes and return them; matplotlib (extra ``plot``) is imported on use.

Marks differ in shape and line style, not in colour alone, so that they can be told apart in black and white.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InvalidArgumentError
from .files import write_atomically
from .training import IterationRecord

_BLUE, _ORANGE, _MOST_PANELS = "#1b5e9b", "#d9770f", 4


def check_picture(path: str | Path) -> None:
    """Raises InvalidArgumentError when matplotlib is not installed or does not write files named like ``path``."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidArgumentError("a picture needs matplotlib: pip install 'balinp[plot]'")
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if _format(path) not in known:
        raise InvalidArgumentError(f"a picture named {path} cannot be written; end its name in one of {known}")


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a matplotlib Figure; the file appears whole or not at all. Raises ModelFileError naming the path."""
    write_atomically(path, lambda file: figure.savefig(file, format=_format(path), dpi=150))


def plot_predictions(axes: Any, y: Any, mean: Any, std: Any, name: str = "target", level: float = 0.9) -> Any:
    """Predicted against true values with central normal intervals of probability ``level``.

    y, mean and std (the total deviation) (n,), in the units of the target.
    """
    from scipy.special import ndtri

    y, mean, half = np.asarray(y), np.asarray(mean), float(ndtri((1 + level) / 2)) * np.asarray(std)
    few = len(y) <= 300  # where points overlap, thinner and paler marks still show their density
    bars = {"elinewidth": 1.1 if few else 0.5, "capsize": 2.5 if few else 0, "alpha": 1.0 if few else 0.4}
    axes.errorbar(
        y, mean, yerr=half, fmt="o", ms=4 if few else 2, mfc="white", mec=_BLUE, ecolor=_BLUE, **bars,
        label=f"test rows ({len(y)}), {level:.0%} interval",
    )  # fmt: skip
    low, high = min(y.min(), (mean - half).min()), max(y.max(), (mean + half).max())
    axes.plot([y.min(), y.max()], [y.min(), y.max()], "k--", lw=1, label="predicted = true", zorder=3)
    axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    _legend(axes)
    return axes


def plot_reliability(axes: Any, labels: Any, probabilities: Any, bins: int = 10) -> Any:
    """Share of right predictions against confidence, by equal-width bins of confidence, with the rows in each.

    labels (n,) index the columns of probabilities (n, K). The bars reach one binomial standard error of a share, with
    one right and one wrong row added, so that a bin of few rows does not look certain.
    """
    p = np.asarray(probabilities)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == np.asarray(labels)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    n = count[filled]
    x = np.bincount(index, weights=confidence, minlength=bins)[filled] / n
    share = np.bincount(index, weights=right, minlength=bins)[filled] / n
    smooth = (share * n + 1) / (n + 2)
    error = np.sqrt(smooth * (1 - smooth) / (n + 2))
    reach = [np.maximum(share - np.maximum(smooth - error, 0), 0), np.maximum(np.minimum(smooth + error, 1) - share, 0)]
    low = 1 / p.shape[1]
    (line,) = axes.plot([low, 1], [low, 1], "k--", lw=1, label="calibrated")
    bars = axes.errorbar(x, share, yerr=reach, fmt="o", color=_BLUE, mfc="white", capsize=3)
    bars.set_label("test rows ± 1 std. error, with their number")
    for xi, si, ni in zip(x, share, n):
        axes.annotate(
            f"{ni}", (xi, si), (-6, -5), textcoords="offset points", ha="right", va="top", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    axes.set(
        xlabel="confidence (probability of the predicted class)", ylabel="share predicted right", ylim=(-0.04, 1.04)
    )
    axes.set_xlim(max(0, low - 0.04), 1.04)
    _legend(axes, [line, bars])
    return axes


def plot_history(axes: Any, history: Sequence[IterationRecord]) -> Any:
    """Training and, where it was watched, test NLL in nats per row over iterations, on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    iterations = [record.iteration for record in history]
    lone = "o" if len(history) == 1 else ""
    axes.plot(
        iterations, [r.train_nll for r in history], "-" + lone, color=_BLUE, lw=1, label="train (at sampled weights)"
    )
    if history[0].test_nll is not None:
        axes.plot(
            iterations, [r.test_nll for r in history], "--" + lone, color=_ORANGE, lw=1.8, label="test (10 draws)"
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    values = np.array([(r.train_nll, r.train_nll if r.test_nll is None else r.test_nll) for r in history])
    start = len(values) // 20  # the first losses can be a hundred times the last ones: then they are left out
    low, high = float(values.min()), float(values[start:].max())
    if values.max() > low + 3 * (high - low):
        axes.set_xlim(iterations[start] * 0.95, iterations[-1] * 1.05)
    else:
        start, high = 0, float(values.max())
    axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    left_out = f", the first {iterations[start - 1]} left out" if start else ""
    axes.set(xlabel=f"iteration (log scale{left_out})", ylabel="negative log-likelihood (nats per row)")
    _legend(axes)
    return axes


def regression_figure(
    names: Sequence[str], y: Any, mean: Any, std: Any, history: Sequence[IterationRecord], title: str = ""
) -> Any:
    """A Figure: predicted against true for each target (four at most), then NLL over iterations.

    y, mean and std (n, targets), in the units of the targets.
    """
    panels = min(len(names), _MOST_PANELS)
    figure, axes = _figure(panels + 1, title)
    for k in range(panels):
        plot_predictions(axes[k], np.asarray(y)[:, k], mean[:, k], std[:, k], names[k])
    plot_history(axes[-1], history)
    return figure


def classification_figure(labels: Any, probabilities: Any, history: Sequence[IterationRecord], title: str = "") -> Any:
    """A Figure: the reliability diagram of labels (n,) and probabilities (n, K), then NLL over iterations."""
    figure, axes = _figure(2, title)
    plot_reliability(axes[0], labels, probabilities)
    plot_history(axes[1], history)
    return figure


def _figure(panels: int, title: str) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(5.2 * panels, 4.4), layout="constrained")
    if title:
        figure.suptitle(title.replace("$", r"\$"))
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for each in axes:
        each.grid(alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _legend(axes: Any, handles: list[Any] | None = None) -> None:
    """The legend above the axes, where it hides no data."""
    handles = axes.get_legend_handles_labels()[0] if handles is None else handles
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)


def _format(path: str | Path) -> str:
    return Path(path).suffix.lower().lstrip(".")
