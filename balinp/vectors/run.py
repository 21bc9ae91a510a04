"""Answer the vectors with a Python adapter and make a candidate of the answers.

An adapter is a module with ``answer(operation, inputs, dtype)``: inputs as in the file (lists, numbers, text, null),
outputs by name as anything that has ``tolist()``, lists or numbers; per-layer outputs as lists of dictionaries or by
their dotted names. It refuses bad inputs by raising. Optional: NAME, VERSIONS (a dictionary).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import isfinite
from types import ModuleType
from typing import Any

from ..errors import InvalidArgumentError
from ..module_loading import module_named
from .format import CANDIDATE_FORMAT, EPSILON, flatten, numbers

Answer = Callable[[str, dict[str, Any], str], dict[str, Any]]


def adapter(name: str) -> ModuleType:
    """The module called ``name``, or in the file ``name`` if it ends in .py; raises InvalidArgumentError without it."""
    module = module_named(name, "adapter")
    if not callable(getattr(module, "answer", None)):
        raise InvalidArgumentError(f"the adapter {name} must have a function answer(operation, inputs, dtype)")
    return module


def candidate(
    answer: Answer,
    vectors: dict[str, dict[str, Any]],
    dtype: str = "float64",
    only: Collection[str] | None = None,
    name: str = "candidate",
    versions: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The candidate of an adapter's answers to all cases, or to those of the operations in ``only``.

    Raises InvalidArgumentError for another dtype or an unknown operation.
    """
    if dtype not in EPSILON:
        raise InvalidArgumentError(f"dtype must be one of {sorted(EPSILON)}, got {dtype!r}")
    unknown = sorted(set(only or ()) - set(vectors))
    if unknown:
        raise InvalidArgumentError(f"there is no operation {unknown[0]!r}; the operations are {', '.join(vectors)}")
    answers = {
        case["id"]: _answered(answer, operation, case["inputs"], dtype, _per_layer(document))
        for operation, document in vectors.items()
        if only is None or operation in only
        for case in document["cases"]
    }
    return {
        "format": CANDIDATE_FORMAT,
        "name": name,
        "dtype": dtype,
        "versions": versions or {},
        "answers": answers,
    }


def _per_layer(document: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name[:-2] for name in document["outputs"] if name.endswith(".l"))


def _answered(answer: Answer, operation: str, inputs: Any, dtype: str, per_layer: tuple[str, ...]) -> dict[str, Any]:
    try:
        outputs = answer(operation, numbers(inputs), dtype)
        return {name: _plain(value) for name, value in flatten(outputs, per_layer).items() if value is not None}
    except Exception as error:  # whatever an adapter refuses with
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}


def _plain(value: Any) -> Any:
    """Lists of numbers, with "NaN" and the infinities as text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is not None and not isinstance(value, bool | int | float | str):
        raise TypeError(f"outputs are numbers and lists of them, got a {type(value).__name__}")
    return value
