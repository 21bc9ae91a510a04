"""Metrics against a second computation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from balinp import metrics
from balinp.testing import THRESHOLD

EPS = np.finfo(np.float64).eps
generator = np.random.default_rng(0)


def test_gaussian_nll_and_coverage():
    y, mean, std = generator.standard_normal((3, 200))
    std = np.exp(std)
    expected = -scipy.stats.norm(mean, std).logpdf(y).mean()
    assert abs(metrics.gaussian_nll(y, mean, std) - expected) <= THRESHOLD * EPS * np.abs(y / std).max() ** 2
    inside = [
        scipy.stats.norm(m, s).ppf(0.05) <= v <= scipy.stats.norm(m, s).ppf(0.95) for v, m, s in zip(y, mean, std)
    ]
    assert metrics.interval_coverage(y, mean, std) == np.mean(inside)
    assert metrics.rmse([1.0, 2.0], [1.0, 4.0]) == pytest.approx(np.sqrt(2), rel=THRESHOLD * EPS)


def test_class_metrics_against_loops():
    p = generator.dirichlet(np.ones(4), 300)
    labels = np.array([generator.choice(4, p=row) for row in p])
    nll = -np.mean([np.log(row[label]) for row, label in zip(p, labels)])
    assert metrics.categorical_nll(labels, p) == pytest.approx(nll, rel=THRESHOLD * EPS)
    entropy = [scipy.stats.entropy(row) for row in p]
    assert np.allclose(metrics.predictive_entropy(p), entropy, rtol=THRESHOLD * EPS, atol=0)
    total = 0.0
    for low in np.arange(15) / 15:
        chosen = [
            (row.max(), row.argmax() == label) for row, label in zip(p, labels) if low <= row.max() < low + 1 / 15
        ]
        if chosen:
            confidence, right = np.mean(chosen, axis=0)
            total += len(chosen) / len(p) * abs(confidence - right)
    assert metrics.calibration_error(labels, p) == pytest.approx(total, rel=1e3 * EPS)
    assert metrics.accuracy(labels, p.argmax(axis=1)) == np.mean([r.argmax() == t for r, t in zip(p, labels)])
    assert metrics.calibration_error([0, 0], np.array([[1.0, 0.0], [1.0, 0.0]])) == 0
    assert metrics.categorical_nll([1], np.array([[1.0, 0.0]])) < np.inf


def test_auroc_counts_pairs_and_ties():
    negative, positive = generator.integers(0, 5, 30), generator.integers(1, 7, 40)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert metrics.auroc(negative, positive) == pytest.approx(np.mean(pairs), rel=THRESHOLD * EPS)
    assert metrics.auroc([0.0, 1.0], [2.0]) == 1
    assert metrics.auroc([2.0], [0.0, 1.0]) == 0
