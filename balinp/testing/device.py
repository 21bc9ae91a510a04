"""A strict double of a CUDA device, for machines without one: arrays and namespaces that obey CuPy's rules.

``DOUBLE`` is the backend on it (``get_backend("double")`` once this module is imported), made by the very code that
makes CuPy's; ``cupy`` and ``cupyx`` stand for the modules. What exists and which arguments it takes comes from the
snapshot of the real CuPy (``device_api``); what arrays may do is in ``device_array``. Where CuPy does something quietly
that is slow (a hidden copy) or wrong (an index wrapped around), the double refuses. After a failed factorisation it
returns finite garbage, and of NaN it makes the same without a word, so that nobody leans on NaN or on a verdict.

    from balinp.testing.device import DOUBLE, count_transfers, cupy as xp
    with count_transfers() as transfers:
        my_function(xp.asarray(data))     # raises where CuPy would, or would be wrong
    assert len(transfers.waits) <= 3

It does not imitate: rounding, speed, races, streams, memory; complex and half-precision details; text and files.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.linalg
import scipy.special

from ..backend import register_backend
from ..cupy_backend import cupy_like
from .device_api import API, CUPY_VERSION, check_call, public_name
from .device_array import DeviceArray, Transfers, call, check_arguments, count_transfers, operand, record, unwrap, wrap

__all__ = ["DOUBLE", "DeviceArray", "Transfers", "count_transfers", "cupy", "cupyx"]

_UPLOADS = ("asarray", "array", "ascontiguousarray", "asfortranarray", "asanyarray")
_WAITING = ("unique", "nonzero", "flatnonzero", "argwhere", "extract", "compress", "bincount", "delete")
_HOST_RESULTS = ("shape", "ndim", "size", "isscalar", "result_type", "can_cast", "common_type", "min_scalar_type")
_DATA = (
    "a",
    "x",
    "m",
    "z",
    "v",
    "arr",
    "ary",
    "A",
    "ar",
    "a1",
    "array",
    "filt",
)  # CuPy's names for the array to work on
_raising = [False]  # cupyx.errstate(linalg=...), innermost last


@contextmanager
def _errstate(**kwargs: Any) -> Iterator[None]:
    check_call("cupyx.errstate", (), kwargs)
    linalg = kwargs.get("linalg")
    if linalg not in (None, "ignore", "raise"):
        raise NotImplementedError(f"linalg must be 'ignore' or 'raise', got {linalg!r}")
    _raising.append(_raising[-1] if linalg is None else linalg == "raise")
    try:
        yield
    finally:
        _raising.pop()


def _upload(values: Any, dtype: Any = None, copy: Any = None) -> DeviceArray:
    if isinstance(values, DeviceArray):
        same = dtype is None or np.dtype(dtype) == values.dtype
        return values if same and not copy else DeviceArray(values._host.astype(dtype or values.dtype))
    parts = values if isinstance(values, (list, tuple)) else ()
    on_device = [isinstance(part, DeviceArray) for part in parts]
    if any(on_device) and not all(on_device):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: a list of device and host values")
    if not any(on_device):
        record("uploads")
    return DeviceArray(np.array(unwrap(parts) if any(on_device) else values, dtype=dtype))


def _linear_algebra(name: str, args: Any, kwargs: dict[str, Any], host: Callable[..., Any]) -> Any:
    """A function of cupy.linalg: of what cannot be factorised it returns garbage, unless errstate has it raise."""
    given = [np.asarray(unwrap(a)) for a in (*args, *kwargs.values()) if isinstance(a, DeviceArray)]
    if _raising[-1]:
        record("waits")  # for cuSOLVER's verdict
    if name == "linalg.cholesky" and not np.all(np.isfinite(np.tril(given[0]))):
        return DeviceArray(_garbage(given[0]))  # no verdict on NaN is documented
    try:
        return wrap(call(host, args, kwargs))
    except np.linalg.LinAlgError:
        if _raising[-1]:
            raise
    if name in ("linalg.eigh", "linalg.eigvalsh"):
        values = DeviceArray(_garbage(given[0][..., 0]))
        return values if name == "linalg.eigvalsh" else (values, DeviceArray(_garbage(given[0])))
    return DeviceArray(_garbage(given[-1]))


def _garbage(like: np.ndarray) -> np.ndarray:
    """Finite numbers of that shape and dtype that look plausible and mean nothing."""
    values = np.cos(np.arange(1, like.size + 1)).reshape(like.shape) + 1.5
    return (np.tril(values) if like.ndim > 1 else values).astype(like.dtype)


class _Namespace(types.ModuleType):
    """One namespace of CuPy: the names of the snapshot that begin with ``prefix``, computed by NumPy or SciPy."""

    def __init__(self, prefix: str, host: Any, **given: Any):
        super().__init__("double." + public_name(prefix).rstrip("."))
        self.__dict__.update(given, _prefix=prefix, _host_module=host)

    def __getattr__(self, name: str) -> Any:
        full = f"{self._prefix}{name}"
        if full not in API:
            raise AttributeError(f"CuPy {CUPY_VERSION} has no {public_name(full)}")
        found: Any = getattr(self._host_module, name, None)
        if found is None and API[full] != "value":
            raise AttributeError(f"the double does not imitate {public_name(full)}")
        self.__dict__[name] = result = found if API[full] in ("value", "numpy") else self._function(name, full, found)
        return result

    def _function(self, name: str, full: str, host: Callable[..., Any]) -> Callable[..., Any]:
        first = API[full].split(", ")[0].rstrip("=")
        ufunc, upload = isinstance(host, np.ufunc), full in _UPLOADS
        needs_array = first in _DATA and not ufunc and not upload and full not in _HOST_RESULTS

        def function(*args: Any, **kwargs: Any) -> Any:
            check_arguments(full, args, kwargs)
            if upload:
                values = args[0] if args else kwargs.get("a", kwargs.get("obj"))
                dtype = args[1] if len(args) > 1 else kwargs.get("dtype")
                return _upload(values, dtype, kwargs.get("copy", full == "array" or None))
            if needs_array and not isinstance(args[0] if args else kwargs.get(first), DeviceArray):
                raise TypeError(f"{public_name(full)} takes a device array, got {type(args[0] if args else None)}")
            if ufunc:
                for value in args[: host.nin]:  # type: ignore[attr-defined]
                    operand(value)
            if full in _WAITING or (full == "where" and len(args) == 1):
                record("waits")
            if full.startswith("linalg."):
                return _linear_algebra(full, args, kwargs, host)
            result = call(host, args, kwargs)
            if isinstance(kwargs.get("out"), DeviceArray):
                return kwargs["out"]
            if full in _HOST_RESULTS:
                return result
            return DeviceArray(np.asarray(result)) if isinstance(result, bool) else wrap(result)

        function.__name__ = function.__qualname__ = name
        return function


def _asnumpy(*args: Any, **kwargs: Any) -> np.ndarray:
    check_call("asnumpy", args, kwargs)
    values = args[0] if args else kwargs["a"]
    return values.get() if isinstance(values, DeviceArray) else np.asarray(values)


def _solve_triangular(a: Any, b: Any, trans: Any = 0, lower: bool = False, **options: Any) -> Any:
    """SciPy's, and of batches, which it takes only since 1.16, by general solves."""
    if a.ndim == 2:
        return scipy.linalg.solve_triangular(a, b, trans=trans, lower=lower, **options)
    triangle = np.tril(a) if lower else np.triu(a)
    return np.linalg.solve(np.swapaxes(triangle, -1, -2) if trans in (1, "T") else triangle, b)


class _Generator:
    """CuPy's Generator: fewer methods than NumPy's, and another stream for the same seed."""

    def __init__(self, seed: Any):
        self._host = np.random.default_rng([14, 2, 0 if seed is None else int(seed)])

    def __getattr__(self, name: str) -> Callable[..., DeviceArray]:
        full = f"random.Generator.{name}"
        if full not in API:
            raise AttributeError(f"CuPy {CUPY_VERSION} has no {public_name(full)}")

        def draw(*args: Any, **kwargs: Any) -> DeviceArray:
            check_call(full, (self, *args), kwargs)
            return DeviceArray(np.asarray(call(getattr(self._host, name), args, kwargs)))

        return draw


def _default_rng(*args: Any, **kwargs: Any) -> _Generator:
    check_call("random.default_rng", args, kwargs)
    return _Generator((*args, *kwargs.values(), None)[0])


cupy = _Namespace("", np, ndarray=DeviceArray, asnumpy=_asnumpy)
cupy.__dict__["linalg"] = _Namespace("linalg.", np.linalg)
cupy.__dict__["random"] = _Namespace("random.", None, default_rng=_default_rng)
cupyx = types.SimpleNamespace(
    errstate=_errstate,
    scipy=types.SimpleNamespace(
        linalg=_Namespace("cupyx.scipy.linalg.", types.SimpleNamespace(solve_triangular=_solve_triangular)),
        special=_Namespace("cupyx.scipy.special.", scipy.special),
    ),
)
DOUBLE = cupy_like("double", cupy, cupyx)
register_backend("double", lambda: DOUBLE)
