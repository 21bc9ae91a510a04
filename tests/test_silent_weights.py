"""Weights that no row of the data has a say in: of inputs that are always 0."""

from __future__ import annotations

import numpy as np
import pytest

from balinp import MLP, BALIRegressor, Gaussian, Settings, bali_step, initial_state
from balinp.state import BALIState
from balinp.testing import assert_residual, comparison_residual
from balinp.testing.boundary import landed, lifted


@pytest.mark.equation("eq:fixed-points")
@pytest.mark.parametrize("rounding", [0.0, 1.0])
def test_they_end_at_the_prior_s_mean_and_no_output_changes(backend, dtype, rounding):
    """An input that is 0 in every row, or eps by turns; outputs to rounding, all other weights to the last bit."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 3)).astype(dtype)
    x[:, 1] = rounding * np.finfo(dtype).eps * (np.arange(30) % 2)
    y = rng.standard_normal((30, 1)).astype(dtype)
    likelihood, settings = Gaussian(np.ones(1, dtype)), Settings(gradients="mean", learn_noise=False, evidence=False)
    state = initial_state(MLP((3, 5, 1)), likelihood, np.random.default_rng(1), settings, dtype)
    for _ in range(3):
        state = bali_step(state, x, y, rng, settings)
    ended = landed(lifted(state, backend).with_silent_weights_at_prior(), backend)
    before, after = (s.mlp.forward(s.means, x).outputs[-1] for s in (state, ended))
    ratio = comparison_residual(after, before, scale=norm(*state.means), size=30)
    assert_residual(ratio, "outputs without silent weights", "eq:fixed-points")
    assert np.any(state.means[0][1] != 0)
    assert np.all(ended.means[0][1] == 0)
    np.testing.assert_array_equal(state.means[0][[0, 2, 3]], ended.means[0][[0, 2, 3]])
    np.testing.assert_array_equal(state.means[1], ended.means[1])


def norm(*weights):
    return float(np.prod([np.linalg.norm(w.astype(np.float64)) for w in weights]))


def rare_table(rows=150):
    """Two inputs that count and a category that no row has."""
    rng = np.random.default_rng(3)
    X = np.c_[rng.standard_normal((rows, 2)), np.zeros(rows)]
    return X, np.sin(2 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(rows)


def changes(**parameters):
    """By how much a category that no row of the fit had moves means and deviations, in deviations of the target."""
    X, y = rare_table()
    model = BALIRegressor(random_state=0, **parameters).fit(X, y)
    parts = [model.predict_distribution(rows) for rows in (X, X + np.array([0, 0, 1]))]
    mean, deviation = zip(*((p.mean[:, 0], p.covariance[:, 0, 0] ** 0.5) for p in parts))
    return np.abs(mean[1] - mean[0]).max() / y.std(), (deviation[1] / deviation[0]).min()


@pytest.mark.parametrize("parameters", [{}, {"noise": "input-dependent", "predictive": "linearized"}])
def test_a_category_that_no_row_had_moves_no_mean_and_is_uncertain(monkeypatch, parameters):
    """Control: as the iterations leave the weights of that input, it moves means."""
    moved, widened = changes(**parameters)
    monkeypatch.setattr(BALIState, "with_silent_weights_at_prior", lambda state: state)
    left, _ = changes(**parameters)
    assert moved == 0
    assert left > 0.01  # of a deviation of the target
    assert widened > 1
