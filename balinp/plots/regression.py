"""Pictures of predicted numbers: the band in one dimension, predicted against true, the coverage of intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtri

from ..errors import InvalidArgumentError
from .canvas import BLUE, axes_or_new, legend


def plot_band(
    x: Any,
    mean: Any,
    aleatoric_std: Any,
    epistemic_std: Any,
    data: tuple[Any, Any] | None = None,
    names: tuple[str, str] = ("x", "y"),
    level: float = 0.9,
    ax: Any = None,
) -> Any:
    """The predictive mean over one input, with central normal intervals of probability ``level``.

    x, mean and the deviations (n,), in the units of the data, in any order. Hatched: of the mean, by epistemic
    uncertainty alone; within the dashed lines: of y, both together. ``data``, a pair like (x, y), as points. Raises
    InvalidArgumentError when x has more than one dimension.
    """
    x, mean = np.asarray(x), np.asarray(mean)
    if x.ndim != 1 or x.shape != mean.shape:
        raise InvalidArgumentError(f"x and mean must be of one shape (n,), got {x.shape} and {mean.shape}")
    axes, order, z = axes_or_new(ax), np.argsort(x, kind="stable"), float(ndtri((1 + level) / 2))
    x, mean = x[order], mean[order]
    epistemic = np.asarray(epistemic_std)[order]
    total = np.hypot(np.asarray(aleatoric_std)[order], epistemic)
    axes.fill_between(
        x, mean - z * total, mean + z * total, facecolor="#dfe7ef", edgecolor="none", label=f"y: {level:.0%} interval"
    )
    for sign in (-1, 1):
        axes.plot(x, mean + sign * z * total, "--", color=BLUE, lw=0.9)
    axes.fill_between(
        x, mean - z * epistemic, mean + z * epistemic, facecolor="#9db9d4", edgecolor=BLUE, lw=0.6, hatch="////",
        label="mean: epistemic alone",
    )  # fmt: skip
    axes.plot(x, mean, "-", color="black", lw=1.6, label="mean")
    if data is not None:
        few = len(np.asarray(data[0])) <= 300
        axes.plot(
            *map(np.asarray, data), "o", ms=3.5 if few else 2, mfc="white", mec="black", mew=0.8, label="data", zorder=3
        )
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.margins(x=0)
    legend(axes)
    return axes


def plot_predictions(y: Any, mean: Any, std: Any, name: str = "target", level: float = 0.9, ax: Any = None) -> Any:
    """Predicted against true values with central normal intervals of probability ``level``.

    y, mean and std (the total deviation) (n,), in the units of the target.
    """
    axes = axes_or_new(ax)
    y, mean, half = np.asarray(y), np.asarray(mean), float(ndtri((1 + level) / 2)) * np.asarray(std)
    few = len(y) <= 300  # where points overlap, thinner and paler marks still show their density
    bars = {"elinewidth": 1.1 if few else 0.5, "capsize": 2.5 if few else 0, "alpha": 1.0 if few else 0.4}
    axes.errorbar(
        y, mean, yerr=half, fmt="o", ms=4 if few else 2, mfc="white", mec=BLUE, ecolor=BLUE, **bars,
        label=f"{len(y)} rows, {level:.0%} interval",
    )  # fmt: skip
    low, high = min(y.min(), (mean - half).min()), max(y.max(), (mean + half).max())
    axes.plot([y.min(), y.max()], [y.min(), y.max()], "k--", lw=1, label="predicted = true", zorder=3)
    axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    legend(axes)
    return axes


def plot_coverage(y: Any, mean: Any, std: Any, name: str = "target", ax: Any = None) -> Any:
    """Share of rows inside their central normal interval against the interval's probability.

    y, mean and std (the total deviation) (n,). Below the dashed line the deviations are too small, above it too large.
    The band is where 99 of 100 calibrated models lie at each probability: binomial, n rows.
    """
    axes = axes_or_new(ax)
    from scipy.stats import binom, norm

    y, mean, std = np.asarray(y), np.asarray(mean), np.asarray(std)
    inside = np.sort(2 * norm.cdf(np.abs(y - mean) / std) - 1)  # the probability of the interval that y lies on
    level = np.linspace(0, 1, 101)
    low, high = (binom.ppf(q, len(y), level) / len(y) for q in (0.005, 0.995))
    axes.fill_between(
        level, np.maximum(low, 0), high, facecolor="#e6e6e6", edgecolor="#8a8a8a", lw=0.5, hatch="....",
        label="99 % of calibrated models",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], "k--", lw=1, label="calibrated")
    share = np.arange(len(y) + 1) / len(y)
    axes.step([*inside, 1], share, "-", where="pre", color=BLUE, lw=1.8, label=f"{len(y)} rows")
    for at in (0.5, 0.9):
        axes.plot(at, np.mean(inside <= at), "o", mfc="white", mec=BLUE, ms=6)
        axes.annotate(f"{np.mean(inside <= at):.2f}", (at, np.mean(inside <= at)), (7, -12), textcoords="offset points")
    axes.set(xlabel="probability of the interval", ylabel=f"share of rows inside, {name}", xlim=(0, 1), ylim=(0, 1.02))
    legend(axes)
    return axes
