"""What held-out rows choose where predictions are by the joint posterior: the noise, and the posterior's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from joint_network import diagonal, problem, state_of

from balinp import MLP, Gaussian, Settings, predict_joint, with_joint_draws
from balinp import most_probable as search
from balinp.heldout_joint import applied_jointly, held_out_joint, most_probable_joint
from balinp.testing import assert_residual, comparison_residual, condition_number, seeds
from balinp.testing.gradients import weight_jacobians
from balinp.testing.residuals import THRESHOLD
from balinp.trial import HeldOut, Trial

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


def objective(noise, heat, square, shares, eigenvalues, mean, weight):
    """−∑ w log N(r | 0, σ² + v) + ½ (log θ)², up to a constant: row after row, output after output."""
    theta = heat * np.exp(np.mean(np.log(mean)) - np.mean(np.log(noise)))
    total, row = np.log(theta) ** 2 / 2, 0
    for part, values in zip(shares, eigenvalues):
        for each in part:
            for k, share in enumerate(each):
                v = noise[k % len(noise)] + sum(s * heat / (heat + value) for s, value in zip(share, values))
                total += weight[row] * (square[row, k] / v + np.log(v)) / 2
            row += 1
    return total


@pytest.mark.equation("eq:held-out-joint")
@pytest.mark.parametrize("shared", [False, True])
@given(seed=seeds())
def test_the_most_probable_noises_are_where_the_likelihood_is_largest(shared, seed):
    """No better point within a hundredth or a half of it in any direction, by sums over rows, outputs and eigenvalues,
    but for what such a sum rounds by; from a tenth on every other is worse, so that no slope would pass."""
    rng = np.random.default_rng(seed)
    shares = [rng.uniform(0, 1, (n, 2, 4)) for n in (14, 10)]
    eigenvalues = [10.0 ** rng.uniform(-1, 2, 4) for _ in range(2)]
    weight, square = rng.uniform(0.5, 2, 24), rng.standard_normal((24, 2)) ** 2 * rng.uniform(0.3, 3, (24, 2))
    mean = square.mean(axis=0)
    given_ = square, shares, eigenvalues, mean, weight
    noise, heat = most_probable_joint(*given_, 1e-4, shared)
    assert noise.shape == ((1,) if shared else (2,))
    best = objective(noise, heat, *given_)
    terms = float(np.sum(weight[:, None] * (1 + square / noise + np.abs(np.log(noise)))))
    rounding = THRESHOLD * square.size * np.finfo(float).eps * terms
    for size in (1e-2, 0.1, 0.5):
        for direction in rng.standard_normal((4, len(noise) + 1)):
            shift = np.exp(size * direction / np.linalg.norm(direction))
            other = objective(np.maximum(noise * shift[:-1], 1e-4), heat * shift[-1], *given_)
            assert other >= best - rounding
            assert size == 1e-2 or other > best + rounding


def two_minima(seed):
    """Squares of twenty rows, and variances with two eigenvalues, that several noises explain."""
    rng = np.random.default_rng(seed)
    shares = [10.0 ** rng.uniform(-3, 3, (20, 1, 2)) * (rng.random((20, 1, 2)) < 0.5)]
    eigenvalues = [10.0 ** rng.uniform(-3, 3, 2)]
    far = rng.random((20, 1)) < 0.3
    square = 10.0 ** np.where(far, rng.uniform(-1, 2, (20, 1)), rng.uniform(-4, -1, (20, 1)))
    return square, shares, eigenvalues


@pytest.mark.equation("eq:held-out-joint")
def test_of_several_minima_the_lowest_is_found(monkeypatch):
    """As low as the lowest of a grid of 60 × 60 noises, on four of the eight among 4 000 instances that have more
    than one minimum; negative control: from no one start on all of them."""

    def loss(seed):
        square, shares, eigenvalues = two_minima(seed)
        noise, heat = most_probable_joint(square, shares, eigenvalues, np.ones(1), np.ones(20), 1e-4)
        return objective(noise, heat, square, shares, eigenvalues, np.ones(1), np.ones(20))

    def lowest_of_grid(seed):
        square, shares, eigenvalues = two_minima(seed)
        noise, theta = np.meshgrid(np.geomspace(1e-4, square.max(), 60), np.exp(np.linspace(-8, 8, 60)))
        kept = theta[:, :, None] * noise[:, :, None]
        kept = kept / (kept + eigenvalues[0])  # h/(h + λ) at h = θ σ²
        total = noise[:, :, None] + kept @ shares[0][:, 0].T
        losses = (square[:, 0] / total + np.log(total)).sum(axis=2) / 2 + np.log(theta) ** 2 / 2
        return float(losses.min())

    hard = (687, 731, 2502, 2516)
    best = {seed: loss(seed) for seed in hard}
    for seed in hard:
        assert best[seed] <= lowest_of_grid(seed)
    for start in search.STARTS:
        monkeypatch.setattr(search, "STARTS", (start,))
        assert any(loss(seed) > best[seed] + 0.01 for seed in hard)


@pytest.mark.equation("eq:held-out-joint")
def test_noise_is_not_below_the_floor():
    """Residuals of a tenth of the floor: it is the floor; without one it is their mean square, for there is no v."""
    square, shares = np.full((12, 1), 1e-5), [np.zeros((12, 1, 1))]
    for floor, expected in ((1e-4, 1e-4), (1e-9, 1e-5)):
        noise, heat = most_probable_joint(square, shares, [np.ones(1)], np.full(1, floor), np.ones(12), floor)
        assert noise == pytest.approx([expected], rel=1e-7)
        assert heat == pytest.approx(float(noise[0]) / floor, rel=1e-7)  # θ = 1


@pytest.mark.equation("eq:held-out-joint")
def test_held_out_rows_tell_the_noises_apart():
    """Residuals of variance 0.1 + v(h), half the rows with v, h = 0.3 and 3: log h is found to 0.8.

    v is 25 h/(h + 1) there: 1 000 such rows give log h a deviation of √(2/1000) (h + 1) = 0.06 and 0.18, and the
    prior on log θ = 1.1 and 3.4 pulls by 0.15 at most: 3.6 deviations, a false-fail rate of 3·10⁻⁴; seeded.
    Negative control: squares of rows without v have it off by more.
    """
    rng = np.random.default_rng(0)
    shares = [np.where(np.arange(2000) % 2, 25.0, 0.0)[:, None, None]]

    def found(variance):
        square = variance * rng.standard_normal((2000, 1)) ** 2
        mean = square.mean(axis=0)
        noise, heat = most_probable_joint(square, shares, [np.ones(1)], mean, np.ones(2000), 1e-4)
        return noise[0], heat

    for heat in (0.3, 3.0):
        noise, got = found(0.1 + shares[0][:, :, 0] * heat / (heat + 1))
        assert abs(np.log(noise / 0.1)) < 5 * (2 / 1000) ** 0.5
        assert abs(np.log(got / heat)) < 0.8
        assert abs(np.log(found(np.full((2000, 1), 0.1))[1] / heat)) > 0.8


@pytest.mark.equation("eq:held-out-joint")
def test_the_choice_is_made_on_the_rows_held_out():
    """The loss is that of the dense covariance at the chosen noises, on the very rows, by weight over mean weight; the
    posterior's noises stand to each other as the mean squares by weight do."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 2))
    y, w = np.sin(x) + 0.3 * rng.standard_normal((40, 2)), rng.integers(1, 3, 40).astype(float)
    mlp, settings = MLP((2, 4, 2), "tanh"), Settings(max_iterations=25)
    trial = Trial(x, y, w, mlp, Gaussian(np.ones(2)), 0, 0.25, "joint")
    held = held_out_joint(trial, settings)
    losses, squares, condition = [], [], 1.0
    for out, state, _ in trial.results(settings):
        tau = np.diag(diagonal(mlp, [layer.prior_precision for layer in state.layers]))
        H = np.zeros((len(tau), len(tau)))
        J = np.concatenate(weight_jacobians(mlp, state.means, x), axis=2)
        for n in np.flatnonzero(~out):
            H += w[n] * J[n].T @ np.diag(1 / held.posterior_noise.noise_variance) @ J[n]
        v = np.einsum("nkp,pq,nkq->nk", J[out], np.linalg.inv(H + np.diag(tau)), J[out])
        condition = max(condition, condition_number(H + np.diag(tau)))
        total = v + held.likelihood.noise_variance
        square = (y[out] - mlp.forward(state.means, x[out]).outputs[-1]) ** 2
        squares.append(square)
        losses.append(np.sum(np.log(2 * np.pi * total) + square / total, axis=1) / 2 * w[out])
    weights = w[np.concatenate([np.flatnonzero(out) for out, _, _ in trial.results(settings)])]
    expected = np.concatenate(losses) / weights.mean()
    scale = condition * np.linalg.norm(expected)
    ratio = comparison_residual(held.losses, expected, scale=scale, size=len(tau))
    assert_residual(ratio, "losses", "eq:held-out-joint")
    assert held.loss == float(held.losses.mean())
    mean, noise = np.average(np.concatenate(squares), axis=0, weights=weights), held.posterior_noise.noise_variance
    ratio = comparison_residual(noise / noise[0], mean / mean[0], scale=condition * mean[1] / mean[0], size=40)
    assert_residual(ratio, "ratio of the posterior's noises", "eq:held-out-joint")
    unweighted = np.concatenate(squares).mean(axis=0)
    assert abs(unweighted[1] / unweighted[0] - mean[1] / mean[0]) > 1e-3
    shared = held_out_joint(replace(trial, likelihood=Gaussian(np.ones(()))), settings)
    assert shared.likelihood.noise_variance.shape == ()
    assert len(set(shared.posterior_noise.noise_variance)) == 1 < len(set(held.posterior_noise.noise_variance))


@pytest.mark.equation("eq:held-out-joint")
def test_a_fit_that_misses_its_own_rows_predicts_with_more_noise():
    """The mean of r² − σ² − v over the fit's rows is added to σ² where it is positive, per output or over all; nothing
    where it is not. The draws are those of the posterior's own noise."""
    mlp, likelihood, weights, x = problem((2, 3, 2), n=30)
    state, w = state_of(mlp, likelihood, weights, [1.0, 2.0]), np.arange(1.0, 31)
    mean = mlp.forward(weights, x).outputs[-1]
    y = mean + np.random.default_rng(5).standard_normal(mean.shape) * [0.01, 9.0]
    for shape in ((2,), ()):
        noise = Gaussian(np.full(shape, 0.04))
        held = HeldOut(Settings(), 0.0, np.zeros(1), noise, posterior_noise=Gaussian(np.full(2, 0.1)))
        for weight in (None, w):
            got = applied_jointly(held, state, x, y, weight, np.random.default_rng(0), 50)
            drawn = with_joint_draws(state, held.posterior_noise, x, np.random.default_rng(0), 50, Settings(), weight)
            assert all(np.array_equal(a, b) for a, b in zip(got.deviations, drawn.deviations))
            p = predict_joint(replace(got, likelihood=noise), x)
            excess = (y - p.mean) ** 2 - np.diagonal(p.covariance, axis1=1, axis2=2)
            lacking = np.average(excess, axis=0, weights=weight)
            assert lacking[0] < 0 < lacking[1]
            expected = 0.04 + np.maximum(lacking if shape else lacking.mean(), 0)
            noises, scale = got.likelihood.noise_variance, float(np.sum((y - p.mean) ** 2))
            ratio = comparison_residual(np.array(noises), np.array(expected), scale=scale, size=len(x))
            assert_residual(ratio, "noise", "eq:held-out-joint")
            assert np.shape(got.likelihood.noise_variance) == shape
