"""The bad inputs of the design: each works, or is refused with an error that names the argument and the remedy."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from balinp import BALIClassifier, BALIError, BALIRegressor, ConvergenceWarning

QUICK = {"max_iterations": 15, "random_state": 0}


@pytest.fixture(autouse=True)
def _no_budget_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a silent NaN shows as a RuntimeWarning first
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def table(n=40, d=3, dtype=np.float64, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, d)).astype(dtype)
    return X, (X[:, 0] - 0.5 * X[:, -1] ** 2 + 0.1 * generator.standard_normal(n)).astype(dtype)


def regressor(**changes):
    return BALIRegressor(**{"hidden_widths": (8,), **QUICK, **changes})


def classifier(**changes):
    return BALIClassifier(**{"hidden_widths": (8,), **QUICK, **changes})


def assert_fits(X, y, X_new=None, model=None):
    """Fits, predicts finite numbers with positive deviations, and leaves the caller's arrays as they were."""
    before = [np.array(a, copy=True) for a in (X, y)]
    model = model or regressor()
    mean, std = model.fit(X, y).predict(X if X_new is None else X_new, return_std=True)
    assert np.all(np.isfinite(mean))
    assert np.all(np.isfinite(std))
    assert np.all(std > 0)
    for array, copy in zip((X, y), before):
        np.testing.assert_array_equal(np.asarray(array), copy)
    return model, mean, std


def poisoned(array, value, place):
    out = np.array(array, dtype=object if value is None else None)
    out[place] = value
    return out


X0, Y0 = table()
REFUSED = {
    "NaN in X": (poisoned(X0, np.nan, (7, 1)), Y0, ["X", "NaN", "row 7, column 1"]),
    "infinity in X": (poisoned(X0, -np.inf, (3, 2)), Y0, ["X", "inf", "row 3, column 2"]),
    "None in X": (poisoned(X0, None, (3, 2)), Y0, ["X", "row 3, column 2"]),
    "NaN in y": (X0, poisoned(Y0, np.nan, 5), ["y", "NaN", "row 5"]),
    "infinity in y": (X0, poisoned(Y0, np.inf, 5), ["y", "inf", "row 5"]),
    "one-dimensional X": (X0[:, 0], Y0, ["X", "(40,)", "reshape(-1, 1)"]),
    "three-dimensional X": (X0[None], Y0, ["X", "(1, 40, 3)"]),
    "scalar X": (3.0, Y0, ["X", "()"]),
    "no rows": (X0[:0], Y0[:0], ["X", "(0, 3)"]),
    "no columns": (X0[:, :0], Y0, ["X", "(40, 0)"]),
    "y too short": (X0, Y0[:-1], ["y", "39", "40"]),
    "y without columns": (X0, np.zeros((40, 0)), ["y", "(40, 0)"]),
    "three-dimensional y": (X0, Y0[:, None, None], ["y", "(40, 1, 1)"]),
    "no y": (X0, None, ["y", "None"]),
    "text in X": (np.full((40, 3), "red"), Y0, ["X", "encode"]),
    "text in y": (X0, np.full(40, "red"), ["y", "encode"]),
    "complex X": (X0 + 1j, Y0, ["Complex", "X"]),
    "ragged X": ([[1.0, 2.0], [3.0]], [1.0, 2.0], ["X", "rectangular"]),
    "dates": (np.full((40, 3), np.datetime64("2026-01-01")), Y0, ["X", "datetime64"]),
    "masked": (np.ma.array(X0, mask=X0 > 1), Y0, ["X", "masked"]),
    "y at 1e200": (X0, Y0 * 1e200, ["y", "rescaled"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_argument_what_it_got_and_the_remedy(case):
    X, y, words = REFUSED[case]
    with pytest.raises(BALIError) as caught:
        regressor().fit(X, y)
    assert isinstance(caught.value, (ValueError, TypeError))
    for word in words:
        assert word in str(caught.value)


class OnDevice:
    """Looks like an array of another backend."""

    def __init__(self):
        self.__cuda_array_interface__ = {"shape": (40, 3), "typestr": "<f8", "version": 3}


class Sparse:
    def tocsr(self):
        return self


@pytest.mark.parametrize(("X", "word"), [(OnDevice(), "GPU"), (Sparse(), "dense")])
def test_arrays_of_another_kind_are_refused_not_converted(X, word):
    with pytest.raises(TypeError, match=word):
        regressor().fit(X, Y0)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_fewer_rows_than_columns(rows):
    X, y = table(rows, 10)
    assert_fits(X, y)


def test_one_column():
    assert_fits(X0[:, :1], Y0)


def test_duplicate_columns():
    assert_fits(np.hstack([X0, X0, X0]), Y0)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e150, -1e-150])
def test_constant_columns_are_ignored_exactly(value):
    constant = np.hstack([X0, np.full((len(X0), 1), value)])
    model, _, _ = assert_fits(constant, Y0)
    assert np.all(model.x_scaler_.transform(constant, np.float64)[:, -1] == 0)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e150, 1e-150])
def test_constant_target(value):
    _, mean, _ = assert_fits(X0, np.full(len(X0), value))
    # the standardised target is exactly 0; the network's own offset is at most its scale, |value| (1 for 0)
    assert np.all(np.abs(mean - value) <= max(abs(value), value == 0))


@pytest.mark.parametrize("scale", [1e150, 1e-150])
def test_inputs_and_targets_at_extreme_scales_give_the_same_fit_as_at_one(scale):
    plain = assert_fits(X0, Y0)[1:]
    power = 2.0 ** np.round(np.log2(scale))  # a power of two scales without rounding: the same bits are expected
    scaled = assert_fits(X0 * power, Y0 * power)[1:]
    for a, b in zip(plain, scaled):
        np.testing.assert_array_equal(a * power, b)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, bool])
def test_integer_inputs_are_taken_as_float64(dtype):
    X = (np.abs(X0) * 2).astype(dtype)
    _, mean, std = assert_fits(X, (Y0 * 3).astype(np.int32))
    assert mean.dtype == std.dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_keep_the_dtype_that_came_in(dtype):
    X, y = table(dtype=dtype)
    model, mean, std = assert_fits(X, y)
    assert mean.dtype == std.dtype == dtype
    distribution = model.predict_distribution(X)
    assert distribution.epistemic.dtype == distribution.aleatoric.dtype == dtype
    assert model.sample_y(X).dtype == dtype
    for layer in model.state_.layers:
        arrays = (
            layer.posterior.mean,
            layer.posterior.row_precision,
            layer.posterior.column_covariance,
            layer.statistics.gram,
        )
        assert all(a.dtype == dtype for a in arrays)


def test_read_only_and_non_contiguous_arrays():
    X, y = table(80, 6)
    X.flags.writeable = y.flags.writeable = False
    assert_fits(X[::2, ::-2], y[::2])
    assert_fits(np.asfortranarray(X), y)


def test_inputs_far_outside_training_give_finite_numbers_or_an_error():
    model = regressor().fit(X0, Y0)
    for place in (1e6, 1e150, -1e150):
        mean, std = model.predict(np.full((1, 3), place), return_std=True)
        assert np.all(np.isfinite(mean) & np.isfinite(std))
    with pytest.raises(BALIError, match="far from the training data"):
        model.predict(np.full((1, 3), 1e300))


@pytest.mark.parametrize("X", [X0[:, :2], np.full((2, 3), np.nan), X0[:0]])
def test_prediction_refuses_what_fit_would(X):
    model = regressor().fit(X0, Y0)
    with pytest.raises(BALIError, match="X"):
        model.predict(X)


def test_zero_weights_drop_rows_and_all_zero_is_refused():
    weight = np.ones(len(X0))
    weight[::2] = 0
    a = regressor().fit(X0, Y0, sample_weight=weight).predict(X0)
    b = regressor().fit(X0[1::2], Y0[1::2], sample_weight=np.ones(20)).predict(X0)
    np.testing.assert_array_equal(a, b)
    for bad in (np.zeros(len(X0)), -weight, weight[:-1], np.where(weight > 0, np.nan, 1)):
        with pytest.raises(BALIError, match="sample_weight"):
            regressor().fit(X0, Y0, sample_weight=bad)


def test_weights_that_are_shares_are_warned_of():
    """What they make of the data: one row. Counts, and shares of a tenth and more, say nothing."""
    with pytest.warns(UserWarning, match=r"sums to 1 over 40 rows.*divide them by their mean"):
        regressor().fit(X0, Y0, sample_weight=np.full(40, 1 / 40))
    for weight in (0.101, 1.0, 1000.0):  # a warning is an error here
        regressor().fit(X0, Y0, sample_weight=np.full(40, weight))


LABELS = {
    "text": np.array(["no", "yes"]),
    "objects": np.array(["no", "yes"], dtype=object),
    "integers": np.array([-3, 8]),
    "floats": np.array([0.0, 2.0]),
    "booleans": np.array([False, True]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind_come_back_as_they_were(kind):
    y = LABELS[kind][(X0[:, 0] > 0).astype(int)]
    model = classifier().fit(X0, y)
    predicted = model.predict(X0)
    assert predicted.dtype == y.dtype
    assert set(predicted) <= set(y)
    assert np.allclose(model.predict_proba(X0).sum(axis=1), 1, rtol=0, atol=8 * np.finfo(float).eps)


@pytest.mark.parametrize(
    ("y", "word"),
    [
        (np.zeros(40), "one class"),
        (Y0, "BALIRegressor"),
        (np.array(["a", None] * 20, dtype=object), "row 1"),
        (pd.Series(["a", pd.NA] * 20, dtype="string"), "missing label in row 1"),
        (pd.Series([True, pd.NA] * 20, dtype="boolean"), "missing label in row 1"),
        (np.array(["a", 1] * 20, dtype=object), "mixes"),
        (np.full(40, np.nan), "NaN"),
        (np.zeros((40, 2)), "one-dimensional"),
        (None, "None"),
    ],
)
def test_labels_that_cannot_be_classes_are_refused(y, word):
    with pytest.raises(BALIError, match=word):
        classifier().fit(X0, y)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_widths", (0,)),
        ("hidden_widths", "50"),
        ("hidden_widths", 50),
        ("activation", "sigmoid"),
        ("predictive", "exact"),
        ("draws", 0),
        ("batch_size", 0),
        ("max_iterations", 0),
        ("random_state", -1),
        ("random_state", "seed"),
        ("preset", "paper"),
        ("settings", {"stepp": "natural"}),
        ("settings", {"rate": 2}),
        ("settings", 3),
    ],
)
def test_bad_parameters_are_named_with_what_they_got(name, value):
    with pytest.raises(BALIError) as caught:
        regressor(**{name: value}).fit(X0, Y0)
    shown = next(iter(value)) if isinstance(value, dict) else name
    assert shown in str(caught.value)


def _stop(state, record):
    raise RuntimeError("stop")


def test_a_refused_or_interrupted_fit_leaves_the_fitted_model_alone():
    model = regressor().fit(X0, Y0)
    before = model.predict(X0)
    with pytest.raises(BALIError):
        model.fit(X0[:, :2], Y0[:-1])
    with pytest.raises(RuntimeError, match="stop"):
        model.fit(X0[:, :2], -Y0, callbacks=_stop)
    np.testing.assert_array_equal(model.predict(X0), before)
