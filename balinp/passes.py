"""One pass over the data: the forward and backward passes of blocks of rows, summed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .backend import Array
from .errors import InvalidArgumentError
from .likelihoods import Categorical, Gaussian, Likelihood
from .mlp import MLP
from .settings import Settings
from .statistics import LayerStatistics


def blocks(rows: int, block_rows: int) -> Iterator[slice]:
    """Consecutive slices of at most ``block_rows`` rows.   (eq:block-sum)"""
    return (slice(start, min(start + block_rows, rows)) for start in range(0, rows, block_rows))


@dataclass(frozen=True)
class PassSums:
    """Sums over the data of one pass: per layer the statistics of (A_l, G_l) with probes, the loss in nats (a 0-d
    array, lest the host wait for it), the squared residual."""

    layers: list[LayerStatistics]
    loss: Any
    squared_residual: Any

    def __add__(self, other: PassSums) -> PassSums:
        layers = [a + b for a, b in zip(self.layers, other.layers)]
        return PassSums(layers, self.loss + other.loss, self.squared_residual + other.squared_residual)


def block_sums(
    mlp: MLP,
    likelihood: Likelihood,
    weights: Sequence[Array],
    x: Array,
    y: Array,
    probe_noise: Array | None = None,
    sample_weight: Array | None = None,
    total_weight: float | None = None,
) -> PassSums:
    """Forward and backward pass of one block, summed: gradients G_l as the targets of each layer's statistics.

    ``probe_noise`` (N, K_L), entries ±1 or standard normal, estimates the hidden layers' curvature
    (eq:curvature-probe); None: not wanted. The output layer's curvature is the likelihood's bound itself. Shapes: x
    (N, D), y (N, K_L) or labels (N,); ``total_weight`` is ∑ w_n if the caller has it already.
    (eq:block-sum, eq:cost)
    """
    xp, activations = mlp.backend.xp, mlp.forward(weights, x)
    h = activations.outputs[-1]
    if isinstance(likelihood, Categorical):
        y = likelihood.one_hot(h, y)  # once for gradient and loss
    gradient = likelihood.gradient(h, y)
    if probe_noise is None:
        gradients, probes = mlp.backward(weights, activations, gradient), [None] * len(weights)
    else:  # one backward pass carries both
        both = mlp.backward(weights, activations, xp.stack([gradient, likelihood.probe(h, probe_noise)]))
        gradients, probes = [g[0] for g in both], [g[1] for g in both]
    probes[-1] = None
    layers = [
        LayerStatistics.from_batch(a, g, sample_weight, z, mlp.backend, total_weight)
        for a, g, z in zip(activations.inputs, gradients, probes)
    ]
    w = xp.ones(len(h), dtype=h.dtype) if sample_weight is None else sample_weight
    omega = likelihood.row_weights(h, y)
    if omega is not None:  # eq:heteroscedastic-rows
        omega = (omega * w)[:, None]
        layers = [replace(layer, gram=(a * omega).T @ a) for layer, a in zip(layers, activations.inputs)]
    layers[-1] = replace(
        layers[-1], curvature=xp.einsum("n,nij->ij", w, likelihood.curvature(h))
    )  # eq:output-curvature
    residual = likelihood.squared_residual(h, y, w) if isinstance(likelihood, Gaussian) else 0.0
    return PassSums(layers, (w @ likelihood.loss(h, y)).astype("float64"), residual)


def data_sums(
    mlp: MLP,
    likelihood: Likelihood,
    weights: Sequence[Array],
    x: Array,
    y: Array,
    generator: Any,
    settings: Settings,
    sample_weight: Array | None,
) -> PassSums:
    """``block_sums`` of all rows, block after block: memory is that of ``settings.block_rows`` rows.   (eq:block-sum)

    Probe noise is drawn from ``generator`` (±1, the signs of normals) in row order, so the blocks change no draw.
    (eq:curvature-probe)
    """
    total: PassSums | None = None
    counts: Iterator[float] = iter(())
    if sample_weight is not None:  # one wait for all blocks and layers
        sums_of = [mlp.backend.xp.sum(sample_weight[rows]) for rows in blocks(len(x), settings.block_rows)]
        counts = iter(mlp.backend.floats(*sums_of))
    for rows in blocks(len(x), settings.block_rows):
        noise = None
        if settings.step != "gradient" and len(weights) > 1:
            shape = (rows.stop - rows.start, mlp.widths[-1])
            noise = mlp.backend.xp.sign(mlp.backend.standard_normal(generator, shape, x.dtype))
        weight, count = (None, None) if sample_weight is None else (sample_weight[rows], next(counts))
        sums = block_sums(mlp, likelihood, weights, x[rows], y[rows], noise, weight, count)
        total = sums if total is None else total + sums
    if total is None:
        raise InvalidArgumentError("x must have at least one row, got none")
    return total


def data_loss(
    mlp: MLP,
    likelihood: Likelihood,
    weights: Sequence[Array],
    x: Array,
    y: Array,
    settings: Settings,
    sample_weight: Array | None,
) -> Any:
    """∑ w_n ℓ_n over all rows, in nats; a 0-d array.   (eq:iteration)"""
    total: Any = 0.0
    for rows in blocks(len(x), settings.block_rows):
        loss = likelihood.loss(mlp.forward(weights, x[rows]).outputs[-1], y[rows])
        block = mlp.backend.xp.sum(loss) if sample_weight is None else sample_weight[rows] @ loss
        total = total + block.astype("float64")
    return total


def data_spread(
    mlp: MLP,
    likelihood: Likelihood,
    weights: Sequence[Array],
    means: Sequence[Array],
    x: Array,
    settings: Settings,
    sample_weight: Array | None,
) -> Any:
    """∑ w_n (h_n − h̄_n) B_n (h_n − h̄_n)ᵀ: how far the outputs h at drawn ``weights`` lie from h̄ at the ``means``, in
    the likelihood's curvature B_n, over all rows; a 0-d array.   (eq:output-spread)
    """
    xp = mlp.backend.xp
    total: Any = 0.0
    for rows in blocks(len(x), settings.block_rows):
        mean = mlp.forward(means, x[rows]).outputs[-1]
        d = mlp.forward(weights, x[rows]).outputs[-1] - mean
        each = xp.einsum("ni,nij,nj->n", d, likelihood.curvature(mean), d)
        block = xp.sum(each) if sample_weight is None else sample_weight[rows] @ each
        total = total + block.astype("float64")
    return total
