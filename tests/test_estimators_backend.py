"""The estimators on every backend: what goes in, what comes back, the same numbers as on NumPy, files between them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import balinp
from balinp import NUMPY, BALIClassifier, BALIRegressor, InvalidArgumentError, InvalidTypeError
from balinp.testing import assert_residual, comparison_residual
from balinp.testing.device import DOUBLE

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
ROWS, GROWTH = 60, 100.0  # rounding grows over eight iterations: the largest ratio without GROWTH was measured as 18
# With noises found by a search: it ends where a loss that rounds hides its slope, √eps from the minimum. The search is
# in float64 whatever the data; of float32 the largest ratio was measured as 22 000.
SEARCHED = {"float64": 0.1 * np.finfo(np.float64).eps ** -0.5, "float32": 10_000.0}

LAYERWISE = {"settings": {"joint_iterations": 0, "warmup": 8, "rate": 0.3}}


def data(dtype="float64", outputs=0):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, 3))
    y = np.sin(X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(ROWS)
    return X.astype(dtype), (y if not outputs else np.c_[y, -y]).astype(dtype)


def regressor(**changes):
    return BALIRegressor(
        **{"hidden_widths": (4,), "max_iterations": 8, "draws": 5, "random_state": 0, **LAYERWISE, **changes}
    )


def classifier(**changes):
    return BALIClassifier(**{"hidden_widths": (4,), "max_iterations": 8, "random_state": 0, **changes})


def on(backend, value) -> np.ndarray:
    """``value``, which must live on the backend, on the host."""
    assert isinstance(value, backend.xp.ndarray)
    return backend.to_host(value)


def agree(computed, expected, what, growth=GROWTH):
    ratio = comparison_residual(computed, expected, growth, scale=1.0, size=ROWS)
    assert_residual(ratio, what, "backend")


@pytest.mark.parametrize("outputs", [0, 2])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"predictive": "linearized"},
        {"noise": "input-dependent"},
        {"batch_size": 16},
    ],
)
def test_regression_is_that_of_numpy_and_comes_back_as_it_was_given(backend, dtype, outputs, changes):
    X, y = data(dtype, outputs)
    model, reference = regressor(backend=backend.name, **changes), regressor(**changes).fit(X, y)
    moved, growth = backend.asarray(X), SEARCHED[dtype.name]
    model.fit(moved, backend.asarray(y), test=(moved, y))
    for mean, std in (model.predict(moved, return_std=True), model.predict(X, return_std=True)):
        kind = backend if mean is not None and isinstance(mean, backend.xp.ndarray) else NUMPY
        assert on(kind, mean).dtype == on(kind, std).dtype == dtype
        agree(on(kind, mean), reference.predict(X), "mean")
        agree(on(kind, std), reference.predict(X, return_std=True)[1], "deviation", growth)
    assert isinstance(model.predict(X), np.ndarray)
    assert on(backend, model.predict(moved)).shape == y.shape
    assert on(backend, model.sample_y(moved, 2)).shape == (*y.shape, 2)
    agree(model.sample_y(X, 2), reference.sample_y(X, 2), "draws", growth)
    assert model.score(moved, backend.asarray(y)) == pytest.approx(
        reference.score(X, y), rel=1e-3 if dtype == "float32" else 1e-9
    )
    for field in dataclasses.fields(model.predict_distribution(moved)):
        theirs, mine = (getattr(m.predict_distribution(x), field.name) for m, x in ((reference, X), (model, moved)))
        assert (theirs is None) == (mine is None)
        if field.name == "normal":
            assert mine is theirs
        elif mine is not None:
            agree(on(backend, mine), theirs, field.name, growth)
    assert model.state_.mlp.backend is backend
    assert isinstance(model.state_.means[0], backend.xp.ndarray)
    assert [r.iteration for r in model.history_] == [r.iteration for r in reference.history_]
    if not changes.get("noise"):
        assert isinstance(model.noise_variance_, np.ndarray)
        agree(model.noise_variance_.astype(dtype), reference.noise_variance_.astype(dtype), "noise", growth)


def test_classification_is_that_of_numpy_and_comes_back_as_it_was_given(backend, dtype):
    X, y = data(dtype)
    labels = np.where(y > 0, 7, 3)
    model, reference = classifier(backend=backend.name), classifier().fit(X, labels)
    moved, weight = backend.asarray(X), np.ones(ROWS, dtype)
    model.fit(moved, backend.asarray(labels), sample_weight=backend.asarray(weight))
    agree(on(backend, model.predict_proba(moved)), reference.predict_proba(X), "probabilities")
    assert np.array_equal(on(backend, model.predict(moved)), reference.predict(X))
    assert np.array_equal(model.predict(X), reference.predict(X))
    assert on(backend, model.sample_y(moved, 3)).shape == (ROWS, 3)
    assert model.score(moved, backend.asarray(labels), backend.asarray(weight)) == reference.score(X, labels)
    words = classifier(backend=backend.name).fit(moved, np.where(y > 0, "yes", "no"))
    assert set(words.predict(moved)) == {"no", "yes"}  # no device holds text


@pytest.mark.parametrize("rows", [4, 12])  # too few to hold any out, and enough
def test_a_table_with_more_inputs_than_rows(backend, dtype, rows):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((rows, 15)).astype(dtype)
    y = (X[:, 0] + 0.1 * rng.standard_normal(rows)).astype(dtype)
    model, reference = regressor(backend=backend.name).fit(backend.asarray(X), y), regressor().fit(X, y)
    new = rng.standard_normal((5, 15)).astype(dtype)
    agree(model.predict(new), reference.predict(new), "mean")
    deviations = (m.predict(new, return_std=True)[1] for m in (model, reference))
    agree(*deviations, "deviation", SEARCHED[dtype.name])
    labels = y > 0
    model, reference = classifier(backend=backend.name).fit(backend.asarray(X), labels), classifier().fit(X, labels)
    agree(on(backend, model.predict_proba(backend.asarray(new))), reference.predict_proba(new), "probabilities")


def test_a_stream_of_batches(backend):
    X, y = data()
    model, reference = regressor(backend=backend.name), regressor()
    for rows in (slice(0, 20), slice(20, 60)):
        model.partial_fit(backend.asarray(X[rows]), y[rows])
        reference.partial_fit(X[rows], y[rows])
    agree(model.predict(X), reference.predict(X), "mean")
    labels = np.where(y > 0, 1, 0)
    model, reference = classifier(backend=backend.name), classifier()
    model.partial_fit(backend.asarray(X), backend.asarray(labels), classes=backend.asarray(np.arange(2)))
    agree(model.predict_proba(X), reference.partial_fit(X, labels, classes=[0, 1]).predict_proba(X), "probabilities")


@pytest.mark.parametrize("make", [regressor, classifier])
@pytest.mark.parametrize("noise", [{}, {"noise": "input-dependent"}, {"shared_noise": True}])
def test_files_go_from_any_backend_to_any(backend, tmp_path, make, noise):
    if make is classifier and noise:
        pytest.skip("classifiers have no noise")
    X, y = data()
    y = np.where(y > 0, 1, 0) if make is classifier else y
    trained = make(backend=backend.name, **noise).fit(X, y)
    there, back = tmp_path / "there.npz", tmp_path / "back.npz"
    trained.save(there)
    here = type(trained).load(there)
    assert here.backend == "numpy"
    assert here.state_.mlp.backend is NUMPY
    assert isinstance(here.predict(X), np.ndarray)
    here.save(back)
    again = type(trained).load(back, backend=backend.name)
    assert again.state_.mlp.backend is again.state_.likelihood.backend is backend
    for left, right in zip(trained.state_.layers, again.state_.layers):
        assert np.array_equal(*(on(backend, layer.posterior.mean) for layer in (left, right)))
    expected, came_back, on_numpy = (
        m.predict_proba(X) if make is classifier else m.predict(X) for m in (trained, again, here)
    )
    agree(came_back, expected, "prediction after two files")
    agree(on_numpy, expected, "prediction on NumPy")
    on(backend, again.predict(backend.asarray(X)))
    again.partial_fit(backend.asarray(X), y)
    assert again.n_iter_ == trained.n_iter_ + 1


def test_copies_and_pickles(backend):
    X, y = data()
    model = regressor(backend=backend.name).fit(X, y)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.state_.mlp.backend is backend
        assert np.array_equal(twin.predict(X), model.predict(X))


def test_a_model_from_the_device_loads_where_there_is_no_cupy(tmp_path):
    X, y = data()
    path = tmp_path / "model.npz"
    regressor(backend="double").fit(X, y).save(path)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(balinp.__file__).parents[1])!r})\n"
        "sys.modules['cupy'] = sys.modules['cupyx'] = sys.modules['balinp.testing'] = None\n"
        f"import numpy, balinp; print(balinp.BALIRegressor.load({str(path)!r}).predict(numpy.zeros((1, 3))).shape)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "(1,)\n"


def test_arrays_of_another_device_are_refused():
    X, y = data()
    moved = DOUBLE.asarray(X)
    for call in (lambda: regressor().fit(moved, y), lambda: regressor().fit(X, y).predict(moved)):
        with pytest.raises(InvalidTypeError, match="X is a GPU array; use backend='cupy'"):
            call()
    with pytest.raises(InvalidTypeError, match="y is a GPU array"):
        classifier().fit(X, DOUBLE.asarray(y))


@pytest.mark.parametrize("name", ["torch", None, 3, ["cupy"]])
def test_an_unknown_backend_is_refused(name):
    X, y = data()
    with pytest.raises(InvalidArgumentError, match="backend must be 'numpy' or 'cupy'"):
        regressor(backend=name).fit(X, y)


def test_bad_values_on_the_device_are_refused_as_on_the_host(backend):
    X, y = data()
    X[2, 1] = np.nan
    with pytest.raises(InvalidArgumentError, match="X contains NaN in row 2, column 1"):
        regressor(backend=backend.name).fit(backend.asarray(X), y)
    with pytest.raises(InvalidArgumentError, match="two-dimensional"):
        regressor(backend=backend.name).fit(backend.asarray(y), y)
