"""The joint posterior of all weights: its precision, covariance and draws, and predictions by it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from joint_network import diagonal, precisions_of, problem, state_of

from balinp import (
    MLP,
    NUMPY,
    Gaussian,
    InvalidArgumentError,
    JointPosterior,
    Settings,
    joint_precision,
    predict_joint,
    with_joint_draws,
)
from balinp.joint_posterior import affordable, joint_posterior, weight_jacobian
from balinp.testing import assert_residual, comparison_residual, condition_number, seeds
from balinp.testing.gradients import dense_ggn, weight_jacobians
from balinp.testing.oracles import vec
from balinp.testing.residuals import THRESHOLD

on_every_backend = pytest.mark.usefixtures("on_backend")
WIDTHS = [(3, 2), (3, 4, 2), (2, 3, 3, 1)]


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("block_rows", [2048, 4])
@given(seed=seeds())
def test_the_precision_is_the_dense_one(widths, block_rows, seed):
    """∑ JᵀBJ by complex steps, in whole and in blocks, weighted or not; control: without the weights it is another."""
    mlp, likelihood, weights, x = problem(widths, seed=seed)
    w, settings = np.random.default_rng([seed, 2]).integers(1, 4, len(x)).astype(float), Settings(block_rows=block_rows)
    size = 10 * float(np.prod([1 + np.linalg.norm(m) for m in weights]))
    for weight, rows in ((None, x), (w, np.repeat(x, w.astype(int), axis=0))):
        expected = dense_ggn(mlp, likelihood, weights, rows)
        got = joint_precision(mlp, likelihood, weights, x, settings, weight)
        ratio = comparison_residual(got, expected, scale=size * np.linalg.norm(expected), size=len(expected))
        assert_residual(ratio, f"{widths}, {block_rows} rows a block", "eq:joint-posterior")
    other = joint_precision(mlp, likelihood, weights, x, settings)
    assert comparison_residual(other, expected, scale=size * np.linalg.norm(expected), size=len(expected)) > THRESHOLD
    J = np.concatenate(weight_jacobians(mlp, weights, x), axis=2)
    got = weight_jacobian(mlp, weights, mlp.forward(weights, x))
    ratio = comparison_residual(got, J, scale=size * np.linalg.norm(J), size=J.shape[2])
    assert_residual(ratio, "derivative", "eq:joint-posterior")


@pytest.mark.equation("eq:joint-posterior")
@given(seed=seeds())
def test_single_rows_and_weights_are_summed_in_double(seed):
    """Against the dense sum of the same numbers in float64, in its eps; control: a sum in float32 is far from it."""
    mlp, likelihood, weights, x = problem(seed=seed)
    narrow, x = [m.astype(np.float32) for m in weights], x.astype(np.float32)
    wide, single = [m.astype(np.float64) for m in narrow], Gaussian(likelihood.noise_variance.astype(np.float32))
    expected = dense_ggn(mlp, Gaussian(single.noise_variance.astype(np.float64)), wide, x.astype(np.float64))
    got = joint_precision(mlp, single, narrow, x)
    assert got.dtype == np.float64
    scale = 10 * float(np.prod([1 + np.linalg.norm(m) for m in wide])) * np.linalg.norm(expected)
    assert_residual(comparison_residual(got, expected, scale=scale, size=len(got)), "float32", "eq:joint-posterior")
    J = weight_jacobian(mlp, narrow, mlp.forward(narrow, x))
    coarse = np.einsum("nkp,k,nkq->pq", J, 1 / single.noise_variance, J).astype(np.float64)
    assert comparison_residual(coarse, expected, scale=scale, size=len(got)) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@pytest.mark.parametrize("widths", WIDTHS)
@given(seed=seeds())
def test_the_covariance_at_any_heat_is_the_dense_inverse(widths, seed):
    """Variances of outputs against (H/h + diag τ)⁻¹ and below the prior's; control: another heat's are not."""
    mlp, likelihood, weights, x = problem(widths, seed=seed)
    tau, H = precisions_of(mlp, seed), dense_ggn(mlp, likelihood, weights, x)
    posterior = JointPosterior.of(H, list(tau), mlp.shapes, NUMPY)
    J, prior = np.concatenate(weight_jacobians(mlp, weights, x), axis=2), diagonal(mlp, tau)
    shares = posterior.shares(J)
    for heat in (0.01, 1.0, 30.0):
        precision = H / heat + prior
        expected = np.einsum("nkp,pq,nkq->nk", J, np.linalg.inv(precision), J)
        got = shares @ (heat / (heat + posterior.eigenvalues))
        scale = condition_number(precision) * np.linalg.norm(expected)
        assert_residual(comparison_residual(got, expected, scale=scale, size=len(H)), f"{heat}", "eq:joint-posterior")
        assert np.all(got <= np.einsum("nkp,p,nkp->nk", J, 1 / np.diag(prior), J) * (1 + 1e-12))
    other = shares @ (1 / (1 + posterior.eigenvalues))
    assert comparison_residual(other, expected, scale=scale, size=len(H)) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@given(seed=seeds())
def test_draws_have_the_posteriors_covariance(seed):
    """Unit vectors for normals give roots of C: their sum of squares is (H/h + diag τ)⁻¹; every layer in its place."""
    mlp, likelihood, weights, x = problem(seed=seed)
    tau, H = precisions_of(mlp, seed), dense_ggn(mlp, likelihood, weights, x)
    posterior, p = JointPosterior.of(H, list(tau), mlp.shapes, NUMPY), len(H)
    for heat in (0.1, 2.0):
        layers = posterior.deviations(np.eye(p), heat)
        roots = np.stack([np.concatenate([vec(part[s]) for part in layers]) for s in range(p)])
        precision = H / heat + diagonal(mlp, tau)
        expected = np.linalg.inv(precision)
        scale = condition_number(precision) * np.linalg.norm(expected)
        ratio = comparison_residual(roots.T @ roots, expected, scale=scale, size=p)
        assert_residual(ratio, f"heat {heat}", "eq:joint-posterior")
    assert comparison_residual(roots.T @ roots / 2, expected, scale=scale, size=p) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@given(seed=seeds())
def test_a_states_posterior_is_at_its_means_with_its_prior_and_the_noise_given(seed):
    """Its unit draws square to the dense inverse for weighted rows; the draws of a state are those of its normals;
    control: not with the state's own noise."""
    mlp, likelihood, weights, x = problem(seed=seed)
    tau, w = precisions_of(mlp, seed), np.random.default_rng([seed, 2]).integers(1, 4, len(x)).astype(float)
    state, noise = state_of(mlp, likelihood, weights, tau), Gaussian(np.array([2.0, 0.1]))

    def precision_with(given_noise):
        return dense_ggn(mlp, given_noise, weights, np.repeat(x, w.astype(int), axis=0)) + diagonal(mlp, tau)

    posterior, precision = joint_posterior(state, noise, x, Settings(), w), precision_with(noise)
    flat = [np.concatenate([vec(p) for p in parts]) for parts in zip(*posterior.deviations(np.eye(len(precision))))]
    got, expected = np.stack(flat).T @ np.stack(flat), np.linalg.inv(precision)
    scale = condition_number(precision) * np.linalg.norm(expected)
    assert_residual(comparison_residual(got, expected, scale=scale, size=len(got)), "state", "eq:joint-posterior")
    own = np.linalg.inv(precision_with(likelihood))
    assert comparison_residual(own, expected, scale=scale, size=len(got)) > THRESHOLD
    drawn = with_joint_draws(state, noise, x, np.random.default_rng(4), 6, Settings(), w).deviations
    normals = np.random.default_rng(4).standard_normal((6, len(precision)))
    for part, same in zip(drawn, posterior.deviations(normals)):
        size = scale * np.linalg.norm(normals)
        assert_residual(comparison_residual(part, same, scale=size, size=len(got)), "draws", "eq:joint-posterior")


@on_every_backend
@pytest.mark.equation("eq:joint-predictive")
@pytest.mark.parametrize("block_rows", [1024, 3])
@given(seed=seeds())
def test_predictions_are_those_of_the_linearised_draws(block_rows, seed):
    """h_L(M) + J vec Δ_s by complex steps; the covariance about h_L(M); control: that about the draws' mean is not."""
    mlp, likelihood, weights, x = problem(seed=seed)
    state = state_of(mlp, likelihood, weights, precisions_of(mlp, seed))
    with pytest.raises(InvalidArgumentError, match="deviations"):
        predict_joint(state, x)
    state = with_joint_draws(state, likelihood, x, np.random.default_rng(1), 5, Settings())
    J, h = np.concatenate(weight_jacobians(mlp, weights, x), axis=2), mlp.forward(weights, x).outputs[-1]
    drawn = np.stack([J @ np.concatenate([vec(part[s]) for part in state.deviations]) for s in range(5)])
    p, size = predict_joint(state, x, block_rows), 10 * float(np.prod([1 + np.linalg.norm(m) for m in weights]))
    scale = size * (np.linalg.norm(drawn) + np.linalg.norm(h))
    assert_residual(comparison_residual(p.mean, h, scale=scale, size=4), "mean", "eq:joint-predictive")
    assert_residual(comparison_residual(p.draws, h + drawn, scale=scale, size=4), "draws", "eq:joint-predictive")
    expected = np.einsum("snk,snj->nkj", drawn, drawn) / 5
    scale = size * np.linalg.norm(drawn) ** 2
    got = comparison_residual(p.epistemic, expected, scale=scale, size=4)
    assert_residual(got, "covariance", "eq:joint-predictive")
    about = drawn - drawn.mean(axis=0)
    wrong = np.einsum("snk,snj->nkj", about, about) / 5
    assert comparison_residual(wrong, expected, scale=scale, size=4) > THRESHOLD
    assert p.normal
    assert np.array_equal(p.covariance, p.aleatoric + p.epistemic)


def test_predictions_take_bounded_memory_and_the_same_bits_in_any_blocks():
    """600 hidden units, 100 draws, 1 024 rows: the draws of the layer's outputs alone would be 470 MiB."""
    mlp, likelihood, weights, x = problem((2, 600, 1), n=1024)
    state = state_of(mlp, likelihood, weights, [1.0, 1.0])
    state = with_joint_draws(state, likelihood, x[:5], np.random.default_rng(0), 100, Settings())
    tracemalloc.start()
    whole = predict_joint(state, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20
    np.testing.assert_array_equal(whole.draws, predict_joint(state, x, 128).draws)


@pytest.mark.equation("eq:joint-posterior")
def test_the_joint_posterior_is_for_networks_whose_sum_is_affordable():
    """p √K of at most 2 000."""
    assert affordable(MLP((1999, 1)))
    assert not affordable(MLP((2000, 1)))
    assert affordable(MLP((249, 4)))  # 1 000 weights
    assert not affordable(MLP((250, 4)))
    assert affordable(MLP((10, 40, 1)))  # 481 weights: hidden units are no outputs


class Watched(Gaussian):
    """A Gaussian that knows how many rows it was asked about at once."""

    def curvature(self, h):
        object.__setattr__(self, "rows", [*getattr(self, "rows", []), len(h)])
        return super().curvature(h)


@pytest.mark.parametrize(("room", "rows"), [(10 * 1248, 10), (10 * 1248 + 1000, 10), (1, 1)])
def test_the_precision_is_summed_in_the_memory_that_settings_allow(room, rows):
    """8 bytes, 3 arrays of K p = 2 · 26 numbers for a row."""
    _, _, weights, x = problem(n=25)
    likelihood = Watched(np.ones(2))
    joint_precision(MLP((3, 4, 2), "tanh"), likelihood, weights, x, Settings(block_bytes=room))
    assert max(likelihood.rows) == rows


@pytest.mark.equation("eq:joint-posterior")
def test_a_single_layer_and_prior_precisions_of_other_types():
    """Draws in the layer's shape; eigenvalues 3/τ of H = 3 I, in float64 for any kind of τ."""
    mlp, likelihood, weights, x = problem((3, 2))
    state = with_joint_draws(state_of(mlp, likelihood, weights, [1.0]), likelihood, x, np.random.default_rng(0), 5)
    assert [part.shape for part in state.deviations] == [(5, 4, 2)]
    for tau in (np.float32(0.3), 2):
        posterior = JointPosterior.of(3 * np.eye(8), [tau], mlp.shapes, NUMPY)
        assert posterior.precisions.dtype == np.float64
        ratio = comparison_residual(posterior.eigenvalues, np.full(8, 3 / float(tau)), scale=30.0, size=8)
        assert_residual(ratio, f"{tau!r}", "eq:joint-posterior")
