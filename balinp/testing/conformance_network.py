"""Conformance of the network's passes and of the likelihoods, against textbook formulas and complex steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .conformance_layer import DTYPES, Measurement, norm, ratio
from .gradients import complex_step_jacobian
from .reference_network import (
    FUNCTIONS,
    ReferenceNetwork,
    categorical_loss,
    gaussian_loss,
    sign_patterns,
    softmax,
)

WIDTHS = ((3, 2), (2, 4, 1), (3, 3, 3, 3))  # equal widths are where a wrong transpose has the right shape
STATED = ("relu", "tanh", "gelu", "identity")
CENTRAL = 1e6  # "condition" of a central difference: its error is of order eps^⅔, not eps


def _instances(seed: int) -> Iterator[tuple[str, str, tuple[int, ...], list[np.ndarray], np.ndarray]]:
    """(activation, dtype, widths, weights, x); the hidden outputs stay away from relu's kink."""
    for i, activation in enumerate(FUNCTIONS):
        for widths in WIDTHS:
            generator = np.random.default_rng([seed, i, len(widths)])
            weights = [generator.standard_normal((d + 1, k)) for d, k in zip(widths, widths[1:])]
            x = generator.standard_normal((5, widths[0]))
            hidden = ReferenceNetwork(activation).forward(weights, x).outputs[:-1]
            keep = np.all([np.min(np.abs(h), axis=1) > 1e-3 for h in hidden], axis=0) if hidden else slice(None)
            for dtype in DTYPES:
                yield activation, dtype, widths, [w.astype(dtype) for w in weights], x[keep].astype(dtype)


def forward(core: Any, seed: int) -> Iterator[Measurement]:
    """A_l and H_l of every layer."""
    for activation, dtype, widths, weights, x in _instances(seed):
        got = core.MLP(widths, activation).forward(weights, x)
        expected = ReferenceNetwork(activation).forward([w.astype(float) for w in weights], x.astype(float))
        growth = float(np.prod([norm(w) for w in weights]))
        for l, parts in enumerate(zip(got.inputs, expected.inputs, got.outputs, expected.outputs)):
            a, A, h, H = parts
            what = f"layer {l} of {widths}, {activation}, {dtype}"
            yield "eq:forward", f"A, {what}", ratio(a, A, dtype, growth)
            yield "eq:forward", f"H, {what}", ratio(h, H, dtype, growth)


def backward(core: Any, seed: int) -> Iterator[Measurement]:
    """G_l of every layer, from the port's own forward pass."""
    for activation, dtype, widths, weights, x in _instances(seed):
        mlp, network = core.MLP(widths, activation), ReferenceNetwork(activation)
        passes = mlp.forward(weights, x)
        h = np.asarray(passes.outputs[-1])
        y = np.random.default_rng(seed).standard_normal(h.shape)
        gradients = mlp.backward(weights, passes, h - y.astype(dtype))
        wide = [w.astype(float) for w in weights]
        expected = network.gradients(wide, x.astype(float), lambda h, y=y: gaussian_loss(h, y, 1.0))  # type: ignore[misc]
        condition = _condition(weights, activation, dtype)
        for l, (g, G) in enumerate(zip(gradients, expected)):
            what = f"layer {l} of {widths}, {activation}, {dtype}"
            yield "eq:backward", what, ratio(g, G, dtype, norm(h), condition)


def jacobian(core: Any, seed: int) -> Iterator[Measurement]:
    """J_l of every layer, from the port's own forward pass."""
    for activation, dtype, widths, weights, x in _instances(seed):
        mlp, network = core.MLP(widths, activation), ReferenceNetwork(activation)
        jacobians = mlp.jacobians(weights, mlp.forward(weights, x))
        dense = network.jacobians([w.astype(float) for w in weights], x.astype(float))
        condition = _condition(weights, activation, dtype)
        for l, (j, J) in enumerate(zip(jacobians, dense)):
            what = f"layer {l} of {widths}, {activation}, {dtype}"
            yield "eq:jacobian", what, ratio(np.moveaxis(np.asarray(j), 0, 1), J, dtype, 1.0, condition)


def _condition(weights: list[np.ndarray], activation: str, dtype: str) -> float:
    """How much larger than eps the error of a back-propagated gradient, or of its central difference, may be."""
    growth = 10.0 * float(np.prod([norm(w) for w in weights[1:]]))
    return growth * (CENTRAL if activation == "relu" and dtype == "float64" else 1.0)


def activations(core: Any, seed: int) -> Iterator[Measurement]:
    """φ and φ′ as MLP uses them: a network of one unit with weight one and bias zero, whose Jacobian is φ′."""
    unit = [np.array([[1.0], [0.0]])] * 2
    h = np.concatenate([np.linspace(-4, 4, 41) + 0.01, [-30.0, 30.0]])[:, None]
    for activation in STATED:
        function = FUNCTIONS[activation]
        mlp, condition = core.MLP((1, 1, 1), activation), CENTRAL if activation == "relu" else 10.0
        passes = mlp.forward(unit, h)
        yield f"eq:{activation}", "φ", ratio(passes.inputs[1][:, :1], function(h), "float64", norm(h))
        network = ReferenceNetwork(activation)
        expected = np.array([network.differentiate(function, v)[0, 0] for v in h])
        derivative = np.asarray(mlp.jacobians(unit, passes)[0])[0, :, 0]
        yield f"eq:{activation}", "φ′", ratio(derivative, expected, "float64", 1.0, condition)


def _outputs(seed: int) -> Iterator[tuple[np.random.Generator, np.ndarray, str]]:
    """Outputs h (6, 3) of ordinary size, of one row of zeros (where softmax is most curved), and saturated."""
    for scale in (1.0, 0.0, 8.0):
        generator = np.random.default_rng([seed, int(scale)])
        yield generator, scale * generator.standard_normal((6, 3)), f"outputs of size {scale:g}"


def gaussian(core: Any, seed: int) -> Iterator[Measurement]:
    """Loss, gradient, curvature and probe for one variance and for one per output; the noise update."""
    for generator, h, size in _outputs(seed):
        y = generator.standard_normal(h.shape)
        for variance in (0.3, np.array([0.2, 1.0, 3.0])):
            likelihood, what = core.Gaussian(variance), f"{size}, σ² {np.shape(variance)}"
            loss = gaussian_loss(h, y, variance)
            yield "eq:gaussian-loss", what, ratio(likelihood.loss(h, y), loss, "float64", 10.0)
            gradient = complex_step_jacobian(lambda z, y=y, v=variance: np.sum(gaussian_loss(z, y, v)), h)  # type: ignore[misc]
            yield "eq:gaussian-gradient", what, ratio(likelihood.gradient(h, y), gradient, "float64", 10.0)
            precision = np.broadcast_to(np.diag(1 / np.broadcast_to(variance, 3)), (len(h), 3, 3))
            yield "eq:gaussian-curvature", what, ratio(likelihood.curvature(h), precision, "float64")
            probes = [likelihood.probe(h, np.broadcast_to(z, h.shape)) for z in sign_patterns(3)]
            mean = np.mean([np.einsum("ni,nj->nij", z, z) for z in probes], axis=0)
            yield "eq:gaussian-probe", what, ratio(mean, precision, "float64")
            for floor in (1e-4, 0.5):
                residual = np.asarray(variance) * 2
                moved = likelihood.moved_towards(residual, 0.3, floor).noise_variance
                expected = np.maximum(0.7 * np.asarray(variance) + 0.3 * residual, floor)
                yield "eq:noise-update", f"{what}, floor {floor}", ratio(moved, expected, "float64")


def categorical(core: Any, seed: int) -> Iterator[Measurement]:
    """Loss and gradient for class indices and one-hot rows; Böhning's bound, its probe, and that it is a bound."""
    likelihood = core.Categorical()
    for generator, h, what in _outputs(seed):
        labels = generator.integers(0, 3, len(h))
        for y in (labels, np.eye(3)[labels]):
            loss = categorical_loss(h, labels)
            yield "eq:categorical-loss", what, ratio(likelihood.loss(h, y), loss, "float64", 1 + norm(h))
            gradient = complex_step_jacobian(lambda z, y=labels: np.sum(categorical_loss(z, y)), h)  # type: ignore[misc]
            yield "eq:categorical-gradient", what, ratio(likelihood.gradient(h, y), gradient, "float64", 1.0)
        bound = np.asarray(likelihood.curvature(h))
        half = np.broadcast_to((np.eye(3) - 1 / 3) / 2, bound.shape)
        yield "eq:bohning-bound", what, ratio(bound, half, "float64")
        p, hessian = softmax(h), softmax_hessian(h)
        below = -min(float(np.min(np.linalg.eigvalsh(bound - hessian))), 0.0)
        yield "eq:bohning-bound", f"curvature above it, {what}", below / np.finfo(np.float64).eps
        probabilities = ratio(likelihood.probabilities(h), p, "float64", 1.0, 10.0)
        yield "eq:categorical-gradient", f"softmax, {what}", probabilities
        probes = [likelihood.probe(h, np.broadcast_to(z, h.shape)) for z in sign_patterns(3)]
        mean = np.mean([np.einsum("ni,nj->nij", z, z) for z in probes], axis=0)
        yield "eq:bohning-probe", what, ratio(mean, half, "float64")


def softmax_hessian(h: np.ndarray) -> np.ndarray:
    """diag(p) − pᵀp row by row, (N, K, K)."""
    p = softmax(h)
    return p[:, :, None] * np.eye(h.shape[1]) - p[:, :, None] * p[:, None, :]


def own_curvature(core: Any, seed: int) -> Iterator[Measurement]:
    """The curvature at each row's own outputs, of classes and of a Gaussian."""
    variance = np.array([0.2, 1.0, 3.0])
    for _, h, what in _outputs(seed):
        found = core.Categorical().row_curvature(h)
        yield "eq:row-curvature", f"classes, {what}", ratio(found, softmax_hessian(h), "float64", 1 + norm(h))
        precision = np.broadcast_to(np.diag(1 / variance), (len(h), 3, 3))
        yield (
            "eq:row-curvature",
            f"Gaussian, {what}",
            ratio(core.Gaussian(variance).row_curvature(h), precision, "float64"),
        )


CHECKS = (
    (forward, ("MLP",), {"eq:forward": "H_l = A_l W_l, A_{l+1} = [φ(H_l), 1]"}),
    (backward, ("MLP",), {"eq:backward": "G_l = (G_{l+1} W̃ᵀ) ⊙ φ′(H_l) is ∂loss/∂H_l"}),
    (jacobian, ("MLP",), {"eq:jacobian": "J_l = ∂h_L/∂h_l"}),
    (activations, ("MLP",), {f"eq:{name}": f"φ and φ′ of {name}" for name in STATED}),
    (
        gaussian,
        ("Gaussian",),
        {
            "eq:gaussian-loss": "ℓ = −log N(y | h, diag(σ²))",
            "eq:gaussian-gradient": "∂ℓ/∂h = (h − y)/σ²",
            "eq:gaussian-curvature": "∂²ℓ/∂h² = diag(1/σ²)",
            "eq:gaussian-probe": "E[zᵀz] = diag(1/σ²)",
            "eq:noise-update": "σ² ← max((1 − β)σ² + β·residual/N, floor)",
        },
    ),
    (
        categorical,
        ("Categorical",),
        {
            "eq:categorical-loss": "ℓ = logsumexp(h) − h·y",
            "eq:categorical-gradient": "∂ℓ/∂h = softmax(h) − y",
            "eq:bohning-bound": "B = ½(I − 11ᵀ/K), above the curvature everywhere",
            "eq:bohning-probe": "E[zᵀz] = ½(I − 11ᵀ/K)",
        },
    ),
    (
        own_curvature,
        ("Gaussian", "Categorical"),
        {"eq:row-curvature": "∂²ℓ_n/∂h_n² at the row's own outputs: diag(1/σ²), or diag(p) − pᵀp"},
    ),
)
