"""The subcommands that look at a fitted model, and at the installation: score, report, doctor."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import __version__, doctor
from .evaluation import cautions, evaluate, foreign_auroc, pictures
from .files import write_atomically
from .html_report import report_page
from .outputs import check_outputs
from .plots import check_picture, combined, save_figure
from .plots.canvas import check_matplotlib
from .report import aligned, measure_rows, number, plain, say
from .table import read_table


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``balinp score``."""
    _add_model_and_table(parser)
    parser.add_argument(
        "--unlike", metavar="OTHER.csv", help="rows of another kind: can the uncertainty tell them apart (AUROC)?"
    )
    parser.add_argument("--plot", metavar="SCORE.png", help="draw the pictures (needs pip install 'balinp[plot]')")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``balinp report``."""
    _add_model_and_table(parser)
    parser.add_argument("--html", required=True, metavar="REPORT.html", help="write the page here")


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``balinp doctor``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_model_and_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.npz", help="a model written by balinp fit --out")
    parser.add_argument("table", metavar="TEST.csv", help="rows with their true targets, best ones the fit never saw")


def run_score(arguments: argparse.Namespace) -> None:
    """Measure a model on a table: numbers, cautions, pictures."""
    inputs = [arguments.model, arguments.table, *([arguments.unlike] if arguments.unlike else [])]
    check_outputs([arguments.plot], inputs)
    if arguments.plot is not None:
        check_picture(arguments.plot)
    e = evaluate(arguments.model, arguments.table)
    other = None if arguments.unlike is None else read_table(arguments.unlike, e.schema.text_columns)
    area = None if other is None else foreign_auroc(e, other)
    if arguments.plot is not None:
        title = f"{Path(arguments.model).name} on {Path(arguments.table).name}"
        save_figure(combined([draw for _, draw in pictures(e, other)], title), arguments.plot)
    noticed, measures = cautions(e), e.forecast.measures or {}
    if arguments.json:
        found = {
            "command": "score",
            "version": __version__,
            "model": arguments.model,
            "table": arguments.table,
            "rows": len(e.table),
            "measures": measures,
            "cautions": noticed,
            "auroc_unlike": area,
            "plot": arguments.plot,
        }
        print(json.dumps(plain(found), allow_nan=False))
        return
    rows = [("rows", str(len(e.table))), *measure_rows([measures])]
    if area is not None:
        rows.append(("AUROC against " + Path(arguments.unlike).name, number(area)))
    say(aligned(rows + [("careful", caution) for caution in noticed]))


def run_report(arguments: argparse.Namespace) -> None:
    """Write the page about a model on a table."""
    check_outputs([arguments.html], [arguments.model, arguments.table])
    check_matplotlib()
    e = evaluate(arguments.model, arguments.table)
    page = report_page(e, arguments.model)
    write_atomically(arguments.html, lambda file: file.write(page.encode()))
    rows = [("rows", str(len(e.table))), *measure_rows([e.forecast.measures or {}])]
    say(aligned([*rows, *(("careful", caution) for caution in cautions(e)), ("report", arguments.html)]))


def run_doctor(arguments: argparse.Namespace) -> None:
    """Say what is installed and what is missing."""
    found = doctor.facts()
    say(json.dumps(found) if arguments.json else aligned(doctor.text_rows(found)))
