"""Statements of derivations/ that the conformance checks cannot reach: draws, initial states, memory, the closed form
of the projection's error over many shapes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from balinp import (
    MLP,
    NUMPY,
    Categorical,
    Gaussian,
    Heteroscedastic,
    LayerStatistics,
    Settings,
    bali_step,
    initial_state,
    predict_monte_carlo,
)
from balinp.passes import block_sums
from balinp.testing import (
    assert_residual,
    comparison_residual,
    kronecker,
    projection_error,
    projection_objective,
    random_spd,
    seeds,
)
from balinp.testing.cost import counting_backend, multiplications_per_row
from balinp.testing.reference_network import softmax
from balinp.training import has_plateaued, negative_log_likelihood


@pytest.mark.equation("eq:draws")
def test_weights_are_drawn_from_the_callers_generator_and_only_once_sampling_has_begun():
    settings = Settings(warmup=1)
    x, y = np.ones((5, 2)), np.arange(5.0)[:, None]
    state = initial_state(MLP((2, 3, 1)), Gaussian(0.3), NUMPY.generator(0), settings)
    rng = NUMPY.generator(7)
    assert all(np.array_equal(a, b) for a, b in zip(state.sample_weights(rng), state.means))
    assert rng.standard_normal() == np.random.default_rng(7).standard_normal()  # nothing was drawn
    state = bali_step(state, x, y, NUMPY.generator(1), settings)
    one, same, other = (state.sample_weights(NUMPY.generator(s)) for s in (2, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, same))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other))


@pytest.mark.equation("eq:statistics")
def test_statistics_of_mapped_targets():
    rng = np.random.default_rng(0)
    A, T, X = rng.standard_normal((6, 4)), rng.standard_normal((6, 3)), rng.standard_normal((3, 3))
    got, expected = LayerStatistics.from_batch(A, T).map_targets(X), LayerStatistics.from_batch(A, T @ X)
    for name in ("gram", "cross", "target_gram"):
        ratio = comparison_residual(getattr(got, name), getattr(expected, name), 10.0, size=6)
        assert_residual(ratio, f"{name} of mapped targets", "eq:statistics")


@pytest.mark.equation("eq:initial-weights")
def test_a_new_state_has_initial_weights_for_means_and_the_priors_covariance():
    state = initial_state(MLP((400, 300, 2)), Gaussian(0.3), np.random.default_rng(0), Settings(prior_precision=0.5))
    first, last = state.means
    assert np.var(first[:-1]) == pytest.approx(2 / 400, rel=0.02)  # 120 000 draws: 5 deviations
    assert np.std(first[-1]) == pytest.approx(1, rel=0.2)
    assert np.array_equal(last[-1], np.zeros(2))
    assert np.array_equal(state.layers[0].posterior.row_precision, 0.5 * 400 * np.eye(401))


@pytest.mark.equation("eq:gaussian-curvature")
@pytest.mark.equation("eq:bohning-bound")
@pytest.mark.parametrize("likelihood", [Gaussian(0.3), Categorical()])
def test_a_bound_that_holds_everywhere_needs_no_reference(likelihood):
    h = np.random.default_rng(0).standard_normal((4, 3))
    assert likelihood.referred_to(5 * np.eye(3)) is likelihood
    assert np.array_equal(likelihood.curvature(h), likelihood.curvature(100 * h))


@pytest.mark.equation("eq:heteroscedastic-rows")
def test_row_weights_enter_every_gram_matrix_and_nothing_else():
    rng, likelihood = np.random.default_rng(0), Heteroscedastic()
    mlp, x, y = MLP((2, 3, 2), "tanh"), rng.standard_normal((7, 2)), 3 * rng.standard_normal((7, 1))
    weights = mlp.initial_weights(rng)
    passes = mlp.forward(weights, x)
    omega = likelihood.row_weights(passes.outputs[-1], y)
    assert omega.max() > 2  # it has something to do
    sums = block_sums(mlp, likelihood, weights, x, y)
    gradients = mlp.backward(weights, passes, likelihood.gradient(passes.outputs[-1], y))
    for layer, a, g in zip(sums.layers, passes.inputs, gradients):
        got, expected = layer.gram, np.einsum("n,ni,nj->ij", omega, a, a)
        assert_residual(comparison_residual(got, expected, size=7), "weighted Gram matrix", "eq:heteroscedastic-rows")
        assert_residual(comparison_residual(layer.cross, a.T @ g, 10.0, size=7), "AᵀG", "eq:heteroscedastic-rows")


@pytest.mark.equation("eq:predictive-density")
@pytest.mark.parametrize("likelihood", [Gaussian(0.3), Categorical()])
def test_negative_log_likelihood_is_the_mean_of_log_densities(likelihood):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6, 2)), rng.integers(0, 3, 6)
    y = rng.standard_normal((6, 3)) if isinstance(likelihood, Gaussian) else labels
    settings = Settings(warmup=0)
    state = bali_step(initial_state(MLP((2, 3, 3)), likelihood, rng, settings), x, y, rng, settings)
    draws = predict_monte_carlo(state, x, np.random.default_rng(0), 10).draws
    if y is labels:
        expected = -np.log(np.mean(softmax(draws), axis=0)[np.arange(6), labels]).mean()
    else:
        s2 = state.likelihood.noise_variance
        each = -np.sum((y - draws) ** 2 / s2 + np.log(2 * np.pi * s2), axis=2) / 2
        expected = -(logsumexp(each, axis=0) - np.log(10)).mean()
    ratio = comparison_residual(negative_log_likelihood(state, x, y), expected, 10.0, scale=10.0, size=60)
    assert_residual(ratio, type(likelihood).__name__, "eq:predictive-density")


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


@pytest.mark.equation("eq:cost")
@pytest.mark.parametrize("uneven", [False, True])
def test_rows_with_weights_of_their_own_cost_another_gram_matrix(uneven):
    """What six rows more cost, counted: noise that depends on the input against constant noise."""
    counts = []
    for rows in (6, 12):
        backend, counter = counting_backend(NUMPY)
        rng = np.random.default_rng(0)
        likelihood = Heteroscedastic(backend=backend) if uneven else Gaussian(0.3, backend)
        x, y = rng.standard_normal((rows, 3)), rng.standard_normal((rows, 1 if uneven else 2))
        state = initial_state(MLP((3, 5, 2), "tanh", backend), likelihood, rng, Settings())
        counter[0] = 0
        bali_step(state, x, y, rng, Settings())
        counts.append(counter[0])
    assert counts[1] - counts[0] == 6 * multiplications_per_row((3, 5, 2), True, uneven=uneven)


@pytest.mark.equation("eq:stopping")
@given(
    losses=st.integers(1, 6).flatmap(lambda p: st.lists(st.integers(-40, 40), min_size=2 * p - 1, max_size=2 * p + 3)),
    patience=st.integers(1, 6),
    tolerance=st.sampled_from([0, 0.125, 1, 8]),
)
def test_plateaus_by_the_definition(losses, patience, tolerance):
    """By the middle of the sorted losses, in eighths, which are exact."""
    losses = [loss / 8 for loss in losses]

    def middle(part):
        return (sorted(part)[(len(part) - 1) // 2] + sorted(part)[len(part) // 2]) / 2

    late, early = losses[-patience:], losses[-2 * patience : -patience]
    expected = tolerance > 0 and len(losses) >= 2 * patience and middle(early) - middle(late) < tolerance
    assert has_plateaued(losses, patience, tolerance) == expected


@pytest.mark.equation("eq:stopping")
def test_a_draw_that_is_far_off_ends_no_fit():
    """Losses that fall by 0.1 each, one of them late and far off; negative control: by means they rise."""
    falling = [1.0 - 0.1 * i for i in range(10)]
    falling[7] = 20.0
    assert np.mean(falling[:5]) < np.mean(falling[5:])
    assert not has_plateaued(falling, 5, 0.3)
    assert has_plateaued(falling, 5, 0.6)
