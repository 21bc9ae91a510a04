"""Models on disk: bit-exact round trips, refusal of everything that is not one, nothing half-written."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from balinp import BALIClassifier, BALIRegressor, ModelFileError
from balinp.files import write_atomically
from balinp.persistence import load_with_extra, save_estimator

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
generator = np.random.default_rng(0)
X = generator.standard_normal((50, 3))
Y = np.column_stack([X[:, 0] ** 2, X[:, 1]])
LABELS = np.where(X[:, 0] > 0, "über", "unter")


def fitted(kind, dtype=np.float64):
    options = {"hidden_widths": (6, 4), "max_iterations": 15, "random_state": 3}
    if kind == "regression":
        return BALIRegressor(**options).fit(X.astype(dtype), Y.astype(dtype))
    labels = LABELS.astype(object) if kind == "object labels" else LABELS
    return BALIClassifier(**options, settings={"step": "isotropic"}).fit(X.astype(dtype), labels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["regression", "labels", "object labels"])
def test_round_trip_is_bit_exact_and_training_goes_on_as_if_never_saved(kind, dtype, tmp_path):
    model = fitted(kind, dtype)
    model.converged_ = kind == "labels"  # either comes back
    model.save(tmp_path / "model.npz")
    copy = type(model).load(tmp_path / "model.npz")
    for name in ("converged_", "n_iter_", "n_rows_seen_", "n_features_in_"):
        assert getattr(copy, name) == getattr(model, name)
    assert copy.get_params() == model.get_params()
    assert copy.history_ == model.history_
    for name in ("temperature", "step_scale", "iteration", "training_loss", "parameters_per_target"):
        assert getattr(copy.state_, name) == getattr(model.state_, name) != 0
    for a, b in zip(model.state_.layers, copy.state_.layers):
        for name in ("mean", "row_precision", "column_covariance"):
            np.testing.assert_array_equal(getattr(a.posterior, name), getattr(b.posterior, name), strict=True)
        for name in ("gram", "cross", "target_gram", "curvature"):
            np.testing.assert_array_equal(getattr(a.statistics, name), getattr(b.statistics, name), strict=True)
        assert a.statistics.count == b.statistics.count
        for name in ("prior_precision", "determined", "effective_parameters", "log_evidence"):
            assert getattr(a, name) == getattr(b, name) != 0
    outputs = ("mean", "epistemic", "aleatoric", "probabilities")
    y = Y.astype(dtype) if kind == "regression" else LABELS
    for _ in range(2):  # as saved, and after one more iteration of each
        for name in outputs:
            a, b = (getattr(m.predict_distribution(X.astype(dtype)), name) for m in (model, copy))
            if a is None:
                assert b is None
            else:
                np.testing.assert_array_equal(a, b, strict=True)
        np.testing.assert_array_equal(model.predict(X.astype(dtype)), copy.predict(X.astype(dtype)), strict=True)
        for m in (model, copy):
            m.partial_fit(X.astype(dtype), y)


def test_names_of_columns_are_kept(tmp_path):
    """A loaded model refuses columns in another order, as the one that was saved does; and a file with other names than
    inputs is refused."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "ü"])
    model = BALIRegressor((3,), max_iterations=3, random_state=0, validation_fraction=0).fit(frame, Y[:, 0])
    model.save(tmp_path / "m.npz")
    copy = BALIRegressor.load(tmp_path / "m.npz")
    assert list(copy.feature_names_in_) == ["a", "b", "ü"]
    np.testing.assert_array_equal(copy.predict(frame), model.predict(frame))
    with pytest.raises(ValueError, match="in the order seen at fit"):
        copy.predict(frame[["b", "a", "ü"]])
    for bad in (["a", "b"], ["a", "b", 3], "abc"):
        rewritten(tmp_path / "m.npz", {"feature_names": bad})
        with pytest.raises(ModelFileError, match="feature_names must be 3 texts"):
            BALIRegressor.load(tmp_path / "m.npz")


def test_the_same_model_gives_the_same_file(tmp_path):
    model = fitted("regression")
    model.save(tmp_path / "a.npz")
    model.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_extra_travels_along(tmp_path):
    extra = {"columns": ["a", "b"], "nested": [1, None, "ü"]}
    save_estimator(fitted("labels"), tmp_path / "m.npz", extra)
    assert load_with_extra(tmp_path / "m.npz")[1] == extra


def test_every_truncation_is_refused_by_name(tmp_path):
    path = tmp_path / "model.npz"
    fitted("regression").save(path)
    whole = path.read_bytes()
    for size in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match=r"model\.npz"):
            BALIRegressor.load(path)


def test_flipped_bytes_are_refused_or_harmless(tmp_path):
    """The zip's checksums cover the arrays: a changed byte is refused, or lies where zip keeps nothing of ours."""
    path = tmp_path / "model.npz"
    model = fitted("regression")
    model.save(path)
    whole, refused = bytearray(path.read_bytes()), 0
    places = np.random.default_rng(1).integers(0, len(whole), 80)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            copy = BALIRegressor.load(path)
        except ModelFileError:
            refused += 1
        else:
            np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    assert refused > 0.8 * len(places)


def rewritten(path, header=None, **arrays):
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    head = json.loads(content["header"].tobytes())
    head.update(header or {})
    content["header"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    content.update(arrays)
    with open(path, "wb") as file:
        np.savez(file, **content)


COLD = {"temperature": 0.0, "step_scale": 0.1, "iteration": 1, "training_loss": 1.0, "parameters_per_target": 1.0}
COLD |= {"predictive_temperature": 0.5}
HOT = COLD | {"temperature": 1.5}


@pytest.mark.parametrize(
    ("header", "arrays", "words"),
    [
        ({"format_version": 2}, {}, "version 2.*upgrade"),
        ({"format": "other"}, {}, "'other'"),
        ({"likelihood": "Categorical"}, {}, "likelihood does not fit the estimator"),
        ({"estimator": "os.system"}, {}, "damaged"),
        ({"widths": [3, 6, 5, 2]}, {}, "layer 1"),
        ({"widths": [3, 6, 4]}, {}, "damaged"),
        ({"layers": []}, {}, "damaged"),
        ({"n_rows_seen": 1e300}, {}, "n_rows_seen must be a number"),
        ({"state": COLD}, {}, "predictive_temperature must be 0"),
        ({"state": HOT}, {}, "temperature must be at most"),
        ({"dtype": "object"}, {}, "damaged"),
        ({}, {"mean.0": np.full((4, 6), np.nan)}, "mean of layer 0 must be finite"),
        ({}, {"gram.1": np.zeros((2, 2))}, "gram of layer 1"),
        ({}, {"noise_variance": np.array([-1.0, 1.0])}, "noise_variance"),
        ({}, {"y_scaler.offset": np.zeros(3), "y_scaler.scale": np.ones(3)}, "outputs"),
        ({}, {"x_scaler.offset": np.zeros(2), "x_scaler.scale": np.ones(2)}, "input scale"),
        ({}, {"x_scaler.scale": np.array([1.0, 0.0, 1.0])}, "input scale must be positive"),
        ({}, {"y_scaler.scale": np.array([1.0, 1e200])}, "squared, leaves their dtype"),
        ({}, {"y_scaler.scale": np.array([1.0, 1e-200])}, "squared, leaves their dtype"),
    ],
)
def test_inconsistent_files_are_refused(header, arrays, words, tmp_path):
    path = tmp_path / "model.npz"
    fitted("regression").save(path)
    rewritten(path, header, **arrays)
    with pytest.raises(ModelFileError, match=words):
        BALIRegressor.load(path)


@pytest.mark.parametrize("classes", [["über", "unter"], ["über", "über"], ["unter"]])
def test_classes_that_do_not_fit_the_network_are_refused(classes, tmp_path):
    """In another order they would be other labels."""
    path = tmp_path / "model.npz"
    fitted("labels").save(path)
    rewritten(path)
    BALIClassifier.load(path)
    rewritten(path, classes=np.array(classes))
    with pytest.raises(ModelFileError, match="must be its distinct labels, sorted"):
        BALIClassifier.load(path)


def test_a_share_of_parameters_must_be_a_number_of_at_least_nought(tmp_path):
    path = tmp_path / "model.npz"
    model = fitted("regression")
    model.save(path)
    with np.load(path) as file:
        state = json.loads(file["header"].tobytes())["state"]
    assert state["parameters_per_target"] == model.state_.parameters_per_target
    for bad in (-0.5, "many", None):
        rewritten(path, {"state": {**state, "parameters_per_target": bad}})
        with pytest.raises(ModelFileError, match="parameters_per_target"):
            BALIRegressor.load(path)


def test_the_predictive_temperature_is_kept_and_older_files_have_none(tmp_path):
    path, model = tmp_path / "model.npz", fitted("regression")
    model.state_ = replace(model.state_, temperature=0.1, predictive_temperature=2.5)
    model.save(path)
    assert BALIRegressor.load(path).state_.predictive_temperature == 2.5
    with np.load(path) as file:
        state = json.loads(file["header"].tobytes())["state"]
    for bad in (-0.5, "hot"):
        rewritten(path, {"state": {**state, "predictive_temperature": bad}})
        with pytest.raises(ModelFileError, match="predictive_temperature"):
            BALIRegressor.load(path)
    del state["predictive_temperature"]
    rewritten(path, {"state": state})
    assert BALIRegressor.load(path).state_.predictive_temperature is None


def test_foreign_files_are_refused(tmp_path):
    files = {"text": b"hello", "empty": b"", "zip": b"PK\x03\x04rest"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "pickled.npz", header=np.array([{"format": 1}], dtype=object))
    for name in [*files, "other.npz", "array.npy", "pickled.npz"]:
        with pytest.raises(ModelFileError, match="not a balinp model"):
            BALIRegressor.load(tmp_path / name)
    with pytest.raises(ModelFileError, match="no file"):
        BALIRegressor.load(tmp_path / "missing.npz")
    with pytest.raises(ModelFileError, match="cannot read"):
        BALIRegressor.load(tmp_path)


def test_a_model_of_the_other_kind_is_named(tmp_path):
    fitted("labels").save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="holds a BALIClassifier"):
        BALIRegressor.load(tmp_path / "m.npz")


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def failing(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelFileError, match="No space left"):
        write_atomically(path, failing)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(ModelFileError, match="cannot write"):
        write_atomically(tmp_path / "no" / "such" / "folder", lambda file: file.write(b"x"))
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_text() == "new"
