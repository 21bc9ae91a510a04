"""Write balinp/testing/cupy_api.json: what CuPy has, and which arguments it takes, read from a real CuPy wheel.

    pip install cupy-cuda12x==14.2.0 && python scripts/cupy_api.py            write the file
    python scripts/cupy_api.py --check                                        rebuild it and compare; exit status 1

Needs no GPU, driver or CUDA library: ``import cupy`` works without them, and the extension modules that do not import
(cuBLAS, cuSOLVER, ...) are replaced by empty ones first. One entry a line: the parameters, "name=" where there is a
default; "numpy" for NumPy's own objects handed on, "value" for constants, "operator" for the array's special methods,
"attribute" for its attributes, "opaque" where CuPy does not say what a function takes.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).parents[1] / "balinp" / "testing" / "cupy_api.json"
EXPLAINED: dict[str, str] = {}  # entry → why it may differ between machines although the version is the same


class _Anything:
    def __getattr__(self, name: str) -> Any:
        return _Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Anything()


class _Empty(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


def load_cupy() -> tuple[Any, Any]:
    """(cupy, cupyx) with cupyx.scipy.linalg and .special, on a machine without CUDA's libraries too."""
    libraries = importlib.import_module("cupy_backends.cuda.libs")
    for name in ("cublas", "cusolver", "cusparse", "curand"):
        full = f"cupy_backends.cuda.libs.{name}"
        try:
            importlib.import_module(full)
        except ImportError:
            sys.modules[full] = _Empty(full)
            setattr(libraries, name, sys.modules[full])
    try:
        importlib.import_module("cupyx.cusolver")
    except ImportError:
        sys.modules["cupyx.cusolver"] = _Empty("cupyx.cusolver")
    for name in ("cupyx.scipy.linalg", "cupyx.scipy.special"):
        importlib.import_module(name)
    return importlib.import_module("cupy"), importlib.import_module("cupyx")


def parameters(signature: inspect.Signature) -> str:
    """The parameters without annotations and default values: "a, axis=, *, keepdims="."""
    parts, starred = [], False
    values = list(signature.parameters.values())
    for i, p in enumerate(values):
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        starred |= p.kind is p.VAR_POSITIONAL
        parts.append({p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name)
        parts[-1] += "" if p.default is p.empty else "="
        if p.kind is p.POSITIONAL_ONLY and (i + 1 == len(values) or values[i + 1].kind is not p.POSITIONAL_ONLY):
            parts.append("/")
    return ", ".join(parts)


def from_docstring(text: str) -> str | None:
    """The parameters in the line that Cython puts first: "_ndarray_base.sum(self, int axis=None) -> ..."."""
    found = re.match(r"[\w.]+\((.*)\)(?: ->.*)?$", text.split("\n")[0])
    if found is None:
        return None
    parts = []
    for part in filter(None, found[1].split(", ")):
        name, _, default = part.partition("=")
        parts.append(name.split()[-1] + ("=" if default else ""))
    return ", ".join(parts)


def entry(value: Any, cupy: Any) -> str:
    """What the snapshot says about one public object."""
    if getattr(value, "__module__", "").split(".")[0] == "numpy" and not isinstance(value, cupy.ufunc):
        return "numpy"
    if isinstance(value, cupy.ufunc):
        inputs = "x" if value.nin == 1 else ", ".join(f"x{i + 1}" for i in range(value.nin))
        return f"{inputs}, /, out=, *, casting=, dtype="
    if not callable(value):
        return "value"
    if getattr(value, "__name__", "") == "einsum":
        return "*operands, dtype=, optimize="  # its signature says **kwargs, its docstring which
    try:
        return parameters(inspect.signature(value))
    except (TypeError, ValueError):
        said = from_docstring(getattr(value, "__doc__", None) or "")
        return "opaque" if said is None else said


def array_entry(name: str, value: Any, cupy: Any) -> str:
    """What the snapshot says about one attribute of cupy.ndarray."""
    if name.startswith("__"):
        return "operator"
    return entry(value, cupy) if callable(value) else "attribute"


def snapshot() -> dict[str, str]:
    """Every public name of the namespaces that the core may use."""
    cupy, cupyx = load_cupy()
    spaces = {
        "": cupy,
        "linalg.": cupy.linalg,
        "random.": cupy.random,
        "random.Generator.": cupy.random.Generator,
        "cupyx.scipy.linalg.": cupyx.scipy.linalg,
        "cupyx.scipy.special.": cupyx.scipy.special,
    }
    found = {"cupyx.errstate": parameters(inspect.signature(cupyx.errstate))}
    for prefix, space in spaces.items():
        for name in dir(space):
            value = getattr(space, name)
            if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations":
                found[prefix + name] = entry(value, cupy)
    usual = set(dir(object))
    for name in dir(cupy.ndarray):
        if (not name.startswith("_") or name.startswith("__")) and name not in usual:
            found[f"ndarray.{name}"] = array_entry(name, getattr(cupy.ndarray, name), cupy)
    return {"cupy.__version__": cupy.__version__, **dict(sorted(found.items()))}


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed file; write nothing")
    found = snapshot()
    if not parser.parse_args().check:
        SNAPSHOT.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
        print(f"{SNAPSHOT}: {len(found)} entries of CuPy {found['cupy.__version__']}")
        return 0
    committed = json.loads(SNAPSHOT.read_text("utf-8"))
    wrong = 0
    for name in sorted(found.keys() | committed.keys()):
        now, then = found.get(name, "nothing"), committed.get(name, "nothing")
        if now != then:
            wrong += name not in EXPLAINED
            print(f"{name}: the wheel has {now!r}, the snapshot {then!r}; {EXPLAINED.get(name, 'NOT EXPLAINED')}")
    print(f"CuPy {found['cupy.__version__']}: {len(found)} entries compared, {wrong} differences not explained")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
