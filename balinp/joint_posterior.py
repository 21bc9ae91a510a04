"""The joint posterior of all layers' weights, for predictions: how sure a network is whose layers may move together.

A layer's own posterior takes the other layers to stand still, and the rows to share one curvature; what the layers can
only do together it does not know of, and where there are no rows, between others or beyond them, that is most of what
the weights are free to do. For a network of a few thousand weights the joint one is at hand: one matrix of second
derivatives, taken apart once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .backend import Array, Backend
from .blocks import reduce_blocks
from .likelihoods import Gaussian, Likelihood
from .mlp import MLP, Activations
from .passes import brought, rows_of_block
from .settings import Settings
from .state import BALIState

MOST_WEIGHTS = 2_000  # of a network with one output: their eigenvectors are a matter of seconds
WIDE = "float64"  # eigenvalues span the square of what the activations span, too much for float32


def affordable(mlp: MLP) -> bool:
    """Whether a fit should make the joint posterior: p √K_L is at most MOST_WEIGHTS, as H takes N p² K_L operations.
    (eq:joint-posterior)"""
    return sum(d * k for d, k in mlp.shapes) * mlp.widths[-1] ** 0.5 <= MOST_WEIGHTS


def weight_jacobian(mlp: MLP, weights: Sequence[Array], activations: Activations) -> Array:
    """∂h_L/∂(vec W_1, vec W_2, …) of the n rows of a forward pass: (n, K_L, p), p = ∑ D_l K_l.
    (eq:joint-posterior)"""
    xp, parts = mlp.backend.xp, []
    for a, J in zip(activations.inputs, mlp.jacobians(weights, activations)):  # eq:jacobian
        each = J[:, :, :, None] * a[None, :, None, :]  # (K_L, n, K_l, D_l): vec stacks columns
        parts.append(each.reshape(*each.shape[:2], each.shape[2] * each.shape[3]))
    return xp.moveaxis(xp.concatenate(parts, axis=2), 0, 1)


def joint_precision(
    mlp: MLP,
    likelihood: Likelihood,
    weights: Sequence[Array],
    x: Array,
    settings: Settings = Settings(),
    sample_weight: Array | None = None,
) -> Array:
    """H = ∑ w_n J_nᵀ B_n J_n, the Gauss–Newton precision of all p weights: (p, p), float64.   (eq:joint-posterior)

    Shapes: weights[l] (D_l, K_l), x (N, D), sample_weight (N,). One pass over the data, in the memory of H and a block.
    """
    numbers = 3 * mlp.widths[-1] * sum(d * k for d, k in mlp.shapes)
    rows = rows_of_block(settings, mlp.backend, 8 * numbers)
    precision: Array = reduce_blocks(partial(_block_precision, mlp, likelihood, weights), rows, x, sample_weight)
    return precision


# eq:joint-posterior
def _block_precision(mlp: MLP, likelihood: Likelihood, weights: Sequence[Array], start: int, x: Array, w: Any) -> Array:
    x, w = brought((x, w), mlp)
    wide = [m.astype(WIDE) for m in weights]
    activations = mlp.forward(wide, x.astype(WIDE))
    J, B = weight_jacobian(mlp, wide, activations), likelihood.curvature(activations.outputs[-1])
    if w is not None:
        B = w[:, None, None] * B
    p = J.shape[2]
    curved: Array = J.reshape(-1, p).T @ (B @ J).reshape(-1, p)  # eq:joint-posterior
    return curved


@dataclass(frozen=True)
class JointPosterior:
    """N(M, C(h)) of all weights, C(h) = (H/h + diag τ)⁻¹ for the heat h of the likelihood.   (eq:joint-posterior)

    ``eigenvalues`` λ (p,) and ``directions`` V (p, p), in columns: VᵀHV = diag λ and Vᵀ diag(τ) V = I, so that
    C(h) = V diag(h/(h + λ)) Vᵀ; float64. ``precisions`` τ (p,), ``shapes`` (D_l, K_l) of the layers.
    """

    eigenvalues: Array
    directions: Array
    precisions: Array
    shapes: Sequence[tuple[int, int]]
    backend: Backend

    @classmethod
    def of(cls, precision: Array, precisions: Sequence[float], shapes: Any, backend: Backend) -> JointPosterior:
        """From H (p, p) and the layers' prior precisions τ_l.   (eq:joint-posterior)"""
        xp = backend.xp
        tau = xp.concatenate([xp.full(d * k, each, dtype=WIDE) for each, (d, k) in zip(precisions, shapes)])
        root = tau**-0.5
        values, vectors = backend.eigh(root[:, None] * precision * root)
        return cls(xp.maximum(values, 0), root[:, None] * vectors, tau, tuple(shapes), backend)

    def shares(self, jacobian: Array) -> Array:
        """(J V)²: what each direction's variance adds to those of outputs; jacobian (n, K, p), result (n, K, p).

        The variances at heat h are shares @ (h/(h + λ)), (n, K).   (eq:joint-posterior)
        """
        squares: Array = (jacobian @ self.directions) ** 2
        return squares

    def deviations(self, normals: Array, heat: float = 1.0) -> list[Array]:
        """Draws of W − M from standard ``normals`` (S, p): an array (S, D_l, K_l) per layer.   (eq:joint-posterior)

        By the symmetric root in coordinates where the prior is the unit: the same to rounding for any eigenvectors.
        """
        xp, start, found = self.backend.xp, 0, []
        along = (normals * self.precisions**0.5) @ self.directions  # Qᵀz
        flat = (along * (heat / (heat + self.eigenvalues)) ** 0.5) @ self.directions.T
        for d, k in self.shapes:
            found.append(xp.swapaxes(flat[:, start : start + d * k].reshape(-1, k, d), 1, 2))
            start += d * k
        return found


def joint_posterior(
    state: BALIState, noise: Gaussian, x: Array, settings: Settings = Settings(), sample_weight: Array | None = None
) -> JointPosterior:
    """The joint posterior of a regression about its means, of the data with that ``noise``; x (N, D), sample_weight
    (N,).   (eq:joint-posterior)"""
    precision = joint_precision(state.mlp, noise, state.means, x, settings, sample_weight)
    precisions = [layer.prior_precision for layer in state.layers]
    return JointPosterior.of(precision, precisions, state.mlp.shapes, state.mlp.backend)


def with_joint_draws(
    state: BALIState,
    noise: Gaussian,
    x: Array,
    generator: Any,
    draws: int,
    settings: Settings = Settings(),
    sample_weight: Array | None = None,
) -> BALIState:
    """``state``, to predict by so many draws of its joint posterior (``predict_joint``); ``generator`` is a numpy
    Generator. The rest as in joint_posterior.   (eq:joint-posterior, eq:joint-predictive)"""
    posterior = joint_posterior(state, noise, x, settings, sample_weight)
    normals = state.mlp.backend.standard_normal(generator, (draws, len(posterior.eigenvalues)), WIDE)
    dtype = state.means[0].dtype
    return replace(state, deviations=tuple(part.astype(dtype) for part in posterior.deviations(normals)))
