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

PER_LAYER, PER_ITERATION = 8, 3  # docs/gpu.md says which they are


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


@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (3, 5, 5, 5, 2)])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("block_rows", [2048, 7])
def test_waits_of_an_iteration(widths, kind, block_rows):
    settings = Settings.preset(None if kind == "gaussian" else "classification", block_rows=block_rows)
    transfers = iterate(settings, widths=widths, kind=kind)
    labels = 2 * -(-40 // block_rows) if kind == "categorical" else 0  # that they are among the classes
    assert len(transfers.waits) <= PER_LAYER * (len(widths) - 1) + PER_ITERATION + labels, transfers.waits
    assert len(transfers.uploads) <= len(widths) - 1 + -(-40 // block_rows)  # noise: of the weights, and of each block


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"preset": "literal"}, 0),
        ({"step": "isotropic"}, 2),
        ({"damping": 0.1}, 2),
        ({"prior": "tied"}, 2),
        ({"trust_region": True}, 6),
    ],
)
def test_waits_of_other_settings(changes, more):
    changes = dict(changes)
    settings = Settings.preset(changes.pop("preset", None), **changes)
    waits = iterate(settings).waits
    assert len(waits) <= 2 * PER_LAYER + PER_ITERATION + more, waits


@pytest.mark.equation("eq:output-spread")
def test_the_spread_is_measured_every_so_many_iterations(monkeypatch):
    """Once in ⌈rows/SPREAD_ROWS⌉ iterations, for one wait; in the others the parameters per target stay."""
    monkeypatch.setattr(solver, "SPREAD_ROWS", 10)
    mlp, likelihood, x, y, rng = problem()
    state = initial_state(mlp, likelihood, rng, Settings(warmup=0))
    for t in range(9):
        before = state
        with count_transfers() as transfers:
            state = bali_step(state, x, y, rng, Settings(warmup=0))
        measured = t > 0 and t % 4 == 0
        assert len([w for w in transfers.waits if w.startswith("passes:data_spread")]) == measured
        assert (state.parameters_per_target == before.parameters_per_target) == (t > 0 and not measured)


def test_sample_weights_cost_one_wait_per_layer_and_block():
    plain, weighted = iterate(Settings()), iterate(Settings(), DOUBLE.asarray(np.ones(40)))
    assert len(weighted.waits) <= len(plain.waits) + 2


def test_a_fit_adds_the_record_of_the_noise_and_one_upload_per_pass():
    mlp, likelihood, x, y, rng = problem()
    settings = Settings(max_iterations=30, batch_size=20, tolerance=0, warmup=0)
    with count_transfers() as transfers:
        fit(x, y, mlp, likelihood, rng, settings)
    assert len(transfers.waits) <= 30 * (2 * PER_LAYER + PER_ITERATION) + 15 + 5
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
