"""The residual ratios themselves: small for what LAPACK returns, large for a relative error of 1e-6, never NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from balinp.testing import (
    THRESHOLD,
    assert_residual,
    cholesky_residual,
    comparison_residual,
    condition_number,
    extreme_spd_matrices,
    kronecker_residual,
    log_determinant_residual,
    machine_epsilon,
    random_spd,
    residuals,
    solve_residual,
    spd_matrices,
    worst_ratios,
)


@pytest.mark.parametrize("ratio", [THRESHOLD, 1e9, np.inf, np.nan])
def test_a_ratio_at_the_threshold_or_not_a_number_fails_and_names_the_statement(ratio, monkeypatch):
    monkeypatch.setattr(residuals, "_worst", {})  # the table must not carry what is staged here
    with pytest.raises(AssertionError, match=r"^eq:layer-posterior is broken: the mean: residual ratio .* < 10$"):
        assert_residual(ratio, "the mean", "eq:layer-posterior")


def test_a_small_ratio_passes_and_the_worst_is_kept(monkeypatch):
    monkeypatch.setattr(residuals, "_worst", {})
    for ratio, what in ((0.5, "first"), (2.5, "second"), (1.0, "third")):
        assert_residual(ratio, what, "staged")
    assert worst_ratios() == {"staged": (2.5, "second")}


def test_machine_epsilon_is_that_of_the_coarsest_dtype():
    assert machine_epsilon(1.0) == np.finfo(np.float64).eps
    assert machine_epsilon(np.ones(2), np.float32(1)) == np.finfo(np.float32).eps


@given(matrix=extreme_spd_matrices())
def test_residuals_survive_extreme_scales(matrix):
    factor = np.linalg.cholesky(matrix)
    assert cholesky_residual(factor, matrix) < THRESHOLD
    assert cholesky_residual(factor * matrix.dtype.type(1.01), matrix) > THRESHOLD
    assert 1 <= condition_number(matrix) < 3


@given(matrix=spd_matrices(dtype="float64", condition=2.0))
def test_a_relative_error_of_one_in_a_million_is_seen(matrix):
    wrong, n = 1 + 1e-6, len(matrix)
    right = np.ones((n, 2))
    x = np.linalg.solve(matrix, right)
    half = np.linalg.solve(matrix, right) * np.array([1.0, wrong])  # one column only
    log_determinant = np.linalg.slogdet(matrix)[1]
    for good, bad in (
        (
            cholesky_residual(np.linalg.cholesky(matrix), matrix),
            cholesky_residual(wrong * np.linalg.cholesky(matrix), matrix),
        ),
        (solve_residual(matrix, x, right), solve_residual(matrix, half, right)),
        (
            log_determinant_residual(log_determinant, matrix),
            log_determinant_residual(log_determinant + 1e-6 * n, matrix),
        ),
        (comparison_residual(x, x), comparison_residual(wrong * x, x)),
    ):
        assert good < THRESHOLD < bad


def test_a_kronecker_product_in_the_wrong_order_is_seen(generator):
    B, U = (random_spd(generator, 3, 5.0, np.float64) for _ in range(2))
    X = generator.standard_normal((3, 3))
    assert kronecker_residual(U @ X @ B.T, B, U, X) < THRESHOLD < kronecker_residual(B @ X @ U.T, B, U, X)


def test_not_a_number_and_a_wrong_shape_never_pass():
    bad = np.array([1.0, np.nan])
    assert not comparison_residual(bad, np.ones(2)) < THRESHOLD
    assert not comparison_residual(np.ones(2), bad) < THRESHOLD
    for column in range(3):
        x = np.eye(3)
        x[1, column] = np.nan
        assert not solve_residual(np.eye(3), x, np.eye(3)) < THRESHOLD
    assert comparison_residual(np.ones(2), np.zeros(2)) == np.inf
    assert comparison_residual(np.zeros(2), np.zeros(2)) == 0
    with pytest.raises(AssertionError, match="shape"):
        comparison_residual(np.ones((2, 1)), np.ones(2))


def test_an_indefinite_matrix_has_an_infinite_condition_number():
    assert condition_number(np.diag([1.0, -1.0])) == np.inf
    assert condition_number(np.zeros((0, 0))) == 1
