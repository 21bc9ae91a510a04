"""States, records and scales as JSON headers and NumPy arrays, and back, each value checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import Backend
from .errors import ModelFileError
from .heteroscedastic import Heteroscedastic
from .likelihoods import Categorical, Gaussian
from .matrix_normal import MatrixNormal
from .mlp import MLP
from .scales import Standardizer
from .state import BALIState, LayerState
from .statistics import LayerStatistics
from .training import IterationRecord
from .wide import Span

_SUMS = ("gram", "cross", "target_gram", "curvature")
SMALLEST, LARGEST = np.finfo(np.float64).tiny, np.finfo(np.float64).max
_LAYER_NUMBERS = {  # with the arguments of checked_number that say what they may be
    "prior_precision": (SMALLEST,),
    "determined": (-1, 1),
    "effective_parameters": (-1,),
    "log_evidence": (),
}
_STATE_NUMBERS = (
    *("temperature", "step_scale", "iteration", "training_loss", "parameters_per_target"),
    "predictive_temperature",
)
_RECORD_TUPLES = ("noise_variance", "prior_precision", "effective_parameters", "log_evidence")
MOST_ROWS = 2.0**63  # that a model can have seen
_BIT_GENERATORS = (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)


def packed_state(state: BALIState) -> tuple[dict[str, Any], dict[str, Any]]:
    """(JSON header, arrays on the host) of ``state``."""
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
    for index, draws in enumerate(state.deviations or ()):
        arrays[f"deviations.{index}"] = draws
    for index, layer in enumerate(state.layers):
        numbers = {name: getattr(layer, name) for name in _LAYER_NUMBERS}
        header["layers"].append({**numbers, "count": layer.statistics.count})
        p = layer.posterior
        arrays[f"mean.{index}"] = p.mean
        arrays[f"row_precision.{index}"], arrays[f"column_covariance.{index}"] = p.row_precision, p.column_covariance
        arrays.update({f"{name}.{index}": getattr(layer.statistics, name) for name in _SUMS})
    return header, {name: state.mlp.backend.to_host(value) for name, value in arrays.items()}


def unpacked_state(
    header: dict[str, Any], arrays: dict[str, np.ndarray], dtype: np.dtype, backend: Backend
) -> BALIState:
    """The state of ``packed_state``, bit for bit, on ``backend``; raises a BALIError or KeyError for what is none."""
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
            checked_number(limits, "floor", SMALLEST), checked_number(limits, "ceiling", SMALLEST), reference, backend
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
        sums = LayerStatistics(checked_number(numbers, "count", SMALLEST), *(part[name] for name in _SUMS))
        layers.append(
            LayerState(posterior, sums, *(checked_number(numbers, n, *may) for n, may in _LAYER_NUMBERS.items()))
        )
    state = header["state"]
    rest = (
        checked_number(state, "temperature", 0),
        checked_number(state, "step_scale", 0, 1),
        checked_count(state, "iteration"),
    )
    last = checked_number(state, "training_loss"), checked_number(state, "parameters_per_target", 0)
    chosen = state.get("predictive_temperature") is not None  # files from before it have none
    heat = checked_number(state, "predictive_temperature", 0) if chosen else None
    if heat and not rest[0]:
        raise ModelFileError("predictive_temperature must be 0 where temperature is: there are no draws to widen")
    if "deviations.0" not in arrays:
        return BALIState(mlp, likelihood, tuple(layers), *rest, *last, heat)
    draws = arrays["deviations.0"].shape[:1]  # as many of every layer
    if not draws or draws[0] < 1:
        raise ModelFileError("deviations must be draws of every layer's weights, at least one")
    deviations = unpacked_weights("deviations", mlp, arrays, dtype, draws)
    return BALIState(mlp, likelihood, tuple(layers), *rest, *last, heat, deviations)


def unpacked_weights(
    name: str, mlp: MLP, arrays: dict[str, np.ndarray], dtype: np.dtype, draws: tuple[int, ...] = ()
) -> tuple[Any, ...]:
    """Weights (*draws, D_l, K_l) of every layer of ``mlp``, each checked."""
    return tuple(
        mlp.backend.asarray(_checked(f"{name} of layer {index}", arrays[f"{name}.{index}"], (*draws, d, k), dtype))
        for index, (d, k) in enumerate(mlp.shapes)
    )


def unpacked_record(record: dict[str, Any]) -> IterationRecord:
    """The record whose asdict went through JSON."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    for name, value in values.items():
        several = name in _RECORD_TUPLES
        numbers = value if several else (value,)
        if several != isinstance(value, tuple) or not all(
            type(v) in (int, float) or (v is None and name == "test_nll") for v in numbers
        ):
            raise ModelFileError(f"history must hold {'numbers' if several else 'a number'} as {name}, got {value!r}")
    return IterationRecord(**values)


def unpacked_generator(state: Any) -> np.random.Generator:
    """A generator of the kind and in the state that ``bit_generator.state`` gave."""
    bit_generator = {kind.__name__: kind for kind in _BIT_GENERATORS}[state["bit_generator"]]()
    bit_generator.state = state
    return np.random.Generator(bit_generator)


def pack_scaler(name: str, scaler: Standardizer, arrays: dict[str, np.ndarray]) -> None:
    """Put the scaler's arrays into ``arrays``."""
    arrays[f"{name}.offset"], arrays[f"{name}.scale"] = scaler.offset, scaler.scale


def unpacked_scaler(name: str, arrays: dict[str, np.ndarray], columns: int, what: str) -> Standardizer:
    """The scaler of ``pack_scaler`` for so many columns."""
    parts = [arrays[f"{name}.{part}"] for part in ("offset", "scale")]
    for part in parts:
        if part.shape != (columns,) or part.dtype != np.float64 or not np.all(np.isfinite(part)):
            raise ModelFileError(f"{what} does not fit the network: it must be {columns} finite float64 numbers")
    if not np.all(parts[1] > 0):
        raise ModelFileError(f"{what} must be positive")
    return Standardizer(*parts)


def unpacked_span(name: str, arrays: dict[str, np.ndarray], inputs: int) -> Span:
    """The span whose basis is ``arrays[name]``, of a network with so many inputs."""
    basis = arrays[name]
    if basis.ndim != 2 or basis.dtype != np.float64 or basis.shape[1] + 1 != inputs or not np.all(np.isfinite(basis)):
        raise ModelFileError(f"the span of the inputs does not fit the network: it must have {inputs - 1} columns")
    if not np.allclose(basis.T @ basis, np.eye(inputs - 1), atol=1e-6):
        raise ModelFileError("the span of the inputs must have an orthonormal basis")
    return Span(basis)


def _checked(what: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if array.shape != shape or array.dtype != dtype or not np.all(np.isfinite(array)):
        raise ModelFileError(f"{what} must be finite {dtype} numbers of shape {shape}")
    return array


def checked_number(numbers: dict[str, Any], name: str, least: float | None = None, most: float = LARGEST) -> float:
    """A number of the header, between ``least`` and ``most``; without ``least`` any, NaN included."""
    value = numbers[name]
    if type(value) not in (int, float) or (least is not None and not least <= value <= most):
        raise ModelFileError(f"{name} must be a number" + ("" if least is None else f" from {least:g} to {most:g}"))
    return float(value)


def checked_count(numbers: dict[str, Any], name: str) -> int:
    """A whole number of the header, from 0."""
    value = numbers[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise ModelFileError(f"{name} must be a whole number, got {value!r}")
    return value
