"""Statistics with stated error rates: simulation-based calibration, the Monte-Carlo predictive.

Every test of something right fails with probability at most ALPHA = 1e-6 over seeds (and with the seed fixed here not
at all, once it has passed); every one has negative controls that must fail, with the power worked out beside it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import linalg, special, stats

from balinp import (
    MLP,
    Gaussian,
    LayerStatistics,
    MatrixNormal,
    Prior,
    Settings,
    bali_step,
    initial_state,
    layer_posterior,
    predict_monte_carlo,
)
from balinp.testing import (
    ALPHA,
    calibration_ranks,
    inverse,
    kronecker,
    least_power,
    random_spd,
    rank_probabilities,
    rank_uniformity,
    standard_normal_p_value,
    unvec,
    vec,
)

DATASETS, DRAWS, BINS = 2_000, 99, 20


# the tools themselves


def test_the_test_of_ranks_fails_at_its_stated_rate_and_power():
    """Right ranks have p ≤ 0.05 in 5 % of 1 000 sets of 2 000; ranks at 1.1 deviations as often as ``least_power``
    says, or more: both counts are binomial, so both bounds hold but for ALPHA."""
    generator, repeats = np.random.default_rng(0), 1_000
    wrong = rank_probabilities(1.1, DRAWS, BINS)
    expected = least_power(wrong, DATASETS, 0.05, 20_000)
    assert 0.2 < expected < 0.99
    right_ranks = generator.integers(0, DRAWS + 1, (repeats, DATASETS))
    success = special.ndtr(generator.standard_normal((repeats, DATASETS)) / 1.1)
    failed = [
        sum(rank_uniformity(r, DRAWS, BINS).p_value <= 0.05 for r in ranks)
        for ranks in (right_ranks, generator.binomial(DRAWS, success))
    ]
    assert stats.binomtest(failed[0], repeats, 0.05).pvalue > ALPHA
    assert stats.binomtest(failed[1], repeats, expected, "less").pvalue > ALPHA
    assert failed[1] < repeats


def test_rank_probabilities_are_those_of_simulated_ranks():
    generator, n = np.random.default_rng(1), 20_000
    for ratio, shift in ((1.0, 0.0), (np.sqrt(1.5), 0.0), (0.7, 0.3)):
        probabilities = rank_probabilities(ratio, DRAWS, BINS, shift)
        draws = shift + ratio * generator.standard_normal((n, DRAWS))
        ranks = np.sum(draws < generator.standard_normal((n, 1)), axis=1)
        counts = np.bincount(ranks * BINS // (DRAWS + 1), minlength=BINS)
        assert stats.chisquare(counts, n * probabilities).pvalue > ALPHA
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert rank_probabilities(1.0, DRAWS, BINS) == pytest.approx(np.full(BINS, 1 / BINS), abs=1e-9)


@pytest.mark.parametrize(("ranks", "draws"), [([0] * 2000, 98), ([0] * 99, 99), ([100] * 2000, 99), ([-1] * 2000, 99)])
def test_ranks_that_cannot_be_tested_are_refused(ranks, draws):
    with pytest.raises(ValueError, match="cannot be put"):
        rank_uniformity(ranks, draws, BINS)


def test_a_sampler_that_returns_the_wrong_number_is_refused():
    with pytest.raises(ValueError, match="must return 99"):
        calibration_ranks(lambda g: (0.0, None), lambda d, r, g: np.zeros(r - 1), 1, 99, np.random.default_rng(0))


# simulation-based calibration of one linear layer


class Layer:
    """A layer with a dense prior N(vec M₀, Σ ⊗ Λ₀⁻¹) and noise Σ; data are drawn without the core's help."""

    def __init__(self, dtype: str, isotropic: bool = False):
        generator = np.random.default_rng(11)
        self.dtype, d, k = dtype, 3, 2
        self.precision = 0.7 * np.eye(d) if isotropic else random_spd(generator, d, 20.0, np.float64, 3.0)
        self.sigma = 0.4 * np.eye(k) if isotropic else random_spd(generator, k, 10.0, np.float64, 2.0)
        self.mean = np.zeros((d, k)) if isotropic else generator.standard_normal((d, k))
        self.root = np.linalg.cholesky(kronecker(self.sigma, inverse(self.precision)))
        self.noise_root = np.linalg.cholesky(self.sigma)

    def simulate(self, generator: np.random.Generator) -> tuple[float, tuple[np.ndarray, ...]]:
        """A row u and a column v are drawn as well: the number that is ranked is u W v."""
        d, k = self.mean.shape
        W = unvec(vec(self.mean) + self.root @ generator.standard_normal(d * k), d)
        A = np.hstack([generator.standard_normal((4, d - 1)), np.ones((4, 1))])
        T = A @ W + generator.standard_normal((4, k)) @ self.noise_root.T
        u, v = generator.standard_normal(d), generator.standard_normal(k)
        return float(u @ W @ v), (A, T, u, v)

    def posterior(self, A: np.ndarray, T: np.ndarray) -> MatrixNormal:
        prior = Prior(self.mean.astype(self.dtype), self.precision.astype(self.dtype))
        statistics = LayerStatistics.from_batch(A.astype(self.dtype), T.astype(self.dtype))
        return layer_posterior(statistics, prior, self.sigma.astype(self.dtype))

    def by_iteration(self, A: np.ndarray, T: np.ndarray) -> MatrixNormal:
        """One iteration of a network without hidden layers from weights that are not the prior's mean: identity 8."""
        settings = Settings.preset("literal", step="natural", prior_precision=0.7)
        likelihood = Gaussian(np.asarray(self.sigma[0, 0]))
        state = initial_state(MLP((A.shape[1] - 1, T.shape[1])), likelihood, np.random.default_rng(0), settings)
        moved = state.layers[0].posterior.with_mean(np.ones(self.mean.shape))
        state = replace(state, layers=(replace(state.layers[0], posterior=moved),))
        return bali_step(state, A[:, :-1], T, np.random.default_rng(0), settings).posteriors[0]


def layer_p_value(layer: Layer, change=lambda q: q, posterior=None, datasets: int = DATASETS) -> float:
    def sample(data: tuple[np.ndarray, ...], draws: int, generator: np.random.Generator) -> np.ndarray:
        A, T, u, v = data
        q = change((posterior or layer.posterior)(A, T))
        W = q.sample(generator.standard_normal((draws, *q.mean.shape)).astype(q.mean.dtype))
        return u @ W @ v

    ranks = calibration_ranks(layer.simulate, sample, datasets, DRAWS, np.random.default_rng(5))
    return rank_uniformity(ranks, DRAWS, BINS).p_value


@pytest.mark.equation("eq:layer-posterior")
@pytest.mark.equation("eq:sampling")
def test_a_layer_is_calibrated(dtype):
    assert layer_p_value(Layer(dtype.name)) > ALPHA


@pytest.mark.equation("eq:iteration")
@pytest.mark.equation("eq:sampling")
def test_one_iteration_of_a_linear_network_is_calibrated():
    layer = Layer("float64", isotropic=True)
    assert layer_p_value(layer, posterior=layer.by_iteration, datasets=500) > ALPHA


def test_the_power_against_a_covariance_times_one_and_a_half():
    """Bin probabilities at √1.5 deviations: 0.023 at the ends, 0.061 in the middle. The mean of χ² is then about
    2 000 · 20 · ∑(p − 1/20)² + 19 = 128, the threshold for 1e-6 is 63.7; it is missed 2 times in 100 000."""
    wrong = rank_probabilities(np.sqrt(1.5), DRAWS, BINS)
    assert least_power(wrong, DATASETS) > 0.9999


LAYER = Layer("float64")
WRONG = {
    "covariance × 1.5": lambda q: q.tempered(1.5),
    "covariance / 1.5": lambda q: q.tempered(1 / 1.5),
    "prior precision forgotten": lambda q: replace(q, row_precision=q.row_precision - 0.9 * LAYER.precision),
    "P for P⁻¹": lambda q: replace(q, row_precision=np.linalg.inv(q.row_precision)),
    "mean shrunk": lambda q: q.with_mean(0.7 * q.mean),
}


@pytest.mark.equation("eq:layer-posterior")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_layer_is_not_calibrated(name):
    assert layer_p_value(LAYER, WRONG[name]) < ALPHA


# the Monte-Carlo predictive and the sampled networks


def trained(widths: tuple[int, ...], tempering: float = 0.5):
    """A Gaussian network after three iterations, sampling begun; four rows of inputs."""
    generator = np.random.default_rng(2)
    x, y = generator.standard_normal((12, widths[0])), generator.standard_normal((12, widths[-1]))
    settings = Settings(warmup=1, damping=0.01, tempering=tempering)
    state = initial_state(MLP(widths, "tanh"), Gaussian(np.array([0.3] * widths[-1])), generator, settings)
    for _ in range(3):
        state = bali_step(state, x, y, generator, settings)
    return state, generator.standard_normal((4, widths[0]))


def predictive_p_value(covariance_factor: float = 1.0, noise: float = 0.0, kron_swap: bool = False) -> float:
    """The draws of three rows of a linear network, whitened by the dense closed form."""
    state, x = trained((2, 2))
    q, x = state.layers[0].posterior, x[:3]
    draws = predict_monte_carlo(state, x, np.random.default_rng(8), 10_000).draws
    assert draws is not None
    rng = np.random.default_rng(9)
    draws = draws + noise * rng.standard_normal(draws.shape)
    rows = inverse(q.row_precision)
    a = np.hstack([x, np.ones((3, 1))])
    shared = a @ rows @ a.T  # Cov(vec of the rows' outputs) = Σ ⊗ A P⁻¹ Aᵀ
    dense = kronecker(shared, q.column_covariance) if kron_swap else kronecker(q.column_covariance, shared)
    centred = (draws - a @ q.mean).transpose(0, 2, 1).reshape(len(draws), -1)
    factor = np.linalg.cholesky(covariance_factor * dense)
    return standard_normal_p_value(linalg.solve_triangular(factor, centred.T, lower=True))


@pytest.mark.equation("eq:monte-carlo-predictive")
@pytest.mark.equation("eq:layer-predictive")
def test_monte_carlo_draws_of_a_linear_layer_have_the_closed_form_distribution():
    """Six whitened numbers a draw, 10 000 draws: all moments, pairs and the Kolmogorov–Smirnov distance.

    A covariance wrong by 1.2 is 0.2√(10 000/2) = 14 deviations of χ² away, the threshold about 6: power 1 − 1e-15.
    """
    assert predictive_p_value() > ALPHA


@pytest.mark.equation("eq:monte-carlo-predictive")
@pytest.mark.parametrize("wrong", [{"covariance_factor": 1.2}, {"noise": 0.3}, {"kron_swap": True}])
def test_a_wrong_predictive_is_seen(wrong):
    assert predictive_p_value(**wrong) < ALPHA


def network_p_value(change=lambda draw: draw, temperature: float = 1.0) -> float:
    """4 000 sampled networks, all weights of both layers as one vector, whitened by the tempered dense covariances."""
    state, _ = trained((2, 2, 1))
    assert 0 < state.temperature < 1
    generator = np.random.default_rng(6)
    draws = (change(state.sample_weights(generator)) for _ in range(4_000))
    rows = [[vec(w - m) for w, m in zip(draw, state.means)] for draw in draws]
    parts = []
    for layer, centred in zip(state.layers, zip(*rows)):
        q = layer.posterior
        covariance = temperature * state.temperature * kronecker(q.column_covariance, inverse(q.row_precision))
        parts.append(linalg.solve_triangular(np.linalg.cholesky(covariance), np.array(centred).T, lower=True))
    return standard_normal_p_value(np.concatenate(parts))


@pytest.mark.equation("eq:sampling")
@pytest.mark.equation("eq:tempering")
def test_sampled_networks_have_the_tempered_covariance_and_independent_layers():
    assert network_p_value() > ALPHA


@pytest.mark.equation("eq:sampling")
def test_wrongly_sampled_networks_are_seen():
    """A temperature 1.3-fold: 0.3√(4 000/2) = 13 deviations; a second layer that follows the first."""
    means = trained((2, 2, 1))[0].means
    assert network_p_value(temperature=1.3) < ALPHA
    assert network_p_value(lambda draw: [draw[0], draw[1] + 0.5 * (draw[0][:1, :1] - means[0][:1, :1])]) < ALPHA
