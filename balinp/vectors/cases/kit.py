"""What an operation, a case and a mistake are, and where the numbers of the inputs come from.

Every input is a multiple of a power of two, and so the same number in float32 and in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Values = dict[str, Any]
Rows = list[list[float]]


@dataclass(frozen=True)
class Mistake:
    """A classic mistake: the statement it breaks, its name in words, and what it computes from a case's inputs."""

    statement: str
    text: str
    wrong: Callable[[Values], Values]


@dataclass(frozen=True)
class Case:
    """One instance: inputs as plain numbers and lists, shapes by letter, scale: the size of the terms that an output is
    a difference of. reject: why the inputs must be refused; None where they must not.
    """

    name: str
    inputs: Values
    shapes: dict[str, int]
    scale: dict[str, float] = field(default_factory=dict)
    reject: str | None = None


@dataclass(frozen=True)
class Operation:
    """One file: what it computes (reference: inputs with mpf leaves → outputs), on which cases, against which mistakes.

    per_layer: outputs that are lists with one matrix per layer; their names get the layer's number.
    """

    name: str
    description: str
    statements: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, str]
    reference: Callable[[Values], Values]
    cases: list[Case]
    mistakes: dict[str, Mistake] = field(default_factory=dict)
    per_layer: tuple[str, ...] = ()


class Numbers:
    """Reproducible inputs: ``random()`` of Python's generator alone, which is the same in every version."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random

    def number(self, spread: float = 1.5, grid: int = 16) -> float:
        """A multiple of 1/grid, symmetric about 0 and within 1.5 · spread, never 0."""
        value = round((self.random() + self.random() + self.random() - 1.5) * spread * grid)
        return (value or 1) / grid

    def vector(self, n: int, spread: float = 1.5) -> list[float]:
        """n numbers."""
        return [self.number(spread) for _ in range(n)]

    def matrix(self, rows: int, columns: int, spread: float = 1.5) -> Rows:
        """rows × columns numbers."""
        return [self.vector(columns, spread) for _ in range(rows)]

    def with_ones(self, rows: int, columns: int) -> Rows:
        """rows × columns numbers, the last column ones."""
        return [[*self.vector(columns - 1), 1.0] for _ in range(rows)]

    def spd(self, n: int, least: float = 0.5, spread: float = 1.0) -> Rows:
        """C Cᵀ + least · I: symmetric positive definite and exact."""
        C = [[round(v * 4) / 4 for v in row] for row in self.matrix(n, n, spread)]
        return [
            [sum(a * b for a, b in zip(C[i], C[j])) + (least if i == j else 0.0) for j in range(n)] for i in range(n)
        ]

    def signs(self, rows: int, columns: int) -> list[list[int]]:
        """rows × columns of ±1."""
        return [[1 if self.random() < 0.5 else -1 for _ in range(columns)] for _ in range(rows)]

    def integers(self, n: int, below: int) -> list[int]:
        """n integers in [0, below)."""
        return [int(self.random() * below) for _ in range(n)]

    def permutation(self, n: int) -> list[int]:
        """A random order of 0 … n − 1."""
        return [i for _, i in sorted((self.random(), i) for i in range(n))]

    def posterior(self, d: int, k: int) -> Values:
        """mean, row_precision and column_covariance of a matrix-normal."""
        return {"mean": self.matrix(d, k), "row_precision": self.spd(d), "column_covariance": self.spd(k, 0.25, 0.75)}


def eye(n: int, scale: float = 1.0) -> Rows:
    """``scale`` · I."""
    return [[scale if i == j else 0.0 for j in range(n)] for i in range(n)]


def zeros(rows: int, columns: int) -> Rows:
    """A matrix of zeros."""
    return [[0.0] * columns for _ in range(rows)]


def scaled(rows: Rows, factor: float) -> Rows:
    """factor · rows."""
    return [[factor * v for v in row] for row in rows]


def gram(a: Rows, b: Rows, columns: tuple[int, int]) -> Rows:
    """aᵀb, exact for the numbers used here; ``columns`` of a and b count where there are no rows."""
    return [[sum((x[i] * y[j] for x, y in zip(a, b)), 0.0) for j in range(columns[1])] for i in range(columns[0])]


SHAPES = {"rectangular": (4, 2), "square": (3, 3), "one-unit": (1, 1)}  # (D, K); equal ones hide no transpose's shape
