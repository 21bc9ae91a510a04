"""Hand-written mistakes: copies of the package with one change of text each, which the statement's checks must kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .statements import Finding, Statement


@dataclass(frozen=True)
class Mutant:
    """In ``file`` (of the package) ``old``, which occurs there once, becomes ``new``: a ``mistake`` that breaks
    ``statement``. ``tests``: a pytest selection that must kill it where balinp.testing.conformance cannot see it."""

    file: str
    mistake: str
    old: str
    new: str
    statement: str = ""
    tests: str = ""

    @property
    def name(self) -> str:
        """ "file.py: mistake", as derivations name it."""
        return f"{self.file}: {self.mistake}"


def read_mutants(tests: Path) -> list[Mutant]:
    """The mutants of tests/mutants.toml, in its order."""
    table = tomllib.loads((tests / "mutants.toml").read_text("utf-8"))
    return [Mutant(file, **mutant) for file, mutants in table.items() for mutant in mutants]


def copied(package: Path, folder: Path, mutant: Mutant | None = None) -> Path:
    """``folder`` with a copy of ``package``, mutated. Raises ValueError when the mutant's text is not there once."""
    shutil.copytree(package, folder / "balinp", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        path = folder / "balinp" / mutant.file
        source = path.read_text("utf-8") if path.is_file() else ""
        if source.count(mutant.old) != 1:
            raise ValueError(f"{mutant.old!r} must occur once in {mutant.file}: write the mutant anew")
        path.write_text(source.replace(mutant.old, mutant.new), "utf-8")
    return folder


def environment(folder: Path | str = "") -> dict[str, str]:
    """The environment of a process that is to import balinp from ``folder``."""
    outer = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "COVERAGE_FILE")}  # not a run's own
    return {**outer, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(folder)}


class Worker:
    """One process that runs the conformance tool on package after package."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def verdict(self, folder: Path, statement: str = "") -> dict[str, Any]:
        """{"status", "output", "file"} of the tool, on one statement or all, with the package in ``folder``.

        Raises RuntimeError if the process dies.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\t{statement}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker that runs mutants has died")
        answer = json.loads(line)
        if not Path(answer["file"]).is_relative_to(folder):
            raise RuntimeError(f"{answer['file']} was checked, which is not the mutant in {folder}")
        return answer

    def breaks(self, folder: Path, statement: str) -> bool:
        """Whether the tool says that the statement is broken."""
        return f"{statement} is broken: " in self.verdict(folder, statement)["output"]


@contextmanager
def worker() -> Iterator[Worker]:
    """A Worker, ended on the way out."""
    command = [sys.executable, str(Path(__file__).with_name("mutant_worker.py"))]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, env=environment(), **pipes) as process:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()


def pytest_fails(folder: Path, tests: Path, selection: str) -> bool:
    """Whether a test of ``selection`` fails on the package in ``folder``. Raises RuntimeError if none was found."""
    shutil.copytree(tests, folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    run = subprocess.run(
        [*command, selection], cwd=folder, env=environment(folder), capture_output=True, encoding="utf-8"
    )
    if run.returncode not in (0, 1):
        raise RuntimeError(run.stdout + run.stderr)
    return run.returncode == 1


def killed(mutant: Mutant, package: Path, tests: Path, by: Worker) -> bool:
    """Whether the checks see the mistake: its statement broken, or one of its tests failing."""
    with tempfile.TemporaryDirectory() as name:
        folder = copied(package, Path(name), mutant)
        return pytest_fails(folder, tests, mutant.tests) if mutant.tests else by.breaks(folder, mutant.statement)


def check_mutant_links(statements: Sequence[Statement], mutants: Sequence[Mutant]) -> list[Finding]:
    """Mutants that statements name and are not there or belong to another; mutants of unknown statements."""
    by_name, ids, findings = {m.name: m for m in mutants}, {s.id for s in statements}, []
    for s in statements:
        for name in s.mutants:
            if name not in by_name:
                findings.append(Finding(s.id, f"its mutant {name!r} is not in tests/mutants.toml"))
            elif by_name[name].statement != s.id:
                findings.append(Finding(s.id, f"its mutant {name!r} is to break {by_name[name].statement or 'no id'}"))
    for m in mutants:
        if m.statement and m.statement not in ids:
            findings.append(Finding(m.statement, f"the mutant {m.name!r} names it, but no derivation states it"))
    return findings


def check_mutants(package: Path, tests: Path, mutants: Sequence[Mutant]) -> tuple[dict[str, bool], list[Finding]]:
    """(which mutants were killed, those that survive or can no longer be made), by one worker process."""
    verdicts: dict[str, bool] = {}
    findings = []
    with worker() as by:
        for m in mutants:
            statement = m.statement or f"tests/{m.tests}"
            try:
                verdicts[m.name] = killed(m, package, tests, by)
            except ValueError as error:
                findings.append(Finding(statement, f"the mutant {m.name!r} cannot be made: {error}"))
                continue
            if not verdicts[m.name]:
                findings.append(Finding(statement, f"the mutant {m.name!r} survives: no check notices the mistake"))
    return verdicts, findings
