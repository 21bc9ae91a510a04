"""Conformance of the variants of an iteration: in blocks of rows, in a trust region, with the residual covariance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .conformance_iteration import LITERAL, NETWORK, VARIANCE, dense_iteration, mean_weights, problem
from .conformance_layer import Measurement, norm, ratio
from .reference_network import ReferenceNetwork, gaussian_loss


def blocks(core: Any, seed: int) -> Iterator[Measurement]:
    """The same draws in blocks of any size give the same iteration, whatever the step."""
    for step in ("gradient", "natural"):
        kind = {**LITERAL, "step": step, "damping": 0.1}
        state, x, y, settings = problem(core, seed, kind, (2, 3, 2))
        whole = core.bali_step(state, x, y, np.random.default_rng(1), settings)
        for rows in (1, 5, len(x) - 1):
            blocked = core.Settings(**{**kind, "block_rows": rows})
            other = core.bali_step(state, x, y, np.random.default_rng(1), blocked)
            for l, (a, b) in enumerate(zip(other.layers, whole.layers, strict=True)):
                condition = 100.0 * float(np.linalg.cond(b.posterior.row_precision))
                what = f"layer {l} in blocks of {rows}, {step} step"
                got = ratio(a.posterior.mean, b.posterior.mean, "float64", 1.0, condition)
                yield "eq:block-sum", f"mean of {what}", got
                gram = ratio(a.statistics.gram, b.statistics.gram, "float64")
                yield "eq:block-sum", f"AᵀA of {what}", gram


def residual_covariance(core: Any, seed: int) -> Iterator[Measurement]:
    """Σ is the mean outer product of T − A M⁺ over the rows of this iteration, with T = A M − G S."""
    for damping in (0.0, 0.5):
        kind = {**LITERAL, "noise": "residual", "damping": damping, "prior_precision": 5.0}
        state, x, y, settings = problem(core, seed, kind)
        after = core.bali_step(state, x, y, np.random.default_rng(1), settings)
        plain = {**kind, "damping": 0.0}  # with the gradient step, damping is of Σ only
        for l, dense in enumerate(dense_iteration(state, x, y, plain, float(len(x)), mean_weights(state))):
            A, T = dense.regression[:2]
            left = T - A @ dense.delta
            sigma = left.T @ left / len(x)
            sigma += damping * np.trace(sigma) / len(sigma) * np.eye(len(sigma))
            q, what = after.layers[l].posterior, f"layer {l}, damping {damping}"
            scale = (norm(T) + norm(A) * norm(dense.delta)) ** 2
            condition = float(np.linalg.cond(dense.P))
            yield "eq:residual-covariance", what, ratio(q.column_covariance, sigma, "float64", scale, condition)


def trust_region(core: Any, seed: int) -> Iterator[Measurement]:
    """The step is the largest 0.3^j of the full one that lowers ∑ℓ + ½ ∑ tr(S⁻¹MᵀΛ₀M), or raises it by no more than is
    allowed a target, and 1.5 times it is next."""
    for size, allowed in ((0.01, 0.0), (1.0, 0.0), (100.0, 0.0), (1.0, 5.0), (1.0, 50.0)):
        kind = {**LITERAL, "step_size": size, "trust_region": True, "allowed_rise": allowed}
        state, x, y, settings = problem(core, seed, kind)
        after = core.bali_step(state, x, y, np.random.default_rng(1), settings)
        layers = dense_iteration(state, x, y, kind, float(len(x)), mean_weights(state))

        def objective(scale: float, layers: Any = layers, x: Any = x, y: Any = y) -> float:
            weights = [dense.M + scale * dense.delta for dense in layers]
            loss = np.sum(gaussian_loss(ReferenceNetwork("tanh").forward(weights, x).outputs[-1], y, VARIANCE))
            return float(loss) + sum(
                dense.tau * np.trace(W.T @ W @ dense.Q) / 2 for dense, W in zip(layers, weights, strict=True)
            )

        limit = objective(0.0) + allowed * y.size
        scale = next(s for s in (*0.3 ** np.arange(12), 0.0) if objective(s) <= limit)
        what = f"α = {size}, {allowed} nats allowed, scale {scale:.2g}"
        for l, (layer, dense) in enumerate(zip(after.layers, layers, strict=True)):
            condition = 10.0 * float(np.linalg.cond(dense.precision))
            expected = dense.M + scale * dense.delta
            got = ratio(layer.posterior.mean, expected, "float64", norm(dense.M) + norm(dense.delta), condition)
            yield "eq:trust-region", f"mean of layer {l}, {what}", got
        expected_next = min(1.5 * scale, 1.0) if scale else 0.3**12
        yield "eq:trust-region", f"next scale, {what}", ratio(after.step_scale, expected_next, "float64")


CHECKS = (
    (blocks, NETWORK, {"eq:block-sum": "statistics of all rows = the sum of the blocks'"}),
    (residual_covariance, NETWORK, {"eq:residual-covariance": "Σ = (T − AM)ᵀ(T − AM)/N"}),
    (trust_region, NETWORK, {"eq:trust-region": "the step is cut until the penalised loss falls"}),
)
