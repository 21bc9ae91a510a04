"""The array type of the device double: a NumPy array behind the rules of ``cupy.ndarray``.

It has the attributes and methods of the snapshot with their parameters and no others: no ``__index__``, no ``where=``.
Device and host arrays never meet by accident: operators, conversions, assignments and indices refuse NumPy arrays, also
where CuPy would upload a hidden copy, and NumPy's functions refuse the double, also where CuPy would quietly take over.
What makes the host wait for the device is counted.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .device_api import API, CUPY_VERSION, check_call, integer_places

_EVALUATED = ("sort", "fill", "put", "partition")  # methods that change the array and return nothing


@dataclass
class Transfers:
    """What passed between host and device: ``waits`` the places where the host waited for a result, ``uploads`` those
    where an array went to the device, each "file:function" of balinp."""

    waits: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)


_counting: list[Transfers] = []


@contextmanager
def count_transfers() -> Iterator[Transfers]:
    """Count the transfers of the double inside a ``with`` block; blocks may be nested."""
    transfers = Transfers()
    _counting.append(transfers)
    try:
        yield transfers
    finally:
        _counting.remove(transfers)


_BACKENDS = ("balinp.backend", "balinp.cupy_backend")  # who asks them is the place


def record(kind: str) -> None:
    """Count one transfer, "waits" or "uploads", at the place in balinp (balinp.testing apart) that asked for it."""
    if _counting:
        frame, place = sys._getframe(1), ""
        while frame and not place:
            module = frame.f_globals.get("__name__", "")
            if not module.startswith("balinp.testing.device") and module not in _BACKENDS:
                place = f"{module.removeprefix('balinp.')}:{frame.f_code.co_name}"
            frame = frame.f_back  # type: ignore[assignment]
        for transfers in _counting:
            getattr(transfers, kind).append(place)


class DeviceArray:
    """Stands for ``cupy.ndarray``. Made by the double's ``asarray`` and read by ``asnumpy`` or ``get`` alone."""

    __slots__ = ("_host",)
    __array_ufunc__ = None  # NumPy's ufuncs and operators refuse it
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100

    def __init__(self, host: np.ndarray):
        if host.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {host.dtype}")
        self._host = host

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_function__(self, function: Any, *args: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} called on a device array")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (0, True), "version": 3}

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: DeviceArray(self._host.T))
    mT = property(lambda self: DeviceArray(np.swapaxes(self._host, -1, -2)))  # noqa: N815
    real = property(lambda self: DeviceArray(self._host.real))
    imag = property(lambda self: DeviceArray(self._host.imag))

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """The array on the host: a copy; the host waits for it."""
        record("waits")
        return self._host.copy()

    def item(self) -> Any:
        """The one entry as a Python number; the host waits for it."""
        record("waits")
        return self._host.item()

    def tolist(self) -> Any:
        """The entries as Python numbers; the host waits for them."""
        return self.get().tolist()

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (DeviceArray(np.asarray(row)) for row in self._host)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    def __repr__(self) -> str:
        return repr(self.get())

    def __copy__(self) -> DeviceArray:
        return DeviceArray(self._host.copy())

    def __deepcopy__(self, memo: Any) -> DeviceArray:
        return DeviceArray(self._host.copy())

    def __getitem__(self, key: Any) -> DeviceArray:
        return DeviceArray(np.asarray(self._host[_index(self._host, key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, (np.ndarray, list, tuple)):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        index = _index(self._host, key)
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, np.ndarray) and part.dtype.kind in "iu" and len(np.unique(part)) < part.size:
                raise ValueError("an index occurs twice in an assignment: on a GPU either value may win")
        self._host[index] = operand(value)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        full = f"ndarray.{name}"
        if full not in API or not hasattr(np.ndarray, name) or API[full] in ("attribute", "operator"):
            raise AttributeError(f"cupy.ndarray of CuPy {CUPY_VERSION} has no attribute {name!r}")

        def method(*args: Any, **kwargs: Any) -> Any:
            check_arguments(full, (self, *args), kwargs)
            result = call(getattr(self._host, name), args, kwargs)
            return None if name in _EVALUATED else wrap(result)

        return method


def operand(value: Any) -> Any:
    """The host value behind one operand of an operator or ufunc; TypeError for what CuPy does not combine with."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, (bool, int, float, complex, np.generic)):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


def unwrap(value: Any) -> Any:
    """The host value behind an argument: device arrays also inside lists and tuples; NumPy arrays are refused."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {np.ndarray}")
    if type(value) in (list, tuple):
        return type(value)(unwrap(part) for part in value)
    return value


def wrap(value: Any) -> Any:
    """A result on the device: arrays and NumPy scalars, also inside lists and (named) tuples."""
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        parts = [wrap(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def check_arguments(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    """TypeError if CuPy's ``name`` would not take these arguments, or takes an integer where an array is given."""
    check_call(name, args, kwargs)
    places, keywords = integer_places(name)
    for value in [args[i] for i in places if i < len(args)] + [kwargs[k] for k in keywords if k in kwargs]:
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, DeviceArray):
                raise TypeError(f"'cupy.ndarray' object cannot be interpreted as an integer, in {name}({API[name]})")


def call(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """``function`` of the host values. An index out of range is refused: CuPy would wrap it and say nothing."""
    try:
        return function(*(unwrap(a) for a in args), **{name: unwrap(a) for name, a in kwargs.items()})
    except IndexError as error:
        raise AssertionError(f"{error}: CuPy would silently wrap it around") from None


def _index(host: np.ndarray, key: Any) -> Any:
    """The index on the host. Refused: host arrays and lists (CuPy uploads a hidden copy), and gathers out of range
    (CuPy wraps them around silently)."""
    parts = [_index_part(part) for part in (key if isinstance(key, tuple) else (key,))]
    if any(isinstance(part, np.ndarray) for part in parts):
        try:
            host[tuple(parts)]
        except IndexError as error:
            raise AssertionError(f"{error}: CuPy would silently wrap it around") from None
    return tuple(parts) if isinstance(key, tuple) else parts[0]


def _index_part(part: Any) -> Any:
    if isinstance(part, DeviceArray):
        if part.dtype.kind == "b":
            record("waits")  # the number of selected rows must be known
        return part._host
    if part is None or part is Ellipsis or isinstance(part, (int, np.integer)):
        return part
    if isinstance(part, slice):
        return slice(*(None if v is None else operator.index(v) for v in (part.start, part.stop, part.step)))
    raise TypeError(f"{type(part)} used to index a device array: move it to the device once, by asarray")


def _install_operators() -> None:
    binary = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"]
    for name in [*binary, "lshift", "rshift"]:
        host = getattr(operator, f"{name}_" if name in ("and", "or") else name)

        def forward(self: DeviceArray, other: Any, host: Any = host) -> Any:
            return wrap(host(self._host, operand(other)))

        def backward(self: DeviceArray, other: Any, host: Any = host) -> Any:
            return wrap(host(operand(other), self._host))

        def inplace(self: DeviceArray, other: Any, host: Any = getattr(operator, f"i{name}")) -> DeviceArray:
            if self._host.ndim:
                host(self._host, operand(other))
            else:
                self._host[...] = host(self._host[()], operand(other))
            return self

        setattr(DeviceArray, f"__{name}__", forward)
        setattr(DeviceArray, f"__r{name}__", backward)
        if f"ndarray.__i{name}__" in API:  # CuPy has no __imatmul__: ``a @= b`` rebinds the name
            setattr(DeviceArray, f"__i{name}__", inplace)
    for name in ("lt", "le", "gt", "ge", "eq", "ne"):

        def compare(self: DeviceArray, other: Any, host: Any = getattr(operator, name)) -> Any:
            return wrap(host(self._host, operand(other)))

        setattr(DeviceArray, f"__{name}__", compare)
    for name in ("neg", "pos", "abs", "invert"):

        def unary(self: DeviceArray, host: Any = getattr(operator, name)) -> Any:
            return wrap(host(self._host))

        setattr(DeviceArray, f"__{name}__", unary)


_install_operators()
