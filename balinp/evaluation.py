"""A saved model on a table whose targets are known: predictions, measures, pictures, and what to be careful of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom, norm

from .evidence import PRECISION_BOUNDS
from .learning import how_it_ended
from .metrics import auroc, predictive_entropy
from .persistence import load_with_extra
from .plots import (
    plot_band,
    plot_class_uncertainty,
    plot_coverage,
    plot_epistemic_by_layer,
    plot_history,
    plot_predictions,
    plot_reliability,
    plot_roc,
)
from .report import LEVEL, Forecast, forecast
from .schema import Schema
from .table import Table, listed, read_table

MOST_TARGETS = 4  # with pictures of their own
MOST_ROWS = 2_000  # whose uncertainty is split by layer: the shares settle long before


@dataclass(frozen=True)
class Evaluation:
    """A model, a table with its targets, X (n, inputs), y as Schema.target gives it, and the measured predictions."""

    model: Any
    schema: Schema
    table: Table
    X: np.ndarray
    y: np.ndarray
    forecast: Forecast

    @property
    def regression(self) -> bool:
        return self.schema.task == "regression"


def evaluate(model_path: str | Path, table_path: str | Path) -> Evaluation:
    """The model written by ``balinp fit --out``, measured on a table that has its columns and targets.

    Raises InvalidArgumentError or ModelFileError naming the file, the line, the column and the remedy.
    """
    model, extra = load_with_extra(model_path)
    schema = Schema.from_json(extra)
    schema.check_model(model)
    table = read_table(table_path, schema.text_columns)
    X, y = schema.encode(table), schema.target(table)
    return Evaluation(model, schema, table, X, y, forecast(model, X, schema.targets, y))


def scores(e: Evaluation, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """How foreign the rows of e and of another table look, (n,) and (m,): the epistemic deviation over the deviation of
    the target, its root mean square over targets; for classes the entropy."""

    def score(f: Forecast) -> np.ndarray:
        if not e.regression:
            return predictive_entropy(f.probabilities)
        several = len(e.schema.targets) > 1
        names = [f"epistemic_std_{t}" if several else "epistemic_std" for t in e.schema.targets]
        relative = np.stack([f.columns[name] for name in names], axis=1) / e.model.y_scaler_.scale
        return np.sqrt(np.mean(relative**2, axis=1))

    return score(e.forecast), score(forecast(e.model, e.schema.encode(table), e.schema.targets))


def foreign_auroc(e: Evaluation, table: Table) -> float:
    """The area under the ROC of ``scores``: 1 when every row of ``table`` looks more foreign, ½ when no more than
    those of e."""
    return auroc(*scores(e, table))


def cautions(e: Evaluation) -> list[str]:
    """What a reader of the predictions should know, a sentence each; none: nothing was noticed."""
    return [*extrapolations(e.schema, e.table), *(_coverage(e) if e.regression else _confidence(e)), *_fit(e)]


def extrapolations(schema: Schema, table: Table) -> Iterator[str]:
    """A sentence if rows of ``table`` lie outside the range of the fit."""
    outside = schema.outside(table)
    rows = np.zeros(len(table), dtype=bool)
    for where in outside.values():
        rows |= where
    if rows.any():
        lines = ", ".join(str(line) for line in table.lines[rows][:5])
        yield (
            f"Extrapolation: {rows.sum()} of {len(rows)} rows lie outside the range of the fit in "
            f"{listed(list(outside))} (lines {lines}{', …' if rows.sum() > 5 else ''} of the table). "
            f"Expect larger errors there than the deviations say; fit again with such rows if you can."
        )


def _coverage(e: Evaluation) -> Iterator[str]:
    n, measures = len(e.table), e.forecast.measures or {}
    low, high = (float(binom.ppf(q, n, LEVEL)) / n for q in (0.005, 0.995))
    for name, share in measures["coverage_90"].items():
        if not low <= share <= high:
            kind, remedy = ("small", "too confident") if share < low else ("large", "too cautious")
            seen = "" if share < low else "; or it has seen these rows, which then say little of others"
            yield (
                f"Poor calibration: the 90 % intervals of {name!r} hold {share:.1%} of the {n} rows; of a calibrated "
                f"model they would hold {low:.1%} to {high:.1%} in 99 of 100 tables. The deviations are too {kind}: "
                f"the model is {remedy} on this table{seen}."
            )


def _confidence(e: Evaluation) -> Iterator[str]:
    p: Any = e.forecast.probabilities
    confidence = p.max(axis=1)
    right, spread = p.argmax(axis=1) == e.forecast.labels, float(np.sqrt(np.sum(confidence * (1 - confidence))))
    z = float(np.sum(right - confidence)) / max(spread, 1e-12)
    if abs(z) > norm.isf(0.005):
        word = "too confident" if z < 0 else "too cautious"
        yield (
            f"Poor calibration: the model is {word}: it is right in {right.mean():.1%} of the rows and its mean "
            f"confidence is {confidence.mean():.1%}, which is {abs(z):.1f} standard errors apart."
        )


def _fit(e: Evaluation) -> Iterator[str]:
    if how_it_ended(e.model) == "not converged":
        yield (
            f"Not converged: the fit ended after {e.model.n_iter_} iterations, before its training loss stopped "
            f"falling. Fit again with a larger --max-iterations."
        )
    low, high = PRECISION_BOUNDS
    for number, layer in enumerate(e.model.state_.layers, 1):
        if not 2 * low < layer.prior_precision < high / 2:
            yield (
                f"Prior precision at its bound: that of layer {number} is {layer.prior_precision:.3g} (bounds "
                f"{low:g} and {high:g}): the layer found nothing to learn, or nothing that holds its weights. Look for "
                f"targets that do not depend on the inputs, or that are an exact function of them."
            )


def pictures(e: Evaluation, other: Table | None = None) -> list[tuple[str, Callable[[Any], Any]]]:
    """(caption, function that draws on the axes it gets, or on new ones for None) of every picture that fits the task,
    the number of inputs and the model; ``other``: rows of another kind, for an ROC."""
    return [*_over_inputs(e), *(_of_values(e) if e.regression else _of_classes(e)), *_foreign(e, other), *_of_fit(e)]


Pictures = Iterator[tuple[str, Callable[[Any], Any]]]


def _over_inputs(e: Evaluation) -> Pictures:
    """The band, for one number as input and one target, or the plane of two numbers."""
    names = [c.name for c in e.schema.columns if c.categories is None]
    if e.schema.inputs != len(names):
        return
    if not e.regression and len(names) == 2:
        yield (
            "Uncertainty over the two inputs; black lines: borders of the classes",
            lambda ax: plot_class_uncertainty(e.model, e.X, e.y, (names[0], names[1]), ax=ax),
        )
    if e.regression and len(names) == len(e.schema.targets) == 1:
        x = e.X[:, 0]
        pad = 0.25 * (float(np.ptp(x)) or 1.0)
        grid = np.linspace(x.min() - pad, x.max() + pad, 300)
        columns = forecast(e.model, grid[:, None], e.schema.targets).columns
        mean, aleatoric, epistemic = (columns[k] for k in ("mean", "aleatoric_std", "epistemic_std"))
        axes_names = (names[0], e.schema.targets[0])
        yield (
            "Prediction over the input",
            lambda ax: plot_band(grid, mean, aleatoric, epistemic, (x, e.y), axes_names, LEVEL, ax),
        )


def _of_values(e: Evaluation) -> Pictures:
    mean: Any = e.forecast.mean
    std: Any = e.forecast.std
    truth = e.y.reshape(len(e.y), -1)
    for k, name in enumerate(e.schema.targets[:MOST_TARGETS]):
        values = (truth[:, k], mean[:, k], std[:, k], name)
        yield f"Predicted against true {name}, with 90 % intervals", partial(_on, plot_predictions, *values)
        yield f"How many rows the intervals of {name} hold", partial(_on, plot_coverage, *values)


def _of_classes(e: Evaluation) -> Pictures:
    f = e.forecast
    yield "How often the model is right, by its confidence", partial(_on, plot_reliability, f.labels, f.probabilities)


def _foreign(e: Evaluation, other: Table | None) -> Pictures:
    if other is not None:
        names = (Path(e.table.path).name, Path(other.path).name)
        kind = "epistemic deviation" if e.regression else "entropy"
        yield "Does the uncertainty tell foreign rows apart?", partial(_on, plot_roc, *scores(e, other), names, kind)


def _of_fit(e: Evaluation) -> Pictures:
    if len(e.model.state_.layers) > 1 and not e.model.predicts_jointly():  # of the joint posterior there is no split
        unit = ("target" if len(e.schema.targets) > 1 else e.schema.targets[0]) if e.regression else "logit"
        split = copy.copy(e.model).set_params(predictive="linearized").predict_distribution(e.X[:MOST_ROWS])
        yield (
            "Which layer's weights the epistemic uncertainty comes from",
            partial(_on, plot_epistemic_by_layer, split, unit),
        )
    if e.model.history_:
        yield "Negative log-likelihood over the fit", partial(_on, plot_history, e.model.history_)


def _on(plot: Callable[..., Any], *arguments: Any) -> Any:
    """``plot`` of the arguments on the axes that come last."""
    return plot(*arguments[:-1], ax=arguments[-1])
