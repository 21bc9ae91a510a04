"""Statements of derivations/ on fresh random instances of several seeds, by the public conformance checks; then what
those cannot reach: memory, warm-ups, and the closed form of the projection's error over many shapes.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balinp
from balinp import MLP, Gaussian, Settings, bali_step, initial_state
from balinp.testing import (
    assert_residual,
    comparison_residual,
    kronecker,
    projection_error,
    projection_objective,
    random_spd,
    seeds,
)
from balinp.testing.conformance import check_core
from balinp.training import has_plateaued

SEEDS = pytest.mark.parametrize("seed", [3, 4, 5])


def holds(statement: str, seed: int) -> None:
    (result,) = check_core(balinp, seed, statement)
    assert_residual(result.ratio, result.what, statement)


@pytest.mark.equation("eq:vec-kronecker")
@given(seed=seeds(), d=st.integers(1, 4), k=st.integers(1, 3))
def test_rules_of_the_kronecker_product(seed, d, k):
    """(a) to (f) by NumPy's kron, none of the oracles' helpers but ``kronecker``; and out of the density."""
    rng = np.random.default_rng(seed)
    B, C = rng.standard_normal((2, k, k))
    U, E = rng.standard_normal((2, d, d))
    X, size = rng.standard_normal((d, k)), 10 * d * k
    stacked = (U @ X @ B).T.ravel()
    pairs = (
        (kronecker(B.T, U) @ X.T.ravel(), stacked),
        (kronecker(B, U) @ kronecker(C, E), kronecker(B @ C, U @ E)),
        (np.trace(kronecker(B, U)), np.trace(B) * np.trace(U)),
        (np.linalg.det(kronecker(B, U)), np.linalg.det(B) ** d * np.linalg.det(U) ** k),
        (X.T.ravel() @ kronecker(B, U) @ X.T.ravel(), np.trace(B.T @ X.T @ U @ X)),
    )
    norms = np.linalg.norm(B) * np.linalg.norm(U) * (1 + np.linalg.norm(X)) ** 2
    scale = max(norms, np.linalg.norm(B) * np.linalg.norm(U) * np.linalg.norm(C) * np.linalg.norm(E))
    scale = max(scale, np.linalg.norm(B) ** (d * k) * np.linalg.norm(U) ** (d * k))
    for rule, (got, expected) in zip("abdef", pairs):
        assert_residual(comparison_residual(got, expected, scale=scale, size=size), f"rule {rule}", "eq:vec-kronecker")
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


@pytest.mark.equation("eq:projection-error")
@given(seed=seeds(), d=st.integers(1, 4), k=st.integers(1, 3), tau=st.sampled_from([0.01, 0.5, 20.0]))
def test_the_closed_form_is_the_dense_divergence(seed, d, k, tau):
    """At the fixed point; the mean variance ratio of every output direction is 1, the bound holds; a κ that is one
    percent off gives another divergence (negative control)."""
    rng = np.random.default_rng(seed)
    B, A = random_spd(rng, k, 20.0, np.float64, 2.0), rng.standard_normal((2 * d, d)) * np.geomspace(0.3, 3, d)
    U = A.T @ A
    exact = projection_error(B, U, tau)
    P, Q = U + exact.pi * np.eye(d), exact.kappa * B + (1 - exact.kappa) * exact.b * np.eye(k)
    dense, size = projection_objective(P, Q, B, U, tau), 10 * d * k
    condition = np.linalg.cond(kronecker(Q, P))
    assert_residual(comparison_residual(exact.divergence, dense, condition, size, size), "KL", "eq:projection-error")
    balance = comparison_residual(np.mean(1 / exact.ratios, axis=1), np.ones(k), size=size)
    assert_residual(balance, "mean variance ratio", "eq:projection-error")
    assert -1e-12 <= exact.divergence <= exact.bound + 1e-12
    if d > 1 and k > 1:
        off = projection_objective(P, (exact.kappa - 0.3) * B + (1.3 - exact.kappa) * exact.b * np.eye(k), B, U, tau)
        assert off > dense + 1e-9


@pytest.mark.equation("eq:projection-error")
def test_the_projection_is_exact_only_for_multiples_of_the_identity_and_its_bound_is_sharp():
    B, U = np.diag([0.2, 1.0, 5.0]), np.diag([1.0, 10.0, 100.0, 0.0])
    assert projection_error(2.0 * np.eye(3), U, 0.5).divergence < 1e-14
    assert projection_error(B, 7.0 * np.eye(4), 0.5).divergence < 1e-14
    assert projection_error(B, np.zeros((4, 4)), 0.5).divergence < 1e-14
    error = projection_error(B, U, 0.5)
    assert error.divergence > 0.05
    assert error.bound > error.divergence
    sharp = projection_error(B, np.diag([1e9, 1e9, 0.0, 0.0]), 0.5)  # every direction wholly determined or not at all
    assert sharp.divergence == pytest.approx(sharp.bound, rel=1e-6)


@pytest.mark.equation("eq:cost")
def test_memory_is_that_of_a_block_and_does_not_grow_with_the_rows():
    """Peak of one iteration over ten times the rows, in blocks of 500: within 5 %, while whole it grows tenfold."""

    def peak(rows, block_rows):
        rng = np.random.default_rng(0)
        x, y, mlp = rng.standard_normal((rows, 20)), rng.standard_normal((rows, 1)), MLP((20, 30, 1))
        settings = Settings(block_rows=block_rows)
        state = initial_state(mlp, Gaussian(0.3), rng, settings)
        tracemalloc.start()
        bali_step(state, x, y, rng, settings)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(500, 500)  # whatever is loaded once
    small, large = peak(1_000, 500), peak(10_000, 500)
    assert large < 1.05 * small
    assert peak(10_000, 10_000) > 5 * small
    assert small < 8 * 8 * 500 * (21 + 31 + 3 * 30)  # a few copies of what one block's layers hold


@pytest.mark.equation("eq:stopping")
@given(
    losses=st.lists(st.floats(-10, 10), max_size=30), patience=st.integers(1, 6), tolerance=st.sampled_from([0, 0.1, 1])
)
def test_plateaus_by_the_definition(losses, patience, tolerance):
    late, early = losses[-patience:], losses[-2 * patience : -patience]
    expected = tolerance > 0 and len(losses) >= 2 * patience and np.mean(early) - np.mean(late) < tolerance
    near = len(early) == patience and abs(np.mean(early) - np.mean(late) - tolerance) < 1e-9
    assert near or has_plateaued(losses, patience, tolerance) == expected
