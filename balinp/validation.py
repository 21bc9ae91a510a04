"""What people pass in, turned into the arrays the core works on, or refused: argument, place and remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import InvalidArgumentError, InvalidTypeError


def as_features(X: Any, expected: int | None = None, names: list[str] | None = None) -> np.ndarray:
    """X as a (n, d) array of float32 (when it came so) or float64; the caller's array is never changed.

    ``expected`` features and their ``names``, when known from fit, are checked. Raises InvalidArgumentError for a wrong
    shape, an empty axis, NaN or infinity (with row and column), InvalidTypeError for text, complex, sparse or device
    arrays.
    """
    got = feature_names(X)
    if names is not None and got is not None and got != names:
        missing, new = [n for n in names if n not in got], [n for n in got if n not in names]
        raise InvalidArgumentError(
            f"X must have the feature names seen at fit, in that order; missing {missing}, unexpected {new}"
            if missing or new
            else f"X must have its columns in the order seen at fit: {names}"
        )
    array = _numeric(X, "X")
    if array.ndim != 2:
        raise InvalidArgumentError(
            f"X must be two-dimensional (rows, features), got shape {array.shape}. Reshape your data: X.reshape(-1, 1) "
            f"for a single feature, X.reshape(1, -1) for a single row"
        )
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise InvalidArgumentError(
            f"X must have at least one row and one feature, got 0 sample(s) or 0 feature(s) (shape={array.shape}) "
            f"while a minimum of 1 is required."
        )
    if expected is not None and array.shape[1] != expected:
        raise InvalidArgumentError(
            f"X has {array.shape[1]} features, but BALI is expecting {expected} features as input"
        )
    _refuse_non_finite(array, "X")
    return array


def as_regression_targets(y: Any, rows: int) -> np.ndarray:
    """y as a float array (n,) or (n, k), k ≥ 1, finite; refused as in ``as_features``."""
    if y is None:
        raise InvalidArgumentError("y is required, got None: requires y to be passed, but the target y is None")
    array = _numeric(y, "y")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise InvalidArgumentError(f"y must have shape (rows,) or (rows, outputs), got {array.shape}")
    _refuse_rows(array, rows, "y")
    _refuse_non_finite(array, "y")
    return array


def as_labels(y: Any, rows: int) -> np.ndarray:
    """y as a one-dimensional array of labels of one kind (numbers, text or booleans), none missing."""
    if y is None:
        raise InvalidArgumentError("y is required, got None: requires y to be passed, but the target y is None")
    _refuse_foreign(y, "y")
    array = np.asarray(y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InvalidArgumentError(f"y must be one-dimensional class labels, got shape {array.shape}")
    _refuse_rows(array, rows, "y")
    if array.dtype.kind == "O":
        kinds = {type(v) for v in array}
        if kinds <= {str}:
            return array
        if any(v is None or v != v for v in array):  # NaN is the one value unequal to itself
            row = next(i for i, v in enumerate(array) if v is None or v != v)
            raise InvalidArgumentError(f"y has a missing label in row {row}; drop the row or give the label")
        if not all(isinstance(v, (int, float, bool, np.number)) for v in array):
            raise InvalidTypeError(
                f"y mixes labels of kinds {sorted(k.__name__ for k in kinds)}; use one kind, e.g. all text"
            )
        array = np.array(list(array))
    if array.dtype.kind == "f":
        _refuse_non_finite(array, "y")
        if np.any(array != np.floor(array)):
            raise InvalidArgumentError(
                "Unknown label type: continuous. y must be class labels; use BALIRegressor for numbers"
            )
    elif array.dtype.kind not in "biuUS":
        raise InvalidTypeError(f"y must be class labels (numbers, text or booleans), got dtype {array.dtype}")
    return array


def as_sample_weight(weight: Any, rows: int) -> np.ndarray | None:
    """Non-negative finite weights (n,), not all zero, in float64; None stays None."""
    if weight is None:
        return None
    array = _numeric(weight, "sample_weight").astype(np.float64)
    if array.shape != (rows,):
        raise InvalidArgumentError(f"sample_weight must have shape ({rows},), got {array.shape}")
    _refuse_non_finite(array, "sample_weight")
    if np.any(array < 0) or not np.any(array > 0):
        raise InvalidArgumentError("sample_weight must be non-negative and not all zero")
    return array


def feature_names(X: Any) -> list[str] | None:
    """The column names of a data frame, if they are all text."""
    columns = getattr(X, "columns", None)
    if columns is None:
        return None
    names = list(columns)
    return names if names and all(isinstance(n, str) for n in names) else None


def as_generator(random_state: Any) -> np.random.Generator:
    """A numpy Generator from None, an integer seed, a Generator or a RandomState."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**32, dtype=np.uint32))
    try:
        return np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"random_state must be None, a non-negative integer or a numpy Generator, got {random_state!r}"
        ) from error


def _numeric(values: Any, name: str) -> np.ndarray:
    _refuse_foreign(values, name)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidArgumentError(f"{name} must be a rectangular table of numbers: {error}") from error
    if array.dtype.kind == "c":
        raise InvalidArgumentError(f"Complex data not supported: {name} has dtype {array.dtype}; pass its real part")
    if array.dtype.kind in "OUS":
        try:
            return array.astype(np.float64)
        except TypeError as error:
            raise InvalidTypeError(f"{name} must be numbers, got objects ({error}); encode them as numbers") from error
        except ValueError as error:
            cell = next(str(value) for value in array.flat if not _reads_as_number(value))
            raise InvalidArgumentError(
                f"{name} must be numbers, got text or objects such as {cell[:40]!r}; encode text as numbers"
            ) from error
    if array.dtype.kind not in "fbiu":
        raise InvalidTypeError(f"{name} must be numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f":
        return array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64, copy=False)
    return array.astype(np.float64)


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _refuse_foreign(values: Any, name: str) -> None:
    if hasattr(values, "__cuda_array_interface__"):
        raise InvalidTypeError(f"{name} is a GPU array; use backend='cupy', or pass a NumPy array (cupy.asnumpy)")
    if hasattr(values, "tocsr"):
        raise InvalidTypeError(f"Sparse input is not supported: {name} must be a dense array; use {name}.toarray()")
    if isinstance(values, np.ma.MaskedArray) and np.any(values.mask):
        raise InvalidArgumentError(f"{name} has masked entries; fill or drop them")


def _refuse_rows(array: np.ndarray, rows: int, name: str) -> None:
    if len(array) != rows:
        raise InvalidArgumentError(
            f"{name} must have as many rows as X: inconsistent numbers of samples, {len(array)} and {rows}"
        )


def _refuse_non_finite(array: np.ndarray, name: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        place = np.argwhere(~finite)[0]
        where = f"row {place[0]}" + (f", column {place[1]}" if array.ndim == 2 else "")
        value = "NaN" if np.isnan(array[tuple(place)]) else "infinity (inf)"
        raise InvalidArgumentError(
            f"{name} contains {value} in {where} ({int((~finite).sum())} such entries); drop or fill them"
        )


@dataclass(frozen=True)
class Standardizer:
    """(v − offset)/scale per column, in float64, so that the training part has mean 0 and deviation 1.

    A constant column gets its own value as offset and a scale of its size, so it becomes exactly 0.
    """

    offset: np.ndarray
    scale: np.ndarray

    @classmethod
    def from_data(
        cls, values: np.ndarray, weights: np.ndarray | None = None, share_scale: bool = False
    ) -> Standardizer:
        """Mean and deviation of the columns of ``values`` (n, d), relative to the largest entry, so 1e±150 is safe.

        ``share_scale``: columns that are evidently one measurement (pixels, say) get one scale, the root mean square of
        their deviations, lest a pixel that is lit once in a thousand images outweigh the others.
        """
        largest = np.max(np.abs(values), axis=0).astype(np.float64)
        largest = np.where(largest > 0, largest, 1.0)
        relative = values / largest
        mean = np.average(relative, axis=0, weights=weights)
        deviation = np.sqrt(np.average((relative - mean) ** 2, axis=0, weights=weights))
        constant = deviation <= 10 * np.finfo(values.dtype).eps
        offset = np.where(constant, values[0], mean * largest)
        scale = np.where(constant, np.where(values[0] != 0, np.abs(values[0]), 1.0), deviation * largest)
        if share_scale and _one_unit(values, constant):
            scale = np.full_like(scale, np.sqrt(np.mean((deviation * largest / scale.max()) ** 2)) * scale.max())
        return cls(offset.astype(np.float64), scale.astype(np.float64))

    def transform(self, values: np.ndarray, dtype: Any) -> np.ndarray:
        """The standardised values, a new array of ``dtype``."""
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused by whoever asked
            return ((values - self.offset) / self.scale).astype(dtype)


def _one_unit(values: np.ndarray, constant: np.ndarray) -> bool:
    """Whether most columns that vary reach the same smallest and the same largest value, and no column goes beyond."""
    low, high = values.min(axis=0)[~constant], values.max(axis=0)[~constant]
    return len(low) > 2 and bool(np.mean((low == values.min()) & (high == values.max())) > 0.5)
