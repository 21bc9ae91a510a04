"""Hypothesis strategies for what the core takes: positive definite matrices, matrix normals, layer regressions (and,
in ``networks.py``, small networks with weights and data).

Sizes are LAPACK's {1, 2, 3, 5, 10, 50} (0 for rows of data), condition numbers 2, √(0.1/eps) and 0.1/eps, dtypes
float32 and float64. What hypothesis draws and shrinks is a size, a condition number, a scale and a seed; the arrays
come from a numpy Generator with that seed, which is fast. Everything drawn is reproducible from the printed example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..matrix_normal import MatrixNormal
from ..regression import Prior
from ..statistics import LayerStatistics

SIZES = (1, 2, 3, 5, 10, 50)
DTYPES = (np.dtype("float64"), np.dtype("float32"))

Draw = Callable[[st.SearchStrategy[Any]], Any]


def seeds() -> st.SearchStrategy[int]:
    """Seeds of a numpy Generator."""
    return st.integers(0, 2**32 - 1)


def dtypes() -> st.SearchStrategy[np.dtype]:
    """float64 or float32."""
    return st.sampled_from(DTYPES)


def sizes(most: int = 50) -> st.SearchStrategy[int]:
    """One of 1, 2, 3, 5, 10, 50, at most ``most``."""
    return st.sampled_from([n for n in SIZES if n <= most])


def row_counts(most: int = 50) -> st.SearchStrategy[int]:
    """A number of rows of data: 0 or one of ``sizes``."""
    return st.sampled_from([0, *(n for n in SIZES if n <= most)])


def shapes(most: int = 100) -> st.SearchStrategy[tuple[int, int]]:
    """Sizes (D, K) with D·K ≤ ``most``, so that the dense Kronecker products of the oracles stay small."""
    return st.sampled_from([(d, k) for d in SIZES for k in SIZES if d * k <= most])


def condition_numbers(dtype: Any, hardest: bool = False) -> st.SearchStrategy[float]:
    """2 or √(0.1/eps); with ``hardest`` also 0.1/eps, where only backward errors still mean anything."""
    limit = 0.1 / float(np.finfo(dtype).eps)
    return st.sampled_from([2.0, limit**0.5, limit] if hardest else [2.0, limit**0.5])


def extreme_scales(dtype: Any) -> st.SearchStrategy[float]:
    """Sizes of a matrix near underflow and near overflow that a factorisation must survive (condition number 2)."""
    info = np.finfo(dtype)
    return st.sampled_from([float(info.tiny / info.eps), float(info.max * 0.01)])


def random_spd(
    generator: np.random.Generator, size: int, condition: float, dtype: Any, scale: float = 1.0
) -> np.ndarray:
    """A symmetric positive definite matrix (size, size) of norm ``scale`` and that condition number.

    Eigenvalues geometric, eigenvectors uniform; a 1 × 1 matrix is ``scale``.
    """
    vectors = np.linalg.qr(generator.standard_normal((size, size)))[0]
    matrix = (vectors * np.geomspace(1.0, 1 / condition if size > 1 else 1.0, size)) @ vectors.T
    return np.asarray((matrix + matrix.T) / 2 * scale, dtype=dtype)


@st.composite
def spd_matrices(
    draw: Draw,
    size: st.SearchStrategy[int] | None = None,
    dtype: Any = None,
    condition: float | None = None,
    scale: float | None = None,
    hardest: bool = False,
) -> np.ndarray:
    """Symmetric positive definite matrices (D, D); whatever is not given is drawn.

    size: a strategy, by default ``sizes()``. dtype, condition and scale: values; the scale drawn lies in
    [1e-3, 1e3]. ``hardest`` allows the condition number 0.1/eps.
    """
    kind = draw(dtypes()) if dtype is None else np.dtype(dtype)
    n = draw(sizes() if size is None else size)
    kappa = draw(condition_numbers(kind, hardest)) if condition is None else condition
    factor = draw(st.sampled_from([1.0, 1e-3, 1e3])) if scale is None else scale
    return random_spd(np.random.default_rng(draw(seeds())), n, kappa, kind, factor)


@st.composite
def extreme_spd_matrices(draw: Draw) -> np.ndarray:
    """Well-conditioned matrices (D, D) whose entries are close to under- or overflow."""
    kind = draw(dtypes())
    return draw(spd_matrices(dtype=kind, condition=2.0, scale=draw(extreme_scales(kind))))


def random_matrix_normal(
    generator: np.random.Generator,
    shape: tuple[int, int],
    dtype: Any,
    row_condition: float = 2.0,
    column_condition: float = 2.0,
    row_scale: float = 1.0,
    column_scale: float = 1.0,
) -> MatrixNormal:
    """W ~ MN(M, P⁻¹, Σ) of ``shape`` (D, K) with those condition numbers and norms of P and Σ."""
    mean = generator.standard_normal(shape).astype(dtype)
    P = random_spd(generator, shape[0], row_condition, dtype, row_scale)
    sigma = random_spd(generator, shape[1], column_condition, dtype, column_scale)
    return MatrixNormal(mean, P, sigma)


@st.composite
def matrix_normals(
    draw: Draw, shape: tuple[int, int] | None = None, dtype: Any = None, condition: float | None = None
) -> MatrixNormal:
    """Matrix normals; a drawn shape has D·K ≤ 100. ``condition`` is that of both P and Σ when given."""
    kind = draw(dtypes()) if dtype is None else np.dtype(dtype)
    size = draw(shapes()) if shape is None else shape
    row, column = (draw(condition_numbers(kind)) if condition is None else condition for _ in range(2))
    scales = draw(st.tuples(st.sampled_from([1.0, 1e-2, 1e2]), st.sampled_from([1.0, 1e-2, 1e2])))
    generator = np.random.default_rng(draw(seeds()))
    return random_matrix_normal(generator, size, kind, row, column, *scales)


@st.composite
def matrix_normal_pairs(draw: Draw, condition: float | None = None) -> tuple[MatrixNormal, MatrixNormal]:
    """Two matrix normals of one shape and dtype."""
    shape, kind = draw(shapes()), draw(dtypes())
    return draw(matrix_normals(shape, kind, condition)), draw(matrix_normals(shape, kind, condition))


@dataclass(frozen=True)
class LayerProblem:
    """One layer's regression: inputs A (N, D) with a last column of ones, targets T (N, K), prior MN(M₀, Λ₀⁻¹, Σ),
    noise covariance Σ (K, K).   (eq:layer-model)
    """

    inputs: np.ndarray
    targets: np.ndarray
    prior: Prior
    noise_covariance: np.ndarray
    seed: int = field(default=0)

    @property
    def statistics(self) -> LayerStatistics:
        """The regression's sums over its rows.   (eq:statistics)"""
        return LayerStatistics.from_batch(self.inputs, self.targets)

    @property
    def dense_arguments(self) -> tuple[np.ndarray, ...]:
        """(A, T, M₀, Λ₀, Σ): the arguments of the dense oracles."""
        return self.inputs, self.targets, self.prior.mean, self.prior.precision, self.noise_covariance

    @property
    def longest_sum(self) -> int:
        """max(N, D, K): the longest sum in the regression, n of its residual ratios."""
        return max(*self.inputs.shape, self.targets.shape[1])

    @property
    def term_scale(self) -> float:
        """‖Λ₀‖‖M₀‖ + ‖A‖‖T‖: what the right-hand side Λ₀M₀ + AᵀT is a sum of."""
        A, T, M0, precision, _ = (float(np.linalg.norm(x.astype(np.float64))) for x in self.dense_arguments)
        return precision * M0 + A * T

    def mean_scale(self, posterior: MatrixNormal) -> float:
        """‖P⁻¹‖(‖P‖‖M‖ + ‖Λ₀‖‖M₀‖ + ‖A‖‖T‖): what the forward error of the posterior mean is proportional to."""
        P, M = (np.asarray(x, dtype=np.float64) for x in (posterior.row_precision, posterior.mean))
        solved = float(np.linalg.norm(P) * np.linalg.norm(M)) + self.term_scale
        return float(np.linalg.norm(np.linalg.inv(P), 2)) * solved

    def generator(self) -> np.random.Generator:
        """A Generator for whatever else a test needs, apart from the one that made the arrays."""
        return np.random.default_rng([self.seed, 1])


def random_layer_problem(
    seed: int,
    rows: int,
    shape: tuple[int, int],
    dtype: Any,
    prior_condition: float = 2.0,
    noise_condition: float = 2.0,
    input_scale: float = 1.0,
) -> LayerProblem:
    """The LayerProblem of that seed: D inputs (the ones column among them) and K outputs, shape = (D, K).
    (eq:layer-model)
    """
    generator, (d, k) = np.random.default_rng(seed), shape
    A = np.hstack([input_scale * generator.standard_normal((rows, d - 1)), np.ones((rows, 1))]).astype(dtype)
    prior = Prior(generator.standard_normal(shape).astype(dtype), random_spd(generator, d, prior_condition, dtype))
    sigma = random_spd(generator, k, noise_condition, dtype)
    T = (A @ generator.standard_normal(shape) + generator.standard_normal((rows, k))).astype(dtype)
    return LayerProblem(A, T, prior, sigma, seed)


@st.composite
def layer_problems(
    draw: Draw, rows: st.SearchStrategy[int] | None = None, most: int = 100, dtype: Any = None
) -> LayerProblem:
    """Layer regressions with 0 to 50 rows, fewer rows than inputs included, and D·K ≤ ``most``.

    Prior and noise covariance have condition number 2 or √(0.1/eps), the inputs scale 0.01, 1 or, where P = Λ₀ + AᵀA
    then still factorises, 100 (3 in float32).
    """
    kind = draw(dtypes()) if dtype is None else np.dtype(dtype)
    n = draw(row_counts() if rows is None else rows)
    conditions = draw(condition_numbers(kind)), draw(condition_numbers(kind))
    scale = draw(st.sampled_from([1.0, 0.01, 100.0 if kind == np.float64 else 3.0]))
    return random_layer_problem(draw(seeds()), n, draw(shapes(most)), kind, *conditions, scale)


def orthogonal(generator: np.random.Generator, size: int, dtype: Any = "float64") -> np.ndarray:
    """A uniformly drawn orthogonal matrix (size, size)."""
    q, r = np.linalg.qr(generator.standard_normal((size, size)))
    return np.asarray(q * np.sign(np.diagonal(r)), dtype=dtype)
