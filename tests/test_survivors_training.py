"""Tests of the fit loop that mutation testing asked for: each kills a mutant that the other tests let live."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from balinp import MLP, ConvergenceWarning, Gaussian, InvalidArgumentError, Settings, fit, initial_state
from balinp.testing import assert_residual, comparison_residual
from balinp.training import has_plateaued
from balinp.trust import trusted_scale

pytestmark = pytest.mark.usefixtures("on_backend")

LITERAL = Settings.preset("literal", tolerance=0, max_iterations=1)


def generator():
    return np.random.default_rng(5)


def data(n=40, dtype="float64", widths=(2, 3, 1)):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, widths[0])).astype(dtype)
    y = np.sin(x[:, :1]).repeat(widths[-1], axis=1).astype(dtype)
    return x, y, MLP(widths, "tanh"), Gaussian(np.asarray(0.3, dtype=dtype))


def means(result):
    return np.concatenate([mean.ravel() for mean in result.state.means])


def test_a_fit_keeps_the_dtype_of_its_inputs():
    x, y, mlp, likelihood = data(dtype="float32")
    for mean in fit(x, y, mlp, likelihood, generator(), LITERAL).state.means:
        assert mean.dtype == np.float32


@pytest.mark.parametrize("batch_size", [None, 40])
def test_a_weighted_row_is_that_many_rows(batch_size):
    x, y, mlp, likelihood = data()
    weights = np.random.default_rng(2).integers(1, 4, len(x))
    settings = replace(LITERAL, max_iterations=3, batch_size=batch_size)
    weighted = fit(x, y, mlp, likelihood, generator(), settings, sample_weight=weights.astype(float))
    x, y = (np.repeat(a, weights, axis=0) for a in (x, y))
    repeated = fit(x, y, mlp, likelihood, generator(), replace(LITERAL, max_iterations=3))
    assert_residual(comparison_residual(means(weighted), means(repeated), 100), "means", "eq:statistics")
    for one, other in zip(weighted.history, repeated.history):
        assert_residual(comparison_residual(one.train_nll, other.train_nll, 100), "training loss", "eq:statistics")
    count = weighted.state.layers[0].statistics.count
    assert count == pytest.approx(weights.sum(), rel=1e-14)


def test_weighted_mini_batches_stand_for_the_sum_of_the_weights():
    x, y, mlp, likelihood = data()
    weights = np.full(len(x), 2.5)
    settings = replace(LITERAL, batch_size=10, max_iterations=4, step_size=1e-3)
    weighted = fit(x, y, mlp, likelihood, generator(), settings, sample_weight=weights)
    assert weighted.state.layers[0].statistics.count == pytest.approx(100, rel=1e-14)
    plain = fit(x, y, mlp, likelihood, generator(), replace(settings, prior_precision=1 / 2.5))
    # the same weights of all rows scale the data against the prior, and leave the mean loss what it is
    assert_residual(comparison_residual(means(weighted), means(plain), 1e3), "means", "eq:ema")
    assert weighted.history[0].train_nll == pytest.approx(plain.history[0].train_nll, rel=1e-12)


def test_one_record_per_pass_and_its_seconds():
    x, y, mlp, likelihood = data()
    result = fit(x, y, mlp, likelihood, generator(), replace(LITERAL, batch_size=15, max_iterations=7))
    assert [record.iteration for record in result.history] == [3, 6, 9]  # three batches a pass, passes rounded up
    assert 0 <= result.history[-1].seconds < 600


@pytest.mark.equation("eq:stopping")
@pytest.mark.parametrize(("patience", "batch_size", "passes"), [(4, None, 8), (20, 20, 20), (5, 20, 6), (1, None, 6)])
def test_patience_counts_iterations_in_whole_passes_and_three_at_least(patience, batch_size, passes):
    x, y, mlp, likelihood = data()
    settings = replace(LITERAL, step_size=1e-30, prior_precision=1e30, warmup=2)
    start = initial_state(mlp, likelihood, generator(), settings)
    zero = [replace(l, posterior=l.posterior.with_mean(0 * l.posterior.mean)) for l in start.layers]
    start = replace(start, layers=tuple(zero))  # a prior this strong keeps the weights, and so the loss, where they are
    settings = replace(settings, tolerance=1e-9, patience=patience, batch_size=batch_size, max_iterations=1000)
    result = fit(x, y, mlp, likelihood, generator(), settings, state=start)
    assert result.converged
    assert len(result.history) == 2 + passes


@pytest.mark.numpy_only("the boundary stands between the caller and the core")
def test_the_warning_points_at_the_caller():
    x, y, mlp, likelihood = data()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(x, y, mlp, likelihood, generator(), replace(LITERAL, tolerance=1e-3))
    (warning,) = [w for w in caught if w.category is ConvergenceWarning]
    assert warning.filename == __file__


def test_plateau_at_its_edges():
    assert has_plateaued([1.0] * 8, 4, 1.0)
    assert not has_plateaued([1.0] * 4 + [2.0] * 4, 4, 0)  # tolerance 0: never, not even when the loss rises
    assert not has_plateaued([2.0] * 4 + [1.0] * 4, 4, 1.0)  # a fall of the tolerance itself goes on
    assert has_plateaued([9.0] * 4 + [1.0] * 8, 4, 0.1)  # what came before the last two windows does not count


def test_rows_are_checked():
    x, y, mlp, likelihood = data()
    one = fit(x[:1], y[:1], mlp, likelihood, generator(), LITERAL)
    assert math.isfinite(one.history[0].train_nll)
    for wrong_x, wrong_y in ((x[:0], y[:0]), (x, y[:, :, None])):
        with pytest.raises(InvalidArgumentError):
            fit(wrong_x, wrong_y, mlp, likelihood, generator(), LITERAL)


def test_a_step_that_leaves_the_objective_equal_is_taken():
    assert trusted_scale(lambda scale: 1.0, 1.0, 0.4, 1.0) == (0.4, pytest.approx(0.6))
