"""Prior precision, effective parameters and the Kronecker projection of the independent prior's posterior."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from balinp import MatrixNormal
from balinp.evidence import (
    PRECISION_BOUNDS,
    determined_share,
    effective_parameters,
    kronecker_precision,
    prior_norm,
    step_curvature,
    temperature,
    updated_prior_precision,
    updated_share,
)
from balinp.settings import Settings
from balinp.testing import (
    THRESHOLD,
    DenseGaussian,
    assert_residual,
    comparison_residual,
    condition_number,
    dense_effective_parameters,
    independent_posterior,
    kronecker,
    matrix_normals,
    projection_objective,
    random_spd,
    seeds,
    spd_matrices,
    vec,
)

pytestmark = pytest.mark.usefixtures("on_backend")

TAUS = st.sampled_from([0.01, 0.5, 20.0])
small = st.integers(1, 3)


def fixed_point(B: np.ndarray, U: np.ndarray, tau: float) -> MatrixNormal:
    """The core's iteration of (κ, Σ) run to its end: Q⁻¹ and P = U + πI as a matrix normal about zero."""
    d, k = len(U), len(B)
    q = MatrixNormal(np.zeros((d, k)), U + np.eye(d), np.eye(k))
    kappa, Q = 0.0, np.eye(k)
    for _ in range(2000):
        before = Q
        pi, Q = kronecker_precision(B, tau, q, kappa, "independent")
        q = MatrixNormal(q.mean, U + pi * np.eye(d), np.linalg.inv(Q))
        kappa = determined_share(q, pi)
        if np.max(np.abs(Q - before)) < 1e-14 * np.max(np.abs(Q)):
            break
    return q


def curvature_and_gram(seed: int, d: int, k: int, rank: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((rank or 2 * d, d)) * np.geomspace(0.3, 3, d)
    return random_spd(generator, k, 20.0, np.float64, 2.0), A.T @ A


def objective(x: np.ndarray, B: np.ndarray, U: np.ndarray, tau: float) -> float:
    """KL as a function of the logarithmic Cholesky factors of P and Q, laid out in one vector."""
    factors, at = [], 0
    for n in (len(U), len(B)):
        L = np.zeros((n, n))
        L[np.tril_indices(n)] = x[at : at + n * (n + 1) // 2]
        L[np.diag_indices(n)] = np.exp(np.diagonal(L))
        factors.append(L @ L.T)
        at += n * (n + 1) // 2
    return projection_objective(*factors, B, U, tau)


def coordinates(*matrices: np.ndarray) -> np.ndarray:
    parts = []
    for matrix in matrices:
        L = np.linalg.cholesky(matrix)
        L[np.diag_indices(len(L))] = np.log(np.diagonal(L))
        parts.append(L[np.tril_indices(len(L))])
    return np.concatenate(parts)


@pytest.mark.equation("eq:kronecker-projection")
@given(seed=seeds(), d=small, k=small, tau=TAUS, rank=st.sampled_from([1, None]))
def test_the_fixed_point_is_stationary_in_kl(seed, d, k, tau, rank):
    """Central differences of the dense KL in all directions: |slope| < 1e-6 of a KL of order one.

    Step 1e-5: truncation about 1e-10, rounding about eps · KL/1e-5 = 1e-10; both far below, and a κ or b that is
    wrong by one percent gives slopes of 1e-3 and more.
    """
    B, U = curvature_and_gram(seed, d, k, rank)
    q = fixed_point(B, U, tau)
    x = coordinates(q.row_precision, np.linalg.inv(q.column_covariance))
    steps = 1e-5 * np.eye(len(x))
    slopes = [(objective(x + e, B, U, tau) - objective(x - e, B, U, tau)) / 2e-5 for e in steps]
    assert np.max(np.abs(slopes)) < 1e-6


@pytest.mark.equation("eq:kronecker-projection")
@pytest.mark.parametrize("seed", range(4))
def test_no_other_kronecker_product_is_nearer(seed):
    """A quasi-Newton search from elsewhere finds the same KL, and the fixed point's is not above it."""
    B, U = curvature_and_gram(seed, 3, 2)
    q = fixed_point(B, U, 0.5)
    reached = projection_objective(q.row_precision, np.linalg.inv(q.column_covariance), B, U, 0.5)
    found = optimize.minimize(objective, coordinates(np.eye(3), np.eye(2)), args=(B, U, 0.5), method="BFGS")
    assert reached > 1e-4  # the posterior is truly not Kronecker here
    assert reached <= found.fun + 1e-9
    assert reached == pytest.approx(found.fun, abs=1e-6)


@pytest.mark.equation("eq:kronecker-projection")
@given(seed=seeds(), d=small, k=small, tau=TAUS, b=st.sampled_from([0.1, 3.0]), kappa=st.floats(0, 1))
def test_the_projection_is_exact_where_the_curvature_is_a_multiple_of_the_identity(seed, d, k, tau, b, kappa):
    _, U = curvature_and_gram(seed, d, k)
    previous = MatrixNormal(np.zeros((d, k)), U, random_spd(np.random.default_rng(seed), k, 5.0, np.float64))
    pi, Q = kronecker_precision(b * np.eye(k), tau, previous, kappa, "independent")
    dense = independent_posterior(b * np.eye(k), U, tau)
    ratio = comparison_residual(kronecker(Q, U + pi * np.eye(d)), dense.precision, size=d * k)
    assert_residual(ratio, "Q ⊗ (U + πI) against B ⊗ U + τI for B = bI", "eq:kronecker-projection")


@pytest.mark.equation("eq:kronecker-projection")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_without_curvature_is_left_to_its_prior(dtype):
    """B = 0: at the fixed point the covariance is the prior's, I/τ, and nothing overflows."""
    tau, gram = 0.5, np.diag(np.array([0.0, 3.0, 1e3], dtype))
    q, kappa = MatrixNormal(np.zeros((3, 2), dtype), np.eye(3, dtype=dtype), np.eye(2, dtype=dtype)), 0.0
    for _ in range(3):
        pi, Q = kronecker_precision(np.zeros((2, 2), dtype), tau, q, kappa, "independent")
        q = MatrixNormal(q.mean, gram + pi * np.eye(3, dtype=dtype), np.diag(1 / np.diag(Q)))
        kappa = determined_share(q, pi)
    covariance = np.kron(q.column_covariance, np.diag(1 / np.diag(q.row_precision)))
    assert_residual(comparison_residual(covariance, np.eye(6) / tau), "covariance", "eq:kronecker-projection")


def test_a_curvature_that_the_data_determine_wholly_still_leaves_dead_units_positive():
    """κ = 1 by rounding and a dead unit: its precision stays above 0."""
    q = MatrixNormal(np.zeros((2, 2), np.float32), np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    _, Q = kronecker_precision(np.diag(np.array([2.0, 0.0], np.float32)), 0.5, q, 1.0, "independent")
    assert Q[1, 1] > 0


@pytest.mark.equation("eq:tied-prior")
@given(B=spd_matrices(), tau=TAUS, kappa=st.floats(0, 1))
def test_the_tied_prior_takes_the_curvature_as_it_is(B, tau, kappa):
    q = MatrixNormal(np.zeros((2, len(B))), np.eye(2), np.eye(len(B)))
    pi, Q = kronecker_precision(B, tau, q, kappa, "tied")
    assert pi == tau
    assert Q is B


@pytest.mark.equation("eq:step-kinds")
@given(B=spd_matrices(condition=2.0), damping=st.sampled_from([0.0, 0.25]), alpha=st.sampled_from([0.5, 4.0]))
def test_step_kinds(B, damping, alpha):
    eye, mean = np.eye(len(B)), float(np.trace(B.astype(float))) / len(B)
    for settings, expected in (
        (Settings(step="natural", damping=damping), B + damping * mean * eye),
        (Settings(step="isotropic"), mean * eye),
        (Settings(step="gradient", step_size=alpha), eye / alpha),
    ):
        computed = step_curvature(B, settings, np)
        assert computed.dtype == B.dtype
        assert_residual(comparison_residual(computed, expected), f"step {settings.step!r}", "eq:step-kinds")


@pytest.mark.equation("eq:step-kinds")
@pytest.mark.parametrize(("dtype", "least"), [("float64", 1.2e-77), ("float32", 3.3e-10)])
def test_step_kinds_of_a_layer_that_has_died(dtype, least):
    """tiny^¼ for the mean curvature, 1 for the tied prior; undamped, the natural step takes B = 0 as it is."""
    B, eye = np.zeros((2, 2), dtype), np.eye(2)
    for changes, expected in (
        ({"step": "isotropic"}, least * eye),
        ({"step": "isotropic", "prior": "tied"}, eye),
        ({"step": "natural", "damping": 0.25}, 0.25 * least * eye),
        ({"step": "natural", "damping": 0.25, "prior": "tied"}, 0.25 * eye),
        ({"step": "natural", "prior": "tied"}, 0 * eye),
    ):
        computed = step_curvature(B, Settings(**changes), np)
        assert computed.dtype == B.dtype
        assert np.allclose(computed, expected, rtol=0.03, atol=0), changes
    q = MatrixNormal(np.zeros((3, 2), dtype), np.eye(3, dtype=dtype), np.eye(2, dtype=dtype))
    pi, Q = kronecker_precision(B, 0.5, q, 0.0, "independent")
    assert np.allclose(Q, least * eye, rtol=0.03, atol=0)  # b, and all of it: nothing is determined
    assert pi == pytest.approx(0.5 / least, rel=0.03)


@pytest.mark.equation("eq:determined-share")
@given(seed=seeds(), d=small, k=small, pi=TAUS)
def test_determined_share(seed, d, k, pi):
    """κ = tr(U (U + πI)⁻¹)/D, from the eigenvalues of U."""
    B, U = curvature_and_gram(seed, d, k)
    P = U + pi * np.eye(d)
    values = np.linalg.eigvalsh(U)
    computed = determined_share(MatrixNormal(np.zeros((d, k)), P, B), pi)
    ratio = comparison_residual(computed, np.mean(values / (values + pi)), condition_number(P), scale=1.0, size=d)
    assert_residual(ratio, "κ against the eigenvalues", "eq:determined-share")


@pytest.mark.equation("eq:effective-parameters")
@given(seed=seeds(), d=small, k=small, tau=TAUS)
def test_effective_parameters_are_what_the_covariance_leaves_of_the_prior(seed, d, k, tau):
    """γ = DK − τ tr Cov for the matrix normal; the tied prior's τ is Σ⁻¹ ⊗ λI."""
    B, U = curvature_and_gram(seed, d, k)
    P = U + tau * np.eye(d)
    q = MatrixNormal(np.zeros((d, k)), P, np.linalg.inv(B + tau * np.eye(k)))
    dense = DenseGaussian(np.zeros(d * k), kronecker(B + tau * np.eye(k), P))
    lost = tau * float(np.trace(dense.covariance))
    computed = effective_parameters(q, tau, 0.123, "independent")
    kappa = condition_number(P) * condition_number(q.column_covariance)
    ratio = comparison_residual(computed, max(d * k - lost, 0.0), kappa, scale=d * k + lost, size=d * k)
    assert_residual(ratio, "γ, independent prior", "eq:effective-parameters")
    lost = float(np.trace(kronecker(B + tau * np.eye(k), tau * np.eye(d)) @ dense.covariance))
    computed = effective_parameters(q, tau, determined_share(q, tau), "tied")
    ratio = comparison_residual(computed, d * k - lost, kappa, scale=d * k, size=d * k)
    assert_residual(ratio, "γ, tied prior", "eq:effective-parameters")


@pytest.mark.equation("eq:effective-parameters")
@given(seed=seeds(), d=small, k=small, tau=TAUS, b=st.sampled_from([0.1, 3.0]))
def test_effective_parameters_are_mackays_where_the_projection_is_exact(seed, d, k, tau, b):
    _, U = curvature_and_gram(seed, d, k)
    B = b * np.eye(k)
    q = fixed_point(B, U, tau)
    expected = dense_effective_parameters(B, U, tau)
    computed = effective_parameters(q, tau, 0.0, "independent")
    ratio = comparison_residual(computed, expected, condition_number(q.row_precision), scale=d * k, size=d * k)
    assert_residual(ratio, "γ against ∑ λ/(λ + τ)", "eq:effective-parameters")


@pytest.mark.equation("eq:effective-parameters")
def test_effective_parameters_are_never_negative():
    q = MatrixNormal(np.zeros((2, 1)), np.eye(2), np.eye(1))
    assert effective_parameters(q, 7.0, 0.0, "independent") == 0


@given(q=matrix_normals(condition=2.0), step=seeds())
def test_prior_norm(q, step):
    S = random_spd(np.random.default_rng(step), q.mean.shape[1], 3.0, q.mean.dtype)
    m = vec(q.mean)
    size = q.mean.size
    independent, tied = (prior_norm(q.mean, S, kind, q.backend) for kind in ("independent", "tied"))
    dtype = q.mean.dtype.type
    assert_residual(comparison_residual(dtype(independent), m @ m, size=size), "‖M‖²", "prior-norm")
    expected = m @ kronecker(np.linalg.inv(S.astype(float)), np.eye(len(q.mean))) @ m
    ratio = comparison_residual(dtype(tied), expected, condition_number(S), size=size)
    assert_residual(ratio, "tr(S⁻¹MᵀM)", "prior-norm")


@pytest.mark.equation("eq:mackay")
@given(tau=TAUS, gamma=st.floats(0.1, 50), norm=st.floats(0.1, 50), rate=st.sampled_from([0.0, 0.3, 1.0]))
def test_prior_precision_moves_in_log_space(tau, gamma, norm, rate):
    computed = np.log(updated_prior_precision(tau, gamma, norm, rate))
    expected = (1 - rate) * np.log(tau) + rate * np.log(gamma / norm)
    assert_residual(comparison_residual(computed, expected, scale=1.0 + abs(np.log(tau))), "log τ", "eq:mackay")


@pytest.mark.equation("eq:mackay")
def test_prior_precision_stays_within_its_bounds():
    low, high = PRECISION_BOUNDS
    assert updated_prior_precision(1.0, 0.0, 1.0, 1.0) == low
    assert updated_prior_precision(1.0, 5.0, 0.0, 1.0) == high
    assert updated_prior_precision(1.0, 1e9, 1.0, 1.0) == high


@pytest.mark.equation("eq:mackay")
@given(seed=seeds(), tau=TAUS, b=st.sampled_from([0.5, 4.0]))
def test_mackays_fixed_point_is_where_the_evidence_is_stationary(seed, tau, b):
    """d log p(T)/d log τ = ½(γ − τ‖M‖²), for one layer with noise 1/b and independent prior N(0, 1/τ).

    Central difference of the dense evidence. Its truncation is step²/6 times a third derivative, at most γ + τ‖M‖² in
    log τ; its rounding eps · condition · |log p| / step, from the dense inverse.
    """
    generator = np.random.default_rng(seed)
    A, T = generator.standard_normal((6, 3)), generator.standard_normal((6, 2))
    U = A.T @ A

    def log_evidence(log_tau: float) -> float:
        rows = np.eye(6) / b + A @ A.T / np.exp(log_tau)
        return DenseGaussian(np.zeros(12), np.linalg.inv(kronecker(np.eye(2), rows))).log_density(vec(T))

    step, at = 1e-3, np.log(tau)
    slope = (log_evidence(at + step) - log_evidence(at - step)) / (2 * step)
    q = MatrixNormal(np.linalg.solve(U + tau / b * np.eye(3), A.T @ T), U + tau / b * np.eye(3), np.eye(2) / b)
    gamma, norm = (
        effective_parameters(q, tau, 0.0, "independent"),
        prior_norm(q.mean, np.eye(2), "independent", q.backend),
    )
    condition = np.linalg.cond(np.eye(6) / b + A @ A.T / tau)
    rounding = THRESHOLD * np.finfo(float).eps * condition * abs(log_evidence(at)) / step
    assert abs(slope - (gamma - tau * norm) / 2) <= rounding + step**2 * (gamma + tau * norm)


@pytest.mark.equation("eq:tempering")
def test_temperature_keeps_to_what_the_data_can_determine():
    settings = Settings(tempering=0.5, max_temperature=0.25)
    assert temperature(5.0, 2, settings) == 0.5 / 5
    assert temperature(0.5, 2, settings) == 0.25
    assert temperature(1e9, 1, settings) == 1.0
    assert temperature(1e9, 2, Settings(tempering=None)) == 1.0
    assert temperature(0.0, 2, settings) == 0.25


@pytest.mark.equation("eq:output-spread")
def test_the_share_moves_towards_what_was_measured():
    """s^(1−β) measured^β: at once for β = 1, not at all for β = 0; nothing measured is a tiny share, overflow none."""
    assert updated_share(0.5, 6.0, 0.125, 24.0, 1.0) == 2.0
    assert updated_share(0.5, 6.0, 0.125, 24.0, 0.0) == 0.5
    assert updated_share(0.5, 6.0, 0.125, 24.0, 0.5) == pytest.approx(1.0, rel=1e-15)
    assert updated_share(0.5, 0.0, 0.125, 24.0, 1.0) == 1e-12
    for broken in (float("inf"), float("nan")):
        assert updated_share(0.5, broken, 0.125, 24.0, 0.5) == 0.5
