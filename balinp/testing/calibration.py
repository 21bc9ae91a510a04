"""Statistical tests with both error rates stated: simulation-based calibration, and exact tests of normality.

Simulation-based calibration (Talts et al. 2018): draw a truth from the prior and data from the likelihood; among R
draws from the posterior given the data, the truth's rank is uniform on 0 … R, exactly, if the posterior is right.
``rank_probabilities`` gives the ranks' distribution when its deviation is wrong by a factor, ``least_power`` how likely
the test then fails: choose the number of data sets by them, and test a wrong posterior as well, which must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import special, stats

ALPHA = 1e-6  # the probability with which a statistical test of the suite may fail though nothing is wrong


def calibration_ranks(
    simulate: Callable[[np.random.Generator], tuple[float, Any]],
    sample: Callable[[Any, int, np.random.Generator], Any],
    datasets: int,
    draws: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Ranks (datasets,) of the truth, a number, among posterior draws: how many of them lie below it.

    ``simulate(generator)`` draws (truth, data) from prior and likelihood; ``sample(data, draws, generator)`` that many
    values of the same number from the posterior, independent of each other, as an array (draws,).
    """
    ranks = np.empty(datasets, dtype=np.int64)
    for index in range(datasets):
        truth, data = simulate(generator)
        values = np.asarray(sample(data, draws, generator))
        if values.shape != (draws,):
            raise ValueError(f"sample must return {draws} numbers, got shape {values.shape}")
        ranks[index] = np.sum(values < truth)
    return ranks


@dataclass(frozen=True)
class Uniformity:
    """Pearson's χ² of ranks against the uniform distribution: counts (bins,), statistic and p-value."""

    counts: np.ndarray
    statistic: float
    p_value: float


def rank_uniformity(ranks: Any, draws: int, bins: int = 20) -> Uniformity:
    """Whether ``ranks`` in 0 … draws are uniform; draws + 1 must be a multiple of ``bins``, so that all are alike.

    The χ² distribution holds for five expected ranks a bin and up. Raises ValueError otherwise.
    """
    values = np.asarray(ranks)
    if (draws + 1) % bins or len(values) < 5 * bins or np.any((values < 0) | (values > draws)):
        raise ValueError(f"{len(values)} ranks in 0 … {draws} cannot be put into {bins} like bins of 5 or more")
    counts = np.bincount(values * bins // (draws + 1), minlength=bins)
    statistic = float(np.sum((counts - len(values) / bins) ** 2) * bins / len(values))
    return Uniformity(counts, statistic, float(stats.chi2.sf(statistic, bins - 1)))


def rank_probabilities(deviation_ratio: float, draws: int, bins: int = 20, shift: float = 0.0) -> np.ndarray:
    """The probability of every bin (bins,) when draws have ``deviation_ratio`` times the right deviation and a mean
    off by ``shift`` right deviations.

    For a normal posterior: given the truth u ~ N(0, 1), the rank is binomial with success Φ((u − shift)/ratio); the
    integral over u by the trapezoidal rule, exact to rounding for an integrand as smooth as this.
    """
    nodes = np.linspace(-12, 12, 4801)
    weights = stats.norm.pdf(nodes)
    below = special.ndtr((nodes - shift) / deviation_ratio)
    ranks = np.arange(draws + 1)
    each = stats.binom.pmf(ranks[:, None], draws, below[None, :]) @ weights / weights.sum()
    return each.reshape(bins, -1).sum(axis=1)


def least_power(
    probabilities: Any, datasets: int, alpha: float = ALPHA, simulations: int = 400_000, seed: int = 0
) -> float:
    """At least how likely ``rank_uniformity`` of that many ranks with those bin probabilities has p ≤ ``alpha``.

    The count of simulated multinomials that are missed gives a Clopper–Pearson bound, true with probability 1 − 1e-6.
    (The noncentral χ² that books give assumes the null's covariance, and is off by ten in the misses.)
    """
    p = np.asarray(probabilities)
    counts = np.random.default_rng(seed).multinomial(datasets, p / p.sum(), size=simulations)
    statistics = np.sum((counts - datasets / len(p)) ** 2, axis=1) * len(p) / datasets
    seen = int(np.sum(statistics >= stats.chi2.isf(alpha, len(p) - 1)))
    return float(stats.beta.ppf(1e-6, seen, simulations - seen + 1)) if seen else 0.0


def standard_normal_p_value(x: Any) -> float:
    """The smallest p-value, times their number, of exact tests that the rows of x (d, n) are independent N(0, 1).

    Tested: the mean of every row (normal); the sum of squares of every row and of (x_i ± x_j)/√2 for every pair (χ²,
    n degrees of freedom: variances and all correlations); the Kolmogorov–Smirnov distance of all entries. If they are,
    the value is below α with probability at most α. A variance off by a factor 1 + ε moves its χ² by ε√(n/2)
    deviations: for ε = 0.2 and n = 10 000 by 14, against a threshold of 6 for α = 1e-6 and up to 500 tests.
    """
    x = np.asarray(x, dtype=np.float64)
    n = x.shape[1]
    sums = [np.sum(row**2) for row in x]
    for i, j in combinations(range(len(x)), 2):
        sums += [np.sum((x[i] + x[j]) ** 2) / 2, np.sum((x[i] - x[j]) ** 2) / 2]
    p_values = [2 * min(stats.chi2.cdf(s, n), stats.chi2.sf(s, n)) for s in sums]
    p_values += list(2 * stats.norm.sf(np.abs(x.sum(axis=1)) / np.sqrt(n)))
    p_values.append(stats.kstest(x.ravel(), "norm").pvalue)
    return float(np.min(p_values)) * len(p_values)


def fair_sign_p_value(signs: Any) -> float:
    """The smallest p-value, times their number, of exact tests that the rows of signs (d, n) are independent and ±1
    with probability ½.

    The number of +1 in every row and in the product of every pair is binomial. A probability of 0.55 moves it by
    0.1√n deviations: for n = 20 000 by 14.
    """
    s = np.asarray(signs)
    if not np.all(np.abs(s) == 1):
        return 0.0
    rows = [*s, *(s[i] * s[j] for i, j in combinations(range(len(s)), 2))]
    p_values = [stats.binomtest(int(np.sum(row > 0)), len(row)).pvalue for row in rows]
    return float(np.min(p_values)) * len(p_values)
