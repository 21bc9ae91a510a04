"""Work out every expected value in 50-digit arithmetic and write the files, or check those that are there.

The condition number of an output is measured, not guessed: every input number is moved by 1e-20 of the largest of its
array, at 50 digits, and the relative change of the output divided by 1e-20 is κ (the worst of three times, at least 1).
A case's flags are the mistakes whose result, worked out in the same arithmetic, would not be accepted even in float32.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil, floor, inf, log10
from random import Random
from typing import Any

from ..errors import InvalidArgumentError
from . import compare
from .cases import OPERATIONS, Case, Operation
from .compare import distance
from .format import EPSILON, FORMAT, dumps, flatten
from .reference.exact import MP

THRESHOLD = 10.0  # in units of eps, as everywhere in balinp
PERTURBATION, TRIALS = "1e-20", 3


def documents(only: Collection[str] | None = None) -> dict[str, str]:
    """File name → content, for every operation or those in ``only``; raises InvalidArgumentError for an unknown one."""
    known = {operation.name: operation for operation in OPERATIONS}
    for name in only or ():
        if name not in known:
            raise InvalidArgumentError(f"there is no operation {name!r}; the operations are {', '.join(known)}")
    return {f"{name}.json": dumps(document(known[name])) for name in (known if only is None else only)}


def document(operation: Operation) -> dict[str, Any]:
    """One operation as its JSON object. Raises ValueError for a mistake that no case catches."""
    cases = [_case(operation, case) for case in operation.cases]
    for flag in operation.mistakes:
        if not any(flag in case.get("flags", {}) for case in cases):
            raise ValueError(f"no case of {operation.name} catches {flag!r}")
    return {
        "format": FORMAT,
        "operation": operation.name,
        "description": operation.description,
        "statements": operation.statements,
        "inputs": operation.inputs,
        "outputs": operation.outputs,
        "mistakes": {f: {"statement": m.statement, "text": m.text} for f, m in operation.mistakes.items()},
        "cases": cases,
    }


def _case(operation: Operation, case: Case) -> dict[str, Any]:
    head = {"id": f"{operation.name}/{case.name}", "shapes": case.shapes}
    if case.reject is not None:
        return {**head, "statements": list(operation.statements), "inputs": case.inputs, "reject": case.reject}
    inputs = exact(case.inputs)
    expected = flatten(operation.reference(inputs), operation.per_layer)
    rules = _rules(operation, case, inputs, expected)
    values = {name: rounded(value) for name, value in expected.items()}
    flags = _flags(operation, case, inputs, values, rules)
    statements = _statements(operation, case, values)
    return {**head, "statements": statements, "flags": flags, "inputs": case.inputs, "expected": values,
            "compare": rules}  # fmt: skip


def _statements(operation: Operation, case: Case, values: dict[str, Any]) -> list[str]:
    """Those of the operation that the case is about: an activation's or a likelihood's own where they are named so."""
    kind = case.inputs.get("activation") if operation.name == "activation" else None
    likelihood = case.inputs.get("likelihood")
    if isinstance(likelihood, dict) and operation.name.startswith("likelihood_"):
        kind = likelihood["kind"]
    names = list(operation.statements)
    if kind is None:
        return names
    wanted = {"categorical": ("categorical", "bohning")}.get(kind, (kind,))
    return [name for name in names if any(word in name for word in wanted)] or names[-1:]


def exact(value: Any) -> Any:
    """Inputs with every float as an mpf; integers, labels and text stay as they are."""
    if isinstance(value, dict):
        return {key: exact(part) for key, part in value.items()}
    if isinstance(value, list):
        return [exact(part) for part in value]
    return MP.mpf(value) if isinstance(value, float) else value


def rounded(value: Any) -> Any:
    """The nearest float64 of every number: through 30 digits, and what is below 1e-35 of the largest is 0, so that the
    order of the arithmetic leaves no trace."""
    if value is None:
        return None
    top = max((abs(leaf) for leaf in _leaves(value)), default=0)

    def nearest(part: Any) -> Any:
        if isinstance(part, list | tuple):
            return [nearest(v) for v in part]
        if isinstance(part, int) or not MP.isfinite(part):
            return part if isinstance(part, int) else float(part)
        return float(MP.nstr(part, 30, min_fixed=0, max_fixed=0)) if abs(part) > top * MP.mpf("1e-35") else 0.0

    return nearest(value)


def moved(value: Any, random: Random) -> Any:
    """Every array of mpf with each entry moved by at most PERTURBATION of the array's largest."""
    if isinstance(value, dict):
        return {key: moved(part, random) for key, part in value.items()}
    if isinstance(value, list):
        leaves = list(_leaves(value))
        if _depth(value) > 2 or not leaves or not all(isinstance(leaf, MP.mpf) for leaf in leaves):
            return [moved(part, random) for part in value]
        top = max(abs(leaf) for leaf in leaves)
        return _shaken(value, top, random)
    return _shaken(value, abs(value), random) if isinstance(value, MP.mpf) else value


def _shaken(value: Any, top: Any, random: Random) -> Any:
    if isinstance(value, list):
        return [_shaken(part, top, random) for part in value]
    return value + MP.mpf(PERTURBATION) * top * MP.mpf(2 * random.random() - 1)


def _leaves(value: Any) -> Any:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _depth(value: Any) -> int:
    return 1 + max((_depth(part) for part in value), default=0) if isinstance(value, list | tuple) else 0


def _rules(operation: Operation, case: Case, inputs: Any, expected: dict[str, Any]) -> dict[str, Any]:
    random = Random(1)
    shaken = [flatten(operation.reference(moved(inputs, random)), operation.per_layer) for _ in range(TRIALS)]
    rules: dict[str, Any] = {}
    for name, value in expected.items():
        if isinstance(value, int):
            rules[name] = {"kind": "exact", "condition": 1.0, "scale": 0.0, "threshold": 0.0}
            continue
        scale = case.scale.get(name, 0.0)
        unit = max(_norm(value), MP.mpf(scale))
        change = max(_norm(_difference(other[name], value)) for other in shaken)
        condition = float(change / (MP.mpf(PERTURBATION) * unit)) if unit > 0 else 1.0
        rules[name] = {"kind": "norm", "condition": _up(max(condition, 1.0)), "scale": scale, "threshold": THRESHOLD}
    return rules


def _up(value: float) -> float:
    """Rounded up to two digits."""
    digits = 1 - floor(log10(value))
    return float(ceil(value * 10**digits - 1e-9)) / 10**digits if digits >= 0 else float(ceil(value))


def _norm(value: Any) -> Any:
    return MP.sqrt(sum((leaf * leaf for leaf in _leaves(value)), MP.mpf(0)))


def _difference(a: Any, b: Any) -> Any:
    return [x - y for x, y in zip(_leaves(a), _leaves(b), strict=True)]


def _flags(
    operation: Operation, case: Case, inputs: Any, values: dict[str, Any], rules: dict[str, Any]
) -> dict[str, dict[str, float | None]]:
    """Mistake → the outputs that it makes wrong in this case, beyond what float32 would forgive, and by how much:
    ‖wrong − right‖ to three digits, null where there is no such number."""
    size = max(case.shapes.values())
    flags: dict[str, dict[str, float | None]] = {}
    for flag, mistake in operation.mistakes.items():
        wrong = flatten(mistake.wrong(inputs), operation.per_layer)
        bad = [
            name
            for name, rule in rules.items()
            if name not in wrong or _ratio(rounded(wrong[name]), values[name], rule, size) > 3 * rule["threshold"]
        ]
        if bad:
            flags[flag] = {name: _shortened(distance(rounded(wrong.get(name)), values[name])) for name in bad}
    return flags


def _shortened(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.2e}")


def _ratio(computed: Any, expected: Any, rule: dict[str, Any], size: int) -> float:
    try:
        return compare.ratio(computed, expected, rule, size, EPSILON["float32"])
    except OverflowError:
        return inf
