"""Both predictives against dense Jacobians, scipy, exact layer predictives and each other."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from balinp import (
    MLP,
    NUMPY,
    Categorical,
    Gaussian,
    InvalidArgumentError,
    Settings,
    bali_step,
    initial_state,
    predict_linearized,
    predict_monte_carlo,
    probit_probabilities,
)
from balinp.predictive import Predictive
from balinp.testing.gradients import dense_linearized_predictive
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual

pytestmark = pytest.mark.usefixtures("on_backend")

EPS = np.finfo(float).eps


def trained(widths=(2, 4, 3, 2), kind="gaussian", activation="tanh", dtype="float64"):
    """A state after a few iterations, sampling begun, and inputs well inside and outside the data."""
    rng = np.random.default_rng(0)
    mlp, n, k = MLP(widths, activation), 30, widths[-1]
    x = rng.standard_normal((n, widths[0])).astype(dtype)
    y = rng.standard_normal((n, k)).astype(dtype) if kind == "gaussian" else rng.integers(0, k, n)
    likelihood = Gaussian(np.linspace(0.1, 0.2, k).astype(dtype)) if kind == "gaussian" else Categorical()
    settings = Settings(warmup=1, damping=0.01)
    state = initial_state(mlp, likelihood, rng, settings, dtype)
    for _ in range(6):
        state = bali_step(state, x, y, rng, settings)
    assert state.temperature > 0
    return state, (3 * rng.standard_normal((7, widths[0]))).astype(dtype)


def condition(state):
    """What an inverse of P and of Σ may lose."""
    return max(np.linalg.cond(p.row_precision) * np.linalg.cond(p.column_covariance) for p in state.posteriors)


# linearised


@pytest.mark.equation("eq:linearized-predictive")
@pytest.mark.parametrize("widths", [(2, 1), (3, 2), (2, 4, 1), (2, 4, 3), (2, 3, 4, 2)])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_linearised_covariance_is_the_dense_jacobian_one(widths, kind, activation):
    state, x = trained(widths, kind, activation)
    predictive = predict_linearized(state, x)
    mean, by_layer = dense_linearized_predictive(state, x)
    assert_residual(comparison_residual(predictive.mean, mean), "mean", "eq:linearized-predictive")
    for l, (got, expected) in enumerate(zip(predictive.epistemic_by_layer, by_layer)):
        ratio = comparison_residual(got, expected, condition(state))
        assert_residual(ratio, f"layer {l} of {widths}, {activation}", "eq:linearized-predictive")
        assert comparison_residual(got, 1.01 * expected, condition(state)) > THRESHOLD  # negative control
    total = comparison_residual(predictive.epistemic, predictive.epistemic_by_layer.sum(axis=0))
    assert_residual(total, "sum over layers", "eq:linearized-predictive")
    assert len(predictive.epistemic_by_layer) == len(widths) - 1


@pytest.mark.equation("eq:layer-predictive")
@pytest.mark.equation("eq:linearized-predictive")
def test_of_one_linear_layer_it_is_the_exact_layer_predictive():
    state, x = trained((3, 2))
    mean, covariance = state.posteriors[0].predictive(np.hstack([x, np.ones((len(x), 1))]))
    predictive = predict_linearized(state, x)
    assert_residual(comparison_residual(predictive.mean, mean), "mean", "eq:layer-predictive")
    assert_residual(comparison_residual(predictive.epistemic, covariance, 4.0), "covariance", "eq:layer-predictive")


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize(
    "predict",
    [lambda s, x: predict_linearized(s, x), lambda s, x: predict_monte_carlo(s, x, NUMPY.generator(0), 9)],
)
def test_uncertainty_is_never_negative_and_never_below_the_aleatoric(kind, predict):
    state, x = trained(kind=kind)
    x = np.vstack([x, 1e6 * x, 0 * x])
    p = predict(state, x)
    scale = np.trace(p.epistemic, axis1=1, axis2=2)
    assert np.all(np.linalg.eigvalsh(p.epistemic) >= -THRESHOLD * EPS * scale[:, None])
    for total, part in ((p.covariance, p.aleatoric), (p.aleatoric, 0 * p.aleatoric)):
        assert np.all(np.diagonal(total, axis1=1, axis2=2) >= np.diagonal(part, axis1=1, axis2=2))
    expected = state.likelihood.aleatoric(p.mean) if kind == "gaussian" else p.aleatoric
    assert np.array_equal(p.aleatoric, expected)


# Monte Carlo


def variance_p_values(draws, mean, covariance):
    """Two-sided p-values per row of S tr(V⁻¹V̂) ~ χ²(K(S−1)), and of S (h̄−h)ᵀV⁻¹(h̄−h) ~ χ²(K): exact for a Gaussian."""
    S, n, k = draws.shape
    spread, centre = [], []
    for i in range(n):
        inverse = np.linalg.inv(covariance[i])
        centred = draws[:, i] - draws[:, i].mean(axis=0)
        statistic = scipy.stats.chi2(k * (S - 1)).cdf(np.einsum("sa,ab,sb", centred, inverse, centred))
        spread.append(2 * min(statistic, 1 - statistic))
        shift = draws[:, i].mean(axis=0) - mean[i]
        centre.append(scipy.stats.chi2(k).sf(S * shift @ inverse @ shift))
    return np.array(spread), np.array(centre)


@pytest.mark.equation("eq:monte-carlo-predictive")
@pytest.mark.parametrize(("widths", "kind"), [((3, 1), "gaussian"), ((3, 2), "gaussian"), ((3, 3), "categorical")])
def test_monte_carlo_of_a_linear_layer_converges_to_the_linearised(widths, kind):
    """4 000 draws, 7 rows, two χ² tests each, every one at p = 1e-6/14: false-fail rate at most 1e-6.

    A covariance 25 % too large or too small is missed with probability below 1e-5 in a row. (χ² quantiles)
    """
    state, x = trained(widths, kind)  # three classes: Σ is not diagonal
    exact = predict_linearized(state, x)
    sampled = predict_monte_carlo(state, x, NUMPY.generator(3), draws=4000)
    level = 1e-6 / (2 * len(x))
    spread, centre = variance_p_values(sampled.draws, exact.mean, exact.epistemic)
    assert min(spread.min(), centre.min()) > level
    assert variance_p_values(sampled.draws, exact.mean, 1.25 * exact.epistemic)[0].max() < level  # negative controls
    off = exact.mean + 0.3 * np.sqrt(np.diagonal(exact.epistemic, axis1=1, axis2=2))
    assert variance_p_values(sampled.draws, off, exact.epistemic)[1].max() < level
    centred = sampled.draws - sampled.draws.mean(axis=0)
    covariance = np.einsum("sna,snb->nab", centred, centred) / 4000
    ratio = comparison_residual(sampled.epistemic, covariance)
    assert_residual(ratio, "covariance of the draws", "eq:monte-carlo-predictive")


@pytest.mark.equation("eq:monte-carlo-predictive")
def test_monte_carlo_averages_sampled_networks():
    state, x = trained(kind="categorical")
    predictive, rng = predict_monte_carlo(state, x, NUMPY.generator(5), draws=6), NUMPY.generator(5)
    draws = np.stack([state.mlp.forward(state.sample_weights(rng), x).outputs[-1] for _ in range(6)])
    each = scipy.special.softmax(draws, axis=-1)
    label = [[np.diag(p) - np.outer(p, p) for p in rows] for rows in each]
    expected = (
        (predictive.draws, draws),
        (predictive.mean, draws.mean(axis=0)),
        (predictive.probabilities, each.mean(axis=0)),
        (predictive.aleatoric, np.mean(label, axis=0)),
    )
    for got, value in expected:
        assert_residual(comparison_residual(got, value, scale=1.0), "class predictive", "eq:monte-carlo-predictive")
    assert predictive.epistemic_by_layer is None


def test_at_temperature_zero_the_network_is_certain():
    mlp = MLP((2, 3, 1))
    state = initial_state(mlp, Gaussian(0.1), NUMPY.generator(0), Settings())
    x = NUMPY.generator(1).standard_normal((4, 2))
    assert np.array_equal(
        predict_monte_carlo(state, x, NUMPY.generator(0), 1).mean, mlp.forward(state.means, x).outputs[-1]
    )
    assert not np.any(predict_monte_carlo(state, x, NUMPY.generator(0), 2).epistemic)


# classes


def random_logits(k=4, n=6):
    rng = np.random.default_rng(0)
    root = rng.standard_normal((n, k, k))
    return rng.standard_normal((n, k)), root @ np.swapaxes(root, 1, 2), rng


@pytest.mark.equation("eq:probit")
def test_probit_sees_only_differences_of_logits():
    h, V, rng = random_logits()
    likelihood = Categorical()
    p = probit_probabilities(h, V, likelihood)
    C = np.eye(4) - (1 - np.eye(4)) / 3  # each logit less the mean of the others
    variances = np.diagonal(C @ V @ C, axis1=1, axis2=2)
    centred = h - h.mean(axis=1, keepdims=True)
    expected = scipy.special.softmax(centred / np.sqrt(1 + np.pi / 8 * variances), axis=1)
    assert_residual(comparison_residual(p, expected), "probabilities", "eq:probit")
    assert_residual(comparison_residual(p.sum(axis=1), np.ones(6)), "sum of probabilities", "eq:probit")
    shift, a = rng.standard_normal((6, 1)), rng.standard_normal((6, 4))
    # h + shift + a common random shift s, correlated with h: Cov(s, h) = a, Var(s) = 9
    moved = V + a[:, :, None] + a[:, None, :] + 9
    ratio = comparison_residual(probit_probabilities(h + shift, moved, likelihood), p, scale=20.0)
    assert_residual(ratio, "under a common random shift", "eq:probit")

    def raw(h, V):  # negative control: MacKay's formula for each logit alone
        return scipy.special.softmax(h / np.sqrt(1 + np.pi / 8 * np.diagonal(V, axis1=1, axis2=2)), axis=1)

    assert comparison_residual(raw(h + shift, moved), raw(h, V), scale=20.0) > THRESHOLD
    assert comparison_residual(raw(h, V), p) > THRESHOLD


@pytest.mark.equation("eq:probit")
def test_two_classes_have_mackays_formula():
    """σ(d/√(1 + π Var(d)/8)) for the difference d of the two logits."""
    h, V, _ = random_logits(k=2)
    d, variance = h[:, 0] - h[:, 1], V[:, 0, 0] + V[:, 1, 1] - 2 * V[:, 0, 1]
    expected = scipy.special.expit(d / np.sqrt(1 + np.pi / 8 * variance))
    p = probit_probabilities(h, V, Categorical())
    assert_residual(comparison_residual(p[:, 0], expected), "first class", "eq:probit")
    control = scipy.special.expit(d / np.sqrt(1 + np.pi / 8 * variance / 4))  # centred logits, each by its own variance
    assert comparison_residual(p[:, 0], control) > THRESHOLD


@pytest.mark.equation("eq:probit")
def test_probit_limits():
    h, V, _ = random_logits()
    certain = probit_probabilities(h, 0 * V, Categorical())
    assert_residual(comparison_residual(certain, scipy.special.softmax(h, axis=1)), "no variance", "eq:probit")
    assert np.allclose(probit_probabilities(h, 1e16 * V, Categorical()), 0.25, rtol=1e-6)
    state, x = trained(kind="categorical")
    linear = predict_linearized(state, x)
    assert np.array_equal(linear.probabilities, probit_probabilities(linear.mean, linear.epistemic, Categorical()))
    p = linear.probabilities
    label = np.array([np.diag(row) - np.outer(row, row) for row in p])
    assert_residual(comparison_residual(linear.aleatoric, label), "label covariance", "eq:probit")


@pytest.mark.equation("eq:predictive-entropy")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_entropy(dtype):
    p = np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.1, 0.2, 0.3, 0.4]], dtype=dtype)
    empty = np.zeros((4, 4, 4), dtype=dtype)
    got = Predictive(np.zeros((4, 4)), empty, empty, probabilities=p).entropy(NUMPY)
    expected = scipy.stats.entropy(p.astype(float), axis=1)
    assert got.dtype == dtype
    assert_residual(comparison_residual(got, expected), "entropy", "eq:predictive-entropy")
    with pytest.raises(InvalidArgumentError, match="entropy is for class probabilities"):
        Predictive(np.zeros((4, 4)), empty, empty).entropy(NUMPY)


# density, blocks, dtype


@pytest.mark.equation("eq:predictive-density")
@pytest.mark.parametrize("widths", [(2, 3, 1), (2, 3, 3)])
def test_log_density_against_scipy(widths):
    state, x = trained(widths)
    y = np.random.default_rng(2).standard_normal((len(x), widths[-1]))
    linear, sampled = predict_linearized(state, x), predict_monte_carlo(state, x, NUMPY.generator(0), 8)
    normal = scipy.stats.multivariate_normal
    expected = [normal(m, V).logpdf(v) for m, V, v in zip(linear.mean, linear.aleatoric + linear.epistemic, y)]
    mixture = [
        scipy.special.logsumexp([normal(h, V).logpdf(v) for h in draws]) - np.log(8)
        for draws, V, v in zip(np.swapaxes(sampled.draws, 0, 1), sampled.aleatoric, y)
    ]
    worst = max(np.linalg.cond(V) for V in (*linear.covariance, *sampled.aleatoric))
    for predictive, value in ((linear, expected), (sampled, mixture)):
        ratio = comparison_residual(predictive.log_density(y, NUMPY), np.array(value), worst)
        assert_residual(ratio, f"log density of {widths}", "eq:predictive-density")


@pytest.mark.equation("eq:block-sum")
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_blocks_of_rows_predict_the_same(kind):
    state, x = trained(kind=kind)
    for predict in (
        lambda rows: predict_linearized(state, x, rows),
        lambda rows: predict_monte_carlo(state, x, NUMPY.generator(0), 5, rows),
    ):
        whole = predict(100)
        for rows in (1, 3, 7):
            part = predict(rows)
            for name, expected in vars(whole).items():
                got = getattr(part, name)
                assert (got is None) == (expected is None)
                if got is not None and name != "normal":
                    ratio = comparison_residual(got, expected)
                    assert_residual(ratio, f"{name} in blocks of {rows}", "eq:block-sum")


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_dtype_shapes_and_empty_input(kind, dtype, rows):
    state, x = trained(kind=kind, dtype=dtype)
    x = x[:rows]
    shapes = {"mean": (rows, 2), "aleatoric": (rows, 2, 2), "epistemic": (rows, 2, 2), "covariance": (rows, 2, 2)}
    linear, sampled = predict_linearized(state, x), predict_monte_carlo(state, x, NUMPY.generator(0), 5)
    for predictive, own in ((linear, {"epistemic_by_layer": (3, rows, 2, 2)}), (sampled, {"draws": (5, rows, 2)})):
        classes = {"probabilities": (rows, 2)} if kind == "categorical" else {}
        for name, shape in (shapes | own | classes).items():
            assert getattr(predictive, name).shape == shape
            assert getattr(predictive, name).dtype == dtype


@pytest.mark.parametrize("draws", [0, -1])
def test_no_draws_are_refused(draws):
    state, x = trained((1, 1))
    with pytest.raises(InvalidArgumentError, match="draws"):
        predict_monte_carlo(state, x, NUMPY.generator(0), draws)
