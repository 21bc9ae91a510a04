"""The array-module switch: everything the core needs from an array library, behind one frozen object.

The core gets arrays functions from ``backend.xp`` and the linear algebra from the methods here, and imports
no array library itself. ``NUMPY`` is the default everywhere; CuPy is imported only by ``get_backend("cupy")``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
import scipy.linalg
import scipy.special

from .deferred import Check, Deferred, current
from .errors import InvalidArgumentError, NotPositiveDefiniteError

Array: TypeAlias = Any  # an array of the backend's library: numpy.ndarray or cupy.ndarray


def plain(number: Any) -> Any:
    """A scalar of an array library as a Python number, which leaves the dtype of any array it meets alone.
    (eq:precision)
    """
    return number.item() if hasattr(number, "item") else number


@dataclass(frozen=True)
class Backend:
    """One array library: ``xp`` (its module) and the operations whose spelling differs between libraries.

    All methods take and return arrays of this library and keep their dtype (float32 or float64). On a GPU work is only
    queued; what waits for it is said where it happens (``refuse_if``, ``cholesky``, ``floats``, ``to_host``), and
    ``deferred`` puts the waits off. Passes are fastest in blocks of ``block_rows``, of ``block_bytes`` at most.
    """

    name: str
    xp: Any
    erf: Callable[[Array], Array]
    to_host: Callable[[Array], np.ndarray]
    _cholesky: Callable[[Array], Array | None]
    _solve_triangular: Callable[..., Array]
    _triangular_inverse: Callable[[Array], Array] | None = None  # where it is cheaper than a solve
    _unjudged_cholesky: Callable[[Array], Array] | None = None  # without a verdict, where a verdict means waiting
    block_rows: int = 2048  # fit a CPU's cache
    block_bytes: int = 2**28

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return get_backend, (self.name,)  # pickled and copied by name, as modules cannot be

    def asarray(self, values: Any, dtype: Any = None) -> Array:
        """``values`` as an array of this library; no copy when it is one already.   (eq:precision)"""
        return self.xp.asarray(values, dtype=dtype)

    def floats(self, *values: Any) -> list[float]:
        """Numbers and 0-d arrays of this library as Python floats, in one transfer however many they are.
        (eq:precision)
        """
        if self._unjudged_cholesky is None:
            return [float(value) for value in values]
        there = [value for value in values if isinstance(value, self.xp.ndarray)]  # the host's numbers need no journey
        fetched = iter(self.to_host(self.xp.stack([v.astype("float64") for v in there])).tolist() if there else ())
        return [next(fetched) if isinstance(value, self.xp.ndarray) else float(value) for value in values]

    def refuse_if(self, bad: Array, error: Check) -> None:
        """Raise ``error()`` if the 0-d array ``bad`` is true: at once, for which a GPU is waited for, or inside
        ``deferred`` together with the numbers that are fetched there. ``error()`` may be None: false alarm.
        (eq:precision)
        """
        later = current.get()
        if later is not None and self._unjudged_cholesky is not None:
            later.checks.append((bad, error))
        elif bool(bad):
            refusal = error()
            if refusal is not None:
                raise refusal

    @contextmanager
    def deferred(self) -> Iterator[Deferred]:
        """Inside, a GPU is not waited for at every check: all are looked at when ``Deferred.floats`` fetches numbers,
        and what is left at the end. Where nothing is queued, checks refuse at once as ever.   (eq:precision)
        """
        later = Deferred(self.floats)
        token = current.set(later)
        try:
            yield later
            later.floats()
        finally:
            current.reset(token)

    def cholesky(self, matrix: Array, name: str = "matrix") -> Array:
        """Lower factor L with L Lᵀ = matrix (..., D, D); only the lower triangle is read. On a GPU one wait, for the
        verdict; none inside ``deferred``.   (eq:cholesky)

        Raises NotPositiveDefiniteError naming ``name`` and the first failing pivot; NaN counts as failing.
        """
        if matrix.ndim < 2 or matrix.shape[-2] != matrix.shape[-1]:
            raise InvalidArgumentError(f"{name} must be a square matrix, got shape {matrix.shape}")
        if self._unjudged_cholesky is not None and current.get() is not None and matrix.ndim == 2:
            factor = self._unjudged_cholesky(matrix)
            self.refuse_if(self._doubtful(factor, matrix), lambda: self._failure(matrix, name))
            return factor
        factor = self._cholesky(matrix)
        if factor is None:
            raise _diagnosis(self.to_host(matrix), name)
        return factor

    def _failure(self, matrix: Array, name: str) -> NotPositiveDefiniteError | None:
        """The library's own verdict, waited for: None if the factorisation succeeds."""
        return None if self._cholesky(matrix) is not None else _diagnosis(self.to_host(matrix), name)

    def _doubtful(self, factor: Array, matrix: Array) -> Array:
        """Whether ``factor`` may come from a factorisation that failed, judged by its numbers; a 0-d array.

        A factorisation that succeeds has |∑_j L_ij² − A_ii| ≤ γ A_ii, γ = (D + 1)ε/(1 − (D + 1)ε) (Higham 2002, 10.3).
        One that fails at pivot k has ∑_{j<k} L_kj² ≥ (1 − γ) A_kk already: then whatever stands at L_kk either adds so
        much that the sum is off (by more than the bound, if its square is more than twice that), or is small; both are
        doubted, as is NaN. The bound is four times γ, for the rounding of this sum and for other orders of summation; a
        factor doubted in vain costs a second look.
        """
        xp, diagonal = self.xp, self.xp.diagonal(matrix)
        bound = diagonal * (4 * (len(matrix) + 2) * float(xp.finfo(matrix.dtype).eps))
        pivots = xp.diagonal(factor)
        near = xp.abs(xp.sum(factor**2, axis=1) - diagonal) <= bound
        return xp.logical_not(xp.all(near & (pivots > 0) & (pivots**2 > 2 * bound)))

    def solve_triangular(self, factor: Array, right: Array, transposed: bool = False) -> Array:
        """L⁻¹ right, or L⁻ᵀ right when ``transposed``; L (..., D, D) lower, right (..., D, K).   (eq:cholesky)"""
        return self._solve_triangular(factor, right, lower=True, trans="T" if transposed else "N", check_finite=False)

    def triangular_inverse(self, factor: Array) -> Array:
        """L⁻¹ for the lower factor L (D, D).   (eq:cholesky)"""
        if self._triangular_inverse is not None:
            return self._triangular_inverse(factor)
        return self.solve_triangular(factor, self.xp.eye(len(factor), dtype=factor.dtype))

    def cho_solve(self, factor: Array, right: Array) -> Array:
        """(L Lᵀ)⁻¹ right, for the lower factor L (D, D) and right (D, K).   (eq:cholesky)"""
        return self.solve_triangular(factor, self.solve_triangular(factor, right), transposed=True)

    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        """Eigenvalues (D,), ascending, and eigenvectors (D, D) in columns, of a symmetric matrix.
        (eq:vec-kronecker)
        """
        values, vectors = self.xp.linalg.eigh(matrix)
        return values, vectors

    def logsumexp(self, values: Array, axis: int = -1) -> Array:
        """log ∑ exp along ``axis``, without overflow.   (eq:logsumexp)"""
        top = self.xp.max(values, axis=axis, keepdims=True)
        top = self.xp.where(self.xp.isfinite(top), top, 0)  # a row of −∞ is −∞, not NaN
        return self.xp.log(self.xp.sum(self.xp.exp(values - top), axis=axis)) + self.xp.squeeze(top, axis=axis)

    @staticmethod
    def generator(seed: Any) -> np.random.Generator:
        """A numpy Generator; the only source of randomness.   (eq:draws)"""
        return np.random.default_rng(seed)

    def standard_normal(self, generator: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        """Draws from N(0, 1), made on the host in float64 so that every backend and dtype sees the same ones.
        (eq:draws)
        """
        return self.asarray(generator.standard_normal(shape), dtype=dtype)

    @staticmethod
    def row_signs(generator: Any) -> Callable[[int, int, int], np.ndarray]:
        """``RowSigns`` under a key drawn from ``generator``: one draw however many rows there are.   (eq:draws)

        A stand-in for a generator that has recorded or chosen signs gives them by a method ``row_signs`` of its own.
        """
        own = getattr(generator, "row_signs", None)
        return RowSigns(int(generator.integers(2**63))) if own is None else own()


@dataclass(frozen=True)
class RowSigns:
    """Random signs ±1 for every row and output, fixed by ``key`` and the row's position alone.

    Bit n·K + k of the stream of PCG64(key) is the sign of row n, output k. Every sign takes one bit, so whoever holds
    some of the rows (a block, a worker) makes their signs without those before: the stream is advanced.
    """

    key: int

    def __call__(self, start: int, rows: int, columns: int) -> np.ndarray:
        """The signs of rows ``start`` to ``start + rows``, (rows, columns) of −1 and 1 in int8."""
        word, bit = divmod(start * columns, 64)
        words = np.random.PCG64(self.key).advance(word).random_raw(-(-(bit + rows * columns) // 64))
        bits = np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), bitorder="little")
        return (2 * bits[bit : bit + rows * columns].astype(np.int8) - 1).reshape(rows, columns)


def _numpy_cholesky(matrix: np.ndarray) -> np.ndarray | None:
    if matrix.ndim > 2:
        try:
            factors = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return None
        return factors if np.all(np.isfinite(factors)) else None
    (potrf,) = scipy.linalg.get_lapack_funcs(("potrf",), (matrix,))
    upper, info = potrf(matrix.T, lower=False, clean=True)  # the transpose of a C-ordered array is what LAPACK reads
    factor = upper.T
    return factor if info == 0 and np.all(np.isfinite(np.diagonal(factor))) else None  # some LAPACKs carry a NaN on


def _numpy_solve_triangular(factor: np.ndarray, right: np.ndarray, trans: str, **options: Any) -> np.ndarray:
    if factor.ndim > 2:  # SciPy takes batches only since 1.16
        return np.linalg.solve(np.swapaxes(factor, -1, -2) if trans == "T" else factor, right)
    if right.ndim != 2 or right.size == 0:
        return scipy.linalg.solve_triangular(factor, right, trans=trans, **options)
    # BLAS itself, whose ten microseconds of checks in SciPy are most of the time of a small solve. It wants columns
    # contiguous: a C-ordered right side goes in transposed, as X Lᵀ = Bᵀ, and nothing is copied to turn it round.
    (trsm,) = scipy.linalg.get_blas_funcs(("trsm",), (factor, right))
    if right.flags.c_contiguous:
        return trsm(1, factor.T, right.T, side=1, lower=0, trans_a=int(trans == "T")).T
    return trsm(1, factor.T, right, lower=0, trans_a=int(trans == "N"))


def _numpy_triangular_inverse(factor: np.ndarray) -> np.ndarray:
    (trtri,) = scipy.linalg.get_lapack_funcs(("trtri",), (factor,))
    return trtri(factor.T, lower=0)[0].T


def _diagnosis(matrix: np.ndarray, name: str) -> NotPositiveDefiniteError:
    """The first pivot that a Cholesky factorisation of ``matrix`` cannot take (found by bisection)."""
    if matrix.ndim > 2:
        matrix = next(each for each in matrix.reshape(-1, *matrix.shape[-2:]) if _numpy_cholesky(each) is None)
    good, bad = 0, len(matrix)  # leading blocks: size `good` factorises, size `bad` does not
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (good, middle) if _numpy_cholesky(matrix[:middle, :middle]) is None else (middle, bad)
    k = good
    value = float(matrix[k, k])
    if k:
        row = matrix[k, :k]
        finite = np.all(np.isfinite(row))
        left = _numpy_cholesky(matrix[:k, :k])
        value -= float(np.sum(scipy.linalg.solve_triangular(left, row, lower=True) ** 2)) if finite else np.nan
    if np.isfinite(value):
        value = min(value, 0.0)  # the factorisation met it at or below 0; above is this recomputation's rounding
    return NotPositiveDefiniteError(name, len(matrix), k, value, str(matrix.dtype))


NUMPY = Backend(
    "numpy", np, scipy.special.erf, np.asarray, _numpy_cholesky, _numpy_solve_triangular, _numpy_triangular_inverse
)

# glibc gives freed arrays back to the system, and every iteration faults them in again page by page (hundreds at 1 000
# rows: tests/test_page_faults.py), until a block of nearly 32 MiB has been freed; this one is never touched: no cost.
np.empty(2**25 - 2**16, np.uint8)


def _cupy() -> Backend:
    backend: Backend = import_module(".cupy_backend", __package__).cupy_backend()  # imports this module
    return backend


_MAKERS: dict[str, Callable[[], Backend]] = {"numpy": lambda: NUMPY, "cupy": _cupy}


def register_backend(name: str, make: Callable[[], Backend]) -> None:
    """Let ``get_backend(name)`` and the estimators know another backend; ``make`` is called when it is asked for.
    (eq:precision)
    """
    _MAKERS[name] = make
    get_backend.cache_clear()


@cache
def get_backend(name: str = "numpy") -> Backend:
    """The backend called ``name``: "numpy", "cupy" (needs the extra ``gpu`` and a CUDA device), or a registered one.
    (eq:draws)

    Raises InvalidArgumentError for another name, BackendUnavailableError when CuPy cannot run here.
    """
    if name not in _MAKERS:
        raise InvalidArgumentError(f"backend must be 'numpy' or 'cupy', got {name!r}")
    return _MAKERS[name]()
