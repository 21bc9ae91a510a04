"""Refusals: a matrix that is not positive definite is reported, never carried on as NaN; arguments are named."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balinp
from balinp import (
    NUMPY,
    BALIClassifier,
    BALIError,
    BALIRegressor,
    LayerStatistics,
    MatrixNormal,
    NotPositiveDefiniteError,
    Prior,
    layer_posterior,
)
from balinp.testing import dtypes, seeds, sizes, spd_matrices

REMEDY = "use a larger prior precision, float64, or remove duplicate or non-finite columns"


def exact_matrix(seed: int, size: int, pivot: int, value: float, dtype: object) -> np.ndarray:
    """L diag(p) Lᵀ, L unit lower triangular with entries −1, 0, 1 and p squares but for p[pivot] = value: small
    integers, so a factorisation meets exactly those pivots until it fails."""
    generator = np.random.default_rng(seed)
    L = np.tril(generator.integers(-1, 2, (size, size)), -1) + np.eye(size)
    p = generator.choice([1.0, 4.0, 16.0], size)
    p[pivot] = value
    return ((L * p) @ L.T).astype(dtype)


def refused(matrix: np.ndarray, name: str = "gram") -> NotPositiveDefiniteError:
    with pytest.raises(NotPositiveDefiniteError) as caught:
        NUMPY.cholesky(matrix, name)
    return caught.value


@given(size=sizes(), share=st.floats(0, 1), value=st.sampled_from([0.0, -1.0, -4.0]), dtype=dtypes(), seed=seeds())
def test_singular_and_indefinite_matrices_name_the_first_failing_pivot(size, share, value, dtype, seed):
    pivot = round(share * (size - 1))
    error = refused(exact_matrix(seed, size, pivot, value, dtype))
    assert (error.name, error.size, error.dtype, error.layer) == ("gram", size, dtype.name, None)
    assert error.pivot_index == pivot
    assert error.pivot_value == value
    start = f"gram ({size} x {size}, {dtype.name}) is not positive definite: pivot {pivot} is {value:.6g}, must be > 0"
    assert str(error).startswith(start)
    assert str(error).endswith(REMEDY)


@given(matrix=spd_matrices(), share=st.floats(0, 1), across=st.floats(0, 1), bad=st.sampled_from([np.nan, np.inf]))
def test_a_non_finite_entry_fails_at_its_row(matrix, share, across, bad):
    size = len(matrix)
    i = round(share * (size - 1))
    j = round(across * i)
    matrix[i, j] = matrix[j, i] = bad
    error = refused(matrix)
    assert error.pivot_index == i
    assert not np.isfinite(error.pivot_value)
    assert error.dtype == matrix.dtype.name
    assert "non-finite" in str(error)


@given(matrix=spd_matrices(condition=2.0))
def test_minus_a_positive_definite_matrix_fails_at_once(matrix):
    error = refused(-matrix)
    assert error.pivot_index == 0
    assert error.pivot_value == -matrix[0, 0]


def rank_deficient_outcome(seed: int, size: int, dtype: object) -> np.ndarray | NotPositiveDefiniteError:
    """The factor or the error for a Gram matrix with a duplicate column: after rounding it may be either."""
    a = np.random.default_rng(seed).standard_normal((size, size)).astype(dtype)
    a[:, -1] = a[:, 0]
    try:
        return NUMPY.cholesky(a.T @ a)
    except NotPositiveDefiniteError as error:
        return error


@given(size=sizes(10), dtype=dtypes(), seed=seeds())
def test_numerically_singular_matrices_never_give_nan(size, dtype, seed):
    outcome = rank_deficient_outcome(seed, size, dtype)
    if isinstance(outcome, NotPositiveDefiniteError):
        assert 0 <= outcome.pivot_index < size
    else:
        assert np.all(np.isfinite(outcome))


@given(size=sizes(10), dtype=dtypes(), seed=seeds())
def test_a_pivot_lost_to_rounding_is_not_reported_as_positive(size, dtype, seed):
    """ "pivot 1 is 2.4e-07, must be > 0" would contradict itself."""
    outcome = rank_deficient_outcome(seed, size, dtype)
    assert not isinstance(outcome, NotPositiveDefiniteError) or not outcome.pivot_value > 0


@pytest.mark.equation("eq:matrix-normal")
@given(size=sizes(10), dtype=dtypes(), seed=seeds(), value=st.sampled_from([0.0, -1.0, np.nan]))
def test_every_method_of_a_matrix_normal_refuses_bad_factors(size, dtype, seed, value):
    bad = exact_matrix(seed, size, size - 1, value, dtype)
    eye, mean = np.eye(size, dtype=dtype), np.zeros((size, size), dtype=dtype)
    good = MatrixNormal(mean, eye, eye)
    calls = (
        lambda q: q.log_density(mean),
        lambda q: q.sample(mean),
        lambda q: q.entropy(),
        lambda q: q.kl_divergence(good),
        lambda q: good.kl_divergence(q),
    )
    for call in calls:
        for q, name in (
            (MatrixNormal(mean, bad, eye), "row_precision"),
            (MatrixNormal(mean, eye, bad), "column_covariance"),
        ):
            with pytest.raises(NotPositiveDefiniteError) as caught:
                call(q)
            assert caught.value.name == name
    for row, column, name in ((bad, eye, "row_precision"), (eye, bad, "column_precision")):
        with pytest.raises(NotPositiveDefiniteError) as caught:
            MatrixNormal.from_natural_parameters(column, row, mean)
        assert caught.value.name == name


@pytest.mark.equation("eq:layer-posterior")
@pytest.mark.parametrize("value", [np.nan, -7.0])
def test_layer_posterior_refuses_at_once(value, dtype):
    a = np.ones((3, 2), dtype=dtype)
    prior = Prior(np.zeros((2, 1), dtype=dtype), np.diag([1.0, value]).astype(dtype))
    with pytest.raises(NotPositiveDefiniteError) as caught:
        layer_posterior(LayerStatistics.from_batch(a, a[:, :1]), prior, np.eye(1, dtype=dtype))
    assert caught.value.name == "row_precision"
    assert caught.value.pivot_index == 1


def test_the_layer_is_added_to_the_report():
    error = NotPositiveDefiniteError("noise precision", 5, 2, -0.25, "float32").in_layer(1)
    assert (error.name, error.size, error.pivot_index, error.pivot_value) == ("noise precision", 5, 2, -0.25)
    assert (error.dtype, error.layer) == ("float32", 1)
    start = "noise precision of layer 1 (5 x 5, float32) is not positive definite: pivot 2 is -0.25, must be > 0"
    assert str(error).startswith(start)


def test_the_report_survives_pickling():
    error = NotPositiveDefiniteError("gram", 5, 2, -0.25, "float32", 0)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is NotPositiveDefiniteError
    assert vars(again) == vars(error)
    assert str(again) == str(error)


def test_every_refusal_is_a_bali_error_and_a_builtin_one():
    kinds = [e for e in vars(balinp.errors).values() if isinstance(e, type) and issubclass(e, BALIError)]
    assert len(kinds) >= 8
    for kind in kinds:
        assert kind is BALIError or issubclass(kind, (ValueError, TypeError))
        assert (getattr(balinp, kind.__name__)) is kind


X, Y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20.0)
SHORT = {"hidden_widths": (4,), "max_iterations": 5, "random_state": 0}


class NAType:
    """What pandas puts where a number is missing."""


@pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: BALIRegressor(**SHORT).fit(X, Y, test=3), "test must be a pair"),
        (lambda: BALIRegressor(**SHORT).fit(X, Y, test=(X[:, :2], Y)), "test: X has 2 features"),
        (lambda: BALIRegressor(**SHORT).fit(X, Y, callbacks=3), "callbacks must be a callable"),
        (lambda: BALIRegressor(**SHORT).fit(X, Y, callbacks=[print, 3]), "callbacks must be a callable"),
        (lambda: BALIRegressor(**SHORT).fit(X, np.c_[Y, Y]).score(X, Y), "y must have 2 outputs"),
        (lambda: BALIRegressor(**SHORT, shared_noise="no").fit(X, Y), "shared_noise must be True or False"),
        (lambda: BALIRegressor(**SHORT).fit([[1, NAType()]], [1]), "NaN in row 0, column 1"),
        (lambda: BALIRegressor(**SHORT).fit([[10**400]], [1]), "X must be numbers of float64"),
        (lambda: BALIClassifier(**SHORT).partial_fit(X, Y > 9, classes=3), "classes must be a sequence"),
        (lambda: BALIClassifier(**SHORT).partial_fit(X, Y, classes=[0, 1]), r"classes \[0, 1\]: \[2.0, "),
    ],
)
def test_a_refusal_names_the_argument(monkeypatch, call, said):
    """And comes before the first fit."""
    monkeypatch.setattr("balinp.learning._judged", None)  # the fits before the one proper
    if "score" in call.__code__.co_names:
        monkeypatch.undo()
    with pytest.raises(BALIError, match=said):
        call()
