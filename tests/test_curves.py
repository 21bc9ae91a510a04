"""Regressions of one input that bend fast, which the beginning of a default fit takes for noise."""

from __future__ import annotations

import numpy as np
import pytest

from balinp import BALIRegressor, heldout
from balinp.metrics import interval_coverage, rmse

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


def curve(periods, rows, seed):
    """sin 2πpx and noise of deviation 0.1 on [0, 1]: x (n, 1), y (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (rows, 1))
    return x, np.sin(2 * np.pi * periods * x[:, 0]) + 0.1 * rng.standard_normal(rows)


@pytest.mark.equation("eq:held-out-choice")
def test_a_curve_of_eight_periods_is_found():
    """In 300 rows; of 1 500 new ones the RMSE is less than six tenths of their deviation, and intervals hold them."""
    x, y = curve(8, 1800, seed=0)
    mean, std = BALIRegressor(random_state=0).fit(x[:300], y[:300]).predict(x[300:], return_std=True)
    assert rmse(y[300:], mean) < 0.6 * y.std()
    assert interval_coverage(y[300:], mean, std) > 0.8


def test_without_the_way_of_curves_it_is_taken_for_noise(monkeypatch):
    """The negative control of the test above: nine tenths of the deviation and more are left."""
    monkeypatch.setattr(heldout, "CURVE_INPUTS", 0)
    x, y = curve(8, 1800, seed=0)
    assert rmse(y[300:], BALIRegressor(random_state=0).fit(x[:300], y[:300]).predict(x[300:])) > 0.9 * y.std()


def test_noise_stays_noise():
    """No function at all: the RMSE of 1 500 new rows is their deviation, within 2 %. Negative control: the way of
    curves taken without asking held-out rows learns more of it than that."""
    x = np.random.default_rng(1).uniform(0, 1, (1700, 1))
    y = np.random.default_rng(2).standard_normal(1700)
    ways = {"asked": {}, "not asked": {"validation_fraction": 0, "settings": heldout.CURVES[0][0]}}
    share = {}
    for way, changes in ways.items():
        model = BALIRegressor(random_state=0, **changes).fit(x[:200], y[:200])
        share[way] = rmse(y[200:], model.predict(x[200:])) / y[200:].std()
    assert share["asked"] < 1.02 < share["not asked"], share
