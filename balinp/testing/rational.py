"""A backend over the rational numbers: the core's own algebra, run on ``fractions.Fraction`` with error exactly zero.

Arrays are NumPy object arrays of Fractions. What needs a logarithm or a random number is not there; a Cholesky
factor exists where every pivot is the square of a rational, which ``rational_factor`` gives by construction.
"""

from __future__ import annotations

from fractions import Fraction
from math import isqrt
from typing import Any

import numpy as np

from ..backend import Backend


def rational(values: Any) -> np.ndarray:
    """``values`` as an object array of Fractions, same shape."""
    array: Any = np.asarray(values, dtype=object)
    out = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        out[index] = Fraction(array[index])
    return out


def random_rational(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Small random Fractions of that shape."""
    top, bottom = generator.integers(-6, 7, shape), generator.integers(1, 5, shape)
    out = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        out[index] = Fraction(int(top[index]), int(bottom[index]))
    return out


def rational_factor(generator: np.random.Generator, size: int) -> np.ndarray:
    """A random lower-triangular L (size, size) with positive diagonal: L Lᵀ has a rational Cholesky factor."""
    factor = random_rational(generator, (size, size))
    for i in range(size):
        factor[i, i] = Fraction(int(generator.integers(1, 5)), int(generator.integers(1, 4)))
        factor[i, i + 1 :] = Fraction(0)
    return factor


def rational_inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverse of a matrix (n, n) by Gauss and Jordan. Raises ZeroDivisionError when it is singular."""
    n = len(matrix)
    rows = [list(matrix[i]) + [Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    for i in range(n):
        pivot = next((r for r in range(i, n) if rows[r][i] != 0), None)
        if pivot is None:
            raise ZeroDivisionError("the matrix is singular")
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for r in range(n):
            if r != i:
                rows[r] = [value - rows[r][i] * above for value, above in zip(rows[r], rows[i])]
    return rational([row[n:] for row in rows])


def rational_determinant(matrix: np.ndarray) -> Fraction:
    """The determinant by Laplace's expansion along the first row: obvious, and fast enough below six rows."""
    if not len(matrix):
        return Fraction(1)
    minors = (rational_determinant(np.delete(matrix[1:], j, axis=1)) for j in range(len(matrix)))
    return sum(((-1) ** j * matrix[0, j] * minor for j, minor in enumerate(minors)), Fraction(0))


def _root(value: Fraction) -> Fraction | None:
    top, bottom = isqrt(max(value.numerator, 0)), isqrt(value.denominator)
    return Fraction(top, bottom) if value > 0 and Fraction(top * top, bottom * bottom) == value else None


def _cholesky(matrix: np.ndarray) -> np.ndarray | None:
    L = rational(np.zeros(matrix.shape, dtype=int))
    for i in range(len(matrix)):
        for j in range(i + 1):
            rest = matrix[i, j] - sum((L[i, k] * L[j, k] for k in range(j)), Fraction(0))
            if i == j:
                root = _root(rest)
                if root is None:
                    return None
                L[i, i] = root
            else:
                L[i, j] = rest / L[j, j]
    return L


def _solve_triangular(
    factor: np.ndarray, right: np.ndarray, lower: bool = True, trans: str = "N", check_finite: bool = False
) -> np.ndarray:
    return rational_inverse(factor.T if trans == "T" else factor) @ right


def _unavailable(values: Any) -> Any:
    raise TypeError("there is no rational value of this function")


RATIONAL = Backend("rational", np, _unavailable, np.asarray, _cholesky, _solve_triangular)
