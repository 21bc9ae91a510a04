"""balinp itself as one more candidate: the vectors' operations by the package's own functions, on any backend.

This half has the rules, the predictions and the iterations; ``package_layer`` the network and one layer.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np

from .. import __version__
from ..backend import NUMPY
from ..errors import InvalidArgumentError
from ..evidence import (
    PRECISION_BOUNDS,
    determined_share,
    effective_parameters,
    kronecker_precision,
    prior_norm,
    temperature,
    updated_prior_precision,
)
from ..likelihoods import Categorical, Gaussian
from ..matrix_normal import MatrixNormal
from ..predictive import Predictive, predict_linearized, predict_monte_carlo, probit_probabilities
from ..settings import Settings
from ..solver import bali_step
from ..state import BALIState, LayerState
from ..training import fit
from .package_layer import LayerAdapter, Values

NAME = "balinp"
VERSIONS = {
    "balinp": __version__,
    "numpy": version("numpy"),
    "scipy": version("scipy"),
    "python": platform.python_version(),
}


def answer(operation: str, inputs: Values, dtype: str) -> Values:
    """The adapter of ``balinp vectors run``: NumPy."""
    return PackageAdapter(NUMPY, dtype).answer(operation, inputs, dtype)


class Replay:
    """Stands in for a Generator: hands out given draws, in the order and shape in which they are asked for."""

    def __init__(self, draws: list[Any], permutation: list[int] | None = None) -> None:
        self.draws, self.order = [np.asarray(draw, dtype=np.float64) for draw in draws], permutation

    def standard_normal(self, shape: Any) -> np.ndarray:
        """The next draw; raises InvalidArgumentError when it has another shape."""
        draw = self.draws.pop(0)
        if draw.size != prod(shape):
            raise InvalidArgumentError(f"the next draw has shape {draw.shape}, asked for was {shape}")
        return draw.reshape(shape)

    def row_signs(self) -> Callable[[int, int, int], np.ndarray]:
        """The signs of the next draw, whose rows are those of the batch."""
        signs = np.sign(self.draws.pop(0))
        return lambda start, rows, columns: signs.reshape(-1, columns)[start : start + rows]

    def permutation(self, n: int) -> np.ndarray:
        """The given one."""
        return np.asarray(self.order)


class PackageAdapter(LayerAdapter):
    """``answer(operation, inputs, dtype)`` for every operation, on one backend, in one dtype."""

    # --- the rules ---------------------------------------------------------------------------------------------------
    def kronecker_form(
        self, prior: str, curvature: Any, prior_precision: float, column_covariance: Any, determined: float
    ) -> Values:
        B, sigma = self._array(curvature), self._array(column_covariance)
        before = MatrixNormal(B[:1], B[:1, :1], sigma, self.backend)
        pi, Q = kronecker_precision(B, prior_precision, before, determined, prior)
        return {"row_prior": pi, "column_precision": Q}

    def effective_parameters(
        self, prior: str, gram: Any, row_prior: float, prior_precision: float, column_covariance: Any
    ) -> Values:
        xp, U, sigma = self.backend.xp, self._array(gram), self._array(column_covariance)
        mean = xp.zeros((len(U), len(sigma)), dtype=U.dtype)
        q = MatrixNormal(mean, U + row_prior * xp.eye(len(U), dtype=U.dtype), sigma, self.backend)
        kappa = determined_share(q, row_prior)
        gamma = effective_parameters(q, prior_precision, kappa, prior)
        return {"determined": kappa, "effective_parameters": gamma}

    def mackay(self, bounds: Values, **i: Any) -> Values:
        self._check_bounds(bounds)
        norm = prior_norm(self._array(i["mean"]), self._array(i["step"]), i["prior"], self.backend)
        gamma = min(i["effective_parameters"], i["most"])
        return {"prior_precision": updated_prior_precision(i["prior_precision"], gamma, norm, i["rate"])}

    def _check_bounds(self, bounds: Values) -> None:
        if (bounds["low"], bounds["high"]) != PRECISION_BOUNDS:
            raise InvalidArgumentError(f"the package's bounds are {PRECISION_BOUNDS}, got {bounds}")

    def tempering(
        self, parameters_per_target: float, layers: int, tempering: Any, max_temperature: float, **i: Any
    ) -> Values:
        settings = Settings(tempering=tempering, max_temperature=max_temperature)
        heat = temperature(parameters_per_target, layers, settings)
        S, P = self._array(i["column_covariance"]), self._array(i["row_precision"])
        q, z = MatrixNormal(self.backend.xp.zeros((len(P), len(S)), dtype=P.dtype), P, S, self.backend), i["draw"]
        q.sample(self._array(z))  # whatever it keeps, it has now
        hot = q.tempered(heat)
        posterior = {"column_covariance": hot.column_covariance, "row_precision": hot.row_precision}
        return {"temperature": heat, **posterior, "deviation": hot.sample(self._array(z))}

    def noise_update(
        self, likelihood: Values, outputs: Any, y: Any, weights_share: float, rate: float, floor: float
    ) -> Values:
        gaussian, h = self._likelihood(likelihood), self._array(outputs)
        ones = self.backend.xp.ones(len(h), dtype=h.dtype)
        residual = gaussian.squared_residual(h, self._array(y), ones) / len(h)
        residual = residual + gaussian.noise_variance * weights_share
        return {"noise_variance": gaussian.moved_towards(residual, rate, floor).noise_variance}

    # --- predictions -------------------------------------------------------------------------------------------------
    def _state(
        self,
        activation: str,
        layers: list[Values],
        likelihood: Values,
        temperature: float,
        step_scale: float = 1.0,
        iteration: int = 0,
        parameters_per_target: float = 0.0,
    ) -> BALIState:
        mlp, states = self._mlp(activation, [layer["mean"] for layer in layers]), []
        for layer, (d, k) in zip(layers, mlp.shapes, strict=True):
            empty = {"count": 0.0, "gram": np.zeros((d, d)), "cross": np.zeros((d, k)),
                     "target_gram": np.zeros((k, k)), "curvature": np.zeros((k, k))}  # fmt: skip
            sums = self._given(layer.get("statistics", empty))
            rest = layer.get("prior_precision", 1.0), layer.get("determined", 0.0)
            states.append(LayerState(self._normal(**layer), sums, *rest))
        begun = BALIState(mlp, self._likelihood(likelihood), tuple(states), temperature, step_scale, iteration)
        return replace(begun, parameters_per_target=parameters_per_target)

    def _predicted(self, p: Predictive, names: tuple[str, ...]) -> Values:
        return {name: getattr(p, name) for name in names if getattr(p, name) is not None}

    def linearized_predictive(self, x: Any, y: Any, **state: Any) -> Values:
        p = predict_linearized(self._state(**state), self._array(x))
        out = self._predicted(p, ("mean", "epistemic", "epistemic_by_layer", "aleatoric", "probabilities"))
        return out if y is None else {**out, "log_density": p.log_density(self._array(y), self.backend)}

    def monte_carlo_predictive(self, x: Any, draws: Any, y: Any, **state: Any) -> Values:
        flat = [z for draw in draws for z in draw]
        p = predict_monte_carlo(self._state(**state), self._array(x), Replay(flat), len(draws))
        out = self._predicted(p, ("draws", "mean", "epistemic", "aleatoric", "probabilities"))
        if y is None:
            return {**out, "entropy": p.entropy(self.backend)}
        return {**out, "log_density": p.log_density(self._array(y), self.backend)}

    def probit(self, logits: Any, covariance: Any) -> Values:
        link = Categorical(self.backend)
        return {"probabilities": probit_probabilities(self._array(logits), self._array(covariance), link)}

    # --- whole iterations --------------------------------------------------------------------------------------------
    def _settings(self, given: Values, **changes: Any) -> Settings:
        self._check_bounds(given["precision_bounds"])
        return Settings(**{name: v for name, v in given.items() if name != "precision_bounds"} | changes)

    def _after(self, state: BALIState) -> Values:
        layers = [
            {
                "mean": layer.posterior.mean,
                "row_precision": layer.posterior.row_precision,
                "column_covariance": layer.posterior.column_covariance,
                "statistics": self._sums(layer.statistics),
                "prior_precision": layer.prior_precision,
                "determined": layer.determined,
                "effective_parameters": layer.effective_parameters,
                "log_evidence": layer.log_evidence,
            }
            for layer in state.layers
        ]
        out = {"layers": layers, "temperature": state.temperature, "step_scale": state.step_scale,
               "iteration": state.iteration, "training_loss": state.training_loss,
               "parameters_per_target": state.parameters_per_target}  # fmt: skip
        if isinstance(state.likelihood, Gaussian):
            out["likelihood"] = {"noise_variance": state.likelihood.noise_variance}
        return out

    def _drawn(self, draws: Values) -> list[Any]:
        """In the order in which bali_step asks: weights layer by layer, then probes."""
        return [*(draws["weight_draws"] or []), *([] if draws["probe_noise"] is None else [draws["probe_noise"]])]

    def iteration(self, activation: str, state: Values, x: Any, y: Any, settings: Values, **i: Any) -> Values:
        before = self._state(activation, **state)
        weight = None if i["sample_weight"] is None else self._array(i["sample_weight"])
        after = bali_step(
            before,
            self._array(x),
            self._y(state["likelihood"], y),
            Replay(self._drawn(i)),
            self._settings(settings),
            i["total"],
            weight,
        )
        return self._after(after)

    def epoch(
        self, activation: str, state: Values, x: Any, y: Any, permutation: Any, batches: Any, settings: Values
    ) -> Values:
        before = self._state(activation, **state)
        generator = Replay([z for batch in batches for z in self._drawn(batch)], permutation)
        chosen = self._settings(settings, max_iterations=len(batches), tolerance=0)
        targets = self._y(state["likelihood"], y)
        result = fit(self._array(x), targets, before.mlp, before.likelihood, generator, chosen, state=before)
        return {**self._after(result.state), "training_loss": result.history[-1].train_nll}

    def fit(
        self, activation: str, likelihood: Values, x: Any, y: Any, initial_draws: Any, iterations: Any, settings: Values
    ) -> Values:
        generator = Replay([*initial_draws, *(z for draws in iterations for z in self._drawn(draws))])
        chosen = self._settings(settings, max_iterations=len(iterations), tolerance=0)
        mlp, model = self._mlp(activation, initial_draws), self._likelihood(likelihood)
        result = fit(self._array(x), self._y(likelihood, y), mlp, model, generator, chosen)
        names = ("mean", "row_precision", "column_covariance", "prior_precision")
        layers = [{name: layer[name] for name in names} for layer in self._after(result.state)["layers"]]
        history = {
            "training_loss": [record.train_nll for record in result.history],
            "temperature": [record.temperature for record in result.history],
        }
        if not isinstance(model, Gaussian):
            return {"layers": layers, **history}
        variances = [record.noise_variance for record in result.history]
        if not model.noise_variance.ndim:
            return {"layers": layers, **history, "noise_variance": [v[0] for v in variances]}
        return {"layers": layers, **history, "noise_variance": variances}
