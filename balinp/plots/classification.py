"""Pictures of class probabilities: reliability, the ROC of a score, uncertainty over two inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidArgumentError
from ..metrics import auroc, predictive_entropy
from .canvas import BLUE, axes_or_new, legend

_MARKERS = "osD^vP*X<>"


def plot_reliability(labels: Any, probabilities: Any, bins: int = 10, ax: Any = None) -> Any:
    """Share of right predictions against confidence, by equal-width bins of confidence, with the rows in each.

    labels (n,) index the columns of probabilities (n, K). The bars reach one binomial standard error of a share, with
    one right and one wrong row added, so that a bin of few rows does not look certain.
    """
    axes, p = axes_or_new(ax), np.asarray(probabilities)
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
    bars = axes.errorbar(x, share, yerr=reach, fmt="o", color=BLUE, mfc="white", capsize=3)
    bars.set_label("rows ± 1 std. error, with their number")
    for xi, si, ni in zip(x, share, n):
        axes.annotate(
            f"{ni}", (xi, si), (-6, -5), textcoords="offset points", ha="right", va="top", fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    axes.set(
        xlabel="confidence (probability of the predicted class)", ylabel="share predicted right", ylim=(-0.04, 1.04)
    )
    axes.set_xlim(max(0, low - 0.04), 1.04)
    legend(axes, [line, bars])
    return axes


def plot_roc(
    negative_scores: Any,
    positive_scores: Any,
    names: tuple[str, str] = ("in", "out"),
    label: str = "score",
    ax: Any = None,
) -> Any:
    """The ROC curve of a score that should be higher for the second set of rows than for the first.

    Scores (n,) and (m,), e.g. epistemic deviations or entropies of known and of foreign rows. The legend has the area.
    """
    axes, negative, positive = axes_or_new(ax), np.ravel(negative_scores), np.ravel(positive_scores)
    at = np.unique(np.concatenate([negative, positive]))[::-1]
    shares = [
        np.concatenate([[0], 1 - np.searchsorted(np.sort(scores), at, side="left") / len(scores)])
        for scores in (negative, positive)
    ]
    area = auroc(negative, positive)
    axes.plot(*shares, "-", color=BLUE, lw=1.8, label=f"{label} (area {area:.3f})")
    axes.plot([0, 1], [0, 1], "k--", lw=1, label="chance")
    axes.set(
        xlabel=f"share of {names[0]!r} rows above the threshold", ylabel=f"share of {names[1]!r} rows above it",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
    )  # fmt: skip
    legend(axes)
    return axes


def plot_class_uncertainty(
    model: Any,
    X: Any,
    y: Any,
    names: tuple[str, str] = ("first input", "second input"),
    points: int = 120,
    ax: Any = None,
) -> Any:
    """Entropy of the class probabilities over two inputs, the borders between classes, and the rows X (n, 2), y (n,).

    ``model``: a fitted BALIClassifier of two inputs. Darker is less certain. Raises InvalidArgumentError for another
    number of inputs.
    """
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y)
    if X.ndim != 2 or X.shape[1] != 2:
        raise InvalidArgumentError(f"X must have two columns to be drawn in a plane, got shape {X.shape}")
    axes, classes = axes_or_new(ax), model.classes_
    low, high = X.min(axis=0), X.max(axis=0)
    pad = 0.35 * np.where(high > low, high - low, 1)
    u, v = (np.linspace(a, b, points) for a, b in zip(low - pad, high + pad))
    grid = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    p = np.asarray(model.predict_proba(grid.astype(X.dtype)))
    entropy = (predictive_entropy(p) / np.log(len(classes))).reshape(points, points)
    axes.grid(visible=False)
    shades = axes.contourf(u, v, entropy, levels=np.linspace(0, 1, 11), cmap="Greys", alpha=0.8, vmax=1.3)
    axes.figure.colorbar(shades, ax=axes, label="entropy / its largest value", shrink=0.85)
    for k in range(len(classes) if len(classes) > 2 else 1):
        rest = np.delete(p, k, axis=1).max(axis=1)
        axes.contour(u, v, (p[:, k] - rest).reshape(points, points), levels=[0], colors="black", linewidths=1.2)
    few = len(X) <= 300
    for k, label in enumerate(classes):
        rows = y == label
        axes.plot(
            X[rows, 0], X[rows, 1], _MARKERS[k % len(_MARKERS)], ms=5 if few else 3, mew=0.8,
            mfc=("white", "0.3", f"C{k // 3}")[k % 3], mec="black", label=str(label),
        )  # fmt: skip
    axes.set(xlabel=names[0], ylabel=names[1])
    legend(axes, columns=4)
    return axes
