"""The core's source, read as syntax: no array library imported, nothing asked of arrays that CuPy's API lacks."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import balinp
from balinp.testing.boundary import CORE
from balinp.testing.device_api import API, check_call

LIBRARIES = {"numpy", "scipy", "cupy", "cupyx"}
FOLDER = Path(balinp.__file__).parent
SHELL = {"backend", "base", "cli", "classifier", "errors", "metrics", "options", "params", "persistence"}
SHELL |= {"commands", "distinct", "doctor", "evaluation", "html_report", "outputs"}
SHELL |= {
    "heldout",
    "heldout_heteroscedastic",
    "heldout_joint",
    "most_probable",
    "trial",
    "regressor",
    "relevance",
    "report",
    "schema",
    "table",
    "validation",
    "wide",
    "__init__",
    "__main__",
}
SHELL |= {"checkpoint", "files", "interruption", "learning", "packing", "progress", "session", "streaming"}
SHELL |= {
    "blocks",
    "distributed",
    "rows",
    "scales",
    "caller",
    "cupy_backend",
    "prediction",
    "threads",
    "module_loading",
}


def violations(source: str) -> Iterator[str]:
    """What in ``source`` CuPy would not do, "line: what"."""
    for node in ast.walk(ast.parse(source)):
        for message in _violations(node):
            yield f"{node.lineno}: {message}"  # type: ignore[attr-defined]


def _violations(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"import of {a.name}" for a in node.names if a.name.split(".")[0] in LIBRARIES)
    elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in LIBRARIES:
        yield f"import from {node.module}"
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.MatMult):
        yield "@= changes nothing in place on CuPy"
    elif isinstance(node, ast.Attribute):
        name = function_name(node)
        if name is not None and name not in API and name not in ("linalg", "random"):
            yield f"CuPy has no {name}"
        if name is None and is_of_arrays(node.attr) and f"ndarray.{node.attr}" not in API:
            yield f"CuPy's arrays have no {node.attr}"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name = function_name(node.func)
        if name is None and is_of_arrays(node.func.attr):
            name = f"ndarray.{node.func.attr}"
        starred = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
        if name in API and not starred:
            itself = [None] if name.startswith("ndarray.") else []
            try:
                check_call(name, itself + node.args, {k.arg: k.value for k in node.keywords})  # type: ignore[misc]
            except TypeError as error:
                yield str(error)


def function_name(node: ast.Attribute) -> str | None:
    """ "linalg.eigh" for an expression that ends in xp.linalg.eigh; None if it does not go through xp."""
    parts, inner = [node.attr], node.value
    while isinstance(inner, ast.Attribute) and inner.attr != "xp":
        parts, inner = [inner.attr, *parts], inner.value
    through = isinstance(inner, ast.Attribute) or (isinstance(inner, ast.Name) and inner.id == "xp")
    return ".".join(parts) if through else None


def is_of_arrays(name: str) -> bool:
    return not name.startswith("_") and hasattr(np.ndarray, name)


@pytest.mark.parametrize("module", CORE)
def test_the_core_asks_nothing_of_arrays_that_cupy_lacks(module):
    assert list(violations((FOLDER / f"{module}.py").read_text("utf-8"))) == []


def test_every_module_is_core_or_shell():
    """A new file must be put on one side, lest it be walked by nobody."""
    assert {path.stem for path in FOLDER.glob("*.py")} == set(CORE) | SHELL


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np",
        "from scipy.linalg import cho_solve",
        "def f():\n    import cupyx.scipy.linalg",
        "xp.nested_iters(a)",
        "self.backend.xp.linalg.solve_triangular(a, b)",
        "backend.xp.sum(a, where=b)",
        "xp.max(a, initial=0)",
        "a.sum(axis=0, where=b)",
        "a.max(initial=0)",
        "(a @ b).item(0)",
        "a.setflags(write=False)",
        "a.ctypes",
        "a.astype('float32', device='cpu')",
        "xp.exp(a, where=b)",
        "xp.einsum('ij->i', a, out=b)",
        "xp.linalg.cholesky(a, upper=True)",
        "xp.random.default_rng(0)\nxp.random.permutations(3)",
        "a @= b",
        "xp.stack([a], 0, None, 'float32')",
    ],
)
def test_mistakes_are_seen(source):
    assert list(violations(source))


def test_what_is_right_passes():
    source = (
        "xp.sum(a, axis=0, keepdims=True)\nself.backend.xp.linalg.eigh(a)\na.T.reshape(-1, d, k).astype(t, copy=False)"
    )
    assert list(violations(source + "\nxp.stack([a, b], axis=1)\nstate.posterior.sample(z)\nxp.exp(a, out=b)")) == []
