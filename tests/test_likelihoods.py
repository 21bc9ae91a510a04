"""Losses against scipy, gradients and curvatures against complex steps, probes by enumerating every sign."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats

from balinp import Categorical, Gaussian, InvalidArgumentError
from balinp.testing.gradients import complex_step_jacobian
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual

pytestmark = pytest.mark.usefixtures("on_backend")

EPS = np.finfo(float).eps
LIKELIHOODS = {
    "shared": (Gaussian(0.3), 3),
    "per output": (Gaussian(np.array([0.1, 1.0, 20.0])), 3),
    "one output": (Gaussian(np.array([0.7])), 1),
    "two classes": (Categorical(), 2),
    "five classes": (Categorical(), 5),
}
CATEGORICAL = [name for name, (likelihood, _) in LIKELIHOODS.items() if isinstance(likelihood, Categorical)]


def case(name, n=7, scale=2.0, seed=0):
    likelihood, k = LIKELIHOODS[name]
    generator = np.random.default_rng(seed)
    h = scale * generator.standard_normal((n, k))
    gaussian = isinstance(likelihood, Gaussian)
    return likelihood, h, generator.standard_normal((n, k)) if gaussian else generator.integers(0, k, n)


def hessian(likelihood, h, y):
    """∂²ℓ_n/∂h_n² (N, K, K), by complex steps through the gradient."""
    y = np.asarray(y)
    return np.stack(
        [
            complex_step_jacobian(lambda v, n=n: likelihood.gradient(v[None], y[n : n + 1])[0], h[n])
            for n in range(len(h))
        ]
    )


def signs(k):
    return np.array(list(itertools.product([-1.0, 1.0], repeat=k)))


@pytest.mark.equation("eq:gaussian-loss")
@pytest.mark.equation("eq:categorical-loss")
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_loss_is_the_negative_log_density(name):
    likelihood, h, y = case(name)
    if isinstance(likelihood, Gaussian):
        deviation = np.sqrt(np.broadcast_to(likelihood.noise_variance, h.shape))
        expected = -scipy.stats.norm.logpdf(y, h, deviation).sum(axis=1)
    else:
        expected = -scipy.special.log_softmax(h, axis=1)[np.arange(len(h)), y]
    ratio = np.max(np.abs(likelihood.loss(h, y) - expected) / (EPS * h.shape[1] * (np.abs(expected) + 1)))
    assert_residual(ratio, f"loss of {name}", "eq:categorical-loss" if name in CATEGORICAL else "eq:gaussian-loss")


@pytest.mark.equation("eq:gaussian-gradient")
@pytest.mark.equation("eq:categorical-gradient")
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradient_by_complex_step(name):
    likelihood, h, y = case(name)
    diagonal = np.arange(len(h))
    expected = complex_step_jacobian(lambda v: likelihood.loss(v, y), h)[diagonal, diagonal]
    statement = "eq:categorical-gradient" if name in CATEGORICAL else "eq:gaussian-gradient"
    assert_residual(comparison_residual(likelihood.gradient(h, y), expected), f"gradient of {name}", statement)


@pytest.mark.equation("eq:gaussian-curvature")
@pytest.mark.parametrize("name", [n for n in LIKELIHOODS if n not in CATEGORICAL])
def test_gaussian_curvature_is_the_hessian(name):
    likelihood, h, y = case(name)
    expected = hessian(likelihood, h, y)
    ratio = comparison_residual(likelihood.curvature(h), expected)
    assert_residual(ratio, f"curvature of {name}", "eq:gaussian-curvature")


@pytest.mark.equation("eq:row-curvature")
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_each_rows_own_curvature_is_the_hessian(name):
    """Of Gaussians and classes. Negative control: of classes the bound is not."""
    likelihood, h, y = case(name)
    expected = hessian(likelihood, h, y)
    assert_residual(
        comparison_residual(likelihood.row_curvature(h), expected), f"own curvature, {name}", "eq:row-curvature"
    )
    assert name not in CATEGORICAL or comparison_residual(likelihood.curvature(h), expected) > THRESHOLD


@pytest.mark.equation("eq:bohning-bound")
@pytest.mark.parametrize("name", CATEGORICAL)
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 5.0, 100.0, 1e6])
def test_bohning_dominates_the_hessian_everywhere(name, scale):
    likelihood, h, y = case(name, n=200, scale=scale)
    slack = np.linalg.eigvalsh(likelihood.curvature(h) - hessian(likelihood, h, y))
    assert_residual(
        -slack.min() / (EPS * h.shape[1]), f"least eigenvalue of bound − Hessian, {name}", "eq:bohning-bound"
    )


@pytest.mark.equation("eq:bohning-bound")
def test_bohning_cannot_be_smaller():
    """Two classes at p = ½ touch the bound: anything smaller would fail the test above, anything larger fails here."""
    likelihood, h, y = Categorical(), np.zeros((1, 2)), np.zeros(1, dtype=int)
    difference = likelihood.curvature(h) - hessian(likelihood, h, y)
    assert np.max(np.abs(difference)) <= THRESHOLD * EPS
    slack = np.linalg.eigvalsh(0.99 * likelihood.curvature(h) - hessian(likelihood, h, y))  # negative control
    assert -slack.min() / (2 * EPS) > THRESHOLD
    likelihood, h, y = Categorical(), np.array([[0.0, 0.0, -1e3, -1e3]]), np.zeros(1, dtype=int)
    direction = np.array([1.0, -1.0, 0.0, 0.0])  # with any number of classes, two equally likely ones touch it
    touch = direction @ (likelihood.curvature(h) - hessian(likelihood, h, y))[0] @ direction
    assert abs(touch) <= THRESHOLD * EPS


@pytest.mark.equation("eq:gaussian-probe")
@pytest.mark.equation("eq:bohning-probe")
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_probe_covariance_is_the_bound_over_all_signs(name):
    likelihood, k = LIKELIHOODS[name]
    noise = signs(k)
    h = np.zeros_like(noise)
    bound = likelihood.curvature(h)[0]

    def ratio(noise):
        z = likelihood.probe(h, noise)
        return np.max(np.abs(z.T @ z / len(z) - bound)) / (EPS * k * np.max(np.abs(bound)))

    statement = "eq:bohning-probe" if name in CATEGORICAL else "eq:gaussian-probe"
    assert_residual(ratio(noise), f"probe covariance, {name}", statement)
    assert ratio(1.01 * noise) > THRESHOLD  # negative control: noise a hundredth too large
    assert k == 1 or ratio(np.abs(noise)) > THRESHOLD  # and noise whose entries are correlated


@pytest.mark.equation("eq:gaussian-probe")
@pytest.mark.equation("eq:bohning-probe")
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_probe_is_linear_in_its_noise(name):
    """Which makes enumeration enough: any noise of covariance I has the same covariance after the probe."""
    likelihood, h, _ = case(name)
    a, b = np.random.default_rng(1).standard_normal((2, *h.shape))
    difference = likelihood.probe(h, 2 * a + b) - 2 * likelihood.probe(h, a) - likelihood.probe(h, b)
    scale = np.abs(likelihood.probe(h, a)).max() + np.abs(likelihood.probe(h, b)).max()
    statement = "eq:bohning-probe" if name in CATEGORICAL else "eq:gaussian-probe"
    assert_residual(np.max(np.abs(difference)) / (EPS * scale), f"linearity of the probe, {name}", statement)


@pytest.mark.parametrize("name", CATEGORICAL)
def test_categorical_label_covariance_and_probabilities(name):
    likelihood, h, y = case(name)
    p = scipy.special.softmax(h, axis=1)
    assert np.allclose(likelihood.probabilities(h), p, rtol=THRESHOLD * np.finfo(float).eps)
    expected = [sum(q * np.outer(e - row, e - row) for q, e in zip(row, np.eye(len(row)))) for row in p]
    assert np.max(np.abs(likelihood.aleatoric(h) - expected)) <= THRESHOLD * EPS
    one_hot = np.eye(h.shape[1])[y]
    assert np.array_equal(likelihood.loss(h, one_hot), likelihood.loss(h, y))
    assert np.array_equal(likelihood.gradient(h, one_hot), likelihood.gradient(h, y))


def test_gaussian_noise():
    shared, each = Gaussian(0.25), Gaussian(np.array([0.25, 4.0]))
    h, y, w = np.zeros((3, 2)), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([1.0, 2.0, 0.0])
    assert np.array_equal(each.aleatoric(h), np.tile(np.diag([0.25, 4.0]), (3, 1, 1)))
    assert np.array_equal(shared.aleatoric(h), np.tile(np.diag([0.25, 0.25]), (3, 1, 1)))
    assert np.array_equal(each.squared_residual(h, y, w), [1 + 2 * 9, 4 + 2 * 16])
    assert shared.squared_residual(h, y, w) == (1 + 2 * 9 + 4 + 2 * 16) / 2
    assert np.array_equal(each.moved_towards(np.array([2.25, 0.0]), 0.5, 1e-4).noise_variance, [1.25, 2.0])
    assert np.array_equal(each.moved_towards(np.array([0.0, 0.0]), 1.0, 1e-4).noise_variance, [1e-4, 1e-4])
    assert Gaussian(np.float32(1)).moved_towards(np.float64(2), 0.3, 1e-4).noise_variance.dtype == np.float32


@pytest.mark.parametrize("variance", [0, -1.0, np.nan, np.inf, [1.0, 0.0]])
def test_bad_noise_variance_is_refused(variance):
    with pytest.raises(InvalidArgumentError, match="noise_variance"):
        Gaussian(variance)


@pytest.mark.parametrize("y", [[[0], [1], [2]], [0.5, 1, 2], [np.nan, 1, 2], [0, 1, 3], [-1, 1, 2], [1], np.eye(3)[:2]])
def test_targets_that_are_no_labels_are_refused(y):
    """A column of labels, or one label for all rows, would be broadcast; a label that is no class has no column."""
    likelihood, h = Categorical(), np.zeros((3, 3))
    for function in (likelihood.loss, likelihood.gradient):
        with pytest.raises(InvalidArgumentError, match="labels"):
            function(h, np.array(y))


@pytest.mark.parametrize(("variance", "outputs"), [([1.0, 2.0, 3.0], 1), ([1.0], 3), ([[1.0, 2.0], [3.0, 4.0]], 2)])
def test_variances_that_are_not_one_per_output_are_refused(variance, outputs):
    likelihood, h = Gaussian(np.array(variance)), np.zeros((2, outputs))
    for function in (likelihood.loss, likelihood.gradient, likelihood.probe):
        with pytest.raises(InvalidArgumentError, match="one per output"):
            function(h, h)
    for function in (likelihood.curvature, likelihood.aleatoric):
        with pytest.raises(InvalidArgumentError, match="one per output"):
            function(h)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_float32_stays_float32(name):
    likelihood, h, y = case(name)
    h, y = h.astype("float32"), y.astype("float32") if y.ndim == 2 else y
    results = likelihood.loss(h, y), likelihood.gradient(h, y), likelihood.probe(h, h), likelihood.curvature(h)
    assert {r.dtype for r in (*results, likelihood.aleatoric(h))} == {np.dtype("float32")}


@pytest.mark.parametrize("name", CATEGORICAL)
def test_extreme_logits_do_not_overflow(name):
    likelihood, k = LIKELIHOODS[name]
    h = np.array([[1e300] + [-1e300] * (k - 1), [-745.0] + [745.0] * (k - 1)])
    assert np.allclose(likelihood.loss(h, np.array([0, 0])), [0, 1490 + np.log(k - 1)])
    assert np.all(np.isfinite(likelihood.gradient(h, np.array([0, 1]))))
