"""Pictures of a fit itself: the loss over iterations, the layers' shares of epistemic uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError
from ..predictive import Predictive
from ..training import IterationRecord
from .canvas import BLUE, ORANGE, axes_or_new, legend

_HATCHES = ("////", "....", "xxxx", "----", "++++", "oooo")


def plot_history(history: Sequence[IterationRecord], ax: Any = None) -> Any:
    """Training and, where it was watched, test NLL in nats per row over iterations, on a logarithmic axis.

    A line marks the end of the warm-up (and of joint steps) if there was one. From there weights are drawn, where they
    are at all: a draw's loss is above that of the means, and both losses jump.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes = axes_or_new(ax)
    iterations = [record.iteration for record in history]
    lone = "o" if len(history) == 1 else ""
    axes.plot(
        iterations, [r.train_nll for r in history], "-" + lone, color=BLUE, lw=1, label="train (at sampled weights)"
    )
    at_means = sum(record.temperature == 0 for record in history)  # a record has the temperature of what comes next
    if 0 < at_means < len(history) - 1:
        axes.axvline(iterations[at_means], color="0.4", ls=":", lw=1, label="end of the warm-up")
    if history[0].test_nll is not None:
        axes.plot(iterations, [r.test_nll for r in history], "--" + lone, color=ORANGE, lw=1.8, label="test (10 draws)")
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
    legend(axes)
    return axes


def plot_epistemic_by_layer(predictive: Predictive, unit: str = "", ax: Any = None) -> Any:
    """Epistemic variance of each layer's weights: its mean over the rows, the line from the 5th to the 95th percentile.

    ``predictive``: of predict_distribution with predictive="linearized"; several outputs are summed. ``unit`` of the
    target, for the axis. Raises InvalidArgumentError for a Monte-Carlo predictive, which has no split.
    """
    parts = predictive.epistemic_by_layer
    if parts is None:
        raise InvalidArgumentError(
            "a Monte-Carlo predictive has no split by layer; call model.set_params(predictive='linearized') before "
            "predict_distribution"
        )
    axes = axes_or_new(ax)
    variance = np.trace(np.asarray(parts), axis1=2, axis2=3)  # (L, n)
    mean, (low, high) = variance.mean(axis=1), np.percentile(variance, [5, 95], axis=1)
    for l, height in enumerate(mean):
        axes.bar(l + 1, height, 0.6, facecolor="white", edgecolor=BLUE, hatch=_HATCHES[l % len(_HATCHES)])
        axes.annotate(
            f"{height / mean.sum() if mean.sum() > 0 else 0:.0%}",
            (l + 1.05, height),
            (3, 3),
            textcoords="offset points",
        )
    axes.vlines(np.arange(len(mean)) + 1, low, high, colors="black", lw=1.5, label="5 % to 95 % of the rows")
    axes.set_xticks(range(1, len(mean) + 1))
    axes.set(xlabel="layer (1 is next to the inputs)", ylabel=f"epistemic variance{f' ({unit}²)' if unit else ''}")
    axes.set_ylim(0, 1.1 * max(float(high.max()), float(mean.max())) or 1)
    legend(axes)
    return axes
