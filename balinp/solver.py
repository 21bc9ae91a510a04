"""One iteration of BALI: forward, gradients, pseudo-targets, one exact regression per layer.

The regression of a layer is done in coordinates centred on its present mean M: T − A M = −G S, so the posterior mean
*is* the step (eq:step-form) and nothing cancels. ``balinp.training`` repeats the iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

from .backend import Array
from .deferred import Deferred
from .errors import DivergenceError, InvalidArgumentError
from .evidence import (
    determined_share,
    effective_parameters,
    kronecker_precision,
    prior_norm,
    step_curvature,
    temperature,
    updated_prior_precision,
    updated_share,
)
from .joint import curvature_product, first_damping, joint_regression
from .likelihoods import Gaussian
from .matrix_normal import MatrixNormal
from .mlp import MLP
from .passes import PassSums, data_loss, data_spread, data_sums
from .regression import Prior, layer_posterior, log_evidence
from .settings import Settings
from .state import BALIState, LayerState
from .statistics import LayerStatistics
from .trust import trusted_scale

MOST = 0.9  # parameters per target that are believed
SPREAD_ROWS = 1024  # an iteration over more rows measures the spread of the outputs only so often


@dataclass(frozen=True)
class LayerRegression:
    """A layer's regression in coordinates centred on its mean: ``posterior.mean`` is the full step, ``step`` is S,
    ``row_prior`` π, ``parameters`` γ where a joint regression tells it; numbers are 0-d arrays, lest the host wait for
    each layer."""

    posterior: MatrixNormal
    statistics: LayerStatistics
    step: Array
    row_prior: Any
    log_evidence: Any
    parameters: Any = None


def layer_regression(layer: LayerState, batch: LayerStatistics, rate: float, settings: Settings) -> LayerRegression:
    """The exact regression of one layer on this pass's pseudo-targets, about its present mean.   (eq:step-form)

    ``batch`` holds the sums of (A, G) scaled to the whole data (N/m); ``rate`` is β_t.
    (eq:step-kinds, eq:fixed-points, eq:centred-targets)
    """
    b, M = layer.posterior.backend, layer.posterior.mean
    xp, k = b.xp, M.shape[1]
    running = layer.statistics.decay(batch, rate)  # eq:ema
    B = step_curvature(running.curvature / running.count, settings, xp)
    pi, Q = kronecker_precision(B, layer.prior_precision, layer.posterior, layer.determined, settings.prior)
    S = b.cho_solve(b.cholesky(Q, "noise precision"), xp.eye(k, dtype=M.dtype))
    targets = batch.map_targets(-S)  # eq:pseudo-targets, centred: T − A M = −G S
    # eq:prior-gradient: the prior pulls M by −M (tied), or by −τM through the layer's covariance, π⁻¹ (τM) S
    pull = -M if settings.prior == "tied" else M @ S * (-layer.prior_precision / pi)
    prior = Prior.isotropic(pull, pi, b)
    posterior = layer_posterior(replace(targets, gram=running.gram), prior, S, b)
    if settings.noise == "residual":
        sigma = _residual_covariance(targets, posterior.mean, settings, xp)
        posterior = posterior.with_column_covariance(sigma)
    factors = posterior.row_factor, posterior.column_factor
    evidence = log_evidence(running.map_targets(-S), prior, posterior.column_covariance, b, *factors)
    return LayerRegression(posterior, running, S, pi, evidence)


def moving_rate(rate: float, iteration: int) -> float:
    """β_t = max(β, 1/(t + 1)), the weight of the newest batch in the moving averages: plain averages at first.
    (eq:ema)"""
    return max(rate, 1 / (iteration + 1))


def _residual_covariance(targets: LayerStatistics, mean: Array, settings: Settings, xp: Any) -> Array:
    """(T − AM)ᵀ(T − AM)/N, plus δ times its mean diagonal when damping asks for it.   (eq:residual-covariance)"""
    cross = mean.T @ targets.cross
    sigma = (targets.target_gram - cross - cross.T + mean.T @ targets.gram @ mean) / targets.count
    k = len(sigma)
    return (sigma + sigma.T) / 2 + xp.eye(k, dtype=sigma.dtype) * (xp.trace(sigma) * (settings.damping / k))


def bali_step(
    state: BALIState,
    x: Array,
    y: Array,
    generator: Any,
    settings: Settings = Settings(),
    total: float | None = None,
    sample_weight: Array | None = None,
) -> BALIState:
    """One iteration on a batch: the whole data, or m rows that stand for ``total`` = N.   (eq:iteration)

    Shapes: x (m, D), y (m, K) or labels (m,), sample_weight (m,). ``generator`` is a numpy Generator; it is asked for
    one weight draw per layer (once sampling has begun), then for the key of the rows' signs, so block_rows changes no
    draw. Raises NotPositiveDefiniteError naming the layer, DivergenceError when the loss is no longer finite,
    InvalidArgumentError of rows without any weight.
    (eq:ema, eq:conjugate-layer, eq:fixed-points, eq:centred-targets, eq:trust-region, eq:noise-update,
    eq:output-spread)
    """
    mlp, likelihood, t = state.mlp, state.likelihood, state.iteration
    rate, joint = moving_rate(settings.rate, t), t < settings.joint_iterations
    sampled = state.is_sampled(settings)
    weights = state.sample_weights(generator) if sampled else state.means  # eq:centred-targets
    with mlp.backend.deferred() as later:
        sums = data_sums(mlp, likelihood, weights, x, y, generator, settings, sample_weight)
        mlp.backend.refuse_if(~(sums.loss < float("inf")), lambda: _diverged(sums.loss, t, settings))  # NaN as well
        count = sums.layers[0].count
        refuse_no_weight(count)
        rows = _Rows(x, y, sample_weight, count, count if total is None else total, settings)
        regressions = []
        for l, (layer, batch) in enumerate(zip(state.layers, sums.layers)):
            with later.in_layer(l):
                regressions.append(layer_regression(layer, batch.scale(rows.share), rate, settings))
        if joint:
            regressions = _joined(state, rows, weights, regressions, sums, generator)
        scale, next_scale = _scales(state, rows, weights, regressions, sums.loss, later)
        measured = sampled and t % ceil(count / SPREAD_ROWS) == 0
        spread = data_spread(mlp, likelihood, weights, state.means, x, settings, sample_weight) if measured else 0.0
        learns = settings.evidence and t + 1 >= settings.warmup
        posteriors, asked = [], [sums.loss, spread]
        for l, (layer, r) in enumerate(zip(state.layers, regressions)):
            with later.in_layer(l):
                posteriors.append(r.posterior.with_mean(layer.posterior.mean + scale * r.posterior.mean))
                asked += _asked(r, posteriors[-1], settings.prior, learns)
        loss, spread, *told = later.floats(*asked)  # all that the host wants to know of the iteration, at once
    layers = [
        _moved(layer, r, posterior, told[6 * l : 6 * l + 6], settings.prior)
        for l, (layer, r, posterior) in enumerate(zip(state.layers, regressions, posteriors))
    ]
    gamma, most = sum(layer.effective_parameters for layer in layers), rows.targets(mlp)
    share = gamma / most
    if sampled:
        share = state.parameters_per_target
        if measured:
            share = updated_share(share, spread, state.temperature, count * mlp.widths[-1], rate)
    begins = max(settings.warmup, settings.joint_iterations)  # of sampling
    heat = temperature(share, len(layers), settings) if t + 1 >= begins else 0.0
    if learns:
        layers = [_reweighed(layer, told[6 * l + 4], rate, MOST * most) for l, layer in enumerate(layers)]
    if isinstance(likelihood, Gaussian) and settings.learn_noise and t >= settings.warmup:
        residual = sums.squared_residual / count
        if not sampled:  # a draw's residual carries the weights' uncertainty; the mean's lacks it
            lacking = min(gamma / most, MOST) if joint else min(heat * gamma / most, 1.0)  # eq:joint-parameters
            residual = residual + likelihood.noise_variance * lacking
        likelihood = likelihood.moved_towards(residual, rate, settings.noise_floor)  # eq:noise-update
    last = layers[-1].statistics
    likelihood = likelihood.referred_to(last.curvature / last.count)
    return BALIState(mlp, likelihood, tuple(layers), heat, next_scale, t + 1, loss / count, share)


def refuse_no_weight(count: Any) -> None:
    """Rows of total weight ``count`` 0 are no data: nothing can be scaled up to stand for all.   (eq:iteration)"""
    if count == 0:
        raise InvalidArgumentError(
            "sample_weight must not be zero for every row, got a sum of 0; pass over a batch without weight"
        )


@dataclass(frozen=True)
class _Rows:
    """The rows of an iteration, of total weight ``count``, which stand for the ``total`` of the data."""

    x: Array
    y: Array
    weight: Array | None
    count: Any
    total: Any
    settings: Settings

    @property
    def share(self) -> Any:
        return self.total / self.count

    def targets(self, mlp: MLP) -> Any:
        return self.total * mlp.widths[-1]

    def loss(self, state: BALIState, weights: Sequence[Array]) -> Any:
        """N/m ∑ℓ_n."""
        return self.share * data_loss(state.mlp, state.likelihood, weights, self.x, self.y, self.settings, self.weight)

    def curvature_product(self, state: BALIState, weights: Sequence[Array], v: list[Array]) -> list[Array]:
        """N/m ∑ JᵀBJ v."""
        data = curvature_product(state.mlp, state.likelihood, weights, v, self.x, self.settings, self.weight)
        return [self.share * part for part in data]


def _scales(
    state: BALIState,
    rows: _Rows,
    weights: Sequence[Array],
    regressions: Sequence[LayerRegression],
    loss: Any,
    later: Deferred,
) -> tuple[float, float]:
    """How much of its step every layer takes, and how much the next iteration is to try.   (eq:trust-region)"""
    settings = rows.settings
    joint = state.iteration < settings.joint_iterations
    largest = moving_rate(settings.rate, state.iteration) if settings.step_scale is None else settings.step_scale
    if not (settings.trust_region or joint):
        return largest, largest

    def objective(scale: float) -> float:
        moved = [w + scale * r.posterior.mean for w, r in zip(weights, regressions)]
        return later.floats(rows.loss(state, moved) + _penalty(state.layers, regressions, scale, settings.prior))[0]

    (before,) = later.floats(rows.share * loss + _penalty(state.layers, regressions, 0.0, settings.prior))
    if joint:  # the whole step where it can be taken; what later steps may be is not touched
        return trusted_scale(objective, before, 1.0, 1.0)[0], largest
    limit = before + settings.allowed_rise * rows.targets(state.mlp)
    return trusted_scale(objective, limit, min(state.step_scale, largest), largest)


def _joined(
    state: BALIState,
    rows: _Rows,
    weights: Sequence[Array],
    regressions: Sequence[LayerRegression],
    sums: PassSums,
    generator: Any,
) -> list[LayerRegression]:
    """The layers' regressions with the step that they take together, and their effective numbers of parameters.
    (eq:joint-step, eq:joint-parameters)
    """
    b, tau = state.mlp.backend, [layer.prior_precision for layer in state.layers]
    slopes = [rows.share * s.cross + t * m for s, t, m in zip(sums.layers, tau, state.means)]  # eq:prior-gradient
    draws = [b.standard_normal(generator, m.shape, m.dtype) for m in state.means]
    signs = [b.xp.where(z > 0, 1, -1).astype(z.dtype) for z in draws]
    damping = first_damping([r.statistics for r in regressions], state.iteration, b.xp)
    product = partial(rows.curvature_product, state, weights)
    steps, counts = joint_regression(product, slopes, tau, damping, signs, [r.posterior for r in regressions], b)
    return [
        replace(r, posterior=r.posterior.with_mean(step), parameters=count)
        for r, step, count in zip(regressions, steps, counts)
    ]


def _diverged(loss: Any, iteration: int, settings: Settings) -> DivergenceError:
    return DivergenceError(
        f"the training loss became {float(loss)} in iteration {iteration}; set trust_region=True, or lower step_scale "
        f"(now {settings.step_scale})"
    )


def _asked(regression: LayerRegression, posterior: MatrixNormal, prior: str, learns: bool) -> list[Any]:
    """The six numbers of a layer that the host needs: π, the log evidence, tr P⁻¹, tr Σ, ‖M‖² if it ``learns`` the
    prior precision, γ if it is known; 0-d arrays."""
    b = posterior.backend
    norm = prior_norm(posterior.mean, posterior.column_covariance, prior, b) if learns else 0.0
    traces = posterior.row_covariance_trace, b.xp.trace(posterior.column_covariance)
    known = 0.0 if regression.parameters is None else regression.parameters
    return [regression.row_prior, regression.log_evidence, *traces, norm, known]


def _moved(
    layer: LayerState, regression: LayerRegression, posterior: MatrixNormal, told: Sequence[float], prior: str
) -> LayerState:
    """The layer with its new posterior, given the numbers ``told`` of it (``_asked``)."""
    row_prior, evidence, row_trace, column_trace, _, gamma = told
    posterior = posterior.with_traces(row_trace, column_trace)
    kappa = determined_share(posterior, row_prior)
    if regression.parameters is None:
        gamma = effective_parameters(posterior, layer.prior_precision, kappa, prior)
    return LayerState(posterior, regression.statistics, layer.prior_precision, kappa, gamma, evidence)


def _reweighed(layer: LayerState, norm: float, rate: float, most: float) -> LayerState:
    """The layer with its prior precision re-estimated by evidence from ‖M‖² = ``norm``; γ counts at most ``most``
    parameters.   (eq:mackay)
    """
    tau = updated_prior_precision(layer.prior_precision, min(layer.effective_parameters, most), norm, rate)
    return replace(layer, prior_precision=tau)


def _penalty(layers: Sequence[LayerState], regressions: Sequence[LayerRegression], scale: float, prior: str) -> Any:
    """The priors' ½ τ‖M‖², or ½ λ tr(S⁻¹MᵀM), with every mean ``scale`` of the way along its step.
    (eq:trust-region)
    """
    total: Any = 0.0
    for layer, r in zip(layers, regressions):
        mean = layer.posterior.mean + scale * r.posterior.mean
        total += layer.prior_precision * prior_norm(mean, r.step, prior, layer.posterior.backend) / 2
    return total
