"""What people pass in, turned into the arrays the core works on, or refused: argument, place and remedy."""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import numpy as np

from .blocks import reduce_blocks
from .errors import InvalidArgumentError, InvalidTypeError
from .rows import RowSource, block_rows, row_source

LEAST_WEIGHT, MOST_WEIGHT = 1e-100, 1e12  # of a row; beside rows that count for more the prior is lost in rounding

Rows: TypeAlias = Any  # np.ndarray, or a RowSource where the caller's rows are not in memory


def as_features(X: Any, expected: int | None = None, names: list[str] | None = None) -> Rows:
    """X as (n, d) rows of float32 (when it came so) or float64; the caller's array is never changed. Memory-mapped and
    Dask arrays stay where they are.

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
    array = _numbers(X, "X")
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


def as_regression_targets(y: Any, rows: int) -> Rows:
    """y as a float array (n,) or (n, k), k ≥ 1, finite; refused as in ``as_features``."""
    if y is None:
        raise InvalidArgumentError("y is required, got None: requires y to be passed, but the target y is None")
    array = _numbers(y, "y")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise InvalidArgumentError(f"y must have shape (rows,) or (rows, outputs), got {array.shape}")
    _refuse_rows(array, rows, "y")
    _refuse_non_finite(array, "y")
    return array


def as_labels(y: Any, rows: int) -> Rows:
    """y as a one-dimensional array of labels of one kind (numbers, text or booleans), none missing."""
    if y is None:
        raise InvalidArgumentError("y is required, got None: requires y to be passed, but the target y is None")
    _refuse_foreign(y, "y")
    source = row_source(y)
    array: Rows = np.asarray(y) if source is None else source
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0] if source is None else source.map(_first_column)
    if array.ndim != 1:
        raise InvalidArgumentError(f"y must be one-dimensional class labels, got shape {array.shape}")
    _refuse_rows(array, rows, "y")
    if array.dtype.kind == "O" and source is None:
        kinds = {type(v) for v in array}
        if all(issubclass(kind, str) for kind in kinds):
            return array if kinds <= {str} else np.array([str(label) for label in array], dtype=object)
        row = next((i for i, v in enumerate(array) if _is_missing(v)), None)
        if row is not None:
            raise InvalidArgumentError(f"y has a missing label in row {row}; drop the row or give the label")
        if not all(isinstance(v, (int, float, bool, np.number)) for v in array):
            raise InvalidTypeError(
                f"y mixes labels of kinds {sorted(k.__name__ for k in kinds)}; use one kind, e.g. all text"
            )
        array = np.array(list(array))
    if array.dtype.kind == "f":
        _refuse_non_finite(array, "y")
        if reduce_blocks(_fractions, block_rows(array), array):
            raise InvalidArgumentError(
                "Unknown label type: continuous. y must be class labels; use BALIRegressor for numbers"
            )
    elif array.dtype.kind not in "biuUS":
        raise InvalidTypeError(f"y must be class labels (numbers, text or booleans), got dtype {array.dtype}")
    return array


def _is_missing(label: Any) -> bool:
    """None, pandas' NA, which answers no comparison, or NaN, the one value unequal to itself."""
    return label is None or type(label).__name__ == "NAType" or bool(label != label)


def labels_present(labels: Rows, weight: Rows | None = None) -> np.ndarray:
    """The different labels, sorted, of the rows whose weight is not zero."""
    found = reduce_blocks(_labels_of_block, block_rows(labels), labels, weight, combine=_union)
    return np.array([]) if found is None else found


def as_columns(targets: Rows) -> Rows:
    """Targets (n,) or (n, k) as (n, k)."""
    return targets.map(_columns) if isinstance(targets, RowSource) else _columns(targets)


def as_sample_weight(weight: Any, rows: int) -> Rows | None:
    """Non-negative finite weights (n,), not all zero, in float64; None stays None."""
    if weight is None:
        return None
    array = _numbers(weight, "sample_weight").astype(np.float64)
    if array.shape != (rows,):
        raise InvalidArgumentError(f"sample_weight must have shape ({rows},), got {array.shape}")
    _refuse_non_finite(array, "sample_weight")
    low, high = reduce_blocks(_limits, block_rows(array), array, combine=_wider)
    if low < 0 or not high > 0:
        raise InvalidArgumentError("sample_weight must be non-negative and not all zero")
    if not LEAST_WEIGHT <= high <= MOST_WEIGHT:
        raise InvalidArgumentError(
            f"sample_weight must have a largest entry from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}, got {high:g}; weights "
            "count rows: divide them by their mean"
        )
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


def _numbers(values: Any, name: str) -> Rows:
    source = row_source(values)
    if source is None or source.dtype.kind not in "fbiu":
        return _numeric(values if source is None else source.gathered(), name)  # which refuses, or reads text
    return source.astype(np.float32 if source.dtype.kind == "f" and source.dtype.itemsize <= 4 else np.float64)


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
            return _without_missing_marks(array).astype(np.float64, order="C")
        except TypeError as error:
            raise InvalidTypeError(f"{name} must be numbers, got objects ({error}); encode them as numbers") from error
        except OverflowError as error:
            raise InvalidArgumentError(f"{name} must be numbers of float64, got larger ones; rescale it") from error
        except ValueError as error:
            cell = next(str(value) for value in array.flat if not _reads_as_number(value))
            raise InvalidArgumentError(
                f"{name} must be numbers, got text or objects such as {cell[:40]!r}; encode text as numbers"
            ) from error
    if array.dtype.kind not in "fbiu":
        raise InvalidTypeError(f"{name} must be numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f":
        # row after row whatever the caller's order is: sums, and with them the bits of a fit, would follow it
        return array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64, order="C", copy=False)
    return array.astype(np.float64, order="C")


def _without_missing_marks(array: np.ndarray) -> np.ndarray:
    """``array`` with pandas' mark of a missing number as NaN, which is refused with its place."""
    if array.dtype.kind != "O":
        return array
    marks = np.array([type(value).__name__ == "NAType" for value in array.flat], dtype=bool).reshape(array.shape)
    return np.where(marks, np.nan, array) if marks.any() else array


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _refuse_foreign(values: Any, name: str) -> None:
    if hasattr(values, "__cuda_array_interface__"):
        raise InvalidTypeError(f"{name} is a GPU array; use backend='cupy', or pass a NumPy array (cupy.asnumpy)")
    if hasattr(values, "tocsr"):
        raise InvalidTypeError(f"Sparse input is not supported: {name} must be a dense array; use {name}.toarray()")
    if isinstance(values, np.ma.MaskedArray) and np.any(values.mask):
        raise InvalidArgumentError(f"{name} has masked entries; fill or drop them")


def _refuse_rows(array: Rows, rows: int, name: str) -> None:
    if len(array) != rows:
        raise InvalidArgumentError(
            f"{name} must have as many rows as X: inconsistent numbers of samples, {len(array)} and {rows}"
        )


def _refuse_non_finite(array: Rows, name: str) -> None:
    found: Found | None = reduce_blocks(_non_finite, block_rows(array), array, combine=_both)
    if found is not None and found[0]:
        count, place, value = found
        where = f"row {place[0]}" + (f", column {place[1]}" if array.ndim == 2 else "")
        raise InvalidArgumentError(f"{name} contains {value} in {where} ({count} such entries); drop or fill them")


# What is asked of blocks of rows, wherever they are:
Found: TypeAlias = tuple[int, tuple[int, ...], str]  # how many entries are not finite; the first one's place and name


def _non_finite(start: int, block: np.ndarray) -> Found:
    finite = np.isfinite(block)
    if finite.all():
        return 0, (), ""
    row, *column = (int(i) for i in np.argwhere(~finite)[0])
    value = "NaN" if np.isnan(block[row, *column]) else "infinity (inf)"
    return int((~finite).sum()), (start + row, *column), value


def _both(a: Found, b: Found) -> Found:
    first = a if a[0] else b
    return a[0] + b[0], first[1], first[2]


def _limits(start: int, block: np.ndarray) -> tuple[float, float]:
    return float(block.min()), float(block.max())


def _wider(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(a[0], b[0]), max(a[1], b[1])


def _fractions(start: int, block: np.ndarray) -> int:
    return int(np.sum(block != np.floor(block)))


def _labels_of_block(start: int, block: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return np.unique(block if weight is None else block[weight > 0])


def _union(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.union1d(a, b)


def _first_column(block: np.ndarray) -> np.ndarray:
    return block[:, 0]


def _columns(block: np.ndarray) -> np.ndarray:
    return block.reshape(len(block), prod(block.shape[1:]))  # one column of a vector; of no rows as well
