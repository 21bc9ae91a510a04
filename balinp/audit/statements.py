"""The statements of derivations/: read, and checked among themselves."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError

ID = re.compile(r"\beq:[a-z0-9]+(?:-[a-z0-9]+)*(?![a-z0-9-]|…)")
STATUSES = ("fixed by the abstract", "derived", "our choice")
_BLOCK = re.compile(r"^```toml\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the statement it concerns, and what to do about it."""

    statement: str
    message: str

    def __str__(self) -> str:
        return f"{self.statement}: {self.message}"


@dataclass(frozen=True)
class Statement:
    """One statement: what its block says, the file it stands in, and its derivation in Markdown.

    paper: the paper's own equation number, "?" until someone who holds the paper fills it in. code: functions as
    "module.name" within balinp. check: tests ("file.py::name" in tests/) or "conformance", at least one of which is
    independent of the code. mutants: "file.py: mistake" of tests/mutants.toml. alternative, reason: of a choice.
    """

    id: str
    title: str
    status: str
    assumptions: tuple[str, ...]
    uses: tuple[str, ...]
    paper: str
    code: tuple[str, ...]
    check: tuple[str, ...]
    mutants: tuple[str, ...]
    alternative: str = ""
    reason: str = ""
    file: str = ""
    line: int = 0
    body: str = ""


def derivations_folder(package: Path) -> Path:
    """The folder of derivations beside or inside ``package``: a checkout's, or the one that the wheel brought along.

    Raises InvalidArgumentError when there is none.
    """
    for folder in (package.parent / "derivations", package / "derivations"):
        if (folder / "01-notation.md").is_file():
            return folder
    raise InvalidArgumentError(
        f"there are no derivations beside {package}; install balinp from its wheel or a checkout"
    )


def read_statements(folder: Path) -> tuple[list[Statement], list[Finding]]:
    """Every statement under ``folder``, in reading order, and what is malformed."""
    statements: list[Statement] = []
    findings: list[Finding] = []
    for path in sorted(folder.glob("[0-9]*.md")):
        text = path.read_text("utf-8")
        for heading, section, line in _sections(text):
            block = _BLOCK.search(section)
            if block is None:
                continue
            try:
                statements.append(_statement(tomllib.loads(block[1]), path.name, line, section[block.end() :].strip()))
            except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
                findings.append(Finding(heading, f"its block in derivations/{path.name} cannot be read: {error}"))
                continue
            if f"`{statements[-1].id}`" not in heading:
                findings.append(Finding(statements[-1].id, f"the heading {heading!r} in {path.name} names another id"))
    return statements, findings


def _sections(text: str) -> list[tuple[str, str, int]]:
    """(heading, text below it, line number) of every second-level heading."""
    starts = [match.start() for match in re.finditer(r"^## ", text, re.MULTILINE)]
    result = []
    for start, end in zip(starts, [*starts[1:], len(text)]):
        heading, _, section = text[start:end].partition("\n")
        result.append((heading[3:], section, text.count("\n", 0, start) + 1))
    return result


def _statement(block: dict[str, Any], file: str, line: int, body: str) -> Statement:
    known = {f.name for f in fields(Statement)} - {"file", "line", "body"}
    if set(block) - known:
        raise ValueError(f"unknown key {sorted(set(block) - known)[0]!r}")
    if block.get("status") not in STATUSES:
        raise ValueError(f"status must be one of {STATUSES}, got {block.get('status')!r}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in block.items()}
    return Statement(**values, file=file, line=line, body=body)


def check_statements(statements: Sequence[Statement]) -> list[Finding]:
    """Ids that are malformed or double, dangling or circular ``uses``, and what a statement must have but lacks."""
    findings, ids = [], [s.id for s in statements]
    for s in statements:
        if not ID.fullmatch(s.id):
            findings.append(Finding(s.id, "an id is eq: and lower-case words joined by hyphens"))
        if ids.count(s.id) > 1:
            findings.append(Finding(s.id, f"stands more than once in derivations/ (again in {s.file})"))
        for other in s.uses:
            if other not in ids:
                findings.append(Finding(s.id, f"uses {other}, which no derivation states (dangling id)"))
        if s.status == "our choice" and not (s.alternative and s.reason):
            findings.append(Finding(s.id, "a choice of ours needs its alternative and the measured reason"))
        for name in ("code", "check", "mutants"):
            if not getattr(s, name):
                findings.append(Finding(s.id, f"names no {name}"))
        for other in sorted(set(ID.findall(s.body)) - set(ids)):
            findings.append(
                Finding(s.id, f"its derivation refers to {other}, which no derivation states (dangling id)")
            )
    cycle = find_cycle({s.id: s.uses for s in statements})
    if cycle:
        findings.append(Finding(cycle[0], f"rests on itself: {' uses '.join(cycle)}"))
    return findings


def find_cycle(uses: dict[str, tuple[str, ...]]) -> list[str]:
    """A cycle in ``uses``, its first element again at the end; empty when there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for other in uses.get(node, ()):
            found = visit(other, [*path, node])
            if found:
                return found
        done.add(node)
        return []

    for start in uses:
        found = visit(start, [])
        if found:
            return found
    return []


def with_paper_map(statements: Sequence[Statement], path: Path) -> list[Statement]:
    """The statements with the paper's equation numbers from a TOML file of lines like "eq:ema" = "(12)".

    Raises InvalidArgumentError when the file cannot be read or names an id that does not exist.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgumentError(f"--paper-map {path} cannot be read: {error}") from None
    numbers = {key: str(value) for key, value in table.items()}
    unknown = sorted(set(numbers) - {s.id for s in statements})
    if unknown:
        raise InvalidArgumentError(f"--paper-map {path} names {unknown[0]!r}, which no derivation states")
    return [replace(s, paper=numbers.get(s.id, s.paper)) for s in statements]
