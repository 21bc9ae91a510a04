"""The audit: every link from a formula to its derivation, code, test and mutant, gathered and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import balinp

from ..errors import InvalidArgumentError
from .execution import check_execution, read_executed, run_marked_tests
from .markers import check_markers, read_markers, record_markers, recorded_markers
from .mutants import Mutant, check_mutant_links, check_mutants, read_mutants
from .numeric import Measured, check_numbers, run_checks
from .shapes import check_shapes
from .source import Function, check_code, read_functions
from .statements import Finding, Statement, check_statements, derivations_folder, read_statements, with_paper_map

PACKAGE = Path(balinp.__file__).parent


@dataclass(frozen=True)
class Options:
    """What to audit: ``root`` the checkout (None: only what the package carries), ``seed`` and ``backend`` of the
    numerical checks, ``quick`` without mutants and without running tests, ``coverage`` a data file of a run with
    contexts instead of one of the audit's own, ``paper_map`` the paper's equation numbers."""

    root: Path | None = None
    seed: int = 0
    backend: str = "numpy"
    quick: bool = False
    coverage: Path | None = None
    paper_map: Path | None = None
    record: bool = False


@dataclass(frozen=True)
class Audit:
    """What was found. ``parts`` says of every part of the audit what it did, or why it could not run here."""

    options: Options
    statements: list[Statement]
    functions: Mapping[str, Function]
    markers: Mapping[str, list[str]]
    mutants: list[Mutant]
    killed: Mapping[str, bool]
    measured: Mapping[str, Measured]
    threshold: float
    findings: list[Finding]
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def findings_of(self, statement: str) -> list[Finding]:
        """The findings that name it."""
        return [f for f in self.findings if f.statement == statement]

    def mutants_of(self, statement: str) -> list[Mutant]:
        """The mutants that are to break it."""
        return [m for m in self.mutants if m.statement == statement]


def source_root(given: Path | None) -> Path | None:
    """The checkout: ``given``, or the package's own, or the working folder's; None when there is none.

    Raises InvalidArgumentError when ``given`` is no checkout.
    """
    for folder in (given,) if given is not None else (PACKAGE.parent, Path.cwd()):
        if (folder / "tests" / "mutants.toml").is_file() and (folder / "derivations").is_dir():
            return folder
    if given is not None:
        raise InvalidArgumentError(f"--source {given} is no checkout of balinp: it has no tests/mutants.toml")
    return None


def run_audit(options: Options, say: Callable[[str], Any] = lambda text: None) -> Audit:
    """Run every part that can run here; ``say`` is told what begins. Raises InvalidArgumentError for bad options."""
    root = source_root(options.root)
    folder = derivations_folder(PACKAGE) if root is None else root / "derivations"
    statements, findings = read_statements(folder)
    findings += check_statements(statements)
    if options.paper_map is not None:
        statements = with_paper_map(statements, options.paper_map)
    functions = read_functions(PACKAGE)
    findings += check_code(statements, functions)
    parts = {"statements": f"{len(statements)} of them, in {folder}", "code": f"{len(functions)} functions and classes"}
    markers: dict[str, list[str]] = {}
    mutants: list[Mutant] = []
    killed: dict[str, bool] = {}
    if root is not None:
        markers, mutants = read_markers(root / "tests"), read_mutants(root / "tests")
        if options.record:
            record_markers(folder, markers)
        findings += check_markers(statements, markers, recorded_markers(folder))
        findings += check_mutant_links(statements, mutants)
        parts["tests"] = f"{sum(map(len, markers.values()))} markers in {root / 'tests'}"
    else:
        parts["tests"] = parts["mutants"] = parts["execution"] = "not checked: needs the source tree (--source FOLDER)"
    say("docstrings and numerical checks")
    count, wrong = check_shapes(functions, options.seed)
    findings += wrong
    parts["shapes"] = f"{count} docstrings held against calls"
    threshold, measured = run_checks(options.seed, options.backend)
    findings += check_numbers(statements, measured)
    parts["numbers"] = f"{len(measured)} identities, seed {options.seed}, backend {options.backend}"
    if root is not None and options.quick:
        parts["mutants"] = parts["execution"] = "not checked: --quick"
    elif root is not None:
        say(f"{len(mutants)} mutants")
        killed, wrong = check_mutants(PACKAGE, root / "tests", mutants)
        findings += wrong
        parts["mutants"] = f"{sum(killed.values())} of {len(mutants)} killed"
        if options.coverage is None:
            say("the marked tests, under coverage")
        executed = run_marked_tests(root) if options.coverage is None else read_executed(options.coverage)
        findings += check_execution(statements, functions, markers, executed)
        parts["execution"] = "every implementing function against the tests of its statement"
    findings = list(dict.fromkeys(findings))
    return Audit(options, statements, functions, markers, mutants, killed, measured, threshold, findings, parts)
