"""The scales of inputs: of mostly one value, of one measurement, of targets; and how rows of rare categories fare."""

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
    """A normal column; one of two values, the second in three rows; one that is 0 in seven rows of eight and an amount
    in the others; one of three values; a constant one."""
    rng = np.random.default_rng(0)
    row = np.arange(ROWS)
    rare, amount = np.where(row % 80 == 7, 5.0, -1.0), np.where(row % 8 == 3, rng.gamma(2, 1, ROWS), 0.0)
    return np.c_[rng.standard_normal(ROWS), rare, amount, row % 3, np.full(ROWS, 4.0)].astype(dtype)


def assert_scale(computed, expected, what):
    assert_residual(comparison_residual(np.asarray(computed), np.asarray(expected), size=ROWS), what, "scales")


@pytest.mark.parametrize("block", [9, 40, 10**6])
def test_a_column_of_mostly_one_value_has_half_the_distance_of_the_others(monkeypatch, dtype, block):
    """Its smallest or its largest; other columns, and targets, have the deviation."""
    monkeypatch.setattr(rows_module, "BLOCK_NUMBERS", 5 * block)
    x = mixed(dtype)
    plain = x.astype(np.float64)
    scaler, turned = (Standardizer.from_data(sign * x, inputs=True) for sign in (1, -1))
    assert scaler.scale[1] == 3.0
    amounts = plain[plain[:, 2] > 0, 2]
    assert_scale(scaler.scale[2], np.sqrt(np.mean(amounts**2)) / 2, "amounts")
    for column in (0, 3):
        assert_scale(scaler.scale[column], plain[:, column].std(), "deviation")
    assert (scaler.scale[4], scaler.offset[4]) == (4.0, 4.0)
    assert_scale(turned.scale, scaler.scale, "other signs")
    targets = Standardizer.from_data(x)
    assert_scale(targets.scale[:4], plain[:, :4].std(axis=0), "targets")


def test_both_values_as_frequent_have_the_deviation():
    x = np.tile([[0.1], [0.7]], (50, 1))
    plain, inputs = (Standardizer.from_data(x, inputs=flag).scale[0] for flag in (False, True))
    assert inputs == plain


def test_weights_are_rows():
    """A row of weight two is the row twice, and one of none is no row."""
    x, weight = mixed(), np.random.default_rng(1).integers(0, 3, ROWS).astype(float)
    x[weight == 0] = 99.0
    repeated = np.repeat(x, weight.astype(int), axis=0)
    scaler, other = Standardizer.from_data(x, weight, inputs=True), Standardizer.from_data(repeated, inputs=True)
    assert_scale(scaler.scale, other.scale, "weights")
    assert_scale(scaler.offset, other.offset, "weights")


def test_a_rare_value_of_hardly_any_weight():
    """The share of the rare rows is summed, not left over: 1 − (1 − 1e-18) would be 0."""
    x, weight = (np.arange(ROWS) == 3)[:, None] * 1.0, np.ones(ROWS)
    weight[3] = 1e-18
    assert_scale(Standardizer.from_data(x, weight, inputs=True).scale[0], 0.5, "two values")


def test_columns_that_somebody_scaled_to_the_same_range_are_no_pixels():
    """Three amounts from 0 to 1, each of which is met once, beside four categories."""
    rng = np.random.default_rng(0)
    x = rng.random((ROWS, 3))
    x = (x - x.min(axis=0)) / np.ptp(x, axis=0)
    rare = np.eye(4)[rng.integers(0, 4, ROWS)] * (np.arange(ROWS) % 20 == 7)[:, None]
    scale = Standardizer.from_data(np.c_[x, rare], inputs=True).scale
    assert_scale(scale[3:], np.full(4, 0.5), "categories")
    assert_scale(scale[:3], x.std(axis=0), "amounts")
    grey = np.round(8 * np.clip(3 * rng.random((ROWS, 6)) - 1, 0, 1))  # black and white in a third of the rows each
    assert len(set(Standardizer.from_data(grey, inputs=True).scale)) == 1


def test_pixels_keep_one_scale():
    """Black and white pixels, all of which reach both values: the root mean square of their deviations."""
    x = (np.random.default_rng(0).random((ROWS, 6)) < [0.5, 0.4, 0.3, 0.2, 0.1, 0.05]).astype(float)
    scale = Standardizer.from_data(x, inputs=True).scale
    assert len(set(scale)) == 1
    assert_residual(comparison_residual(scale[0] ** 2, np.mean(x.var(axis=0)), size=ROWS), "mean square", "scales")


@pytest.mark.parametrize("factor", [1e-300, 1e300])
def test_no_overflow_of_values_far_apart(factor):
    x = np.where(np.arange(ROWS) % 80 == 7, 1.0, -1.0)[:, None] * factor
    assert_scale(Standardizer.from_data(x, inputs=True).scale[0] / factor, 1.0, "relative")


@pytest.mark.parametrize(("amount", "effect"), [(False, 0.5), (True, 0.25)])
def test_what_is_rare_does_not_spoil_its_rows(monkeypatch, amount, effect):
    """Four categories, or amounts, in about four rows of 600 each, of which one counts; 1 000 new rows, fifty with each
    Mean RMSE on rows with one, three tables: .56, .59; control, all inputs scaled by their deviations: 2.7, 3.0."""

    def error(seed):
        rng = np.random.default_rng(seed)
        x, rare = rng.standard_normal((1600, 3)), (rng.random((1600, 4)) < 0.006).astype(float)
        rare[600:] = rng.random((1000, 4)) < 0.05
        if amount:
            rare *= rng.gamma(2, 1, (1600, 4))
        y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + effect * rare[:, 0] + 0.02 * rng.standard_normal(1600)
        X, some = np.c_[x, rare], rare[600:].any(axis=1)
        model = BALIRegressor(random_state=seed).fit(X[:600], y[:600])
        return rmse(y[600:][some], model.predict(X[600:])[some])

    new = [error(seed) for seed in range(3)]
    plain = Standardizer.from_data.__func__
    monkeypatch.setattr(Standardizer, "from_data", classmethod(lambda c, v, w=None, inputs=False: plain(c, v, w)))
    old = [error(seed) for seed in range(3)]
    assert 2 * np.mean(new) < np.mean(old)


@pytest.mark.parametrize("size", [1e6, 1e7])
def test_the_last_digits_of_float32_are_no_constant(size):
    """Targets and inputs of deviation 1 about 10⁶ and 10⁷ have 16 or one of the steps of float32 in it: they are
    scaled by it. Control: what varies by rounding alone, two steps, is constant."""
    values = (np.random.default_rng(0).standard_normal((300, 1)) + size).astype(np.float32)
    wide = values.astype(np.float64)
    found = Standardizer.from_data(values).scale[0]
    ratio = comparison_residual(found, wide.std(), condition=size, size=ROWS)  # differences of entries of that size
    assert_residual(ratio, "deviation", "scales")
    rounded = (size + np.spacing(np.float32(size)) * np.random.default_rng(1).integers(-1, 2, (300, 1))).astype("f4")
    assert Standardizer.from_data(rounded).scale[0] > size / 2
