"""The shapes that docstrings state, held against what the functions return for arrays of random sizes.

A shape is written (N, K), (K,), (..., 2K). After the name of an argument, or its name and symbol ("outputs H (N, K)"),
it is that argument's; every other shape must be that of some argument or result, and every result that is an array must
have one of those other shapes, if there are any. Sizes are all different, so a swapped letter is seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .source import CORE, Function
from .statements import ID, Finding

_DIMENSION = r"(?:\.\.\.|\d*[NDKSL](?:_[lL])?|[nm])"
_SHAPE = re.compile(rf"((?:[\w\[\].]+[ ]+){{0,2}})\(({_DIMENSION}(?:, {_DIMENSION})*,?)\)")


@dataclass(frozen=True)
class Case:
    """One call: the value of every letter, the arguments (or fields) by name, and the results."""

    sizes: Mapping[str, int]
    arguments: Mapping[str, Any]
    results: tuple[Any, ...] = ()


def stated_shapes(docstring: str) -> list[tuple[str, tuple[str, ...], str]]:
    """(label, dimensions, as written) of every shape in it; the label is the one or two words before."""
    found = []
    for match in _SHAPE.finditer(docstring):
        inside = match[2]
        if "," not in inside:
            continue  # (N) is a parenthesis, (N,) a shape
        dimensions = tuple(d.strip() for d in inside.split(",") if d.strip())
        found.append((match[1].strip(), dimensions, f"({inside})"))
    return found


def contradictions(docstring: str, case: Case) -> Iterator[str]:
    """What the docstring says and the call does not do, in words."""
    arguments = {name: np.shape(value) for name, value in case.arguments.items() if _is_array(value)}
    results = [np.shape(value) for value in case.results if _is_array(value)]
    other = []
    for label, dimensions, written in stated_shapes(docstring):
        unknown = [d for d in dimensions if d != "..." and _letters(d) not in case.sizes]
        if unknown:
            yield f"says {written}, and nothing there has the size {unknown[0]}"
            continue
        name = next((word for word in label.split() if word.rstrip("[l]") in arguments), None)
        if name is not None:
            shape = arguments[name.rstrip("[l]")]
            if not _matches(dimensions, shape, case.sizes):
                yield f"says {name} {written}, where {shape} was given for {_spelled(case.sizes)}"
            continue
        other.append(dimensions)
        if not any(_matches(dimensions, shape, case.sizes) for shape in (*results, *arguments.values())):
            yield f"says {written}, but the result has shape {_listed(results)} for {_spelled(case.sizes)}"
    for shape in results:
        if other and shape and not any(_matches(dimensions, shape, case.sizes) for dimensions in other):
            yield f"does not say that a result has shape {shape} for {_spelled(case.sizes)}"


def _letters(dimension: str) -> str:
    return dimension.lstrip("0123456789")


def _matches(dimensions: tuple[str, ...], shape: tuple[int, ...], sizes: Mapping[str, int]) -> bool:
    wanted = [int(re.match(r"\d*", d)[0] or 1) * sizes[_letters(d)] for d in dimensions if d != "..."]  # type: ignore[index]
    if dimensions[0] == "...":
        return list(shape[len(shape) - len(wanted) :]) == wanted and len(shape) >= len(wanted)
    return list(shape) == wanted


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _spelled(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{letter} = {size}" for letter, size in sizes.items())


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "of no array"


def check_shapes(functions: Mapping[str, Function], seed: int) -> tuple[int, list[Finding]]:
    """(how many docstrings were held against calls, what they contradict), for the public core."""
    from .shape_cases import cases

    findings, count = [], 0
    try:
        calls = cases(np.random.default_rng(seed))
    except Exception as error:  # whatever broken code raises; the numerical checks will say which statement it breaks
        return 0, [Finding("docstrings", f"the calls in audit/shape_cases.py raise {type(error).__name__}: {error}")]
    for name, function in functions.items():
        documented = function.public or name in calls
        if name.split(".")[0] not in CORE or not documented or not stated_shapes(function.docstring):
            continue
        statement = next(iter(ID.findall(function.docstring)), f"balinp.{name}")
        if name not in calls:
            findings.append(
                Finding(statement, f"balinp.{name} states a shape; add a call of it to audit/shape_cases.py")
            )
            continue
        count += 1
        said = dict.fromkeys(text for case in calls[name] for text in contradictions(function.docstring, case))
        findings += [Finding(statement, f"the docstring of balinp.{name} {text}") for text in list(said)[:2]]
    return count, findings
