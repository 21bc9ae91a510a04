"""CuPy behind the core's one frozen object; imported only where CuPy, or its double, is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from .backend import Array, Backend
from .errors import BackendUnavailableError


def cupy_like(name: str, cupy: Any, cupyx: Any) -> Backend:
    """The backend on CuPy's modules ``cupy`` and ``cupyx`` (with its scipy), or on a double that behaves as they do.
    (eq:precision)
    """

    def cholesky(matrix: Array) -> Array | None:
        # Of NaN and infinity cuSOLVER promises no verdict: a matrix of −1 in their place is refused for certain, and
        # nobody waits for the answer. Without errstate a failure returns unspecified numbers.
        lower = cupy.tril(matrix)
        finite = cupy.all(cupy.isfinite(lower), axis=(-2, -1), keepdims=True)
        with cupyx.errstate(linalg="raise"):
            try:
                return cupy.linalg.cholesky(cupy.where(finite, lower, -1))
            except np.linalg.LinAlgError:
                return None

    def unjudged_cholesky(matrix: Array) -> Array:
        with cupyx.errstate(linalg="ignore"):
            return cupy.linalg.cholesky(matrix)

    def solve_triangular(factor: Array, right: Array, **options: Any) -> Array:
        if right.size == 0:  # cuBLAS wants at least one row and column
            return right.copy()
        return cupyx.scipy.linalg.solve_triangular(factor, right, **options)

    linear_algebra = cholesky, solve_triangular, None, unjudged_cholesky
    # A block costs about a hundred launches however few its rows (benchmarks/gpu_output.md): few blocks, in 1 GiB.
    functions = cupyx.scipy.special.erf, cupy.asnumpy, *linear_algebra
    return Backend(name, cupy, *functions, block_rows=2**17, block_bytes=2**30)


def cupy_backend() -> Backend:
    """The backend on CuPy itself; raises BackendUnavailableError where it cannot run.   (eq:precision)"""
    try:
        cupy, cupyx = import_module("cupy"), import_module("cupyx")
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend='cupy' needs CuPy, which cannot be imported ({_line(error)}); pip install 'balinp[gpu]'"
        ) from error
    try:
        cupy.arange(3).sum().item()  # a real kernel: the driver is found only now
        for name in ("cupyx.scipy.linalg", "cupyx.scipy.special"):
            import_module(name)
        backend = cupy_like("cupy", cupy, cupyx)
        backend.to_host(backend.cho_solve(backend.cholesky(cupy.eye(1)), cupy.ones((1, 1))))  # cuSOLVER and cuBLAS
    except Exception as error:  # CuPy's own hierarchy, not importable without it
        raise BackendUnavailableError(
            f"backend='cupy': CuPy is installed but cannot run on a device ({_line(error)}); "
            "check the NVIDIA driver and CUDA's libraries"
        ) from error
    return backend


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
