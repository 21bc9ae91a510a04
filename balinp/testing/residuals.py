"""Residual ratios in units of eps, as in LAPACK's TESTING programs, and the one threshold they must stay below.

A ratio is ‖computed − expected‖ / (n · eps · scale), where scale is what a backward-stable algorithm's error is
proportional to. It does not grow with the size or the condition number, so no tolerance has to be guessed. eps is
that of the computed array's dtype; the ratio itself is worked out in float64. A ratio that is NaN counts as infinite.
"""

from __future__ import annotations

from math import inf, isnan
from typing import Any

import numpy as np

THRESHOLD = 10.0  # every residual ratio of the test-suite must be below it

_worst: dict[str, tuple[float, str]] = {}


def assert_residual(ratio: float, what: str, statement: str) -> None:
    """Fail unless ``ratio`` < THRESHOLD; the message names the statement, e.g. "eq:layer-posterior", and ``what``.

    The largest ratio passed in per statement is kept for ``worst_ratios``. Raises AssertionError.
    """
    ratio = inf if isnan(ratio) else float(ratio)
    if ratio >= _worst.get(statement, (-inf, ""))[0]:
        _worst[statement] = (ratio, what)
    if not ratio < THRESHOLD:
        raise AssertionError(
            f"{statement} is broken: {what}: residual ratio {ratio:.3g} in units of eps, must be < {THRESHOLD:g}"
        )


def worst_ratios() -> dict[str, tuple[float, str]]:
    """Per statement the largest ratio that ``assert_residual`` has met in this process, and what it was of."""
    return dict(_worst)


def machine_epsilon(*values: Any) -> float:
    """eps of the coarsest floating-point dtype among ``values``; a Python number counts as float64."""
    return max(float(np.finfo(np.asarray(value).dtype).eps) for value in values)


def condition_number(matrix: Any) -> float:
    """λ_max/λ_min of a symmetric positive definite matrix (D, D), found in float64; 1 when it is empty."""
    values = np.linalg.eigvalsh(_scaled(matrix)[0])
    if not values.size:
        return 1.0
    return float(values[-1] / values[0]) if values[0] > 0 else inf


def cholesky_residual(factor: Any, matrix: Any) -> float:
    """‖L Lᵀ − A‖₁ / (n eps ‖A‖₁) for the lower factor L of A (D, D), both triangles of A given."""
    A, exponent = _scaled(matrix, even=True)
    L = np.ldexp(np.asarray(factor, dtype=np.float64), -exponent // 2)
    return _ratio(_norm1(L @ L.T - A), len(A), machine_epsilon(factor), _norm1(A))


def solve_residual(matrix: Any, solution: Any, right: Any) -> float:
    """max over columns of ‖b − A x‖₁ / (n eps ‖A‖₁ ‖x‖₁), for A (D, D), solution and right (D, K)."""
    A, a = _scaled(matrix)
    X, x = _scaled(solution)
    B = np.ldexp(np.asarray(right, dtype=np.float64), -a - x)
    errors, lengths = np.sum(np.abs(B - A @ X), axis=0), np.sum(np.abs(X), axis=0)
    eps = machine_epsilon(solution)
    ratios = [_ratio(e, len(A), eps, _norm1(A) * n) for e, n in zip(errors, lengths)]
    return float(np.max(ratios, initial=0.0))  # unlike max(), which may step over a NaN


def log_determinant_residual(computed: Any, matrix: Any) -> float:
    """|computed − log|A|| / (n eps (κ(A) + |log|A||)) for a symmetric positive definite A (D, D)."""
    scaled, exponent = _scaled(matrix)
    expected = float(np.linalg.slogdet(scaled)[1]) + len(scaled) * exponent * np.log(2.0)
    scale = condition_number(matrix) + abs(expected)
    return _ratio(abs(float(computed) - expected), max(len(scaled), 1), machine_epsilon(computed), scale)


def kronecker_residual(computed: Any, columns: Any, rows: Any, x: Any) -> float:
    """‖vec Y − (B ⊗ U) vec X‖ / (n eps ‖B‖ ‖U‖ ‖X‖) for a mat-vec done without the Kronecker product.

    Shapes: computed Y and x (D, K), columns B (K, K), rows U (D, D); vec stacks columns, n = max(D, K).
    """
    B, U, X = (np.asarray(a, dtype=np.float64) for a in (columns, rows, x))
    expected = (np.kron(B, U) @ X.reshape(-1, order="F")).reshape(X.shape, order="F")
    scale = float(np.linalg.norm(B) * np.linalg.norm(U) * np.linalg.norm(X))
    error = float(np.linalg.norm(np.asarray(computed, dtype=np.float64) - expected))
    return _ratio(error, max(X.shape), machine_epsilon(computed), scale)


def comparison_residual(
    computed: Any, expected: Any, condition: float = 1.0, scale: float = 0.0, size: int | None = None
) -> float:
    """‖computed − expected‖ / (n eps κ max(‖expected‖, scale)): two computations of one thing.

    ``condition`` κ is that of the problem; ``scale`` the size of the terms that the result is a difference of;
    ``size`` n the longest sum in it, by default the largest dimension of ``computed``. Shapes must agree.
    Raises AssertionError when they do not.
    """
    left, right = np.asarray(computed), np.asarray(expected)
    if left.shape != right.shape:
        raise AssertionError(f"computed has shape {left.shape}, expected {right.shape}")
    n = max(left.shape, default=1) if size is None else size
    Y, y = _scaled(right)
    unit = max(float(np.linalg.norm(Y)), float(np.ldexp(scale, -y)))
    error = float(np.linalg.norm(np.ldexp(np.asarray(left, dtype=np.float64), -y) - Y))
    return _ratio(error, n, machine_epsilon(computed), condition * unit)


def _scaled(values: Any, even: bool = False) -> tuple[np.ndarray, int]:
    """(values · 2^−e in float64, e) with entries of order one, so that no norm over- or underflows; exact."""
    array = np.asarray(values, dtype=np.float64)
    top = float(np.max(np.abs(array), initial=0.0))
    exponent = int(np.frexp(top)[1]) if np.isfinite(top) and top > 0 else 0
    exponent += exponent % 2 if even else 0
    return np.ldexp(array, -exponent), exponent


def _norm1(matrix: np.ndarray) -> float:
    return float(np.max(np.sum(np.abs(matrix), axis=0), initial=0.0))


def _ratio(error: float, size: int, eps: float, scale: float) -> float:
    if error == 0:
        return 0.0
    return float(error / (max(size, 1) * eps * scale)) if 0 < scale < inf else inf  # no scale forgives everything
