"""Run the core on any backend for callers that hold NumPy arrays: tests, oracles, conformance checks.

Inside ``with core_on(backend):`` whoever calls the core from outside crosses a boundary. On the way in NumPy arrays go
to the backend, also those inside the core's own objects, and NUMPY becomes the backend; the core then runs on nothing
else; on the way out every array must live on that backend, or an AssertionError names the function, and comes back as a
NumPy array. So one test, written for NumPy, is a test of every backend. An argument that the core changed is an error.

Constructors, methods, properties and functions of the core cross it, and callbacks in the other direction.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache, cached_property, wraps
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from ..backend import NUMPY, Backend

CORE = (
    *("activations", "mlp", "likelihoods", "heteroscedastic", "matrix_normal", "statistics", "regression", "settings"),
    *("deferred", "evidence", "passes", "joint", "trust", "state", "solver", "averaging", "training", "predictive"),
    "joint_posterior",
)  # backend.py and cupy_backend.py apart
_PLAIN = {float, int, bool, str, type(None)}


@contextmanager
def core_on(backend: Backend, *modules: ModuleType) -> Iterator[Boundary]:
    """Inside, the core runs on ``backend`` for callers in the rest of balinp and in ``modules``; NUMPY changes nothing.

    The Boundary that it gives counts the ``crossings``: none means that nothing ran on the backend.
    """
    boundary = Boundary(backend)
    if backend is NUMPY:
        yield boundary
        return
    undo: list[tuple[Any, str, Any]] = []

    def put(place: Any, name: str, value: Any) -> None:
        undo.append((place, name, vars(place)[name]))
        setattr(place, name, value)

    core = [import_module(f"balinp.{name}") for name in CORE]
    names = {module.__name__ for module in core}
    outside = [m for n, m in sys.modules.items() if n.split(".")[0] == "balinp" and n not in names and n != __name__]
    wrapped: dict[Any, Any] = {}
    try:
        for module in dict.fromkeys([*outside, *modules]):
            for name, value in list(vars(module).items()):
                if isinstance(value, FunctionType) and value.__module__ in names:
                    put(module, name, wrapped.setdefault(value, boundary.wrap(value)))
        classes = [v for m in core for v in vars(m).values() if isinstance(v, type) and v.__module__ == m.__name__]
        for cls in [Backend, *classes]:
            for name, value in list(vars(cls).items()):
                replacement = boundary.wrap_attribute(cls, name, value)
                if replacement is not None:
                    put(cls, name, replacement)
        yield boundary
    finally:
        for place, name, value in reversed(undo):
            setattr(place, name, value)


def lifted(value: Any, backend: Backend) -> Any:
    """NumPy arrays, and the core's objects and lists that hold them, as the same on ``backend``."""
    return value if backend is NUMPY else _Journey(Boundary(backend)).lift(value)


def landed(value: Any, backend: Backend) -> Any:
    """What ``lifted`` undoes; AssertionError if an array is not on ``backend``."""
    return value if backend is NUMPY else _Journey(Boundary(backend)).land(value, "landed")


class Boundary:
    """What crosses into ``backend`` and back: ``crossings`` times so far; ``inside`` while the core runs."""

    def __init__(self, backend: Backend):
        self.backend, self.inside, self.crossings = backend, False, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` for callers outside."""
        signature = inspect.signature(function)
        takes_backend = "backend" in signature.parameters

        @wraps(function)
        def crossing(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return function(*args, **kwargs)
            given = kwargs
            if takes_backend and "backend" not in signature.bind_partial(*args, **kwargs).arguments:
                given = {**kwargs, "backend": NUMPY}
            journey = _Journey(self)
            try:
                inwards = journey.lift(args), journey.lift(given)
            except _StaysOnHostError:
                return function(*args, **kwargs)
            result = journey.run(function, *inwards)
            journey.check(function.__qualname__)
            return journey.land(result, function.__qualname__)

        return crossing

    def wrap_attribute(self, cls: type, name: str, value: Any) -> Any:
        """The replacement for one attribute of a class of the core; None to leave it."""
        if name == "__init__" and is_dataclass(cls) and cls is not Backend:
            return self._constructor(value)
        if isinstance(value, cached_property):
            return _CachedCrossing(self, value)
        if name.startswith("_") and name != "__add__":
            return None
        if isinstance(value, property) and value.fget is not None:
            return property(self.wrap(value.fget))
        if isinstance(value, classmethod):
            return classmethod(self.wrap(value.__func__))
        return self.wrap(value) if isinstance(value, FunctionType) else None

    def _constructor(self, init: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(init)
        takes_backend = "backend" in signature.parameters

        @wraps(init)
        def construct(this: Any, *args: Any, **kwargs: Any) -> None:
            if self.inside:
                return init(this, *args, **kwargs)
            given = kwargs
            if takes_backend and "backend" not in signature.bind_partial(this, *args, **kwargs).arguments:
                given = {**kwargs, "backend": NUMPY}
            twin, journey = object.__new__(type(this)), _Journey(self)
            try:
                inwards = (twin, *journey.lift(args)), journey.lift(given)
            except _StaysOnHostError:
                return init(this, *args, **kwargs)
            journey.run(init, *inwards)
            this.__dict__.update(journey.land(twin.__dict__, type(this).__name__))
            return None

        return construct


class _CachedCrossing:
    """Stands for a cached_property of the core."""

    def __init__(self, boundary: Boundary, original: cached_property[Any]):
        self.boundary, self.original = boundary, original
        self.compute = boundary.wrap(original.func)

    def __get__(self, this: Any, owner: type | None = None) -> Any:
        if this is None or self.boundary.inside:
            return self.original.__get__(this, owner)
        this.__dict__[self.original.attrname] = value = self.compute(this)
        return value


def _from_outside(module: str) -> bool:
    """Whether a function of this module, given to the core, holds NumPy arrays: a test's or a conformance check's."""
    return module.split(".")[0] != "balinp" or module.startswith(f"{__package__}.conformance")


class _StaysOnHostError(Exception):
    """Complex arrays, which are the tests' own way to differentiate, and other backends do not cross."""


class _Journey:
    """One call into the core: what was lifted to the backend, so that the same arrays come back as themselves."""

    def __init__(self, boundary: Boundary):
        self.boundary, self.backend = boundary, boundary.backend
        self.arrays: dict[int, tuple[np.ndarray, Any]] = {}  # by id of the host array; kept alive here
        self.objects: dict[int, tuple[Any, Any]] = {}
        self.origins: dict[int, Any] = {}  # by id of the lifted thing

    def run(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """The call itself, inside."""
        self.boundary.inside, self.boundary.crossings = True, self.boundary.crossings + 1
        try:
            return function(*args, **kwargs)
        finally:
            self.boundary.inside = False

    def lift(self, value: Any) -> Any:
        """``value`` with its arrays on the backend."""
        if type(value) in _PLAIN:
            return value
        if isinstance(value, np.ndarray) and value.dtype.kind == "c":
            raise _StaysOnHostError
        if isinstance(value, Backend) and value is not NUMPY:
            raise _StaysOnHostError
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            if id(value) not in self.arrays:
                twin = self.backend.asarray(value)
                self.arrays[id(value)], self.origins[id(twin)] = (value, twin), value
            return self.arrays[id(value)][1]
        if value is NUMPY:
            return self.backend
        if value is np:
            return self.backend.xp
        if type(value) in (list, tuple):
            return type(value)(self.lift(part) for part in value)
        if type(value) is dict:
            return {name: self.lift(part) for name, part in value.items()}
        if isinstance(value, FunctionType) and _from_outside(value.__module__):
            return self._callback(value)
        if _of_core(value.__class__):
            if id(value) not in self.objects:
                twin = object.__new__(type(value))
                self.objects[id(value)], self.origins[id(twin)] = (value, twin), value
                twin.__dict__.update({name: self._lift_field(part) for name, part in value.__dict__.items()})
            return self.objects[id(value)][1]
        return value

    def _lift_field(self, value: Any) -> Any:
        return value if isinstance(value, FunctionType) else self.lift(value)

    def _callback(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def back(*args: Any, **kwargs: Any) -> Any:
            outwards = self.land(args, "a callback"), self.land(kwargs, "a callback")
            self.boundary.inside = False
            try:
                return self.lift(function(*outwards[0], **outwards[1]))
            finally:
                self.boundary.inside = True

        return back

    def land(self, value: Any, whence: str, field: bool = False) -> Any:
        """``value`` with its arrays on the host; AssertionError naming ``whence`` if one was not on the backend."""
        if type(value) in _PLAIN:
            return value
        if id(value) in self.origins:
            return self.origins[id(value)]
        if isinstance(value, self.backend.xp.ndarray):
            host = self.backend.to_host(value)
            return host if field or host.ndim else host[()]  # NumPy's reductions give scalars
        if isinstance(value, np.ndarray):
            raise AssertionError(f"{whence}: an array of the result lives on the host, not on {self.backend.name}")
        if value is self.backend:
            return NUMPY
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(self.land(part, whence) for part in value)
        if type(value) is dict:
            return {name: self.land(part, f"{whence}.{name}", field=True) for name, part in value.items()}
        if _of_core(value.__class__):
            twin = object.__new__(type(value))
            self.origins[id(value)] = twin
            self.objects[id(twin)] = (twin, value)  # keeps it alive, so that its id stays its own
            twin.__dict__.update(self.land(value.__dict__, type(value).__name__))
            return twin
        return value

    def check(self, what: str) -> None:
        """Give the caller's objects the values that were cached in their twins; refuse changed arguments."""
        for host, twin in list(self.objects.values()):
            for name in twin.__dict__.keys() - host.__dict__.keys():
                host.__dict__[name] = self.land(twin.__dict__[name], f"{type(host).__name__}.{name}", field=True)
        for host, twin in self.arrays.values():
            if self.backend.to_host(twin).tobytes() != host.tobytes():
                raise AssertionError(f"{what} changed an array that it was given")


@cache
def _of_core(kind: type) -> bool:
    return is_dataclass(kind) and any(c.__module__.removeprefix("balinp.") in CORE for c in kind.__mro__)
