"""What rows held out of a fit decide: noise and temperature of a regression, settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from balinp import MLP, NUMPY, BALIRegressor, Gaussian, InvalidArgumentError, Settings
from balinp.heldout import (
    FEWEST_ROWS,
    REGRESSION,
    HeldOut,
    Trial,
    best_held_out,
    held_out_linear,
    held_out_noise,
    most_probable_noise,
)
from balinp.predictive import predict_linearized, predict_monte_carlo
from balinp.testing import assert_residual, comparison_residual, condition_number, random_network_problem, seeds
from balinp.testing.oracles import dense_normal, dense_predictive
from balinp.testing.residuals import THRESHOLD

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
COLDER = REGRESSION[0][0]
LAYERWISE = {"joint_iterations": 0, "warmup": 10, "rate": 0.3}  # fits that need what is tested more than others do


def objective(noise, heat, square, unit, weight):
    """−∑ w log N(r | 0, σ² + θ σ̄² u) + ½ (log θ)², up to a constant: row after row, output after output."""
    total, mean = np.log(heat) ** 2 / 2, np.exp(np.mean(np.log(noise)))
    for w, rs, us in zip(weight, square, unit):
        for k, (r, u) in enumerate(zip(rs, us)):
            v = noise[k % len(noise)] + heat * mean * u
            total += w * (r / v + np.log(v)) / 2
    return total


@pytest.mark.equation("eq:held-out-noise")
@pytest.mark.parametrize("shared", [False, True])
@given(seed=seeds())
def test_the_most_probable_noise_and_temperature_are_where_the_likelihood_is_largest(shared, seed):
    """No better point within a hundredth or a half of it in any direction, by sums over rows and outputs, but for what
    such a sum rounds by; negative control: with noise or temperature off by a tenth the sum is larger."""
    rng = np.random.default_rng(seed)
    unit, weight = rng.uniform(0.05, 2, (60, 2)), rng.uniform(0.5, 2, 60)
    square = (0.5 * (1 + 2 * unit)) * rng.standard_normal((60, 2)) ** 2
    noise, heat = most_probable_noise(square, unit, weight, 1e-4, shared)
    assert noise.shape == ((1,) if shared else (2,))
    best = objective(noise, heat, square, unit, weight)
    terms = float(np.sum(weight[:, None] * (1 + square / noise + np.abs(np.log(noise)))))
    rounding = THRESHOLD * square.size * np.finfo(float).eps * terms
    for size in (1e-2, 0.1, 0.5):
        for direction in rng.standard_normal((6, len(noise) + 1)):
            shift = np.exp(size * direction / np.linalg.norm(direction))
            moved = np.maximum(noise * shift[:-1], 1e-4), heat * shift[-1]
            other = objective(*moved, square, unit, weight)
            assert other >= best - rounding
            assert size == 1e-2 or other > best + rounding or np.any(moved[0] == 1e-4)


@pytest.mark.equation("eq:held-out-noise")
def test_the_most_probable_noise_in_closed_form():
    """Without variance the weighted mean square, per output or over all, and θ = 1; not below the floor."""
    square, weight = np.array([[1.0], [4.0], [9.0]]), np.array([1.0, 2.0, 1.0])
    nothing = np.zeros((3, 1))
    assert most_probable_noise(square, nothing, weight, 1e-4) == (pytest.approx([18 / 4], rel=1e-7), pytest.approx(1))
    assert most_probable_noise(square / 100, nothing, weight, 0.25)[0] == pytest.approx(0.25, rel=1e-7)
    both = np.hstack([square, 4 * square])
    noise, heat = most_probable_noise(both, np.zeros((3, 2)), weight, 1e-4)
    assert (noise, heat) == (pytest.approx([4.5, 18], rel=1e-7), pytest.approx(1))
    assert most_probable_noise(both, np.zeros((3, 2)), weight, 1e-4, True)[0] == pytest.approx([11.25], rel=1e-7)


@pytest.mark.equation("eq:held-out-noise")
def test_the_temperature_is_found_where_variances_differ():
    """Half the rows with u = 9, half with none, of which errors of variance 1 + θ u: θ = ¼ and 4 are told apart.

    With n = 2000 rows log θ has a deviation of about √(2/1000) · (1 + θu)/θu ≤ 0.07 beside the prior's shrinkage: five
    deviations, a false-fail rate below 10⁻⁵; negative control: the other θ is further off than that.
    """
    rng = np.random.default_rng(0)
    unit = np.where(np.arange(2000) % 2, 9.0, 0.0)[:, None]
    for true, other in ((0.25, 4.0), (4.0, 0.25)):
        square = (1 + true * unit) * rng.standard_normal((2000, 1)) ** 2
        noise, heat = most_probable_noise(square, unit, np.ones(2000), 1e-4)
        assert abs(np.log(noise[0])) < 5 * (2 / 1000) ** 0.5
        assert abs(np.log(heat / true)) < 0.35
        assert abs(np.log(heat / other)) > 1


@pytest.fixture(scope="module")
def hidden():
    """Eighty rows with noise of deviation ½ and five inputs: few for the forty hidden units that fit them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 5))
    return X, np.sin(X[:, 0]) + X[:, 1] / 2 + 0.5 * rng.standard_normal(80)


@pytest.mark.equation("eq:held-out-noise")
def test_held_out_rows_give_the_noise_that_training_hides():
    """Seeded, on a fit made to follow its rows: σ² within a factor 1.6 of the true ¼, and squared errors on fresh rows
    v + σ² in the mean, to three tenths. Negative control: by what training learns they are half as much again, and σ²
    is below 0.2.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1200, 3))
    y = np.sin(X[:, 0]) + X[:, 1] / 2 + 0.5 * rng.standard_normal(1200)
    follow = {"max_temperature": 0.02, "evidence": False, "prior_precision": 0.12, **LAYERWISE}
    found, errors = [], []
    for share in (0.2, 0.0):
        model = BALIRegressor(validation_fraction=share, relevance=False, random_state=0, settings=follow)
        mean, deviation = model.set_params(max_iterations=200).fit(X[:200], y[:200]).predict(X[200:], return_std=True)
        found.append(float(model.noise_variance_[0]))
        errors.append(float(np.mean((y[200:] - mean) ** 2 / deviation**2)))
    assert 0.25 / 1.6 < found[0] < 0.25 * 1.6, found
    assert found[1] < 0.2, found
    assert 0.7 < errors[0] < 1.3, errors
    assert errors[1] > 1.5, errors


@pytest.mark.equation("eq:held-out-noise")
def test_a_weight_of_two_is_a_row_twice(hidden):
    """For a linear network, which draws nothing in training; to the search's 10⁻⁵ in log σ²."""
    X, y = hidden[0], hidden[1][:, None]
    twice = np.arange(len(X)) % 3 == 0
    mlp, start, settings = MLP((5, 1)), Gaussian(np.ones(1)), Settings(max_iterations=30)
    rows = np.concatenate([X, X[twice]]), np.concatenate([y, y[twice]])
    repeated = held_out_noise(Trial(*rows, None, mlp, start, 0, 0.2), settings).likelihood
    weighted, plain = (
        held_out_noise(Trial(X, y, w, mlp, start, 0, 0.2), settings).likelihood for w in (1.0 + twice, None)
    )
    assert weighted.noise_variance == pytest.approx(repeated.noise_variance, rel=1e-7)
    assert abs(plain.noise_variance - repeated.noise_variance) > 1e-3 * repeated.noise_variance  # negative control
    assert weighted.noise_variance.dtype == np.float64


def waves(n):
    """A curve with bends, which high temperature flattens, on two intervals: rows of the README's toy."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0, 0.35, n // 2), rng.uniform(0.65, 1, n // 2)])
    return x[:, None], x + 0.3 * np.sin(2 * np.pi * x) + 0.3 * np.sin(4 * np.pi * x) + 0.05 * rng.standard_normal(n)


@pytest.mark.equation("eq:held-out-choice")
def test_the_choice_is_the_variant_with_the_smallest_loss_on_held_out_rows():
    """Each in turn: a curve that only the second variant follows, bends for the first, lines without hidden layers."""
    rng = np.random.default_rng(1)
    many, noise = rng.standard_normal((150, 40)), rng.standard_normal(150)
    lines, bends = many[:, :8].sum(axis=1) + 3 * noise, 3 * np.abs(many[:, 0]) + many[:, 1] + 0.5 * noise
    for (X, y), best in ((waves(100), 1), ((many[:, :8], bends), 0), ((many, lines), 2)):
        x, t = (X - X.mean(axis=0)) / X.std(axis=0), ((y - y.mean()) / y.std())[:, None]
        mlp, start, settings = MLP((x.shape[1], 20, 1)), Gaussian(np.ones(1)), Settings(max_iterations=200)
        trial = Trial(x, t, None, mlp, start, 3, 0.2)
        each = [held_out_noise(trial, replace(settings, **changes)) for changes in ({}, COLDER)]
        each.append(held_out_linear(trial, settings))
        found = best_held_out(trial, settings)
        assert int(np.argmin([held.loss for held in each])) == best, each
        assert found.settings == replace(settings, **({}, COLDER, {})[best])
        assert (found.loss, found.likelihood, found.mlp) == (each[best].loss, found.likelihood, each[best].mlp)
        assert (found.likelihood is None) == (best == 2)
        assert best == 2 or found.likelihood.noise_variance == each[best].likelihood.noise_variance
        assert found.temperature == each[best].temperature
        fixed = best_held_out(trial, settings, set(COLDER))
        assert fixed.settings == settings
        gains = each[0].losses - each[2].losses
        assert fixed.loss == each[2 * (gains.mean() > gains.std() / len(gains) ** 0.5)].loss
        assert each[2].mlp.widths == (x.shape[1], 1)
        assert each[0].mlp is None


@pytest.mark.equation("eq:held-out-choice")
def test_the_loss_of_a_network_without_hidden_layers_is_that_of_the_exact_regression():
    """−log N(t | xᵀM, σ² + the predictive's variance) of rows that two fits lacked, densely; two outputs, weights."""
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((60, 3)), rng.uniform(0.5, 2, 60)
    y = x @ rng.standard_normal((3, 2)) + rng.standard_normal((60, 2)) * [0.3, 1.0]
    trial = Trial(x, y, w, MLP((3, 7, 2)), Gaussian(np.ones(2)), 5, 0.2)
    settings = Settings(joint_iterations=9, trust_region=True, max_iterations=80)
    found = held_out_linear(trial, settings)
    losses, weights = [], []
    for out, state, _ in replace(trial, mlp=found.mlp, predictive="linearized").results(found.settings):
        (layer,), noise = state.layers, state.likelihood.noise_variance
        a = np.column_stack([x[out], np.ones(out.sum())])
        q = layer.posterior
        dense = dense_normal(q.mean, q.row_precision, q.column_covariance)
        each = [dense_predictive(dense, row, 2) for row in a]
        mean, variance = np.array([m for m, _ in each]), np.array([np.diag(c) for _, c in each]) + noise
        losses.append(-scipy.stats.norm.logpdf(y[out], mean, np.sqrt(variance)).sum(axis=1) * w[out])
        weights.append(w[out])
    size = condition_number(q.row_precision)
    expected = np.concatenate(losses) / np.concatenate(weights).mean()
    assert_residual(comparison_residual(found.losses, expected, condition=size), "losses", "eq:held-out-choice")
    assert (found.settings.joint_iterations, found.settings.trust_region) == (0, False)


@pytest.mark.equation("eq:held-out-choice")
def test_the_loss_is_the_mean_negative_log_density_of_held_out_rows():
    """A straight line has v ≈ 0: the loss is that of the residuals' own mean square, ½ log 2πeσ², to v/σ²."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 1))
    y = x + 0.5 * rng.standard_normal((400, 1))
    held = held_out_noise(Trial(x, y, None, MLP((1, 1)), Gaussian(np.ones(1)), 0, 0.5), Settings(max_iterations=60))
    entropy = np.log(2 * np.pi * np.e * held.likelihood.noise_variance[0]) / 2
    assert abs(held.loss - entropy) < 4 / 200, (held.loss, entropy)  # v/σ² = D/N of the 200 rows of a fold


@pytest.mark.equation("eq:held-out-noise")
@pytest.mark.parametrize("kind", ["monte_carlo", "linearized"])
def test_predictions_are_at_the_temperature_that_held_out_rows_chose(hidden, kind):
    """Epistemic covariance θ σ̄²/s̄² of the posterior's own, the mean as it was, a normal density, draws of y as wide.

    Their variance over 4000 draws has a relative deviation of √(2/4000): five of it, a false-fail rate below 10⁻⁴ for
    80 rows; negative control: without the temperature it is off by more than four times that.
    """
    X, y = hidden
    model = BALIRegressor((20,), predictive=kind, max_iterations=120, random_state=0, draws=4000).fit(X, y)
    state = model.state_
    plain = replace(state, predictive_temperature=None)
    ratio = state.predictive_temperature / state.temperature
    assert abs(np.log(ratio)) > 0.5
    x = model.x_scaler_.transform(X, np.float64)
    for predict in (predict_linearized, lambda s, rows: predict_monte_carlo(s, rows, np.random.default_rng(0), 50)):
        p, q = predict(state, x), predict(plain, x)
        size = condition_number(state.posteriors[0].row_precision)
        assert_residual(comparison_residual(p.mean, q.mean, condition=size), "mean", "eq:held-out-noise")
        again = comparison_residual(p.epistemic, ratio * q.epistemic, condition=size)
        assert_residual(again, "epistemic covariance", "eq:held-out-noise")
        total = q.aleatoric + ratio * q.epistemic
        t = (y[:, None] - model.y_scaler_.offset) / model.y_scaler_.scale
        each = scipy.stats.norm.logpdf(t[:, 0], q.mean[:, 0], np.sqrt(total[:, 0, 0]))
        assert_residual(
            comparison_residual(p.log_density(t, NUMPY), each, condition=size), "density", "eq:held-out-noise"
        )
    drawn = model.sample_y(X, 4000).var(axis=1)
    wanted = model.predict_distribution(X)
    if kind == "monte_carlo":
        width = wanted.covariance[:, 0, 0]
        assert np.max(np.abs(drawn / width - 1)) < 5 * (2 / 4000) ** 0.5
        without = wanted.aleatoric[:, 0, 0] + wanted.epistemic[:, 0, 0] / ratio
        assert np.max(np.abs(drawn / without - 1)) > 20 * (2 / 4000) ** 0.5


@pytest.mark.equation("eq:held-out-noise")
def test_the_temperature_is_relative_to_the_noise_that_is_predicted():
    """A state of training noise s² predicts with θ σ²/s² of its covariance: that of noise σ² at temperature θ."""
    state = random_network_problem(0, 20, (2, 3, 2)).state(Settings())
    state = replace(state, likelihood=Gaussian(np.array([0.5, 2.0])), temperature=0.1)
    held = HeldOut(Settings(), 0.0, np.zeros(1), Gaussian(np.array([4.0, 9.0])), 1.5)
    assert held.applied(state).predictive_temperature == pytest.approx(1.5 * 6.0 / 1.0, rel=1e-12)
    assert held.applied(state).likelihood is held.likelihood
    assert held.applied(replace(state, temperature=0.0)).predictive_temperature == 0


def test_the_estimator_takes_the_settings_that_held_out_rows_chose():
    X, y = waves(100)
    quick = {"max_iterations": 200, "random_state": 0}
    errors = []
    for share in (0.2, 0.0):
        model = BALIRegressor(validation_fraction=share, settings=LAYERWISE, **quick).fit(X, y)
        errors.append(np.sqrt(np.mean((model.predict(X) - y) ** 2)))
    assert errors[0] < 0.1, errors  # noise 0.05
    assert errors[1] > 0.15, errors  # negative control: the bends are lost
    hot = {"max_temperature": 0.15, "prior_precision": 0.1}
    kept = BALIRegressor(validation_fraction=0.2, settings={**LAYERWISE, **hot}, **quick)
    assert np.sqrt(np.mean((kept.fit(X, y).predict(X) - y) ** 2)) > 0.15


@pytest.mark.equation("eq:held-out-joint")
@pytest.mark.parametrize("kind", ["monte_carlo", "linearized", "joint"])
def test_a_fit_gone_astray_says_so_in_its_deviations(hidden, monkeypatch, kind):
    """Held-out rows that promise too little noise (by hand): squared errors on the fit's own rows are not above what
    the deviations say, to a tenth. Negative control: the promise alone, three times and more."""
    X, y = hidden
    promised = Gaussian(np.full(1, 0.02))

    def best(trial, settings, chosen):
        joint = promised if kind == "joint" else None
        return HeldOut(settings, 0.0, np.zeros(1), promised, 1e-3, posterior_noise=joint)

    monkeypatch.setattr("balinp.base.best_held_out", best)
    model = BALIRegressor((4,), predictive=kind, max_iterations=4, relevance=False, random_state=0).fit(X, y)
    mean, deviation = model.predict(X, return_std=True)
    assert np.mean((y - mean) ** 2) < 1.1 * np.mean(deviation**2)
    assert np.mean((y - mean) ** 2) > 3 * 0.02 * y.var()


@pytest.mark.equation("eq:held-out-noise")
def test_noise_is_held_out_only_where_it_helps(hidden):
    """Few rows, no hidden layer, a literal preset, known noise, or a share of 0: what training learnt stays. Negative
    control: with a row more, or with the others and none of this, it does not."""
    X, y = hidden
    for rows, changes, same in (
        (FEWEST_ROWS - 1, {}, True),
        (FEWEST_ROWS, {}, False),
        (80, {}, False),
        (80, {"hidden_widths": ()}, True),
        (80, {"settings": {"learn_noise": False}}, True),
        (80, {"preset": "literal"}, True),
        (80, {"preset": "literal", "settings": {"learn_noise": True}}, True),
    ):
        models = [
            BALIRegressor(**{"hidden_widths": (8,), "max_iterations": 20, "random_state": 0, **changes, **more})
            for more in ({}, {"validation_fraction": 0.0})
        ]
        held, without = (m.fit(X[:rows], y[:rows]).noise_variance_ for m in models)
        assert np.array_equal(held, without) == same, (rows, changes)


@pytest.mark.parametrize("bad", [-0.1, 0.6, 1, True, "0.2", None, float("nan"), np.array([0.1, 0.2])])
def test_a_bad_validation_fraction_is_refused(hidden, bad):
    with pytest.raises(InvalidArgumentError, match=r"validation_fraction must be a number from 0 to 0\.5, got"):
        BALIRegressor(validation_fraction=bad).fit(*hidden)
