"""Laplace's approximation about the MAP network: the last layer, or all layers with Kronecker factors (KFAC).

The precision of vec W_l is B_l ⊗ AᵀA + τI, A the layer's inputs, B_l the mean over data of Jᵀ Λ J: J = ∂h_L/∂h_l, Λ the
Hessian of the loss in h_L, 1/σ² or diag(p) − ppᵀ (Ritter, Botev and Barber, 2018). It is inverted exactly through the
two eigendecompositions. For the last layer and a scalar Gaussian this is the exact Gauss-Newton matrix. Predictions are
those of the network linearised about the mean (Immer, Korzepa and Bauer, 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from balinp import MLP, Categorical
from balinp.predictive import probit_probabilities

from . import map as map_
from .common import Model, Prediction, Watch

GRID = tuple(
    {"laplace_precision": p, "noise_scale": f} for p in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0) for f in (0.5, 0.75, 1.0)
)
LAST_LAYER_GRID = tuple({**settings, "layers": "last"} for settings in GRID)


@dataclass(frozen=True)
class Factor:
    """AᵀA = U diag(λ) Uᵀ and B = V diag(μ) Vᵀ of one layer."""

    gram_values: np.ndarray
    gram_vectors: np.ndarray
    curvature_values: np.ndarray
    curvature_vectors: np.ndarray


@dataclass(frozen=True)
class Laplace(Model):
    """factors[l] is None for a layer that stays at its mean."""

    weights: list[np.ndarray]
    factors: list[Factor | None]
    precision: float

    def _layers(self, x: np.ndarray) -> tuple[np.ndarray, list[tuple[Factor, np.ndarray, np.ndarray, np.ndarray]]]:
        """Outputs (n, K); per random layer: factor, inputs A, Jacobians J (K, n, K_l), variances in the eigenbasis."""
        activations = self.mlp.forward(self.weights, x)
        jacobians = self.mlp.jacobians(self.weights, activations)
        layers = [
            (f, a, j, 1 / (np.outer(f.gram_values, f.curvature_values) + self.precision))
            for f, a, j in zip(self.factors, activations.inputs, jacobians)
            if f is not None
        ]
        return activations.outputs[-1], layers

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Of the linearised outputs, (n, K, K)."""
        h, layers = self._layers(x)
        result = np.zeros((len(h), h.shape[1], h.shape[1]))
        for f, a, j, variance in layers:
            scale = (a @ f.gram_vectors) ** 2 @ variance  # (n, K_l)
            root = np.moveaxis(j @ f.curvature_vectors, 0, 1)  # (n, K, K_l)
            result += (root * scale[:, None, :]) @ np.swapaxes(root, 1, 2)
        return result

    def draws(self, x: np.ndarray, n: int, generator: np.random.Generator) -> np.ndarray:
        """n functions sampled from the linearised network."""
        h, layers = self._layers(x)
        result = np.repeat(h[None], n, axis=0)
        for f, a, j, variance in layers:
            for s in range(n):
                z = np.sqrt(variance) * generator.standard_normal(variance.shape)
                change = a @ (f.gram_vectors @ z @ f.curvature_vectors.T)  # (n, K_l)
                result[s] += np.einsum("kni,ni->nk", j, change)
        return result

    def predict(self, x: np.ndarray, generator: np.random.Generator, n: int = 100) -> Prediction:
        """In closed form: one normal, or MacKay's probit formula."""
        h, covariance = self.mlp.forward(self.weights, x).outputs[-1], self.covariance(x)
        if self.task == "regression":
            variance = self.noise_variance + np.diagonal(covariance, axis1=1, axis2=2)
            return Prediction(self.task, h[None], variance)
        logits = np.log(np.maximum(probit_probabilities(h, covariance, Categorical()), 1e-300))
        return Prediction(self.task, logits[None], np.zeros(1))


def factors(mlp: MLP, weights: list[np.ndarray], x: np.ndarray, task: str, noise_variance: np.ndarray) -> list[Factor]:
    """The Kronecker factors of every layer at these weights, over the rows x (n, D)."""
    activations = mlp.forward(weights, x)
    h = activations.outputs[-1]
    if task == "regression":
        root = np.broadcast_to(np.diag(noise_variance**-0.5), (len(h), h.shape[1], h.shape[1]))
    else:  # diag(p) − ppᵀ = RᵀR with R = diag(√p) − √p pᵀ
        p = softmax(h, axis=1)
        root = np.sqrt(p)[:, :, None] * (np.eye(h.shape[1]) - p[:, None, :])
    rows = mlp.backward(weights, activations, np.moveaxis(root, 1, 0))  # R J, (K, n, K_l)
    result = []
    for a, r in zip(activations.inputs, rows):
        flat = r.reshape(-1, r.shape[-1])
        curvature_values, curvature_vectors = np.linalg.eigh(flat.T @ flat / len(x))
        gram_values, gram_vectors = np.linalg.eigh(a.T @ a)
        result.append(
            Factor(np.maximum(gram_values, 0), gram_vectors, np.maximum(curvature_values, 0), curvature_vectors)
        )
    return result


def fit(
    x: np.ndarray,
    y: np.ndarray,
    task: str,
    generator: np.random.Generator,
    *,
    layers: str = "all",
    laplace_precision: float = 1.0,
    noise_scale: float = 1.0,
    start: map_.MAP | None = None,
    watch: Watch | None = None,
    **settings: Any,
) -> Laplace:
    """``laplace_precision`` is τ; the noise is ``noise_scale`` that of the MAP network, whose residuals on the
    validation rows hold the epistemic part too; ``settings`` are those of map.fit."""
    start = start or map_.fit(x, y, task, generator, **settings)
    noise = start.noise_variance * noise_scale
    found: list[Factor | None] = list(factors(start.mlp, start.weights, x, task, noise))
    if layers == "last":
        found[:-1] = [None] * (len(found) - 1)
    model = Laplace(start.mlp, task, noise, start.weights, found, laplace_precision)
    if watch is not None:
        watch(1.0, model)
    return model
