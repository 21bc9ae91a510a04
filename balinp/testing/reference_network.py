"""A network and its losses in textbook NumPy, for complex numbers too: what a port's passes are compared with.

Nothing of the core is used. Everything is float64, and written so that complex steps go through it (relu apart).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import special

from .gradients import ANALYTIC, central_difference_jacobian, complex_step_jacobian

FUNCTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "relu": lambda h: np.where(h.real > 0, h, 0 * h),
    "tanh": np.tanh,
    "gelu": lambda h: h * (1 + special.erf(h / np.sqrt(2))) / 2,
    "identity": lambda h: h,
}


def with_ones(a: np.ndarray) -> np.ndarray:
    """[a, 1]: a column of ones on the right."""
    return np.concatenate([a, np.ones((len(a), 1))], axis=1)


@dataclass(frozen=True)
class ReferenceNetwork:
    """The forward pass, and derivatives by brute force; ``activation`` a key of FUNCTIONS."""

    activation: str = "tanh"

    def forward(self, weights: Sequence[Any], x: np.ndarray) -> Any:
        """inputs A_l and outputs H_l of every layer, as attributes.   (eq:forward)"""
        inputs: list[np.ndarray] = []
        outputs: list[np.ndarray] = []
        for w in weights:
            a = FUNCTIONS[self.activation](outputs[-1]) if outputs else np.asarray(x)
            inputs.append(with_ones(a))
            outputs.append(inputs[-1] @ w)
        return SimpleNamespace(inputs=inputs, outputs=outputs)

    def onwards(self, layer: int, weights: Sequence[Any], h: np.ndarray) -> np.ndarray:
        """The network's outputs (N, K_L) for outputs h (N, K_l) of layer ``layer``."""
        for w in weights[layer + 1 :]:
            h = with_ones(FUNCTIONS[self.activation](h)) @ w
        return h

    def differentiate(self, function: Callable[[np.ndarray], Any], at: np.ndarray) -> np.ndarray:
        """∂function/∂at by complex steps where the activation is analytic, else by central differences."""
        return (complex_step_jacobian if self.activation in ANALYTIC else central_difference_jacobian)(function, at)

    def gradients(self, weights: Sequence[Any], x: np.ndarray, loss: Callable[[np.ndarray], Any]) -> list[np.ndarray]:
        """G_l = ∂(∑ loss)/∂H_l of every layer, (N, K_l).   (eq:backward)"""
        outputs = self.forward(weights, x).outputs
        return [
            self.differentiate(lambda h, l=l: np.sum(loss(self.onwards(l, weights, h))), H)  # type: ignore[misc]
            for l, H in enumerate(outputs)
        ]

    def jacobians(self, weights: Sequence[Any], x: np.ndarray) -> list[np.ndarray]:
        """J_l = ∂h_L/∂h_l of every layer, (N, K_L, K_l).   (eq:jacobian)"""
        result = []
        for l, H in enumerate(self.forward(weights, x).outputs):
            rows = [self.differentiate(lambda h, l=l: self.onwards(l, weights, h)[0], h[None])[:, 0] for h in H]  # type: ignore[misc]
            result.append(np.stack(rows))
        return result


def gaussian_loss(h: np.ndarray, y: np.ndarray, variance: Any) -> np.ndarray:
    """−log N(y_n | h_n, diag(σ²)), (N,).   (eq:gaussian-loss)"""
    s2 = np.broadcast_to(np.asarray(variance, dtype=np.float64), h.shape)
    return np.sum((h - y) ** 2 / (2 * s2) + np.log(2 * np.pi * s2) / 2, axis=1)


def categorical_loss(h: np.ndarray, y: np.ndarray) -> np.ndarray:
    """−log softmax(h_n)[y_n], (N,), for class indices y.   (eq:categorical-loss)"""
    shifted = h - np.max(h.real, axis=1, keepdims=True)
    return np.log(np.sum(np.exp(shifted), axis=1)) - shifted[np.arange(len(h)), y]


def softmax(h: Any) -> np.ndarray:
    """exp h/∑ exp h along the last axis."""
    return special.softmax(np.asarray(h, dtype=np.float64), axis=-1)


class Signs:
    """Stands in for a Generator: every row that it "draws" is one pattern, so that averages over patterns are exact."""

    def __init__(self, pattern: Any) -> None:
        self.pattern = np.asarray(pattern, dtype=np.float64)

    def standard_normal(self, shape: Any = None, dtype: Any = "float64") -> np.ndarray:
        """``pattern`` in every row of ``shape`` (N, K)."""
        return np.broadcast_to(self.pattern, shape).astype(dtype)

    def row_signs(self) -> Callable[[int, int, int], np.ndarray]:
        """``pattern`` in every row."""
        return lambda start, rows, columns: self.standard_normal((rows, columns))


def sign_patterns(k: int) -> np.ndarray:
    """All 2^k rows of ±1, whose mean outer product is the identity: (2^k, k)."""
    return np.array(np.meshgrid(*[[-1.0, 1.0]] * k)).reshape(k, -1).T
