"""What the command says of a model: predictions column by column, measures of them, and both as text."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from scipy.special import ndtri

from . import metrics
from .backend import NUMPY
from .classifier import BALIClassifier
from .errors import InvalidArgumentError
from .predictive import Predictive
from .regressor import BALIRegressor
from .table import listed

LEVEL = 0.9  # of the intervals
_BLOCK = 16 * 1024  # rows predicted at once; a multiple of the predictive's own block, so that the bits are the same


@dataclass(frozen=True)
class Forecast:
    """Predictions of a table and, where the truth is known, their measures.

    columns: name → (n,), in the order to write them. regression: mean and std (the total one) (n, targets);
    classification: labels (n,), the index of the true class, if known, and probabilities (n, K).
    """

    columns: dict[str, np.ndarray]
    measures: dict[str, Any] | None
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    labels: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def forecast(estimator: Any, X: np.ndarray, targets: Sequence[str], y: np.ndarray | None = None) -> Forecast:
    """Predictions of a fitted estimator at X (n, d), measured against y, shaped as at fit, if given.

    Measures: nll (nats per row) and rmse, coverage_90 by target, or accuracy and calibration_error. Raises
    InvalidArgumentError for a label in y that is no class of the model.
    """
    if isinstance(estimator, BALIClassifier):
        return _classes(estimator, X, targets[0], y)
    return _values(estimator, X, targets, y)


def _values(model: BALIRegressor, X: np.ndarray, targets: Sequence[str], y: np.ndarray | None) -> Forecast:
    parts: list[tuple[np.ndarray, ...]] = []
    density = []
    truth = None if y is None else y.reshape(len(X), -1)
    for rows, p in _predictives(model, X):
        variances = (np.diagonal(c, axis1=1, axis2=2) for c in (p.aleatoric, p.epistemic, p.covariance))
        parts.append((p.mean, *map(np.sqrt, variances)))
        if truth is not None:
            with np.errstate(over="ignore", divide="ignore"):  # a hopeless target has density 0, and an infinite NLL
                density.append(p.log_density(truth[rows], NUMPY))
    mean, aleatoric, epistemic, total = (np.concatenate(part) for part in zip(*parts))
    half = ndtri((1 + LEVEL) / 2) * total
    kinds = {"mean": mean, "aleatoric_std": aleatoric, "epistemic_std": epistemic, "total_std": total}
    kinds |= {"lower_90": mean - half, "upper_90": mean + half}
    several = len(targets) > 1
    columns = {
        f"{kind}_{name}" if several else kind: values[:, k]
        for k, name in enumerate(targets)
        for kind, values in kinds.items()
    }
    measures: dict[str, Any] | None = None
    if truth is not None:
        each = [(name, truth[:, k], mean[:, k], total[:, k]) for k, name in enumerate(targets)]
        with np.errstate(over="ignore"):
            measures = {
                "nll": -float(np.concatenate(density).mean()),
                "rmse": {name: metrics.rmse(t, m) for name, t, m, _ in each},
                "coverage_90": {name: metrics.interval_coverage(t, m, s, LEVEL) for name, t, m, s in each},
            }
    return Forecast(columns, measures, mean=mean, std=total)


def _classes(model: BALIClassifier, X: np.ndarray, target: str, y: np.ndarray | None) -> Forecast:
    p = np.concatenate([each.probabilities for _, each in _predictives(model, X)])
    columns = {"predicted": model.classes_[p.argmax(axis=1)]}
    columns |= {f"probability_{label}": p[:, k] for k, label in enumerate(model.classes_)}
    columns["entropy"] = metrics.predictive_entropy(p)
    if y is None:
        return Forecast(columns, None, probabilities=p)
    unknown = np.setdiff1d(y, model.classes_)
    if len(unknown):
        raise InvalidArgumentError(
            f"column {target!r} has the label {str(unknown[0])!r}, which the model was not fitted on (its classes: "
            f"{listed([str(label) for label in model.classes_])}); correct it, or fit again with rows of it"
        )
    labels = np.searchsorted(model.classes_, y)
    measures = {
        "nll": metrics.categorical_nll(labels, p),
        "accuracy": metrics.accuracy(labels, p.argmax(axis=1)),
        "calibration_error": metrics.calibration_error(labels, p),
    }
    return Forecast(columns, measures, labels=labels, probabilities=p)


def _predictives(model: Any, X: np.ndarray) -> Iterator[tuple[slice, Predictive]]:
    for start in range(0, len(X), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield rows, model.predict_distribution(X[rows])


def measure_rows(measures: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of a table: what is measured, then its value in each of ``measures``."""
    words = {
        "nll": "NLL (nats per row)",
        "rmse": "RMSE",
        "coverage_90": "90 % interval coverage",
        "accuracy": "accuracy",
        "calibration_error": "calibration error",
    }
    rows = []
    for key, first in measures[0].items():
        if isinstance(first, dict):
            for name in first:
                label = words[key] if len(first) == 1 else f"{words[key]}, {name}"
                rows.append((label, *(number(m[key][name]) for m in measures)))
        else:
            rows.append((words[key], *(number(m[key]) for m in measures)))
    return rows


def number(value: float) -> str:
    """Four significant digits, trailing zeros kept so that columns line up."""
    return f"{value:#.4g}".rstrip(".")


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as lines: labels to the left in one column, numbers to the right in columns; a last, long text runs free."""
    label = max(len(row[0]) for row in rows)
    cells = [len(cell) for row in rows if len(row) > 2 for cell in row[1:]]
    width = max([*cells, 8])
    lines = []
    for first, *rest in rows:
        values = "  ".join(f"{cell:>{width}}" for cell in rest) if len(rest) > 1 else "".join(rest)
        lines.append(f"{first:<{label}}  {values}".rstrip())
    return "\n".join(lines)


def say(text: str) -> None:
    """Print a report; names that the terminal has no letters for are escaped, since the work is done already."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def plain(value: Any) -> Any:
    """A JSON value without NaN or infinity, which JSON has no word for: they become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not isfinite(value) else value
