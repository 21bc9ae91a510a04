"""Are the vector files what docs/vectors.md says they are? Their schema, and what a schema cannot say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidArgumentError
from .format import FOLDER, SCHEMA, dumps, load, numbers

MOST_BYTES = 2_000_000  # of all files together
NOT_DYADIC = {1e-4, 1e5}  # inputs that float32 has to round: the bounds of a prior precision


def problems(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the files in ``folder``, a line each. Raises InvalidArgumentError without jsonschema."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
    except ImportError as error:
        raise InvalidArgumentError(
            f"balinp vectors lint needs jsonschema, which cannot be imported ({error}); pip install 'balinp[test]'"
        ) from error
    validator, found = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))), []
    documents = load(folder)
    if not documents:
        found.append(f"{folder} has no vector files")
    for name, document in documents.items():
        first = best_match(validator.iter_errors(document))
        if first is not None:
            found.append(f"{name}.json: {first.json_path}: {first.message[:200]}")
        else:
            found += [f"{name}.json: {problem}" for problem in _document(name, document)]
            if dumps(document) != (folder / f"{name}.json").read_text("utf-8"):
                found.append(f"{name}.json: not written as generate writes it (spacing, or digits beyond the shortest)")
    size = sum(path.stat().st_size for path in folder.glob("*.json"))
    return found + ([f"{size} bytes, more than {MOST_BYTES}"] if size > MOST_BYTES else [])


def _document(name: str, document: dict[str, Any]) -> Iterator[str]:
    if document["operation"] != name:
        yield f"operation is {document['operation']!r}, the file's name {name!r}"
    ids = [case["id"] for case in document["cases"]]
    yield from (f"the id {id!r} occurs twice" for id in sorted({id for id in ids if ids.count(id) > 1}))
    statements, mistakes = set(document["statements"]), document["mistakes"]
    for flag, mistake in mistakes.items():
        if mistake["statement"] not in statements:
            yield f"mistake {flag!r} names {mistake['statement']!r}, which the file does not state"
        if not any(flag in case.get("flags", ()) for case in document["cases"]):
            yield f"mistake {flag!r} is caught by no case"
    for case in document["cases"]:
        yield from (f"{case['id']}: {problem}" for problem in _case(name, document, case))


def _case(name: str, document: dict[str, Any], case: dict[str, Any]) -> Iterator[str]:
    if not case["id"].startswith(f"{name}/"):
        yield "the id must begin with the operation"
    for statement in set(case["statements"]) - set(document["statements"]):
        yield f"{statement!r} is not stated"
    if set(case["inputs"]) != set(document["inputs"]):
        yield f"inputs are {sorted(case['inputs'])}, described are {sorted(document['inputs'])}"
    for value in _floats(numbers(case["inputs"])):
        if float(np.float32(value)) != value and value not in NOT_DYADIC and value == value:
            yield f"the input {value!r} is another number in float32"
    if "reject" in case:
        return
    if not all(np.isfinite(value) for value in _floats(case["inputs"])):
        yield "inputs must be finite"
    if set(case["expected"]) != set(case["compare"]):
        yield "expected and compare must have the same names"
    for flag, names in case["flags"].items():
        if flag not in document["mistakes"]:
            yield f"the flag {flag!r} is not described"
        for output in set(names) - set(case["expected"]):
            yield f"the flag {flag!r} names {output!r}, which is no output"
    for output, value in case["expected"].items():
        try:
            array = np.asarray(value, dtype=np.float64)
        except ValueError:
            yield f"{output} is not rectangular"
            continue
        if not np.all(np.isfinite(array)):
            yield f"{output} is not finite"


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _floats(part)
    elif isinstance(value, list):
        for part in value:
            yield from _floats(part)
    elif isinstance(value, float):
        yield value
