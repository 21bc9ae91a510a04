"""What CuPy has and which arguments it takes, from the snapshot ``cupy_api.json`` that scripts/cupy_api.py reads from a
real CuPy wheel. Names are those of the ``cupy`` namespace ("sum", "linalg.cholesky"), "ndarray." and its attributes, or
begin with "cupyx."."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

API: dict[str, str] = json.loads(Path(__file__).with_name("cupy_api.json").read_text("utf-8"))
CUPY_VERSION = API.pop("cupy.__version__")

_INTEGERS = frozenset(
    ("N", "M", "k", "n", "shape", "axis", "axis1", "axis2", "axes", "offset", "ddof", "num", "source", "destination")
)  # parameters that are host integers)
_NOT_CALLABLE = ("value", "numpy", "attribute", "operator")


def public_name(name: str) -> str:
    """The name as one would write it: "cupy.linalg.cholesky"."""
    return name if name.startswith("cupyx.") else f"cupy.{name}"


@cache
def signature(name: str) -> inspect.Signature | None:
    """The parameters of CuPy's ``name``; None where it is no function of CuPy's own. Raises KeyError if there is no
    such thing."""
    text = API[name]
    if text in _NOT_CALLABLE:
        return None
    result: list[inspect.Parameter] = []
    kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for part in filter(None, text.split(", ")):
        bare = part.rstrip("=")
        default = None if part.endswith("=") else inspect.Parameter.empty
        if part == "/":
            result = [p.replace(kind=p.POSITIONAL_ONLY) for p in result]
        elif part == "*":
            kind = inspect.Parameter.KEYWORD_ONLY
        elif part.startswith("**"):
            result.append(inspect.Parameter(bare[2:], inspect.Parameter.VAR_KEYWORD))
        elif part.startswith("*"):
            result.append(inspect.Parameter(bare[1:], inspect.Parameter.VAR_POSITIONAL))
            kind = inspect.Parameter.KEYWORD_ONLY
        else:
            if default is inspect.Parameter.empty and result and result[-1].default is None and kind.name[0] == "P":
                default = None  # CuPy's own oddity, e.g. logspace; a Signature does not allow it
            result.append(inspect.Parameter(bare, kind, default=default))
    return inspect.Signature(result)


def check_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise TypeError if CuPy's ``name`` would not take these arguments."""
    error = _misfit(name, len(args), tuple(kwargs))
    if error is not None:
        raise TypeError(f"{public_name(name)}({API[name]}) of CuPy {CUPY_VERSION}: {error}")


@cache
def _misfit(name: str, count: int, keywords: tuple[str, ...]) -> str | None:
    """What is wrong with ``count`` positional arguments and these keywords for CuPy's ``name``; None: nothing."""
    found = signature(name)
    try:
        if found is not None:
            found.bind(*range(count), **dict.fromkeys(keywords))
    except TypeError as error:
        return str(error)
    return None


@cache
def integer_places(name: str) -> tuple[frozenset[int], frozenset[str]]:
    """Where CuPy's ``name`` wants host integers: positions and keywords. An array on the device has no __index__."""
    found = signature(name)
    names = [] if found is None else list(found.parameters)
    places = frozenset(i for i, n in enumerate(names) if n in _INTEGERS)
    if (
        found is not None
        and names
        and any(p.kind is p.VAR_POSITIONAL and p.name in _INTEGERS for p in found.parameters.values())
    ):
        places |= frozenset(range(1, 40))  # ndarray.reshape(self, *shape)
    return places, _INTEGERS.intersection(names)
