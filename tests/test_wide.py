"""No more rows than inputs: what fits see of them, and that predictions are as sure as they may be."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from balinp import (
    MLP,
    BALIClassifier,
    BALIRegressor,
    Gaussian,
    InterruptedFitWarning,
    LayerStatistics,
    ModelFileError,
    Prior,
    Settings,
    fit,
    layer_posterior,
)
from balinp.files import read_arrays, write_arrays
from balinp.metrics import interval_coverage
from balinp.persistence import MODEL
from balinp.testing import assert_residual, comparison_residual, condition_number
from balinp.trial import Trial
from balinp.wide import InputMaps, Span, first_state, is_wide

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


def test_wide_is_no_more_rows_than_inputs():
    assert [is_wide(np.zeros(shape)) for shape in ((3, 4), (4, 4), (5, 4))] == [True, True, False]


@pytest.mark.equation("eq:input-span")
def test_the_weights_outside_start_at_zero_and_stay_there():
    mlp, settings, start = MLP((4, 3, 1)), Settings(max_iterations=30), Gaussian(np.ones(1))
    state = first_state(mlp, start, np.random.default_rng(0), settings, "float64")
    assert not np.any(state.means[0][-2])
    assert np.all(np.any(state.means[0][[0, 1, 2]] != 0, axis=1))
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((20, 60)), rng.standard_normal(20)
    for model in (BALIRegressor((4,), **QUICK).fit(X, y), BALIClassifier((4,), **QUICK).fit(X, y > 0)):
        assert not np.any(model.state_.means[0][-2])
        assert np.any(model.state_.means[0][-3])


@pytest.mark.equation("eq:input-span")
def test_a_fit_sees_nothing_of_the_rows_it_lacks():
    """Inputs and targets of a held-out row change nothing of the map that the fit without it learns, nor of its state;
    those of a row that it has do."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((10, 30)), rng.standard_normal((10, 1))

    def relevance(x, y, weight, name):
        return 1 + np.abs(x.T @ y)[:, 0]

    def found(x, y):
        maps = InputMaps(relevance, np.float64)
        core = MLP((30, 3, 1)), Gaussian(np.ones(1))

        def learnt(*rows):
            return maps.learnt(True, *rows)

        trial = Trial(x, y, None, *core, 0, 0.2, "linearized", inputs=learnt)
        return trial, trial.results(Settings(max_iterations=5))

    trial, results = found(x, y)
    out, state, _ = results[0]
    held, kept = np.flatnonzero(out)[0], np.flatnonzero(~out)[0]
    for row, same in ((held, True), (kept, False)):
        here = np.arange(10)[:, None] == row
        later = np.arange(30) > 0  # rows are dealt out in the order of their first inputs
        other, changed = found(np.where(here & later, x + 1, x), np.where(here, 5, y))
        assert np.array_equal(changed[0][0], out), "the same rows are held out"
        assert np.array_equal(other.seen(out)[0], trial.seen(out)[0]) == same
        assert np.array_equal(changed[0][1].means[0], state.means[0]) == same
    assert not np.any(trial.seen(out)[0][:, -1])
    assert np.all(trial.seen(out)[1][:, -1] > 0), "a row held out is new to the fit"


@pytest.mark.equation("eq:input-span")
def test_deviations_are_as_wide_as_the_errors(monkeypatch):
    """Sixty rows of 200 inputs that all count a little: the 90 % intervals hold .87 of new rows, on the mean of three
    tables (.84 of eight, which vary by .075: three others would be below .77 in one case of twenty); with relevance
    learnt from all rows, those to be held out included, .67."""

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


def test_few_inputs_of_many_are_found():
    """Three inputs of 300 make the target: held-out rows want relevance, and the error is a quarter of the deviation
    that the target has; where all count a little they may do without."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((520, 300))
    y = 2 * X[:, 0] - X[:, 1] + X[:, 2] + 0.3 * rng.standard_normal(520)
    model = BALIRegressor((10,), random_state=0).fit(X[:120], y[:120])
    scale = 1 / model.x_scaler_.scale
    assert set(np.argsort(scale)[-3:]) == {0, 1, 2}
    assert np.sqrt(np.mean((model.predict(X[120:]) - y[120:]) ** 2)) < 0.25 * y.std() + 0.3


def test_a_linear_model_is_the_regression_it_was():
    """hidden_widths=() on twenty rows of fifty inputs: the mean is that of ridge regression on the inputs themselves,
    whose ridge is the prior's precision over c²; 0.85 of what is left stays in every one of 300 iterations."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((20, 50)), rng.standard_normal(20)
    fixed = {"tolerance": 0, "evidence": False, "learn_noise": False, "max_iterations": 300}
    model = BALIRegressor((), random_state=0, settings=fixed).fit(X, y)
    new = rng.standard_normal((7, 50))
    a, b = ((rows - X.mean(0)) / X.std(0) for rows in (X, new))
    target = (y - y.mean()) / y.std()
    ridge = model.state_.layers[0].posterior.row_precision[-2, -2] / model.x_span_.unit**2  # the prior's alone
    mean = b @ a.T @ np.linalg.solve(a @ a.T + ridge * np.eye(20), target) * y.std() + y.mean()
    assert model.predict(new) == pytest.approx(mean, abs=1e-10)


def test_memory_does_not_grow_with_the_square_of_the_inputs():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 5000)), rng.standard_normal(20)
    BALIRegressor((3,), **QUICK).fit(X[:, :50], y)  # whatever is loaded once
    tracemalloc.start()
    model = BALIRegressor((3,), **QUICK).fit(X, y)
    model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5000**2 * 8 / 4
    assert model.n_features_in_ == 5000


@pytest.mark.parametrize("kind", [BALIRegressor, BALIClassifier])
def test_a_wide_model_comes_back_from_its_file(kind, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((14, 40)), rng.integers(0, 2, 14)
    model, path = kind((3,), **QUICK).fit(X, y), tmp_path / "wide.npz"
    model.save(path)
    again = kind.load(path)
    new = rng.standard_normal((5, 40))
    for name in ("mean", "epistemic"):
        one, other = (getattr(each.predict_distribution(new), name) for each in (model, again))
        assert np.array_equal(one, other)
    header, arrays = read_arrays(path, MODEL)
    basis = arrays["x_span"]
    for bad in (basis[:, :-1], 2 * basis, basis.astype(np.float32), np.where(basis > 0, np.nan, basis), basis[0]):
        write_arrays(path, MODEL, header, {**arrays, "x_span": bad})
        with pytest.raises(ModelFileError, match="span of the inputs"):
            kind.load(path)
    model.partial_fit(X[:5], y[:5])
    assert np.all(np.isfinite(model.predict(new)))


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_an_interrupted_fit_predicts_with_the_inputs_it_saw(share):
    """Ended in any of the fits, by what Ctrl-C sets, the model is that fit's network, in that fit's coordinates: it
    predicts its own last iteration's loss, as no other coordinates would."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 30)), rng.standard_normal(12)
    phases = set()
    for after in range(0, 400, 9):
        model = BALIRegressor((3,), max_iterations=8, random_state=0, validation_fraction=share)
        asked, seen = iter(range(999)), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("balinp.session.Session.interrupted", lambda self: next(asked) >= after)  # noqa: B023
            patch.setattr("balinp.session.fit", lambda x, *a, **k: seen.append(x) or fit(x, *a, **k))  # noqa: B023
            with pytest.warns(InterruptedFitWarning) as told:
                model.fit(X, y)
        text = str(told[0].message)
        phases.add(text.split("'")[1].split(" ")[0] if "'" in text else "fit")
        inputs = model.x_span_.transform(model.x_scaler_.transform(X, np.float64), np.float64)
        assert model.state_.mlp.widths[0] == model.x_span_.inputs
        for row in seen[-1]:
            assert np.any(np.all(np.isclose(inputs, row, atol=1e-9), axis=1)), "the rows that the fit saw"
        if "fit" in phases:
            break
    assert phases == ({"relevance", "fit"} if share == 0 else {"held-out", "fit"})


def test_weights_are_rows_on_wide_tables_too():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((9, 20)), rng.standard_normal(9)
    w = np.array([1.0, 2, 1, 3, 1, 1, 2, 1, 1])
    one = BALIRegressor((3,), **QUICK).fit(X, y, sample_weight=w)
    index = np.repeat(np.arange(9), w.astype(int))
    other = BALIRegressor((3,), **QUICK).fit(X[index], y[index])
    assert np.array_equal(one.predict(X), other.predict(X))
