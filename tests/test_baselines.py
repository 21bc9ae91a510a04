"""The baselines of examples/: gradients by central differences, moments, factors against dense ones, the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import norm

from balinp import MLP

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import uci  # noqa: E402
from baselines import (  # noqa: E402
    METHODS,
    Method,
    Prediction,
    bayes_by_backprop,
    common,
    ensemble,
    ivon,
    laplace,
    map_,
    mc_dropout,
    swag,
    tuned,
)

TASKS = ["regression", "classification"]
NETWORK = MLP((3, 4, 5, 2), "tanh")  # smooth, for differences
SHORT = {"iterations": 60, "hidden_widths": (6,)}


def central_differences(objective: Callable[[np.ndarray], float], theta: np.ndarray, step: float = 1e-5) -> np.ndarray:
    units = step * np.eye(len(theta))
    return np.array([(objective(theta + u) - objective(theta - u)) / (2 * step) for u in units])


def mean_loss(task: str, h: np.ndarray, y: np.ndarray, log_noise: np.ndarray) -> float:
    if task == "classification":
        return float(-np.mean(np.sum(y * log_softmax(h, axis=1), axis=1)))
    return float(-np.mean(np.sum(norm.logpdf(y, h, np.exp(log_noise / 2)), axis=1)))


@pytest.fixture(params=TASKS)
def case(request: pytest.FixtureRequest, generator: np.random.Generator) -> tuple[str, np.ndarray, np.ndarray]:
    """Task, x (7, 3), y (7, 2): floats, or one-hot."""
    x = generator.standard_normal((7, 3))
    y = generator.standard_normal((7, 2))
    return request.param, x, y if request.param == "regression" else np.eye(2)[(y[:, 0] > 0).astype(int)]


@pytest.fixture
def table(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = generator.standard_normal((60, 3))
    return x, np.tanh(x[:, :1]) + 0.1 * generator.standard_normal((60, 1))


def assert_gradient(got: np.ndarray, objective: Callable[[np.ndarray], float], theta: np.ndarray, task: str) -> None:
    expected = central_differences(objective, theta)
    if task == "classification":
        assert np.all(got[-2:] == 0)  # there is no noise to learn
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


def test_map_gradient_is_that_of_loss_plus_l2(case, generator):
    task, x, y = case
    theta = generator.standard_normal(sum(d * k for d, k in NETWORK.shapes) + 2) / 2

    def objective(theta: np.ndarray) -> float:
        h = NETWORK.forward(common.split(theta, NETWORK.shapes), x).outputs[-1]
        return mean_loss(task, h, y, theta[-2:]) + 0.7 / (2 * 20) * float(np.sum(theta[:-2] ** 2))

    assert_gradient(map_.gradient(theta, NETWORK, x, y, task, 0.7, 20), objective, theta, task)


def test_dropout_gradient_is_that_of_loss_plus_l2_at_the_masks(case, generator):
    task, x, y = case
    theta = generator.standard_normal(sum(d * k for d, k in NETWORK.shapes) + 2) / 2
    keep = mc_dropout.masks(NETWORK, 0.3, len(x), generator)

    def objective(theta: np.ndarray) -> float:
        h = mc_dropout.forward(NETWORK, common.split(theta, NETWORK.shapes), x, keep)[1][-1]
        return mean_loss(task, h, y, theta[-2:]) + 0.7 / (2 * 20) * float(np.sum(theta[:-2] ** 2))

    assert_gradient(mc_dropout.gradient(theta, NETWORK, x, y, task, 0.7, 20, keep), objective, theta, task)


def test_dropout_masks_keep_the_mean_and_no_dropout_is_the_network(generator):
    keep = mc_dropout.masks(NETWORK, 0.3, 20_000, generator)
    assert abs(keep[0].mean() - 1) < 0.01
    assert set(np.unique(keep[0])) == {0, 1 / 0.7}
    weights, x = NETWORK.initial_weights(generator), generator.standard_normal((5, 3))
    got = mc_dropout.forward(NETWORK, weights, x, mc_dropout.masks(NETWORK, 0.0, 1, generator))[1][-1]
    np.testing.assert_allclose(got, NETWORK.forward(weights, x).outputs[-1], rtol=1e-13)


def test_bayes_by_backprop_gradient_is_that_of_loss_plus_divergence(case, generator):
    task, x, y = case
    size = sum(d * k for d, k in NETWORK.shapes)
    theta = np.concatenate([generator.standard_normal(size) / 2, generator.normal(-1, 0.3, size), [0.1, -0.2]])
    noise = [generator.standard_normal((len(x), k)) for _, k in NETWORK.shapes]
    precisions, shapes = [0.5, 1.5, 3.0], [*NETWORK.shapes, *NETWORK.shapes]

    def objective(theta: np.ndarray) -> float:
        parts = common.split(theta, shapes)
        means, logs = parts[:3], parts[3:]
        h = bayes_by_backprop.forward(NETWORK, means, [np.exp(2 * r) for r in logs], x, noise)[1][-1]
        return mean_loss(task, h, y, theta[-2:]) + bayes_by_backprop.kl_divergence(means, logs, precisions) / 20

    got = bayes_by_backprop.gradient(theta, NETWORK, x, y, task, precisions, 20, noise)
    assert_gradient(got, objective, theta, task)


def test_divergence_is_the_mean_log_ratio_of_the_densities(generator):
    m, r, tau = generator.standard_normal((2, 3)), generator.normal(-0.5, 0.2, (2, 3)), 1.7
    w = m + np.exp(r) * generator.standard_normal((200_000, 2, 3))
    ratio = np.sum(norm.logpdf(w, m, np.exp(r)) - norm.logpdf(w, 0, tau**-0.5), axis=(1, 2))
    error = ratio.std() / len(ratio) ** 0.5
    assert abs(bayes_by_backprop.kl_divergence([m], [r], [tau]) - ratio.mean()) < 4 * error


def test_local_reparametrisation_has_the_moments_of_sampled_weights(generator):
    mlp, draws = MLP((3, 2)), 100_000
    m, s = generator.standard_normal((4, 2)), generator.random((4, 2))
    x = generator.standard_normal((1, 3))
    noise = [generator.standard_normal((draws, 2))]
    local = bayes_by_backprop.forward(mlp, [m], [s], np.repeat(x, draws, axis=0), noise)[1][-1]
    weights = m + np.sqrt(s) * generator.standard_normal((draws, 4, 2))
    direct = np.append(x, 1) @ weights
    np.testing.assert_allclose(local.mean(axis=0), direct.mean(axis=0), atol=6 * direct.std() / draws**0.5)
    np.testing.assert_allclose(local.var(axis=0), direct.var(axis=0), rtol=6 * (2 / draws) ** 0.5)


def linear_laplace(generator: np.random.Generator, precision: float, noise: np.ndarray) -> tuple:
    """A linear two-output network, its Laplace approximation, and the dense posterior covariance of vec W."""
    mlp, x = MLP((3, 2)), generator.standard_normal((20, 3))
    weights = [generator.standard_normal((4, 2))]
    found = laplace.factors(mlp, weights, x, "regression", noise)
    a = np.column_stack([x, np.ones(20)])
    dense = np.linalg.inv(np.kron(np.diag(1 / noise), a.T @ a) + precision * np.eye(8))
    return laplace.Laplace(mlp, "regression", noise, weights, found, precision), dense


def test_laplace_of_a_linear_model_is_the_exact_posterior(generator):
    noise = np.array([0.3, 1.2])
    model, dense = linear_laplace(generator, 0.8, noise)
    x = generator.standard_normal((5, 3))
    rows = [np.kron(np.eye(2), a) for a in np.column_stack([x, np.ones(5)])]
    expected = np.stack([j @ dense @ j.T for j in rows])
    np.testing.assert_allclose(model.covariance(x), expected, rtol=1e-10, atol=1e-14)
    drawn = model.draws(x, 20_000, generator)
    np.testing.assert_allclose(drawn.var(axis=0), np.diagonal(expected, axis1=1, axis2=2), rtol=0.06)
    prediction = model.predict(x, generator)
    np.testing.assert_allclose(prediction.variance, noise + np.diagonal(expected, axis1=1, axis2=2))


@pytest.mark.parametrize("task", TASKS)
def test_kronecker_factors_are_the_dense_sums_over_rows(task, generator):
    x, weights = generator.standard_normal((9, 3)), NETWORK.initial_weights(generator)
    noise = np.array([0.5, 2.0])
    activations = NETWORK.forward(weights, x)
    jacobians = NETWORK.jacobians(weights, activations)
    p = np.exp(log_softmax(activations.outputs[-1], axis=1))
    for l, factor in enumerate(laplace.factors(NETWORK, weights, x, task, noise)):
        curvature = 0
        for n in range(9):
            j = jacobians[l][:, n]
            hessian = np.diag(1 / noise) if task == "regression" else np.diag(p[n]) - np.outer(p[n], p[n])
            curvature = curvature + j.T @ hessian @ j / 9
        v, u = factor.curvature_vectors, factor.gram_vectors
        np.testing.assert_allclose(v * factor.curvature_values @ v.T, curvature, rtol=1e-9, atol=1e-12)
        a = activations.inputs[l]
        np.testing.assert_allclose(u * factor.gram_values @ u.T, a.T @ a, rtol=1e-9, atol=1e-12)


def test_variational_fits_of_a_linear_model_find_the_best_diagonal_normal(generator):
    """Its deviations are those of the exact posterior's conditionals: 1/√diag of the precision."""
    x = generator.standard_normal((100, 2))
    y = x @ np.array([[1.0], [-0.5]]) + 0.5 * generator.standard_normal((100, 1))
    common_settings = {"hidden_widths": (), "iterations": 3000, "batch_size": 100}
    for fit, own in (
        (ivon.fit, {"prior_precision": 2.0, "memory": 0.998}),
        (bayes_by_backprop.fit, {"prior_precision": 2.0 / 3}),
    ):
        model = fit(x, y, "regression", generator, **common_settings, **own)
        a = np.column_stack([x, np.ones(100)])
        precision = a.T @ a / model.noise_variance + 2.0 * np.eye(3)
        mean = np.linalg.solve(precision, a.T @ y / model.noise_variance)
        np.testing.assert_allclose(model.means[0], mean, atol=0.02)
        np.testing.assert_allclose(np.exp(model.log_deviations[0][:, 0]), np.diag(precision) ** -0.5, rtol=0.15)


def test_ivon_curvature_stays_positive_whatever_the_estimate(generator):
    hessian, decay = generator.random(1000), 0.01
    estimate = 1e4 * generator.standard_normal(1000)
    assert np.all(ivon.hessian_update(hessian, estimate, decay, 0.9) + decay > 0)


def test_swag_samples_have_the_moments_of_the_walk(generator):
    walk = generator.standard_normal((30, 4)) @ generator.standard_normal((4, 4))
    mean, variance, deviations = swag.from_iterates(walk, 30)
    mlp = MLP((1, 2))  # four weights
    samples = swag.Swag(mlp, "regression", np.ones(2), mean, variance, deviations).sample(200_000, generator)
    expected = np.diag(walk.var(axis=0)) / 2 + np.cov(walk.T) / 2
    np.testing.assert_allclose(samples.mean(axis=0), walk.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.02 * np.abs(expected).max())


def test_prediction_is_a_mixture_over_draws(generator):
    outputs, y = generator.standard_normal((3, 4, 2)), generator.standard_normal((4, 2))
    prediction = Prediction("regression", outputs, np.array([0.5, 2.0]))
    density = norm.pdf(y, outputs, np.sqrt([0.5, 2.0])).prod(axis=2).mean(axis=0)
    assert prediction.nll(y) == pytest.approx(-np.log(density).mean())
    np.testing.assert_allclose(prediction.std**2, outputs.var(axis=0) + np.array([0.5, 2.0]))
    classes, labels = Prediction("classification", outputs, np.ones(1)), np.array([0, 1, 1, 0])
    picked = classes.probabilities[np.arange(4), labels]
    assert classes.nll(labels) == pytest.approx(-np.log(picked).mean())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_fits_draws_and_repeats(name, task, table):
    x, y = table
    y = y if task == "regression" else (y[:, 0] > 0).astype(int)
    settings = SHORT | ({"walk": 40, "collected": 20} if name == "swag" else {})
    fits = [METHODS[name].fit(x, y, task, np.random.default_rng(3), **settings) for _ in range(2)]
    first, second = (model.predict(x, np.random.default_rng(0), 5) for model in fits)
    np.testing.assert_array_equal(first.outputs, second.outputs)
    assert np.isfinite(first.nll(y))
    assert fits[0].draws(x, 5, np.random.default_rng(0)).shape[1:] == (60, 1 if task == "regression" else 2)
    if task == "classification":
        np.testing.assert_allclose(first.probabilities.sum(axis=1), 1)


def test_ensemble_members_start_apart(table):
    model = ensemble.fit(*table, "regression", np.random.default_rng(0), members=3, **SHORT)
    assert len({float(member.theta[0]) for member in model.members}) == 3


def test_tuning_picks_the_setting_that_fits_and_stops_early_when_told(table):
    x, y = table
    method = Method(map_.fit, ({"prior_precision": 1e6}, {"prior_precision": 0.1}))
    settings = tuned(method, x, y, "regression", 0, iterations=400, hidden_widths=(6,))
    assert settings["prior_precision"] == 0.1
    assert 0 < settings["stop"] <= 1
    assert settings["noise_variance"].shape == (1,)
    fit = METHODS["laplace_kfac"].fit(x, y, "regression", np.random.default_rng(0), **settings)
    np.testing.assert_array_equal(fit.noise_variance, settings["noise_variance"])
    base = (METHODS["map"], settings)
    found = tuned(METHODS["laplace_kfac"], x, y, "regression", 0, base)
    assert found["stop"] == settings["stop"]  # of the network it starts from
    assert found["laplace_precision"] in {s["laplace_precision"] for s in laplace.GRID}


def test_table_script_follows_the_protocol_and_resumes(tmp_path, monkeypatch, capsys, table):
    x, y = table
    np.savetxt(tmp_path / "small.csv", np.column_stack([x, 10 * y]), delimiter=",", header="a,b,c,y", comments="")
    np.savez(tmp_path / "uci_other.npz", X=x, y=y[:, 0])
    monkeypatch.setattr(uci, "METHODS", {"map": Method(map_.fit, ({"iterations": 50},))})
    command = ["uci.py", "--data", str(tmp_path), "--sets", "small,other", "--methods", "map,mlp", "--splits", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(tmp_path / "out")])
    uci.main()
    assert capsys.readouterr().err.count("split") == 8
    uci.main()
    assert "split" not in capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "uci_table.json").read_text())
    assert len(content["rows"]) == 8
    assert content["seeds"] == [0, 1]
    assert "MAP" in (tmp_path / "out" / "uci_table.md").read_text()
    split = uci.Split(x, y[:, 0], 1)
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_array_equal(split.X[0], x[order[:54]])
    assert abs(split.t.std() - 1) < 1e-12
    scores = split.scores(0.0, split.t_test + 1.0, np.ones(6))
    assert scores["rmse"] == pytest.approx(split.scale)
    assert scores["nll"] == pytest.approx(np.log(split.scale))
