"""The means that a fit ends at: moving averages of its iterations'."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from balinp import MLP, BALIRegressor, Gaussian, Settings, fit
from balinp.averaging import averaged_means
from balinp.testing import assert_residual, comparison_residual
from balinp.testing.residuals import THRESHOLD

pytestmark = [pytest.mark.usefixtures("on_backend"), pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")]
WAYS = [{"warmup": 4}, {"warmup": 0}, {"warmup": 2, "joint_iterations": 5}, {"warmup": 4, "batch_size": 15}]
AVERAGED = Settings(averaging=0.25, max_iterations=18, tolerance=0)


def table():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((45, 2))
    return x, np.sin(2 * x[:, :1]) + 0.1 * rng.standard_normal((45, 1))


def walked(settings, widths=(2, 5, 1), test=None, state=None):
    """The result of a fit, and the states after its passes."""
    states = []
    x, y = table()
    result = fit(
        *(x, y, MLP(widths), Gaussian(np.ones(1)), np.random.default_rng(1), settings),
        callbacks=lambda state, record: states.append(state),
        test=test,
        state=state,
    )
    return result, states


def weights(rate, count):
    """Of the means of ``count`` iterations with draws in their average, as fractions."""
    found = [Fraction(1)]
    for t in range(2, count + 1):
        a = max(rate, Fraction(1, t))
        found = [(1 - a) * w for w in found] + [a]
    return found


def flat(means):
    return np.concatenate([m.ravel() for m in means])


@pytest.mark.equation("eq:averaged-means")
@pytest.mark.parametrize("way", WAYS)
def test_a_fit_ends_at_weighted_means_of_its_iterations(way):
    """By one pass per iteration (mini-batches: of whole passes, at the weights that their iterations have); the means
    of the walk are those of a fit without averages, to the last bit. Controls: begun an iteration sooner or later."""
    settings = replace(AVERAGED, **way)
    per_pass = 1 if settings.batch_size is None else 3
    begins = max(1, settings.warmup, settings.joint_iterations)  # the first iteration is at the means, come what may
    if per_pass == 1:
        _, walk = walked(replace(settings, averaging=None))
    else:  # every iteration of the passes, by fits that end there
        walk = [averages_inside(settings, k) for k in range(1, settings.max_iterations + 1)]
    result, ends = walked(settings)
    assert len(walk) == result.state.iteration == settings.max_iterations
    for end in ends:
        means, count = [flat(s.means) for s in walk[: end.iteration]], end.iteration - begins
        if count < 1:
            np.testing.assert_array_equal(flat(end.means), means[-1])
            continue
        expected = {k: combined(means, Fraction(1, 4), count + k) for k in (-1, 0, 1) if count + k > 0}
        ratio = comparison_residual(flat(end.means), expected[0], size=count)
        assert_residual(ratio, f"means after iteration {end.iteration}", "eq:averaged-means")
        for k in {-1, 1} & set(expected):
            assert comparison_residual(expected[k], expected[0], size=count) > THRESHOLD
    np.testing.assert_array_equal(flat(result.state.means), flat(ends[-1].means))


def combined(means, rate, count):
    return sum(float(w) * m for w, m in zip(weights(rate, count), means[-count:]))


def averages_inside(settings, iterations):
    """The state after so many mini-batches of a fit without averages, which an interruption ends there."""
    asked = iter(range(1, iterations + 1))
    x, y = table()
    result = fit(
        *(x, y, MLP((2, 5, 1)), Gaussian(np.ones(1)), np.random.default_rng(1), replace(settings, averaging=None)),
        interrupted=lambda: next(asked) == iterations,
    )
    return result.state


@pytest.mark.equation("eq:averaged-means")
@pytest.mark.parametrize(("rate", "rho"), [(0.1, 0.85), (0.1, 0.95), (0.3, -0.4)])
def test_how_much_the_average_fluctuates(rate, rho):
    """The closed form against wᵀRw with the weights that unit vectors get; control: of independent means."""
    steps = 60 + round(40 / rate)  # (1 − ω)ᵗ is below eps
    averaged = None
    for unit in np.eye(steps):
        averaged = averaged_means(averaged, [unit], rate)
    assert averaged.count == steps
    w, lag = averaged.means[0], np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    variance = w @ rho**lag @ w
    closed = rate / (2 - rate) * (1 + rho * (1 - rate)) / (1 - rho * (1 - rate))
    assert_residual(comparison_residual(variance, closed, size=steps), "variance of an average", "eq:averaged-means")
    assert comparison_residual(rate / (2 - rate), closed, size=steps) > THRESHOLD


@pytest.mark.equation("eq:averaged-means")
def test_nothing_else_of_a_fit_changes():
    """Losses, noise, temperature and covariances are those of a fit without averages, to the last bit; what is told of
    test rows is what the model says of them."""
    test = table()
    result, ends = walked(replace(AVERAGED, warmup=4), test=test)
    plain, walk = walked(replace(AVERAGED, warmup=4, averaging=None), test=test)
    for a, b, end, at in zip(result.history, plain.history, ends, walk, strict=True):
        assert replace(a, seconds=0, test_nll=0) == replace(b, seconds=0, test_nll=0)
        assert (a.test_nll == b.test_nll) == (a.iteration <= 5)  # of one mean the average is that
        assert end.temperature == at.temperature
        for one, other in zip(end.layers, at.layers, strict=True):
            np.testing.assert_array_equal(one.posterior.row_precision, other.posterior.row_precision)
            np.testing.assert_array_equal(one.posterior.column_covariance, other.posterior.column_covariance)


@pytest.mark.equation("eq:averaged-means")
def test_where_nothing_is_drawn_a_fit_ends_at_its_last_means():
    """Without hidden layers, or with gradients at the means. Control: with draws it does not."""
    for widths, gradients, same in (
        ((2, 1), "sampled", True),
        ((2, 5, 1), "mean", True),
        ((2, 5, 1), "sampled", False),
    ):
        settings = [replace(AVERAGED, averaging=rate, gradients=gradients) for rate in (0.25, None)]
        assert np.array_equal(*(flat(walked(s, widths)[0].state.means) for s in settings)) == same


@pytest.mark.equation("eq:averaged-means")
def test_a_fit_that_goes_on_from_a_state_averages_its_own_iterations():
    """Else a model that learnt long ago would hold what comes later back. From a state that has not been sampled the
    first iteration is at its means, and counts as little as a fit's own first."""
    for before, undrawn in ((AVERAGED, 0), (replace(AVERAGED, warmup=9, max_iterations=3), 1)):
        first, _ = walked(before)
        assert (first.state.temperature == 0) == undrawn
        after = replace(AVERAGED, warmup=0, max_iterations=3)
        (_, ends), (_, walk) = (walked(replace(after, averaging=rate), state=first.state) for rate in (0.25, None))
        end, at = ([flat(s.means) for s in states] for states in (ends, walk))
        for k in range(undrawn + 1):
            np.testing.assert_array_equal(end[k], at[k])
        half, all_three = (at[undrawn] + at[undrawn + 1]) / 2, sum(at) / 3
        ratio = comparison_residual(end[undrawn + 1], half, size=2)
        assert_residual(ratio, "second means", "eq:averaged-means")
        assert comparison_residual(all_three, half, size=2) > THRESHOLD


def test_regressors_with_hidden_layers_average():
    def averaging(**parameters):
        return BALIRegressor(**parameters)._table_settings(100).averaging

    assert averaging() == averaging(noise="input-dependent") == 0.1
    assert averaging(settings={"averaging": None}) is None
    assert averaging(preset="literal") is averaging(hidden_widths=()) is None
