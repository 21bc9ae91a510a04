"""Whole networks of any small shape: passes and predictive against brute force, one iteration against dense Bayes, fits
that are finite or refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balinp import BALIError, Gaussian, Settings, bali_step, fit, predict_linearized
from balinp.testing import (
    NetworkProblem,
    assert_backward,
    assert_residual,
    comparison_residual,
    condition_number,
    dense_ggn,
    dense_linearized_predictive,
    dense_posterior,
    kronecker,
    machine_epsilon,
    network_problems,
    random_network_problem,
    row_counts,
    sizes,
    unvec,
)

pytestmark = pytest.mark.usefixtures("on_backend")

SETTINGS = st.builds(
    Settings,
    step=st.sampled_from(["natural", "isotropic", "gradient"]),
    step_size=st.sampled_from([0.01, 0.5]),
    gradients=st.sampled_from(["sampled", "mean"]),
    prior=st.just("independent"),
    prior_precision=st.sampled_from([1e-3, 0.1, 10.0]),
    evidence=st.booleans(),
    rate=st.sampled_from([0.1, 1.0]),
    step_scale=st.sampled_from([None, 0.15, 1.0]),
    warmup=st.sampled_from([0, 1]),
    tempering=st.sampled_from([None, 0.5]),
    trust_region=st.booleans(),
    batch_size=st.sampled_from([None, 1, 7]),
    block_rows=st.sampled_from([3, 2048]),
    max_iterations=st.just(4),
    tolerance=st.just(0),
)


@given(problem=network_problems(rows=row_counts()))
def test_problems_are_what_they_say(problem):
    """The strategy itself: shapes, dtypes, bounds; and the same problem twice."""
    widths, n = problem.mlp.widths, len(problem.inputs)
    assert [w.shape for w in problem.weights] == problem.mlp.shapes
    assert sum(w.size for w in problem.weights) <= 150
    assert problem.inputs.shape == (n, widths[0])
    assert problem.targets.shape == ((n, widths[-1]) if isinstance(problem.likelihood, Gaussian) else (n,))
    assert {w.dtype for w in problem.weights} == {problem.inputs.dtype} == {problem.dtype}
    assert problem.targets.dtype == (problem.dtype if isinstance(problem.likelihood, Gaussian) else np.int64)
    state = problem.state(Settings())
    assert all(np.array_equal(m, w) for m, w in zip(state.means, problem.weights))
    kind = "gaussian" if isinstance(problem.likelihood, Gaussian) else "categorical"
    again = random_network_problem(problem.seed, n, widths, problem.dtype, kind, problem.mlp.activation)
    assert np.array_equal(again.inputs, problem.inputs)


@pytest.mark.equation("eq:forward")
@pytest.mark.equation("eq:backward")
@given(problem=network_problems(dtype="float64", activations=("tanh", "gelu", "identity"), most=60))
def test_gradients_of_any_network_by_complex_step(problem):
    assert_backward(problem.mlp, problem.likelihood, problem.weights, problem.inputs, problem.targets)


@pytest.mark.equation("eq:linearized-predictive")
@given(problem=network_problems(dtype="float64", activations=("tanh", "gelu", "identity"), most=40))
def test_linearised_predictive_of_any_network_by_dense_jacobians(problem):
    state = bali_step(problem.state(Settings(warmup=0)), *data(problem), problem.generator(), Settings(warmup=0))
    x = problem.inputs[:3]
    predictive = predict_linearized(state, x)
    mean, by_layer = dense_linearized_predictive(state, x)
    size = problem.longest_sum
    kappa = max(condition_number(p.row_precision) * condition_number(p.column_covariance) for p in state.posteriors)
    scale = float(np.linalg.norm(mean)) + sum(float(np.linalg.norm(m)) for m in state.means)
    assert_residual(comparison_residual(predictive.mean, mean, 1, scale, size), "mean", "eq:linearized-predictive")
    ratio = comparison_residual(predictive.epistemic_by_layer, by_layer, kappa, size=size)
    assert_residual(ratio, "epistemic covariance by layer", "eq:linearized-predictive")


@pytest.mark.equation("eq:curvature-probe")
@given(problem=network_problems(dtype="float64", kinds=("gaussian",), activations=("tanh", "gelu"), most=30))
def test_curvature_over_all_signs_is_the_bias_block_of_the_ggn(problem):
    """The mean of zᵀz over all 2^K sign vectors in place of a random one is ∑ J_lᵀ B J_l, the dense GGN of biases."""
    k, n = problem.mlp.widths[-1], len(problem.inputs)
    activations = problem.mlp.forward(problem.weights, problem.inputs)
    h = activations.outputs[-1]
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * k)).reshape(k, -1).T
    G = dense_ggn(problem.mlp, problem.likelihood, problem.weights, problem.inputs)
    start = 0
    probes = [
        problem.mlp.backward(problem.weights, activations, problem.likelihood.probe(h, np.tile(s, (n, 1))))
        for s in signs
    ]
    for l, (d, width) in enumerate(problem.mlp.shapes):
        biases = start + d * np.arange(1, width + 1) - 1  # vec stacks columns, the bias is the last of each
        start += d * width
        B = sum(z[l].T @ z[l] for z in probes) / len(signs)
        factors = [float(np.linalg.norm(w[:-1])) for w in problem.weights[l + 1 :]]
        terms = float(np.prod(factors)) ** 2 * float(np.sum(problem.likelihood.curvature(h)))  # ‖z_L‖² ∏ ‖W̃‖²
        size = problem.longest_sum + len(G)
        ratio = comparison_residual(B, G[np.ix_(biases, biases)], scale=terms, size=size)
        assert_residual(ratio, f"curvature of layer {l}", "eq:curvature-probe")


@pytest.mark.equation("eq:iteration")
@pytest.mark.equation("eq:tied-prior")
@given(
    problem=network_problems(kinds=("gaussian",), hidden_layers=(0,), shared_noise=True, most=60),
    precision=st.sampled_from([0.01, 1.0, 100.0]),
    kind=st.sampled_from(["natural", "isotropic", "gradient"]),
)
def test_one_iteration_of_any_linear_network_is_bayes_rule(problem, precision, kind):
    """Identity 8 from any start, and with fewer rows than inputs: dense vec-form posterior, prior precision λ/σ²."""
    variance = float(problem.likelihood.noise_variance)
    settings = Settings.preset("literal", step=kind, step_size=variance, prior_precision=precision)
    q = bali_step(problem.state(settings), *data(problem), problem.generator(), settings).posteriors[0]
    A = np.hstack([problem.inputs, np.ones((len(problem.inputs), 1))])
    d, k = q.mean.shape
    dense = dense_posterior(A, problem.targets, np.zeros((d, k)), precision * np.eye(d), variance * np.eye(k))
    P, size = q.row_precision.astype(np.float64), problem.longest_sum
    scale = np.linalg.norm(P) * (np.linalg.norm(dense.mean) + np.linalg.norm(problem.weights[0]))
    scale += np.linalg.norm(A) * np.linalg.norm(problem.targets)
    difference = (P @ (q.mean.astype(np.float64) - unvec(dense.mean, d))).astype(q.mean.dtype)
    ratio = comparison_residual(difference, np.zeros_like(difference), 1, float(scale), size)
    assert_residual(ratio, f"mean, {kind}", "eq:iteration")
    product = kronecker(q.column_covariance, np.linalg.inv(P)) @ dense.precision
    error = np.linalg.norm(product - np.eye(d * k), 2) / (size * machine_epsilon(q.mean) * condition_number(P))
    assert_residual(float(error), f"covariance, {kind}", "eq:iteration")


def data(problem: NetworkProblem) -> tuple[np.ndarray, np.ndarray]:
    return problem.inputs, problem.targets


@pytest.mark.equation("eq:iteration")
@pytest.mark.equation("eq:effective-parameters")
@pytest.mark.equation("eq:determined-share")
@given(problem=network_problems(rows=sizes(10), most=80), settings=SETTINGS)
def test_any_fit_is_finite_or_refused(problem, settings):
    """Any small data and any mixture of settings: refused with a BALIError, or finite in every number, in the dtype
    that came in, with γ in [0, DK], κ in [0, 1] and a positive temperature of at most its bound; the same seed gives
    the same bits."""
    arguments = (*data(problem), problem.mlp, problem.likelihood)
    with np.errstate(over="ignore", invalid="ignore"):  # divergence shows as infinity first, and is then refused
        try:
            result, other = (
                fit(*arguments, problem.generator(), settings, state=problem.state(settings)) for _ in range(2)
            )
        except BALIError as error:
            assert str(error)  # noqa: PT017
            return
    again = other.state
    state, eps = result.state, machine_epsilon(problem.weights[0])
    assert len(result.history) >= 1
    assert np.isfinite(result.history[-1].train_nll)
    bound = 1.0 if settings.tempering is None or len(state.layers) == 1 else settings.max_temperature
    assert 0 < state.temperature <= bound
    for layer, other in zip(state.layers, again.layers):
        q, s = layer.posterior, layer.statistics
        for array in (q.mean, q.row_precision, q.column_covariance, s.gram, s.cross, s.target_gram, s.curvature):
            assert array.dtype == problem.dtype
            assert np.all(np.isfinite(array))
        assert q.mean.dtype == problem.dtype
        assert np.array_equal(q.mean, other.posterior.mean)
        d, k = q.mean.shape
        rounding = 10 * d * eps * condition_number(q.row_precision)
        assert -rounding <= layer.determined <= 1 + rounding
        assert 0 <= layer.effective_parameters <= d * k
        assert np.isfinite(layer.prior_precision)
        assert layer.prior_precision > 0


@given(problem=network_problems(rows=st.just(10), hidden_layers=(1,), kinds=("gaussian",)))
def test_a_fit_goes_on_where_it_stopped(problem):
    """Four iterations are two and two: the state holds everything, the generator's position included."""
    settings = Settings(warmup=1, max_iterations=4, tolerance=0)
    arguments = (*data(problem), problem.mlp, problem.likelihood)
    generator = problem.generator()
    whole = fit(*arguments, problem.generator(), settings, state=problem.state(settings)).state
    half = replace(settings, max_iterations=2)
    state = fit(*arguments, generator, half, state=problem.state(settings)).state
    state = fit(*arguments, generator, half, state=state).state
    for p, q in zip(state.posteriors, whole.posteriors):
        assert np.array_equal(p.mean, q.mean)
        assert np.array_equal(p.row_precision, q.row_precision)
