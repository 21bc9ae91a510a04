"""Tests of the core that mutation testing asked for: each kills a mutant that the other tests let live."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from balinp import (
    MLP,
    NUMPY,
    Categorical,
    Gaussian,
    MatrixNormal,
    NotPositiveDefiniteError,
    Prior,
    Settings,
    get_activation,
    initial_state,
    predict_linearized,
    predict_monte_carlo,
)
from balinp.backend import Backend
from balinp.testing import random_matrix_normal

pytestmark = pytest.mark.usefixtures("on_backend")

OTHER = Backend(**{**vars(NUMPY), "name": "other"})  # NumPy under another name, to see whether it is passed on


def generator():
    return np.random.default_rng(3)


def normal():
    return random_matrix_normal(generator(), (3, 2), "float64")


def test_what_is_true_of_the_new_distribution_is_not_computed_again():
    q = normal()
    kept = {name: getattr(q, name) for name in ("row_factor", "row_log_determinant", "row_covariance_trace")}
    for other in (q.tempered(0.5), q.with_column_covariance(np.eye(2)), q.with_mean(0 * q.mean)):
        for name, value in kept.items():
            assert other.__dict__[name] is value
    columns = {name: getattr(q, name) for name in ("column_factor", "column_log_determinant")}
    for name, value in columns.items():
        assert q.with_mean(0 * q.mean).__dict__[name] is value
        assert name not in q.tempered(0.5).__dict__


@pytest.mark.parametrize("name", ["column_covariance", "row_precision", "column_precision", "prior precision"])
def test_a_failed_factorisation_names_its_matrix(name):
    q, bad = normal(), -np.eye(2)
    calls = {
        "column_covariance": lambda: MatrixNormal(q.mean, q.row_precision, bad).entropy(),
        "row_precision": lambda: MatrixNormal.from_natural_parameters(np.eye(2), -np.eye(3), q.mean),
        "column_precision": lambda: MatrixNormal.from_natural_parameters(bad, np.eye(3), q.mean),
        "prior precision": lambda: Prior(q.mean, -np.eye(3)).log_determinant,
    }
    with pytest.raises(NotPositiveDefiniteError) as caught:
        calls[name]()
    assert caught.value.name == name


@pytest.mark.numpy_only("it looks for NumPy under another name")
def test_the_backend_is_passed_on():
    q = MatrixNormal.from_natural_parameters(np.eye(2), np.eye(3), np.ones((3, 2)), OTHER)
    assert q.backend is OTHER
    assert Prior.isotropic(np.ones((3, 2)), 2.0, OTHER).backend is OTHER


@pytest.mark.parametrize("far", [1e3, 1e200])
def test_gelu_far_out_is_silent(far):
    activation = get_activation("gelu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope = activation.derivative(np.array([-far, far]), NUMPY)
    assert slope.tolist() == [0.0, 1.0]


def states():
    for k, likelihood in ((2, Gaussian(0.3)), (3, Categorical())):
        state = initial_state(MLP((2, 4, k)), likelihood, generator(), Settings())
        yield replace(state, temperature=0.5), generator().standard_normal((10, 2))


def test_two_blocks_are_joined_as_any_number_is():
    for state, x in states():
        whole, halves = (predict_linearized(state, x, block_rows=rows) for rows in (10, 5))
        for name in ("mean", "aleatoric", "epistemic", "epistemic_by_layer"):
            one, other = getattr(whole, name), getattr(halves, name)
            assert one.shape == other.shape
            assert np.allclose(one, other, rtol=1e-12, atol=1e-12)


def test_a_hundred_draws_by_default():
    state, x = next(iter(states()))
    assert predict_monte_carlo(state, x, generator()).draws.shape == (100, 10, 2)


def test_an_isotropic_prior_is_never_factorised():
    """Not even one whose Λ₀M₀ and log|Λ₀| are asked for: both are there from the start."""
    prior = Prior.isotropic(np.ones((3, 2)), 2.0)
    assert np.array_equal(prior.__dict__["linear_term"], np.full((3, 2), 2.0))
    assert prior.__dict__["log_determinant"] == 3 * math.log(2.0)


def test_initial_weights_are_the_draws_scaled_by_the_fan_in():
    mlp = MLP([5, 4, 2])
    assert mlp.widths == (5, 4, 2)
    weights = mlp.initial_weights(generator())
    rng = generator()
    for l, (w, (d, k)) in enumerate(zip(weights, mlp.shapes)):
        z = rng.standard_normal((d, k))
        assert np.allclose(w[:-1], z[:-1] * math.sqrt(2 / (d - 1)), rtol=1e-14)
        assert np.array_equal(w[-1], z[-1] if l == 0 else 0 * z[-1])
