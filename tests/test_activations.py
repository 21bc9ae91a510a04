"""Each activation against mathematics written another way, each derivative against differentiation by brute force."""

import math

import numpy as np
import pytest

from balinp import ACTIVATIONS, NUMPY, InvalidArgumentError, get_activation
from balinp.testing.gradients import ANALYTIC, central_difference_jacobian, complex_step_jacobian

POINTS = np.concatenate([np.linspace(-8, 8, 161) + 0.01, [-40.0, -1e-3, 1e-3, 40.0]])  # none at relu's kink
VALUES = {
    "relu": lambda h: h if h > 0 else 0.0,
    "tanh": lambda h: (math.exp(2 * h) - 1) / (math.exp(2 * h) + 1),
    "gelu": lambda h: h * 0.5 * math.erfc(-h / math.sqrt(2)),
    "identity": lambda h: h,
}


@pytest.fixture
def on(backend):
    """Calls value or derivative of an activation on a NumPy array, which goes to the backend and comes back."""

    def call(function, h):
        moved = backend.asarray(h)
        result = function(moved, backend)
        assert isinstance(result, backend.xp.ndarray)
        assert np.array_equal(backend.to_host(moved), h)
        return backend.to_host(result)

    return call


def elementwise_derivative(name, differentiate, points):
    value = get_activation(name).value
    return np.array([differentiate(lambda h: value(h, NUMPY), np.array([p]))[0, 0] for p in points])


@pytest.mark.equation("eq:relu")
@pytest.mark.equation("eq:tanh")
@pytest.mark.equation("eq:gelu")
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_values(name, on):
    expected = np.array([VALUES[name](float(h)) for h in POINTS])
    got = on(get_activation(name).value, POINTS)
    assert np.all(np.abs(got - expected) <= 1e-12 * np.maximum(1, np.abs(expected)))


@pytest.mark.equation("eq:tanh")
@pytest.mark.equation("eq:gelu")
@pytest.mark.parametrize("name", ANALYTIC)
def test_derivatives_by_complex_step(name, on):
    got = on(get_activation(name).derivative, POINTS)
    assert np.max(np.abs(got - elementwise_derivative(name, complex_step_jacobian, POINTS))) <= 1e-12


@pytest.mark.equation("eq:relu")
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_derivatives_by_central_differences(name, on):
    got = on(get_activation(name).derivative, POINTS)
    assert np.max(np.abs(got - elementwise_derivative(name, central_difference_jacobian, POINTS))) <= 1e-7


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_shape_and_dtype_are_kept(name, dtype, on):
    h = np.linspace(-3, 3, 12, dtype=dtype).reshape(3, 4)
    for function in (get_activation(name).value, get_activation(name).derivative):
        assert on(function, h).dtype == dtype
        assert on(function, h).shape == h.shape
        assert np.all(np.isfinite(on(function, np.array([-1e15, 1e15], dtype=dtype))))


def test_relu_is_flat_at_its_kink(on):
    assert on(get_activation("relu").derivative, np.zeros(1)) == 0


def test_unknown_activation_is_refused():
    with pytest.raises(InvalidArgumentError, match="'softmax'"):
        get_activation("softmax")
