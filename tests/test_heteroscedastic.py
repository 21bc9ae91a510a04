"""The heteroscedastic Gaussian: density, complex steps, Fisher information by quadrature, probes."""

import itertools

import numpy as np
import pytest
import scipy.stats

from balinp import (
    Heteroscedastic,
    InvalidArgumentError,
)
from balinp.testing.gradients import complex_step_jacobian
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual

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
    ratio = comparison_residual(likelihood.gradient(h, y), expected)
    assert_residual(ratio, f"gradient, limits {name}", "eq:heteroscedastic-gradient")


@pytest.mark.equation("eq:heteroscedastic-curvature")
@pytest.mark.equation("eq:output-curvature")
@pytest.mark.equation("eq:row-curvature")
@pytest.mark.parametrize("of", ["curvature", "layer_curvature", "row_curvature"])
@pytest.mark.parametrize("name", LIMITS)
def test_curvature_is_the_expected_hessian(name, of):
    """E over y of the Hessian by Gauss–Hermite quadrature, exact for a polynomial in y of degree 2 per target."""
    likelihood, h, _ = case(name, k=2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    curvature = getattr(likelihood, of)(h)
    for row, fisher in zip(h, curvature):
        m, rho = likelihood.split(row)
        s = np.sqrt(likelihood.variance(rho))
        expected = sum(
            weights[i] * weights[j] * hessian(likelihood, row, m + s * nodes[[i, j]])
            for i, j in itertools.product(range(4), repeat=2)
        )
        error = comparison_residual(fisher, expected, size=16)  # sixteen nodes, each term of the result's size
        assert_residual(error, f"expected Hessian, limits {name}", "eq:heteroscedastic-curvature")
        g = sum(  # the other form of the Fisher information: the expected outer product of the gradient
            weights[i] * weights[j] * np.outer(score, score)
            for i, j in itertools.product(range(4), repeat=2)
            for score in likelihood.gradient(row[None], (m + s * nodes[[i, j]])[None])
        )
        error = comparison_residual(fisher, g, size=16)
        assert_residual(error, f"outer products, limits {name}", "eq:heteroscedastic-curvature")
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
    assert np.array_equal(likelihood.aleatoric(h), likelihood.aleatoric(h, 0.0))
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


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 2), (4, 3)])
def test_targets_of_another_shape_than_the_means_are_refused(shape):
    """They would be broadcast, and the loss that of other pairs."""
    likelihood = Heteroscedastic()
    for function in (likelihood.loss, likelihood.gradient, likelihood.row_weights):
        with pytest.raises(InvalidArgumentError, match="shape of the means"):
            function(np.zeros((4, 4)), np.zeros(shape))
        with pytest.raises(InvalidArgumentError, match="a mean and a log-variance per target"):
            function(np.zeros((4, 3)), np.zeros((4, 1)))


def test_float32_stays_float32():
    likelihood, h, y = case()
    h, y = h.astype("float32"), y.astype("float32")
    results = likelihood.loss(h, y), likelihood.gradient(h, y), likelihood.probe(h, h), likelihood.curvature(h)
    assert {r.dtype for r in (*results, likelihood.aleatoric(h), likelihood.row_weights(h, y))} == {np.dtype("float32")}
