"""The command line's arguments, and what can be refused about them before any work begins."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from . import __version__
from .audit.command import add_arguments as add_audit_arguments
from .checkpoint import EVERY
from .commands import add_doctor_arguments, add_report_arguments, add_score_arguments
from .errors import InvalidArgumentError
from .schema import TASKS
from .vectors.command import add_arguments as add_vectors_arguments

EXAMPLES = """examples:
  balinp fit yacht.csv --target residuary_resistance --out yacht.npz --plot yacht.png
  balinp fit iris.csv --target species --drop id --json
  balinp fit energy.csv --target heating --target cooling --out energy.npz
  balinp predict yacht.npz new.csv --out predictions.csv
  balinp report yacht.npz test.csv --html report.html
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidArgumentError(f"{message}; see '{self.prog} --help'")


def parser() -> argparse.ArgumentParser:
    """The parser of ``balinp``. Bad arguments raise InvalidArgumentError; --help and --version SystemExit."""
    raw = argparse.RawDescriptionHelpFormatter
    top = _Parser(
        "balinp",
        description="Fit a Bayesian neural network to a table by layerwise inference (BALI); predict with uncertainty.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    top.add_argument("--version", action="version", version=f"balinp {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    fit = commands.add_parser(
        "fit",
        help="fit a table, measure on held-out rows, write the model",
        description="Fit a CSV table with a header. A random tenth of the rows is held out for testing.\n"
        "Text columns are one-hot encoded. A target of numbers means regression; one of text, of\n"
        "two whole numbers, or at most ten with ten rows each, classification.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    fit.add_argument("table", metavar="TABLE.csv", help="the table: UTF-8; commas, semicolons or tabs; a header")
    fit.add_argument("--target", action="append", required=True, metavar="COLUMN", help="what to predict; repeatable")
    fit.add_argument("--drop", action="append", default=[], metavar="COLUMN", help="leave a column out; repeatable")
    fit.add_argument("--task", choices=TASKS, default="auto")
    fit.add_argument("--out", metavar="MODEL.npz", help="write the model here")
    fit.add_argument("--plot", metavar="FIT.png", help="draw a picture (needs pip install 'balinp[plot]')")
    fit.add_argument("--seed", type=_integer(0), default=0, help="of the split and the fit (default 0)")
    fit.add_argument(
        "--hidden", type=_widths, default=(50,), metavar="WIDTHS", help="e.g. 50 (default), 100,100, or 0: linear"
    )
    fit.add_argument(
        "--max-iterations", type=_integer(1), metavar="N", help="end the fit after N iterations (whole passes)"
    )
    fit.add_argument(
        "--checkpoint", metavar="PATH", help="keep where the fit stands here; the same command goes on from it"
    )
    fit.add_argument("--every", type=_seconds, default=EVERY, metavar="SECONDS", help="how often (default 60)")
    fit.add_argument("-v", "--verbose", action="count", default=0, help="say what runs; -vv: after every iteration")
    fit.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    predict = commands.add_parser(
        "predict",
        help="predict the rows of a table with a fitted model",
        description="Predict every row of a CSV table, in its order. Columns are found by name, others ignored.\n"
        "Regression: mean, standard deviations (aleatoric: noise; epistemic: ignorance of the weights;\n"
        "total) and the normal 90 % interval. Classification: most probable class, probabilities, entropy\n"
        "in nats. If the table has the target, the predictions are also measured.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    predict.add_argument("model", metavar="MODEL.npz", help="a model written by balinp fit --out")
    predict.add_argument("table", metavar="NEW.csv", help="the rows to predict")
    predict.add_argument("--out", metavar="PREDICTIONS.csv", help="write here (default: standard output)")
    predict.add_argument("--json", action="store_true", help="print one JSON object (with the predictions if no --out)")
    add_score_arguments(
        commands.add_parser(
            "score",
            help="measure a model on a table whose targets are known, with pictures",
            description="Measure a model on rows whose targets are known, best ones that the fit never saw, and say\n"
            "what to be careful of: rows outside the range of the fit, poor calibration, a fit that did not end well.",
            formatter_class=raw,
        )
    )
    add_report_arguments(
        commands.add_parser("report", help="the same as one page for a browser, with pictures and settings")
    )
    add_doctor_arguments(commands.add_parser("doctor", help="say what is installed, what is missing, and what to do"))
    add_audit_arguments(
        commands.add_parser("audit", help="check the chain from formulas to derivations, code and tests")
    )
    add_vectors_arguments(
        commands.add_parser(
            "vectors",
            help="conformance vectors for ports: lint, generate, run, verify",
            description="Conformance vectors for ports of BALI to other languages; docs/porting.md is the guide.",
        )
    )
    return top


def _integer(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
        return int(text)

    return parse


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, got {text!r}")
    return seconds


def _widths(text: str) -> tuple[int, ...]:
    return () if text == "0" else tuple(_integer(1)(width) for width in text.split(","))
