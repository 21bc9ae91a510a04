"""The files themselves: where they are, how an expected value is named, how numbers are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ModelFileError

VERSION = 1
FOLDER = Path(__file__).parent / f"v{VERSION}"
SCHEMA = Path(__file__).parent / f"schema-v{VERSION}.json"
FORMAT, CANDIDATE_FORMAT = f"balinp-vectors/{VERSION}", f"balinp-candidate/{VERSION}"
GUIDE = (  # the operations in the order in which a port comes to them: docs/porting.md
    *("statistics", "block_sum", "ema_step", "layer_posterior", "step_form", "log_evidence"),
    *("log_density", "entropy", "kl_divergence", "natural_parameters", "sampling", "layer_predictive"),
    *("activation", "forward", "backward"),
    *("likelihood_loss", "likelihood_gradient", "likelihood_curvature", "likelihood_probe", "pseudo_targets"),
    *("kronecker_form", "effective_parameters", "mackay", "tempering", "noise_update"),
    *("iteration", "epoch", "fit"),
    *("linearized_predictive", "probit", "monte_carlo_predictive"),
)
MADE_OF_OTHERS = ("iteration", "epoch", "fit")  # what is wrong before them is wrong in them
EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23}  # the distance from 1 to the next number


def dumps(document: dict[str, Any]) -> str:
    """JSON with one line per scalar field and per matrix; numbers as the shortest decimals that give them back."""
    return _text(document, 0) + "\n"


def _text(value: Any, depth: int) -> str:
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or (len(flat) <= 110 - depth and depth > 1) or not value:
        return flat
    inner = "\n" + " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{json.dumps(k, ensure_ascii=False)}: {_text(v, depth + 1)}" for k, v in value.items()]
        return "{" + inner + ("," + inner).join(parts) + "\n" + " " * depth + "}"
    if all(isinstance(v, int | float) for v in value):
        return flat
    return "[" + inner + ("," + inner).join(_text(v, depth + 1) for v in value) + "\n" + " " * depth + "]"


def read(path: Path, kind: str) -> dict[str, Any]:
    """The JSON object in a file that calls itself ``kind``; raises ModelFileError saying what is wrong."""
    try:
        document = json.loads(path.read_text("utf-8"), object_pairs_hook=_object)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not JSON, or none to read here: {error}") from error
    if not isinstance(document, dict) or document.get("format") != kind:
        got = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise ModelFileError(f"{path} must be a JSON object with format {kind!r}, got {got!r}")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise ValueError(f"the name {twice!r} stands twice in an object")
    return dict(pairs)


def load(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Every vector file by its operation, in the order of ``GUIDE``; others after it by their names."""
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    order = [name for name in GUIDE if name in files] + [name for name in files if name not in GUIDE]
    return {name: read(files[name], FORMAT) for name in order}


def digest(vectors: dict[str, dict[str, Any]]) -> str:
    """What identifies the vectors: 16 hexadecimal digits of the SHA-256 of every case, its words and flags left out."""
    fields = ("id", "shapes", "inputs", "expected", "compare", "reject")
    cases = [[case.get(name) for name in fields] for key in sorted(vectors) for case in vectors[key]["cases"]]
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()[:16]


def flatten(outputs: dict[str, Any], per_layer: tuple[str, ...] = ()) -> dict[str, Any]:
    """Outputs by dotted name: a dictionary's by its keys, a list of dictionaries' (or of ``per_layer``) by its indices.

    {"layers": [{"mean": M}]} gives {"layers.0.mean": M}. Text is left out; it is no result.
    """

    def walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, part in value.items():
                yield from walk(f"{name}.{key}", part)
        elif isinstance(value, list | tuple) and (
            name in per_layer or (value and all(isinstance(part, dict) for part in value))
        ):
            for index, part in enumerate(value):
                yield from walk(f"{name}.{index}", part)
        elif not isinstance(value, str):
            yield name, value

    return dict(pair for key, value in outputs.items() for pair in walk(key, value))


def numbers(value: Any) -> Any:
    """``value`` with every string "NaN", "Infinity" or "-Infinity" as the number: JSON has none of them."""
    if isinstance(value, dict):
        return {key: numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [numbers(part) for part in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value
