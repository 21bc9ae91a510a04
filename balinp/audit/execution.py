"""Which functions the marked tests of a statement really execute: coverage contexts of one run of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidArgumentError
from .source import Function
from .statements import Finding, Statement

Executed = dict[str, dict[str, set[int]]]  # file within the package → test → lines


def run_marked_tests(root: Path) -> Executed:
    """Run the tests of the checkout ``root`` that carry a marker, with coverage contexts; what each executed.

    Raises InvalidArgumentError when coverage or pytest-cov is missing, or a test fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "coverage"
        command = [sys.executable, "-m", "pytest", "-m", "equation", "-q", "-x", "-p", "no:cacheprovider"]
        command += ["--cov=balinp", "--cov-context=test", "--cov-report=", "--deselect", "tests/test_audit.py"]
        environment = {**os.environ, "COVERAGE_FILE": str(data), "OPENBLAS_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
        run = subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8")
        if run.returncode != 0:
            tail = " / ".join((run.stdout + run.stderr).strip().splitlines()[-3:])
            raise InvalidArgumentError(f"the marked tests did not pass under coverage (extra 'audit'): {tail}")
        return read_executed(data)


def read_executed(path: Path) -> Executed:
    """What each test executed, from a coverage data file written with ``--cov-context=test``.

    Raises InvalidArgumentError when it cannot be read or holds no contexts.
    """
    try:
        from coverage import CoverageData
        from coverage.exceptions import CoverageException
    except ImportError:
        raise InvalidArgumentError(
            "coverage is needed to read what tests executed: pip install 'balinp[audit]'"
        ) from None
    if not path.is_file():
        raise InvalidArgumentError(f"--coverage {path}: there is no such file")
    data, executed = CoverageData(str(path)), Executed()
    try:
        data.read()
        for name in data.measured_files():
            parts = Path(name).parts
            if "balinp" not in parts:
                continue
            file = str(Path(*parts[len(parts) - parts[::-1].index("balinp") :]))
            by_test = executed.setdefault(file, {})
            for line, contexts in data.contexts_by_lineno(name).items():
                for context in contexts:
                    by_test.setdefault(_test(context), set()).add(line)
    except CoverageException as error:
        raise InvalidArgumentError(f"--coverage {path} cannot be read: {error}") from None
    if not any(test for tests in executed.values() for test in tests):
        raise InvalidArgumentError(f"--coverage {path} holds no contexts; run pytest --cov=balinp --cov-context=test")
    return executed


def _test(context: str) -> str:
    """ "file.py::name" out of "tests/file.py::name[parameters]|run"; "" for what ran outside any test."""
    return context.split("|")[0].split("[")[0].rpartition("/")[2]


def check_execution(
    statements: Sequence[Statement], functions: dict[str, Function], markers: dict[str, list[str]], executed: Executed
) -> list[Finding]:
    """Implementing functions that no marked test of their statement executes."""
    findings = []
    for s in statements:
        tests = markers.get(s.id, ())
        for name in s.code:
            function = functions.get(name)
            if function is None or not function.body:
                continue  # missing is found elsewhere; a class without methods runs nothing
            by_test = executed.get(function.file, {})
            if not any(function.body & by_test.get(test, set()) for test in tests):
                findings.append(Finding(s.id, f"no test that carries its marker executes balinp.{name}"))
    return findings
