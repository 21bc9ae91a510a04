"""Samples of a matrix normal against its distribution: exact tests with a stated error rate and negative controls.

If W ~ MN(M, P⁻¹, Σ) and C is the dense Cholesky factor of Σ ⊗ P⁻¹, then x = C⁻¹ vec(W − M) has independent N(0, 1)
entries. Tested, all with exact distributions: the mean of every entry (normal), every entry's and every pair's
(x_i ± x_j)/√2 sum of squares (χ² with S degrees of freedom), and the Kolmogorov–Smirnov distance of all entries.

False-fail rate: each of the tests is at level ALPHA/number of tests, so a right sampler fails with probability
≤ ALPHA = 1e-6 (and with the seed fixed here, not at all once it has passed). Power: with S = 20 000, a covariance
× 1.2 moves a χ² statistic by 0.2 · S/√(2S) = 20 standard deviations, 14 beyond the threshold of about 6: it is
missed with probability below 1e-20. The negative controls are such samplers, and must fail.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import linalg, stats

from balinp import MatrixNormal
from balinp.testing import inverse, kronecker, random_matrix_normal

pytestmark = pytest.mark.usefixtures("on_backend")

ALPHA = 1e-6
DRAWS = 20_000


def smallest_p_value(q: MatrixNormal, samples: np.ndarray) -> float:
    """The smallest p-value of all tests times their number (Bonferroni)."""
    covariance = kronecker(q.column_covariance, inverse(q.row_precision))
    centred = (samples - q.mean).transpose(0, 2, 1).reshape(len(samples), -1)  # rows vec(W − M)
    x = linalg.solve_triangular(np.linalg.cholesky(covariance), centred.T, lower=True)
    n = x.shape[1]
    sums = [np.sum(row**2) for row in x]
    for i, j in combinations(range(len(x)), 2):
        sums += [np.sum((x[i] + x[j]) ** 2) / 2, np.sum((x[i] - x[j]) ** 2) / 2]
    p_values = [2 * min(stats.chi2.cdf(s, n), stats.chi2.sf(s, n)) for s in sums]
    p_values += list(2 * stats.norm.sf(np.abs(x.sum(axis=1)) / np.sqrt(n)))
    p_values.append(stats.kstest(x.ravel(), "norm").pvalue)
    return float(np.min(p_values)) * len(p_values)


@pytest.fixture
def normal(generator) -> MatrixNormal:
    return random_matrix_normal(generator, (3, 2), np.float64, row_condition=20.0, column_condition=10.0)


@pytest.fixture
def draws(generator) -> np.ndarray:
    return generator.standard_normal((DRAWS, 3, 2))


@pytest.mark.equation("eq:sampling")
def test_samples_have_the_distribution(normal, draws):
    assert smallest_p_value(normal, normal.sample(draws)) > ALPHA


@pytest.mark.equation("eq:sampling")
def test_samples_in_float32_have_the_distribution(generator, draws):
    q = random_matrix_normal(generator, (3, 2), np.float32, row_condition=20.0, column_condition=10.0)
    assert smallest_p_value(q, q.sample(draws.astype(np.float32))) > ALPHA


def swapped(q: MatrixNormal, z: np.ndarray) -> np.ndarray:
    """Cov = P⁻¹ ⊗ Σ: the Kronecker factors in the wrong order, vec'ed all the same."""
    covariance = kronecker(inverse(q.row_precision), q.column_covariance)
    flat = z.reshape(len(z), -1) @ np.linalg.cholesky(covariance).T
    return q.mean + flat.reshape(len(z), 2, 3).transpose(0, 2, 1)


WRONG = {
    "covariance × 1.2": lambda q, z: q.mean + np.sqrt(1.2) * (q.sample(z) - q.mean),
    "Kronecker order": swapped,
    "L⁻¹ for L⁻ᵀ": lambda q, z: q.mean + np.linalg.inv(q.row_factor) @ z @ q.column_factor.T,
    "R for Rᵀ": lambda q, z: q.mean + np.linalg.inv(q.row_factor).T @ z @ q.column_factor,
    "P for P⁻¹": lambda q, z: q.mean + q.row_factor @ z @ q.column_factor.T,
    "a mean off by 0.1 deviations": lambda q, z: q.sample(z + 0.1),
    "no mean": lambda q, z: q.sample(z) - q.mean,
}


@pytest.mark.equation("eq:sampling")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_sampler_fails(name, normal, draws):
    assert smallest_p_value(normal, WRONG[name](normal, draws)) < ALPHA
