"""Few rows for the inputs: what fits see of them, and that predictions are as sure as they may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from balinp import (
    MLP,
    BALIClassifier,
    BALIRegressor,
    Gaussian,
    LayerStatistics,
    Prior,
    Settings,
    layer_posterior,
    predict_linearized,
)
from balinp.metrics import interval_coverage
from balinp.relevance import LEAST, input_relevance
from balinp.testing import assert_residual, comparison_residual, condition_number
from balinp.trial import Trial
from balinp.wide import InputMaps, Span, is_wide

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
QUICK = {"max_iterations": 20, "random_state": 0}


def with_ones(x):
    return np.column_stack([x, np.ones(len(x))])


@pytest.mark.equation("eq:input-span")
@pytest.mark.parametrize("rank", [5, 12])
@pytest.mark.parametrize("inputs", [12, 40])
def test_the_span_tells_all_that_the_inputs_tell(rank, inputs):
    """The predictive of a layer in coordinates of the span is that in the inputs, at new rows and at the layer's own,
    with the prior that belongs to it: in the inputs that of the span over c², for the bias the same."""
    rng = np.random.default_rng(rank + inputs)
    x = rng.standard_normal((12, rank)) @ rng.standard_normal((rank, inputs))
    targets, new = rng.standard_normal((12, 2)), np.vstack([rng.standard_normal((6, inputs)), x[:3]])
    span = Span.of_rows(x)
    assert span.inputs == rank + 1
    assert span.unit**2 * inputs == pytest.approx(rank + 1, rel=1e-12)
    assert_residual(comparison_residual(span.basis.T @ span.basis, np.eye(rank), size=inputs), "VᵀV", "eq:input-span")
    noise, pi = np.diag([0.5, 2.0]), 3.0
    flat = np.full(inputs, pi / span.unit**2)
    priors = [
        Prior(np.zeros((inputs + 1, 2)), np.diag(np.append(flat, pi))),
        Prior(np.zeros((rank + 2, 2)), pi * np.eye(rank + 2)),
    ]
    seen = [(x, new), tuple(span.transform(rows, np.float64) for rows in (x, new))]
    predictives, kappa = [], 1.0
    for prior, (known, asked) in zip(priors, seen):
        q = layer_posterior(LayerStatistics.from_batch(with_ones(known), targets), prior, noise)
        a = with_ones(asked)
        predictives.append((a @ q.mean, np.sum(a * np.linalg.solve(q.row_precision, a.T).T, axis=1)))
        kappa = max(kappa, condition_number(q.row_precision))
    for name, one, other in zip(("mean", "a P⁻¹ aᵀ"), *predictives):
        assert_residual(comparison_residual(one, other, kappa, size=12 + inputs), name, "eq:input-span")
    weights = rng.standard_normal((rank + 1, 3))
    inside = span.transform(x, np.float64) @ weights
    ratio = comparison_residual(x @ span.weights(weights), inside, 1 + inputs, size=inputs)
    assert_residual(ratio, "weights of the inputs", "eq:input-span")


@pytest.mark.equation("eq:input-span")
def test_rows_of_the_fit_are_in_the_span_and_others_are_not():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 9)).astype(np.float32)
    span = Span.of_rows(x)
    assert not np.any(span.transform(x, np.float64)[:, -1])
    other = rng.standard_normal((5, 9))
    z = span.transform(other, np.float64)
    assert np.all(z[:, -1] > 0.1)
    assert np.linalg.norm(z, axis=1) == pytest.approx(span.unit * np.linalg.norm(other, axis=1), rel=1e-12)
    assert span.transform(x, np.float32).dtype == np.float32
    none = Span.of_rows(np.zeros((3, 4)))
    assert none.inputs == 1
    assert none.transform(np.ones((1, 4)), np.float64) == pytest.approx(1)


def test_wide_is_at_most_twice_as_many_rows_as_inputs_under_a_prior_in_proportion_to_them():
    tall, wide = Settings(), Settings.preset("classification")
    assert [is_wide(np.zeros(shape), tall) for shape in ((3, 4), (8, 4), (9, 4))] == [True, True, False]
    assert is_wide(np.zeros((3, 4)), wide)
    assert not is_wide(np.zeros((3, 4)), Settings(prior="tied"))
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6, 9)), rng.standard_normal(6)
    for model in (BALIRegressor(preset="literal", **QUICK), BALIClassifier(preset="literal", **QUICK)):
        assert model.fit(X, y > 0).x_span_ is None, "that preset is the abstract and no more"


@pytest.mark.equation("eq:input-span")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", [BALIRegressor, BALIClassifier])
def test_rows_that_span_all_inputs_are_seen_as_they_are(kind, dtype):
    """Of 15 rows of nine inputs there is a span to speak of only if inputs hang together, as indicators do."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((15, 9)).astype(dtype), rng.integers(0, 2, 15)
    assert Span.if_part(X) is None
    model = kind((3,), **QUICK).fit(X, y)
    assert model.x_span_ is None
    assert model.state_.mlp.widths[0] == 9
    assert model.state_.means[0].dtype == dtype
    together = np.column_stack([X[:, :8], 1 - X[:, 0]])
    assert Span.if_part(together - together.mean(axis=0)).inputs == 9
    model = kind((3,), **QUICK).fit(together, y)
    assert model.x_span_.inputs == model.state_.mlp.widths[0] == 9
    assert model.state_.means[0].dtype == dtype


@pytest.mark.equation("eq:input-span")
@pytest.mark.parametrize(("rows", "own"), [(30, True), (31, False)])
def test_relevance_is_of_the_rows_that_a_fit_has(rows, own, monkeypatch):
    """Up to twice as many rows as inputs, also in the fits that lack a fifth of them; of more it is learnt once."""
    counts, found = [], BALIRegressor._relevance

    def counted(self, x, *more):
        counts.append(len(x))
        return found(self, x, *more)

    monkeypatch.setattr(BALIRegressor, "_relevance", counted)
    rng = np.random.default_rng(0)
    BALIRegressor((3,), **QUICK).fit(rng.standard_normal((rows, 15)), rng.standard_normal(rows))
    assert (counts == [rows]) != own
    assert not own or max(counts[:5]) < rows


def test_an_input_that_is_the_same_in_all_rows_has_relevance_one():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 60)), rng.standard_normal((30, 1))
    x[:, [0, 31, 59]] = 0
    r = input_relevance(x, y, None, MLP((60, 5, 1)), Gaussian(np.ones(1)), Settings(max_iterations=30), 0)
    assert np.all(r[[0, 31, 59]] == 1)
    assert 1 <= np.mean(np.delete(r, [0, 31, 59]) ** 2) <= 1 + LEAST**2, "1, and what the floor adds"


def test_an_indicator_that_no_row_of_a_fit_has_is_the_same_in_all_of_them():
    """Standardised it is a number whose mean over 14 rows is another by rounding; less that mean it is 0 all the same,
    in the span or in the inputs."""
    rng = np.random.default_rng(0)
    for inputs in (10, 30):
        x = rng.standard_normal((14, inputs))
        x[:, 0] = -(17**-0.5)
        assert np.any(x[:, 0] - np.average(x, axis=0)[0] != 0), "what is tested for"

        def relevance(x, y, weight, before, name):
            settings = Settings(max_iterations=30)
            return input_relevance(
                x, y, None, MLP((x.shape[1], 5, 1)), Gaussian(np.ones(1)), settings, 0, inputs=before
            )

        found = InputMaps(relevance, np.float64).learnt(True, x, rng.standard_normal((14, 1)), None, "")
        assert found.relevance[0] == 1
        assert found.offset[0] == x[0, 0]


@pytest.mark.equation("eq:input-span")
@pytest.mark.parametrize("inputs", [30, 6])
def test_a_fit_sees_nothing_of_the_rows_it_lacks(inputs):
    """Inputs and targets of a held-out row change nothing of the map that the fit without it learns, nor of its state;
    those of a row that it has do."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((10, inputs)), rng.standard_normal((10, 1))

    def relevance(x, y, weight, before, name):
        return 1 + np.abs(x.T @ y)[:, 0]

    def found(x, y):
        maps = InputMaps(relevance, np.float64)
        core = MLP((inputs, 3, 1)), Gaussian(np.ones(1))

        def learnt(*rows):
            return maps.learnt(True, *rows)

        trial = Trial(x, y, None, *core, 0, 0.2, "linearized", inputs=learnt)
        return trial, trial.results(Settings(max_iterations=5))

    trial, results = found(x, y)
    out, state, _ = results[0]
    held, kept = np.flatnonzero(out)[0], np.flatnonzero(~out)[0]
    for row, same in ((held, True), (kept, False)):
        here = np.arange(10)[:, None] == row
        later = np.arange(inputs) > 0  # rows are dealt out in the order of their first inputs
        other, changed = found(np.where(here & later, x + 1, x), np.where(here, 5, y))
        assert np.array_equal(changed[0][0], out), "the same rows are held out"
        assert np.array_equal(other.seen(0, out)[0], trial.seen(0, out)[0]) == same
        assert np.array_equal(changed[0][1].means[0], state.means[0]) == same
    assert (trial.seen(0, out)[0].shape[1] == 6) == (inputs == 6), "the inputs, or eight rows' seven dimensions and one"
    assert np.any(trial.seen(0, out)[0][:, -1]) == (inputs == 6)


@pytest.mark.equation("eq:input-span")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rows", [6, 40])
def test_held_out_rows_lie_outside_as_far_as_new_ones(rows, dtype):
    """Rows are centred with those of the fit: else those held out, which are minus the sum of the rest, would lie
    inside. The share of the length that is outside, held out less new, is 0 on the mean of a dozen tables within four
    of its standard errors (a false alarm in 500: Student's t)."""
    shares = []
    for seed in range(12):
        X = np.random.default_rng(seed).standard_normal((rows + 20, 80)).astype(dtype)
        X, new = X[:rows] - X[:rows].mean(axis=0), X[rows:] - X[:rows].mean(axis=0)
        out = np.arange(rows) < rows // 5
        seen = InputMaps(lambda *_: None, dtype).learnt(False, X[~out], None, None, "")
        assert seen.span.inputs == np.sum(~out), "one dimension is the mean's"
        z = [seen(part).astype(np.float64) for part in (X[out], new)]
        shares.append([np.mean(part[:, -1] / np.linalg.norm(part, axis=1)) for part in z])
        assert np.all(seen(X[~out])[:, -1] == 0)
    apart = np.subtract(*np.transpose(shares))
    assert abs(apart.mean()) < 4 * apart.std(ddof=1) / len(apart) ** 0.5


@pytest.mark.equation("eq:input-span")
def test_deviations_are_as_wide_as_the_errors(monkeypatch):
    """Sixty rows of 200 inputs that all count a little: the 90 % intervals hold .84 of new rows, on the mean of three
    tables (.82 of eight, which vary by .09: three others would be below .77 in one case of six); with relevance learnt
    from all rows, those to be held out included, .68."""

    def coverage():
        found = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            X = rng.standard_normal((560, 200))
            y = X @ rng.standard_normal(200) / 200**0.5 + 0.3 * rng.standard_normal(560)
            mean, deviation = BALIRegressor((20,), random_state=seed).fit(X[:60], y[:60]).predict(X[60:], True)
            found.append(interval_coverage(y[60:], mean, deviation))
        return np.mean(found)

    assert coverage() > 0.77
    own, prepared, table = InputMaps.learnt, BALIRegressor._prepare_data, []

    def remembered(self, *rows):
        table[:] = prepared(self, *rows)
        return tuple(table)

    monkeypatch.setattr(BALIRegressor, "_prepare_data", remembered)
    monkeypatch.setattr(InputMaps, "learnt", lambda self, *_: own(self, True, *table, "all"))
    assert coverage() < 0.77


@pytest.mark.equation("eq:input-span")
def test_deviations_are_as_wide_as_the_errors_with_more_rows_than_inputs(monkeypatch):
    """120 rows of 90 inputs, of which a product and a third make the target: the 90 % intervals hold .90 of new rows
    (.92 of six tables, which vary by .024: another would be below .85 once in 400 times); with relevance learnt from
    all rows, those to be held out included, .62 (.71 of six, by .11)."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((1120, 90))
    y = X[:, 0] * X[:, 1] + X[:, 2] + 0.3 * rng.standard_normal(1120)

    def coverage():
        mean, deviation = BALIRegressor(random_state=1).fit(X[:120], y[:120]).predict(X[120:], True)
        return interval_coverage(y[120:], mean, deviation)

    assert coverage() > 0.85
    for module in ("learning", "relevance"):
        monkeypatch.setattr(f"balinp.{module}.is_wide", lambda *_: False)
    assert coverage() < 0.8


@pytest.mark.equation("eq:input-span")
@pytest.mark.parametrize("kind", [BALIRegressor, BALIClassifier])
def test_a_stream_goes_on_in_the_inputs_themselves(kind):
    """Unfolded, the network predicts as before, inside the span and outside; then it learns from rows outside: its
    error is smaller than the least that a function linear in the fit's coordinates can have on the same rows."""
    rng = np.random.default_rng(0)
    X, y, new = rng.standard_normal((14, 30)), rng.integers(0, 2, 14), rng.standard_normal((5, 30))
    model = kind((3,), predictive="linearized", **QUICK).fit(X, y)
    first = model.state_.layers[0]
    outside = np.arange(len(first.posterior.mean))[:, None] == len(first.posterior.mean) - 2
    mean = np.where(outside, 0, first.posterior.mean)  # what there is has no direction to be unfolded into
    layers = replace(first, posterior=first.posterior.with_mean(mean)), *model.state_.layers[1:]
    folded = replace(model.state_, layers=layers)
    whole = model.x_span_.unfolded(folded)
    kappa = condition_number(whole.layers[0].posterior.row_precision)
    for rows in (X, new):
        x = model.x_scaler_.transform(rows, np.float64)
        one, other = predict_linearized(whole, x), predict_linearized(folded, model._scaled(rows))
        for name in ("mean", "epistemic"):
            ratio = comparison_residual(getattr(one, name), getattr(other, name), kappa, size=60)
            assert_residual(ratio, f"{name} after unfolding", "eq:input-span")
    if kind is BALIRegressor:  # of classes the running average is of batches
        x = model.x_scaler_.transform(X, np.float64)
        ratio = comparison_residual(whole.layers[0].statistics.gram[:-1, :-1], x.T @ x, size=60)
        assert_residual(ratio, "XᵀX", "eq:input-span")
    asked = rng.standard_normal((500, 30))
    truth, seen = (asked[:, 0] > 0).astype(int), with_ones(model._scaled(asked))
    least = np.mean((truth - seen @ np.linalg.lstsq(seen, truth)[0]) ** 2)
    for _ in range(40):
        rows = rng.standard_normal((50, 30))
        model.partial_fit(rows, (rows[:, 0] > 0).astype(int))
    assert model.x_span_ is None
    assert model.state_.mlp.widths[0] == 30
    assert np.mean((model.predict(asked) - truth) ** 2) < least
