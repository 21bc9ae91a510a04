"""What a fit says while it runs: callbacks, the log, verbose; and that the library says nothing by itself."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import balinp
from balinp import BALIClassifier, BALIRegressor, InvalidArgumentError

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
FOLDER = Path(balinp.__file__).parent
COMMANDS = {
    "cli.py",
    "commands.py",
    "report.py",
    "progress.py",
    "audit/command.py",
    "audit/mutant_worker.py",
    "vectors/command.py",
}
COMMANDS |= {"testing/gpu.py", "testing/conformance.py"}  # commands of their own: python -m balinp.testing.gpu
STREAMS = {("session.py", "stderr")}  # where verbose asks for it
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 3))
Y = np.sin(2 * X[:, 0]) + 0.1 * rng.standard_normal(60)
FITS = ["relevance", *(f"held-out rows {k} of 2, variant {v}" for v in (1, 2, 3) for k in (1, 2)), "fit"]


def regressor(**options):
    return BALIRegressor((6,), max_iterations=12, random_state=0, **options)


def says(source):
    """What in ``source`` writes to the process's own streams."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "input"):
            yield node.func.id
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sys" and "std" in node.attr:
            yield node.attr


def test_the_library_writes_to_no_stream_by_itself():
    found = {
        (path.relative_to(FOLDER).as_posix(), what)
        for path in FOLDER.rglob("*.py")
        for what in says(path.read_text("utf-8"))
    }
    assert {place for place in found if place[0] not in COMMANDS} == STREAMS
    assert list(says("print(1)\nsys.stdout.write('')\nsys.__stderr__.flush()")) == ["print", "stdout", "__stderr__"]


def test_several_callbacks_are_all_called_and_one_may_end_the_fit():
    seen = []
    last = [lambda state, record: record.iteration == 4, lambda state, record: seen.append((state, record))]
    model = regressor().fit(X, Y, callbacks=last)
    assert [record.iteration for _, record in seen] == [1, 2, 3, 4]
    assert model.n_iter_ == 4
    assert regressor().fit(X, Y, callbacks=[]).n_iter_ == 12
    assert regressor().fit(X, Y, callbacks=tuple(last)).n_iter_ == 4


def test_the_log_tells_of_all_eight_fits(caplog):
    with caplog.at_level(logging.INFO, "balinp"):
        regressor().fit(X, Y, test=(X, Y))
    lines = [record.message for record in caplog.records if record.name == "balinp"]
    assert [line.partition(": ")[0] for line in lines] == [name for name in FITS for _ in range(2)]
    assert lines[0] == "relevance: 60 rows, at most 12 iterations"
    assert lines[1].startswith("relevance: ended after iteration 12, ")
    assert "48 rows" in lines[2]


def test_every_iteration_is_told_in_the_units_of_y(caplog):
    with caplog.at_level(logging.DEBUG, "balinp"):
        model = regressor().fit(X, 100 * Y, test=(X, 100 * Y))
    told = [r for r in caplog.records if getattr(r, "phase", "") == "fit" and r.record is not None]
    assert [r.record for r in told] == model.history_
    assert all(r.budget == 12 and r.levelno == logging.DEBUG for r in told)
    assert f"iteration 12, train NLL {model.history_[-1].train_nll:.4g}, test NLL" in told[-1].message


def test_nothing_is_logged_where_nobody_listens(monkeypatch):
    """No line is made for each iteration at the usual level: a fit should not pay for words that nobody reads."""
    made = []
    monkeypatch.setattr("balinp.session._line", made.append)
    regressor().fit(X, Y)
    assert made == []


SCRIPT = """
import logging, sys, numpy as np, warnings
from balinp import BALIRegressor
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 3))
if sys.argv[2] == "logging":
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s|%(message)s")
elif sys.argv[2] == "level":  # but no handler that would take the lines
    logging.getLogger("balinp").setLevel(logging.DEBUG)
BALIRegressor((6,), max_iterations=12, random_state=0, verbose=int(sys.argv[1])).fit(X, X[:, 0])
assert not logging.getLogger("balinp").handlers
"""


@pytest.mark.parametrize(
    ("verbose", "setup", "printed", "errors"),
    [(0, "none", 0, 0), (1, "none", 0, 16), (2, "none", 0, 112), (1, "level", 0, 16), (0, "logging", 112, 0)],
)
def test_verbose_writes_to_stderr_unless_logging_is_set_up(verbose, setup, printed, errors):
    """Two lines for each of the eight fits and one for each of their twelve iterations, every one once."""
    line = [sys.executable, "-c", SCRIPT, str(verbose), setup]
    result = subprocess.run(line, capture_output=True, text=True, check=True, cwd=FOLDER.parent)
    assert len(result.stdout.splitlines()) == printed
    assert len(result.stderr.splitlines()) == errors
    assert all(text.startswith("balinp: ") for text in result.stderr.splitlines())
    assert all(text.startswith("balinp|") for text in result.stdout.splitlines())


@pytest.mark.parametrize("verbose", [3, -1, "yes", 0.5, None])
def test_bad_verbose(verbose):
    with pytest.raises(InvalidArgumentError, match="verbose must be 0, 1 or 2"):
        BALIClassifier(verbose=verbose).fit(X, Y > 0)
