"""Identities 1, 2, 5 and 8: the posterior and the step form of one layer against dense Gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balinp import (
    InvalidArgumentError,
    LayerStatistics,
    MatrixNormal,
    Prior,
    layer_posterior,
    log_evidence,
    pseudo_targets,
)
from balinp.testing import (
    LayerProblem,
    assert_residual,
    comparison_residual,
    condition_number,
    dense_normal,
    dense_posterior,
    inverse,
    layer_problems,
    orthogonal,
    seeds,
    sizes,
    vec,
)

pytestmark = pytest.mark.usefixtures("on_backend")


def posterior(problem: LayerProblem) -> MatrixNormal:
    return layer_posterior(problem.statistics, problem.prior, problem.noise_covariance)


def norm(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(matrix, dtype=np.float64)))


def same_mean(a: np.ndarray, b: np.ndarray, problem: LayerProblem, q: MatrixNormal, what: str, statement: str) -> None:
    ratio = comparison_residual(a, b, scale=problem.mean_scale(q), size=problem.longest_sum)
    assert_residual(ratio, what, statement)


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems())
def test_posterior_has_a_small_backward_error_at_any_condition_number(problem):
    q = posterior(problem)
    A, T, M0, precision, _ = (x.astype(np.float64) for x in problem.dense_arguments)
    assert q.mean.dtype == q.row_precision.dtype == problem.inputs.dtype
    assert q.column_covariance is problem.noise_covariance
    P, right = precision + A.T @ A, precision @ M0 + A.T @ T
    size, unit = problem.longest_sum, norm(precision) + norm(A) ** 2
    assert_residual(comparison_residual(q.row_precision, P, scale=unit, size=size), "P", "eq:layer-posterior")
    error = (P @ q.mean.astype(np.float64) - right).astype(q.mean.dtype)
    scale = unit * norm(q.mean) + problem.term_scale
    ratio = comparison_residual(error, np.zeros_like(right), scale=scale, size=size)
    assert_residual(ratio, "P M = Λ₀M₀ + AᵀT", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(rows=sizes()))
def test_posterior_is_bayes_rule_with_the_full_kronecker_precision(problem):
    q, dense = posterior(problem), dense_posterior(*problem.dense_arguments)
    kappa = condition_number(problem.noise_covariance)
    ratio = comparison_residual(
        vec(q.mean).astype(q.mean.dtype), dense.mean, kappa, problem.mean_scale(q), problem.longest_sum
    )
    assert_residual(ratio, "mean against the dense posterior", "eq:layer-posterior")
    own = dense_normal(q.mean, q.row_precision, q.column_covariance)
    unit = (norm(problem.prior.precision) + norm(problem.inputs) ** 2) * norm(inverse(problem.noise_covariance))
    precision = own.precision.astype(q.mean.dtype)
    ratio = comparison_residual(precision, dense.precision, kappa, unit, problem.longest_sum)
    assert_residual(ratio, "Σ⁻¹ ⊗ P against the dense precision", "eq:layer-posterior")
    kappa *= condition_number(q.row_precision)
    covariance = np.kron(q.column_covariance, inverse(q.row_precision)).astype(q.mean.dtype)
    ratio = comparison_residual(covariance, dense.covariance, kappa, size=problem.longest_sum)
    assert_residual(ratio, "Σ ⊗ P⁻¹ against the dense covariance", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(rows=sizes(10)), seed=seeds())
def test_weighted_rows_have_that_much_less_noise(problem, seed):
    weights = np.random.default_rng(seed).uniform(0.1, 3, len(problem.inputs)).astype(problem.inputs.dtype)
    s = LayerStatistics.from_batch(problem.inputs, problem.targets, weights)
    q = layer_posterior(s, problem.prior, problem.noise_covariance)
    dense = dense_posterior(*problem.dense_arguments, weights)
    kappa, scale = condition_number(problem.noise_covariance), 3 * problem.mean_scale(q)
    ratio = comparison_residual(vec(q.mean).astype(q.mean.dtype), dense.mean, kappa, scale, problem.longest_sum)
    assert_residual(ratio, "mean with row weights", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(rows=st.just(0)))
def test_zero_rows_give_the_prior(problem):
    q = posterior(problem)
    assert np.array_equal(q.row_precision, problem.prior.precision)
    same_mean(q.mean, problem.prior.mean, problem, q, "posterior without data against prior", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(rows=sizes()))
def test_row_order_does_not_matter_and_a_row_twice_is_weight_two(problem):
    q, generator = posterior(problem), problem.generator()
    order = generator.permutation(len(problem.inputs))
    shuffled = replace(problem, inputs=problem.inputs[order], targets=problem.targets[order])
    same_mean(posterior(shuffled).mean, q.mean, problem, q, "permuted rows", "eq:layer-posterior")
    twice = np.concatenate([np.arange(len(order)), [order[0]]])
    weights = np.ones(len(order), dtype=q.mean.dtype)
    weights[order[0]] = 2
    doubled = replace(problem, inputs=problem.inputs[twice], targets=problem.targets[twice])
    s = LayerStatistics.from_batch(problem.inputs, problem.targets, weights)
    weighted = layer_posterior(s, problem.prior, problem.noise_covariance)
    same_mean(weighted.mean, posterior(doubled).mean, doubled, weighted, "a row twice", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(rows=sizes()), cut=st.floats(0, 1))
def test_yesterdays_posterior_is_todays_prior(problem, cut):
    at = round(cut * len(problem.inputs))
    first, second = (
        replace(problem, inputs=problem.inputs[s], targets=problem.targets[s]) for s in (slice(at), slice(at, None))
    )
    half = posterior(first)
    q = posterior(replace(second, prior=Prior(half.mean, half.row_precision)))
    whole = posterior(problem)
    ratio = comparison_residual(
        q.row_precision, whole.row_precision, scale=norm(problem.inputs) ** 2, size=problem.longest_sum
    )
    assert_residual(ratio, "P in two halves", "eq:layer-posterior")
    scale = problem.mean_scale(whole) + first.mean_scale(half) * condition_number(whole.row_precision)
    ratio = comparison_residual(q.mean, whole.mean, scale=scale, size=problem.longest_sum)
    assert_residual(ratio, "M in two halves", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(), c=st.sampled_from([0.5, 8.0, 1024.0]))
def test_scaling_the_targets_scales_mean_and_deviation(problem, c):
    """T, M₀ by c and Σ by c²; a power of two, so to the last bit."""
    prior = Prior(c * problem.prior.mean, problem.prior.precision)
    scaled = replace(
        problem, targets=c * problem.targets, prior=prior, noise_covariance=c**2 * problem.noise_covariance
    )
    q, other = posterior(problem), posterior(scaled)
    assert np.array_equal(other.mean, c * q.mean)
    assert np.array_equal(other.row_precision, q.row_precision)
    z = problem.generator().standard_normal(q.mean.shape).astype(q.mean.dtype)
    assert np.array_equal(other.sample(z), c * q.sample(z))


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems())
def test_rotating_the_outputs_rotates_the_mean(problem):
    R = orthogonal(problem.generator(), problem.targets.shape[1], problem.targets.dtype)
    turned = replace(problem, targets=problem.targets @ R, prior=replace(problem.prior, mean=problem.prior.mean @ R))
    q = posterior(problem)
    same_mean(posterior(turned).mean, q.mean @ R, problem, q, "rotated outputs", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(rows=st.sampled_from([10, 50])))
def test_shifting_the_inputs_moves_only_an_unpenalised_bias(problem):
    """A + 1s on the non-bias columns, with the prior zero in the bias: weights stay, bias falls by s · weights."""
    precision = problem.prior.precision.copy()
    precision[-1], precision[:, -1] = 0, 0
    free = replace(problem, prior=Prior(problem.prior.mean, precision))
    s = problem.generator().integers(-3, 4, problem.inputs.shape[1]).astype(problem.inputs.dtype)
    s[-1] = 0
    moved = replace(free, inputs=free.inputs + s)
    q, other = posterior(free), posterior(moved)
    expected = q.mean.copy()
    expected[-1] -= s @ q.mean
    scale = (free.mean_scale(q) + moved.mean_scale(other)) * (1 + norm(s))
    ratio = comparison_residual(other.mean, expected, scale=scale, size=problem.longest_sum)
    assert_residual(ratio, "shifted inputs", "eq:layer-posterior")


@pytest.mark.equation("eq:layer-predictive")
@given(problem=layer_problems(rows=sizes()), more=seeds())
def test_predictive_variance_is_not_negative_and_not_larger_after_more_data(problem, more):
    generator = np.random.default_rng(more)
    d = problem.inputs.shape[1]
    a = generator.standard_normal((7, d)).astype(problem.inputs.dtype)
    before = MatrixNormal(problem.prior.mean, problem.prior.precision, problem.noise_covariance).row_variance(a)
    q = posterior(problem)
    after = q.row_variance(a)
    assert np.all(after >= 0)
    # rounding of the factor moves P by eps ‖P‖, and so the variance by that times its own square
    growth = np.maximum(after - before, 0)
    scale = condition_number(q.row_precision) * norm(after) + condition_number(problem.prior.precision) * norm(before)
    ratio = comparison_residual(growth, np.zeros_like(growth), scale=scale, size=problem.longest_sum)
    assert_residual(ratio, "growth of the predictive variance with data", "eq:layer-predictive")


@pytest.mark.equation("eq:step-form")
@given(problem=layer_problems(rows=sizes()))
def test_step_form_agrees_with_the_posterior(problem):
    """M⁺ − M = −P⁻¹(AᵀGΣ + Λ₀(M − M₀)) for T = A M − G Σ."""
    generator, A, sigma, prior = problem.generator(), problem.inputs, problem.noise_covariance, problem.prior
    G = generator.standard_normal(problem.targets.shape).astype(A.dtype)
    M = generator.standard_normal(prior.mean.shape).astype(A.dtype)
    moved = replace(problem, targets=pseudo_targets(A @ M, G, sigma))
    q = posterior(moved)
    wide = [x.astype(np.float64) for x in (A, G, M, sigma, prior.mean, prior.precision)]
    A64, G64, M64, sigma64, M0, precision = wide
    pull = A64.T @ G64 @ sigma64 + precision @ (M64 - M0)
    expected = M64 - np.linalg.solve(precision + A64.T @ A64, pull)
    scale = moved.mean_scale(q) + np.linalg.norm(inverse(q.row_precision), 2) * norm(A) ** 2 * norm(M)
    ratio = comparison_residual(q.mean, expected, scale=float(scale), size=problem.longest_sum)
    assert_residual(ratio, "posterior of pseudo-targets against the step", "eq:step-form")


@pytest.mark.equation("eq:pseudo-targets")
@given(problem=layer_problems(), step=st.sampled_from([0.5, 1.0, 3.0]))
def test_pseudo_targets(problem, step):
    H, sigma = problem.targets, problem.noise_covariance
    G = problem.generator().standard_normal(H.shape).astype(H.dtype)
    natural, plain = pseudo_targets(H, G, sigma), pseudo_targets(H, G, step)
    assert natural.dtype == plain.dtype == H.dtype
    exact = H.astype(np.float64) - np.einsum("ni,ij->nj", G.astype(np.float64), sigma.astype(np.float64))
    scale = norm(H) + norm(G) * norm(sigma)
    ratio = comparison_residual(natural, exact, scale=scale, size=H.shape[1])
    assert_residual(ratio, "H − G Σ", "eq:pseudo-targets")
    ratio = comparison_residual(plain, H.astype(np.float64) - step * G.astype(np.float64), scale=norm(H) + 3 * norm(G))
    assert_residual(ratio, "H − αG", "eq:pseudo-targets")
    with_matrix = pseudo_targets(H, G, step * np.eye(H.shape[1], dtype=H.dtype))
    assert_residual(
        comparison_residual(with_matrix, plain, scale=norm(H) + 3 * norm(G)), "αI is α", "eq:pseudo-targets"
    )


@pytest.mark.equation("eq:pseudo-targets")
@given(problem=layer_problems(), variance=st.sampled_from([0.25, 1.0, 4.0]))
def test_pseudo_targets_of_a_gaussian_likelihood_are_the_data(problem, variance):
    """Identity 8: G = (H − Y)/σ² and S = σ²I give T = Y, so one iteration is conjugate regression."""
    A, Y = problem.inputs, problem.targets
    H = A @ problem.prior.mean
    T = pseudo_targets(H, (H - Y) / variance, variance)
    ratio = comparison_residual(T, Y, scale=norm(H) + norm(Y))
    assert_residual(ratio, "pseudo-targets against the data", "eq:pseudo-targets")


@pytest.mark.equation("eq:prior")
@pytest.mark.parametrize("shapes", [((2, 2), 2), ((2, 1), 3)])
@pytest.mark.parametrize(
    "function",
    [
        layer_posterior,
        log_evidence,
    ],
)
def test_a_prior_of_the_wrong_shape_is_refused(function, shapes):
    s = LayerStatistics.from_batch(np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(InvalidArgumentError, match="prior must have mean"):
        function(s, Prior(np.zeros(shapes[0]), np.eye(shapes[1])), np.eye(1))


@pytest.mark.equation("eq:prior")
@given(problem=layer_problems(rows=sizes(10)), scale=st.sampled_from([0.5, 3.0, np.float64(3.0)]))
def test_an_isotropic_prior_is_the_full_one(problem, scale):
    """A scalar that carries its dtype is a number like another; evidence keeps the dtype as well."""
    mean, sigma = problem.prior.mean, problem.noise_covariance
    short, full = Prior.isotropic(mean, scale), Prior(mean, float(scale) * np.eye(len(mean), dtype=mean.dtype))
    assert np.array_equal(short.precision, full.precision)
    assert short.precision.dtype == short.linear_term.dtype == short.log_determinant.dtype == mean.dtype
    assert log_evidence(problem.statistics, short, sigma).dtype == mean.dtype
    ratio = comparison_residual(short.linear_term, full.linear_term)
    assert_residual(ratio, "Λ₀M₀", "eq:prior")
    ratio = comparison_residual(short.log_determinant, float(full.log_determinant), scale=1.0 + len(mean))
    assert_residual(ratio, "log|Λ₀|", "eq:prior")
    q = layer_posterior(problem.statistics, short, sigma)
    same_mean(q.mean, layer_posterior(problem.statistics, full, sigma).mean, problem, q, "mean", "eq:prior")
