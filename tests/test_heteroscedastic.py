"""The heteroscedastic Gaussian: density, complex steps, Fisher information by quadrature, probes, the estimator."""

import itertools

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
from balinp.testing.gradients import complex_step_jacobian
from balinp.testing.residuals import THRESHOLD, assert_residual

EPS = np.finfo(float).eps
pytestmark = [pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning"), pytest.mark.usefixtures("on_backend")]
LIMITS = {"far": (1e-12, 1e12), "default": (1e-4, 100.0), "narrow": (0.3, 2.0)}


def case(name="default", k=3, n=7, scale=2.0):
    generator = np.random.default_rng(0)
    h = scale * generator.standard_normal((n, 2 * k))
    return Heteroscedastic(*LIMITS[name]), h, generator.standard_normal((n, k))


def hessian(likelihood, h, y):
    """∂²ℓ/∂h² of one row (2K, 2K), by complex steps through the gradient."""
    return complex_step_jacobian(lambda v: likelihood.gradient(v[None], y[None])[0], h)


@pytest.mark.equation("eq:heteroscedastic-loss")
@pytest.mark.parametrize("name", LIMITS)
def test_loss_is_the_negative_log_density(name):
    likelihood, h, y = case(name)
    m, rho = likelihood.split(h)
    floor, ceiling = LIMITS[name]
    deviation = np.sqrt(floor + 1 / (np.exp(-rho) + 1 / ceiling))
    expected = -scipy.stats.norm.logpdf(y, m, deviation).sum(axis=1)
    ratio = np.max(np.abs(likelihood.loss(h, y) - expected) / (EPS * 6 * (np.abs(expected) + 1)))
    assert_residual(ratio, f"heteroscedastic loss, limits {name}", "eq:heteroscedastic-loss")
    if name == "far":
        assert np.allclose(np.log(likelihood.variance(rho)), rho, rtol=0, atol=1e-8)


@pytest.mark.equation("eq:heteroscedastic-gradient")
@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_gradient_by_complex_step(name, scale):
    likelihood, h, y = case(name, scale=scale)
    rows = np.arange(len(h))
    expected = complex_step_jacobian(lambda v: likelihood.loss(v, y), h)[rows, rows]
    gradient = likelihood.gradient(h, y)
    assert np.max(np.abs(gradient - expected) / (np.abs(expected) + 1)) <= 1e-12


@pytest.mark.equation("eq:heteroscedastic-curvature")
@pytest.mark.parametrize("name", LIMITS)
def test_curvature_is_the_expected_hessian(name):
    """E over y of the Hessian by Gauss–Hermite quadrature, exact for a polynomial in y of degree 2 per target."""
    likelihood, h, _ = case(name, k=2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    curvature = likelihood.curvature(h)
    for row, fisher in zip(h, curvature):
        m, rho = likelihood.split(row)
        s = np.sqrt(likelihood.variance(rho))
        expected = sum(
            weights[i] * weights[j] * hessian(likelihood, row, m + s * nodes[[i, j]])
            for i, j in itertools.product(range(4), repeat=2)
        )
        assert np.max(np.abs(fisher - expected)) <= 1e-12 * max(1.0, np.max(np.abs(expected)))
        g = sum(  # the other form of the Fisher information: the expected outer product of the gradient
            weights[i] * weights[j] * np.outer(score, score)
            for i, j in itertools.product(range(4), repeat=2)
            for score in likelihood.gradient(row[None], (m + s * nodes[[i, j]])[None])
        )
        assert np.max(np.abs(fisher - g)) <= 1e-12 * max(1.0, np.max(np.abs(expected)))
    assert np.all(np.linalg.eigvalsh(curvature) >= 0)


@pytest.mark.equation("eq:heteroscedastic-curvature")
def test_curvature_is_a_bound_in_the_mean_and_in_small_residuals_only():
    """The claims of the docstring: exact in m, ½ ≥ ½ q in ρ while q ≤ 1, short of it beyond, the Hessian indefinite."""
    likelihood = Heteroscedastic(*LIMITS["far"])
    h = np.array([0.3, -1.0])
    s = np.exp(-0.5)
    bound = likelihood.curvature(h[None])[0]
    for residual in (0.5, 1.0, 3.0):
        H = hessian(likelihood, h, np.array([0.3 + residual * s]))
        assert abs(H[0, 0] - bound[0, 0]) <= 1e-9 * bound[0, 0]
        assert abs(H[1, 1] - residual**2 / 2) <= 1e-9 * H[1, 1]
        assert (bound[1, 1] >= H[1, 1] - 1e-9) == (residual <= 1)
        assert np.linalg.det(H) < 0
        assert np.linalg.eigvalsh(bound - H).min() < 0


@pytest.mark.equation("eq:heteroscedastic-rows")
@pytest.mark.parametrize("reference", [1.0, np.array([0.1, 1.0, 30.0])])
def test_row_weights_bound_every_row(reference):
    """ω diag(c, ½) dominates a row's Fisher information and the diagonal of its Hessian, and nothing smaller does."""
    likelihood = Heteroscedastic(*LIMITS["far"], reference)
    _, h, y = case(n=100)
    omega = likelihood.row_weights(h, y)
    c = np.broadcast_to(likelihood.reference_precision, (3,))
    for row, target, weight, fisher in zip(h, y, omega, likelihood.curvature(h)):
        bound = weight * np.concatenate([c, np.full(3, 0.5)])
        needs = np.maximum(np.diag(fisher), np.diag(hessian(likelihood, row, target)))
        assert np.all(bound >= needs * (1 - 1e-8))
        assert weight == 1 or np.min(bound / needs) < 1 + 1e-8
    referred = likelihood.referred_to(likelihood.curvature(h).mean(axis=0))
    assert np.allclose(referred.reference_precision, np.mean(1 / likelihood.variance(h[:, 3:]), axis=0))


@pytest.mark.equation("eq:heteroscedastic-probe")
@pytest.mark.parametrize("name", LIMITS)
def test_probe_covariance_over_all_signs(name):
    likelihood, h, _ = case(name, k=2, n=1)
    noise = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    rows = np.broadcast_to(h, noise.shape)
    curvature = likelihood.curvature(h)[0]

    def ratio(noise):
        z = likelihood.probe(rows, noise)
        return np.max(np.abs(z.T @ z / len(z) - curvature)) / (EPS * 4 * np.max(curvature))

    assert_residual(ratio(noise), f"heteroscedastic probe, limits {name}", "eq:heteroscedastic-probe")
    assert ratio(1.01 * noise) > THRESHOLD  # negative control
    assert ratio(np.abs(noise)) > THRESHOLD


@pytest.mark.equation("eq:heteroscedastic-aleatoric")
def test_aleatoric_is_the_log_normal_mean():
    likelihood = Heteroscedastic(*LIMITS["far"])
    h, v = np.array([[0.0, 0.0, -1.0, 2.0]]), np.array([[0.5, 2.0]])
    covariance = likelihood.aleatoric(h, v)
    assert np.allclose(covariance[0], np.diag(np.exp([-0.75, 3.0])), rtol=1e-9)
    draws = h[0, 2:] + np.sqrt(v[0]) * np.random.default_rng(0).standard_normal((200_000, 2))
    assert np.allclose(likelihood.variance(draws).mean(axis=0), np.diag(covariance[0]), rtol=0.03)
    narrow = Heteroscedastic(*LIMITS["narrow"])  # with the ceiling near it is an upper bound
    assert np.all(np.diag(narrow.aleatoric(h, v)[0]) >= narrow.variance(draws).mean(axis=0))


def test_extreme_log_variances_stay_between_the_limits():
    likelihood = Heteroscedastic()
    h = np.array([[0.0, -1e300], [0.0, -745.0], [0.0, 745.0], [0.0, 1e300]])
    y = np.ones((4, 1))
    for value in (likelihood.loss(h, y), likelihood.gradient(h, y), likelihood.curvature(h)):
        assert np.all(np.isfinite(value))
    assert np.allclose(likelihood.variance(h[:, 1:]).ravel(), [1e-4, 1e-4, 100, 100], rtol=1e-5)


@pytest.mark.parametrize("limits", [(0, 1), (-1.0, 1.0), (1.0, 1.0), (1e-4, np.inf), (np.nan, 1.0), (1e-4, np.nan)])
def test_bad_limits_are_refused(limits):
    with pytest.raises(InvalidArgumentError, match="floor and ceiling"):
        Heteroscedastic(*limits)


@pytest.mark.parametrize("reference", [0.0, -1.0, np.nan, np.inf, [1.0, 0.0]])
def test_bad_reference_precision_is_refused(reference):
    with pytest.raises(InvalidArgumentError, match="reference_precision"):
        Heteroscedastic(reference_precision=reference)


def test_float32_stays_float32():
    likelihood, h, y = case()
    h, y = h.astype("float32"), y.astype("float32")
    results = likelihood.loss(h, y), likelihood.gradient(h, y), likelihood.probe(h, h), likelihood.curvature(h)
    assert {r.dtype for r in (*results, likelihood.aleatoric(h), likelihood.row_weights(h, y))} == {np.dtype("float32")}


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
    """Monte Carlo is the mixture over draws of both parts; on data like the training's linearising agrees."""
    x, y, _ = noisy(300, seed=2)
    state, scaler, y_scaler = fitted.state_, fitted.x_scaler_, fitted.y_scaler_
    z, t = scaler.transform(x, np.float64), y_scaler.transform(y[:, None], np.float64)
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


def test_rows_of_very_little_noise_do_not_diverge():
    """The case that did without row weights: three decades of deviations, mini-batches and full batch."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-2, 2, (150, 2))
    y = np.sin(2 * x[:, 0]) + np.exp(1.7 * x[:, 1] - 2.5) * generator.standard_normal(150)
    for seed, size in itertools.product(range(3), (None, 32)):
        options = {"batch_size": size, "max_iterations": 200, "settings": {"tolerance": 0}}
        model = BALIRegressor(noise="input-dependent", random_state=seed, **options).fit(x, y)
        assert max(record.train_nll for record in model.history_[20:]) < 3
        assert size is not None or model.history_[-1].train_nll < 0.5


def test_shapes_and_units_for_two_targets(tmp_path):
    x, y, _ = noisy(150, outputs=2)
    scale = np.array([10.0, 0.01])
    settings = {"max_iterations": 30, "random_state": 0, "noise": "input-dependent"}
    model = BALIRegressor((10,), **settings).fit(x, y, test=(x, y))
    scaled = BALIRegressor((10,), **settings).fit(x, y * scale + 3)
    p, q = model.predict_distribution(x), scaled.predict_distribution(x)
    assert model.predict(x).shape == (150, 2)
    assert p.aleatoric.shape == p.epistemic.shape == (150, 2, 2)
    assert model.predict(x, return_std=True)[1].shape == (150, 2)
    assert np.allclose(q.mean, p.mean * scale + 3, rtol=1e-6)
    assert np.allclose(q.covariance, p.covariance * np.outer(scale, scale), rtol=1e-6)
    shift = np.log(scale).sum()
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
    with pytest.raises(ModelFileError):
        BALIRegressor.load(path)


def fitted_copy(model, path):
    model.save(path)
    return BALIRegressor.load(path)


def test_streams_weights_and_batches():
    x, y, _ = noisy(200)
    model = BALIRegressor((10,), noise="input-dependent", random_state=0)
    for rows in np.array_split(np.arange(200), 5):
        model.partial_fit(x[rows], y[rows])
    assert np.all(np.isfinite(model.predict(x)))
    settings = {"noise": "input-dependent", "random_state": 0, "max_iterations": 20}
    counted = BALIRegressor((10,), **settings).fit(np.repeat(x, 2, axis=0), np.repeat(y, 2))
    weighted = BALIRegressor((10,), **settings, settings={"gradients": "mean", "warmup": 20}).fit(
        x, y, np.full(200, 2.0)
    )
    assert counted.n_rows_seen_ == weighted.n_rows_seen_ == 400
    batches = BALIRegressor((10,), batch_size=32, **settings).fit(x, y)
    assert np.all(np.isfinite(batches.predict(x)))


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
