"""Ctrl-C in a fit: the first ends it with a usable model, the second aborts, handlers come back."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import balinp
from balinp import BALIClassifier, BALIRegressor, InterruptedFitWarning
from balinp.interruption import Interruption

pytestmark = [
    pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning"),
    pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them"),
]
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 3))
Y = np.sin(2 * X[:, 0]) + 0.1 * rng.standard_normal(60)


def regressor(**options):
    return BALIRegressor((6,), max_iterations=30, random_state=0, **options)


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def handler():
    """Python's own handler before, and after."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@contextmanager
def ctrl_c_in(phase, iteration):
    """A real SIGINT when the log tells of that iteration of that fit."""

    class Sender(logging.Handler):
        def emit(self, record):
            if record.phase == phase and record.record is not None and record.record.iteration == iteration:
                ctrl_c()

    logger, sender = logging.getLogger("balinp"), Sender()
    logger.addHandler(sender)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(sender)
        logger.setLevel(logging.NOTSET)


def test_the_first_ends_the_fit_after_the_iteration():
    def callback(state, record):
        if record.iteration == 7:
            ctrl_c()

    model = regressor()
    with pytest.warns(InterruptedFitWarning, match="interrupted: the fit ended after iteration 7 "):
        model.fit(X, Y, callbacks=callback)
    assert (model.n_iter_, len(model.history_), model.converged_) == (7, 7, False)
    short = regressor().fit(X, Y, callbacks=lambda state, record: record.iteration == 7)
    np.testing.assert_array_equal(model.predict(X), short.predict(X), "the model of a fit that ends there")


HELD_OUT = "held-out rows 1 of 2, variant 1"


@pytest.mark.parametrize("phase", ["relevance", HELD_OUT, "fit"])
def test_every_fit_can_be_interrupted_and_leaves_a_model(phase, tmp_path):
    model = regressor()
    with ctrl_c_in(phase, 5), pytest.warns(InterruptedFitWarning) as caught:
        model.fit(X, Y)
    (warning,) = caught
    assert warning.filename == __file__
    rows = {"relevance": "60", HELD_OUT: "48"}.get(phase)  # of a preliminary fit the model is another, which is said
    said = (
        "fit ended after iteration 5 and" if rows is None else f"in {phase!r}, a fit before the one proper: the model"
    )
    assert said in str(warning.message)
    assert rows is None or f"after iteration 5, learnt from {rows} of 60 rows, and" in str(warning.message)
    assert ("relevance=False, validation_fraction=0" in str(warning.message)) == (rows is not None)
    assert model.n_iter_ == 5
    mean, std = model.predict(X, return_std=True)
    assert np.all(np.isfinite(mean))
    assert np.all(std > 0)
    model.save(tmp_path / "m.npz")
    np.testing.assert_array_equal(BALIRegressor.load(tmp_path / "m.npz").predict(X), mean)
    if phase.startswith("held-out"):  # the noise is what training learnt
        assert model.noise_variance_ == pytest.approx(model.history_[-1].noise_variance, rel=1e-12)
    if phase == "relevance":
        assert model.history_[-1].train_nll < model.history_[0].train_nll
        alone = regressor(relevance=False, validation_fraction=0)
        np.testing.assert_array_equal(model.x_scaler_.scale, alone.fit(X, Y).x_scaler_.scale)


def test_within_a_pass_the_rows_so_far_are_reported(monkeypatch):
    step, losses = balinp.training.bali_step, []

    def stepping(*args):
        state = step(*args)
        losses.append(state.training_loss)
        if state.iteration == 8:
            ctrl_c()
        return state

    monkeypatch.setattr(balinp.training, "bali_step", stepping)
    model = BALIClassifier((6,), batch_size=10, random_state=0, validation_fraction=0)  # six iterations a pass
    with pytest.warns(InterruptedFitWarning):
        model.fit(X, Y > 0)
    assert [record.iteration for record in model.history_] == [6, 8]
    np.testing.assert_array_max_ulp(model.history_[1].train_nll, np.mean(losses[6:]), 4)
    assert model.predict_proba(X).shape == (60, 2)


def test_a_checkpoint_goes_on_to_the_bits_of_a_fit_that_was_never_interrupted(tmp_path, monkeypatch):
    step, calls = balinp.training.bali_step, []
    monkeypatch.setattr(balinp.training, "bali_step", lambda *args: (calls.append(1), step(*args))[1])
    held_out = ("held-out rows 2 of 2, variant 1", "held-out rows 1 of 2, variant 2")
    for phase in ("relevance", *held_out, "fit"):
        with ctrl_c_in(phase, 11), pytest.warns(InterruptedFitWarning, match="goes on from .*ck"):
            regressor().fit(X, Y, checkpoint=tmp_path / "ck")
    model = regressor().fit(X, Y, checkpoint=tmp_path / "ck")
    assert len(calls) == 8 * 30, "no iteration is made twice"
    np.testing.assert_array_equal(model.predict(X), regressor().fit(X, Y).predict(X))


def test_the_second_aborts_and_leaves_the_estimator_as_it_was():
    def callback(state, record):
        ctrl_c()
        ctrl_c()

    model = regressor()
    before = dict(model.__dict__)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=callback)
    assert model.__dict__ == before
    fitted = regressor().fit(X, Y)
    expected = fitted.predict(X)
    with pytest.raises(KeyboardInterrupt):
        fitted.fit(X, -Y, callbacks=callback)
    np.testing.assert_array_equal(fitted.predict(X), expected)


def test_an_error_brings_the_handler_back():
    def callback(state, record):
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        regressor().fit(X, Y, callbacks=callback)


def test_anothers_handler_and_other_threads_are_left_alone():
    seen, handlers = [], []

    def own(number, frame):
        seen.append(number)

    signal.signal(signal.SIGINT, own)
    model = regressor().fit(X, Y, callbacks=lambda state, record: ctrl_c() if record.iteration == 3 else None)
    assert seen == [signal.SIGINT]
    assert model.n_iter_ == 30
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is own

    def learn():
        regressor().fit(X, Y, callbacks=lambda *_: handlers.append(signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=learn)
    thread.start()
    thread.join()
    assert set(handlers) == {signal.default_int_handler}


def test_a_ctrl_c_that_no_fit_answered_is_not_lost():
    with pytest.raises(KeyboardInterrupt), Interruption():
        ctrl_c()
    with Interruption() as interruption:
        ctrl_c()
        assert interruption.answered()


def command(folder, *arguments):
    """The command on yacht in a process of its own, that gets a SIGINT after some iterations: code, stdout, stderr."""
    root = Path(balinp.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    rows = "".join(f"{a},{b},{c},{y}\n" for (a, b, c), y in zip(X, Y))
    (folder / "t.csv").write_text("a,b,c,y\n" + rows)
    line = [sys.executable, "-m", "balinp", "fit", "t.csv", "--target", "y", "--hidden", "6", "-vv"]
    line += ["--max-iterations", "100", *arguments]
    process = subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    errors = ""
    for text in process.stderr:
        errors += text
        if text.startswith("balinp: fit: iteration 15,"):
            process.send_signal(signal.SIGINT)
            break
    printed, rest = process.communicate(timeout=120)
    return process.returncode, printed, errors + rest


def test_the_command_writes_the_model_and_says_so_and_the_same_command_goes_on(tmp_path):
    code, printed, errors = command(tmp_path, "--out", "m.npz", "--checkpoint", "ck", "--every", "0")
    assert code == 130
    assert re.search(r"iterations +\d+ \(interrupted\)", printed)
    assert "balinp: note: interrupted: the fit ended after iteration" in errors
    model = BALIRegressor.load(tmp_path / "m.npz")
    assert model.n_iter_ >= 15
    code, printed, errors = command(tmp_path, "--out", "m2.npz", "--checkpoint", "ck")
    assert (code, "(interrupted)" in printed) == (0, False)
    assert "balinp: fit: iteration 15," not in errors, "what was done is not repeated"
    assert BALIRegressor.load(tmp_path / "m2.npz").n_iter_ >= model.n_iter_
