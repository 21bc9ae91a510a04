"""Tests of one iteration that mutation testing asked for: each kills a mutant that the other tests let live."""

from dataclasses import replace

import numpy as np
import pytest

from balinp import (
    MLP,
    NUMPY,
    Gaussian,
    InvalidArgumentError,
    LayerStatistics,
    NotPositiveDefiniteError,
    Prior,
    Settings,
    bali_step,
    initial_state,
    log_evidence,
)
from balinp.backend import Backend
from balinp.evidence import prior_norm, temperature
from balinp.solver import _penalty, layer_regression
from balinp.testing import assert_residual, comparison_residual, random_spd

pytestmark = pytest.mark.usefixtures("on_backend")

OTHER = Backend(**{**vars(NUMPY), "name": "other"})  # NumPy under another name, to see whether it is passed on
LITERAL = Settings.preset("literal")


def problem(settings, backend=NUMPY, widths=(2, 3, 1)):
    rng = np.random.default_rng(4)
    mlp = MLP(widths, "tanh", backend)
    state = initial_state(mlp, Gaussian(0.3, backend), rng, settings)
    return state, rng.standard_normal((20, widths[0])), rng.standard_normal((20, widths[-1]))


def regression(settings, probes=True):
    """The first layer of a state, and its regression on sums of random rows."""
    layer, rng = problem(settings)[0].layers[0], np.random.default_rng(6)
    A, G, Z = (rng.standard_normal((20, 3)) for _ in range(3))
    sums = LayerStatistics.from_batch(A, G, probes=Z if probes else None)
    return layer, layer_regression(layer, sums, 1.0, settings)


def test_the_backend_is_passed_on_through_an_iteration():
    settings = Settings(warmup=0)
    state, x, y = problem(settings, OTHER)
    for _ in range(2):
        assert all(layer.posterior.backend is OTHER for layer in state.layers)
        state = bali_step(state, x, y, np.random.default_rng(0), settings)


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0, 100.0])
def test_a_trust_region_weighs_its_rows(size):
    settings = replace(LITERAL, step_size=size, trust_region=True)
    state, x, y = problem(settings)
    w = np.ones(len(x), dtype=int)
    w[:2] = 50  # so that the loss falls for these rows and rises for the others
    weighted = bali_step(state, x, y, np.random.default_rng(0), settings, None, w.astype(float))
    repeated = bali_step(state, np.repeat(x, w, axis=0), np.repeat(y, w, axis=0), np.random.default_rng(0), settings)
    assert weighted.step_scale == repeated.step_scale
    for one, other in zip(weighted.means, repeated.means):
        assert_residual(comparison_residual(one, other, 1e3), f"means, α = {size}", "eq:trust-region")


@pytest.mark.parametrize("prior", ["independent", "tied"])
def test_the_penalty_of_a_step(prior):
    """½ τ tr(MᵀM), or ½ λ tr(S⁻¹MᵀM), at the mean moved 0.3 of the way."""
    settings = replace(LITERAL, step_size=0.2, prior=prior)
    layer, r = regression(settings)
    M = layer.posterior.mean + 0.3 * r.posterior.mean
    inner = np.trace(M.T @ M) if prior == "independent" else np.trace(np.linalg.inv(r.step) @ M.T @ M)
    expected = layer.prior_precision * inner / 2
    got = _penalty([layer], [r], 0.3, prior)
    assert_residual(comparison_residual(got, expected, size=100), f"{prior} prior", "eq:trust-region")


def test_the_first_iteration_is_at_the_mean_even_without_a_warm_up():
    after = []
    for gradients in ("mean", "sampled"):
        settings = Settings(warmup=0, gradients=gradients)
        state, x, y = problem(settings)
        after.append(bali_step(state, x, y, np.random.default_rng(0), settings))
    assert after[0].likelihood.noise_variance == after[1].likelihood.noise_variance
    for one, other in zip(after[0].means, after[1].means):
        assert np.array_equal(one, other)


@pytest.mark.equation("eq:mackay")
def test_evidence_counts_at_most_nine_tenths_of_what_the_data_can_determine():
    settings = replace(LITERAL, evidence=True, prior_precision=1e-3, step_size=1e-3)
    state, x, y = problem(settings)
    x, y = x[:2], y[:2]
    step = bali_step(state, x, y, np.random.default_rng(0), settings)
    for before, layer in zip(state.layers, step.layers):
        assert layer.effective_parameters > 0.9 * 2 or before is state.layers[-1]
        norm = prior_norm(layer.posterior.mean, 1e-3 * np.eye(layer.posterior.mean.shape[1]), "tied", NUMPY)
        expected = min(layer.effective_parameters, 0.9 * 2) / norm
        assert_residual(comparison_residual(layer.prior_precision, expected, 100), "λ", "eq:mackay")


def test_few_effective_parameters_are_counted_as_they_are():
    assert temperature(0.2, 2, Settings(tempering=0.01)) == pytest.approx(0.05, rel=1e-14)
    assert temperature(0.0, 2, Settings(tempering=0.01, max_temperature=0.2)) == 0.2


def test_matrices_are_named_when_they_cannot_be_factorised():
    A = np.ones((2, 2))
    sums, good = LayerStatistics.from_batch(A, A), random_spd(np.random.default_rng(0), 2, 2.0, "float64")
    for wrong in (np.ones((2, 3)), np.ones(2)):
        with pytest.raises(InvalidArgumentError, match="gram must be a square matrix"):
            NUMPY.cholesky(wrong, "gram")
    calls = {
        "row_precision": lambda: log_evidence(sums, Prior(A, -9 * good), good),
        "noise_covariance": lambda: log_evidence(sums, Prior(A, good), -good),
        "noise covariance": lambda: prior_norm(A, -good, "tied", NUMPY),
        "noise precision": lambda: regression(replace(LITERAL, step="natural"), probes=False),
        "matrix": lambda: NUMPY.cholesky(-good),
    }
    for name, call in calls.items():
        with pytest.raises(NotPositiveDefiniteError) as caught:
            call()
        assert caught.value.name == name


@pytest.mark.parametrize("prior", ["independent", "tied"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_initial_state_is_the_prior(prior, dtype):
    settings = Settings(prior=prior, prior_precision=0.3, step_scale=None)
    state = initial_state(MLP((4, 3, 1)), Gaussian(1.0), np.random.default_rng(0), settings, dtype)
    assert (state.step_scale, state.temperature, state.iteration) == (1.0, 0.0, 0)
    for layer, fan_in in zip(state.layers, (4, 3)):
        tau, q = 0.3 * (fan_in if prior == "independent" else 1), layer.posterior
        assert layer.prior_precision == pytest.approx(tau, rel=1e-14)
        assert np.array_equal(q.row_precision, np.asarray(tau, dtype) * np.eye(fan_in + 1, dtype=dtype))
        assert np.array_equal(q.column_covariance, np.eye(q.mean.shape[1]))
        assert {a.dtype.name for a in (q.mean, q.row_precision, q.column_covariance, layer.statistics.gram)} == {dtype}


def test_the_residual_covariance_keeps_its_dtype():
    settings = replace(LITERAL, noise="residual", damping=0.1)
    rng = np.random.default_rng(0)
    likelihood = Gaussian(np.asarray(0.3, dtype="float32"))
    state = initial_state(MLP((2, 3, 2)), likelihood, rng, settings, "float32")
    x, y = (rng.standard_normal((20, 2)).astype("float32") for _ in range(2))
    for layer in bali_step(state, x, y, rng, settings).layers:
        assert layer.posterior.column_covariance.dtype == np.float32


def test_a_single_layer_draws_nothing():
    settings = Settings(warmup=0)
    state, x, y = problem(settings, widths=(2, 1))
    for _ in range(2):
        state = bali_step(state, x, y, None, settings)  # there is no generator to ask


def test_one_factorisation_per_matrix_and_iteration():
    """P, Q, and Σ for the evidence and the tied prior's norm; the evidence takes both factors from the posterior."""
    names = []

    class Counting(Backend):
        def cholesky(self, matrix, name="matrix"):
            names.append(name)
            return super().cholesky(matrix, name)

    state, x, y = problem(LITERAL, Counting(**vars(NUMPY)))
    bali_step(state, x, y, np.random.default_rng(0), LITERAL)
    assert sorted(names) == sorted(["noise precision", "row_precision", "column_covariance"] * 2)


@pytest.mark.equation("eq:mackay")
def test_the_tied_prior_is_measured_in_the_noise_covariance_of_the_layer():
    """With noise="residual" Σ is not S: λ goes to γ/tr(Σ⁻¹MᵀM), where the dense evidence of the regression of the
    pseudo-targets on the layer's inputs is stationary but for M₀; with S in place of Σ it would go elsewhere."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    settings = Settings.preset("literal", noise="residual", evidence=True, step_size=0.4, prior_precision=2.0)
    state = initial_state(MLP((3, 2)), Gaussian(np.array([0.5, 2.0])), rng, settings)
    (layer,) = bali_step(state, x, y, rng, settings).layers
    mean, sigma = layer.posterior.mean, layer.posterior.column_covariance
    length = np.trace(np.linalg.solve(sigma, mean.T @ mean))
    error = comparison_residual(
        layer.prior_precision, layer.effective_parameters / length, condition=np.linalg.cond(sigma)
    )
    assert_residual(error, "λ", "eq:mackay")
    assert abs(layer.prior_precision * np.trace(mean.T @ mean) / 0.4 / layer.effective_parameters - 1) > 0.1
