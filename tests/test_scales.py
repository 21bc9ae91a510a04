"""The scales of inputs: of two values, of one measurement, of targets; and what a rare category is predicted as."""

from __future__ import annotations

import numpy as np
import pytest

from balinp import BALIRegressor
from balinp import rows as rows_module
from balinp.metrics import rmse
from balinp.scales import Standardizer
from balinp.testing.residuals import assert_residual, comparison_residual

ROWS = 200


def mixed(dtype="float64"):
    """A normal column; one of two values, the second in three rows; one of three values; a constant one."""
    rng = np.random.default_rng(0)
    rare = np.where(np.arange(ROWS) % 80 == 7, 5.0, -1.0)
    return np.c_[rng.standard_normal(ROWS), rare, np.arange(ROWS) % 3, np.full(ROWS, 4.0)].astype(dtype)


@pytest.mark.parametrize("block", [9, 40, 10**6])
def test_a_column_of_two_values_has_half_their_distance(monkeypatch, dtype, block):
    """Alone: a third value anywhere, in another block too, and targets, have the deviation."""
    monkeypatch.setattr(rows_module, "BLOCK_NUMBERS", 4 * block)
    x = mixed(dtype)
    deviation = x.astype(np.float64).std(axis=0)
    scaler = Standardizer.from_data(x, inputs=True)
    assert scaler.scale[1] == 3.0
    for column in (0, 2):
        ratio = comparison_residual(scaler.scale[column], deviation[column], size=ROWS)
        assert_residual(ratio, "deviation", "scales")
    assert (scaler.scale[3], scaler.offset[3]) == (4.0, 4.0)
    z = scaler.transform(x, np.float64)
    assert np.abs(z[:, 1]).max() <= 2.0
    x[-1, 1] = 0.5
    third = Standardizer.from_data(x, inputs=True).scale[1]
    assert third == pytest.approx(x[:, 1].astype(np.float64).std(), rel=1e-6)
    targets = Standardizer.from_data(mixed(dtype)[:, 1:2])
    assert targets.scale[0] == pytest.approx(deviation[1], rel=1e-6)


def test_both_values_as_frequent_have_the_deviation_to_rounding():
    x = np.tile([[0.1], [0.7]], (50, 1))
    plain, inputs = (Standardizer.from_data(x, inputs=flag).scale[0] for flag in (False, True))
    assert_residual(comparison_residual(inputs, plain, size=100), "deviation", "scales")


def test_rows_without_weight_have_no_value():
    x = mixed()
    x[5, 1] = 99.0
    weight = np.where(np.arange(ROWS) == 5, 0.0, 1.0)
    assert Standardizer.from_data(x, weight, inputs=True).scale[1] == 3.0


def test_pixels_keep_one_scale():
    """Black and white pixels, all of which reach both values: the root mean square of their deviations."""
    x = (np.random.default_rng(0).random((ROWS, 6)) < [0.5, 0.4, 0.3, 0.2, 0.1, 0.05]).astype(float)
    scale = Standardizer.from_data(x, inputs=True).scale
    assert len(set(scale)) == 1
    assert_residual(comparison_residual(scale[0] ** 2, np.mean(x.var(axis=0)), size=ROWS), "mean square", "scales")


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_no_overflow_of_two_values_far_apart(factor):
    x = np.where(np.arange(ROWS) % 80 == 7, 1.0, -1.0)[:, None] * factor
    assert Standardizer.from_data(x, inputs=True).scale[0] == factor


def test_rare_categories_do_not_spoil_their_rows(monkeypatch):
    """Four categories of about four rows in 600, of which one counts (half a unit); 1 000 new rows, among them fifty of
    each. RMSE on rows with one, three tables: .35, .63, .69; control, all inputs by their deviations: 3.1, 2.1, 2.8.
    """

    def error(seed):
        rng = np.random.default_rng(seed)
        x, rare = rng.standard_normal((1600, 3)), (rng.random((1600, 4)) < 0.006).astype(float)
        rare[600:] = rng.random((1000, 4)) < 0.05
        y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.5 * rare[:, 0] + 0.02 * rng.standard_normal(1600)
        X, some = np.c_[x, rare], rare[600:].any(axis=1)
        model = BALIRegressor(random_state=seed).fit(X[:600], y[:600])
        return rmse(y[600:][some], model.predict(X[600:])[some])

    new = [error(seed) for seed in range(3)]
    plain = Standardizer.from_data.__func__
    monkeypatch.setattr(Standardizer, "from_data", classmethod(lambda c, v, w=None, inputs=False: plain(c, v, w)))
    old = [error(seed) for seed in range(3)]
    assert max(new) < 1 < np.mean(old)
