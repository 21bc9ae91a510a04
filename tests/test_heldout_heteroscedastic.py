"""What held-out rows choose where the noise depends on the inputs: a map of the log-variances, and the temperature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from balinp import MLP, BALIRegressor, Gaussian, Heteroscedastic, Settings, fit, predict_linearized
from balinp.heldout import best_held_out
from balinp.heldout_heteroscedastic import (
    LEAST_SLOPE,
    applied_to_log_variance,
    held_out_heteroscedastic,
    most_probable_log_variance,
)
from balinp.metrics import interval_coverage
from balinp.testing import assert_residual, comparison_residual, condition_number, seeds
from balinp.testing.residuals import THRESHOLD
from balinp.trial import HeldOut, LogVarianceMap, Trial

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
FLOOR, CEILING = 1e-3, 50.0


def dense_total(shift, slope, heat, rho, variance):
    """t of one row and output, (v_m, v_ρ) its variances."""
    mapped = shift + slope * rho + heat * slope**2 * variance[1] / 2
    return FLOOR + 1 / (np.exp(-mapped) + 1 / CEILING) + heat * variance[0]


def objective(shift, slope, heat, square, rho, variance, weight):
    """−∑ w log N(r | 0, t) + ½ (log θ)², up to a constant: row after row, output after output."""
    total, k = np.log(heat) ** 2 / 2, square.shape[1]
    for n, w in enumerate(weight):
        for j in range(k):
            t = dense_total(shift[j], slope, heat, rho[n, j], (variance[n, j], variance[n, k + j]))
            total += w * (square[n, j] / t + np.log(t)) / 2
    return total


@pytest.mark.equation("eq:held-out-log-variance")
@given(seed=seeds())
def test_the_most_probable_map_is_where_the_likelihood_is_largest(seed):
    """No better point within a hundredth or a half of it in any direction that the bounds leave, by sums over rows and
    outputs, but for what such a sum rounds by; negative control: half away the sum is larger."""
    rng = np.random.default_rng(seed)
    rho, weight = rng.normal(-1, 1, (60, 2)), rng.uniform(0.5, 2, 60)
    variance = rng.uniform(0.05, 1, (60, 4))
    noise = np.exp(0.6 * rho + [0.5, -0.5] + 1.5 * 0.6**2 * variance[:, 2:] / 2)
    square = (noise + 1.5 * variance[:, :2]) * rng.standard_normal((60, 2)) ** 2
    found, heat = most_probable_log_variance(square, rho, variance, weight, Heteroscedastic(FLOOR, CEILING))
    data = square, rho, variance, weight
    best = objective(found.shift, found.slope, heat, *data)
    terms = float(np.sum(weight[:, None] * (1 + square / FLOOR + abs(np.log(FLOOR)))))
    rounding = THRESHOLD * square.size * np.finfo(float).eps * terms
    for size in (1e-2, 0.1, 0.5):
        for direction in rng.standard_normal((6, 4)):
            step = size * direction / np.linalg.norm(direction)
            slope = float(np.clip(found.slope + step[2], LEAST_SLOPE, 1))
            other = objective(found.shift + step[:2], slope, heat * np.exp(step[3]), *data)
            assert other >= best - rounding
            assert size < 0.5 or other > best + rounding


@pytest.mark.equation("eq:held-out-log-variance")
def test_a_map_that_was_planted_is_found():
    """a and b of 20 000 rows within five deviations of their Fisher information, ½ ∑ (1, ρ)(1, ρ)ᵀ: a false-fail rate
    below 2 · 10⁻⁶; negative control: the identity is more than five away in both."""
    rng = np.random.default_rng(0)
    rho = rng.normal(-1, 1, (20_000, 1))
    shift, slope = 0.3, 0.7
    square = np.exp(shift + slope * rho) * rng.standard_normal(rho.shape) ** 2
    nothing, wide = np.zeros((len(rho), 2)), Heteroscedastic(1e-12, 1e12)
    found, heat = most_probable_log_variance(square, rho, nothing, np.ones(len(rho)), wide)
    basis = np.column_stack([np.ones(len(rho)), rho])
    deviation = np.sqrt(np.diagonal(np.linalg.inv(basis.T @ basis / 2)))
    error = np.array([found.shift[0] - shift, found.slope - slope]) / deviation
    assert np.max(np.abs(error)) < 5
    assert np.min(np.abs([shift, slope - 1]) / deviation) > 10
    assert heat == pytest.approx(1, rel=1e-7)  # nothing speaks for another


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120, 2))
    y = np.column_stack([np.sin(x[:, 0]), x[:, 1]]) + np.exp(0.5 * x[:, :1] - 1.5) * rng.standard_normal((120, 2))
    return x, y


@pytest.mark.equation("eq:held-out-log-variance")
def test_the_last_layer_takes_the_map(table):
    """Outputs of the mapped state are hD + (0, a), their covariances θ D C D: the state's own predictive of them, as
    that of a Gaussian, for a map of either output; the other layers stay."""
    x, y = table
    settings = Settings(max_iterations=60, trust_region=True)
    state = fit(x, y, MLP((2, 12, 4)), Heteroscedastic(), np.random.default_rng(0), settings=settings).state
    change, theta = LogVarianceMap(np.array([0.4, -0.7]), 0.6), 3.0
    held = HeldOut(settings, 0.0, np.empty(0), temperature=theta, log_variance=change)
    mapped = applied_to_log_variance(held, state)
    assert mapped.predictive_temperature == theta * state.temperature
    assert mapped.layers[0] is state.layers[0]
    p, q = (predict_linearized(replace(s, likelihood=Gaussian(np.ones(4))), x) for s in (state, mapped))
    scale, size = np.array([1, 1, 0.6, 0.6]), condition_number(state.posteriors[-1].row_precision)
    means = comparison_residual(q.mean, p.mean * scale + [0, 0, 0.4, -0.7], condition=size)
    assert_residual(means, "outputs", "eq:held-out-log-variance")
    covariances = comparison_residual(q.epistemic, theta * p.epistemic * np.outer(scale, scale), condition=size)
    assert_residual(covariances, "covariances", "eq:held-out-log-variance")


@pytest.mark.equation("eq:held-out-log-variance")
def test_the_loss_is_the_normal_one_of_the_rows_held_out(table):
    """Row by row from the fits of the trial, linearised; weights count."""
    x, y = table
    weight = np.random.default_rng(5).integers(1, 4, len(x)).astype(float)
    trial = Trial(x, y, weight, MLP((2, 12, 4)), Heteroscedastic(FLOOR, CEILING), 0, 0.2, "linearized")
    settings = Settings(max_iterations=60, trust_region=True)
    held = held_out_heteroscedastic(trial, settings)
    heat, change, expected, counts = held.temperature, held.log_variance, [], []
    for out, state, _ in trial.results(settings):
        p = predict_linearized(replace(state, likelihood=Gaussian(np.ones(4))), x[out])
        for row, h, c, w in zip(y[out], p.mean, p.epistemic, weight[out]):
            totals = [
                dense_total(change.shift[k], change.slope, heat, h[2 + k], (c[k, k], c[2 + k, 2 + k])) for k in (0, 1)
            ]
            expected.append(sum((np.log(2 * np.pi * t) + (row[k] - h[k]) ** 2 / t) / 2 for k, t in enumerate(totals)))
            counts.append(w)
    losses = np.array(expected) * counts / np.mean(counts)
    assert_residual(comparison_residual(held.losses, losses), "losses", "eq:held-out-log-variance")
    assert held.loss == held.losses.mean()


def test_noise_of_a_linear_table_needs_no_hidden_layers():
    """y = x + e^{x/2} ε, four inputs of which one counts: the network without hidden layers is the model, its
    log-variance linear in x too. Negative control: a curved table keeps them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4))
    y = x[:, :1] + np.exp(x[:, :1] / 2 - 1) * rng.standard_normal((200, 1))
    settings = Settings(max_iterations=200, trust_region=True)
    held = best_held_out(Trial(x, y, None, MLP((4, 30, 2)), Heteroscedastic(), 0, 0.2), settings)
    assert held.mlp is not None
    assert held.mlp.widths == (4, 2)
    curved = (y - x[:, :1]) / 2 + np.sin(2 * x[:, :1])
    held = best_held_out(Trial(x, curved, None, MLP((4, 30, 2)), Heteroscedastic(), 0, 0.2), settings)
    assert held.mlp is None


def wavy(rows, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4))
    mean = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2]
    return x, mean + 0.3 * np.exp(x[:, 3]) * rng.standard_normal(rows)


@pytest.mark.equation("eq:held-out-log-variance")
def test_intervals_of_new_rows_are_as_wide_as_their_errors():
    """The 90 % intervals of a fit to 300 rows hold more than 0.78 of 2 000 new rows. Over four tables it is 0.84 to
    0.91, with a deviation of 0.03 about 0.88: three of them, a false-fail rate below 10⁻³ were the seed not fixed.
    Negative control: without held-out rows it is less (0.68 to 0.73)."""
    x, y = wavy(2300, seed=0)
    coverage = {}
    for fraction in (0.0, 0.2):
        model = BALIRegressor((30,), noise="input-dependent", random_state=0, validation_fraction=fraction)
        mean, std = model.fit(x[:300], y[:300]).predict(x[300:], return_std=True)
        coverage[fraction] = interval_coverage(y[300:], mean, std)
    assert coverage[0.0] < 0.78 < coverage[0.2], coverage
