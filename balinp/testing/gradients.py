"""Derivatives by brute force, and what follows from them: the oracles for everything that is back-propagated.

Nothing here uses the hand-written backward pass or a Kronecker identity. A port tests its own passes against these:
complex steps where the function is analytic (exact to rounding), central differences where it has kinks. Dense and
slow on purpose: for networks of a few hundred weights at most. Weights are always ordered by columns, layer after
layer: vec(W_1), vec(W_2), ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..likelihoods import Likelihood
from ..mlp import MLP
from ..state import BALIState

ANALYTIC = ("tanh", "gelu", "identity")  # activations that a complex step goes through

Function = Callable[[np.ndarray], Any]


def complex_step_jacobian(function: Function, at: np.ndarray, step: float = 1e-30) -> np.ndarray:
    """∂function/∂at by Im f(x + ih)/h: no difference is taken, so it is exact to rounding.

    ``function`` maps a complex array of the shape of ``at`` to an array of any shape and must be analytic, written
    without abs, max, conjugate or casts to real; the result has shape (*function's, *at's). float64.
    """
    return _by_element(lambda point, i: _complex_part(function, point, i, step), np.asarray(at, dtype=np.complex128))


def central_difference_jacobian(function: Function, at: np.ndarray, step: float | None = None) -> np.ndarray:
    """∂function/∂at by (f(x + h) − f(x − h))/2h, h = ε^⅓ max(1, |x|) unless given; the shape as above.

    Its error is of order ε^⅔ in general; of a function that is quadratic between x ± h, only rounding, ε^⅔ again.
    Meaningless where the function has a kink within the step. float64.
    """
    return _by_element(lambda point, i: _central_part(function, point, i, step), np.array(at, dtype=np.float64))


def weight_jacobians(mlp: MLP, weights: Sequence[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """∂h_L/∂vec(W_l) of every layer, by brute force through ``mlp.forward``: (N, K_L, D_l K_l) each.

    By complex steps for an analytic activation, otherwise by central differences. Columns follow vec, which stacks
    the columns of W_l.
    """
    differentiate = complex_step_jacobian if mlp.activation in ANALYTIC else central_difference_jacobian

    def jacobian(layer: int) -> np.ndarray:
        def outputs(w: np.ndarray) -> np.ndarray:
            return np.asarray(mlp.forward([*weights[:layer], w, *weights[layer + 1 :]], x).outputs[-1])

        J = differentiate(outputs, weights[layer])  # (N, K_L, D_l, K_l)
        return np.swapaxes(J, 2, 3).reshape(*J.shape[:2], -1)

    return [jacobian(l) for l in range(len(weights))]


def assert_backward(
    mlp: MLP, likelihood: Likelihood, weights: Sequence[np.ndarray], x: np.ndarray, y: np.ndarray
) -> None:
    """Fail unless A_lᵀ G_l, from ``mlp.backward``, is ∂∑ℓ_n/∂W_l by brute force, in every layer.   (eq:backward)

    Relative to the largest entry within 1e-12 for an analytic activation, within 1e-7 for another (keep its kinks
    farther than 1e-5 from every hidden output). Anything with the methods of MLP can be checked. Raises AssertionError.
    """
    analytic = mlp.activation in ANALYTIC
    differentiate, tolerance = (complex_step_jacobian, 1e-12) if analytic else (central_difference_jacobian, 1e-7)
    activations = mlp.forward(weights, x)
    gradients = mlp.backward(weights, activations, likelihood.gradient(activations.outputs[-1], y))
    for l, (a, g) in enumerate(zip(activations.inputs, gradients)):

        def loss(w: np.ndarray, l: int = l) -> Any:
            h = mlp.forward([*weights[:l], w, *weights[l + 1 :]], x).outputs[-1]
            return np.sum(likelihood.loss(h, y))

        expected = differentiate(loss, weights[l])
        error, scale = np.max(np.abs(a.T @ g - expected)), np.max(np.abs(expected))
        if not error <= tolerance * scale:
            raise AssertionError(
                f"eq:backward is broken: gradient of layer {l}, {mlp.activation}: off by {error:.3g}, "
                f"must be within {tolerance:g} of its largest entry {scale:.3g}"
            )


def dense_ggn(
    mlp: MLP, likelihood: Likelihood, weights: Sequence[np.ndarray], x: np.ndarray, own: bool = False
) -> np.ndarray:
    """∑_n J_nᵀ B_n J_n over all weights, J_n = ∂h_L,n/∂(vec W_1, vec W_2, …), B_n the likelihood's curvature bound, or
    each row's ``own`` curvature: (p, p) for p weights in all."""
    J = np.concatenate(weight_jacobians(mlp, weights, x), axis=2)
    h = mlp.forward(weights, x).outputs[-1]
    B = np.asarray(likelihood.row_curvature(h) if own else likelihood.curvature(h))
    return np.einsum("nai,nab,nbj->ij", J, B, J)


def dense_linearized_predictive(state: BALIState, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (N, K_L) and epistemic covariance by layer (L, N, K_L, K_L) of the network linearised in its weights.

    J_l (Σ_l ⊗ P_l⁻¹) J_lᵀ with explicit Jacobians, inverses and Kronecker products.   (eq:linearized-predictive)
    """
    parts = []
    for J, posterior in zip(weight_jacobians(state.mlp, state.means, x), state.posteriors):
        covariance = np.kron(posterior.column_covariance, np.linalg.inv(posterior.row_precision))
        parts.append(J @ covariance @ np.swapaxes(J, 1, 2))
    return np.asarray(state.mlp.forward(state.means, x).outputs[-1]), np.stack(parts)


def _by_element(part: Callable[[np.ndarray, int], np.ndarray], point: np.ndarray) -> np.ndarray:
    """The parts for every element of ``point``, as trailing axes in its shape."""
    parts = [part(point, i) for i in range(point.size)]
    return np.stack(parts, axis=-1).reshape(*parts[0].shape, *point.shape)


def _moved(point: np.ndarray, i: int, by: complex) -> np.ndarray:
    moved = point.copy()
    moved.flat[i] += by
    return moved


def _complex_part(function: Function, point: np.ndarray, i: int, step: float) -> np.ndarray:
    return np.asarray(function(_moved(point, i, 1j * step))).imag / step


def _central_part(function: Function, point: np.ndarray, i: int, step: float | None) -> np.ndarray:
    h = step or np.finfo(np.float64).eps ** (1 / 3) * max(1.0, abs(float(point.flat[i])))
    above, below = _moved(point, i, h), _moved(point, i, -h)
    width = float((above.flat[i] - below.flat[i]).real)  # what was really moved, after rounding
    return (np.asarray(function(above)) - np.asarray(function(below))) / width
