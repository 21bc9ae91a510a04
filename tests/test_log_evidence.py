"""Identity 10: the evidence of one layer against the N·K × N·K Gaussian, and what must hold of any evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from balinp import MatrixNormal, Prior, layer_posterior, log_evidence
from balinp.testing import (
    LayerProblem,
    assert_residual,
    comparison_residual,
    condition_number,
    dense_evidence,
    inverse,
    layer_problems,
    random_layer_problem,
    seeds,
    sizes,
)

pytestmark = pytest.mark.usefixtures("on_backend")


def posterior(problem: LayerProblem) -> MatrixNormal:
    return layer_posterior(problem.statistics, problem.prior, problem.noise_covariance)


def norm(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(matrix, dtype=np.float64)))


def evidence_scale(problem: LayerProblem, q: MatrixNormal) -> float:
    """The terms of the evidence: log determinants, and the quadratic form before it cancels."""
    sigma, (n, d), k = problem.noise_covariance, problem.inputs.shape, problem.targets.shape[1]
    prior = problem.prior
    squares = norm(problem.targets) ** 2 + norm(prior.precision) * norm(prior.mean) ** 2
    squares += problem.mean_scale(q) * problem.term_scale
    whitened = float(np.linalg.norm(inverse(sigma), 2)) * condition_number(sigma) * squares
    logs = k * (abs(float(q.row_log_determinant)) + d * abs(np.log(norm(prior.precision))) + d)
    conditions = k * (condition_number(q.row_precision) + condition_number(prior.precision))
    return n * (k * 2 + abs(float(q.column_log_determinant)) + condition_number(sigma)) + logs + conditions + whitened


@pytest.mark.equation("eq:log-evidence")
@given(problem=layer_problems(rows=st.sampled_from([0, 1, 2, 3, 5, 10]), most=50))
def test_log_evidence_is_the_density_of_the_targets(problem):
    computed = log_evidence(problem.statistics, problem.prior, problem.noise_covariance)
    assert np.shape(computed) == ()
    assert computed.dtype == problem.inputs.dtype
    A, eps = problem.inputs.astype(np.float64), np.finfo(np.float64).eps
    rows = condition_number(np.eye(len(A)) + A @ inverse(problem.prior.precision) @ A.T)
    assume(rows * condition_number(problem.noise_covariance) < 0.1 / eps)  # else the dense one cannot be factorised
    expected = dense_evidence(*problem.dense_arguments)
    # I + A Λ₀⁻¹ Aᵀ has a condition number of its own, paid in float64 by the dense computation only
    scale = evidence_scale(problem, posterior(problem)) * (1 + rows * eps / np.finfo(computed.dtype).eps)
    ratio = comparison_residual(computed, expected, scale=scale, size=problem.longest_sum)
    assert_residual(ratio, "log evidence against the N·K × N·K Gaussian", "eq:log-evidence")


def easy_problem(seed: int, rows: int, c: float = 1.0) -> LayerProblem:
    """Well-conditioned, so that the evidence keeps nearly all its digits."""
    problem = random_layer_problem(seed, rows, (3, 2), np.float64)
    prior = Prior(c * problem.prior.mean, problem.prior.precision)
    return replace(problem, targets=c * problem.targets, prior=prior, noise_covariance=c**2 * problem.noise_covariance)


def evidence(problem: LayerProblem) -> np.ndarray:
    return log_evidence(problem.statistics, problem.prior, problem.noise_covariance)


@pytest.mark.equation("eq:log-evidence")
@given(seed=seeds(), rows=sizes(10), cut=st.floats(0, 1))
def test_evidence_of_all_rows_is_that_of_some_times_that_of_the_rest_given_them(seed, rows, cut):
    problem, at = easy_problem(seed, rows), round(cut * rows)
    first = replace(problem, inputs=problem.inputs[:at], targets=problem.targets[:at])
    half = posterior(first)
    rest = replace(
        problem,
        inputs=problem.inputs[at:],
        targets=problem.targets[at:],
        prior=Prior(half.mean, half.row_precision),
    )
    scale = evidence_scale(problem, posterior(problem))
    ratio = comparison_residual(evidence(first) + evidence(rest), evidence(problem), scale=scale, size=rows)
    assert_residual(ratio, "log p(T₁) + log p(T₂ | T₁)", "eq:log-evidence")


@pytest.mark.equation("eq:log-evidence")
@given(seed=seeds(), rows=sizes(10), c=st.sampled_from([0.1, 3.0, 100.0]))
def test_evidence_of_scaled_targets_changes_by_the_jacobian(seed, rows, c):
    problem, scaled = easy_problem(seed, rows), easy_problem(seed, rows, c)
    expected = evidence(problem) - problem.targets.size * np.log(c)
    scale = evidence_scale(problem, posterior(problem)) + problem.targets.size * abs(np.log(c))
    ratio = comparison_residual(evidence(scaled), expected, scale=scale, size=rows)
    assert_residual(ratio, "log p(cT) = log p(T) − N K log c", "eq:log-evidence")


@pytest.mark.equation("eq:log-evidence")
@given(seed=seeds(), rows=sizes(10))
def test_evidence_is_likelihood_times_prior_over_posterior(seed, rows):
    """At any W; here at the posterior mean."""
    problem = easy_problem(seed, rows)
    q, sigma = posterior(problem), problem.noise_covariance
    prior = MatrixNormal(problem.prior.mean, problem.prior.precision, sigma)
    likelihood = MatrixNormal(problem.inputs @ q.mean, np.eye(rows), sigma)
    expected = likelihood.log_density(problem.targets) + prior.log_density(q.mean) - q.log_density(q.mean)
    scale = evidence_scale(problem, q)
    ratio = comparison_residual(evidence(problem), expected, scale=scale, size=max(rows, 3))
    assert_residual(ratio, "likelihood × prior / posterior", "eq:log-evidence")


@pytest.mark.equation("eq:log-evidence")
@given(problem=layer_problems())
def test_a_given_factor_of_the_precision_changes_nothing(problem):
    s, sigma = problem.statistics, problem.noise_covariance
    factor = posterior(problem).row_factor
    assert log_evidence(s, problem.prior, sigma, row_factor=factor) == log_evidence(s, problem.prior, sigma)
