"""Identity 9: density, entropy, KL, natural parameters, predictive of the matrix normal against dense Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balinp import InvalidArgumentError, MatrixNormal
from balinp.testing import (
    THRESHOLD,
    assert_residual,
    comparison_residual,
    condition_number,
    dense_normal,
    dense_predictive,
    kronecker_residual,
    log_determinant_residual,
    machine_epsilon,
    matrix_normal_log_density,
    matrix_normal_pairs,
    matrix_normals,
    orthogonal,
    seeds,
    sizes,
    solve_residual,
    unvec,
    vec,
)

pytestmark = pytest.mark.usefixtures("on_backend")


def dense(q: MatrixNormal):
    return dense_normal(q.mean, q.row_precision, q.column_covariance)


def condition(*normals: MatrixNormal) -> float:
    """The condition number of the dense covariance: the product of the factors', the largest of the normals."""
    return max(condition_number(q.row_precision) * condition_number(q.column_covariance) for q in normals)


def log_scale(q: MatrixNormal) -> float:
    """What a log determinant or density is a sum of: D·K terms and both log determinants."""
    d, k = q.mean.shape
    return d * k + abs(d * float(q.column_log_determinant)) + abs(k * float(q.row_log_determinant))


def distance_scale(q: MatrixNormal, difference: np.ndarray) -> float:
    """‖P‖ ‖Σ⁻¹‖ ‖W − M‖²: what rounding of the squared distance is proportional to."""
    smallest = np.linalg.eigvalsh(q.column_covariance.astype(np.float64))[0]
    largest = np.linalg.norm(q.row_precision.astype(np.float64), 2)
    return float(largest / smallest * np.sum(difference.astype(np.float64) ** 2))


def point(q: MatrixNormal, seed: int) -> np.ndarray:
    """A W that q finds plausible."""
    z = np.random.default_rng(seed).standard_normal(q.mean.shape).astype(q.mean.dtype)
    return q.sample(z)


@pytest.mark.equation("eq:log-determinant")
@given(q=matrix_normals())
def test_log_determinant(q):
    assert q.row_log_determinant.dtype == q.column_log_determinant.dtype == q.mean.dtype
    for name, matrix in (("row", q.row_precision), ("column", q.column_covariance)):
        ratio = log_determinant_residual(getattr(q, f"{name}_log_determinant"), matrix)
        assert_residual(ratio, f"log determinant of the {name} factor", "eq:log-determinant")
    scale = log_scale(q) + condition(q)
    ratio = comparison_residual(q.log_determinant(), dense(q).log_determinant(), scale=scale, size=max(q.mean.shape))
    assert_residual(ratio, "log|Cov(vec W)|", "eq:log-determinant")


@pytest.mark.equation("eq:log-density")
@given(q=matrix_normals(), seed=seeds(), spread=st.sampled_from([0.0, 1.0, 5.0]))
def test_log_density(q, seed, spread):
    w = (q.mean + spread * (point(q, seed) - q.mean)).astype(q.mean.dtype)
    scale = log_scale(q) + condition(q) + distance_scale(q, w - q.mean)
    ratio = comparison_residual(q.log_density(w), dense(q).log_density(vec(w)), scale=scale, size=max(w.shape))
    assert q.log_density(w).dtype == w.dtype
    assert_residual(ratio, "log density against the dense Gaussian", "eq:log-density")


@pytest.mark.equation("eq:log-density")
@given(q=matrix_normals(condition=2.0), seed=seeds())
def test_log_density_against_scipys_matrix_normal(q, seed):
    w = point(q, seed)
    expected = matrix_normal_log_density(w, q.mean, q.row_precision, q.column_covariance)
    scale = log_scale(q) + distance_scale(q, w - q.mean)
    ratio = comparison_residual(q.log_density(w), expected, condition(q), scale, size=max(w.shape))
    assert_residual(ratio, "log density against scipy.stats.matrix_normal", "eq:log-density")


@pytest.mark.equation("eq:entropy")
@given(q=matrix_normals(), seed=seeds())
def test_entropy(q, seed):
    scale = log_scale(q) + condition(q)
    ratio = comparison_residual(q.entropy(), dense(q).entropy(), scale=scale, size=max(q.mean.shape))
    assert_residual(ratio, "entropy against the dense Gaussian", "eq:entropy")
    # the entropy is the mean of −log p, and DK/2 is the mean of the squared distance
    peak = -q.log_density(q.mean) + q.mean.size / 2
    ratio = comparison_residual(q.entropy(), peak, scale=log_scale(q))
    assert_residual(ratio, "entropy against the density at the mean", "eq:entropy")


def kl_scale(q: MatrixNormal, p: MatrixNormal) -> float:
    rows = np.trace(np.linalg.solve(q.row_precision.astype(float), p.row_precision.astype(float)))
    columns = np.trace(np.linalg.solve(p.column_covariance.astype(float), q.column_covariance.astype(float)))
    return float(rows * columns) + distance_scale(p, q.mean - p.mean) + log_scale(q) + log_scale(p)


@pytest.mark.equation("eq:kl")
@given(pair=matrix_normal_pairs())
def test_kl_divergence(pair):
    q, p = pair
    computed = q.kl_divergence(p)
    assert computed.dtype == q.mean.dtype
    size, kappa, scale = max(q.mean.shape), condition(q, p), kl_scale(q, p)
    ratio = comparison_residual(computed, dense(q).kl_divergence(dense(p)), kappa, scale, size)
    assert_residual(ratio, "KL(q ‖ p) against dense Gaussians", "eq:kl")
    negative = np.minimum(computed, computed.dtype.type(0))
    assert_residual(comparison_residual(negative, 0 * negative, scale=scale, size=size), "KL ≥ 0", "eq:kl")
    lost = THRESHOLD * size * machine_epsilon(computed) * kappa * scale
    assert computed > 0 or dense(q).kl_divergence(dense(p)) < lost  # zero only where the two are equal to rounding


@pytest.mark.equation("eq:kl")
@given(q=matrix_normals())
def test_kl_divergence_of_a_distribution_from_itself_is_zero(q):
    again = MatrixNormal(q.mean.copy(), q.row_precision.copy(), q.column_covariance.copy())
    ratio = comparison_residual(
        q.kl_divergence(again), q.mean.dtype.type(0), scale=log_scale(q), size=max(q.mean.shape)
    )
    assert_residual(ratio, "KL(q ‖ q) against zero", "eq:kl")


@pytest.mark.equation("eq:kl")
@given(pair=matrix_normal_pairs(condition=2.0), seed=seeds())
def test_kl_divergence_is_cross_entropy_minus_entropy(pair, seed):
    """E_q[log q − log p] over the 2·DK symmetric points M ± √DK L⁻ᵀ E_ij Rᵀ, exact for quadratics."""
    q, p = pair
    n = q.mean.size
    basis = (np.sqrt(n) * np.eye(n)).reshape(n, *q.mean.shape).astype(q.mean.dtype)
    points = [w for s in (1, -1) for w in q.sample(s * basis)]
    gaps = [float(q.log_density(w) - p.log_density(w)) for w in points]
    scale = kl_scale(q, p)
    ratio = comparison_residual(q.kl_divergence(p), np.mean(gaps), condition(q, p), scale, max(q.mean.shape))
    assert_residual(ratio, "KL(q ‖ p) against the mean of log q − log p", "eq:kl")


@pytest.mark.equation("eq:natural-parameters")
@given(q=matrix_normals())
def test_natural_parameters_are_those_of_the_dense_gaussian(q):
    precision, rows, linear = q.natural_parameters()
    assert precision.dtype == rows.dtype == linear.dtype == q.mean.dtype
    assert rows is q.row_precision
    eye = np.eye(len(precision), dtype=q.mean.dtype)
    assert_residual(solve_residual(q.column_covariance, precision, eye), "Σ Σ⁻¹ = I", "eq:natural-parameters")
    ratio = kronecker_residual(linear, np.linalg.inv(q.column_covariance.astype(float)), rows, q.mean)
    ratio /= condition_number(q.column_covariance)
    assert_residual(ratio, "(Σ⁻¹ ⊗ P) vec M", "eq:natural-parameters")
    ratio = comparison_residual(np.kron(precision, rows), dense(q).precision, condition(q))
    assert_residual(ratio, "Σ⁻¹ ⊗ P against the dense precision", "eq:natural-parameters")


@pytest.mark.equation("eq:natural-parameters")
@given(q=matrix_normals())
def test_natural_parameters_and_back(q):
    again = MatrixNormal.from_natural_parameters(*q.natural_parameters())
    assert again.mean.dtype == q.mean.dtype
    kappa = condition(q)
    for name in ("mean", "row_precision", "column_covariance"):
        ratio = comparison_residual(getattr(again, name), getattr(q, name), kappa)
        assert_residual(ratio, f"{name} after natural parameters and back", "eq:natural-parameters")


@pytest.mark.equation("eq:layer-predictive")
@given(q=matrix_normals(), rows=st.sampled_from([0, 1, 3]), seed=seeds())
def test_predictive_of_a_layer(q, rows, seed):
    d, k = q.mean.shape
    a = np.random.default_rng(seed).standard_normal((rows, d)).astype(q.mean.dtype)
    means, covariances = q.predictive(a)
    assert means.shape == (rows, k)
    assert covariances.shape == (rows, k, k)
    assert means.dtype == covariances.dtype == q.mean.dtype
    assert np.all(q.row_variance(a) >= 0)
    for row, mean, covariance in zip(a, means, covariances):
        m, c = dense_predictive(dense(q), row, k)
        scale = float(np.linalg.norm(row) * np.linalg.norm(q.mean))
        assert_residual(comparison_residual(mean, m, scale=scale, size=d), "a M", "eq:layer-predictive")
        ratio = comparison_residual(covariance, c, condition(q), size=d * k)
        assert_residual(ratio, "(a P⁻¹ aᵀ) Σ", "eq:layer-predictive")


@given(q=matrix_normals())
def test_trace_of_the_row_covariance(q):
    expected = np.trace(np.linalg.inv(q.row_precision.astype(float)))
    kappa = condition_number(q.row_precision)
    ratio = comparison_residual(q.row_covariance_trace, expected, kappa, size=len(q.mean))
    assert_residual(ratio, "tr P⁻¹", "row-covariance-trace")


@pytest.mark.equation("eq:tempering", "eq:matrix-normal")
@given(q=matrix_normals(), temperature=st.sampled_from([0.25, 1.0, 3.0]), warm=st.booleans())
def test_tempering_scales_the_covariance_and_leaves_the_caches_true(q, temperature, warm):
    if warm:  # the factors are known before, and must not be handed on where they are no longer true
        q.log_determinant(), q.row_covariance_trace
    hot = q.tempered(temperature)
    assert hot.mean is q.mean
    covariance = dense(hot).covariance.astype(q.mean.dtype)
    ratio = comparison_residual(covariance, temperature * dense(q).covariance, condition(q))
    assert_residual(ratio, "dense covariance × temperature", "eq:tempering")
    fresh = MatrixNormal(hot.mean, hot.row_precision, hot.column_covariance)
    for name in ("row_factor", "column_factor", "row_covariance_trace"):
        assert np.array_equal(getattr(hot, name), getattr(fresh, name))
    assert hot.log_determinant() == fresh.log_determinant()


@given(q=matrix_normals(), seed=seeds(), warm=st.booleans())
def test_another_mean_keeps_the_covariance_and_nothing_stale(q, seed, warm):
    if warm:
        q.log_density(q.mean), q.row_covariance_trace
    moved = q.with_mean(point(q, seed))
    fresh = MatrixNormal(moved.mean, q.row_precision, q.column_covariance)
    w = point(q, seed + 1)
    assert moved.log_density(w) == fresh.log_density(w)
    assert moved.row_covariance_trace == fresh.row_covariance_trace
    assert np.array_equal(moved.sample(w), fresh.sample(w))


@pytest.mark.equation("eq:matrix-normal")
@given(pair=matrix_normal_pairs(), a=st.sampled_from([0.25, 3.0, 100.0]), seed=seeds())
def test_gauge_changes_nothing(pair, a, seed):
    """(aΣ, aP) has the same Σ ⊗ P⁻¹."""
    q, p = pair
    other = MatrixNormal(q.mean, a * q.row_precision, a * q.column_covariance)
    w, size = point(q, seed), max(q.mean.shape)
    scale = log_scale(q) + log_scale(other) + condition(q) + distance_scale(q, w - q.mean)
    for name, values, unit in (
        ("log determinant", (other.log_determinant(), q.log_determinant()), scale),
        ("log density", (other.log_density(w), q.log_density(w)), scale),
        ("KL(q ‖ p)", (other.kl_divergence(p), q.kl_divergence(p)), condition(q, p) * (scale + kl_scale(q, p))),
        ("KL(p ‖ q)", (p.kl_divergence(other), p.kl_divergence(q)), condition(q, p) * (scale + kl_scale(p, q))),
    ):
        assert_residual(comparison_residual(*values, scale=unit, size=size), f"gauge: {name}", "eq:matrix-normal")
    z = np.random.default_rng(seed).standard_normal(w.shape).astype(w.dtype)
    ratio = comparison_residual(other.sample(z), q.sample(z), condition(q), size=size)
    assert_residual(ratio, "gauge: sample", "eq:matrix-normal")
    row = z[:, 0][None, :]
    ratio = comparison_residual(other.predictive(row)[1], q.predictive(row)[1], condition(q), size=size)
    assert_residual(ratio, "gauge: predictive covariance", "eq:matrix-normal")


@pytest.mark.equation("eq:log-density")
@given(q=matrix_normals(condition=2.0), seed=seeds())
def test_rotating_the_outputs_rotates_the_distribution(q, seed):
    R = orthogonal(np.random.default_rng(seed), q.mean.shape[1], q.mean.dtype)
    sigma = R.T @ q.column_covariance @ R
    turned = MatrixNormal(q.mean @ R, q.row_precision, (sigma + sigma.T) / 2)
    w = point(q, seed)
    scale = log_scale(q) + distance_scale(q, w - q.mean) + distance_scale(q, q.mean) ** 0.5
    ratio = comparison_residual(turned.log_density(w @ R), q.log_density(w), condition(q), scale, max(w.shape))
    assert_residual(ratio, "density of W R under the rotated distribution", "eq:log-density")


@given(d=sizes(5), k=sizes(5))
def test_shapes_that_disagree_are_refused(d, k):
    mean = np.zeros((d, k))
    with pytest.raises(InvalidArgumentError, match="needs row_precision"):
        MatrixNormal(mean, np.eye(d + 1), np.eye(k))
    with pytest.raises(InvalidArgumentError, match="and column_covariance"):
        MatrixNormal(mean, np.eye(d), np.eye(k + 1))
    q, p = MatrixNormal(mean, np.eye(d), np.eye(k)), MatrixNormal(np.zeros((d, k + 1)), np.eye(d), np.eye(k + 1))
    with pytest.raises(InvalidArgumentError, match="other must have a mean of shape"):
        q.kl_divergence(p)


@pytest.mark.equation("eq:sampling")
@given(q=matrix_normals())
def test_samples_are_an_affine_map_of_the_draws_with_the_right_covariance(q):
    """Feeding unit vectors for z gives J with vec W = vec M + J vec z; then J Jᵀ must be Σ ⊗ P⁻¹."""
    d, k = q.mean.shape
    basis = np.stack([unvec(e, d) for e in np.eye(d * k)]).astype(q.mean.dtype)
    centred = MatrixNormal(np.zeros_like(q.mean), q.row_precision, q.column_covariance)
    J = np.stack([vec(w) for w in centred.sample(basis)], axis=1)
    ratio = comparison_residual((J @ J.T).astype(q.mean.dtype), dense(q).covariance, condition(q), size=max(d, k))
    assert_residual(ratio, "J Jᵀ against Σ ⊗ P⁻¹", "eq:sampling")
    assert np.array_equal(q.sample(np.zeros_like(q.mean)), q.mean)


@pytest.mark.equation("eq:sampling")
@given(q=matrix_normals(), seed=seeds())
def test_many_samples_at_once_are_the_single_ones(q, seed):
    z = np.random.default_rng(seed).standard_normal((3, *q.mean.shape)).astype(q.mean.dtype)
    together = q.sample(z)
    assert together.dtype == q.mean.dtype
    assert together.shape == z.shape
    scale = float(np.linalg.norm(q.mean))
    for one, w in zip(z, together):
        ratio = comparison_residual(w, q.sample(one), condition_number(q.row_precision), scale)
        assert_residual(ratio, "samples drawn together and one by one", "eq:sampling")
