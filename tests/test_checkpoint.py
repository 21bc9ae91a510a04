"""Checkpoints: killed anywhere, a fit goes on to the bits of one that never was; refusals keep the last good file."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import balinp
from balinp import (
    MLP,
    BALIClassifier,
    BALIRegressor,
    Categorical,
    Checkpoint,
    ConvergenceWarning,
    Gaussian,
    Heteroscedastic,
    InvalidArgumentError,
    ModelFileError,
    Settings,
    files,
    fit,
)
from balinp.backend import NUMPY
from balinp.checkpoint import ROWS, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
WORKER = Path(__file__).with_name("checkpoint_worker.py")
rng = np.random.default_rng(0)
X = rng.standard_normal((40, 3))
Y = np.column_stack([np.sin(X[:, 0]), X[:, 1]]) + 0.1 * rng.standard_normal((40, 2))


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


def subject(kind, dtype, weighted, batch_size):
    """Arguments of a core fit."""
    y = Y[:, 0] > 0 if kind == "classes" else Y.astype(dtype)
    outputs = {"gaussian": 2, "classes": 2, "input-dependent": 4}[kind]
    likelihoods = {"gaussian": Gaussian(dtype(0.5)), "classes": Categorical(), "input-dependent": Heteroscedastic()}
    settings = Settings(warmup=2, max_iterations=12, tolerance=0, batch_size=batch_size)
    settings = replace(settings, trust_region=kind == "input-dependent")
    weight = rng_weights.astype(dtype) if weighted else None
    positional = X.astype(dtype), y.astype(int) if kind == "classes" else y, MLP((3, 5, outputs), "tanh")
    return (*positional, likelihoods[kind]), {"settings": settings, "sample_weight": weight, "test": positional[:2]}


rng_weights = np.random.default_rng(1).uniform(0.5, 2, 40)


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
    [("gaussian", False, None), ("gaussian", True, 16), ("classes", False, 7), ("input-dependent", False, 16)],
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
    """Data and state live on the backend."""
    y = Y if kind is BALIRegressor else Y[:, 0] > 0

    def learn(**options):
        model = kind((5,), max_iterations=8, batch_size=16, random_state=0, backend=backend.name)
        return model.fit(backend.asarray(X), y, **options)

    whole, keep, count = learn(), Checkpoint.keep, [0]

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


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"X": X + np.eye(40, 3)}, "x"),
        ({"Y": Y + np.eye(40, 2)}, "y"),
        ({"sample_weight": rng_weights}, "sample_weight"),
        ({"hidden_widths": (6,)}, "hidden_widths"),
        ({"settings": {"rate": 0.2}}, "settings"),
        ({"random_state": 1}, "random_state"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused_naming_what_differs(change, word, tmp_path):
    def learn(X=X, Y=Y, sample_weight=None, **changes):
        options = {"hidden_widths": (5,), "max_iterations": 4, "random_state": 0, "relevance": False, **changes}
        return BALIRegressor(**options).fit(X, Y, sample_weight, checkpoint=tmp_path / "ck", every=0)

    learn()
    before = (tmp_path / "ck").read_bytes()
    with pytest.raises(InvalidArgumentError, match=rf"ck is of another fit, with other [^;]*\b{word}\b.*delete"):
        learn(**change)
    assert (tmp_path / "ck").read_bytes() == before
    learn(verbose=0)


def test_the_core_tells_its_arguments_apart(tmp_path):
    arguments, options = subject("gaussian", np.float64, False, None)

    def learn(x=arguments[0], mlp=arguments[2], likelihood=arguments[3], generator=None, **changes):
        rest = {**options, **changes}
        generator = generator or np.random.default_rng(0)
        return fit(x, arguments[1], mlp, likelihood, generator, **rest, checkpoint=Checkpoint(tmp_path / "ck"))

    state = learn().state
    for word, change in {
        "network": {"mlp": MLP((3, 4, 2), "tanh")},
        "likelihood": {"likelihood": Gaussian(0.25)},
        "generator": {"generator": np.random.Generator(np.random.MT19937(0))},
        "state": {"state": state},
        "test": {"test": None},
        "settings": {"settings": replace(options["settings"], max_iterations=13)},
    }.items():
        with pytest.raises(InvalidArgumentError, match=f"with other {word}"):
            learn(**change)


def test_of_many_rows_evenly_spaced_ones_are_read():
    many = np.arange(4.0 * ROWS).reshape(-1, 2)
    told = [fingerprint(many + change, NUMPY) for change in (0, np.eye(2 * ROWS, 2), np.eye(2 * ROWS, 2, k=-1))]
    assert told[0] != told[1], "row 0 is among them"
    assert told[0][:2] == [[2 * ROWS, 2], "float64"]


def test_foreign_and_damaged_files_are_refused_and_kept(tmp_path):
    model = BALIRegressor((5,), max_iterations=4, random_state=0)
    model.fit(X, Y, checkpoint=tmp_path / "ck").save(tmp_path / "model.npz")
    whole = (tmp_path / "ck").read_bytes()
    (tmp_path / "text").write_text("x,y\n1,2\n")
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty").write_bytes(b"")
    for name in ("model.npz", "text", "half", "empty"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ModelFileError, match=f"{name} is not a balinp checkpoint"):
            model.fit(X, Y, checkpoint=tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(ModelFileError, match="ck is not a balinp model"):
        BALIRegressor.load(tmp_path / "ck")
    header, arrays = files.read_arrays(tmp_path / "ck", checkpoint_kind())
    arrays["fit/mean.0"] = np.full_like(arrays["fit/mean.0"], np.nan)
    files.write_arrays(tmp_path / "nan", checkpoint_kind(), header, arrays)
    with pytest.raises(ModelFileError, match=r"nan is damaged.*mean of layer 0 must be finite.*delete it"):
        model.fit(X, Y, checkpoint=tmp_path / "nan")


def put(value, *path):
    """A change of a header: ``value`` at that place."""

    def change(header):
        *way, last = path
        for key in way:
            header = header[key]
        header[last] = value

    return change


TAMPERED = {
    "batches beyond the pass": put(10**6, "batches"),
    "no layers": lambda header: header.pop("layers"),
    "another width": put(6, "widths", 1),
    "another activation": put("relu", "activation"),
    "another likelihood": put("Categorical", "likelihood"),
    "another dtype": put("float32", "dtype"),
    "another generator": put(np.random.MT19937(0).state, "generator"),
    "another generator of the pass": put(np.random.SFC64(0).state, "drawn"),
    "an ending without a history": lambda header: header.update(ended="converged", history=[]),
    "a loss that is none": put(None, "history", 0, "train_nll"),
    "a loss of two numbers": put([1.0, 2.0], "history", 0, "train_nll"),
    "one number for the layers": put(1.0, "history", 0, "prior_precision"),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_header_that_was_tampered_with_is_refused_by_name_and_remedy(change, tmp_path):
    """A zip file's checksums only tell damage by accident."""
    arguments, options = subject("gaussian", np.float64, False, 16)
    ended = []

    def stop(*_):
        ended.append(1)
        return len(ended) == 2

    fit(*arguments, np.random.default_rng(0), **options, callbacks=stop, checkpoint=Checkpoint(tmp_path / "ck"))
    header, arrays = files.read_arrays(tmp_path / "ck", checkpoint_kind())
    header["parts"]["fit"]["ended"] = None
    change(header["parts"]["fit"])
    files.write_arrays(
        tmp_path / "ck", checkpoint_kind(), json.loads(json.dumps(header, default=lambda array: array.tolist())), arrays
    )
    before = (tmp_path / "ck").read_bytes()
    with pytest.raises(ModelFileError, match=r"ck is damaged: .*; delete it to start anew"):
        fit(*arguments, np.random.default_rng(0), **options, checkpoint=Checkpoint(tmp_path / "ck"))
    assert (tmp_path / "ck").read_bytes() == before


def test_flipped_bytes_are_refused_or_harmless(tmp_path):
    def learn():
        return BALIRegressor((5,), max_iterations=4, random_state=0).fit(X, Y, checkpoint=tmp_path / "ck")

    expected, refused = learn().predict(X), 0
    whole = (tmp_path / "ck").read_bytes()
    for place in np.random.default_rng(1).integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "ck").write_bytes(damaged)
        try:
            np.testing.assert_array_equal(learn().predict(X), expected)
        except ModelFileError:
            refused += 1
    assert refused > 30


def test_another_kind_of_random_numbers_is_refused(tmp_path):
    def learn(kind):
        state = np.random.Generator(kind(0))
        return BALIRegressor((5,), max_iterations=4, random_state=state).fit(X, Y, checkpoint=tmp_path / "ck")

    learn(np.random.PCG64)
    learn(np.random.PCG64)
    with pytest.raises(InvalidArgumentError, match="with other random_state"):
        learn(np.random.MT19937)


def checkpoint_kind():
    from balinp.checkpoint import CHECKPOINT

    return CHECKPOINT


def test_a_full_disk_is_said_and_the_last_good_file_goes_on(tmp_path, monkeypatch):
    def learn():
        return BALIRegressor((5,), max_iterations=8, random_state=0).fit(X, Y, checkpoint=tmp_path / "ck", every=0)

    def full(descriptor, count=[0]):  # noqa: B006
        count[0] += 1
        if count[0] > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ModelFileError, match=r"cannot write .*ck: No space left"):
        learn()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["ck"]
    expected = BALIRegressor((5,), max_iterations=8, random_state=0).fit(X, Y)
    np.testing.assert_array_equal(learn().predict(X), expected.predict(X))


def test_what_cannot_be_written_is_refused_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("balinp.training.bali_step", None)
    model = BALIRegressor((5,))
    places = [tmp_path / "no" / "folder" / "ck", tmp_path]
    if Path("/proc").is_dir():
        places.append(Path("/proc/balinp.ck"))  # a folder that takes no files, not even of root
    for place in places:
        with pytest.raises(ModelFileError, match=r"cannot (write|read)"):
            model.fit(X, Y, checkpoint=place)
    for every in (-1, float("nan"), "often", True):
        with pytest.raises(InvalidArgumentError, match="every must be a number of seconds"):
            model.fit(X, Y, checkpoint=tmp_path / "ck", every=every)
    with pytest.raises(InvalidArgumentError, match="checkpoint must be a path"):
        model.fit(X, Y, checkpoint=3)
    assert not os.listdir(tmp_path)
    assert not hasattr(model, "state_")


def test_between_writings_lie_so_many_seconds(tmp_path, monkeypatch):
    arguments, options = subject("gaussian", np.float64, False, None)
    clock, written = [0.0], []
    monkeypatch.setattr("balinp.checkpoint.time.monotonic", lambda: clock[0])
    write = files.write_arrays
    monkeypatch.setattr("balinp.checkpoint.write_arrays", lambda *args: (written.append(clock[0]), write(*args)))

    def tick(state, record):
        clock[0] += 4

    fit(
        *arguments,
        np.random.default_rng(0),
        **options,
        callbacks=tick,
        checkpoint=Checkpoint(tmp_path / "ck", every=10),
    )
    assert written == [0, 12, 24, 36, 48]
