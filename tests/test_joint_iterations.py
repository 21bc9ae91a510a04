"""Iterations with joint steps: where they end, what they learn, when they are taken."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest

from balinp import (
    MLP,
    BALIRegressor,
    ConvergenceWarning,
    Gaussian,
    InvalidArgumentError,
    Settings,
    bali_step,
    fit,
    initial_state,
)
from balinp.joint import PRODUCTS
from balinp.learning import how_it_ended
from balinp.passes import block_sums, data_loss
from balinp.regressor import AVERAGING, JOINT, NOISE_FLOOR
from balinp.testing import assert_residual, comparison_residual, condition_number
from balinp.testing.gradients import dense_ggn
from balinp.testing.oracles import unvec, vec
from balinp.testing.residuals import THRESHOLD

on_every_backend = pytest.mark.usefixtures("on_backend")
JOINTLY = Settings(joint_iterations=30, warmup=8, rate=0.5, max_iterations=60, tolerance=0)


def flat(layers):
    return np.concatenate([vec(part) for part in layers])


def curve(seed=0, n=80):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 2))
    return x, np.sin(2 * x[:, :1]) * np.cos(x[:, 1:]) + 0.05 * rng.standard_normal((n, 1))


@on_every_backend
@pytest.mark.equation("eq:joint-parameters")
def test_a_joint_iteration_learns_the_noise_by_its_count_of_parameters():
    """From σ² = 1 at rate 1: the mean squared residuals at the old means, and γ/(N K); control: γ/N."""
    x, y = curve()
    y, settings = np.hstack([y, 1 - 2 * y]), replace(JOINTLY, warmup=0)
    state = initial_state(MLP((2, 6, 2)), Gaussian(np.ones(2)), np.random.default_rng(0), settings)
    after = bali_step(state, x, y, np.random.default_rng(1), settings)
    counts = [layer.effective_parameters for layer in after.layers]
    residuals = np.mean((state.mlp.forward(state.means, x).outputs[-1] - y) ** 2, axis=0)
    share = sum(counts) / y.size
    assert share < 0.45
    scale = float(np.linalg.norm(residuals)) + share
    ratio = comparison_residual(after.likelihood.noise_variance, residuals + share, scale=scale, size=len(x))
    assert_residual(ratio, "noise after a joint iteration", "eq:joint-parameters")
    assert comparison_residual(residuals + 2 * share, residuals + share, scale=scale, size=len(x)) > THRESHOLD
    assert all(count >= 0.01 * m.size for count, m in zip(counts, state.means))


@on_every_backend
@pytest.mark.equation("eq:joint-step")
def test_the_joint_steps_end_at_a_stationary_point():
    """Noise and prior held fixed, the derivative g of the penalised loss is nothing after enough joint steps: a step
    lowers the loss ℓ by at least |g|²/2λ, λ the largest curvature, which is not seen below what ℓ rounds by; control:
    as many layerwise steps leave far more."""
    x, y = curve(n=30)
    mlp, settings = MLP((2, 3, 1), "tanh"), Settings(joint_iterations=300, warmup=300, prior_precision=0.5)
    state = initial_state(mlp, Gaussian(0.3), np.random.default_rng(1), settings)
    start = state

    def slope(state):
        sums = block_sums(mlp, state.likelihood, state.means, x, y)
        parts = [s.cross + layer.prior_precision * m for s, layer, m in zip(sums.layers, state.layers, state.means)]
        return float(np.linalg.norm(flat(parts)))

    for t in range(60):
        state = bali_step(state, x, y, np.random.default_rng(t), settings)
    plain = replace(settings, joint_iterations=0, warmup=300)
    other = start
    for t in range(60):
        other = bali_step(other, x, y, np.random.default_rng(t), plain)
    loss = float(data_loss(mlp, state.likelihood, state.means, x, y, settings, None))
    curvature = np.linalg.norm(dense_ggn(mlp, state.likelihood, state.means, x), 2) + state.layers[0].prior_precision
    limit = (2 * curvature * THRESHOLD * len(x) * np.finfo(float).eps * loss) ** 0.5
    assert slope(state) < limit < slope(other)


@on_every_backend
@pytest.mark.equation("eq:joint-step")
def test_an_iteration_goes_the_largest_share_that_does_not_raise_the_penalised_loss():
    """0.3^j of the solution V of (H + τ + 0.3^t λ₀) V = −g, dense, in several iterations t, whatever rise and share
    layerwise steps are allowed; λ₀ by the biases' block of H, which is ∑ JᵀBJ. Negative controls: with the damping of
    the first iteration in later ones, and without the prior's τM in g."""
    shares = set()
    settings = Settings(joint_iterations=9, warmup=9, prior_precision=0.5, allowed_rise=1e3, step_scale=0.15, rate=1.0)
    for seed, t in itertools.product(range(6), (0, 2, 4)):
        x, y = curve(seed, n=25)
        y = 9 * y  # far away
        mlp, likelihood = MLP((2, 3, 1), "tanh"), Gaussian(np.ones(1) * 0.01)
        state = replace(initial_state(mlp, likelihood, np.random.default_rng(seed), settings), iteration=t)
        passes, tau = mlp.forward(state.means, x), [layer.prior_precision for layer in state.layers]
        H, biases = dense_ggn(mlp, likelihood, state.means, x), ([2, 5, 8], [12])
        traces = [np.sum(a**2) * np.trace(H[np.ix_(b, b)]) / 25 for a, b in zip(passes.inputs, biases)]
        G = mlp.backward(state.means, passes, likelihood.gradient(passes.outputs[-1], y))
        slopes = [a.T @ g for a, g in zip(passes.inputs, G)]
        pulled = flat([g + each * m for g, each, m in zip(slopes, tau, state.means)])
        prior, size = np.repeat(tau, [9, 4]), sum(traces) / 13

        def solved(damping, g, H=H, prior=prior):
            return np.linalg.solve(H + np.diag(prior) + damping * np.eye(13), -g)

        def objective(v, state=state, x=x, y=y, prior=prior):
            moved = flat(state.means) + v
            means = [unvec(moved[:9], 3), unvec(moved[9:], 4)]
            loss = np.sum(state.likelihood.loss(state.mlp.forward(means, x).outputs[-1], y))
            return loss + np.sum(prior * moved**2) / 2

        def share(v, objective=objective):
            return next(s for s in 0.3 ** np.arange(12) if objective(s * v) <= objective(0 * v))

        after = bali_step(state, x, y, np.random.default_rng(1), settings)
        got, step = flat(after.means) - flat(state.means), solved(0.3**t * size, pulled)
        scale = condition_number(H + np.diag(prior)) * (np.linalg.norm(step) + np.linalg.norm(flat(state.means)))
        ratio = comparison_residual(got, share(step) * step, scale=scale, size=PRODUCTS * 13)
        assert_residual(ratio, f"step of iteration {t}", "eq:joint-step")
        assert after.step_scale == 0.15
        others = [solved(0.3**t * size, flat(slopes))] + ([solved(size, pulled)] if t else [])
        for other in others:
            assert comparison_residual(share(other) * other, got, scale=scale, size=PRODUCTS * 13) > THRESHOLD
        shares.add(share(step))
    assert len(shares) > 1, shares


@pytest.mark.equation("eq:joint-step")
def test_thirty_joint_steps_mostly_go_farther_than_a_hundred_layerwise_ones():
    """By the squared residual of the mean, on eleven of twenty curves at least; on 41 of 50 others they did: known no
    better than that, the rate makes other seeds fail this once in 150 (beta-binomial). Negative control: thirty
    layerwise steps do not pass for them."""

    def residual(seed, joint, iterations):
        x, y = curve(seed)
        settings = replace(JOINTLY, joint_iterations=joint, max_iterations=iterations)
        state = fit(x, y, MLP((2, 20, 1)), Gaussian(np.ones(1)), np.random.default_rng(seed), settings).state
        return float(np.mean((state.mlp.forward(state.means, x).outputs[-1] - y) ** 2))

    hundred = [residual(seed, 0, 100) for seed in range(20)]
    assert sum(residual(seed, 30, 30) < other for seed, other in enumerate(hundred)) >= 11
    assert sum(residual(seed, 0, 30) < other for seed, other in enumerate(hundred)) < 11


@pytest.mark.equation("eq:joint-step")
def test_an_iteration_is_the_same_for_any_blocks():
    x, y = curve(n=40)
    mlp = MLP((2, 5, 1))
    weight = np.random.default_rng(0).integers(1, 4, len(x)).astype(float)
    state = initial_state(mlp, Gaussian(np.ones(1)), np.random.default_rng(0), JOINTLY)
    one, other = (
        bali_step(state, x, y, np.random.default_rng(1), replace(JOINTLY, block_rows=rows), sample_weight=weight)
        for rows in (2048, 7)
    )
    dense = dense_ggn(mlp, state.likelihood, state.means, np.repeat(x, weight.astype(int), axis=0))
    damped = dense + (state.layers[0].prior_precision + np.trace(dense) / len(dense)) * np.eye(len(dense))
    for a, b in zip(one.means, other.means):
        # the system's solution through its condition, in twenty products that each round anew
        scale = condition_number(damped) * float(np.linalg.norm(a))
        assert comparison_residual(a, b, scale=scale, size=PRODUCTS * len(x)) < THRESHOLD


@pytest.mark.equation("eq:joint-step")
def test_a_single_layer_takes_joint_steps_to_its_posterior():
    """After forty, when the damping is gone, the mean is that of the exact regression: one layer is one system."""
    x, y = curve(n=20)
    settings = Settings(joint_iterations=50, warmup=50, prior_precision=0.5)
    state = initial_state(MLP((2, 1)), Gaussian(0.3), np.random.default_rng(0), settings)
    for t in range(40):
        state = bali_step(state, x, y, np.random.default_rng(t), settings)
    A = np.column_stack([x, np.ones(20)])
    precision = A.T @ A / 0.3 + state.layers[0].prior_precision * np.eye(3)
    expected = np.linalg.solve(precision, A.T @ y / 0.3)
    scale = condition_number(precision) * np.linalg.norm(expected)
    ratio = comparison_residual(state.means[0], expected, scale=scale, size=3)
    assert_residual(ratio, "mean of one layer", "eq:joint-step")


@pytest.mark.equation("eq:joint-step")
def test_sampling_begins_when_the_joint_steps_are_over():
    x, y = curve()
    settings = replace(JOINTLY, joint_iterations=5, warmup=2, max_iterations=8)
    result = fit(x, y, MLP((2, 6, 1)), Gaussian(np.ones(1)), np.random.default_rng(0), settings)
    assert [record.temperature > 0 for record in result.history] == [False] * 4 + [True] * 4
    noise = [record.noise_variance[0] for record in result.history]
    assert noise[0] == noise[1] == 1 != noise[2]  # learnt from the end of the warm-up on


@on_every_backend
@pytest.mark.equation("eq:joint-step")
def test_a_joint_step_is_at_the_mean_of_a_sampled_state_too():
    """The loss that an iteration of a fit gone on with meets is that at the means; control: a layerwise one, at a draw,
    meets another."""
    x, y = curve()
    layerwise = Settings(max_iterations=15, tolerance=0)
    state = fit(x, y, MLP((2, 6, 1)), Gaussian(np.ones(1)), np.random.default_rng(0), layerwise).state
    assert state.temperature > 0
    at_mean = state.likelihood.loss(state.mlp.forward(state.means, x).outputs[-1], y).mean()
    ratios = []
    for settings in (replace(layerwise, joint_iterations=state.iteration + 1), layerwise):
        after = bali_step(state, x, y, np.random.default_rng(1), settings)
        ratios.append(comparison_residual(after.training_loss, at_mean, size=len(x)))
    assert_residual(ratios[0], "loss of a joint iteration", "eq:joint-step")
    assert ratios[1] > THRESHOLD


def test_joint_steps_need_the_independent_prior():
    with pytest.raises(InvalidArgumentError, match="prior='independent' only, got prior='tied'"):
        Settings(prior="tied", joint_iterations=3)


def test_small_precision_stays_small():
    x, y = (part.astype(np.float32) for part in curve())
    settings = replace(JOINTLY, max_iterations=40)
    result = fit(x, y, MLP((2, 6, 1)), Gaussian(np.ones(1, np.float32)), np.random.default_rng(0), settings)
    assert all(m.dtype == np.float32 and np.all(np.isfinite(m)) for m in result.state.means)


@pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
def test_tables_begin_with_joint_steps_unless_something_else_was_asked_for():
    def settings(rows, **parameters):
        return BALIRegressor(**parameters)._table_settings(rows)

    assert settings(20_000).joint_iterations == JOINT["joint_iterations"]
    assert settings(5_000, max_iterations=70).max_iterations == 70
    assert settings(5_000, settings={"warmup": 3}).warmup == 3
    short = settings(5_000, max_iterations=12)
    assert (short.joint_iterations, short.warmup) == (6, 6)  # the rest is for weights that are drawn
    plain = [
        settings(20_001),
        settings(20_001, batch_size=None),
        settings(100, batch_size=32),
        settings(100, hidden_widths=()),
        settings(100, preset="literal"),
        settings(100, noise="input-dependent"),
        settings(100, settings={"prior": "tied"}),
        settings(100, settings={"joint_iterations": 0}),
    ]
    assert [s.joint_iterations for s in plain] == [0] * len(plain)
    assert settings(100, settings={"joint_iterations": 0}) == Settings(
        trust_region=True, allowed_rise=1.0, noise_floor=NOISE_FLOOR, averaging=AVERAGING
    )  # and with the budget and rate of such fits
    assert BALIRegressor()._fit_settings(100).joint_iterations == 0  # a batch of a stream, and the fit for relevance


def test_iterations_that_are_meant_to_be_used_up_raise_no_warning(monkeypatch):
    """The default budget of a table that begins with joint steps; control: the same number, if asked for, does."""
    monkeypatch.setitem(JOINT, "max_iterations", 12)
    x, y = curve()
    parameters = {"hidden_widths": (4,), "validation_fraction": 0, "relevance": False, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BALIRegressor(**parameters).fit(x, y[:, 0])
    assert (model.n_iter_, model.converged_, how_it_ended(model)) == (12, False, "as planned")
    for asked in ({"max_iterations": 12}, {"settings": {"max_iterations": 12}}, {"settings": {"joint_iterations": 0}}):
        model = BALIRegressor(**parameters | asked, **({} if "max" in str(asked) else {"max_iterations": 5}))
        with pytest.warns(ConvergenceWarning):
            model.fit(x, y[:, 0])
        assert how_it_ended(model) == "not converged"
