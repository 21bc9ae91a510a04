"""scikit-learn's conventions: its own checks, its tools around the estimators, weights and repeated rows to the bit."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from balinp import BALIClassifier, BALIError, BALIRegressor, ConvergenceWarning, DataConversionWarning, NotFittedError
from balinp import distinct as distinct_module
from balinp.distinct import distinct_rows
from balinp.params import kin

sklearn = pytest.importorskip("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.compose import TransformedTargetRegressor  # noqa: E402
from sklearn.ensemble import BaggingRegressor  # noqa: E402
from sklearn.exceptions import NotFittedError as TheirNotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score  # noqa: E402
from sklearn.multioutput import ClassifierChain, MultiOutputRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Estimator .* does not inherit from:UserWarning"),
]


@parametrize_with_checks([BALIRegressor((20,), max_iterations=40), BALIClassifier((20,), max_iterations=40)])
def test_its_own_checks(estimator, check):
    """None is expected to fail; check_array_api_input says that it is skipped, since the tag is off."""
    check(estimator)


def regressor(**changes):
    return BALIRegressor(**{"hidden_widths": (8,), "max_iterations": 15, "random_state": 0, **changes})


def classifier(**changes):
    return BALIClassifier(**{"hidden_widths": (8,), "max_iterations": 15, "random_state": 0, **changes})


def data(rows=40, outputs=None):
    g = np.random.default_rng(7)
    X = g.standard_normal((rows, 3))
    y = X[:, 0] * 2 + np.abs(X[:, 1]) + 0.1 * g.standard_normal(rows)
    return X, (y if outputs is None else np.stack([y, -y + X[:, 2]], axis=1)), g.integers(0, 4, rows)


def repeated(X, y, weight, shuffled):
    index = np.repeat(np.arange(len(X)), weight)
    if shuffled:
        index = np.random.default_rng(1).permutation(index)
    return X[index], np.asarray(y)[index]


def same_state(a, b):
    for one, other in zip(a.state_.layers, b.state_.layers):
        np.testing.assert_array_equal(one.posterior.mean, other.posterior.mean)
        np.testing.assert_array_equal(one.posterior.row_precision, other.posterior.row_precision)
        np.testing.assert_array_equal(one.posterior.column_covariance, other.posterior.column_covariance)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize(
    "model",
    [
        regressor(),  # four fits: relevance, two with rows held out, the last
        regressor(batch_size=9),
        regressor(noise="input-dependent"),
        regressor(hidden_widths=()),
        regressor(settings={"block_rows": 7}),
    ],
)
@pytest.mark.parametrize("outputs", [None, 2])
def test_a_weight_is_a_repeated_row_to_the_bit(model, outputs, shuffled):
    X, y, weight = data(60, outputs)
    weighted = clone(model).fit(X, y, sample_weight=weight)
    longer = clone(model).fit(*repeated(X, y, weight, shuffled))
    same_state(weighted, longer)
    for a, b in zip(weighted.predict(X, return_std=True), longer.predict(X, return_std=True)):
        np.testing.assert_array_equal(a, b)
    assert weighted.n_rows_seen_ == longer.n_rows_seen_ == weight.sum()


@pytest.mark.parametrize("batch_size", ["auto", None, 9])
@pytest.mark.parametrize("labels", [np.array(["a", "b", "c"]), np.array([-5, 0, 7]), np.array([2.0, 3.0, 10.0])])
def test_a_weight_is_a_repeated_row_to_the_bit_for_classes(batch_size, labels):
    X, y, weight = data()
    y = labels[np.digitize(y, [0, 2])]
    model = classifier(batch_size=batch_size)
    weighted, longer = clone(model).fit(X, y, sample_weight=weight), clone(model).fit(*repeated(X, y, weight, True))
    same_state(weighted, longer)
    np.testing.assert_array_equal(weighted.predict_proba(X), longer.predict_proba(X))


@pytest.mark.parametrize("model", [regressor(), classifier()])
def test_a_weight_is_a_repeated_row_to_the_bit_in_a_stream(model):
    X, y, weight = data()
    y = y if isinstance(model, BALIRegressor) else (y > 1).astype(int)
    weighted, longer = clone(model), clone(model)
    for part in (slice(0, 25), slice(25, 40)):
        first = {} if isinstance(model, BALIRegressor) else {"classes": [0, 1]}
        weighted.partial_fit(X[part], y[part], sample_weight=weight[part], **first)
        longer.partial_fit(*repeated(X[part], y[part], weight[part], True), **first)
    same_state(weighted, longer)


def test_weights_of_one_and_of_zero_change_no_bit():
    X, y, weight = data()
    plain = regressor().fit(X, y)
    same_state(plain, regressor().fit(X, y, sample_weight=np.ones(len(X))))
    kept = weight > 0
    same_state(regressor().fit(X[kept], y[kept]), regressor().fit(X, y, sample_weight=kept.astype(float)))


def test_distinct_rows_are_those_of_numpy_unique():
    g = np.random.default_rng(2)
    x, y, w = g.integers(0, 3, (200, 2)).astype(float), g.integers(0, 2, 200), g.integers(0, 3, 200).astype(float)
    x[x == 0] *= g.choice([-1.0, 1.0], (x == 0).sum())  # −0 is 0
    index, counts = distinct_rows(x, y, w)
    rows = np.column_stack([x, y])
    expected, inverse = np.unique(rows[w > 0], axis=0, return_inverse=True)
    sums = np.bincount(inverse.reshape(-1), weights=w[w > 0])
    order = np.lexsort(rows[index].T[::-1])
    np.testing.assert_array_equal(rows[index][order], expected)
    np.testing.assert_array_equal(counts[order], sums)


def test_different_rows_of_one_key_stay_apart(monkeypatch):
    monkeypatch.setattr(distinct_module, "_content", lambda columns: np.zeros(len(columns[0]), np.uint64))
    x = np.array([[1.0], [1.0], [2.0]])
    index, counts = distinct_rows(x, np.zeros(3), None)
    assert (index.tolist(), counts.tolist()) == ([0, 2], [2, 1])


def test_distinct_rows_of_few_or_of_very_many_stay_as_they_are(monkeypatch):
    x, weight = np.arange(6.0)[:, None], np.array([1.0, 0, 1, 1, 0, 1])
    assert distinct_rows(x, np.zeros(6), None) == (None, None)
    index, counts = distinct_rows(x, np.zeros(6), weight)
    assert (index.tolist(), counts) == ([0, 2, 3, 5], None)
    monkeypatch.setattr(distinct_module, "MOST_ROWS", 3)
    index, counts = distinct_rows(np.zeros((6, 1)), np.zeros(6), 2 * weight)
    assert (index.tolist(), counts.tolist()) == ([0, 2, 3, 5], [2, 2, 2, 2])


def test_pipelines_searches_and_scores():
    X, y, weight = data(60)
    piped = make_pipeline(StandardScaler(), regressor())
    assert cross_val_score(piped, X, y, cv=3).shape == (3,)
    assert cross_val_predict(classifier(), X, y > 1, cv=3, method="predict_proba").shape == (60, 2)
    search = GridSearchCV(piped, {"baliregressor__hidden_widths": [(), (4,)]}, cv=2)
    search.fit(X, y, baliregressor__sample_weight=weight)
    assert search.best_estimator_[-1].hidden_widths in [(), (4,)]
    mean, std = piped.fit(X, y).predict(X, return_std=True)
    assert mean.shape == std.shape == (60,)
    assert cross_val_score(classifier(), X, y > 1, scoring="neg_log_loss", cv=2).max() < 0


def test_meta_estimators():
    X, y, _ = data(40, 2)
    assert MultiOutputRegressor(regressor()).fit(X, y).predict(X).shape == (40, 2)
    assert regressor().fit(X, y).predict(X).shape == (40, 2)
    assert BaggingRegressor(regressor(), 2, random_state=0).fit(X, y[:, 0]).predict(X).shape == (40,)
    assert ClassifierChain(classifier()).fit(X, y > 0).predict(X).shape == (40, 2)
    logged = TransformedTargetRegressor(regressor(), func=np.arcsinh, inverse_func=np.sinh).fit(X, y[:, 0])
    assert np.isfinite(logged.predict(X)).all()


def test_set_output_and_data_frames_carry_the_names():
    pandas = pytest.importorskip("pandas")
    X, y, _ = data()
    frame = pandas.DataFrame(X, columns=["speed", "load", "depth"])
    frame["kind"] = np.where(X[:, 0] > 0, "up", "down")
    numbers = make_pipeline(StandardScaler(), regressor()).set_output(transform="pandas")
    numbers.fit(frame[["speed", "load", "depth"]], pandas.Series(y))
    assert numbers[-1].feature_names_in_.tolist() == ["speed", "load", "depth"]
    with pytest.raises(ValueError, match="order"):
        numbers[-1].predict(frame[["load", "speed", "depth"]])
    text = make_pipeline(OneHotEncoder(sparse_output=False), classifier()).set_output(transform="pandas")
    text.fit(frame[["kind"]], frame["kind"])
    assert text[-1].feature_names_in_.tolist() == ["kind_down", "kind_up"]
    assert set(text.predict(frame[["kind"]])) <= {"up", "down"}


@pytest.mark.parametrize(
    "labels",
    [["b", "a"], [True, False], [7, -3], [1.0, 2.0], [b"x", b"y"], np.array(["u", "v"], dtype=object), [2**40, 0]],
)
def test_labels_of_any_kind(labels):
    X, y, _ = data()
    truth = np.asarray(labels)[(y > 1).astype(int)]
    model = classifier().fit(X, truth)
    assert model.classes_.tolist() == np.unique(truth).tolist()
    assert model.predict(X).dtype == truth.dtype
    assert set(model.predict(X)) <= set(truth.tolist())


def test_errors_and_warnings_are_of_both_families():
    with pytest.raises(TheirNotFittedError) as caught:
        BALIRegressor().predict([[1.0]])
    assert isinstance(caught.value, NotFittedError)
    assert isinstance(caught.value, BALIError)
    X, y, _ = data()
    with pytest.warns(DataConversionWarning, match="column-vector") as caught:
        classifier().fit(X, (y > 1)[:, None])
    assert caught[0].filename == __file__
    assert kin(KeyError) is KeyError  # scikit-learn has none of that name
    assert issubclass(kin(ConvergenceWarning), sklearn.exceptions.ConvergenceWarning)


def test_without_scikit_learn_pandas_and_matplotlib():
    code = """
import sys
for name in ("sklearn", "pandas", "matplotlib"):
    sys.modules[name] = None
import numpy as np, balinp
X = np.arange(30.0)[:, None]
model = balinp.BALIRegressor((4,), max_iterations=5, settings={"tolerance": 0.0})
try:
    model.predict(X)
except balinp.NotFittedError as error:
    assert type(error) is balinp.NotFittedError
assert model.fit(X, X[:, 0], sample_weight=np.ones(30)).predict(X).shape == (30,)
classes = balinp.BALIClassifier((4,), max_iterations=5, settings={"tolerance": 0.0})
assert classes.fit(X, X[:, :1] > 9).score(X, X[:, 0] > 9) > 0
assert repr(model).startswith("BALIRegressor(")
"""
    subprocess.run([sys.executable, "-W", "ignore::UserWarning", "-c", code], check=True)
