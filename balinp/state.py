"""What a network in training is: its layers with posteriors and sums, its temperature, draws of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .backend import Array
from .likelihoods import Likelihood
from .matrix_normal import MatrixNormal
from .mlp import MLP
from .settings import Settings
from .statistics import LayerStatistics


@dataclass(frozen=True)
class LayerState:
    """One layer: its posterior (before tempering), the running sums, the prior precision τ (λ if tied), the share κ of
    input directions that the data determine, the effective number of parameters γ, and the log evidence in nats (of the
    running sums: eq:log-evidence)."""

    posterior: MatrixNormal
    statistics: LayerStatistics
    prior_precision: float
    determined: float = 0.0
    effective_parameters: float = 0.0
    log_evidence: float = float("nan")


@dataclass(frozen=True)
class BALIState:
    """A network in training. ``temperature`` 0 means: not yet sampled, weights at the mean. ``step_scale`` is the trust
    region's present value; ``training_loss`` the mean loss in nats that the last iteration met;
    ``parameters_per_target`` what the temperature is set by. ``predictive_temperature`` is that of predictions where
    held-out rows chose one; None: ``temperature``. ``deviations`` (S, D_l, K_l) per layer are draws about the means of
    the joint posterior, where predictions are by it. Another iteration ends both."""

    mlp: MLP
    likelihood: Likelihood
    layers: tuple[LayerState, ...]
    temperature: float
    step_scale: float
    iteration: int = 0
    training_loss: float = float("nan")
    parameters_per_target: float = 0.0
    predictive_temperature: float | None = None
    deviations: tuple[Array, ...] | None = None

    @property
    def means(self) -> list[Array]:
        """The posterior mean of every layer's weights, (D_l, K_l).   (eq:iteration)"""
        return [layer.posterior.mean for layer in self.layers]

    def with_means(self, means: Sequence[Array]) -> BALIState:
        """The same with other means (D_l, K_l) of the layers' posteriors.   (eq:averaged-means)"""
        layers = [replace(layer, posterior=layer.posterior.with_mean(m)) for layer, m in zip(self.layers, means)]
        return replace(self, layers=tuple(layers))

    def with_silent_weights_at_prior(self) -> BALIState:
        """The same with weights of inputs that were 0 in every row, but for rounding, at the prior's mean, 0. The data
        say nothing of them, and what is left of the initial ones fades only slowly; no output on those rows changes.
        (eq:fixed-points)
        """
        first, xp = self.layers[0], self.mlp.backend.xp
        mean, sums = first.posterior.mean, first.statistics
        rounding = 10 * float(xp.finfo(mean.dtype).eps)  # of a standardised input
        seen = xp.diagonal(sums.gram)[:, None] > sums.count * rounding**2
        return self.with_means([xp.where(seen, mean, xp.zeros_like(mean)), *self.means[1:]])

    def is_sampled(self, settings: Settings) -> bool:
        """Whether the next iteration is at drawn weights: one layer has nothing to sample for, and a joint step, of a
        state that has been sampled too, is at the mean.   (eq:centred-targets, eq:joint-step)"""
        asked = settings.gradients == "sampled" and self.iteration >= settings.joint_iterations
        return asked and len(self.layers) > 1 and self.temperature > 0

    @cached_property
    def posteriors(self) -> list[MatrixNormal]:
        """Every layer's posterior with its covariance tempered.   (eq:tempering)"""
        return [layer.posterior.tempered(self.temperature) for layer in self.layers]

    def sample_weights(self, generator: Any) -> list[Array]:
        """One draw of all weights; at temperature 0 the means, and nothing is drawn.
        (eq:draws, eq:centred-targets)
        """
        if self.temperature == 0:
            return self.means
        draw = self.mlp.backend.standard_normal
        root, posteriors = self.temperature**0.5, [layer.posterior for layer in self.layers]  # with their factors
        return [p.sample(root * draw(generator, p.mean.shape, p.mean.dtype)) for p in posteriors]


def initial_state(
    mlp: MLP, likelihood: Likelihood, generator: Any, settings: Settings, dtype: Any = "float64"
) -> BALIState:
    """He-initialised means with the prior's covariance, no data seen; ``generator`` is a numpy Generator.
    (eq:initial-weights)
    """
    xp, layers = mlp.backend.xp, []
    for mean in mlp.initial_weights(generator, dtype):
        d, k = mean.shape
        scale = settings.prior_precision * ((d - 1) if settings.prior == "independent" else 1)
        posterior = MatrixNormal(mean, xp.eye(d, dtype=dtype) * scale, xp.eye(k, dtype=dtype), mlp.backend)
        empty = LayerStatistics.from_batch(
            xp.zeros((0, d), dtype=dtype), xp.zeros((0, k), dtype=dtype), backend=mlp.backend
        )
        layers.append(LayerState(posterior, empty, float(scale)))
    return BALIState(mlp, likelihood, tuple(layers), 0.0, settings.step_scale or 1.0)
