"""Models on disk: npz arrays and a JSON header with a format version; never pickle, never half a file."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import BALIError, ModelFileError
from .likelihoods import Categorical, Gaussian
from .matrix_normal import MatrixNormal
from .mlp import MLP
from .solver import BALIState, LayerState
from .statistics import LayerStatistics
from .training import IterationRecord
from .validation import Standardizer

FORMAT, VERSION = "balinp-model", 1
_SUMS = ("gram", "cross", "target_gram", "curvature")
_LAYER_NUMBERS = ("prior_precision", "determined", "effective_parameters", "log_evidence")
_STATE_NUMBERS = ("temperature", "step_scale", "iteration", "training_loss")


def write_atomically(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write`` on a temporary file beside ``path`` and rename it: ``path`` holds the old content or all of the
    new.

    Raises ModelFileError naming the path when the folder cannot be written.
    """
    target = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            temporary = file.name
            write(file)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise ModelFileError(f"cannot write {target}: {error.strerror or error}; choose a writable folder") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def save_estimator(estimator: Any, path: str | Path, extra: Any = None) -> None:
    """Write a fitted BALIRegressor or BALIClassifier, with any JSON value ``extra`` beside it."""
    header, arrays = _packed_state(estimator.state_)
    generator = getattr(estimator, "_generator", None)
    header.update(
        format=FORMAT,
        format_version=VERSION,
        estimator=type(estimator).__name__,
        params=_json_params(estimator.get_params()),
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
    _pack_scaler("x_scaler", estimator.x_scaler_, arrays)
    if hasattr(estimator, "classes_"):
        arrays["classes"] = (
            estimator.classes_.astype(str) if estimator.classes_.dtype.kind == "O" else estimator.classes_
        )
        header["classes_are_objects"] = estimator.classes_.dtype.kind == "O"
    else:
        _pack_scaler("y_scaler", estimator.y_scaler_, arrays)
        header["flat_y"] = estimator._flat_y
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def load_estimator(path: str | Path) -> Any:
    """The estimator saved at ``path``; raises ModelFileError for a damaged, foreign or newer file."""
    return load_with_extra(path)[0]


def load_with_extra(path: str | Path) -> tuple[Any, Any]:
    """The estimator saved at ``path`` and the ``extra`` value that was saved with it."""
    header, arrays = _read(path)
    try:
        return _unpacked(header, arrays), header["extra"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, BALIError) as error:
        raise ModelFileError(f"{path} is damaged: {type(error).__name__}: {error}; save the model again") from error


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        foreign = header["format"] != FORMAT
        version = int(header["format_version"])
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no file {path}; give a model written by save or balinp fit --out") from error
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error}") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        MemoryError,
        NotImplementedError,
    ) as error:
        raise ModelFileError(
            f"{path} is not a balinp model, or is truncated ({type(error).__name__}: {error})"
        ) from error
    if foreign:
        raise ModelFileError(f"{path} is not a balinp model but {header['format']!r}; give one written by save")
    if version > VERSION:
        raise ModelFileError(f"{path} has format version {version}; this balinp reads up to {VERSION}: upgrade balinp")
    return header, arrays


def _unpacked(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    from . import estimators  # the one import against the flow: estimators know how to save themselves

    kinds = {"BALIRegressor": estimators.BALIRegressor, "BALIClassifier": estimators.BALIClassifier}
    params = dict(header["params"])
    params["hidden_widths"] = tuple(params["hidden_widths"])
    estimator: Any = kinds[header["estimator"]](**params)
    estimator.state_ = _unpacked_state(header, arrays)
    records: list[dict[str, Any]] = [
        {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()} for record in header["history"]
    ]
    estimator.history_ = [IterationRecord(**record) for record in records]
    estimator.n_iter_, estimator.converged_ = int(header["n_iter"]), bool(header["converged"])
    estimator.n_rows_seen_ = float(header["n_rows_seen"])
    estimator._predict_seed = int(header["predict_seed"])
    estimator._dtype = {"float32": np.float32, "float64": np.float64}[header["dtype"]]
    if header["feature_names"] is not None:
        estimator.feature_names_in_ = np.array(header["feature_names"], dtype=object)
    estimator.x_scaler_ = _unpacked_scaler("x_scaler", arrays)
    estimator.n_features_in_ = len(estimator.x_scaler_.offset)
    if estimator.n_features_in_ != estimator.state_.mlp.widths[0]:
        raise ModelFileError("the input scale does not fit the network")
    if header["generator"] is not None:
        bit_generator = getattr(np.random, header["generator"]["bit_generator"])()
        bit_generator.state = header["generator"]
        estimator._generator = np.random.Generator(bit_generator)
    if header["estimator"] == "BALIClassifier":
        estimator.classes_ = arrays["classes"].astype(object) if header["classes_are_objects"] else arrays["classes"]
        outputs = len(estimator.classes_)
    else:
        estimator.y_scaler_ = _unpacked_scaler("y_scaler", arrays)
        estimator._flat_y = bool(header["flat_y"])
        outputs = len(estimator.y_scaler_.offset)
    if outputs != estimator.state_.mlp.widths[-1]:
        raise ModelFileError("the outputs do not fit the network")
    return estimator


def _packed_state(state: BALIState) -> tuple[dict[str, Any], dict[str, Any]]:
    likelihood, arrays = state.likelihood, {}
    header: dict[str, Any] = {
        "widths": list(state.mlp.widths),
        "activation": state.mlp.activation,
        "likelihood": type(likelihood).__name__,
        "state": {name: getattr(state, name) for name in _STATE_NUMBERS},
        "layers": [],
    }
    if isinstance(likelihood, Gaussian):
        arrays["noise_variance"] = likelihood.noise_variance
    for index, layer in enumerate(state.layers):
        numbers = {name: getattr(layer, name) for name in _LAYER_NUMBERS}
        header["layers"].append({**numbers, "count": layer.statistics.count})
        p = layer.posterior
        arrays[f"mean.{index}"] = p.mean
        arrays[f"row_precision.{index}"], arrays[f"column_covariance.{index}"] = p.row_precision, p.column_covariance
        arrays.update({f"{name}.{index}": getattr(layer.statistics, name) for name in _SUMS})
    return header, {name: state.mlp.backend.to_host(value) for name, value in arrays.items()}


def _unpacked_state(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> BALIState:
    mlp = MLP(tuple(header["widths"]), header["activation"])
    gaussian = {"Gaussian": True, "Categorical": False}[header["likelihood"]]
    likelihood = Gaussian(arrays["noise_variance"]) if gaussian else Categorical()
    layers = []
    for index, ((d, k), numbers) in enumerate(zip(mlp.shapes, header["layers"], strict=True)):
        shapes = {"mean": (d, k), "row_precision": (d, d), "column_covariance": (k, k)}
        shapes |= {"gram": (d, d), "cross": (d, k), "target_gram": (k, k), "curvature": (k, k)}
        part = {name: arrays[f"{name}.{index}"] for name in shapes}
        for name, shape in shapes.items():
            if part[name].shape != shape or part[name].dtype.kind != "f" or not np.all(np.isfinite(part[name])):
                raise ModelFileError(f"{name} of layer {index} must be finite numbers of shape {shape}")
        posterior = MatrixNormal(part["mean"], part["row_precision"], part["column_covariance"])
        sums = LayerStatistics(float(numbers["count"]), *(part[name] for name in _SUMS))
        layers.append(LayerState(posterior, sums, *(float(numbers[name]) for name in _LAYER_NUMBERS)))
    temperature, step_scale, iteration, loss = (header["state"][name] for name in _STATE_NUMBERS)
    return BALIState(mlp, likelihood, tuple(layers), float(temperature), float(step_scale), int(iteration), float(loss))


def _pack_scaler(name: str, scaler: Standardizer, arrays: dict[str, np.ndarray]) -> None:
    arrays[f"{name}.offset"], arrays[f"{name}.scale"] = scaler.offset, scaler.scale


def _unpacked_scaler(name: str, arrays: dict[str, np.ndarray]) -> Standardizer:
    return Standardizer(arrays[f"{name}.offset"], arrays[f"{name}.scale"])


def _json_params(params: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON; a random_state that is no integer is not kept (the generator's state is, separately)."""
    state = params["random_state"]
    kept = dict(params, hidden_widths=[int(w) for w in params["hidden_widths"]])
    kept["random_state"] = int(state) if hasattr(state, "__index__") else None
    return {k: int(v) if hasattr(v, "__index__") and not isinstance(v, bool) else v for k, v in kept.items()}
