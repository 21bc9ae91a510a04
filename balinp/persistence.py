"""Models on disk: estimators with their states, scales and parameters, checked value by value when they come back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .backend import NUMPY, Backend
from .errors import BALIError, ModelFileError
from .files import Kind, read_arrays, write_arrays
from .heteroscedastic import Heteroscedastic
from .likelihoods import Gaussian
from .packing import (
    MOST_ROWS,
    SMALLEST,
    checked_count,
    checked_number,
    pack_scaler,
    packed_state,
    unpacked_generator,
    unpacked_record,
    unpacked_scaler,
    unpacked_span,
    unpacked_state,
)

MODEL = Kind("balinp-model", 1, "balinp model", "give a model written by save or balinp fit --out")


def save_estimator(estimator: Any, path: str | Path, extra: Any = None) -> None:
    """Write a fitted BALIRegressor or BALIClassifier, with any JSON value ``extra`` beside it."""
    header, arrays = packed_state(estimator.state_)
    generator = getattr(estimator, "_generator", None)
    header.update(
        estimator=type(estimator).__name__,
        params=json_params(estimator.get_params()),
        history=[asdict(record) for record in estimator.history_],
        n_iter=estimator.n_iter_,
        converged=estimator.converged_,
        n_rows_seen=estimator.n_rows_seen_,
        predict_seed=estimator._predict_seed,
        dtype=np.dtype(estimator._dtype).name,
        feature_names=estimator._names(),
        generator=None if generator is None else generator.bit_generator.state,
        extra=extra,
    )
    pack_scaler("x_scaler", estimator.x_scaler_, arrays)
    if estimator.x_span_ is not None:
        arrays["x_span"] = estimator.x_span_.basis
    if hasattr(estimator, "classes_"):
        arrays["classes"] = (
            estimator.classes_.astype(str) if estimator.classes_.dtype.kind == "O" else estimator.classes_
        )
        header["classes_are_objects"] = estimator.classes_.dtype.kind == "O"
    else:
        pack_scaler("y_scaler", estimator.y_scaler_, arrays)
        header["flat_y"] = estimator._flat_y
    write_arrays(path, MODEL, header, arrays)


def load_estimator(path: str | Path, backend: Backend = NUMPY) -> Any:
    """The estimator saved at ``path``, on ``backend``; raises ModelFileError for a damaged, foreign or newer file."""
    return load_with_extra(path, backend)[0]


def load_with_extra(path: str | Path, backend: Backend = NUMPY) -> tuple[Any, Any]:
    """The estimator saved at ``path`` and the ``extra`` value that was saved with it."""
    header, arrays = read_arrays(path, MODEL)
    try:
        return _unpacked(header, arrays, backend), header["extra"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, BALIError) as error:
        raise ModelFileError(f"{path} is damaged: {type(error).__name__}: {error}; save the model again") from error


def _unpacked(header: dict[str, Any], arrays: dict[str, np.ndarray], backend: Backend) -> Any:
    from .classifier import BALIClassifier  # the imports against the flow: estimators know how to save themselves
    from .regressor import BALIRegressor

    kinds: dict[str, Any] = {"BALIRegressor": BALIRegressor, "BALIClassifier": BALIClassifier}
    params = dict(header["params"], backend=backend.name)
    params["hidden_widths"] = tuple(params["hidden_widths"])
    estimator: Any = kinds[header["estimator"]](**params)
    dtype = np.dtype({"float32": np.float32, "float64": np.float64}[header["dtype"]])
    estimator._dtype = dtype.type
    estimator.state_ = unpacked_state(header, arrays, dtype, backend)
    inputs, outputs = estimator.state_.mlp.widths[0], estimator.state_.mlp.widths[-1]
    if "x_span" in arrays:
        estimator.x_span_ = unpacked_span("x_span", arrays, inputs)
        inputs = len(estimator.x_span_.basis)
    estimator.history_ = [unpacked_record(record) for record in header["history"]]
    estimator.n_iter_, estimator.converged_ = checked_count(header, "n_iter"), bool(header["converged"])
    estimator.n_rows_seen_ = checked_number(header, "n_rows_seen", SMALLEST, MOST_ROWS)
    estimator._predict_seed = checked_count(header, "predict_seed")
    estimator.n_features_in_, names = inputs, header["feature_names"]
    if names is not None:
        if type(names) is not list or [type(name) for name in names] != [str] * inputs:
            raise ModelFileError(f"feature_names must be {inputs} texts")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    estimator.x_scaler_ = unpacked_scaler("x_scaler", arrays, inputs, "the input scale")
    estimator._generator = unpacked_generator(header["generator"])
    if header["estimator"] == "BALIClassifier":
        classes = arrays["classes"]
        if classes.shape != (outputs,) or not np.array_equal(np.unique(classes), classes):
            raise ModelFileError("the outputs do not fit the network: classes must be its distinct labels, sorted")
        estimator.classes_ = classes.astype(object) if header["classes_are_objects"] else classes
    else:
        targets = outputs // 2 if estimator.noise == "input-dependent" else outputs
        estimator.y_scaler_ = unpacked_scaler("y_scaler", arrays, targets, "the scale of the outputs")
        estimator._flat_y = bool(header["flat_y"])
        largest = float(np.finfo(estimator._dtype).max) ** 0.5  # as in fit, so that no variance under- or overflows
        if np.any(estimator.y_scaler_.scale > largest) or np.any(estimator.y_scaler_.scale < 1 / largest):
            raise ModelFileError("the scale of the outputs, squared, leaves their dtype")
    noise = {Gaussian: "constant", Heteroscedastic: "input-dependent"}.get(type(estimator.state_.likelihood))
    if noise != getattr(estimator, "noise", None):
        raise ModelFileError("the likelihood does not fit the estimator")
    estimator._check_parameters()
    if estimator.state_.temperature > max(1.0, estimator._fit_settings(1).max_temperature):
        raise ModelFileError("temperature must be at most the setting max_temperature")
    return estimator


def json_params(params: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON, without the backend, which is the loader's choice; a random_state that is no integer is
    not kept (the generator's state is, separately)."""
    state = params["random_state"]
    kept = dict(params, hidden_widths=[int(w) for w in params["hidden_widths"]])
    del kept["backend"]
    kept["random_state"] = int(state) if hasattr(state, "__index__") else None
    return {k: int(v) if hasattr(v, "__index__") and not isinstance(v, bool) else v for k, v in kept.items()}
