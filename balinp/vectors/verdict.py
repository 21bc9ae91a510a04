"""What ``verify`` found, in words: a line per operation, then what is wrong, in the order in which to mend it."""

from __future__ import annotations

from math import inf
from typing import Any

from .verify import NO_ANSWER, Diagnosis, OperationReport, Outcome

MOST_CASES, MOST_STATEMENTS = 6, 4  # shown of an operation that fails


def table(reports: list[OperationReport], candidate: dict[str, Any], digest: str) -> str:
    """Who was verified against what, a line per operation, then the failures with statement and likely mistake."""
    versions = ", ".join(f"{name} {version}" for name, version in candidate.get("versions", {}).items())
    name, dtype = candidate.get("name", "candidate"), candidate["dtype"]
    lines = [f"{name}, {dtype}{' (' + versions + ')' if versions else ''}, vectors {digest}", ""]
    lines.append(f"{'operation':24s} {'cases':>5s} {'right':>5s} {'worst ratio':>11s}  verdict")
    for report in reports:
        right = len(report.outcomes) - len(report.failed)
        worst = max((outcome.worst for outcome in report.outcomes), default=0.0)
        verdict = "WRONG" if report.failed else "passes"
        lines.append(f"{report.operation:24s} {len(report.outcomes):5d} {right:5d} {worst:11.2g}  {verdict}")
    for report in reports:
        if report.diagnosis is not None:
            lines += ["", *_failure(report, report.diagnosis)]
    failed = sum(bool(report.failed) for report in reports)
    cases, wrong = sum(len(report.outcomes) for report in reports), sum(len(report.failed) for report in reports)
    lines += ["", f"{cases - wrong} of {cases} cases right; {len(reports) - failed} of {len(reports)} operations pass"]
    return "\n".join(lines)


def _failure(report: OperationReport, diagnosis: Diagnosis) -> list[str]:
    if all(outcome.why == NO_ANSWER for outcome in report.outcomes):
        return [f"{report.operation}: no case is answered"]
    broken = diagnosis.statements
    if len(broken) > MOST_STATEMENTS and not diagnosis.mistakes:
        lines = [f"{report.operation}: one of its {len(broken)} statements is broken"]
    else:
        lines = [f"{report.operation}: {', '.join(broken)} {'is' if len(broken) == 1 else 'are'} broken"]
    lines += [f"  likely mistake: {mistake}" for mistake in diagnosis.mistakes[:4]]
    lines += [f"  note: {note}" for note in diagnosis.notes]
    for outcome in report.failed[:MOST_CASES]:
        lines += _of_case(outcome)
    if len(report.failed) > MOST_CASES:
        lines.append(f"  and {len(report.failed) - MOST_CASES} more")
    return lines


def _of_case(outcome: Outcome) -> list[str]:
    """Which outputs are wrong, and of the worst where it is farthest off."""
    ratio = "" if outcome.worst == inf else f" (ratio {outcome.worst:.3g})"
    lines = [f"  {outcome.case}: {outcome.why}{ratio}"]
    if outcome.differences:
        worst = max(outcome.differences, key=lambda name: outcome.ratios[name])
        lines.append(f"    {worst}{_spaced(outcome.differences[worst])}")
    return lines


def _spaced(difference: str) -> str:
    return difference if difference.startswith("[") else f": {difference}"
