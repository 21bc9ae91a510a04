"""The fit loop: reproducible to the bit, descending, ending at stationary points, and honest about when it stops."""

import math
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest

from balinp import (
    MLP,
    Categorical,
    ConvergenceWarning,
    Gaussian,
    InvalidArgumentError,
    Settings,
    bali_step,
    fit,
    initial_state,
    predict_monte_carlo,
)
from balinp.testing.gradients import complex_step_jacobian
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual
from balinp.training import has_plateaued, negative_log_likelihood

pytestmark = pytest.mark.usefixtures("on_backend")


def generator(seed=7):
    return np.random.default_rng(seed)


def data(widths=(2, 5, 2), n=40, kind="gaussian", variance=0.3):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, widths[0]))
    y = np.tanh(x @ rng.standard_normal((widths[0], widths[-1]))) + 0.1 * rng.standard_normal((n, widths[-1]))
    if kind == "categorical":
        return x, y.argmax(axis=1), MLP(widths, "tanh"), Categorical()
    return x, y, MLP(widths, "tanh"), Gaussian(variance)


def short(iterations=6, **changes):
    return Settings(warmup=2, max_iterations=iterations, tolerance=0, **changes)


def state_arrays(state):
    """Every array and number of a state, the bits of each."""
    yield np.asarray(getattr(state.likelihood, "noise_variance", 0.0)).tobytes()
    yield np.array([state.temperature, state.step_scale, state.iteration, state.training_loss]).tobytes()
    for layer in state.layers:
        p, s = layer.posterior, layer.statistics
        for a in (p.mean, p.row_precision, p.column_covariance, s.gram, s.cross, s.target_gram, s.curvature):
            yield a.tobytes()
        yield np.array([getattr(layer, f.name) for f in fields(layer)[2:]] + [s.count]).tobytes()


# reproducibility


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("step", ["gradient", "isotropic", "natural"])
def test_the_same_seed_gives_the_same_bits(kind, batch_size, step):
    x, y, mlp, likelihood = data(kind=kind)
    settings = short(batch_size=batch_size, step=step)
    one, two, other = (fit(x, y, mlp, likelihood, generator(seed), settings).state for seed in (1, 1, 2))
    assert list(state_arrays(one)) == list(state_arrays(two))
    assert list(state_arrays(one)) != list(state_arrays(other))


def test_continuing_a_fit_is_one_longer_fit():
    x, y, mlp, likelihood = data()
    rng = generator()
    first = fit(x, y, mlp, likelihood, rng, short(3))
    both = fit(x, y, mlp, likelihood, rng, short(4), state=first.state)
    assert list(state_arrays(both.state)) == list(state_arrays(fit(x, y, mlp, likelihood, generator(), short(7)).state))


def test_arguments_are_left_alone():
    x, y, mlp, likelihood = data()
    w = np.ones(len(x))
    kept = [a.copy() for a in (x, y, w)]
    for a in (x, y, w):
        a.setflags(write=False)
    fit(x, y, mlp, likelihood, generator(), short(batch_size=10), sample_weight=w)
    assert all(np.array_equal(a, b) for a, b in zip((x, y, w), kept))


# mini-batches


@pytest.mark.equation("eq:ema")
@pytest.mark.parametrize("batch_size", [1, 7, 20, 39, 40, 1000])
def test_a_pass_of_mini_batches(batch_size):
    """Every row is met once per pass, and each batch stands for all N rows: the running count stays N."""
    x, y, mlp, likelihood = data()
    y = y + 1e3 * np.arange(len(x))[:, None]  # so that a row left out would show in the mean loss
    settings = Settings.preset("literal", step_size=1e-30, prior_precision=1e30, tolerance=0, batch_size=batch_size)
    start = initial_state(mlp, likelihood, generator(), settings)
    start = replace(start, iteration=1)
    per_pass = -(-len(x) // batch_size)
    zero = [replace(l, posterior=l.posterior.with_mean(0 * l.posterior.mean)) for l in start.layers]
    start = replace(start, layers=tuple(zero))  # a prior this strong keeps the weights at zero
    result = fit(x, y, mlp, likelihood, generator(), replace(settings, max_iterations=per_pass), state=start)
    assert result.state.iteration == 1 + per_pass
    expected = likelihood.loss(np.zeros_like(y), y).mean()
    assert_residual(abs(result.history[0].train_nll / expected - 1) / (len(x) * 2.3e-16), "mean loss", "eq:iteration")
    assert result.state.layers[0].statistics.count == pytest.approx(len(x), rel=1e-14)


# stopping, history


def test_plateau():
    falling = [1.0 - 0.1 * i for i in range(8)]
    assert not has_plateaued(falling, 4, 0.39)  # the means of fours fall by 0.4
    assert has_plateaued(falling, 4, 0.41)
    assert not has_plateaued(falling, 5, 0.41)  # too few to tell
    assert not has_plateaued([1.0] * 8, 4, 0)  # 0: never
    assert has_plateaued([1.0] * 8, 4, 1e-12)


def test_early_stopping_and_its_warning():
    x, y, mlp, likelihood = data()
    settings = Settings(max_iterations=300, tolerance=0.05, patience=5, warmup=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stopped = fit(x, y, mlp, likelihood, generator(), settings)
        endless = fit(x, y, mlp, likelihood, generator(), short(5))  # tolerance 0: the budget is the plan
    assert stopped.converged
    assert len(stopped.history) < 300
    assert not endless.converged
    with pytest.warns(ConvergenceWarning, match="max_iterations=6") as caught:
        assert not fit(x, y, mlp, likelihood, generator(), replace(settings, max_iterations=6)).converged
    assert [warning.filename for warning in caught] == [__file__]


def test_callback_ends_the_fit_by_returning_true():
    x, y, mlp, likelihood = data()
    seen = []

    def callback(state, record):
        seen.append((state, record))
        return True if len(seen) == 4 else "anything else goes on"

    result = fit(x, y, mlp, likelihood, generator(), short(9), callbacks=callback)
    assert len(result.history) == 4
    assert seen[-1] == (result.state, result.history[-1])
    assert [state.iteration for state, _ in seen] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_history(kind, batch_size):
    x, y, mlp, likelihood = data(kind=kind, variance=np.array([0.3, 0.4]))
    settings = short(batch_size=batch_size)
    result = fit(x, y, mlp, likelihood, generator(), settings, test=(x[:9], y[:9]))
    assert all(r.test_nll is None for r in fit(x, y, mlp, likelihood, generator(), settings).history)
    for record in result.history:
        values = [getattr(record, f.name) for f in fields(record)]
        assert all(math.isfinite(v) for value in values for v in (value if isinstance(value, tuple) else (value,)))
        assert len(record.prior_precision) == len(record.effective_parameters) == len(record.log_evidence) == 2
        assert len(record.noise_variance) == (2 if kind == "gaussian" else 0)
    seconds = [record.seconds for record in result.history]
    assert seconds == sorted(seconds)
    state, last = result.state, result.history[-1]
    assert last.test_nll == negative_log_likelihood(state, x[:9], y[:9])
    assert last.prior_precision == tuple(layer.prior_precision for layer in state.layers)
    predictive = predict_monte_carlo(state, x[:9], np.random.default_rng(0), 10)
    if kind == "gaussian":
        assert last.noise_variance == tuple(state.likelihood.noise_variance)
        assert last.test_nll == -predictive.log_density(y[:9], mlp.backend).mean()
    else:
        expected = -np.log(predictive.probabilities[np.arange(9), y[:9]]).mean()
        assert last.test_nll == pytest.approx(expected, rel=1e-14)


@pytest.mark.equation("eq:noise-update")
@pytest.mark.parametrize("gradients", ["mean", "sampled"])
@pytest.mark.parametrize("variance", [0.3, np.array([0.3, 2.0])])
def test_noise_is_an_average_of_squared_residuals_after_the_warm_up(variance, gradients):
    """Of the mean's residuals, with the share γ/NK of the noise that the fit took out of them, or of a draw's."""
    x, y, mlp, likelihood = data(variance=variance)
    settings = Settings(rate=0.25, warmup=3, gradients=gradients)
    state = initial_state(mlp, likelihood, generator(), settings)
    for t in range(8):
        before, state = state, bali_step(state, x, y, generator(), settings)
        old, new = before.likelihood.noise_variance, state.likelihood.noise_variance
        draw = gradients == "sampled" and before.temperature > 0
        weights = before.sample_weights(generator()) if draw else before.means
        squares = (mlp.forward(weights, x).outputs[-1] - y) ** 2
        residual = squares.mean(axis=0) if np.ndim(variance) else squares.mean()
        if not draw:
            gamma = sum(layer.effective_parameters for layer in state.layers)
            residual = residual + old * state.temperature * gamma / y.size
        expected = old if t < 3 else 0.75 * old + 0.25 * residual
        assert_residual(comparison_residual(new, expected, size=len(x)), "noise variance", "eq:noise-update")
    assert state.temperature > 0
    if gradients == "sampled":  # a mean over the batch: how many data it stands for is no matter
        once, thrice = (bali_step(state, x, y, generator(), settings, n * 40.0).likelihood for n in (1, 3))
        assert np.array_equal(once.noise_variance, thrice.noise_variance)
    floored = bali_step(state, x, y, generator(), replace(settings, noise_floor=50.0)).likelihood.noise_variance
    assert np.all(floored == 50.0)
    kept = bali_step(state, x, y, generator(), replace(settings, learn_noise=False)).likelihood
    assert kept is state.likelihood


# what is refused


def test_bad_arguments_are_refused():
    x, y, mlp, likelihood = data()
    for bad, what in (
        ({"x": x[0]}, "x must"),
        ({"x": x[:, :1]}, "x must"),
        ({"x": x[:0], "y": y[:0]}, "x must"),
        ({"y": y[:-1]}, "y must"),
        ({"y": y[:, :1]}, "y must"),
        ({"y": y[None]}, "y must"),
        ({"sample_weight": np.ones(3)}, "sample_weight"),
        ({"settings": Settings(), "preset": "literal"}, "not both"),
        ({"preset": "figurative"}, "preset"),
    ):
        arguments = {"x": x, "y": y, "mlp": mlp, "likelihood": likelihood, "generator": generator()} | bad
        with pytest.raises(InvalidArgumentError, match=what):
            fit(**arguments)


@pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
def test_the_literal_preset_runs():
    x, y, mlp, likelihood = data()
    settings = Settings.preset("literal", step_size=0.3, max_iterations=30)
    result = fit(x, y, mlp, likelihood, generator(), settings)
    assert result.history[-1].train_nll < result.history[0].train_nll
    by_name = fit(x, y, mlp, likelihood, generator(), preset="literal", callbacks=lambda *_: True)
    assert by_name.state.temperature == 1
    assert np.array_equal(by_name.state.layers[0].posterior.column_covariance, np.eye(5))  # α = 1


# descent, fixed points


def objective(state, means, x, y, settings, column_covariances):
    """∑ℓ + ½ tr(prior precision of vec M · vec M vec Mᵀ), written without the solver, and the size of its terms."""
    loss = state.likelihood.loss(state.mlp.forward(means, x).outputs[-1], y)
    penalty = 0.0
    for layer, M, S in zip(state.layers, means, column_covariances):
        inverse = np.linalg.inv(S) if settings.prior == "tied" else np.eye(len(S))
        penalty += layer.prior_precision / 2 * np.trace(inverse @ M.T @ M)
    return loss.sum() + penalty, np.abs(loss).sum() + penalty


def largest_rise(state, x, y, settings, iterations):
    """The largest rise of the objective in one iteration, in eps of its terms, and the smallest step scale."""
    worst, smallest = -np.inf, 1.0
    for _ in range(iterations):
        after = bali_step(state, x, y, generator(), settings)
        S = [layer.posterior.column_covariance for layer in after.layers]
        old, size = objective(state, state.means, x, y, settings, S)
        new, _ = objective(state, after.means, x, y, settings, S)  # the old σ² and τ: held fixed during the step
        worst = max(worst, (new - old) / (np.finfo(float).eps * len(x) * size))
        cuts = math.log(after.step_scale / (1.5 * state.step_scale)) / math.log(0.3)
        assert after.step_scale == settings.step_scale or cuts == pytest.approx(round(cuts), abs=1e-9)
        state, smallest = after, min(smallest, after.step_scale)
    return worst, smallest


@pytest.mark.equation("eq:trust-region")
@pytest.mark.parametrize("prior", ["tied", "independent"])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("evidence", [False, True])
def test_trust_region_never_lets_the_objective_rise(prior, kind, evidence):
    settings = Settings(
        prior=prior, gradients="mean", evidence=evidence, step_scale=1.0, trust_region=True, damping=0.01, warmup=3
    )
    x, y, mlp, likelihood = data((2, 6, 5, 2), kind=kind, variance=0.01)
    state = initial_state(mlp, likelihood, generator(0), settings)
    worst, smallest = largest_rise(state, x, y, settings, 40)
    assert_residual(worst, f"rise of the objective, {prior}, {kind}", "eq:trust-region")
    assert kind == "categorical" or smallest < 1  # it had something to do
    free, _ = largest_rise(state, x, y, replace(settings, trust_region=False), 40)
    assert kind == "categorical" or free > THRESHOLD  # negative control


@pytest.mark.equation("eq:trust-region")
def test_a_step_that_never_lowers_the_objective_is_not_taken():
    x, y, mlp, likelihood = data()
    settings = Settings.preset("literal", step_size=1e30, trust_region=True)
    state = initial_state(mlp, likelihood, generator(), settings)
    after = bali_step(state, x, y, generator(), settings)
    assert all(np.array_equal(a, b) for a, b in zip(after.means, state.means))
    assert after.step_scale == pytest.approx(0.3**12, rel=1e-12)


@pytest.mark.equation("eq:fixed-points")
@pytest.mark.parametrize("prior", ["tied", "independent"])
def test_fixed_points_are_stationary_points_of_the_penalised_loss(prior):
    """The trust region finds the basin; plain steps, whose end is not limited by the rounding of a loss, finish."""
    settings = Settings(
        step="gradient" if prior == "tied" else "natural",  # identity 7 wants S constant under the tied prior
        step_size=0.3,
        step_scale=1.0 if prior == "tied" else 0.5,
        prior=prior,
        prior_precision=2.0,
        gradients="mean",
        evidence=False,
        learn_noise=False,
        trust_region=True,
    )
    x, y, mlp, likelihood = data((2, 3, 1), 20)
    state = initial_state(mlp, likelihood, generator(0), settings)
    for t in range(1000):
        state = bali_step(state, x, y, generator(), replace(settings, trust_region=t < 50))

    def residual(strength):
        worst = 0.0
        for l, layer in enumerate(state.layers):
            M, S = layer.posterior.mean, layer.posterior.column_covariance

            def loss(w, l=l):
                means = [*state.means[:l], w, *state.means[l + 1 :]]
                return state.likelihood.loss(state.mlp.forward(means, x).outputs[-1], y).sum()

            gradient = complex_step_jacobian(loss, M)
            pull = strength * layer.prior_precision * (M @ np.linalg.inv(S) if prior == "tied" else M)
            worst = max(worst, comparison_residual(gradient, -pull, size=len(x) * M.size))
        return worst

    assert_residual(residual(1.0), f"gradient at the fixed point, {prior}", "eq:fixed-points")
    assert residual(0.0) > THRESHOLD  # negative controls: the loss alone, and another prior
    assert residual(1.001) > THRESHOLD
