"""Models on disk: npz arrays and a JSON header with a format version; never pickle, never half a file."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .backend import NUMPY, Backend
from .errors import BALIError, ModelFileError
from .heteroscedastic import Heteroscedastic
from .likelihoods import Categorical, Gaussian
from .matrix_normal import MatrixNormal
from .mlp import MLP
from .solver import BALIState, LayerState
from .statistics import LayerStatistics
from .training import IterationRecord
from .validation import Standardizer

FORMAT, VERSION = "balinp-model", 1
_SUMS = ("gram", "cross", "target_gram", "curvature")
_SMALLEST, _LARGEST = np.finfo(np.float64).tiny, np.finfo(np.float64).max
_LAYER_NUMBERS = {  # with the arguments of _number that say what they may be
    "prior_precision": (_SMALLEST,),
    "determined": (-1, 1),
    "effective_parameters": (-1,),
    "log_evidence": (),
}
_STATE_NUMBERS = ("temperature", "step_scale", "iteration", "training_loss", "parameters_per_target")
_BIT_GENERATORS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)


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
    text = json.dumps(header, default=lambda array: array.tolist())  # some generators' states hold arrays
    arrays["header"] = np.frombuffer(text.encode(), dtype=np.uint8)
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def load_estimator(path: str | Path, backend: Backend = NUMPY) -> Any:
    """The estimator saved at ``path``, on ``backend``; raises ModelFileError for a damaged, foreign or newer file."""
    return load_with_extra(path, backend)[0]


def load_with_extra(path: str | Path, backend: Backend = NUMPY) -> tuple[Any, Any]:
    """The estimator saved at ``path`` and the ``extra`` value that was saved with it."""
    header, arrays = _read(path)
    try:
        return _unpacked(header, arrays, backend), header["extra"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, BALIError) as error:
        raise ModelFileError(f"{path} is damaged: {type(error).__name__}: {error}; save the model again") from error


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with open(path, "rb") as raw:
            arrays = _members(raw)
        header = json.loads(arrays.pop("header").tobytes())
        foreign = header["format"] != FORMAT
        version = int(header["format_version"])
    except FileNotFoundError as error:
        raise ModelFileError(f"there is no file {path}; give a model written by save or balinp fit --out") from error
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error}") from error
    except Exception as error:  # zipfile, zlib, NumPy's header parser and json each have their own for foreign bytes
        raise ModelFileError(
            f"{path} is not a balinp model, or is truncated ({type(error).__name__}: {error}); give one "
            f"written by save or by 'balinp fit --out'"
        ) from error
    if foreign:
        raise ModelFileError(f"{path} is not a balinp model but {header['format']!r}; give one written by save")
    if version > VERSION:
        raise ModelFileError(f"{path} has format version {version}; this balinp reads up to {VERSION}: upgrade balinp")
    return header, arrays


def _members(raw: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays in an open npz file as np.savez writes it: not compressed, so they cannot outgrow the file itself."""
    with zipfile.ZipFile(raw) as archive:
        entries = archive.infolist()
    size = raw.seek(0, os.SEEK_END)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise ValueError("its members are compressed, or claim to be larger than the file")
    raw.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, on odd headers
        with np.load(raw, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def _unpacked(header: dict[str, Any], arrays: dict[str, np.ndarray], backend: Backend) -> Any:
    from .classifier import BALIClassifier  # the imports against the flow: estimators know how to save themselves
    from .regressor import BALIRegressor

    kinds: dict[str, Any] = {"BALIRegressor": BALIRegressor, "BALIClassifier": BALIClassifier}
    params = dict(header["params"], backend=backend.name)
    params["hidden_widths"] = tuple(params["hidden_widths"])
    estimator: Any = kinds[header["estimator"]](**params)
    dtype = np.dtype({"float32": np.float32, "float64": np.float64}[header["dtype"]])
    estimator._dtype = dtype.type
    estimator.state_ = _unpacked_state(header, arrays, dtype, backend)
    inputs, outputs = estimator.state_.mlp.widths[0], estimator.state_.mlp.widths[-1]
    estimator.history_ = [_unpacked_record(record) for record in header["history"]]
    estimator.n_iter_, estimator.converged_ = _count(header, "n_iter"), bool(header["converged"])
    estimator.n_rows_seen_ = _number(header, "n_rows_seen", _SMALLEST)
    estimator._predict_seed = _count(header, "predict_seed")
    estimator.n_features_in_, names = inputs, header["feature_names"]
    if names is not None:
        if type(names) is not list or [type(name) for name in names] != [str] * inputs:
            raise ModelFileError(f"feature_names must be {inputs} texts")
        estimator.feature_names_in_ = np.array(names, dtype=object)
    estimator.x_scaler_ = _unpacked_scaler("x_scaler", arrays, inputs, "the input scale")
    bit_generator = {kind.__name__: kind for kind in _BIT_GENERATORS}[header["generator"]["bit_generator"]]()
    bit_generator.state = header["generator"]
    estimator._generator = np.random.Generator(bit_generator)
    if header["estimator"] == "BALIClassifier":
        classes = arrays["classes"]
        if classes.shape != (outputs,) or not np.array_equal(np.unique(classes), classes):
            raise ModelFileError("the outputs do not fit the network: classes must be its distinct labels, sorted")
        estimator.classes_ = classes.astype(object) if header["classes_are_objects"] else classes
    else:
        targets = outputs // 2 if estimator.noise == "input-dependent" else outputs
        estimator.y_scaler_ = _unpacked_scaler("y_scaler", arrays, targets, "the scale of the outputs")
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
    elif isinstance(likelihood, Heteroscedastic):
        header["noise_limits"] = [likelihood.floor, likelihood.ceiling]
        arrays["reference_precision"] = likelihood.reference_precision
    for index, layer in enumerate(state.layers):
        numbers = {name: getattr(layer, name) for name in _LAYER_NUMBERS}
        header["layers"].append({**numbers, "count": layer.statistics.count})
        p = layer.posterior
        arrays[f"mean.{index}"] = p.mean
        arrays[f"row_precision.{index}"], arrays[f"column_covariance.{index}"] = p.row_precision, p.column_covariance
        arrays.update({f"{name}.{index}": getattr(layer.statistics, name) for name in _SUMS})
    return header, {name: state.mlp.backend.to_host(value) for name, value in arrays.items()}


def _unpacked_state(
    header: dict[str, Any], arrays: dict[str, np.ndarray], dtype: np.dtype, backend: Backend
) -> BALIState:
    mlp = MLP(tuple(header["widths"]), header["activation"], backend)
    kind = {"Gaussian": Gaussian, "Categorical": Categorical, "Heteroscedastic": Heteroscedastic}[header["likelihood"]]
    likelihood: Any = Categorical(backend)
    if kind is Heteroscedastic:
        if mlp.widths[-1] % 2:
            raise ModelFileError("the outputs do not fit the likelihood: it takes two per target")
        limits = dict(zip(("floor", "ceiling"), header["noise_limits"], strict=True))
        reference = arrays["reference_precision"]
        reference = _checked("reference_precision", reference, reference.shape and (mlp.widths[-1] // 2,), dtype)
        likelihood = Heteroscedastic(
            _number(limits, "floor", _SMALLEST), _number(limits, "ceiling", _SMALLEST), reference, backend
        )
    elif kind is Gaussian:
        variance = arrays["noise_variance"]
        variance = _checked("noise_variance", variance, variance.shape and (mlp.widths[-1],), dtype)
        likelihood = Gaussian(variance, backend)
    layers = []
    for index, ((d, k), numbers) in enumerate(zip(mlp.shapes, header["layers"], strict=True)):
        shapes = {"mean": (d, k), "row_precision": (d, d), "column_covariance": (k, k)}
        shapes |= {"gram": (d, d), "cross": (d, k), "target_gram": (k, k), "curvature": (k, k)}
        part = {
            name: backend.asarray(_checked(f"{name} of layer {index}", arrays[f"{name}.{index}"], shape, dtype))
            for name, shape in shapes.items()
        }
        posterior = MatrixNormal(part["mean"], part["row_precision"], part["column_covariance"], backend)
        sums = LayerStatistics(_number(numbers, "count", _SMALLEST), *(part[name] for name in _SUMS))
        layers.append(LayerState(posterior, sums, *(_number(numbers, n, *may) for n, may in _LAYER_NUMBERS.items())))
    state = header["state"]
    rest = _number(state, "temperature", 0), _number(state, "step_scale", 0, 1), _count(state, "iteration")
    last = _number(state, "training_loss"), _number(state, "parameters_per_target", 0)
    return BALIState(mlp, likelihood, tuple(layers), *rest, *last)


def _unpacked_record(record: dict[str, Any]) -> IterationRecord:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    for value in values.values():
        if any(type(v) not in (int, float, type(None)) for v in (value if isinstance(value, tuple) else (value,))):
            raise ModelFileError(f"history must hold numbers, got {value!r}")
    return IterationRecord(**values)


def _checked(what: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if array.shape != shape or array.dtype != dtype or not np.all(np.isfinite(array)):
        raise ModelFileError(f"{what} must be finite {dtype} numbers of shape {shape}")
    return array


def _number(numbers: dict[str, Any], name: str, least: float | None = None, most: float = _LARGEST) -> float:
    """A number of the header, between ``least`` and ``most``; without ``least`` any, NaN included."""
    value = numbers[name]
    if type(value) not in (int, float) or (least is not None and not least <= value <= most):
        raise ModelFileError(f"{name} must be a number" + ("" if least is None else f" from {least:g} to {most:g}"))
    return float(value)


def _count(numbers: dict[str, Any], name: str) -> int:
    value = numbers[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise ModelFileError(f"{name} must be a whole number, got {value!r}")
    return value


def _pack_scaler(name: str, scaler: Standardizer, arrays: dict[str, np.ndarray]) -> None:
    arrays[f"{name}.offset"], arrays[f"{name}.scale"] = scaler.offset, scaler.scale


def _unpacked_scaler(name: str, arrays: dict[str, np.ndarray], columns: int, what: str) -> Standardizer:
    parts = [arrays[f"{name}.{part}"] for part in ("offset", "scale")]
    for part in parts:
        if part.shape != (columns,) or part.dtype != np.float64 or not np.all(np.isfinite(part)):
            raise ModelFileError(f"{what} does not fit the network: it must be {columns} finite float64 numbers")
    if not np.all(parts[1] > 0):
        raise ModelFileError(f"{what} must be positive")
    return Standardizer(*parts)


def _json_params(params: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON, without the backend, which is the loader's choice; a random_state that is no integer is
    not kept (the generator's state is, separately)."""
    state = params["random_state"]
    kept = dict(params, hidden_widths=[int(w) for w in params["hidden_widths"]])
    del kept["backend"]
    kept["random_state"] = int(state) if hasattr(state, "__index__") else None
    return {k: int(v) if hasattr(v, "__index__") and not isinstance(v, bool) else v for k, v in kept.items()}
