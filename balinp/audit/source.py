"""What stands in the package's source: functions, the ids they cite, the lines that implement them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .statements import ID, Finding, Statement

CORE = (
    "backend",
    "cupy_backend",
    "activations",
    "mlp",
    "heteroscedastic",
    "likelihoods",
    "matrix_normal",
    "statistics",
    "regression",
    "settings",
    "evidence",
    "passes",
    "solver",
    "training",
    "predictive",
)


@dataclass(frozen=True)
class Function:
    """A function, method or class: "module.name" within the package, its file, its first and last line with the
    comment above it, its text, the lines of its body (docstring and signatures apart), and whether users call it."""

    name: str
    file: str
    first: int
    last: int
    text: str
    body: frozenset[int]
    public: bool
    docstring: str = ""

    @property
    def ids(self) -> set[str]:
        """The statements it cites."""
        return set(ID.findall(self.text))


def read_functions(package: Path, modules: Sequence[str] | None = None) -> dict[str, Function]:
    """Every function, method and class of the package, or of ``modules`` ("testing.oracles"), by name."""
    paths = sorted(package.rglob("*.py"))
    result: dict[str, Function] = {}
    for path in paths:
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        if "derivations" in path.parts or (modules is not None and module not in modules):
            continue
        text = path.read_text("utf-8")
        _collect(ast.parse(text), module, str(path.relative_to(package)), text.splitlines(), True, result)
    return result


def _collect(
    node: ast.Module | ast.ClassDef, prefix: str, file: str, lines: list[str], public: bool, into: dict[str, Function]
) -> None:
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.ClassDef):
            continue
        name, shown = f"{prefix}.{child.name}", public and not child.name.startswith("_")
        first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
        while first > 1 and lines[first - 2].lstrip().startswith("#"):  # the comment above belongs to it
            first -= 1
        last = child.end_lineno or child.lineno
        text = "\n".join(lines[first - 1 : last])
        called = shown and isinstance(child, ast.FunctionDef)
        into[name] = Function(
            name, file, first, last, text, frozenset(_body(child)), called, ast.get_docstring(child) or ""
        )
        if isinstance(child, ast.ClassDef):
            _collect(child, name, file, lines, shown, into)


def _body(node: ast.AST) -> set[int]:
    """Lines that run only when a function is called: its statements without signature, decorators and docstring."""
    if isinstance(node, ast.ClassDef):
        return set().union(*(_body(child) for child in node.body))
    if not isinstance(node, ast.FunctionDef):
        return set()
    statements = node.body
    if ast.get_docstring(node) is not None:
        statements = statements[1:]
    return {line for s in statements for line in range(s.lineno, (s.end_lineno or s.lineno) + 1)}


def citing_lines(function: Function, statement: str) -> list[int]:
    """The numbers of the lines of ``function`` that name the statement."""
    lines = function.text.splitlines()
    return [function.first + i for i, line in enumerate(lines) if statement in ID.findall(line)]


def check_code(statements: Sequence[Statement], functions: dict[str, Function]) -> list[Finding]:
    """Code that is missing or does not cite its statement, dangling ids, public functions without any."""
    findings, ids = [], {s.id for s in statements}
    for s in statements:
        for name in s.code:
            function = functions.get(name)
            if function is None:
                findings.append(Finding(s.id, f"there is no balinp.{name}: mend `code` in derivations/{s.file}"))
            elif s.id not in function.ids:
                findings.append(
                    Finding(
                        s.id, f"balinp.{name} ({function.file}:{function.first}) implements it and does not cite it"
                    )
                )
    for function in functions.values():
        for other in sorted(function.ids - ids):
            findings.append(
                Finding(other, f"is cited in balinp/{function.file}:{citing_lines(function, other)[0]}, but not stated")
            )
    for function in functions.values():
        module = function.name.split(".")[0]
        if module in CORE and function.public and not function.ids:
            findings.append(
                Finding(
                    f"balinp.{function.name}", f"a public function of the core ({function.file}) cites no statement"
                )
            )
    return findings


def excerpt(function: Function, statement: str, before: int = 2, after: int = 8) -> tuple[int, str]:
    """(first line number, text): the function whole when it is short, else the lines about where the id stands."""
    lines = function.text.splitlines()
    if len(lines) <= 40:
        return function.first, function.text
    marked = [line - function.first for line in citing_lines(function, statement)]
    last = marked[-1] if marked else 0  # the docstring names it first, the line that implements it last
    start, end = max(0, last - before), min(len(lines), last + after)
    return function.first + start, "\n".join(lines[start:end])
