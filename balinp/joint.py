"""The joint regression: the step of all layers together, every row with its own curvature.

A layer's own regression takes all rows to have their mean curvature and the other layers to stand still; that makes its
posterior matrix-normal. What it costs is the way there: far from a solution such steps have to be short. The step that
the rows' own curvatures and all layers together ask for solves one linear system, here by conjugate gradients with the
layers' matrix-normal covariances as preconditioner; its matrix is never formed. Where the steps end is the same
(eq:fixed-points), and so is the form of the posterior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .backend import NUMPY, Array, Backend
from .blocks import reduce_blocks
from .likelihoods import Likelihood
from .matrix_normal import MatrixNormal
from .mlp import MLP
from .passes import brought, rows_in_memory
from .settings import Settings
from .statistics import LayerStatistics

PRODUCTS = 20  # steps of conjugate gradients in an iteration, each a pass over the data
DAMPING = 0.3  # the damping of the first steps falls by this factor with each
FEWEST = 0.01  # of a layer's parameters: one probe may estimate fewer, or none


@dataclass(frozen=True)
class LayerArrays:
    """One array for each layer; those of blocks of rows add.   (eq:curvature-product, eq:block-sum)"""

    arrays: list[Array]

    def __add__(self, other: LayerArrays) -> LayerArrays:
        return LayerArrays([a + b for a, b in zip(self.arrays, other.arrays)])


def curvature_product(
    mlp: MLP,
    likelihood: Likelihood,
    weights: Sequence[Array],
    directions: Sequence[Array],
    x: Array,
    settings: Settings = Settings(),
    sample_weight: Array | None = None,
) -> list[Array]:
    """H V, the Gauss–Newton precision of all weights times directions: per layer ∑ w_n a_lnᵀ (J_lnᵀ B_n dh_n)ᵀ.
    (eq:curvature-product)

    dh_n is what the outputs of row n change by as the weights move along V. Shapes: weights[l] (D_l, K_l), directions
    and result (..., D_l, K_l), x (N, D), sample_weight (N,). One pass over the data, block by block.
    """
    of = partial(_block_product, mlp, likelihood, weights, directions)
    total: LayerArrays = reduce_blocks(of, rows_in_memory(settings, mlp, x.dtype.itemsize), x, sample_weight)
    return total.arrays


# eq:curvature-product
def _block_product(
    mlp: MLP,
    likelihood: Likelihood,
    weights: Sequence[Array],
    directions: Sequence[Array],
    start: int,
    x: Array,
    w: Any,
) -> LayerArrays:
    x, w = brought((x, w), mlp)
    activations = mlp.forward(weights, x)
    change = mlp.pushforward(weights, activations, directions)
    curved = mlp.backend.xp.einsum("nij,...nj->...ni", likelihood.row_curvature(activations.outputs[-1]), change)
    if w is not None:
        curved = mlp.backend.asarray(w, dtype=curved.dtype)[:, None] * curved
    gradients = mlp.backward(weights, activations, curved)
    return LayerArrays([a.T @ g for a, g in zip(activations.inputs, gradients)])


def conjugate_gradients(
    product: Callable[[list[Array]], list[Array]],
    right: Sequence[Array],
    posteriors: Sequence[MatrixNormal],
    iterations: int,
    backend: Backend = NUMPY,
) -> list[Array]:
    """X with A X = ``right``, for the positive definite ``product`` X ↦ A X, after so many preconditioned steps.
    (eq:conjugate-gradients)

    The preconditioner is the covariance of ``posteriors``, R ↦ P⁻¹ R Σ layer by layer. Shapes: right and result
    (S, D_l, K_l) per layer, S systems side by side. No step looks at a number, so a GPU is never waited for.
    """
    xp = backend.xp

    def inner(a: Sequence[Array], b: Sequence[Array]) -> Any:  # (S, 1, 1)
        return sum(xp.sum(u * v, axis=(1, 2), keepdims=True) for u, v in zip(a, b))

    def preconditioned(residual: list[Array]) -> list[Array]:
        return [_covariance_times(p, r, backend) for p, r in zip(posteriors, residual)]

    least = float(xp.finfo(right[0].dtype).tiny)  # a system that is solved stays as it is
    x, r = [xp.zeros_like(part) for part in right], list(right)
    direction = z = preconditioned(r)
    rho = inner(r, z)
    for _ in range(iterations):
        image = product(direction)
        alpha = rho / xp.maximum(inner(direction, image), least)  # eq:conjugate-gradients
        x = [a + alpha * d for a, d in zip(x, direction)]
        r = [a - alpha * i for a, i in zip(r, image)]
        z = preconditioned(r)
        before, rho = rho, inner(r, z)
        direction = [a + rho / xp.maximum(before, least) * d for a, d in zip(z, direction)]
    return x


def _covariance_times(posterior: MatrixNormal, right: Array, backend: Backend) -> Array:
    """P⁻¹ R Σ for every R of ``right`` (S, D, K): one solve for all of them.   (eq:conjugate-gradients)"""
    xp, (s, d, k) = backend.xp, right.shape
    side_by_side = xp.swapaxes(right @ posterior.column_covariance, 0, 1).reshape(d, s * k)
    return xp.swapaxes(backend.cho_solve(posterior.row_factor, side_by_side).reshape(d, s, k), 0, 1)


def joint_regression(
    product: Callable[[list[Array]], list[Array]],
    slopes: Sequence[Array],
    precisions: Sequence[float],
    damping: Any,
    signs: Sequence[Array],
    posteriors: Sequence[MatrixNormal],
    backend: Backend = NUMPY,
) -> tuple[list[Array], list[Any]]:
    """(the step V of every layer, their effective numbers of parameters γ_l, 0-d arrays).

    (H + diag τ + λ) V = −slopes, and γ_l = D_l K_l − τ_l zᵀ(H + diag τ)⁻¹z on layer l's part of random signs z.
    (eq:joint-step, eq:joint-parameters)

    ``product``: V ↦ H V; ``slopes``: derivatives of the penalised loss (D_l, K_l); ``precisions``: τ_l; ``damping``: λ;
    ``signs``: ±1 (D_l, K_l).
    """
    xp = backend.xp
    first = xp.asarray([1.0, 0.0], dtype=slopes[0].dtype)[:, None, None]  # λ is for the step alone

    def shifted(v: list[Array]) -> list[Array]:
        return [h + (tau + damping * first) * part for h, tau, part in zip(product(v), precisions, v)]

    right = [xp.stack([-slope, z]) for slope, z in zip(slopes, signs)]
    solved = conjugate_gradients(shifted, right, posteriors, PRODUCTS, backend)
    each = zip(solved, signs, precisions)
    gammas = [xp.maximum(z.size - tau * xp.sum(z * v[1]), FEWEST * z.size) for v, z, tau in each]  # eq:joint-parameters
    return [v[0] for v in solved], gammas


def first_damping(sums: Sequence[LayerStatistics], iteration: int, xp: Any) -> Any:
    """λ = 0.3^t · tr H/∑ D_l K_l, tr H by the layers' mean curvatures; a 0-d array.   (eq:joint-step)"""
    trace: Any = sum(xp.trace(s.gram) * (xp.trace(s.curvature) / s.count) for s in sums)
    return trace * (DAMPING**iteration / sum(s.cross.size for s in sums))
