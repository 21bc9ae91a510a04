"""Every statement's numerical check on fresh random instances of a seed, on any backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend import get_backend
from ..errors import InvalidArgumentError
from .cores import core_on
from .statements import Finding, Statement


@dataclass(frozen=True)
class Measured:
    """The worst residual ratio of one statement, what it was of, the identity that was checked, and the verdict:
    "holds", "BROKEN" or "skipped" (ratio None)."""

    ratio: float | None
    what: str
    identity: str
    verdict: str


def run_checks(seed: int, backend: str) -> tuple[float, dict[str, Measured]]:
    """(threshold, per id what was measured). Raises InvalidArgumentError without the extra ``test``,
    BackendUnavailableError when the backend cannot run here."""
    core: Any = core_on(get_backend(backend))
    try:
        from ..testing.conformance import check_core
        from ..testing.residuals import THRESHOLD
    except ImportError as error:
        raise InvalidArgumentError(
            f"numerical checks need more packages ({error}): pip install 'balinp[audit]'"
        ) from None
    results = check_core(core, seed)
    return THRESHOLD, {r.statement: Measured(r.ratio, _what(r), r.description, r.verdict) for r in results}


def _what(result: Any) -> str:
    return f"the core has no {', '.join(result.missing)}" if result.ratio is None else result.what


def check_numbers(statements: Sequence[Statement], measured: Mapping[str, Measured]) -> list[Finding]:
    """Identities that are broken, statements whose check is missing, checks of unknown statements."""
    findings, ids = [], {s.id for s in statements}
    for s in statements:
        if "conformance" in s.check and s.id not in measured:
            findings.append(Finding(s.id, "balinp.testing.conformance has no check of it"))
        if not any(test != "conformance" for test in s.check):
            findings.append(Finding(s.id, "its check names no test"))
    for statement, m in measured.items():
        if statement not in ids:
            findings.append(Finding(statement, "is checked by balinp.testing.conformance, but no derivation states it"))
        if m.verdict == "BROKEN":
            findings.append(Finding(statement, f"is broken: not {m.identity} ({m.what}, ratio {m.ratio:.3g})"))
    return findings
