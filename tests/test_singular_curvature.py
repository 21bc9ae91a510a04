"""Curvatures that are singular, by rounding or in truth: precision and covariance still factorise."""

import itertools

import numpy as np
import pytest

from balinp import NUMPY, MatrixNormal, NotPositiveDefiniteError
from balinp.evidence import kronecker_precision


@pytest.mark.equation("eq:kronecker-projection")
@pytest.mark.parametrize("k", [2, 10, 100])
def test_a_singular_curvature_survives_a_covariance_that_lies_where_it_is_nought(k, dtype):
    """Böhning's bound and a Σ that is all variance along (1, …, 1): b is then nearly 0, and (1 − κ)b far below the
    rounding of B. Q and its inverse still factorise, and where b is of B's size not a bit is added."""
    B = ((np.eye(k) - 1 / k) / 2).astype(dtype)
    eps, rows = np.finfo(dtype).eps, np.eye(3, dtype=dtype)
    along = np.full((k, k), 0.1 / (k * eps**1.5), dtype=dtype)
    pi, Q = kronecker_precision(B, 0.5, MatrixNormal(np.zeros((3, k), dtype), rows, along), 0.9, "independent")
    assert Q.dtype == dtype
    assert pi > 0
    S = NUMPY.cho_solve(NUMPY.cholesky(Q), np.eye(k, dtype=dtype))
    assert np.all(np.isfinite(NUMPY.cholesky(S)))
    of_its_size = MatrixNormal(np.zeros((3, k), dtype), rows, np.eye(k, dtype=dtype))
    _, Q = kronecker_precision(B, 0.5, of_its_size, 0.9, "independent")
    rest = 1 - 0.9
    b = np.sum(B * of_its_size.column_covariance) / np.trace(of_its_size.column_covariance)
    assert np.array_equal(Q, (1 - rest) * B + np.eye(k, dtype=dtype) * (rest * b))


@pytest.mark.equation("eq:kronecker-projection")
def test_four_roundings_are_enough_for_a_singular_curvature(monkeypatch):
    """Singular B of low, middle and full rank but one, Σ along a null vector: Q and S factorise; with a sixteenth of
    what is added some do not (negative control)."""

    def failures():
        count = 0
        for dtype, k in itertools.product((np.float32, np.float64), (2, 3, 10, 50, 300)):
            for rank in {1, max(k // 2, 1), k - 1}:
                root = np.random.default_rng([k, rank]).standard_normal((k, rank))
                null = np.linalg.svd(root)[0][:, -1]
                B = (root @ root.T / rank).astype(dtype)
                along = (np.outer(null, null) / np.finfo(dtype).eps ** 1.5).astype(dtype)
                q = MatrixNormal(np.zeros((3, k), dtype), np.eye(3, dtype=dtype), along)
                _, Q = kronecker_precision((B + B.T) / 2, 0.5, q, 0.9, "independent")
                try:
                    S = NUMPY.cho_solve(NUMPY.cholesky(Q), np.eye(k, dtype=dtype))
                    NUMPY.cholesky((S + S.T) / 2)
                except NotPositiveDefiniteError:
                    count += 1
        return count

    assert failures() == 0
    monkeypatch.setattr("balinp.evidence.ROUNDING", 0.25)
    assert failures() > 0


@pytest.mark.equation("eq:kronecker-projection")
def test_what_the_data_determine_wholly_is_taken_as_all_but_the_root_of_eps(dtype):
    B, ones = np.diag(np.array([1.0, 3.0], dtype)), np.eye(2, dtype=dtype)
    _, Q = kronecker_precision(B, 0.5, MatrixNormal(np.zeros((2, 2), dtype), ones, ones), 1.0, "independent")
    rest = float(np.finfo(dtype).eps) ** 0.5
    assert np.array_equal(Q, (1 - rest) * B + ones * dtype.type(rest * 2.0))
