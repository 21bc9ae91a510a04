"""How often one iteration makes the host wait for the device, counted on the double: upper bounds, as documented."""

from __future__ import annotations

import numpy as np
import pytest

from balinp import (
    MLP,
    Categorical,
    Gaussian,
    Settings,
    bali_step,
    fit,
    initial_state,
    predict_linearized,
    predict_monte_carlo,
    solver,
)
from balinp.testing.device import DOUBLE, count_transfers

PER_ITERATION = 2  # docs/gpu.md says which they are; there is none per layer or block


def problem(widths=(3, 5, 2), kind="gaussian", rows=40):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((rows, widths[-1])) if kind == "gaussian" else rng.integers(0, widths[-1], rows)
    likelihood = Gaussian(np.ones(widths[-1]), DOUBLE) if kind == "gaussian" else Categorical(DOUBLE)
    mlp = MLP(widths, "relu", DOUBLE)
    return mlp, likelihood, DOUBLE.asarray(rng.standard_normal((rows, widths[0]))), DOUBLE.asarray(y), rng


def iterate(settings, weight=None, **what):
    """The transfers of an iteration after sampling, evidence and the learning of the noise have begun."""
    mlp, likelihood, x, y, rng = problem(**what)
    state = initial_state(mlp, likelihood, rng, settings)
    for _ in range(settings.warmup + 2):
        with count_transfers() as transfers:
            state = bali_step(state, x, y, rng, settings, None, weight)
    return transfers


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (3, 5, 5, 5, 5, 5, 5, 2)])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("block_rows", [2048, 7])
def test_waits_of_an_iteration(widths, kind, block_rows):
    settings = Settings.preset(None if kind == "gaussian" else "classification", block_rows=block_rows)
    transfers = iterate(settings, widths=widths, kind=kind)
    assert len(transfers.waits) <= PER_ITERATION, transfers.waits
    assert len(transfers.uploads) <= len(widths) - 1 + -(-40 // block_rows)  # noise: of the weights, and of each block


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"preset": "literal"}, 0),
        ({"step": "isotropic"}, 0),
        ({"damping": 0.1}, 0),
        ({"prior": "tied"}, 0),
        ({"trust_region": True}, 3),
        ({"joint_iterations": 99}, 4),
    ],
)
def test_waits_of_other_settings(changes, more):
    changes = dict(changes)
    settings = Settings.preset(changes.pop("preset", None), **changes)
    waits = iterate(settings).waits
    assert len(waits) <= PER_ITERATION + more, waits


@pytest.mark.equation("eq:output-spread")
def test_the_spread_is_measured_every_so_many_iterations(monkeypatch):
    """Once in ⌈rows/SPREAD_ROWS⌉ iterations, for no wait; in the others the parameters per target stay."""
    monkeypatch.setattr(solver, "SPREAD_ROWS", 10)
    spreads, measure = [], solver.data_spread
    monkeypatch.setattr(solver, "data_spread", lambda *args: spreads.append(measure(*args)) or spreads[-1])
    mlp, likelihood, x, y, rng = problem()
    state = initial_state(mlp, likelihood, rng, Settings(warmup=0))
    for t in range(9):
        before, already = state, len(spreads)
        with count_transfers() as transfers:
            state = bali_step(state, x, y, rng, Settings(warmup=0))
        measured = t > 0 and t % 4 == 0
        assert len(spreads) - already == measured
        assert len(transfers.waits) <= PER_ITERATION
        assert (state.parameters_per_target == before.parameters_per_target) == (t > 0 and not measured)


def test_sample_weights_cost_one_wait():
    weights = DOUBLE.asarray(np.ones(40))
    for block_rows in (2048, 7):
        settings = Settings(block_rows=block_rows)
        assert len(iterate(settings, weights).waits) <= len(iterate(settings).waits) + 1


def test_a_fit_adds_the_record_of_the_noise_and_one_upload_per_pass():
    mlp, likelihood, x, y, rng = problem()
    settings = Settings(max_iterations=30, batch_size=20, tolerance=0, warmup=0)
    with count_transfers() as transfers:
        fit(x, y, mlp, likelihood, rng, settings)
    assert len(transfers.waits) <= 30 * PER_ITERATION + 15 + 5
    assert len(transfers.uploads) <= 30 * 3 + 15 + 10


def test_predictions_wait_for_factorisations_only():
    mlp, likelihood, x, _, rng = problem()
    state = initial_state(mlp, likelihood, rng, Settings())
    with count_transfers() as transfers:
        predict_linearized(state, x, block_rows=7)
    assert len(transfers.waits) <= 4
    with count_transfers() as transfers:
        predict_monte_carlo(state, x, rng, 20, block_rows=7)
    assert len(transfers.waits) <= 4
