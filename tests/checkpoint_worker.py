"""Fits of estimators that are killed again and again, in processes of their own: run by tests/test_checkpoint.py.

Arguments: kind of estimator, a folder, a seed. Every child is this process's fork, which saves the start of Python; it
fits with a checkpoint that is written after every iteration, and is killed by SIGKILL: by this process after a random
time, or by itself, half through a file, before it is renamed, or just after. Prints a JSON object.
"""

import contextlib
import hashlib
import json
import os
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from balinp import BALIClassifier, BALIRegressor, ModelFileError, files

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 3))
Y = np.sin(2 * X[:, 0]) + X[:, 1] / 2 + 0.1 * rng.standard_normal(60)
OPTIONS = {"hidden_widths": (6,), "max_iterations": 24, "random_state": 5}
KINDS = {
    "regression": lambda: BALIRegressor(**OPTIONS),
    "mini-batches": lambda: BALIRegressor(**OPTIONS, batch_size=16, noise="input-dependent"),
    "classes": lambda: BALIClassifier(**OPTIONS, batch_size=16),
}


def fitted(kind, path=None):
    model = KINDS[kind]()
    return model.fit(X, Y > 0 if kind == "classes" else Y, checkpoint=path, every=0)


def digest(model):
    """Of all bits of a model but the seconds."""
    state, found = model.state_, hashlib.sha256()
    for layer in state.layers:
        p, s = layer.posterior, layer.statistics
        for array in (p.mean, p.row_precision, p.column_covariance, s.gram, s.cross, s.target_gram, s.curvature):
            found.update(array.tobytes())
        found.update(repr((layer.prior_precision, layer.determined, layer.log_evidence)).encode())
    found.update(model.predict_distribution(X).mean.tobytes() + model.predict_distribution(X).covariance.tobytes())
    records = [{k: v for k, v in vars(record).items() if k != "seconds"} for record in model.history_]
    rest = records, model._predict_seed, model._generator.bit_generator.state, model.converged_
    found.update(repr(rest).encode())
    return found.hexdigest()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(module, name, call, half=False):
    """Let ``module.name`` kill this process at its so-manieth ``call``, before it does anything or ``half`` through."""
    original, count = getattr(module, name), [0]

    def killing(*args, **kwargs):
        count[0] += 1
        if count[0] == call:
            if half:
                args[0].write(b"PK\x03\x04 half a file")
                args[0].flush()
            die()
        return original(*args, **kwargs)

    setattr(module, name, killing)


def child(kind, path, prepare):
    """The process id of a fork that fits after ``prepare()``."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    with contextlib.suppress(BaseException):
        prepare()
        fitted(kind, path)
        code = 0
    os._exit(code)


def main(kind, folder, seed):
    warnings.simplefilter("ignore")
    choose, path = np.random.default_rng(seed), Path(folder) / "fit.ck"
    start = time.perf_counter()
    whole = digest(fitted(kind))
    duration = time.perf_counter() - start
    stages = [("savez", True), ("fsync", False), ("replace", False), ("chmod", False)]
    signals = []
    for number in range(14):
        name, half = stages[number % len(stages)]
        call = int(choose.integers(2, 9))
        if number % 3:
            pid = child(kind, path, lambda: deadly(np if half else files.os, name, call, half))  # noqa: B023
        else:
            pid = child(kind, path, lambda: None)
            time.sleep(float(choose.uniform(0, duration / 4)))
            os.kill(pid, signal.SIGKILL)
        signals.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    left = sorted(os.listdir(folder))
    model = fitted(kind, path)
    again = fitted(kind, path)
    report = {"signals": signals, "left": left, "after": sorted(os.listdir(folder)), "whole": whole}
    print(json.dumps(report | {"resumed": digest(model), "again": digest(again)}))


def full(folder):
    """What a fit says on a disk that takes no more than 6 000 bytes of a file; whether it goes on with more room."""
    warnings.simplefilter("ignore")
    path = Path(folder) / "fit.ck"
    reader, writer = os.pipe()
    if not os.fork():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        said = "nothing"
        try:
            fitted("regression", path)
        except ModelFileError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    said, left = os.read(reader, 10_000).decode(), sorted(os.listdir(folder))
    same = digest(fitted("regression", path)) == digest(fitted("regression"))
    print(json.dumps({"said": said, "left": left, "same": same}))


if __name__ == "__main__":
    if sys.argv[1] == "full":
        full(sys.argv[2])
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
