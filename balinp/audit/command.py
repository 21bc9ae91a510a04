"""``balinp audit``: its arguments, the table on the terminal, the JSON; exit status 1 when something is wrong."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from ..errors import BALIError
from .audit import Audit, Options, run_audit
from .statements import Statement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``balinp audit``."""
    parser.add_argument("--seed", type=int, default=0, help="of the random instances (default 0)")
    parser.add_argument("--backend", default="numpy", metavar="NAME", help="of the numerical checks (default numpy)")
    parser.add_argument("--quick", action="store_true", help="without mutants and without running the tests")
    parser.add_argument("--html", metavar="REPORT.html", type=Path, help="write one self-contained page")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--paper-map", metavar="MAP.toml", type=Path, help='the paper\'s numbers: "eq:ema" = "(12)"')
    parser.add_argument("--source", metavar="FOLDER", type=Path, help="a checkout, when balinp is installed elsewhere")
    parser.add_argument(
        "--coverage", metavar="FILE", type=Path, help="data of pytest --cov=balinp --cov-context=test, instead of a run"
    )
    parser.add_argument("--record", action="store_true", help="write derivations/markers.toml anew")


def run(arguments: argparse.Namespace) -> int:
    """Run the audit and print it; 0 when nothing is wrong, else 1."""
    options = Options(
        arguments.source,
        arguments.seed,
        arguments.backend,
        arguments.quick,
        arguments.coverage,
        arguments.paper_map,
        arguments.record,
    )
    if arguments.html is not None:
        from .page import page  # refused before the work when what it needs is missing

    audit = run_audit(options, lambda text: print(f"balinp audit: {text} …", file=sys.stderr))
    if arguments.html is not None:
        arguments.html.write_text(page(audit), "utf-8")
    text = json.dumps(as_json(audit), ensure_ascii=False) if arguments.json else table(audit)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    return 0 if audit.passed else 1


def verdict(audit: Audit, statement: Statement) -> str:
    """ "holds", "holds, unmeasured" (its numerical check could not run here) or "WRONG"."""
    if audit.findings_of(statement.id):
        return "WRONG"
    measured = audit.measured.get(statement.id)
    return "holds" if measured is not None and measured.ratio is not None else "holds, unmeasured"


def table(audit: Audit) -> str:
    """A line per statement; what each part did; every finding."""
    lines = [f"{'statement':29s} {'status':21s} {'paper':6s} code tests mutants     ratio  verdict"]
    for s in audit.statements:
        measured, mutants = audit.measured.get(s.id), audit.mutants_of(s.id)
        dead = sum(audit.killed.get(m.name, False) for m in mutants)
        killed = f"{dead}/{len(mutants)}" if audit.killed else f"-/{len(mutants)}"
        ratio = "-" if measured is None or measured.ratio is None else f"{measured.ratio:.2g}"
        tests = len(set(audit.markers.get(s.id, ())))
        numbers = f"{len(s.code):4d} {tests:5d} {killed:>7s} {ratio:>9s}"
        lines.append(f"{s.id:29s} {s.status:21s} {s.paper:6s} {numbers}  {verdict(audit, s)}")
    lines.append("")
    lines += [f"{part + ':':12s} {what}" for part, what in audit.parts.items()]
    lines.append("")
    lines += [f"WRONG  {finding}" for finding in audit.findings]
    ratios = [(m.ratio, name, m.what) for name, m in audit.measured.items() if m.ratio is not None]
    if ratios:
        worst, name, of = max(ratios)
        lines.append(f"worst residual ratio {worst:.3g} of {audit.threshold:g} eps: {name} ({of})")
    lines.append(
        f"{len(audit.statements)} statements: "
        + ("nothing is wrong" if audit.passed else f"{len(audit.findings)} wrong")
    )
    return "\n".join(lines)


def as_json(audit: Audit) -> dict[str, Any]:
    """The audit as plain data; an infinite ratio is the string "inf"."""

    def number(value: float | None) -> float | str | None:
        return value if value is None or math.isfinite(value) else str(value)

    statements = []
    for s in audit.statements:
        measured = audit.measured.get(s.id)
        statements.append(
            {
                "id": s.id,
                "title": s.title,
                "status": s.status,
                "assumptions": list(s.assumptions),
                "uses": list(s.uses),
                "paper": s.paper,
                "alternative": s.alternative,
                "reason": s.reason,
                "derivation": f"derivations/{s.file}:{s.line}",
                "code": [
                    {"name": f"balinp.{name}", "file": f.file, "lines": [f.first, f.last]}
                    for name in s.code
                    if (f := audit.functions.get(name))
                ],
                "check": list(s.check),
                "tests": sorted(set(audit.markers.get(s.id, ()))),
                "mutants": [
                    {"name": m.name, "old": m.old, "new": m.new, "killed": audit.killed.get(m.name)}
                    for m in audit.mutants_of(s.id)
                ],
                "ratio": None if measured is None else number(measured.ratio),
                "of": None if measured is None else measured.what,
                "findings": [f.message for f in audit.findings_of(s.id)],
                "verdict": verdict(audit, s),
            }
        )
    findings = [{"statement": f.statement, "message": f.message} for f in audit.findings]
    whole = {"passed": audit.passed, "seed": audit.options.seed, "backend": audit.options.backend}
    return {**whole, "threshold": audit.threshold, "parts": audit.parts, "findings": findings, "statements": statements}


def main(argv: list[str] | None = None) -> int:
    """``python -m balinp.audit``: the same as ``balinp audit``."""
    parser = argparse.ArgumentParser(prog="balinp audit", description="Check the chain from formulas to tests.")
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except BALIError as error:
        print("balinp: error:", error, file=sys.stderr)
        return 2
