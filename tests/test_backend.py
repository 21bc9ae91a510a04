"""The linear algebra of the backend against LAPACK-style residual ratios, and its refusals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from balinp import NUMPY, InvalidArgumentError, NotPositiveDefiniteError
from balinp.testing import (
    assert_residual,
    cholesky_residual,
    comparison_residual,
    condition_number,
    extreme_spd_matrices,
    log_determinant_residual,
    random_spd,
    seeds,
    sizes,
    solve_residual,
    spd_matrices,
)

pytestmark = pytest.mark.usefixtures("on_backend")


@given(matrix=st.one_of(spd_matrices(hardest=True), extreme_spd_matrices()))
def test_cholesky_factor_multiplies_back(matrix):
    L = NUMPY.cholesky(matrix)
    assert L.dtype == matrix.dtype
    assert np.array_equal(L, np.tril(L))
    assert np.all(np.diagonal(L) > 0)
    assert_residual(cholesky_residual(L, matrix), "L Lᵀ against the matrix", "cholesky")


@given(matrix=spd_matrices())
def test_cholesky_reads_only_the_lower_triangle(matrix):
    spoiled = np.tril(matrix) + np.triu(np.full_like(matrix, np.nan), 1)
    assert np.array_equal(NUMPY.cholesky(spoiled), NUMPY.cholesky(matrix))


@given(matrix=spd_matrices(hardest=True), columns=sizes(10), seed=seeds())
def test_solve_has_a_small_backward_error_at_any_condition_number(matrix, columns, seed):
    right = np.random.default_rng(seed).standard_normal((len(matrix), columns)).astype(matrix.dtype)
    solution = NUMPY.cho_solve(NUMPY.cholesky(matrix), right)
    assert solution.dtype == matrix.dtype
    assert_residual(solve_residual(matrix, solution, right), "A x = b", "solve")


@given(matrix=extreme_spd_matrices())
def test_solve_survives_matrices_near_under_and_overflow(matrix):
    right = (matrix @ np.full((len(matrix), 1), 0.5, dtype=matrix.dtype)).astype(matrix.dtype)
    solution = NUMPY.cho_solve(NUMPY.cholesky(matrix), right)
    assert_residual(solve_residual(matrix, solution, right), "A x = b near under- and overflow", "solve")


@given(matrix=spd_matrices(), columns=sizes(10), transposed=st.booleans(), seed=seeds())
def test_triangular_solve_takes_the_transpose_only_when_asked(matrix, columns, transposed, seed):
    L = NUMPY.cholesky(matrix)
    right = np.random.default_rng(seed).standard_normal((len(L), columns)).astype(L.dtype)
    solution = NUMPY.solve_triangular(L, right, transposed=transposed)
    ratio = solve_residual(L.T if transposed else L, solution, right)
    assert_residual(ratio, f"triangular solve, transposed={transposed}", "solve-triangular")


@given(matrix=spd_matrices(hardest=True))
def test_factor_gives_the_log_determinant(matrix):
    computed = 2 * np.sum(np.log(np.diagonal(NUMPY.cholesky(matrix))))
    assert_residual(log_determinant_residual(computed, matrix), "2 ∑ log L_ii against log|A|", "log-determinant")


@given(matrix=spd_matrices())
def test_eigh_decomposes(matrix):
    values, vectors = NUMPY.eigh(matrix)
    assert values.dtype == vectors.dtype == matrix.dtype
    assert np.all(np.diff(values) >= 0)
    wide = vectors.astype(np.float64)
    scale = float(np.linalg.norm(matrix))
    ratio = comparison_residual(((wide * values) @ wide.T).astype(matrix.dtype), matrix, scale=scale, size=len(matrix))
    assert_residual(ratio, "V diag(λ) Vᵀ against the matrix", "eigh")


@given(seed=seeds(), shift=st.sampled_from([0.0, 1e4, -1e4]), axis=st.sampled_from([0, 1]))
def test_logsumexp_neither_over_nor_underflows(seed, shift, axis):
    values = np.random.default_rng(seed).standard_normal((4, 3)) * 5 + shift
    expected = scipy.special.logsumexp(values, axis=axis)
    ratio = comparison_residual(NUMPY.logsumexp(values, axis=axis), expected, scale=10 + abs(shift))
    assert_residual(ratio, "log ∑ exp", "logsumexp")


@pytest.mark.equation("eq:logsumexp")
def test_logsumexp_of_nothing_but_minus_infinity():
    with np.errstate(divide="ignore"):
        values = NUMPY.logsumexp(np.array([[-np.inf, -np.inf], [-np.inf, 3.0]]))
    assert values.tolist() == [-np.inf, 3.0]


def test_logsumexp_is_along_the_last_axis_by_default():
    values = np.log(np.arange(1.0, 7.0).reshape(2, 3))
    ratio = comparison_residual(NUMPY.logsumexp(values), np.log([6.0, 15.0]))
    assert_residual(ratio, "log ∑ exp along rows", "logsumexp")


def test_draws_are_those_of_the_generator_whatever_the_dtype(dtype):
    draws = NUMPY.standard_normal(NUMPY.generator(3), (5, 2), dtype)
    assert draws.dtype == dtype
    assert np.array_equal(draws, np.random.default_rng(3).standard_normal((5, 2)).astype(dtype))


def test_asarray_and_to_host_do_not_copy():
    values = np.arange(3.0)
    assert NUMPY.asarray(values) is values
    assert NUMPY.to_host(values) is values
    assert NUMPY.asarray([1, 2], dtype="float32").dtype == np.float32


def test_empty_matrices_factorise_and_solve(dtype):
    L = NUMPY.cholesky(np.zeros((0, 0), dtype=dtype))
    assert L.shape == (0, 0)
    one = np.ones((1, 1), dtype=dtype)
    assert NUMPY.cho_solve(one, np.zeros((1, 0), dtype=dtype)).shape == (1, 0)


@given(matrix=spd_matrices(size=sizes(10)))
def test_the_callers_matrix_is_left_alone_whatever_its_layout(matrix):
    padded = np.zeros((2 * len(matrix), 2 * len(matrix)), dtype=matrix.dtype)
    padded[::2, ::2] = matrix
    view = padded[::2, ::2]
    view.flags.writeable = False
    before = padded.copy()
    L = NUMPY.cholesky(view)
    assert_residual(cholesky_residual(L, matrix), "factor of a strided read-only view", "cholesky")
    right = np.asfortranarray(matrix)
    right.flags.writeable = False
    ratio = comparison_residual(NUMPY.cho_solve(L, right), np.eye(len(L)), condition_number(matrix))
    assert_residual(ratio, "A⁻¹A", "solve")
    assert np.array_equal(padded, before)
    assert np.array_equal(right, matrix)


def test_a_batch_is_its_matrices_one_by_one(dtype):
    generator = np.random.default_rng(5)
    matrices = np.stack([random_spd(generator, 3, 10.0, dtype) for _ in range(4)])
    right = generator.standard_normal((4, 3, 2)).astype(dtype)
    factors = NUMPY.cholesky(matrices)
    assert factors.dtype == dtype
    for transposed in (False, True):
        solutions = NUMPY.solve_triangular(factors, right, transposed)
        assert solutions.dtype == dtype
        for A, L, b, x in zip(matrices, factors, right, solutions):
            assert_residual(cholesky_residual(L, A), "factor of one of a batch", "cholesky")
            ratio = solve_residual(L.T if transposed else L, x, b)
            assert_residual(ratio, f"one of a batch, transposed={transposed}", "solve-triangular")
    assert NUMPY.cholesky(matrices[:0]).shape == (0, 3, 3)
    assert NUMPY.solve_triangular(factors[:0], right[:0]).shape == (0, 3, 2)


def test_cholesky_refuses_alike_everywhere(dtype):
    """Not positive definite, NaN, infinity, in either triangle and in a batch: the same error with the same pivot."""
    good = np.array([[4, 2, 0], [2, 5, 1], [0, 1, 3]], dtype=dtype)
    for place, value, pivot in (((1, 1), 0.5, 1), ((2, 2), np.nan, 2), ((1, 0), np.inf, 1), ((0, 0), -np.inf, 0)):
        bad = good.copy()
        bad[place] = value
        for matrix in (bad, np.stack([good, bad, -good])):
            with pytest.raises(NotPositiveDefiniteError) as caught:
                NUMPY.cholesky(matrix, "noise")
            found = caught.value
            assert (found.name, found.size, found.pivot_index, found.dtype) == ("noise", 3, pivot, dtype.name)
    upper = good.copy()
    upper[0, 2] = np.nan  # is not read
    assert np.array_equal(NUMPY.cholesky(upper), NUMPY.cholesky(good))
    for shape in ((2, 3), (3,), (4, 2, 3)):
        with pytest.raises(InvalidArgumentError, match="noise must be a square matrix"):
            NUMPY.cholesky(np.ones(shape, dtype=dtype), "noise")


def test_several_numbers_at_once(dtype):
    values = np.array([1.5, 2.25, 3e30], dtype=dtype)
    got = NUMPY.floats(values[0], 7, values[2], np.sum(values[:2]), 0.1)
    assert got == [1.5, 7.0, float(values[2]), 3.75, 0.1]
    assert {type(number) for number in got} == {float}
