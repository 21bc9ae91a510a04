"""The package's public names on a given backend, for checks that speak NumPy: arrays go in and come out converted."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np

import balinp

from ..backend import NUMPY, Backend


def core_on(backend: Backend) -> Any:
    """What the conformance checks take for a core: balinp with every array on ``backend``.

    For NumPy it is the package itself. Otherwise every argument that is a NumPy array is moved to the backend, every
    resulting array back to the host, and ``backend=`` is given to whatever takes it.
    """
    if backend is NUMPY:
        return balinp
    names = {name: getattr(balinp, name) for name in balinp.__all__ if name not in ("NUMPY", "Backend")}
    names["get_backend"] = lambda name: backend
    return SimpleNamespace(**{name: _out(value, backend) for name, value in names.items()})


class _Moved:
    """An object of the package whose arrays appear on the host, and whose functions take arrays from there."""

    _object: Any
    _backend: Backend

    def __getattr__(self, name: str) -> Any:
        return _out(getattr(self._object, name), self._backend)

    def __call__(self, *values: Any, **named: Any) -> Any:
        arguments = [_in(value, self._backend) for value in values]
        keywords = {name: _in(value, self._backend) for name, value in named.items()}
        try:
            signature = inspect.signature(self._object)
            if "backend" in signature.parameters and "backend" not in signature.bind(*arguments, **keywords).arguments:
                keywords["backend"] = self._backend
        except (TypeError, ValueError):  # arguments that do not fit: the call itself says so
            pass
        return _out(self._object(*arguments, **keywords), self._backend)

    def __add__(self, other: Any) -> Any:
        return _out(self._object + _in(other, self._backend), self._backend)


def _in(value: Any, backend: Backend) -> Any:
    """From the host to the backend."""
    if isinstance(value, _Moved):
        return value._object
    if isinstance(value, np.ndarray):
        return backend.asarray(value)
    if isinstance(value, list | tuple):
        return type(value)(_in(element, backend) for element in value)
    return value


def _out(value: Any, backend: Backend) -> Any:
    """From the backend to the host."""
    if value is None or isinstance(value, str | int | float | complex | np.generic | np.dtype):
        return value
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return backend.to_host(value)
    if isinstance(value, list | tuple):
        return type(value)(_out(element, backend) for element in value)
    kind = type(type(value).__name__, (_Moved,), {})  # its class's name, which messages quote
    moved = kind()
    moved._object, moved._backend = value, backend
    return moved
