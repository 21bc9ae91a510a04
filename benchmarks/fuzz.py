"""Fuzzing of everything that reads a file or a user's table: model files, checkpoints, CSV tables, a model's columns.

Run: python benchmarks/fuzz.py [--inputs 100000] [--seed 0] [--only N] [--report benchmarks/fuzz_report.txt]

The contract: an input is used, and every number that follows from it is finite, or it is refused with a BALIError (by
the command: exit code 2, one line of error and nothing on stdout). Broken by any other exception, a warning, a NaN,
more than SECONDS of processor time or, for one input, more than MEGABYTES of new memory. Input n of a seed is always
the same one: ``--only n`` replays it. Inputs are made by ``fuzz_inputs.py`` and ``fuzz_archives.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_archives import mutated_checkpoint, mutated_model
from fuzz_inputs import Corpus, clone, mutated_schema, mutated_table

import balinp
from balinp import BALIError
from balinp.cli import main as command
from balinp.persistence import load_with_extra
from balinp.schema import Schema, choose_task
from balinp.table import read_table

SECONDS, MEGABYTES = 5, 64
DRAWS = 10  # of a Monte-Carlo predictive: the file's own number is the user's to spend, and only bounded here


class BrokenContractError(Exception):
    """The input was neither used nor refused."""


class _Hang(BaseException):
    """Raised by the alarm; no ``except Exception`` in the code under test can swallow it."""


def use_model(corpus: Corpus, generator: np.random.Generator) -> str:
    """Load a damaged model file; what still loads must predict finite numbers, go on training and save again."""
    kind, content = mutated_model(corpus, generator)
    path = corpus.folder / "fuzzed.npz"
    path.write_bytes(content)
    model, extra = load_with_extra(path)
    if extra is not None:
        with contextlib.suppress(BALIError):
            Schema.from_json(extra).check_model(model)
    repr(model)
    model.draws = min(int(model.draws), DRAWS)
    X = np.linspace(-1, 1, 3 * model.n_features_in_).reshape(3, -1)
    finite(model.predict_distribution(X), "predict")
    if kind == "header":  # numbers that only training and saving read
        y = model.classes_[[0, 1, 0]] if hasattr(model, "classes_") else np.zeros((3, len(model.y_scaler_.offset)))
        model.partial_fit(X, y)
        finite(model.predict_distribution(X), "predict after partial_fit")
    model.save(corpus.folder / "again.npz")
    return "used"


def use_checkpoint(corpus: Corpus, generator: np.random.Generator) -> str:
    """Go on with a fit from a damaged checkpoint; a fit that is not refused must end and predict finite numbers.

    What training makes of wild numbers may overflow with NumPy's warning, before it is refused as diverged.
    """
    index, content = mutated_checkpoint(corpus, generator)
    path = corpus.folder / "fuzzed.ck"
    path.write_bytes(content)
    X, y = corpus.fit_data(index)
    model = clone(corpus.models[index]).set_params(batch_size=5)
    warnings.simplefilter("ignore", RuntimeWarning)
    model.fit(X, y, checkpoint=path)
    finite(model.predict_distribution(X[:3]), "predict")
    return "used"


def use_table(corpus: Corpus, generator: np.random.Generator) -> str:
    """Read a damaged CSV as fit and as predict do, up to the arrays."""
    path = corpus.folder / "fuzzed.csv"
    path.write_bytes(mutated_table(corpus, generator))
    fitted = corpus.schemas[generator.integers(len(corpus.schemas))]
    with contextlib.suppress(BALIError):
        finite(fitted.encode(read_table(path, fitted.text_columns)), "inputs of predict")
    table = read_table(path)
    names = list(table.columns)
    target = names[generator.integers(len(names))]
    task, _ = choose_task(table, [target], str(generator.choice(["auto", "regression", "classification"])))
    schema = Schema.from_table(table, [target], task)
    X, y = schema.encode(table), schema.target(table)
    finite(X, "inputs")
    if len(X) != len(table) or len(y) != len(table) or X.shape[1] != schema.inputs:
        raise BrokenContractError(f"{X.shape} inputs and {y.shape} targets of {len(table)} rows")
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    if again != schema or not np.array_equal(again.encode(read_table(path, again.text_columns)), X):
        raise BrokenContractError("the schema does not survive JSON")
    return "used"


def use_schema(corpus: Corpus, generator: np.random.Generator) -> str:
    """A damaged column list in a sound model, against a sound table."""
    index, value = mutated_schema(corpus, generator)
    schema = Schema.from_json(value)
    schema.check_model(corpus.models[index])
    X = schema.encode(read_table(corpus.folder / f"sound.{index}.csv", schema.text_columns))
    finite(X, "inputs")
    finite(corpus.models[index].predict_distribution(X), "predict")
    return "used"


def use_predict(corpus: Corpus, generator: np.random.Generator) -> str:
    """The command ``balinp predict`` with a damaged model or a damaged table."""
    index = int(generator.integers(len(corpus.schemas)))
    model, table = corpus.folder / f"sound.{index}.npz", corpus.folder / f"sound.{index}.csv"
    if generator.random() < 0.3:
        model = corpus.folder / "fuzzed.npz"
        model.write_bytes(mutated_model(corpus, generator)[1])
    else:
        table = corpus.folder / "fuzzed.csv"
        table.write_bytes(mutated_table(corpus, generator))
    options = [["--json"], [], ["--out", str(corpus.folder / "out.csv")]][generator.integers(3)]
    return run_command(["predict", str(model), str(table), *options])


def use_fit(corpus: Corpus, generator: np.random.Generator) -> str:
    """The command ``balinp fit`` with a damaged table."""
    path = corpus.folder / "fuzzed.csv"
    path.write_bytes(mutated_table(corpus, generator))
    target = str(generator.choice(["y", "label", "a", "colour"]))
    options = ["--target", target, "--hidden", "2", "--max-iterations", "2", "--json"]
    return run_command(["fit", str(path), *options, "--seed", str(generator.integers(100))])


def run_command(arguments: list[str]) -> str:
    """The command's verdict; raises BrokenContractError where its exit code, output and errors disagree."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command(arguments)
    lines = err.getvalue().splitlines()
    notes = all(line.startswith("balinp: note: ") for line in lines[:-1])
    if code == 2 and notes and lines and lines[-1].startswith("balinp: error: ") and not out.getvalue():
        return "refused"
    if code == 0 and all(line.startswith("balinp: note: ") or "--json" not in arguments for line in lines):
        if "--json" in arguments:
            json.loads(out.getvalue(), parse_constant=_refuse_constant)
        elif "nan" in out.getvalue().lower().replace("nan_", ""):
            raise BrokenContractError(f"a NaN is written: {out.getvalue()[:300]}")
        return "used"
    raise BrokenContractError(f"exit code {code}, stdout {out.getvalue()[:200]!r}, stderr {err.getvalue()[:500]!r}")


def _refuse_constant(name: str) -> Any:
    raise BrokenContractError(f"{name} in the JSON output")


def finite(result: Any, what: str) -> None:
    """Fail on a number that is not finite, in an array or in the fields of a predictive."""
    arrays = [result] if isinstance(result, np.ndarray) else [v for v in vars(result).values() if v is not None]
    for array in arrays:
        if not np.all(np.isfinite(np.asarray(array, dtype=np.float64))):
            raise BrokenContractError(f"{what}: a number that is not finite")


# name, the share of inputs, the function
TARGETS: tuple[tuple[str, float, Callable[[Corpus, np.random.Generator], str]], ...] = (
    ("model file", 0.36, use_model),
    ("checkpoint", 0.06, use_checkpoint),
    ("table", 0.38, use_table),
    ("column list", 0.1, use_schema),
    ("balinp predict", 0.09, use_predict),
    ("balinp fit", 0.01, use_fit),
)


def run_one(corpus: Corpus, seed: int, number: int) -> tuple[str, str]:
    """(target, verdict) of input ``number``: "used", "refused", or how the contract was broken, with the traceback."""
    generator = np.random.default_rng([seed, number])
    name, _, use = TARGETS[generator.choice(len(TARGETS), p=[share for _, share, _ in TARGETS])]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", balinp.ConvergenceWarning)
            verdict = use(corpus, generator)
    except BALIError:
        verdict = "refused"
    except _Hang:
        verdict = f"more than {SECONDS} seconds\n{traceback.format_exc()}"
    except Exception as error:
        verdict = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return name, verdict if grown < MEGABYTES else f"{grown:.0f} MiB of new memory; {verdict}"


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """A hang becomes an exception."""

    def ring(*_: Any) -> None:
        raise _Hang

    before = signal.signal(signal.SIGPROF, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, before)


def fuzz(inputs: int, seed: int, say: Callable[[str], Any] = print, first: int = 0) -> tuple[Counter, list[str]]:
    """Run that many inputs: verdicts counted by (target, "used"/"refused"/"broken"), and every broken one in words."""
    counts: Counter = Counter()
    broken: list[str] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, alarm():
        corpus = Corpus.make(Path(folder))
        for number in range(first, first + inputs):
            name, verdict = run_one(corpus, seed, number)
            if verdict not in ("used", "refused"):
                broken.append(f"input {number} ({name}): {verdict}")
                verdict = "broken"
            counts[name, verdict] += 1
            done = number - first + 1
            if done % 10_000 == 0:
                say(f"{done:>8} inputs, {time.perf_counter() - start:6.0f} s, broken: {len(broken)}")
    return counts, broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="replay one input and show its traceback")
    parser.add_argument("--report", type=Path, help="write what is printed here as well")
    arguments = parser.parse_args()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    first, inputs = (0, arguments.inputs) if arguments.only is None else (arguments.only, 1)
    say(f"python benchmarks/fuzz.py --inputs {inputs} --seed {arguments.seed}")
    versions = f"numpy {np.__version__}, scipy {scipy.__version__}, Python {platform.python_version()}"
    say(f"balinp {balinp.__version__}, {versions}, {platform.machine()}")
    counts, broken = fuzz(inputs, arguments.seed, say, first)
    say(f"{'target':16s}{'used':>10s}{'refused':>10s}{'broken':>10s}")
    for name, _, _ in TARGETS:
        say(f"{name:16s}" + "".join(f"{counts[name, verdict]:10d}" for verdict in ("used", "refused", "broken")))
    say(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    kinds = Counter(_kind(text) for text in broken)
    for kind, count in kinds.most_common():
        example = next(text for text in broken if _kind(text) == kind)
        say(f"\n{count} × {kind}, for example\n{example}")
    if arguments.report is not None:
        arguments.report.write_text("\n".join(lines) + "\n")
    return 1 if broken else 0


def _kind(text: str) -> str:
    """The exception and the innermost line of the package that it passed through."""
    first, *rest = text.splitlines()
    inside = [line.strip() for line in rest if "/balinp/" in line]
    return first.split(": ", 1)[1][:60] + (f" at {inside[-1]}" if inside else "")


if __name__ == "__main__":
    sys.exit(main())
