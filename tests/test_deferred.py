"""Checks that are put off on a device: the same refusals as on NumPy, and no failed factorisation overlooked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_errors import exact_matrix

from balinp import (
    MLP,
    NUMPY,
    Categorical,
    DivergenceError,
    Gaussian,
    InvalidArgumentError,
    NotPositiveDefiniteError,
    Settings,
    bali_step,
    initial_state,
)
from balinp.testing.device import DOUBLE, count_transfers, cupy
from balinp.testing.strategies import dtypes, seeds, sizes, spd_matrices


def doubted(factor, matrix):
    return bool(NUMPY._doubtful(factor, matrix))


def put_off(matrix, name="gram"):
    """The error of a factorisation on the double whose verdict is put off."""
    with DOUBLE.deferred() as later:
        with later.in_layer(3), count_transfers() as transfers:
            DOUBLE.cholesky(cupy.asarray(matrix), name)
        assert transfers.waits == []
        with pytest.raises(NotPositiveDefiniteError) as caught:
            later.floats()
    return caught.value


@pytest.mark.equation("eq:cholesky")
@given(size=sizes(), share=st.floats(0, 1), value=st.sampled_from([0.0, -1.0, -4.0]), dtype=dtypes(), seed=seeds())
def test_a_verdict_put_off_says_the_same(size, share, value, dtype, seed):
    matrix = exact_matrix(seed, size, round(share * (size - 1)), value, dtype)
    with pytest.raises(NotPositiveDefiniteError) as at_once:
        NUMPY.cholesky(matrix, "gram")
    assert str(put_off(matrix)) == str(at_once.value.in_layer(3))


def test_another_refusal_put_off_in_a_layer_is_as_it_was():
    """As is a false alarm; only a matrix that is not positive definite is said to be of the layer."""
    refusals = iter((InvalidArgumentError("a weight is negative"), None))
    for _ in range(2):
        refusal = next(refusals)
        with DOUBLE.deferred() as later:
            with later.in_layer(3):
                DOUBLE.refuse_if(cupy.asarray(True), lambda refusal=refusal: refusal)
            if refusal is None:
                assert later.floats(cupy.asarray(2.0)) == [2.0]
            else:
                with pytest.raises(InvalidArgumentError, match=r"^a weight is negative$"):
                    later.floats()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 0), (2, 2)])
def test_what_is_not_finite_is_refused(value, place):
    matrix = np.eye(3)
    matrix[place] = value
    assert put_off(matrix).layer == 3


@pytest.mark.equation("eq:cholesky")
@given(matrix=spd_matrices())
def test_good_factors_are_not_doubted(matrix):
    assert not doubted(NUMPY.cholesky(matrix), matrix)


@pytest.mark.equation("eq:cholesky")
@given(size=sizes(), share=st.floats(0, 1), dtype=dtypes(), seed=seeds(), exponent=st.floats(-200, 3))
def test_whatever_stands_at_the_failing_pivot_is_doubted(size, share, dtype, seed, exponent):
    """The rows before it are as a factorisation leaves them, those after it too: only the pivot itself is made up."""
    pivot = round(share * (size - 1))
    bad, good = (exact_matrix(seed, size, pivot, value, dtype) for value in (0.0, 1.0))
    factor = NUMPY.cholesky(good)
    assert not doubted(factor, good)
    for made_up in (10.0**exponent, -(10.0**exponent), 0.0, np.nan, np.inf):
        factor[pivot, pivot] = made_up
        assert doubted(factor, bad)


@pytest.mark.equation("eq:cholesky")
@given(matrix=spd_matrices(), seed=seeds())
def test_garbage_is_doubted(matrix, seed):
    garbage = np.tril(np.random.default_rng(seed).uniform(0.1, 2, matrix.shape)).astype(matrix.dtype)
    assert doubted(garbage, matrix)


def test_a_factor_doubted_in_vain_is_kept():
    """A pivot below the rounding of its diagonal entry: the library is asked, and finds it positive."""
    matrix = np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-52]])
    assert doubted(np.linalg.cholesky(matrix), matrix)
    with DOUBLE.deferred(), count_transfers() as transfers:
        factor = DOUBLE.cholesky(cupy.asarray(matrix))
        assert transfers.waits == []
    assert np.array_equal(factor.get(), np.linalg.cholesky(matrix))


def test_checks_are_looked_at_in_one_transfer_and_in_order():
    true, false = cupy.asarray(np.array(True)), cupy.asarray(np.array(False))
    seen = []

    def error(name):
        return lambda: seen.append(name) or InvalidArgumentError(name)

    with DOUBLE.deferred() as later:
        for bad, name in ((false, "first"), (true, "second"), (true, "third")):
            DOUBLE.refuse_if(bad, error(name))
        with count_transfers() as transfers, pytest.raises(InvalidArgumentError, match="second"):
            later.floats(cupy.asarray(np.ones(())), 2.0)
    assert seen == ["second"]
    assert len(transfers.waits) == 1
    with pytest.raises(InvalidArgumentError, match="at once"):
        DOUBLE.refuse_if(true, error("at once"))
    with DOUBLE.deferred() as later:
        assert later.floats(cupy.asarray(1.5), 2, cupy.asarray(np.float32(0.5))) == [1.5, 2, 0.5]
        assert later.floats() == []
    with pytest.raises(InvalidArgumentError, match="at the end"), DOUBLE.deferred():
        DOUBLE.refuse_if(true, error("at the end"))


def test_on_numpy_nothing_is_put_off():
    with NUMPY.deferred() as later, pytest.raises(NotPositiveDefiniteError, match="of layer 1"), later.in_layer(1):
        NUMPY.cholesky(-np.eye(2))


def step(backend, mlp, x, y, likelihood, change):
    rng = np.random.default_rng(0)
    state = initial_state(mlp, likelihood, rng, Settings(warmup=0), x.dtype)
    state = bali_step(state, backend.asarray(x), backend.asarray(y), rng, Settings(warmup=0))
    return bali_step(state, backend.asarray(change(x)), backend.asarray(y), rng, Settings(warmup=0))


@pytest.mark.parametrize("kind", [Gaussian, Categorical])
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda x: x * 1e200, (DivergenceError, NotPositiveDefiniteError)),
        (lambda x: x * np.nan, DivergenceError),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_iteration_refuses_alike(kind, change, refusal):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    if kind is Categorical:
        y = rng.integers(0, 2, 30)
    texts = []
    for backend in (NUMPY, DOUBLE):
        likelihood = Gaussian(np.ones(2) if backend is NUMPY else cupy.ones(2), backend)
        likelihood = Categorical(backend) if kind is Categorical else likelihood
        with pytest.raises(refusal) as caught:
            step(backend, MLP((3, 4, 2), "relu", backend), x, y, likelihood, change)
        texts.append((type(caught.value), str(caught.value)))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_outside_is_refused_by_the_iteration(label):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((30, 3)), rng.integers(0, 2, 30)
    y[7] = label
    for backend in (NUMPY, DOUBLE):
        with pytest.raises(InvalidArgumentError, match="labels must be integers from 0 to 1"):
            step(backend, MLP((3, 4, 2), "relu", backend), x, y, Categorical(backend), lambda x: x)
