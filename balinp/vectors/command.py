"""``balinp vectors``: lint, generate, run and verify. Exit code 0: all is well; 1: something is not."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..errors import InvalidArgumentError
from ..files import write_atomically
from . import format, verdict, verify
from .format import CANDIDATE_FORMAT, EPSILON, FOLDER
from .run import adapter, candidate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``balinp vectors``, added to its ``parser``."""
    commands = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    lint = commands.add_parser("lint", help="check the files against their schema (needs balinp[test])")
    lint.add_argument("folder", nargs="?", type=Path, default=FOLDER, metavar="FOLDER", help="default: as shipped")
    make = commands.add_parser("generate", help="work the files out in 50-digit arithmetic (needs balinp[test])")
    make.add_argument("folder", nargs="?", type=Path, default=FOLDER, metavar="FOLDER", help="default: as shipped")
    make.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a byte would change")
    make.add_argument("--only", type=_names, metavar="OPERATIONS", help="comma-separated; default: all")
    check = commands.add_parser("verify", help="verify a candidate, a JSON file that a port has written")
    check.add_argument("candidate", type=Path, metavar="CANDIDATE.json")
    drive = commands.add_parser("run", help="answer the vectors with a Python adapter and verify the answers")
    drive.add_argument("--adapter", default="balinp.vectors.package", metavar="MODULE", help="a module or a .py file")
    drive.add_argument("--dtype", choices=sorted(EPSILON), default="float64")
    drive.add_argument("--out", type=Path, metavar="CANDIDATE.json", help="write the answers here")
    for command in (check, drive):
        command.add_argument("--only", type=_names, metavar="OPERATIONS", help="comma-separated; default: all")
    commands.add_parser("where", help="print the folder of the vector files")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("name operations, separated by commas, or leave the option out")
    return names


def run(arguments: argparse.Namespace) -> int:
    """Do what ``balinp vectors`` was asked for: 0 when all is well, 1 when something is not; raises BALIError."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # the messages are mathematics
    tasks = {"lint": _lint, "generate": _generate, "verify": _verify, "run": _run, "where": _where}
    return tasks[arguments.task](arguments)


def _where(arguments: argparse.Namespace) -> int:
    print(FOLDER)
    return 0


def _lint(arguments: argparse.Namespace) -> int:
    from .lint import problems

    found = problems(arguments.folder)
    print("\n".join(found) if found else f"{len(format.load(arguments.folder))} files, no problem")
    return int(bool(found))


def _generate(arguments: argparse.Namespace) -> int:
    try:
        from .generate import documents
    except ImportError as error:
        raise InvalidArgumentError(
            f"balinp vectors generate needs mpmath, which cannot be imported ({error}); pip install 'balinp[test]'"
        ) from error
    texts, folder = documents(arguments.only), arguments.folder
    stored = {path.name: path.read_text("utf-8") for path in folder.glob("*.json")}
    stale = [name for name, text in texts.items() if stored.get(name) != text]
    extra = sorted(set(stored) - set(texts)) if arguments.only is None else []
    for name in stale:
        print(f"{name}: {'differs from the reference' if arguments.check else 'written'}")
    for name in extra:
        print(f"{name}: no operation of the reference")
    if not arguments.check:
        for name in stale:
            write_atomically(folder / name, lambda file, name=name: file.write(texts[name].encode()))  # type: ignore[misc]
    print(f"{len(texts)} files, {len(texts) - len(stale)} as the reference gives them")
    return int(bool(extra or (stale and arguments.check)))


def _verify(arguments: argparse.Namespace) -> int:
    return _report(format.read(arguments.candidate, CANDIDATE_FORMAT), arguments.only)


def _run(arguments: argparse.Namespace) -> int:
    module = adapter(arguments.adapter)
    names = {"name": getattr(module, "NAME", arguments.adapter), "versions": getattr(module, "VERSIONS", {})}
    made = candidate(module.answer, format.load(), arguments.dtype, arguments.only, **names)
    if arguments.out is not None:
        text = json.dumps(made, allow_nan=False) + "\n"
        write_atomically(arguments.out, lambda file: file.write(text.encode()))
    return _report(made, arguments.only)


def _report(made: dict, only: list[str] | None) -> int:
    vectors = format.load()
    reports = verify.verify(made, vectors, only)
    print(verdict.table(reports, made, format.digest(vectors)))
    return int(not reports or any(report.failed for report in reports))
