"""Checkpoints of another fit, damaged ones, full disks: refused by name and remedy, and the last good file stays."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpointed import WEIGHT, X, Y, subject

from balinp import (
    MLP,
    BALIRegressor,
    Checkpoint,
    Gaussian,
    InvalidArgumentError,
    ModelFileError,
    files,
    fit,
)
from balinp.backend import NUMPY
from balinp.checkpoint import ROWS, fingerprint

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"X": X + np.eye(40, 3)}, "x"),
        ({"Y": Y + np.eye(40, 2)}, "y"),
        ({"sample_weight": WEIGHT}, "sample_weight"),
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
        "network;": {"mlp": MLP((3, 5, 2), "relu")},
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
    told = fingerprint(many, NUMPY)
    assert told[:2] == [[2 * ROWS, 2], "float64"]
    for row, read in ((0, True), (ROWS, True), (2 * ROWS - 2, True), (1, False), (2 * ROWS - 1, False)):
        changed = many.copy()
        changed[row, 1] += 1
        assert (fingerprint(changed, NUMPY) != told) == read, f"row {row}"


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
    "an ending of no kind": put("tired", "ended"),
    "an ending without a history": lambda header: header.update(ended="converged", history=[]),
    "a loss that is none": put(None, "history", 0, "train_nll"),
    "a loss of two numbers": put([1.0, 2.0], "history", 0, "train_nll"),
    "one number for the layers": put(1.0, "history", 0, "prior_precision"),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_header_that_was_tampered_with_is_refused_by_name_and_remedy(change, tmp_path):
    """A zip file's checksums only tell damage by accident."""
    assert_refused(lambda header, arrays: change(header), tmp_path)


def in_float32(header, arrays):
    header["dtype"] = "float32"
    arrays.update({name: array.astype(np.float32) for name, array in arrays.items()})


TAMPERED_ARRAYS = {
    "all of another dtype": (in_float32, "dtype"),
    "a noise for every output": (
        lambda header, arrays: arrays.update({"fit/noise_variance": np.ones(2)}),
        "likelihood",
    ),
}


@pytest.mark.parametrize(("change", "what"), TAMPERED_ARRAYS.values(), ids=TAMPERED_ARRAYS)
def test_arrays_of_another_fit_are_refused(change, what, tmp_path):
    """Such as belong together, but not to this fit."""
    assert_refused(change, tmp_path, what=f"{what} is not that of the fit")


TAMPERED_AVERAGES = {
    "of more iterations than there were": lambda header, arrays: header.update(averaged=7),
    "of no iteration": lambda header, arrays: header.update(averaged=0),
    "of one layer": lambda header, arrays: arrays.pop("fit/averaged.0"),
    "of no layer": lambda header, arrays: [arrays.pop(f"fit/averaged.{l}") for l in (0, 1)],
    "of another layer": lambda header, arrays: arrays.update({"fit/averaged.2": np.zeros((4, 2))}),
    "of another shape": lambda header, arrays: arrays.update({"fit/averaged.1": np.zeros((4, 2))}),
    "of no numbers": lambda header, arrays: arrays.update({"fit/averaged.1": np.full((6, 2), np.nan)}),
}


@pytest.mark.parametrize("change", TAMPERED_AVERAGES.values(), ids=TAMPERED_AVERAGES)
def test_averages_that_were_tampered_with_are_refused(change, tmp_path):
    assert_refused(change, tmp_path)


@pytest.mark.parametrize("settings", [{"averaging": None}, {"gradients": "mean"}, {"warmup": 9}])
def test_averages_of_a_fit_that_has_none_are_refused(settings, tmp_path):
    def change(header, arrays):
        assert header["averaged"] == 0
        header["averaged"] = 1
        arrays.update({f"fit/averaged.{l}": arrays[f"fit/mean.{l}"] for l in (0, 1)})

    assert_refused(change, tmp_path, **settings)


def assert_refused(change, tmp_path, what=".*", **settings):
    """``change`` the header and the arrays of a fit's checkpoint after two passes of three mini-batches; go on."""
    arguments, options = subject("gaussian", np.float64, False, 16)
    options["settings"] = replace(options["settings"], **settings)
    ended = []

    def stop(*_):
        ended.append(1)
        return len(ended) == 2

    fit(*arguments, np.random.default_rng(0), **options, callbacks=stop, checkpoint=Checkpoint(tmp_path / "ck"))
    header, arrays = files.read_arrays(tmp_path / "ck", checkpoint_kind())
    header["parts"]["fit"]["ended"] = None
    change(header["parts"]["fit"], arrays)
    files.write_arrays(
        tmp_path / "ck", checkpoint_kind(), json.loads(json.dumps(header, default=lambda array: array.tolist())), arrays
    )
    before = (tmp_path / "ck").read_bytes()
    with pytest.raises(ModelFileError, match=rf"ck is damaged: .*{what}; delete it to start anew"):
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
