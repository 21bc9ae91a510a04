"""Is what a candidate answered right? Reads only JSON: the vectors and a file that any language can write.

A candidate is {"format": "balinp-candidate/1", "name", "dtype": "float64" or "float32", "versions": {…}, "answers":
{case id: {output: value, …} or {"error": "why it was refused"}}}.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from ..errors import InvalidArgumentError
from .compare import difference, distance, ratio
from .format import EPSILON, MADE_OF_OTHERS, flatten, numbers

LEAST_FIT = 0.5  # share of the failures that a mistake must explain to be named
Pair = tuple[str, str]  # case id, output
NO_ANSWER = "no answer"
NO_WORDS = "a refusal must say why: an error that is a text of some letters"
SAME_ERROR = 0.02  # relative difference up to which an error is the one that a mistake makes


@dataclass(frozen=True)
class Outcome:
    """One case: per output its ratio (below the threshold is right, infinite when it cannot be compared); why it fails;
    per wrong output the norm of its error, and where it is farthest off."""

    case: str
    statements: tuple[str, ...]
    ratios: dict[str, float]
    passed: bool
    why: str = ""
    errors: dict[str, float | None] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """The largest ratio of its outputs."""
        return max(self.ratios.values(), default=0.0 if self.passed else inf)


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with an operation: the broken statements, the mistakes that explain it, and what else is to say.

    mistakes are texts from the file, the likeliest first; none where no listed mistake explains the failures.
    """

    statements: tuple[str, ...]
    mistakes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OperationReport:
    """All cases of one operation, and what is wrong where some fail."""

    operation: str
    outcomes: tuple[Outcome, ...]
    diagnosis: Diagnosis | None

    @property
    def failed(self) -> list[Outcome]:
        """The cases that fail."""
        return [outcome for outcome in self.outcomes if not outcome.passed]


def verify(
    candidate: dict[str, Any], vectors: dict[str, dict[str, Any]], only: Collection[str] | None = None
) -> list[OperationReport]:
    """One report per operation, of all or of those in ``only``; a case without an answer fails.

    Raises InvalidArgumentError for a candidate without dtype or answers, an answer to no case, an unknown operation.
    """
    dtype, answers = candidate.get("dtype"), candidate.get("answers")
    if not isinstance(dtype, str) or dtype not in EPSILON:
        raise InvalidArgumentError(f"the candidate's dtype must be one of {sorted(EPSILON)}, got {dtype!r}")
    if not isinstance(candidate.get("versions", {}), dict):
        raise InvalidArgumentError(f"the candidate's versions must be an object, got {candidate['versions']!r}")
    if not isinstance(answers, dict):
        raise InvalidArgumentError("the candidate's answers must be an object of objects, one for each case id")
    plain = [case for case, answer in answers.items() if not isinstance(answer, dict)]
    if plain:
        raise InvalidArgumentError(
            f"the candidate's answer to {plain[0]} must be an object of outputs, got {answers[plain[0]]!r:.80}"
        )
    unknown = sorted(set(only or ()) - set(vectors))
    if unknown:
        raise InvalidArgumentError(f"there is no operation {unknown[0]!r}; the operations are {', '.join(vectors)}")
    known = {case["id"] for document in vectors.values() for case in document["cases"]}
    stray = sorted(set(answers) - known)
    if stray:
        raise InvalidArgumentError(f"the candidate answers {stray[0]!r}, which is no case of these vectors")
    reports: list[OperationReport] = []
    for name, document in vectors.items():
        if only is None or name in only:
            before = [report.operation for report in reports if report.failed] if name in MADE_OF_OTHERS else []
            reports.append(_operation(document, answers, EPSILON[dtype], before))
    return reports


def _operation(document: dict[str, Any], answers: dict[str, Any], eps: float, before: Sequence[str]) -> OperationReport:
    """``before``: operations that fail and that this one is made of."""
    ordinary = [case for case in document["cases"] if "reject" not in case]
    outcomes = {case["id"]: _accepted(case, answers.get(case["id"]), eps) for case in ordinary}
    able = any(outcome.passed for outcome in outcomes.values())
    for case in document["cases"]:
        if "reject" in case:
            outcomes[case["id"]] = _rejected(case, answers.get(case["id"]), able)
    results = tuple(outcomes[case["id"]] for case in document["cases"])
    if all(outcome.passed for outcome in results):
        return OperationReport(document["operation"], results, None)
    diagnosis = _diagnosis(document, results, eps)
    if before:
        diagnosis = replace(diagnosis, notes=(f"mend first what it is made of: {', '.join(before)}", *diagnosis.notes))
    return OperationReport(document["operation"], results, diagnosis)


def _accepted(case: dict[str, Any], answer: dict[str, Any] | None, eps: float) -> Outcome:
    statements, names = tuple(case["statements"]), list(case["expected"])
    if answer is None:
        return Outcome(case["id"], statements, dict.fromkeys(names, inf), False, NO_ANSWER)
    if "error" in answer:
        return Outcome(case["id"], statements, dict.fromkeys(names, inf), False, f"refused: {answer['error']}"[:200])
    try:
        got = numbers(answer)
        if not set(names) <= set(got):
            got = flatten(got) | got
    except RecursionError:
        return Outcome(case["id"], statements, dict.fromkeys(names, inf), False, "nested too deeply to be read")
    size = max([1, *case["shapes"].values()])
    rules = case["compare"]
    ratios = {n: ratio(got.get(n), case["expected"][n], rules[n], size, eps) for n in names}
    bad = [name for name in names if not _right(ratios[name], rules[name])]
    errors = {name: distance(got.get(name), case["expected"][name]) for name in bad}
    missing = [name for name in bad if name not in got]
    why = f"no output {_listed(missing)}" if missing else _listed(bad)
    differences = {name: difference(got[name], case["expected"][name]) for name in bad if name in got}
    return Outcome(case["id"], statements, ratios, not bad, why, errors, differences)


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _right(value: float, rule: dict[str, Any]) -> bool:
    return value == 0.0 or value < rule["threshold"]


def _rejected(case: dict[str, Any], answer: dict[str, Any] | None, able: bool) -> Outcome:
    """Refused, by an operation that does not refuse everything."""
    why = ""
    if answer is None:
        why = NO_ANSWER
    elif "error" not in answer:
        why = f"accepted, but must be refused: {case['reject']}"
    elif not isinstance(answer["error"], str) or not answer["error"].strip():
        why = NO_WORDS
    elif not able:
        why = "refused, but so is every case that must be accepted"
    return Outcome(case["id"], tuple(case["statements"]), {}, not why, why)


def _diagnosis(document: dict[str, Any], outcomes: tuple[Outcome, ...], eps: float) -> Diagnosis:
    """The mistakes whose flags fit the failures best; where none does, the statements of the failing cases."""
    cases = {case["id"]: case for case in document["cases"]}
    wrong = [outcome for outcome in outcomes if not outcome.passed and "reject" not in cases[outcome.case]]
    notes = []
    if any(outcome.why.startswith("accepted") for outcome in outcomes):
        notes.append("inputs that must be refused are not checked")
    if not wrong:
        return Diagnosis(tuple(document["statements"]), notes=tuple(notes))
    silent = [outcome for outcome in wrong if outcome.why.startswith((NO_ANSWER, "refused: "))]
    notes += [f"{len(silent)} cases that must be accepted are not answered: {silent[0].why}"] if silent else []
    wrong = [outcome for outcome in wrong if outcome not in silent]
    if not wrong:
        return Diagnosis(_statements(silent), notes=tuple(notes))
    if eps < EPSILON["float32"] and all(
        _right(o.ratios[n] * eps / EPSILON["float32"], cases[o.case]["compare"][n]) for o in wrong for n in o.ratios
    ):
        notes.append("right in float32: computed in it, or written with too few digits")
        return Diagnosis(_statements(wrong), notes=tuple(notes))
    failures = {(o.case, name): error for o in wrong for name, error in o.errors.items()}
    # made of others, nearly all outputs are wrong of whatever is: their places tell nothing
    for same in (_same_error,) if document["operation"] in MADE_OF_OTHERS else (_same_error, _same_place):
        fits = {flag: _fit(flag, document, failures, same) for flag in document["mistakes"]}
        best = max(fits.values(), default=0.0)
        if best >= LEAST_FIT:
            break
    else:
        return Diagnosis(_statements(wrong), notes=("none of the listed mistakes explains it", *notes))
    likely = [document["mistakes"][flag] for flag, fit in fits.items() if fit > best - 1e-9]
    statements = tuple(dict.fromkeys(mistake["statement"] for mistake in likely))
    return Diagnosis(statements, tuple(mistake["text"] for mistake in likely), tuple(notes))


def _fit(flag: str, document: dict[str, Any], failures: dict[Pair, Any], same: Callable[[Any, Any], bool]) -> float:
    """The share of the failing outputs, and of those that the mistake makes wrong, on which both agree."""
    predicted = {
        (case["id"], name): error
        for case in document["cases"]
        for name, error in case.get("flags", {}).get(flag, {}).items()
    }
    agree = sum(pair in predicted and same(error, predicted[pair]) for pair, error in failures.items())
    return agree / len(predicted.keys() | failures.keys())


def _same_error(got: float | None, predicted: float | None) -> bool:
    if got is None or predicted is None:
        return got is predicted
    return abs(got - predicted) <= SAME_ERROR * predicted


def _same_place(got: float | None, predicted: float | None) -> bool:
    return (got is None) == (predicted is None)


def _statements(outcomes: list[Outcome]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(statement for outcome in outcomes for statement in outcome.statements))
