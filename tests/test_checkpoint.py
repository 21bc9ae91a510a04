"""Checkpoints: killed anywhere, a fit goes on to the bits of one that never was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpointed import X, Y, subject

import balinp
from balinp import (
    BALIClassifier,
    BALIRegressor,
    Checkpoint,
    ConvergenceWarning,
    fit,
)

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
WORKER = Path(__file__).with_name("checkpoint_worker.py")


class KilledError(BaseException):
    """Stands for the end of the process."""


def worker(*arguments):
    command = [sys.executable, WORKER, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(balinp.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.equation("eq:resume")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("kind", ["regression", "mini-batches", "classes"])
def test_fourteen_kills_change_no_bit(kind, tmp_path):
    """SIGKILL after random times, and half through a file, before it is renamed or just before it is readable."""
    report = worker(kind, tmp_path, 20240611)
    assert report["signals"].count(-9) >= 10
    assert report["resumed"] == report["again"] == report["whole"]
    assert report["after"] == ["fit.ck"], "what killed processes were writing is cleared away"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_file_that_outgrows_its_room_is_refused_and_the_last_one_stays(tmp_path):
    report = worker("full", tmp_path)
    assert "fit.ck" in report["said"]
    assert "File too large" in report["said"]
    assert report["left"] == ["fit.ck"]
    assert report["same"]


def bits(result):
    records = [{k: v for k, v in vars(record).items() if k != "seconds"} for record in result.history]
    layers = [
        (p.mean.tobytes(), p.row_precision.tobytes(), p.column_covariance.tobytes(), s.gram.tobytes(), s.count)
        for p, s in ((layer.posterior, layer.statistics) for layer in result.state.layers)
    ]
    numbers = result.state.temperature, result.state.step_scale, result.state.parameters_per_target
    noise = getattr(result.state.likelihood, "noise_variance", np.zeros(1)).tobytes()
    return records, layers, numbers, noise, result.converged


@pytest.mark.equation("eq:resume")
@pytest.mark.parametrize("bit_generator", [np.random.PCG64, np.random.MT19937])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "weighted", "batch_size"),
    [
        ("gaussian", False, None),
        ("gaussian", True, 16),
        ("gaussian", "few", 4),
        ("classes", False, 7),
        ("input-dependent", False, 16),
    ],
)
def test_a_core_fit_killed_after_any_iteration_goes_on_to_the_same_bits(
    kind, weighted, batch_size, dtype, bit_generator, tmp_path, monkeypatch
):
    arguments, options = subject(kind, dtype, weighted, batch_size)

    def generator():
        return np.random.Generator(bit_generator(3))

    whole, used = generator(), generator()
    expected = fit(*arguments, whole, **options)
    keep = Checkpoint.keep
    for _ in range(40):

        def deadly(self, standing, now, name="fit"):
            keep(self, standing, now, name)
            raise KilledError

        monkeypatch.setattr(Checkpoint, "keep", deadly)
        used = generator()
        try:
            result = fit(*arguments, used, **options, checkpoint=Checkpoint(tmp_path / "ck", every=0))
        except KilledError:
            continue
        break
    assert bits(result) == bits(expected)
    np.testing.assert_equal(used.bit_generator.state, whole.bit_generator.state)


@pytest.mark.parametrize("kind", [BALIRegressor, BALIClassifier])
def test_on_a_device_too(kind, backend, tmp_path, monkeypatch):
    """Data and state live on the backend. What was done before the kills is not done again."""
    step, steps = balinp.training.bali_step, [0]

    def counted(*args):
        steps[0] += 1
        return step(*args)

    monkeypatch.setattr(balinp.training, "bali_step", counted)
    y = Y if kind is BALIRegressor else Y[:, 0] > 0

    def learn(**options):
        model = kind((5,), max_iterations=8, batch_size=16, random_state=0, backend=backend.name)
        return model.fit(backend.asarray(X), y, **options)

    whole, keep, count = learn(), Checkpoint.keep, [0]
    needed, steps[0] = steps[0], 0

    def deadly(self, standing, now, name="fit"):
        keep(self, standing, now, name)
        count[0] += 1
        if count[0] in (3, 9):
            raise KilledError

    monkeypatch.setattr(Checkpoint, "keep", deadly)
    for _ in range(2):
        with pytest.raises(KilledError):
            learn(checkpoint=tmp_path / "ck", every=0)
    resumed = learn(checkpoint=tmp_path / "ck", every=0)
    assert steps[0] == needed
    np.testing.assert_array_equal(resumed.predict_distribution(X).mean, whole.predict_distribution(X).mean)


def test_a_finished_fit_returns_at_once_and_warns_again(tmp_path):
    arguments, options = subject("gaussian", np.float64, False, None)
    options["settings"] = replace(options["settings"], tolerance=1e-9)
    calls = []
    for _ in range(2):
        with pytest.warns(ConvergenceWarning):
            result = fit(
                *arguments,
                np.random.default_rng(0),
                **options,
                callbacks=lambda *_: calls.append(1),
                checkpoint=Checkpoint(tmp_path / "ck"),
            )
    assert len(result.history) == len(calls) == 12


def test_a_fit_stopped_by_a_callback_is_finished(tmp_path):
    arguments, options = subject("gaussian", np.float64, False, None)
    for _ in range(2):
        checkpoint = Checkpoint(tmp_path / "ck")
        stop = {"callbacks": [lambda state, record: record.iteration == 5], "checkpoint": checkpoint}
        assert len(fit(*arguments, np.random.default_rng(0), **options, **stop).history) == 5


def test_a_finished_estimator_repeats_nothing(tmp_path, monkeypatch):
    model = BALIRegressor((5,), max_iterations=8, random_state=0)
    first = model.fit(X, Y, checkpoint=tmp_path / "ck").predict(X)
    monkeypatch.setattr("balinp.training.bali_step", None)
    again = BALIRegressor(**model.get_params()).fit(X, Y, checkpoint=tmp_path / "ck")
    np.testing.assert_array_equal(again.predict(X), first)


@pytest.mark.equation("eq:resume")
def test_without_a_seed_the_kept_random_numbers_are_taken(tmp_path):
    first = BALIRegressor((5,), max_iterations=8).fit(X, Y, checkpoint=tmp_path / "ck")
    again = BALIRegressor((5,), max_iterations=8).fit(X, Y, checkpoint=tmp_path / "ck")
    np.testing.assert_array_equal(first.predict(X), again.predict(X), "also the draws of the predictive")
    other = BALIRegressor((5,), max_iterations=8).fit(X, Y)
    assert np.any(other.predict(X) != first.predict(X))
