"""One pass over the data: the forward and backward passes of blocks of rows, summed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .backend import Array, Backend
from .blocks import reduce_blocks
from .errors import InvalidArgumentError
from .likelihoods import Categorical, Gaussian, Likelihood
from .mlp import MLP
from .settings import Settings
from .statistics import LayerStatistics


def rows_of_block(settings: Settings, backend: Backend, row_bytes: int) -> int:
    """The rows of a block, at ``row_bytes`` each: what the settings say, or ``backend`` where they leave it open, no
    more than the memory holds, at least one.   (eq:cost)"""
    rows = backend.block_rows if settings.block_rows is None else settings.block_rows
    memory = backend.block_bytes if settings.block_bytes is None else settings.block_bytes
    return max(1, min(rows, memory // row_bytes))


def rows_in_memory(settings: Settings, mlp: MLP, itemsize: int) -> int:
    """``rows_of_block`` for a pass through ``mlp``.

    With numbers of ``itemsize`` bytes a row takes, per layer, its input (D_l), outputs and two gradients with what the
    activation's derivative needs beside them (6 K_l); weighted copies of the widest layer; at the output K_L² of
    curvature, twice, and 8 K_L of the likelihood's terms.   (eq:cost)
    """
    layers, k = mlp.shapes, mlp.widths[-1]
    numbers = sum(d + 6 * w for d, w in layers) + max(2 * d + 2 * w for d, w in layers) + 2 * k * k + 8 * k
    return rows_of_block(settings, mlp.backend, numbers * itemsize)


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
    total_weight: Any = None,
) -> PassSums:
    """Forward and backward pass of one block, summed: gradients G_l as the targets of each layer's statistics.

    ``probe_noise`` (N, K_L), entries ±1 or standard normal, estimates the hidden layers' curvature
    (eq:curvature-probe); None: not wanted. The output layer's curvature is the likelihood's own. Shapes: x
    (N, D), y (N, K_L) or labels (N,); ``total_weight`` is ∑ w_n if the caller has it already.
    (eq:block-sum, eq:cost)
    """
    xp, activations = mlp.backend.xp, mlp.forward(weights, x)
    h = activations.outputs[-1]
    if sample_weight is not None:  # whose dtype is the caller's (eq:precision)
        sample_weight = mlp.backend.asarray(sample_weight, dtype=h.dtype)
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
        root = xp.sqrt(omega * w)[:, None]
        weighted = [root * a for a in activations.inputs]
        layers = [replace(layer, gram=a.T @ a) for layer, a in zip(layers, weighted)]
    curvature = xp.einsum("n,nij->ij", w, likelihood.layer_curvature(h))  # eq:output-curvature
    layers[-1] = replace(layers[-1], curvature=curvature)
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
    """``block_sums`` of all rows, block after block: memory is that of ``rows_in_memory``.   (eq:block-sum)

    Probe noise is signs ±1, fixed by a key from ``generator`` and a row's position, so neither blocks nor workers
    change it.   (eq:curvature-probe)
    """
    probed = settings.step != "gradient" and len(weights) > 1
    signs = mlp.backend.row_signs(generator) if probed else None
    of = partial(_block_sums_at, mlp, likelihood, weights, signs)
    total = reduce_blocks(of, rows_in_memory(settings, mlp, x.dtype.itemsize), x, y, sample_weight)
    if total is None:
        raise InvalidArgumentError("x must have at least one row, got none")
    if sample_weight is None:
        return total
    count = mlp.backend.floats(total.layers[0].count)[0]  # one wait for all blocks and layers
    return replace(total, layers=[replace(layer, count=count) for layer in total.layers])


# eq:block-sum; this and the next two are what a worker is sent
def _block_sums_at(
    mlp: MLP, likelihood: Likelihood, weights: Sequence[Array], signs: Any, start: int, x: Array, y: Array, w: Any
) -> PassSums:
    x, y, w = brought((x, y, w), mlp)
    noise = None if signs is None else mlp.backend.asarray(signs(start, len(x), mlp.widths[-1]), dtype=x.dtype)
    return block_sums(mlp, likelihood, weights, x, y, noise, w, None if w is None else mlp.backend.xp.sum(w))


def brought(arrays: Sequence[Any], mlp: MLP) -> list[Any]:
    """Blocks that were read from a file or sit in a worker's memory, on the network's backend.   (eq:block-sum)"""
    return [None if array is None else mlp.backend.asarray(array) for array in arrays]


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
    of = partial(_block_loss, mlp, likelihood, weights)
    return reduce_blocks(of, rows_in_memory(settings, mlp, x.dtype.itemsize), x, y, sample_weight)


# eq:iteration
def _block_loss(
    mlp: MLP, likelihood: Likelihood, weights: Sequence[Array], start: int, x: Array, y: Array, w: Any
) -> Any:
    x, y, w = brought((x, y, w), mlp)
    loss = likelihood.loss(mlp.forward(weights, x).outputs[-1], y)
    return (mlp.backend.xp.sum(loss) if w is None else w @ loss).astype("float64")


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
    of = partial(_block_spread, mlp, likelihood, weights, means)
    return reduce_blocks(of, rows_in_memory(settings, mlp, x.dtype.itemsize), x, sample_weight)


# eq:output-spread
def _block_spread(
    mlp: MLP, likelihood: Likelihood, weights: Sequence[Array], means: Sequence[Array], start: int, x: Array, w: Any
) -> Any:
    x, w = brought((x, w), mlp)
    mean = mlp.forward(means, x).outputs[-1]
    d = mlp.forward(weights, x).outputs[-1] - mean
    xp = mlp.backend.xp
    each = xp.einsum("ni,nij,nj->n", d, likelihood.curvature(mean), d)
    return (xp.sum(each) if w is None else w @ each).astype("float64")
