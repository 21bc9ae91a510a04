"""Matrices of 50-digit numbers: the few operations that the reference needs, spelled for reading and not for speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmath import mp as _mp

MP = _mp.clone()  # a context of its own: nobody else's precision is changed
MP.dps = 50
DIFFERENCE_DIGITS, DIFFERENCE = 120, "1e-35"  # a central difference is then right to about 70 digits

Matrix = Any  # an mpmath matrix
Number = Any  # an mpf


def matrix(rows: Any, columns: int = 0) -> Matrix:
    """A matrix from nested lists; ``columns`` counts where there are no rows."""
    return MP.matrix(rows) if rows else MP.matrix(0, columns)


def lists(values: Matrix) -> list[list[Number]]:
    """The rows of a matrix as nested lists."""
    return [[values[i, j] for j in range(values.cols)] for i in range(values.rows)]


def row(values: Matrix, i: int) -> Matrix:
    """Row i as a 1 × n matrix."""
    return MP.matrix([[values[i, j] for j in range(values.cols)]])


def stack(rows: list[Matrix]) -> Matrix:
    """1 × n matrices on top of each other."""
    return MP.matrix([[r[0, j] for j in range(r.cols)] for r in rows])


def identity(n: int, scale: Any = 1) -> Matrix:
    """``scale`` · I."""
    return MP.diag([MP.mpf(scale)] * n)


def eliminated(a: Matrix, right: Matrix) -> tuple[Matrix, Number]:
    """(a⁻¹ right, det a) by Gauss and Jordan with row pivots. Raises ZeroDivisionError when a is singular."""
    n, determinant = a.rows, MP.mpf(1)
    rows = [[*x, *y] for x, y in zip(lists(a), lists(right), strict=True)]
    for i in range(n):
        top = max(range(i, n), key=lambda r: abs(rows[r][i]))
        if top != i:
            rows[i], rows[top], determinant = rows[top], rows[i], -determinant
        pivot = rows[i][i]
        determinant *= pivot
        rows[i] = [v / pivot for v in rows[i]]
        for r in range(n):
            factor = rows[r][i]
            if r != i and factor != 0:
                rows[r] = [v - factor * above for v, above in zip(rows[r], rows[i], strict=True)]
    return matrix([r[n:] for r in rows], right.cols), determinant


def solve(a: Matrix, right: Matrix) -> Matrix:
    """a⁻¹ right."""
    return eliminated(a, right)[0]


def inverse(a: Matrix) -> Matrix:
    """a⁻¹."""
    return solve(a, identity(a.rows))


def trace(a: Matrix) -> Number:
    """∑ a_ii."""
    return sum((a[i, i] for i in range(a.rows)), MP.mpf(0))


def squares(a: Matrix) -> Number:
    """∑ a_ij²."""
    return sum((v * v for v in a), MP.mpf(0))


def log_det(a: Matrix) -> Number:
    """log det a, for a positive definite a."""
    return MP.log(eliminated(a, a)[1])


def kronecker(a: Matrix, b: Matrix) -> Matrix:
    """a ⊗ b."""
    out = MP.matrix(a.rows * b.rows, a.cols * b.cols)
    for i in range(out.rows):
        for j in range(out.cols):
            out[i, j] = a[i // b.rows, j // b.cols] * b[i % b.rows, j % b.cols]
    return out


def vec(a: Matrix) -> Matrix:
    """The columns of a under each other, (rows · cols) × 1."""
    return MP.matrix([a[i, j] for j in range(a.cols) for i in range(a.rows)])


def unvec(v: Matrix, rows: int) -> Matrix:
    """The inverse of ``vec``."""
    return MP.matrix([[v[j * rows + i] for j in range(v.rows // rows)] for i in range(rows)])


def with_ones(a: Matrix) -> Matrix:
    """[a, 1]."""
    return MP.matrix([[*(a[i, j] for j in range(a.cols)), 1] for i in range(a.rows)])


def derivative(function: Callable[[Matrix], list[Number]], at: Matrix) -> Matrix:
    """∂function/∂at for a 1 × n matrix ``at``: one row per value, one column per entry, by central differences."""
    with MP.workdps(DIFFERENCE_DIGITS):
        step, columns = MP.mpf(DIFFERENCE), []
        for j in range(at.cols):
            ends = []
            for sign in (1, -1):
                moved = at.copy()
                moved[0, j] += sign * step
                ends.append(function(moved))
            columns.append([(a - b) / (2 * step) for a, b in zip(*ends, strict=True)])
        return MP.matrix(columns).T
