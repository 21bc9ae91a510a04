"""Statistics with stated error rates: the signs that probes are made of, and the covariance of the probes.

As in test_calibration.py: what is right fails with probability at most ALPHA = 1e-6 over seeds, and every test has
negative controls that must fail, with the power worked out beside it.
"""

from __future__ import annotations

import numpy as np
import pytest

from balinp import MLP, NUMPY, Categorical, Gaussian, Settings
from balinp.passes import data_sums
from balinp.testing import ALPHA, fair_sign_p_value, standard_normal_p_value


class RecordingGaussian(Gaussian):
    """A Gaussian likelihood that keeps the noise its probes were made of."""

    def probe(self, h, noise):
        self.__dict__.setdefault("seen", []).append(noise)
        return super().probe(h, noise)


def probe_noise(rows: int, block_rows: int) -> np.ndarray:
    """The noise (3, rows) that one pass over the data draws for three outputs."""
    likelihood, mlp = RecordingGaussian(np.full(3, 0.5)), MLP((1, 2, 3))
    generator = np.random.default_rng(3)
    settings = Settings(block_rows=block_rows)
    x, y = np.zeros((rows, 1)), np.zeros((rows, 3))
    data_sums(mlp, likelihood, mlp.initial_weights(generator), x, y, generator, settings, None)
    return np.concatenate(likelihood.__dict__["seen"]).T


@pytest.mark.equation("eq:curvature-probe")
def test_probe_noise_is_fair_independent_signs():
    noise = probe_noise(20_000, 2_048)
    assert noise.shape == (3, 20_000)
    assert fair_sign_p_value(noise) > ALPHA
    assert fair_sign_p_value(np.vstack([noise[0, :-1], noise[0, 1:], noise[1, 1:]])) > ALPHA  # nor from row to row
    blocks = noise[0, : 9 * 2_048].reshape(9, -1)
    assert fair_sign_p_value(blocks) > ALPHA  # nor from block to block


@pytest.mark.equation("eq:curvature-probe")
def test_unfair_signs_are_seen():
    """P(+) = 0.55 is 14 deviations away at n = 20 000, a correlation of 0.1 between outputs as well."""
    generator = np.random.default_rng(4)
    noise = probe_noise(20_000, 2_048)
    biased = np.where(generator.random(noise.shape) < 0.1, 1.0, noise)  # P(+) = 0.55
    tied = noise.copy()
    tied[1] = np.where(generator.random(20_000) < 0.1, noise[0], noise[1])
    for wrong in (biased, tied, np.tile(noise[:1], (3, 1)), 2 * noise, generator.standard_normal(noise.shape)):
        assert fair_sign_p_value(wrong) < ALPHA


def probe_p_value(likelihood, factor: float = 1.0) -> float:
    """Probe rows of normal noise, whitened by the curvature bound: N(0, 1) in its range, and nothing outside."""
    k, n = 3, 20_000
    h = np.random.default_rng(1).standard_normal((n, k))
    z = np.sqrt(factor) * likelihood.probe(h, NUMPY.standard_normal(np.random.default_rng(2), (n, k), np.float64))
    values, vectors = np.linalg.eigh(np.asarray(likelihood.curvature(h))[0])
    kept = values > 1e-9
    if np.max(np.abs(z @ vectors[:, ~kept]), initial=0.0) > 1e-9:
        return 0.0
    return standard_normal_p_value((z @ vectors[:, kept] / np.sqrt(values[kept])).T)


class Uncentred(Categorical):
    """A wrong softmax probe: the mean of the noise is left in."""

    def probe(self, h, noise):
        return noise / 2**0.5


LIKELIHOODS = {
    "gaussian": (Gaussian(np.array([0.1, 1.0, 7.0])), "eq:gaussian-probe"),
    "categorical": (Categorical(), "eq:bohning-probe"),
}


@pytest.mark.equation("eq:gaussian-probe")
@pytest.mark.equation("eq:bohning-probe")
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_probes_of_normal_noise_have_the_bound_as_covariance(name):
    assert probe_p_value(LIKELIHOODS[name][0]) > ALPHA


@pytest.mark.equation("eq:gaussian-probe")
@pytest.mark.equation("eq:bohning-probe")
def test_wrong_probes_are_seen():
    """× 1.2 in the covariance is 0.2√(20 000/2) = 20 deviations; σ² for σ, and an uncentred softmax probe."""
    for likelihood, _ in LIKELIHOODS.values():
        assert probe_p_value(likelihood, 1.2) < ALPHA
    assert probe_p_value(Uncentred()) < ALPHA
