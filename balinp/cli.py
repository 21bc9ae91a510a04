"""The command ``balinp``: fit a table, predict another, audit the package.

Errors are one line and exit code 2, an interrupt is 130.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .audit.command import run as run_audit
from .classifier import BALIClassifier
from .commands import run_doctor, run_report, run_score
from .errors import BALIError, ConvergenceWarning, InterruptedFitWarning, InvalidArgumentError
from .evaluation import Evaluation, extrapolations, pictures
from .files import write_atomically
from .learning import how_it_ended
from .options import parser
from .outputs import check_outputs
from .persistence import load_with_extra, save_estimator
from .plots import check_picture, combined, save_figure
from .progress import progress_bar
from .regressor import BALIRegressor
from .report import Forecast, aligned, forecast, measure_rows, number, plain, say
from .schema import Schema, choose_task, oddities
from .table import Table, listed, read_table
from .vectors.command import run as run_vectors

TRAIN_SHARE, LEAST_ROWS = 0.9, 10
FEW_TEST_ROWS = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the process's arguments); the exit code: 0, 1 (an audit or vectors that
    found something wrong), 2 (refused), 130 (Ctrl-C; the first one in a fit ends it, and its model is still written).

    A refusal is one line on stderr, ``balinp: error: …``; it raises nothing and leaves no half-written file.
    """
    try:
        arguments = parser().parse_args(argv)
        code = COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
    except BALIError as error:
        return _fail(str(error))
    except UnicodeEncodeError as error:
        return _fail(f"standard output cannot hold {error.object[error.start]!a} in {error.encoding}; use --out")
    except MemoryError:
        return _fail("not enough memory for this table; fit fewer rows or a narrower --hidden")
    except KeyboardInterrupt:
        print("\nbalinp: interrupted; no file was left half-written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, say) has gone; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    return code or 0


def _fail(message: str) -> int:
    print("balinp: error:", " ".join(message.split()), file=sys.stderr)
    return 2


def _fit(arguments: argparse.Namespace) -> int:
    check_outputs([arguments.out, arguments.plot, arguments.checkpoint], [arguments.table])
    if arguments.plot is not None:
        check_picture(arguments.plot)
    table, schema, reason = _read_for_fit(arguments)
    X, y = schema.encode(table), schema.target(table)
    order, n = np.random.default_rng(arguments.seed).permutation(len(table)), round(TRAIN_SHARE * len(table))
    train, test = order[:n], order[n:]
    if schema.task == "classification":
        train, test = _with_all_classes(schema.targets[0], y, train, test)
    for oddity in oddities(table, schema, train):
        _note(oddity)
    kind = BALIRegressor if schema.task == "regression" else BALIClassifier
    chosen = {
        "max_iterations": arguments.max_iterations,
        "random_state": arguments.seed,
        "verbose": min(arguments.verbose, 2),
    }
    model: Any = kind(arguments.hidden, **chosen)
    start = time.perf_counter()
    with _notes() as noted, progress_bar(not (arguments.json or arguments.verbose)):
        kept = {"checkpoint": arguments.checkpoint, "every": arguments.every}
        model.fit(X[train], y[train], test=(X[test], y[test]), **kept)
    interrupted = any(issubclass(warning.category, InterruptedFitWarning) for warning in noted)
    seconds = time.perf_counter() - start
    if arguments.out is not None:  # before anything else takes time
        save_estimator(model, arguments.out, extra=schema.to_json())
    if len(test) < FEW_TEST_ROWS:
        _note(f"the test figures rest on {len(test)} rows: they can be far from those of other rows")
    on_train = forecast(model, X[train], schema.targets, y[train])
    on_test = forecast(model, X[test], schema.targets, y[test])
    if arguments.plot is not None:
        measured = Evaluation(model, schema, table, X[test], y[test], on_test)
        panels = [draw for _, draw in pictures(measured)]
        save_figure(combined(panels, Path(arguments.table).name), arguments.plot)
    facts = {
        "command": "fit",
        "version": __version__,
        "table": arguments.table,
        "task": schema.task,
        "task_reason": reason,
        "targets": list(schema.targets),
        "columns": [c.name for c in schema.columns],
        "inputs": schema.inputs,
        "hidden": list(arguments.hidden),
        "seed": arguments.seed,
        "rows": {"train": len(train), "test": len(test)},
        "train": on_train.measures,
        "test": on_test.measures,
        "noise_std": _noise(model, schema),
        "classes": None if schema.task == "regression" else model.classes_.tolist(),
        "iterations": model.n_iter_,
        "converged": model.converged_,
        "interrupted": interrupted,
        "ended": "interrupted" if interrupted else how_it_ended(model),
        "seconds": seconds,
        "model": arguments.out,
        "plot": arguments.plot,
    }
    _print_json(facts) if arguments.json else say(_fit_text(facts))
    return 130 if interrupted else 0


def _read_for_fit(arguments: argparse.Namespace) -> tuple[Table, Schema, str]:
    table = read_table(arguments.table)
    if len(table) < LEAST_ROWS:
        raise InvalidArgumentError(f"{table.path} has {len(table)} rows; a fit needs at least {LEAST_ROWS}")
    task, reason = choose_task(table, arguments.target, arguments.task)
    return table, Schema.from_table(table, arguments.target, task, arguments.drop), reason


def _predict(arguments: argparse.Namespace) -> None:
    check_outputs([arguments.out], [arguments.table, arguments.model])
    model, extra = load_with_extra(arguments.model)
    schema = Schema.from_json(extra)
    schema.check_model(model)
    table = read_table(arguments.table, schema.text_columns)
    X = schema.encode(table)
    result = _measured(model, schema, table, X)
    for caution in extrapolations(schema, table):
        _note(caution)
    content = _csv(result.columns)
    if arguments.out is not None:
        write_atomically(arguments.out, lambda file: file.write(content.encode()))
    facts = {
        "command": "predict",
        "version": __version__,
        "model": arguments.model,
        "table": arguments.table,
        "task": schema.task,
        "targets": list(schema.targets),
        "rows": len(table),
        "columns": list(result.columns),
        "measures": result.measures,
        "out": arguments.out,
    }
    if arguments.json:
        _print_json(facts if arguments.out is not None else facts | {"predictions": result.columns})
        return
    rows = [] if result.measures is None else measure_rows([result.measures])
    if arguments.out is None:
        sys.stdout.write(content)
        if rows:
            print(aligned(rows), file=sys.stderr)
    else:
        say(aligned([("rows", str(len(table))), *rows, ("predictions", arguments.out)]))


def _measured(model: Any, schema: Schema, table: Table, X: np.ndarray) -> Forecast:
    """The forecast, measured where the table has the whole target; a target that cannot be used is only noted."""
    if all(name in table.columns for name in schema.targets):
        try:
            return forecast(model, X, schema.targets, schema.target(table))
        except InvalidArgumentError as error:
            _note(f"the predictions are not measured: {error}")
    return forecast(model, X, schema.targets)


def _with_all_classes(target: str, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(training rows, test rows) with those of classes that only the test rows have among the training rows."""
    classes = np.unique(y[train])
    lone = np.isin(y[test], classes, invert=True)
    if len(classes) == len(train) and lone.all():
        raise InvalidArgumentError(
            f"column {target!r} has a different value in every row ({str(y[train][0])!r}, …), which is no class; "
            f"numbers with units must be written as plain numbers to be a target"
        )
    names = listed([str(v) for v in np.unique(y[test][lone])])
    if lone.all():
        raise InvalidArgumentError(
            f"column {target!r}: all rows of {names} fell among the test rows, which are of no other class; give the "
            f"classes more rows, merge them, or try another --seed"
        )
    if lone.any():
        _note(f"all rows of {names} fell among the test rows and are trained on instead; no test row is of them")
        train, test = np.concatenate([train, test[lone]]), test[~lone]
    if len(np.unique(y[train])) < 2:
        raise InvalidArgumentError(
            f"column {target!r} has one class, {str(y[train][0])!r}, in the training rows; a fit needs at least two"
        )
    return train, test


@contextmanager
def _notes() -> Iterator[list[warnings.WarningMessage]]:
    """Warnings as plain lines on stderr, once what they interrupt is done; the list that they come into."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield caught
    for message in dict.fromkeys(_words(warning) for warning in caught):
        _note(message)


def _words(warning: warnings.WarningMessage) -> str:
    if issubclass(warning.category, ConvergenceWarning):
        return "the iterations ended before the training loss stopped falling; raise --max-iterations"
    return str(warning.message)


def _note(message: str) -> None:
    print("balinp: note:", " ".join(message.split()), file=sys.stderr)


def _noise(model: Any, schema: Schema) -> dict[str, float] | None:
    if schema.task == "classification":
        return None
    return dict(zip(schema.targets, map(float, np.sqrt(model.noise_variance_))))


def _fit_text(facts: dict[str, Any]) -> str:
    rows, train, test = facts["rows"], facts["train"], facts["test"]
    noise = facts["noise_std"] or {}
    names = {name: "noise std" if len(noise) == 1 else f"noise std, {name}" for name in noise}
    return aligned(
        [
            ("task", f"{facts['task']} of {', '.join(facts['targets'])} ({facts['task_reason']})"),
            ("rows", f"{rows['train']} train, {rows['test']} test (seed {facts['seed']})"),
            ("inputs", f"{facts['inputs']} from {len(facts['columns'])} columns"),
            ("", "train", "test"),
            *measure_rows([train, test]),
            *((names[name], number(value)) for name, value in noise.items()),
            ("iterations", f"{facts['iterations']} ({facts['ended']})"),
            ("seconds", f"{facts['seconds']:.1f}"),
            ("model", facts["model"] or "not written; --out MODEL.npz writes it"),
            *([("picture", facts["plot"])] if facts["plot"] else []),
        ]
    )


def _csv(columns: dict[str, np.ndarray]) -> str:
    """The columns as CSV text; numbers with as many digits as give back the same bits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.tolist() for values in columns.values())))
    return text.getvalue()


def _print_json(facts: dict[str, Any]) -> None:
    print(json.dumps(plain(facts), allow_nan=False))


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "fit": _fit,
    "predict": _predict,
    "score": run_score,
    "report": run_report,
    "doctor": run_doctor,
    "audit": run_audit,
    "vectors": run_vectors,
}
