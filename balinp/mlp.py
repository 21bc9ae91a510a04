"""The multi-layer perceptron: forward and backward passes, written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .activations import Activation, get_activation
from .backend import NUMPY, Array, Backend
from .errors import InvalidArgumentError


@dataclass(frozen=True)
class Activations:
    """What a forward pass leaves behind: ``inputs[l]`` is A_l (N, D_l), its last column ones; ``outputs[l]`` is
    H_l = A_l W_l (N, K_l). The network's output is ``outputs[-1]``.   (eq:forward)"""

    inputs: list[Array]
    outputs: list[Array]


@dataclass(frozen=True)
class MLP:
    """A fully connected network of ``len(widths) − 1`` layers; ``widths = (features, hidden …, outputs)``.

    Layer l has weights W_l (D_l, K_l) with D_l = widths[l] + 1: the last row is the bias. With two widths
    there is no hidden layer and the model is linear. Raises InvalidArgumentError for widths below 1 or an
    unknown activation.
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    backend: Backend = NUMPY

    def __post_init__(self) -> None:
        widths = tuple(int(w) for w in self.widths)
        if len(widths) < 2 or min(widths) < 1:
            raise InvalidArgumentError(f"widths must be two or more positive integers, got {self.widths!r}")
        object.__setattr__(self, "widths", widths)
        get_activation(self.activation)

    @cached_property
    def _activation(self) -> Activation:
        return get_activation(self.activation)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(D_l, K_l) of every layer's weights, the bias row included.   (eq:forward)"""
        return [(d + 1, k) for d, k in zip(self.widths, self.widths[1:])]

    def forward(self, weights: Sequence[Array], x: Array) -> Activations:
        """H_l = A_l W_l with A_1 = [x, 1] and A_{l+1} = [φ(H_l), 1].   (eq:forward, eq:cost)

        Shapes: x (N, widths[0]), weights[l] (D_l, K_l).
        """
        inputs: list[Array] = []
        outputs: list[Array] = []
        for layer, w in enumerate(weights):
            a = self._ones_beside(outputs[-1] if layer else x)
            if layer:
                self._activation.value(outputs[-1], self.backend, a[:, :-1])  # written where it is needed
            else:
                a[:, :-1] = x
            inputs.append(a)
            outputs.append(a @ w)  # eq:forward
        return Activations(inputs, outputs)

    def backward(self, weights: Sequence[Array], activations: Activations, output_gradient: Array) -> list[Array]:
        """G_l = ∂ℓ/∂H_l for every layer, from G_L: G_l = (G_{l+1} W̃ᵀ) ⊙ φ′(H_l), W̃ without its bias row.
        (eq:backward, eq:cost)

        Shapes: output_gradient (..., N, K_L), result[l] (..., N, K_l). Leading axes carry several gradients
        (a loss and a curvature probe, or unit rows for a Jacobian) through one pass.
        """
        gradients = [output_gradient]
        for w, h in zip(reversed(weights[1:]), reversed(activations.outputs[:-1])):
            after = gradients[-1]  # as one matrix: NumPy's @ does without BLAS where there is one output
            g = self.backend.xp.dot(after.reshape(-1, after.shape[-1]), w[:-1].T)  # eq:backward
            g = g.reshape(*after.shape[:-1], h.shape[-1])
            g *= self._activation.derivative(h, self.backend)
            gradients.append(g)
        return gradients[::-1]

    def pushforward(self, weights: Sequence[Array], activations: Activations, directions: Sequence[Array]) -> Array:
        """dH_L for weights that move along V: dH_1 = A_1 V_1, dH_l = A_l V_l + (φ′(H_{l−1}) ⊙ dH_{l−1}) W̃_l.
        (eq:pushforward)

        Shapes: directions[l] (..., D_l, K_l), result (..., N, K_L). Leading axes carry several directions.
        """
        change = activations.inputs[0] @ directions[0]
        for w, v, a, h in zip(weights[1:], directions[1:], activations.inputs[1:], activations.outputs):
            change *= self._activation.derivative(h, self.backend)
            change = change @ w[:-1] + a @ v  # eq:pushforward
        return change

    def jacobians(self, weights: Sequence[Array], activations: Activations) -> list[Array]:
        """J_l = ∂h_L/∂h_l for every layer and row, by one backward pass of unit rows.   (eq:jacobian)

        Shapes: result[l] (K_L, N, K_l).
        """
        xp, h = self.backend.xp, activations.outputs[-1]
        n, k = h.shape
        unit_rows = xp.broadcast_to(xp.eye(k, dtype=h.dtype)[:, None, :], (k, n, k))
        return self.backward(weights, activations, unit_rows)

    def initial_weights(self, generator: Any, dtype: Any = "float64", bias_scale: float = 1.0) -> list[Array]:
        """He-initialised weights, N(0, 2/fan-in), zero biases but for the first layer's N(0, bias_scale²).

        The first layer's biases place the kinks of the hidden units over the (standardised) inputs; without a
        hidden layer there are no kinks to place and all weights are zero. ``generator`` is a numpy Generator.
        (eq:initial-weights)
        """
        xp, weights = self.backend.xp, []
        for layer, (d, k) in enumerate(self.shapes):
            w = self.backend.standard_normal(generator, (d, k), dtype)
            w[:-1] *= (2 / (d - 1)) ** 0.5
            w[-1] *= bias_scale if layer == 0 else 0.0
            weights.append(w)
        return weights if len(weights) > 1 else [xp.zeros_like(weights[0])]

    def _ones_beside(self, a: Array) -> Array:
        """An array for the columns of ``a``, yet to be written, and a column of ones."""
        out = self.backend.xp.empty((a.shape[0], a.shape[1] + 1), dtype=a.dtype)
        out[:, -1] = 1
        return out
