"""Statements of derivations/ on fresh random instances of several seeds, by the public conformance checks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balinp
from balinp.testing import assert_residual, comparison_residual, kronecker, seeds
from balinp.testing.conformance import check_core

SEEDS = pytest.mark.parametrize("seed", [3, 4, 5])


def holds(statement: str, seed: int) -> None:
    (result,) = check_core(balinp, seed, statement)
    assert_residual(result.ratio, result.what, statement)


@pytest.mark.equation("eq:vec-kronecker")
@given(seed=seeds(), d=st.integers(1, 4), k=st.integers(1, 3))
def test_rules_of_the_kronecker_product(seed, d, k):
    """(a) to (f) by NumPy's kron, none of the oracles' helpers but ``kronecker``; and out of the density. Each against
    the size of its own terms; of the determinants the logarithms, whose terms are of order one."""
    rng, norm = np.random.default_rng(seed), np.linalg.norm
    B, C = rng.standard_normal((2, k, k))
    U, E = rng.standard_normal((2, d, d))
    X, size, unit = rng.standard_normal((d, k)), 10 * d * k, norm(B) * norm(U)
    both, inverses = kronecker(B, U), kronecker(np.linalg.inv(B), np.linalg.inv(U))
    condition = float(np.linalg.cond(B) * np.linalg.cond(U))
    (sign, log), (sign_b, log_b), (sign_u, log_u) = (np.linalg.slogdet(m) for m in (both, B, U))
    pairs = (
        (kronecker(B.T, U) @ X.T.ravel(), (U @ X @ B).T.ravel(), unit * norm(X)),
        (both @ kronecker(C, E), kronecker(B @ C, U @ E), unit * norm(C) * norm(E)),
        (both @ inverses, np.eye(d * k), condition * d * k),
        (np.trace(both), np.trace(B) * np.trace(U), unit * (d * k) ** 0.5),
        (log, d * log_b + k * log_u, condition * d * k + d * abs(log_b) + k * abs(log_u)),
        (X.T.ravel() @ both @ X.T.ravel(), np.trace(B.T @ X.T @ U @ X), unit * norm(X) ** 2),
    )
    for rule, (got, expected, scale) in zip("abcdef", pairs, strict=True):
        assert_residual(comparison_residual(got, expected, scale=scale, size=size), f"rule {rule}", "eq:vec-kronecker")
    assert sign == sign_b**d * sign_u**k
    holds("eq:vec-kronecker", seed % 3)


@pytest.mark.equation("eq:woodbury")
@SEEDS
def test_the_determinant_lemma_and_woodbury(seed):
    holds("eq:woodbury", seed)


@pytest.mark.equation("eq:cholesky")
@SEEDS
def test_factors_and_solves(seed):
    holds("eq:cholesky", seed)


@pytest.mark.equation("eq:logsumexp")
@SEEDS
def test_logsumexp_without_overflow(seed):
    holds("eq:logsumexp", seed)


@pytest.mark.equation("eq:precision")
@SEEDS
def test_results_keep_the_dtype(seed):
    holds("eq:precision", seed)


@pytest.mark.equation("eq:draws")
@SEEDS
def test_draws_are_the_generators(seed):
    holds("eq:draws", seed)


@pytest.mark.equation("eq:matrix-normal")
@SEEDS
def test_covariance_of_a_matrix_normal(seed):
    holds("eq:matrix-normal", seed)


@pytest.mark.equation("eq:layer-model")
@SEEDS
def test_bayes_rule_at_any_weights(seed):
    holds("eq:layer-model", seed)


@pytest.mark.equation("eq:identity")
@SEEDS
def test_identity(seed):
    holds("eq:identity", seed)


@pytest.mark.equation("eq:initial-weights")
@SEEDS
def test_initial_weights(seed):
    holds("eq:initial-weights", seed)


@pytest.mark.equation("eq:aleatoric")
@SEEDS
def test_noise_of_the_observations(seed):
    holds("eq:aleatoric", seed)


@pytest.mark.equation("eq:heteroscedastic-variance")
@SEEDS
def test_variance_between_limits(seed):
    holds("eq:heteroscedastic-variance", seed)


@pytest.mark.equation("eq:heteroscedastic-rows")
@SEEDS
def test_row_weights_dominate(seed):
    holds("eq:heteroscedastic-rows", seed)


@pytest.mark.equation("eq:heteroscedastic-curvature")
@SEEDS
def test_fisher_information_by_quadrature(seed):
    holds("eq:heteroscedastic-curvature", seed)


@pytest.mark.equation("eq:proximal-target")
@SEEDS
def test_regression_is_the_linearised_loss(seed):
    holds("eq:proximal-target", seed)


@pytest.mark.equation("eq:lower-bound")
@SEEDS
def test_a_bound_of_the_likelihood(seed):
    holds("eq:lower-bound", seed)


@pytest.mark.equation("eq:residual-covariance")
@SEEDS
def test_residual_covariance(seed):
    holds("eq:residual-covariance", seed)


@pytest.mark.equation("eq:natural-gradient")
@SEEDS
def test_averages_of_natural_parameters(seed):
    holds("eq:natural-gradient", seed)


@pytest.mark.equation("eq:conjugate-layer")
@SEEDS
def test_a_linear_layer_is_conjugate(seed):
    holds("eq:conjugate-layer", seed)


@pytest.mark.equation("eq:centred-targets")
@SEEDS
def test_sampled_gradients_centred_targets(seed):
    holds("eq:centred-targets", seed)


@pytest.mark.equation("eq:target-variance")
@SEEDS
def test_variance_of_either_centre(seed):
    holds("eq:target-variance", seed)


@pytest.mark.equation("eq:fixed-points")
@SEEDS
def test_the_step_is_the_gradient(seed):
    holds("eq:fixed-points", seed)


@pytest.mark.equation("eq:projection-error")
@SEEDS
def test_the_projections_error(seed):
    holds("eq:projection-error", seed)


@pytest.mark.equation("eq:rank-bound")
@SEEDS
def test_rank_bound(seed):
    holds("eq:rank-bound", seed)


@pytest.mark.equation("eq:defaults")
@SEEDS
def test_the_literal_preset(seed):
    holds("eq:defaults", seed)


@pytest.mark.equation("eq:stopping")
@SEEDS
def test_stopping(seed):
    holds("eq:stopping", seed)


@pytest.mark.equation("eq:cost")
@SEEDS
def test_cost(seed):
    holds("eq:cost", seed)


@pytest.mark.equation("eq:mackay")
@SEEDS
def test_prior_precision_of_an_iteration(seed):
    holds("eq:mackay", seed)
