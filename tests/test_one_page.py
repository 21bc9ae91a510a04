"""The method on one page computes what the package computes, iteration by iteration from the same state."""

import ast
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from balinp import MLP, Gaussian, Settings, bali_step, fit, initial_state, predict_monte_carlo
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual, solve_residual

PAGE = Path(__file__).parents[1] / "examples" / "one_page.py"
SIGMA2, ALPHA, LAM, BETA = 0.04, 0.02, 0.1, 0.3


@pytest.fixture(scope="module")
def page():
    spec = importlib.util.spec_from_file_location("one_page", PAGE)
    module = sys.modules["one_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["one_page"]


def literal(iterations=1):
    """The package's literal preset with the page's α, λ and β."""
    choices = {"step_size": ALPHA, "prior_precision": LAM, "rate": BETA, "max_iterations": iterations, "tolerance": 0}
    return Settings.preset("literal", **choices)


def start(widths, n=40):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (n, widths[0]))
    y = np.sinc(x[:, :1]) * np.arange(1, widths[-1] + 1) + 0.2 * rng.standard_normal((n, widths[-1]))
    return x, y, initial_state(MLP(widths, "tanh"), Gaussian(SIGMA2), rng, literal())


def as_page(page, state):
    """The same state in the page's words: the package keeps (U, M), of which C = (U + Λ₀) M."""
    layers = []
    for layer in state.layers:
        P, U, M = layer.posterior.row_precision, layer.statistics.gram, layer.posterior.mean
        layers.append(page.Layer(M, P, U, P @ M))
    return layers


def residuals(state, layers):
    """The package's means in the page's normal equations, its precisions and covariances; the worst layer."""
    ratios = []
    for own, other in zip(state.layers, layers):
        p = own.posterior
        ratios += [
            solve_residual(other.P, p.mean, other.C),
            comparison_residual(p.row_precision, other.P),
            comparison_residual(p.column_covariance, ALPHA * np.eye(other.M.shape[1])),
        ]
    return max(ratios)


def batches(n, size, rng):
    while True:
        yield rng.permutation(n)[:size] if size else np.arange(n)


@pytest.mark.usefixtures("on_backend")
@pytest.mark.equation("eq:iteration")
@pytest.mark.equation("eq:pseudo-targets")
@pytest.mark.equation("eq:ema")
@pytest.mark.parametrize("widths", [(1, 1), (2, 3), (1, 8, 1), (2, 5, 4, 2)])
@pytest.mark.parametrize("batch", [None, 15])
def test_the_package_computes_the_same(page, widths, batch):
    x, y, state = start(widths)
    N, rng = len(x), np.random.default_rng(1)
    for t, rows in zip(range(12), batches(N, batch, rng)):
        beta = max(BETA, 1 / (t + 1))
        own = bali_step(state, x[rows], y[rows], rng, literal(), float(N))
        other = page.iteration(as_page(page, state), x[rows], y[rows], SIGMA2, ALPHA, LAM, beta, N)
        assert_residual(residuals(own, other), f"iteration {t} of widths {widths}, batch {batch}", "eq:iteration")
        wrong = page.iteration(as_page(page, state), x[rows], y[rows], SIGMA2, 1.001 * ALPHA, LAM, beta, N)
        assert residuals(own, wrong) > THRESHOLD  # negative control
        state = own


@pytest.mark.usefixtures("on_backend")
@pytest.mark.equation("eq:iteration")
def test_a_fit_is_these_iterations_and_nothing_else():
    """Bit for bit, so that what holds of each iteration above holds of the whole fit."""
    x, y, state = start((1, 8, 1))
    result = fit(x, y, state.mlp, state.likelihood, np.random.default_rng(0), literal(8), state=state)
    for _ in range(8):
        state = bali_step(state, x, y, np.random.default_rng(0), literal())
    for own, other in zip(result.state.means, state.means):
        np.testing.assert_array_equal(own, other)


@pytest.mark.usefixtures("on_backend")
@pytest.mark.equation("eq:sampling")
@pytest.mark.equation("eq:monte-carlo-predictive")
def test_the_sampled_predictive_is_the_same(page):
    x, y, state = start((1, 6, 1))
    for _ in range(3):
        state = bali_step(state, x, y, np.random.default_rng(0), literal())
    own = predict_monte_carlo(state, x, np.random.default_rng(5), draws=7)
    mean, variance = page.predict(as_page(page, state), x, SIGMA2, ALPHA, 7, np.random.default_rng(5))
    condition = max(np.linalg.cond(layer.posterior.row_precision) for layer in state.layers)
    assert_residual(comparison_residual(own.mean, mean, condition), "mean", "eq:monte-carlo-predictive")
    total = comparison_residual(own.covariance[:, :, 0], variance, condition)
    assert_residual(total, "variance", "eq:monte-carlo-predictive")
    other, _ = page.predict(as_page(page, state), x, SIGMA2, ALPHA, 7, np.random.default_rng(6))
    assert comparison_residual(own.mean, other, condition) > THRESHOLD  # negative control: other draws


def test_it_is_one_page_of_plain_numpy():
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {getattr(node, "module", None) or node.names[0].name for node in imports}
    assert names == {"dataclasses", "numpy"}


def test_it_runs_and_learns(page, capsys):
    page.main()
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[-1]) for line in lines if line.startswith("iteration")]
    noise_floor = np.log(2 * np.pi * np.e * 0.1**2) / 2  # the entropy of the noise: what no predictive can beat
    assert losses[-1] < noise_floor + 0.05 < losses[0]
    table = np.array([[float(v) for v in line.split()] for line in lines[-9:]])
    x, truth, mean, deviation = table.T
    inside = np.abs(x) <= 2
    assert np.all(np.abs(mean - truth)[inside] < 4 * deviation[inside])
    assert deviation[~inside].min() > 2 * deviation[inside].max()  # it knows what it has not seen
