"""Measures of predictions with uncertainty. All take NumPy arrays and return a float."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special
import scipy.stats


def gaussian_nll(y: Any, mean: Any, std: Any) -> float:
    """Mean −log N(y | mean, std²), in nats per number."""
    z = (np.asarray(y) - mean) / std
    return float(np.mean(z**2 / 2 + np.log(std) + np.log(2 * np.pi) / 2))


def categorical_nll(labels: Any, probabilities: Any) -> float:
    """Mean −log p of the true class, in nats; labels (n,) index the columns of probabilities (n, K)."""
    p = np.take_along_axis(np.asarray(probabilities), np.asarray(labels)[:, None], axis=1)
    return float(-np.mean(np.log(np.maximum(p, np.finfo(p.dtype).tiny))))


def rmse(y: Any, mean: Any) -> float:
    """Root of the mean squared error, in the units of y."""
    return float(np.sqrt(np.mean((np.asarray(y) - mean) ** 2)))


def accuracy(labels: Any, predicted: Any) -> float:
    """Share of labels predicted right."""
    return float(np.mean(np.asarray(labels) == np.asarray(predicted)))


def calibration_error(labels: Any, probabilities: Any, bins: int = 15) -> float:
    """Expected calibration error: mean |accuracy − confidence| over equal-width bins of confidence, by their rows."""
    p = np.asarray(probabilities)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == np.asarray(labels)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=right - confidence, minlength=bins)
    return float(np.sum(np.abs(gaps)) / len(p))


def interval_coverage(y: Any, mean: Any, std: Any, level: float = 0.9) -> float:
    """Share of y within the central normal interval of probability ``level``."""
    half = scipy.special.ndtri((1 + level) / 2)
    return float(np.mean(np.abs(np.asarray(y) - mean) <= half * std))


def predictive_entropy(probabilities: Any) -> np.ndarray:
    """Entropy of each row of class probabilities, in nats, (n,)."""
    return np.sum(scipy.special.entr(probabilities), axis=-1)


def auroc(negative_scores: Any, positive_scores: Any) -> float:
    """Area under the ROC curve: P(positive score > negative score) + ½ P(equal)."""
    negative, positive = np.ravel(negative_scores), np.ravel(positive_scores)
    ranks = scipy.stats.rankdata(np.concatenate([negative, positive]))[len(negative) :]
    n, m = len(positive), len(negative)
    return float((np.sum(ranks) - n * (n + 1) / 2) / (n * m))
