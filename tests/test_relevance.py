"""How much each input counts: the first fit of the regressor, and the scales it leaves."""

from __future__ import annotations

import numpy as np
import pytest

from balinp import MLP, BALIRegressor, Gaussian, InvalidArgumentError, Settings, fit
from balinp.relevance import LEAST, input_relevance
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


@pytest.fixture(scope="module")
def hidden():
    """Eighty rows with noise of deviation ½ and five inputs: few for the forty hidden units that fit them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 5))
    return X, np.sin(X[:, 0]) + X[:, 1] / 2 + 0.5 * rng.standard_normal(80)


@pytest.mark.equation("eq:input-relevance")
def test_an_input_that_counts_is_more_relevant_than_noise():
    """Two informative inputs of six lead by a factor 1.5; the root mean square is 1; the bias is no input."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 6))
    y = (np.sin(2 * x[:, 0]) + x[:, 3] ** 2)[:, None] + 0.1 * rng.standard_normal((150, 1))
    y = (y - y.mean()) / y.std()
    r = input_relevance(x, y, None, MLP((6, 20, 1)), Gaussian(np.ones(1)), Settings(), 0)
    assert r.shape == (6,)
    assert min(r[0], r[3]) > 1.5 * max(r[[1, 2, 4, 5]])
    assert np.mean(r**2) == pytest.approx(1, rel=1e-5)
    dead = np.where(np.arange(6) == 1, 0.0, x)
    least = input_relevance(dead, y, np.ones(150), MLP((6, 20, 1)), Gaussian(np.ones(1)), Settings(), 0)
    assert np.all(np.isfinite(least))
    assert least[1] == 1, "of an input that never varies nothing is known"
    assert np.mean(np.delete(least, 1) ** 2) == pytest.approx(1, rel=1e-5)


@pytest.mark.equation("eq:input-relevance")
def test_no_input_is_less_relevant_than_the_least():
    """One input of six makes the target: the first fit's weights of the others would be below 0.3 of the root mean
    square, which is then more than 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6))
    y = np.tanh(3 * x[:, :1])
    y = (y - y.mean()) / y.std()
    r = input_relevance(x, y, None, MLP((6, 20, 1)), Gaussian(np.ones(1)), Settings(), 0)
    assert np.min(r) == LEAST
    assert np.sum(r == LEAST) < 5, "not all are"
    assert np.mean(r**2) > 1.005


@pytest.mark.equation("eq:input-relevance")
def test_it_is_the_norm_of_the_weights_over_their_root_mean_square():
    """From the same short fit made again, input by input; two hidden units, two targets, one input that never varies.
    Negative controls: the squares of the norms, and the mean over all six inputs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 6)) * (np.arange(6) != 2)
    y, network, likelihood = np.stack([x[:, 0], x[:, 1] / 2 + x[:, 5]], axis=1), MLP((6, 2, 2)), Gaussian(np.ones(2))
    settings = Settings(max_iterations=15)
    r = input_relevance(x, y, None, network, likelihood, settings, 3)
    first = fit(x, y, network, likelihood, np.random.default_rng(3), settings).state.means[0]
    norms, varies = [sum(w**2 for w in first[d]) ** 0.5 for d in range(6)], [d for d in range(6) if d != 2]

    def expected(size, count):
        mean = (sum(size[d] ** 2 for d in varies) / count) ** 0.5
        return np.array([max(size[d] / mean, 0.3) if d != 2 else 1.0 for d in range(6)])

    assert_residual(comparison_residual(r, expected(norms, 5)), "relevance", "eq:input-relevance")
    assert len(set(r[varies])) > 3
    for control in (expected([n**2 for n in norms], 5), expected(norms, 6)):
        assert comparison_residual(r, control) > THRESHOLD


@pytest.mark.equation("eq:input-relevance")
def test_scaled_inputs_are_another_prior(hidden):
    """The estimator's scaler takes the relevance in: x_scaler_ is the plain one with its scales divided by it."""
    X, y = hidden
    X = np.column_stack([10 * X + 3, np.full(len(X), 7.0)])  # a constant column
    quick = {"hidden_widths": (8,), "max_iterations": 30, "random_state": 0, "validation_fraction": 0.0}
    plain, scaled = (BALIRegressor(relevance=r, **quick).fit(X, y) for r in (False, True))
    ratio = plain.x_scaler_.scale / scaled.x_scaler_.scale
    assert np.array_equal(plain.x_scaler_.offset, scaled.x_scaler_.offset)
    assert np.mean(ratio**2) == pytest.approx(1, rel=1e-4)
    assert np.ptp(ratio) > 0.1
    assert np.all(np.isfinite(scaled.predict(X)))
    inputs = (X - scaled.x_scaler_.offset) / scaled.x_scaler_.scale
    mean = scaled.state_.mlp.forward(scaled.state_.means, inputs).outputs[-1]
    assert mean.shape == (80, 1)


@pytest.mark.parametrize("preset", [None, "literal"])
def test_a_single_input_or_a_preset_is_not_scaled(hidden, preset, monkeypatch):
    """Nor is its relevance asked for, which of one input is 1. Negative control: of five without a preset it is."""
    asked, found = [], input_relevance
    monkeypatch.setattr("balinp.regressor.input_relevance", lambda *a: asked.append(1) or found(*a))
    X, y = hidden
    columns = 1 if preset is None else 5
    quick = {"hidden_widths": (4,), "max_iterations": 10, "random_state": 0, "validation_fraction": 0, "preset": preset}
    plain, scaled = (BALIRegressor(relevance=r, **quick).fit(X[:, :columns], y) for r in (False, True))
    assert np.array_equal(plain.x_scaler_.scale, scaled.x_scaler_.scale)
    assert not asked
    BALIRegressor(**quick | {"preset": None}).fit(X, y)
    assert asked


@pytest.mark.parametrize("bad", ["yes", 1, None])
def test_a_bad_relevance_is_refused(hidden, bad):
    with pytest.raises(InvalidArgumentError, match="relevance must be True or False, got"):
        BALIRegressor(relevance=bad).fit(*hidden)
