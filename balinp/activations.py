"""Activations, each with its derivative beside it; both are functions of the layer output h."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt

from .backend import Array, Backend
from .errors import InvalidArgumentError


@dataclass(frozen=True)
class Activation:
    """φ and φ′, elementwise: ``value(h, backend, out)`` and ``derivative(h, backend)`` keep shape and dtype; ``value``
    writes to ``out`` (of h's shape) if there is one."""

    name: str
    value: Callable[..., Array]
    derivative: Callable[[Array, Backend], Array]


# eq:relu  φ(h) = max(h, 0), φ′(h) = 1[h > 0]
def _relu(h: Array, backend: Backend, out: Array | None = None) -> Array:
    return backend.xp.maximum(h, 0, out=out)


# eq:relu
def _relu_derivative(h: Array, backend: Backend) -> Array:
    return (h > 0).astype(h.dtype)


# eq:tanh  φ′ = 1 − φ²
def _tanh(h: Array, backend: Backend, out: Array | None = None) -> Array:
    return backend.xp.tanh(h, out=out)


# eq:tanh
def _tanh_derivative(h: Array, backend: Backend) -> Array:
    return 1 - backend.xp.tanh(h) ** 2


# eq:gelu  φ(h) = h Φ(h), φ′(h) = Φ(h) + h N(h | 0, 1)
def _gelu(h: Array, backend: Backend, out: Array | None = None) -> Array:
    return backend.xp.multiply(h, (1 + backend.erf(h / sqrt(2))) / 2, out=out)


# eq:gelu
def _gelu_derivative(h: Array, backend: Backend) -> Array:
    near = backend.xp.clip(h, -40, 40)  # beyond, the density is 0 in float64 too, and h² could overflow
    return (1 + backend.erf(h / sqrt(2))) / 2 + near * backend.xp.exp(-near * near / 2) / sqrt(2 * pi)


# eq:identity  φ(h) = h, φ′ = 1
def _identity(h: Array, backend: Backend, out: Array | None = None) -> Array:
    return backend.xp.positive(h, out=out)


# eq:identity
def _identity_derivative(h: Array, backend: Backend) -> Array:
    return backend.xp.ones_like(h)


ACTIVATIONS = {
    "relu": Activation("relu", _relu, _relu_derivative),
    "tanh": Activation("tanh", _tanh, _tanh_derivative),
    "gelu": Activation("gelu", _gelu, _gelu_derivative),
    "identity": Activation("identity", _identity, _identity_derivative),
}


def get_activation(name: str) -> Activation:
    """The activation called ``name``; raises InvalidArgumentError for one that does not exist.   (eq:relu)"""
    if name not in ACTIVATIONS:
        raise InvalidArgumentError(f"activation must be one of {sorted(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]
