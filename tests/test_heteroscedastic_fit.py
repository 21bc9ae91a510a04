"""BALIRegressor(noise="input-dependent"): fits, units, files, streams. The likelihood: test_heteroscedastic.py."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from balinp import (
    MLP,
    NUMPY,
    BALIRegressor,
    Heteroscedastic,
    InvalidArgumentError,
    ModelFileError,
    Settings,
    fit,
    initial_state,
    predict_linearized,
    predict_monte_carlo,
)
from balinp.metrics import interval_coverage

EPS = np.finfo(float).eps
pytestmark = [pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning"), pytest.mark.usefixtures("on_backend")]


def noisy(n=400, seed=0, outputs=1):
    """y = sin 2x + s(x) ε with a deviation s(x) = 0.03 … 1.1 that grows with x; inputs, targets, s."""
    generator = np.random.default_rng(seed)
    x = generator.uniform(-2, 2, (n, 1))
    s = np.exp(0.9 * x[:, 0] - 1.7)
    y = np.sin(2 * x) + s[:, None] * generator.standard_normal((n, outputs))
    return x, y if outputs > 1 else y[:, 0], s


@pytest.fixture(scope="module")
def fitted():
    x, y, _ = noisy()
    return BALIRegressor(noise="input-dependent", random_state=0, max_iterations=300, settings={"tolerance": 0}).fit(
        x, y
    )


def test_it_beats_constant_noise_where_the_noise_depends_on_the_input(fitted):
    x, y, _ = noisy()
    x_test, y_test, s = noisy(2000, seed=1)
    constant = BALIRegressor(random_state=0, max_iterations=300, settings={"tolerance": 0}).fit(x, y)
    nll = {}
    for name, model in {"constant": constant, "input-dependent": fitted}.items():
        nll[name] = -model.predict_distribution(x_test).log_density(y_test[:, None], NUMPY).mean()
    truth = -scipy.stats.norm.logpdf(y_test, np.sin(2 * x_test[:, 0]), s).mean()
    assert nll["input-dependent"] < nll["constant"] - 0.3
    assert nll["input-dependent"] < truth + 0.15
    p = fitted.predict_distribution(x_test)
    error = np.log(p.aleatoric[:, 0, 0]) / 2 - np.log(s)
    assert np.sqrt(np.mean(error**2)) < 0.35  # of a log-deviation that ranges over 3.6
    for part in (x_test[:, 0] < 0, x_test[:, 0] > 0):
        std = np.sqrt(p.covariance[part, 0, 0])
        assert 0.83 < interval_coverage(y_test[part], p.mean[part, 0], std) < 0.97


@pytest.mark.equation("eq:monte-carlo-predictive")
@pytest.mark.equation("eq:linearized-predictive")
def test_the_two_predictives(fitted):
    """Monte Carlo is the mixture over draws of both parts; on data like the training's linearising agrees. At the
    temperature that held-out rows chose the density is the normal one of the two moments (eq:held-out-log-variance)."""
    x, y, _ = noisy(300, seed=2)
    state, scaler, y_scaler = fitted.state_, fitted.x_scaler_, fitted.y_scaler_
    z, t = scaler.transform(x, np.float64), y_scaler.transform(y[:, None], np.float64)
    judged = predict_monte_carlo(state, z, np.random.default_rng(0), 50)
    normal = scipy.stats.norm.logpdf(t[:, 0], judged.mean[:, 0], np.sqrt(judged.covariance[:, 0, 0]))
    assert np.allclose(judged.log_density(t, NUMPY), normal, rtol=1e-12, atol=1e-12)
    state = replace(state, predictive_temperature=None)
    monte_carlo = predict_monte_carlo(state, z, np.random.default_rng(0), 50, block_rows=64)
    linearized = predict_linearized(state, z, block_rows=64)
    assert monte_carlo.mean.shape == linearized.mean.shape == (300, 1)
    assert monte_carlo.draws.shape == monte_carlo.draw_variances.shape == (50, 300, 1)
    assert linearized.epistemic_by_layer.shape == (2, 300, 1, 1)
    assert np.allclose(linearized.epistemic_by_layer.sum(axis=0), linearized.epistemic)
    each = scipy.stats.norm.logpdf(t, monte_carlo.draws, np.sqrt(monte_carlo.draw_variances))[..., 0]
    expected = scipy.special.logsumexp(each, axis=0) - np.log(50)
    assert np.allclose(monte_carlo.log_density(t, NUMPY), expected, rtol=1e-12, atol=1e-12)
    assert np.allclose(monte_carlo.aleatoric[:, 0, 0], monte_carlo.draw_variances.mean(axis=0)[:, 0])
    assert np.allclose(monte_carlo.epistemic[:, 0, 0], monte_carlo.draws.var(axis=0)[:, 0])
    assert abs(monte_carlo.log_density(t, NUMPY).mean() - linearized.log_density(t, NUMPY).mean()) < 0.05
    whole = predict_monte_carlo(state, z, np.random.default_rng(0), 50)
    assert np.allclose(whole.draw_variances, monte_carlo.draw_variances)


@pytest.mark.equation("eq:heteroscedastic-rows")
@pytest.mark.numpy_only("whether it diverges hangs on NumPy's draws")
def test_rows_of_very_little_noise_do_not_diverge(monkeypatch):
    """Three decades of deviations. Negative control: without row weights, to 1e56 nats."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 2, (150, 2))
    y = np.sin(2 * x[:, 0]) + np.exp(1.7 * x[:, 1] - 2.5) * generator.standard_normal(150)

    def train_nll(**chosen):
        options = {"batch_size": None, "max_iterations": 100, "settings": {"tolerance": 0, **chosen}}
        model = BALIRegressor(noise="input-dependent", random_state=0, validation_fraction=0, **options).fit(x, y)
        return [record.train_nll for record in model.history_[20:]]

    layerwise = {"joint_iterations": 0, "trust_region": False}
    found = train_nll(), train_nll(**layerwise)
    assert max(map(max, found)) < 3
    assert max(nll[-1] for nll in found) < 1
    monkeypatch.setattr(Heteroscedastic, "row_weights", lambda self, h, y: np.ones(len(h)))
    assert train_nll(**layerwise)[-1] > 1000


@pytest.mark.parametrize("fraction", [0.2, 0.0])
def test_shapes_and_units_for_two_targets(fraction):
    """With rows held out the density is the normal one, without it is that of the draws: the units of both."""
    x, y, _ = noisy(150, outputs=2)
    scale = np.array([10.0, 0.01])
    settings = {"max_iterations": 30, "random_state": 0, "noise": "input-dependent", "validation_fraction": fraction}
    model = BALIRegressor((10,), **settings).fit(x, y, test=(x, y))
    scaled = BALIRegressor((10,), **settings).fit(x, y * scale + 3)
    p, q = model.predict_distribution(x), scaled.predict_distribution(x)
    assert model.predict(x).shape == (150, 2)
    assert p.aleatoric.shape == p.epistemic.shape == (150, 2, 2)
    assert model.predict(x, return_std=True)[1].shape == (150, 2)
    assert np.allclose(q.mean, p.mean * scale + 3, rtol=1e-6)
    assert np.allclose(q.covariance, p.covariance * np.outer(scale, scale), rtol=1e-6)
    shift = np.log(scale).sum()
    assert p.normal == q.normal == (fraction > 0)
    densities = p.log_density(y, NUMPY), q.log_density(y * scale + 3, NUMPY)
    assert np.allclose(densities[0], densities[1] + shift, atol=1e-6)
    assert np.allclose(scaled.history_[-1].train_nll, model.history_[-1].train_nll + shift)
    assert model.history_[-1].noise_variance == ()
    assert np.isfinite(model.history_[-1].test_nll)
    assert model.sample_y(x, 5).shape == (150, 2, 5)
    assert model.score(x, y) > 0
    with pytest.raises(InvalidArgumentError, match="aleatoric"):
        _ = model.noise_variance_
    model.predictive = "linearized"
    assert model.predict_distribution(x).covariance.shape == (150, 2, 2)


def test_samples_have_the_predicted_noise(fitted):
    x = np.array([[-1.5], [1.5]])
    draws = fitted.sample_y(x, 4000)
    assert draws.shape == (2, 4000)
    expected = np.sqrt(fitted.predict_distribution(x).covariance[:, 0, 0])
    assert np.allclose(draws.std(axis=1), expected, rtol=0.15)


@pytest.mark.numpy_only("a file keeps no memory layout, so other sums round otherwise; see test_estimators_backend.py")
def test_saved_models_come_back(fitted, tmp_path):
    path = tmp_path / "model.npz"
    fitted.save(path)
    loaded = BALIRegressor.load(path)
    x = np.linspace(-3, 3, 20)[:, None]
    assert loaded.state_.likelihood == fitted.state_.likelihood
    np.testing.assert_array_equal(loaded.predict_distribution(x).covariance, fitted.predict_distribution(x).covariance)
    np.testing.assert_array_equal(loaded.sample_y(x, 3), fitted.sample_y(x, 3))
    x, y, _ = noisy(50)
    np.testing.assert_array_equal(
        loaded.partial_fit(x, y).predict(x), fitted_copy(fitted, path).partial_fit(x, y).predict(x)
    )
    fitted.noise, old = "constant", fitted.noise
    try:
        fitted.save(path)
    finally:
        fitted.noise = old
    with pytest.raises(ModelFileError, match="scale of the outputs"):
        BALIRegressor.load(path)


def fitted_copy(model, path):
    model.save(path)
    return BALIRegressor.load(path)


def test_streams_weights_and_batches():
    """A stream and mini-batches learn the curve: R² on new rows is above 0.6 (0.8 is the most that the noise leaves).
    Rows of weight nine beside such of weight one, with targets of the other sign, pull the mean to their side.
    Negative control: rows of like weights do not."""
    x, y, _ = noisy(200)
    x_test, y_test, _ = noisy(1000, seed=1)
    options = {"noise": "input-dependent", "random_state": 0}
    stream = BALIRegressor((10,), **options)
    for _ in range(12):
        for rows in np.array_split(np.arange(200), 5):
            stream.partial_fit(x[rows], y[rows])
    batches = BALIRegressor((10,), batch_size=32, max_iterations=100, **options).fit(x, y)
    found = [model.score(x_test, y_test) for model in (stream, batches)]
    assert min(found) > 0.6, found
    both, signs = np.concatenate([x, x]), np.concatenate([y + 2, -y - 2])
    pulled = []
    for weight in (9.0, 1.0):
        model = BALIRegressor((10,), max_iterations=40, **options)
        model.fit(both, signs, np.repeat([weight, 1.0], 200))
        assert model.n_rows_seen_ == 200 * (weight + 1)
        pulled.append(float(np.mean(model.predict(x))))
    assert pulled[0] > 1 > 0.5 > abs(pulled[1]), pulled


@pytest.mark.numpy_only("refused before the core is called")
@pytest.mark.parametrize("change", [{"noise": "sometimes"}, {"noise": "input-dependent", "shared_noise": True}])
def test_bad_options_are_refused(change):
    with pytest.raises(InvalidArgumentError, match="noise"):
        BALIRegressor(**change).fit(np.zeros((5, 1)), np.arange(5.0))


def test_targets_must_fit_the_outputs():
    mlp, x = MLP((1, 4)), np.zeros((5, 1))
    with pytest.raises(InvalidArgumentError, match=r"\(5, 2\)"):
        fit(x, np.zeros((5, 4)), mlp, Heteroscedastic(), np.random.default_rng(0))


def test_an_iteration_descends_with_a_trust_region():
    """From a start with variances a hundred times too small, where the plain natural step overshoots."""
    x, y, _ = noisy(100)
    mlp = MLP((1, 20, 2))
    settings = Settings(trust_region=True, gradients="mean", warmup=100, evidence=False, max_iterations=60)
    state = initial_state(mlp, Heteroscedastic(), np.random.default_rng(0), settings)
    state.layers[-1].posterior.mean[-1, 1] = -5.0
    history = fit(x, y[:, None], mlp, state.likelihood, np.random.default_rng(0), settings, state=state).history
    losses = [record.train_nll for record in history]
    assert all(b <= a + 1e-9 * abs(a) for a, b in itertools.pairwise(losses[1:]))
    assert losses[-1] < 0.7
