"""``balinp doctor``: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from . import __version__
from .backend import get_backend
from .errors import BALIError

EXTRAS = {
    "matplotlib": ("plot", "pictures: fit --plot, score --plot, report"),
    "tqdm": ("progress", "a progress bar while a fit runs"),
    "sklearn": ("sklearn", "pipelines, searches and cross-validation around the estimators"),
    "markdown_it": ("audit", "the audit's HTML page"),
}
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "markdown_it": "markdown-it-py"}


def facts() -> dict[str, Any]:
    """Versions, BLAS, backends and extras of this installation; ``missing`` says what to do about what is not there."""
    found = {name: _version(_DISTRIBUTIONS.get(name, name)) for name in EXTRAS}
    missing = {
        name: f"{use}: pip install 'balinp[{extra}]'" for name, (extra, use) in EXTRAS.items() if found[name] is None
    }
    backends = {name: _backend(name) for name in ("numpy", "cupy")}
    return {
        "command": "doctor",
        "balinp": __version__,
        "installed in": str(Path(__file__).parent),
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "numpy": _version("numpy"),
        "scipy": _version("scipy"),
        "blas": blas(),
        "backends": backends,
        "extras": found,
        "missing": missing,
    }


def text_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """``facts`` as rows for a terminal."""
    rows = [(k, str(found[k])) for k in ("balinp", "installed in", "python", "machine", "numpy", "scipy", "blas")]
    rows += [(f"backend {name}", state) for name, state in found["backends"].items()]
    rows += [(_DISTRIBUTIONS.get(n, n), v) for n, v in found["extras"].items() if v is not None]
    return rows + [(f"no {_DISTRIBUTIONS.get(name, name)}", remedy) for name, remedy in found["missing"].items()]


def blas() -> str:
    """The BLAS that NumPy calls, with its threads where threadpoolctl knows it."""
    pools = [p for p in threadpool_info() if p["user_api"] == "blas"]
    if pools:
        return "; ".join(
            sorted({f"{p['internal_api']} {p['version'] or ''}, {p['num_threads']} threads" for p in pools})
        )
    built: Any = np.show_config(mode="dicts")
    blas = (built or {}).get("Build Dependencies", {}).get("blas", {})
    named = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    return f"{named} (as built; threadpoolctl does not know its threads)"


def _backend(name: str) -> str:
    try:
        get_backend(name)
    except BALIError as error:
        return f"not here: {error}"
    return "works"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
