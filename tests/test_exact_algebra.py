"""Identities 1 to 6 and 10 over the rational numbers: error exactly zero.

Half of these tests run the core's own code on Fractions, through the backend ``RATIONAL``; the others hold the
algebra itself, so that the oracles rest on something as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balinp import LayerStatistics, MatrixNormal, Prior, layer_posterior, pseudo_targets
from balinp.testing import (
    RATIONAL,
    random_rational,
    rational,
    rational_determinant,
    rational_factor,
    rational_inverse,
    seeds,
)

small = st.integers(1, 3)


def vec(matrix: np.ndarray) -> np.ndarray:
    return matrix.T.reshape(-1)


def eye(n: int) -> np.ndarray:
    return rational(np.eye(n, dtype=int))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    assert all(isinstance(value, (Fraction, int)) for value in np.ravel(a)), "a float crept in"
    return a.shape == b.shape and bool(np.all(a == b))


@dataclass(frozen=True)
class Exact:
    """A layer regression over the rationals whose P = Λ₀ + AᵀA = L Lᵀ and Σ = R Rᵀ have rational factors.

    Λ₀ is what L Lᵀ leaves over, symmetric but not always positive; the algebra does not ask for more than P.
    """

    A: np.ndarray
    T: np.ndarray
    prior: Prior
    P: np.ndarray
    sigma: np.ndarray

    @property
    def statistics(self) -> LayerStatistics:
        return LayerStatistics.from_batch(self.A, self.T)

    def posterior(self) -> MatrixNormal:
        return layer_posterior(self.statistics, self.prior, self.sigma, RATIONAL)


@st.composite
def problems(draw) -> Exact:
    n, d, k = draw(small), draw(small), draw(small)
    generator = np.random.default_rng(draw(seeds()))
    A, T, mean = (random_rational(generator, shape) for shape in ((n, d), (n, k), (d, k)))
    L, R = rational_factor(generator, d), rational_factor(generator, k)
    return Exact(A, T, Prior(mean, L @ L.T - A.T @ A), L @ L.T, R @ R.T)


@given(seed=seeds(), sizes=st.tuples(small, small, small, small))
def test_vec_of_a_product_is_a_kronecker_product(seed, sizes):
    """vec(U X Bᵀ) = (B ⊗ U) vec X, not (U ⊗ B) vec X."""
    generator, (p, d, k, q) = np.random.default_rng(seed), sizes
    U, X, B = (random_rational(generator, shape) for shape in ((p, d), (d, k), (q, k)))
    assert same(vec(U @ X @ B.T), np.kron(B, U) @ vec(X))


@given(seed=seeds(), d=small, k=small)
def test_kronecker_inverse_determinant_and_quadratic_form(seed, d, k):
    generator = np.random.default_rng(seed)
    U, B = (L @ L.T for L in (rational_factor(generator, d), rational_factor(generator, k)))
    X = random_rational(generator, (d, k))
    assert same(np.kron(rational_inverse(B), rational_inverse(U)), rational_inverse(np.kron(B, U)))
    assert vec(X) @ np.kron(B, U) @ vec(X) == np.trace(B @ X.T @ U @ X)
    if d * k <= 4:
        product = rational_determinant(B) ** d * rational_determinant(U) ** k
        assert rational_determinant(np.kron(B, U)) == product


@given(problem=problems())
def test_woodbury_and_the_determinant_lemma(problem):
    """(I + A Λ⁻¹ Aᵀ)⁻¹ = I − A P⁻¹ Aᵀ and |I + A Λ⁻¹ Aᵀ| |Λ| = |P|, here with Λ = P₁, P = P₁ + AᵀA."""
    A, prior = problem.A, problem.P
    P = prior + A.T @ A
    rows = eye(len(A)) + A @ rational_inverse(prior) @ A.T
    assert same(rational_inverse(rows), eye(len(A)) - A @ rational_inverse(P) @ A.T)
    assert rational_determinant(rows) * rational_determinant(prior) == rational_determinant(P)


@pytest.mark.equation("eq:layer-posterior")
@given(problem=problems(), seed=seeds())
def test_completing_the_square(problem, seed):
    """−2 log(likelihood × prior) and −2 log posterior differ by a number that W is not in, for any W."""
    A, T, prior, sigma = problem.A, problem.T, problem.prior, problem.sigma
    q, precision = problem.posterior(), rational_inverse(sigma)
    W = random_rational(np.random.default_rng(seed), q.mean.shape)
    noise, drift, distance = T - A @ W, W - prior.mean, W - q.mean
    joint = np.trace(precision @ (noise.T @ noise + drift.T @ prior.precision @ drift))
    posterior = np.trace(precision @ (distance.T @ q.row_precision @ distance))
    left_over = T.T @ T + prior.mean.T @ prior.precision @ prior.mean - q.mean.T @ q.row_precision @ q.mean
    assert joint - posterior == np.trace(precision @ left_over)


@pytest.mark.equation("eq:layer-posterior")
@given(problem=problems())
def test_layer_posterior_is_bayes_rule_in_vec_form(problem):
    A, T, prior, sigma = problem.A, problem.T, problem.prior, problem.sigma
    q = problem.posterior()
    design, noise = np.kron(eye(len(sigma)), A), np.kron(rational_inverse(sigma), eye(len(A)))
    weights = np.kron(rational_inverse(sigma), prior.precision)
    precision = weights + design.T @ noise @ design
    linear = weights @ vec(prior.mean) + design.T @ noise @ vec(T)
    assert same(precision @ vec(q.mean), linear)
    assert same(np.kron(rational_inverse(q.column_covariance), q.row_precision), precision)
    assert same(q.row_factor @ q.row_factor.T, problem.P)


@pytest.mark.equation("eq:natural-parameters")
@given(problem=problems())
def test_natural_parameters_and_back_exactly(problem):
    q = problem.posterior()
    column, row, linear = q.natural_parameters()
    assert same(np.kron(column, row) @ vec(q.mean), vec(linear))
    assert same(column @ q.column_covariance, eye(len(column)))


@pytest.mark.equation("eq:natural-parameters")
@given(seed=seeds(), d=small, k=small)
def test_from_natural_parameters_is_the_inverse_exactly(seed, d, k):
    generator = np.random.default_rng(seed)
    L, R = rational_factor(generator, d), rational_factor(generator, k)
    M = random_rational(generator, (d, k))
    q = MatrixNormal.from_natural_parameters(R @ R.T, L @ L.T, L @ L.T @ M @ R @ R.T, RATIONAL)
    assert same(q.mean, M)
    assert same(q.column_covariance, rational_inverse(R @ R.T))


@pytest.mark.equation("eq:pseudo-targets")
@given(problem=problems(), seed=seeds())
def test_pseudo_targets_minimise_the_linearised_loss_with_its_proximal_term(problem, seed):
    """Identity 4: ℓ + g·δ + ½ δ Σ⁻¹ δᵀ is ½ (t − aW) Σ⁻¹ (t − aW)ᵀ + a number, for δ = aW − h and t = h − gΣ."""
    sigma, precision = problem.sigma, rational_inverse(problem.sigma)
    h, g, delta = (random_rational(np.random.default_rng([seed, i]), (1, len(sigma))) for i in range(3))
    t = pseudo_targets(h, g, sigma)
    linearised = 2 * g @ delta.T + delta @ precision @ delta.T
    residual = t - (h + delta)
    assert same(residual @ precision @ residual.T - linearised, g @ sigma @ g.T)
    number = Fraction(3, 7)
    assert same(pseudo_targets(h, g, number), pseudo_targets(h, g, number * eye(len(sigma))))


@pytest.mark.equation("eq:step-form")
@given(problem=problems(), seed=seeds())
def test_step_form(problem, seed):
    """Identity 5: with T = A M − G Σ the posterior mean moves by −P⁻¹(AᵀGΣ + Λ₀(M − M₀)); G Σ, not Σ G."""
    A, prior, sigma = problem.A, problem.prior, problem.sigma
    generator = np.random.default_rng(seed)
    M, G = random_rational(generator, prior.mean.shape), random_rational(generator, problem.T.shape)
    statistics = LayerStatistics.from_batch(A, pseudo_targets(A @ M, G, sigma))
    moved = layer_posterior(statistics, prior, sigma, RATIONAL).mean
    step = -rational_inverse(problem.P) @ (A.T @ G @ sigma + prior.precision @ (M - prior.mean))
    assert same(moved - M, step)
    # the same regression in coordinates centred on M, as the solver does it
    centred = LayerStatistics.from_batch(A, G).map_targets(-sigma)
    pull = Prior(prior.mean - M, prior.precision)
    assert same(layer_posterior(centred, pull, sigma, RATIONAL).mean, step)


@pytest.mark.equation("eq:ema")
@given(problem=problems(), seed=seeds(), rate=st.sampled_from([Fraction(1), Fraction(1, 3), Fraction(1, 10)]))
def test_moving_average_form_is_step_form(problem, seed, rate):
    """Identity 6: from the solution M_old of the old sums, one decay moves the mean by
    −β P⁻¹((N/m) AᵀGΣ + Λ₀(M_old − M₀)), P the new precision, and N/m the weight of the batch's rows."""
    generator, sigma, total = np.random.default_rng(seed), problem.sigma, 7
    old, (m, d) = problem.statistics, problem.A.shape
    weight = Fraction(total, m)
    A, G = random_rational(generator, (m, d)), random_rational(generator, problem.T.shape)
    L = rational_factor(generator, d)
    gram = (1 - rate) * old.gram + rate * weight * A.T @ A
    precision = L @ L.T - gram  # so that the new P has a rational factor
    prior = Prior(problem.prior.mean, precision)
    P_old = precision + old.gram
    if rational_determinant(P_old) == 0:
        return
    M_old = rational_inverse(P_old) @ (precision @ prior.mean + old.cross)
    batch = LayerStatistics.from_batch(A, pseudo_targets(A @ M_old, G, sigma)).scale(weight)
    new = layer_posterior(old.decay(batch, rate), prior, sigma, RATIONAL)
    pulled = weight * A.T @ G @ sigma + precision @ (M_old - prior.mean)
    assert same(new.row_precision, L @ L.T)
    assert same(new.mean - M_old, -rate * rational_inverse(L @ L.T) @ pulled)


@pytest.mark.equation("eq:sampling")
@given(seed=seeds(), d=small, k=small)
def test_samples_of_unit_draws_add_up_to_the_covariance_exactly(seed, d, k):
    generator = np.random.default_rng(seed)
    L, R = rational_factor(generator, d), rational_factor(generator, k)
    q = MatrixNormal(rational(np.zeros((d, k), dtype=int)), L @ L.T, R @ R.T, RATIONAL)
    J = np.stack([vec(w) for w in q.sample(eye(d * k).reshape(-1, d, k))], axis=1)
    assert same(J @ J.T, np.kron(R @ R.T, rational_inverse(L @ L.T)))


@pytest.mark.equation("eq:layer-predictive")
@given(problem=problems(), seed=seeds())
def test_predictive_of_a_layer_exactly(problem, seed):
    q, (d, k) = problem.posterior(), problem.prior.mean.shape
    a = random_rational(np.random.default_rng(seed), (2, d))
    means, covariances = q.predictive(a)
    covariance = np.kron(q.column_covariance, rational_inverse(q.row_precision))
    for row, mean, cov in zip(a, means, covariances):
        design = np.kron(eye(k), row[None, :])
        assert same(mean, design @ vec(q.mean))
        assert same(cov, design @ covariance @ design.T)


def test_the_rational_backend_refuses_what_it_cannot_factorise():
    assert RATIONAL._cholesky(rational([[2]])) is None  # √2 is not rational
    assert RATIONAL._cholesky(rational([[1, 1], [1, 1]])) is None
    with pytest.raises(ZeroDivisionError, match="singular"):
        rational_inverse(rational([[1, 1], [1, 1]]))
