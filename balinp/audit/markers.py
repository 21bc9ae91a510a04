"""Which tests carry which statement's marker, read from the tests' source without running them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Sequence
from pathlib import Path

from .statements import Finding, Statement

RECORD = "markers.toml"  # in derivations/: every marker there is, so that one that goes missing is noticed


def read_markers(tests: Path) -> dict[str, list[str]]:
    """For every id the tests that carry ``@pytest.mark.equation(id)``, as "file.py::name", in order."""
    found: dict[str, list[str]] = {}
    for path in sorted(tests.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for decorator in node.decorator_list:
                    for statement in _equations(decorator):
                        found.setdefault(statement, []).append(f"{path.name}::{node.name}")
    return found


def _equations(decorator: ast.expr) -> list[str]:
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.equation":
        return []
    return [a.value for a in decorator.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]


def recorded_markers(folder: Path) -> dict[str, list[str]]:
    """The markers as recorded in derivations/markers.toml; empty when there is no record."""
    path = folder / RECORD
    return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}


def record_markers(folder: Path, markers: dict[str, list[str]]) -> None:
    """Write derivations/markers.toml: ids in alphabetical order, a test a line."""
    lines = [
        "# Written by `balinp audit --record`: every test that carries a statement's marker. The audit compares.",
        "",
    ]
    for statement in sorted(markers):
        lines += [f'"{statement}" = [', *(f'    "{test}",' for test in sorted(set(markers[statement]))), "]"]
    (folder / RECORD).write_text("\n".join(lines) + "\n", "utf-8")


def check_markers(
    statements: Sequence[Statement], markers: dict[str, list[str]], recorded: dict[str, list[str]]
) -> list[Finding]:
    """Statements without a test, markers of unknown ids, checks that lack the marker, differences from the record."""
    findings, ids = [], {s.id for s in statements}
    for s in statements:
        tests = set(markers.get(s.id, ()))
        if not tests:
            findings.append(Finding(s.id, f'no test carries @pytest.mark.equation("{s.id}")'))
        for test in s.check:
            if test != "conformance" and test not in tests:
                findings.append(Finding(s.id, f"tests/{test} is its check and does not carry its marker"))
    if not recorded:
        findings.append(Finding("derivations", f"{RECORD} is missing; run `balinp audit --record` and commit it"))
        recorded = markers
    for statement in sorted(set(markers) | set(recorded)):
        now, then = set(markers.get(statement, ())), set(recorded.get(statement, ()))
        if statement not in ids:
            where = ", ".join(f"tests/{test}" for test in sorted(now)) or f"derivations/{RECORD}"
            findings.append(Finding(statement, f"is named by {where}, but no derivation states it (dangling id)"))
        for test in sorted(then - now):
            findings.append(
                Finding(statement, f"tests/{test} lost its marker; put it back, or run `balinp audit --record`")
            )
        for test in sorted(now - then):
            findings.append(Finding(statement, f"tests/{test} is not on record; run `balinp audit --record`"))
    return findings
