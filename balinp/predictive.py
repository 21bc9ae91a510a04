"""What the fitted network predicts, aleatoric and epistemic uncertainty apart: in closed form or by draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import log, pi
from typing import Any

from .backend import Array, Backend
from .blocks import blocks
from .errors import InvalidArgumentError
from .heteroscedastic import Heteroscedastic
from .likelihoods import Categorical
from .state import BALIState

JOINT_NUMBERS = 2**23  # of the draws of one layer's outputs at the rows of a block: 64 MiB in float64


@dataclass(frozen=True)
class Predictive:
    """The predictive distribution at n inputs, K outputs (for the heteroscedastic Gaussian the K means of its 2K).

    mean (n, K): of the network's outputs h, which for the Gaussian is the mean of y and for the categorical the mean
    logits.
    aleatoric (n, K, K): covariance of y given the weights, averaged (for the categorical of the one-hot label).
    epistemic (n, K, K): covariance of h over the posterior of the weights.
    epistemic_by_layer (L, n, K, K): its split by layer, summing to it; None by draws.
    probabilities (n, K): of the classes; None for the Gaussian.
    draws (S, n, K): the sampled outputs h; None in closed form.
    draw_variances (S, n, K): the noise variances of the draws, where they differ (heteroscedastic).
    normal: whether the density of y is the normal one with this mean and covariance, draws or not, as it is where rows
    held out of the fit chose the epistemic covariance by that density (eq:held-out-noise, eq:held-out-joint).
    """

    mean: Array
    aleatoric: Array
    epistemic: Array
    epistemic_by_layer: Array | None = None
    probabilities: Array | None = None
    draws: Array | None = None
    draw_variances: Array | None = None
    normal: bool = False

    @property
    def covariance(self) -> Array:
        """Aleatoric plus epistemic covariance, (n, K, K): of y, for the Gaussian.   (eq:predictive-density)"""
        return self.aleatoric + self.epistemic

    def log_density(self, y: Array, backend: Backend) -> Array:
        """log p(y_n) in nats, (n,), for the Gaussian likelihoods; y (n, K).   (eq:predictive-density)

        Linearised, or ``normal``: N(y | mean, covariance). Monte Carlo: log of the average of N(y | h_s, aleatoric)
        over the draws, or of N(y | h_s, s²_s) where every draw has its own noise.
        """
        if self.draws is None or self.normal:
            return _gaussian_log_density(y - self.mean, self.covariance, backend)
        if self.draw_variances is None:
            each = _gaussian_log_density(y[None] - self.draws, self.aleatoric, backend)
        else:
            xp, s2 = backend.xp, self.draw_variances
            each = -xp.sum((y[None] - self.draws) ** 2 / s2 + xp.log(2 * pi * s2), axis=-1) / 2
        return backend.logsumexp(each, axis=0) - log(len(self.draws))

    def entropy(self, backend: Backend) -> Array:
        """Entropy of the class probabilities in nats, (n,).   (eq:predictive-entropy)"""
        if self.probabilities is None:
            raise InvalidArgumentError("entropy is for class probabilities; for a Gaussian use the covariance")
        xp, p = backend.xp, self.probabilities
        return -xp.sum(p * xp.log(xp.maximum(p, float(xp.finfo(p.dtype).tiny))), axis=-1)


def _gaussian_log_density(difference: Array, covariance: Array, backend: Backend) -> Array:
    """log N(difference | 0, covariance) over the leading axes; covariance (n, K, K), difference (..., n, K)."""
    xp, k = backend.xp, difference.shape[-1]
    factor = backend.cholesky(covariance, "predictive covariance")  # batched
    columns = xp.moveaxis(difference, -2, 0).reshape(len(covariance), -1, k)  # (n, S, K)
    white = backend.solve_triangular(factor, xp.swapaxes(columns, -1, -2))
    squares = xp.moveaxis(xp.sum(white**2, axis=-2), 0, -1).reshape(difference.shape[:-1])
    half_log_det = xp.sum(xp.log(xp.diagonal(factor, axis1=-2, axis2=-1)), axis=-1)
    return -squares / 2 - half_log_det - k * log(2 * pi) / 2


def predict_linearized(state: BALIState, x: Array, block_rows: int = 1024) -> Predictive:
    """The closed form: f(x) ~ N(h_L, ∑_l (a_l P_l⁻¹ a_lᵀ) J_l Σ_l J_lᵀ), linear in the weights about their mean.
    (eq:linearized-predictive)

    x (n, D); memory is that of ``block_rows`` rows plus the result. Class probabilities by probit_probabilities.
    """
    return _by_blocks(lambda rows: _linearized_block(state, rows), x, block_rows, state.mlp.backend)


# eq:linearized-predictive
def _linearized_block(state: BALIState, x: Array) -> Predictive:
    mlp, likelihood = state.mlp, state.likelihood
    xp, weights = mlp.backend.xp, state.means
    activations = mlp.forward(weights, x)
    h = activations.outputs[-1]
    parts = []
    for layer, a, jacobian in zip(state.layers, activations.inputs, mlp.jacobians(weights, activations)):
        posterior = layer.posterior
        root = xp.moveaxis(jacobian @ posterior.column_factor, 0, 1)  # J R, (n, K_L, K_l)
        scale = _heat(state) * posterior.row_variance(a)  # eq:tempering; 0 before the first iteration
        parts.append(scale[:, None, None] * (root @ xp.swapaxes(root, 1, 2)))  # eq:linearized-predictive
    by_layer = xp.stack(parts)
    epistemic = xp.sum(by_layer, axis=0)
    if isinstance(likelihood, Heteroscedastic):
        k = h.shape[1] // 2
        log_variance_variance = xp.diagonal(epistemic, axis1=1, axis2=2)[:, k:]
        aleatoric = likelihood.aleatoric(h, log_variance_variance)
        return Predictive(h[:, :k], aleatoric, epistemic[:, :k, :k], by_layer[:, :, :k, :k])
    if not isinstance(likelihood, Categorical):
        return Predictive(h, likelihood.aleatoric(h), epistemic, by_layer)
    p = probit_probabilities(h, epistemic, likelihood)
    return Predictive(h, _label_covariance(p, xp), epistemic, by_layer, p)


def probit_probabilities(logits: Array, covariance: Array, likelihood: Categorical) -> Array:
    """softmax(μ_k/√(1 + π v_k/8)): v_k the variance of logit k less the mean of the others, μ the centred m; (n, K).
    (eq:probit)

    MacKay's formula for each class against the rest; for two classes it is the usual one. Shapes: ``logits`` m (n, K),
    their ``covariance`` (n, K, K). A common shift of the logits, which the softmax does not see, drops out.
    """
    xp, k = likelihood.backend.xp, logits.shape[1]
    centred = logits - xp.mean(logits, axis=1, keepdims=True)
    rows = xp.mean(covariance, axis=2)
    variances = xp.diagonal(covariance, axis1=1, axis2=2) - 2 * rows + xp.mean(rows, axis=1, keepdims=True)
    against = (k / max(k - 1, 1)) ** 2 * xp.maximum(variances, 0)  # h_k − h̄ of the others = k/(k − 1) (h_k − h̄)
    return likelihood.probabilities(centred / xp.sqrt(1 + pi / 8 * against))  # eq:probit


def predict_monte_carlo(
    state: BALIState, x: Array, generator: Any, draws: int = 100, block_rows: int = 1024
) -> Predictive:
    """The average over ``draws`` networks sampled from the posterior; x (n, D).   (eq:monte-carlo-predictive)

    ``generator`` is a numpy Generator; the same draws serve every row. Epistemic: covariance of h over the draws. A
    state with a ``predictive_temperature`` draws at its temperature all the same, and the outputs of a draw are moved
    away from their mean by √(predictive temperature/temperature): hotter draws would be of other functions.
    """
    if draws < 1:
        raise InvalidArgumentError(f"draws must be at least 1, got {draws!r}")
    samples = [state.sample_weights(generator) for _ in range(draws)]
    return _by_blocks(lambda rows: _monte_carlo_block(state, samples, rows), x, block_rows, state.mlp.backend)


# eq:monte-carlo-predictive
def _monte_carlo_block(state: BALIState, samples: list[list[Array]], x: Array) -> Predictive:
    mlp, likelihood = state.mlp, state.likelihood
    xp = mlp.backend.xp
    h = xp.stack([mlp.forward(weights, x).outputs[-1] for weights in samples])
    hotter = _heat(state) != state.temperature
    if hotter:
        h = moved_out(h, _heat(state) / state.temperature)
    variances = None
    if isinstance(likelihood, Heteroscedastic):
        h, log_variances = likelihood.split(h)
        variances = likelihood.variance(log_variances)
    mean = xp.mean(h, axis=0)
    rows = xp.moveaxis(h - mean, 0, 1)  # (n, S, K)
    epistemic = xp.swapaxes(rows, 1, 2) @ rows / len(samples)  # eq:monte-carlo-predictive
    if variances is not None:
        aleatoric = xp.eye(h.shape[-1], dtype=h.dtype) * xp.mean(variances, axis=0)[:, None, :]
        return Predictive(mean, aleatoric, epistemic, draws=h, draw_variances=variances, normal=hotter)
    if not isinstance(likelihood, Categorical):
        return Predictive(mean, likelihood.aleatoric(mean), epistemic, draws=h, normal=hotter)
    each = likelihood.probabilities(h)
    p, each_row = xp.mean(each, axis=0), xp.moveaxis(each, 0, 1)
    aleatoric = p[:, :, None] * xp.eye(p.shape[1], dtype=p.dtype) - xp.swapaxes(each_row, 1, 2) @ each_row / len(
        samples
    )
    return Predictive(mean, aleatoric, epistemic, probabilities=p, draws=h)


def moved_out(draws: Array, factor: float) -> Array:
    """The draws, along the first axis, about the same mean with ``factor`` times the covariance.
    (eq:held-out-noise)"""
    centre = draws.mean(axis=0)
    return centre + factor**0.5 * (draws - centre)


def predict_joint(state: BALIState, x: Array, block_rows: int = 1024) -> Predictive:
    """f(x) ~ N(h_L(M), J C Jᵀ) by the draws Δ_s of the joint posterior that ``state`` has: h_s = h_L(M) + J Δ_s.
    (eq:joint-predictive)

    x (n, D). Linear in the weights about their means. Raises InvalidArgumentError if the state has no draws: a
    BALIRegressor's fit with held-out rows makes them, or balinp.with_joint_draws.
    """
    deviations = state.deviations
    if deviations is None:
        raise InvalidArgumentError("state must have deviations (balinp.with_joint_draws makes them), got None")
    while block_rows > 1 and block_rows * len(deviations[0]) * max(state.mlp.widths[1:]) > JOINT_NUMBERS:
        block_rows //= 2  # so that blocks of larger blocks end where those of all rows do
    return _by_blocks(lambda rows: _joint_block(state, deviations, rows), x, block_rows, state.mlp.backend)


# eq:joint-predictive
def _joint_block(state: BALIState, deviations: Sequence[Array], x: Array) -> Predictive:
    mlp, weights = state.mlp, state.means
    activations = mlp.forward(weights, x)
    mean = activations.outputs[-1]
    change = mlp.pushforward(weights, activations, deviations)  # (S, n, K)
    rows = mlp.backend.xp.moveaxis(change, 0, 1)
    epistemic = mlp.backend.xp.swapaxes(rows, 1, 2) @ rows / len(change)  # eq:joint-predictive: about h_L(M)
    return Predictive(mean, state.likelihood.aleatoric(mean), epistemic, draws=mean + change, normal=True)


def _heat(state: BALIState) -> float:
    """The temperature that predictions have.   (eq:held-out-noise)"""
    return state.temperature if state.predictive_temperature is None else state.predictive_temperature


def _label_covariance(p: Array, xp: Any) -> Array:
    return p[:, :, None] * (xp.eye(p.shape[1], dtype=p.dtype) - p[:, None, :])


def _by_blocks(predict: Callable[[Array], Predictive], x: Array, block_rows: int, backend: Backend) -> Predictive:
    """The predictives of blocks of rows, joined along the row axis of every field."""
    parts = [predict(x[rows]) for rows in blocks(len(x), block_rows)] or [predict(x)]
    axes = {"epistemic_by_layer": 1, "draws": 1, "draw_variances": 1}

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if values[0] is None or len(values) == 1 or name == "normal":
            return values[0]
        return backend.xp.concatenate(values, axis=axes.get(name, 0))

    return Predictive(**{f.name: joined(f.name) for f in fields(Predictive)})
