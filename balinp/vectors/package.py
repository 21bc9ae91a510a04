"""balinp itself as one more candidate: the vectors' operations by the package's own functions, on any backend."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from math import prod
from typing import Any

import numpy as np

from .. import __version__
from ..activations import get_activation
from ..backend import NUMPY, Backend
from ..errors import InvalidArgumentError
from ..evidence import (
    PRECISION_BOUNDS,
    determined_share,
    effective_parameters,
    kronecker_precision,
    prior_norm,
    step_curvature,
    temperature,
    updated_prior_precision,
)
from ..likelihoods import Categorical, Gaussian
from ..matrix_normal import MatrixNormal
from ..mlp import MLP
from ..predictive import Predictive, predict_linearized, predict_monte_carlo, probit_probabilities
from ..regression import Prior, layer_posterior, log_evidence, pseudo_targets
from ..settings import Settings
from ..solver import BALIState, LayerState, bali_step
from ..statistics import LayerStatistics
from ..training import fit

NAME = "balinp"
VERSIONS = {
    "balinp": __version__,
    "numpy": version("numpy"),
    "scipy": version("scipy"),
    "python": platform.python_version(),
}
SUMS = ("count", "gram", "cross", "target_gram", "curvature")
Values = dict[str, Any]


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

    def permutation(self, n: int) -> np.ndarray:
        """The given one."""
        return np.asarray(self.order)


class PackageAdapter:
    """``answer(operation, inputs, dtype)`` on one backend, in one dtype; raises what the package raises."""

    def __init__(self, backend: Backend = NUMPY, dtype: str = "float64") -> None:
        self.backend, self.dtype = backend, dtype

    def answer(self, operation: str, inputs: Values, dtype: str | None = None) -> Values:
        """The outputs of one operation as lists; ``dtype`` is the adapter's own and is not looked at."""
        function: Callable[..., Values] = getattr(self, operation)
        return {name: self._host(value) for name, value in function(**inputs).items()}

    def _array(self, values: Any) -> Any:
        return self.backend.asarray(values, dtype=self.dtype)

    def _matrix(self, values: Any, columns: int) -> Any:
        return self._array(values).reshape(-1, columns)

    def _host(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._host(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._host(part) for part in value]
        if isinstance(value, self.backend.xp.ndarray):
            self._check_dtype(value)
            return self.backend.to_host(value).tolist()
        return value.item() if hasattr(value, "item") else value

    def _check_dtype(self, value: Any) -> None:
        if value.dtype.kind == "f" and value.dtype != np.dtype(self.dtype):
            raise TypeError(f"a result has dtype {value.dtype}, the inputs {self.dtype}")

    def _likelihood(self, likelihood: Values) -> Any:
        if likelihood["kind"] == "categorical":
            return Categorical(self.backend)
        return Gaussian(self._array(likelihood["noise_variance"]), self.backend)

    def _y(self, likelihood: Values, y: Any) -> Any:
        return self.backend.asarray(y) if likelihood["kind"] == "categorical" else self._array(y)

    def _normal(self, mean: Any, row_precision: Any, column_covariance: Any, **rest: Any) -> MatrixNormal:
        parts = (self._array(v) for v in (mean, row_precision, column_covariance))
        return MatrixNormal(*parts, self.backend)

    def _mlp(self, activation: str, layers: list[Any]) -> MLP:
        return MLP((len(layers[0]) - 1, *(len(w[0]) for w in layers)), activation, self.backend)

    # --- the network -------------------------------------------------------------------------------------------------
    def activation(self, activation: str, outputs: Any) -> Values:
        phi, h = get_activation(activation), self._array(outputs)
        return {"value": phi.value(h, self.backend), "derivative": phi.derivative(h, self.backend)}

    def forward(self, activation: str, weights: Any, x: Any) -> Values:
        passed = self._mlp(activation, weights).forward([self._array(w) for w in weights], self._array(x))
        return {"inputs": passed.inputs, "outputs": passed.outputs}

    def backward(self, activation: str, weights: Any, x: Any, output_gradient: Any) -> Values:
        mlp, arrays = self._mlp(activation, weights), [self._array(w) for w in weights]
        passed = mlp.forward(arrays, self._array(x))
        return {"gradients": mlp.backward(arrays, passed, self._array(output_gradient))}

    def likelihood_loss(self, likelihood: Values, outputs: Any, y: Any) -> Values:
        return {"loss": self._likelihood(likelihood).loss(self._array(outputs), self._y(likelihood, y))}

    def likelihood_gradient(self, likelihood: Values, outputs: Any, y: Any) -> Values:
        return {"gradient": self._likelihood(likelihood).gradient(self._array(outputs), self._y(likelihood, y))}

    def likelihood_curvature(self, likelihood: Values, outputs: Any) -> Values:
        return {"curvature": self._likelihood(likelihood).curvature(self._array(outputs))}

    def likelihood_probe(self, likelihood: Values, noise: Any) -> Values:
        noise = self._array(noise)
        return {"probe": self._likelihood(likelihood).probe(0 * noise, noise)}

    def pseudo_targets(self, outputs: Any, gradients: Any, curvature: Any, step: Values) -> Values:
        changes = {name: value for name, value in step.items() if name != "kind"}
        settings = Settings(step=step["kind"], **changes)
        B = step_curvature(self._array(curvature), settings, self.backend.xp)
        S = self.backend.cho_solve(self.backend.cholesky(B), self.backend.xp.eye(len(B), dtype=B.dtype))
        return {"step": S, "targets": pseudo_targets(self._array(outputs), self._array(gradients), S)}

    # --- one layer ---------------------------------------------------------------------------------------------------
    def _statistics(self, d: int, k: int, rows: Values) -> LayerStatistics:
        weights = None if rows["weights"] is None else self._array(rows["weights"])
        probes = None if rows["probes"] is None else self._matrix(rows["probes"], k)
        A, T = self._matrix(rows["inputs"], d), self._matrix(rows["targets"], k)
        return LayerStatistics.from_batch(A, T, weights, probes, self.backend)

    def _sums(self, statistics: LayerStatistics) -> Values:
        return {name: getattr(statistics, name) for name in SUMS}

    def statistics(self, D: int, K: int, **rows: Any) -> Values:
        return self._sums(self._statistics(D, K, rows))

    def block_sum(self, D: int, K: int, blocks: list[Values]) -> Values:
        first, *others = (self._statistics(D, K, block) for block in blocks)
        for other in others:
            first = first + other
        return self._sums(first)

    def _given(self, sums: Values) -> LayerStatistics:
        arrays = (self._array(sums[name]) for name in SUMS[1:])
        return LayerStatistics(sums["count"], *arrays)

    def ema_step(self, D: int, K: int, statistics: Values, batch: Values, total: float, rate: float) -> Values:
        new = self._statistics(D, K, batch)
        return self._sums(self._given(statistics).decay(new.scale(total / new.count), rate))

    def layer_posterior(
        self, gram: Any, cross: Any, prior_mean: Any, prior_precision: Any, noise_covariance: Any
    ) -> Values:
        C = self._array(cross)
        k = C.shape[1]
        zeros = self.backend.xp.zeros((k, k), dtype=C.dtype)
        sums = LayerStatistics(0.0, self._array(gram), C, zeros, zeros)
        prior = Prior(self._array(prior_mean), self._array(prior_precision), self.backend)
        q = layer_posterior(sums, prior, self._array(noise_covariance), self.backend)
        return {"mean": q.mean, "row_precision": q.row_precision}

    def step_form(self, **i: Any) -> Values:
        """As in the solver: the regression in coordinates centred on the mean, its posterior mean is the step."""
        M, U, A, G, S = (self._array(i[name]) for name in ("mean", "gram", "inputs", "gradients", "step"))
        batch = LayerStatistics.from_batch(A, -G @ S, backend=self.backend).scale(i["weight"])
        sums = LayerStatistics(batch.count, U, batch.cross, batch.target_gram, batch.curvature)
        prior = Prior(self._array(i["prior_mean"]) - M, self._array(i["prior_precision"]), self.backend)
        return {"mean": M + i["scale"] * layer_posterior(sums, prior, S, self.backend).mean}

    def log_evidence(
        self, inputs: Any, targets: Any, prior_mean: Any, prior_precision: Any, noise_covariance: Any
    ) -> Values:
        prior = Prior(self._array(prior_mean), self._array(prior_precision), self.backend)
        rows = {"inputs": inputs, "targets": targets, "weights": None, "probes": None}
        sums = self._statistics(*prior.mean.shape, rows)
        return {"log_evidence": log_evidence(sums, prior, self._array(noise_covariance), self.backend)}

    def log_density(self, w: Any, **normal: Any) -> Values:
        return {"log_density": self._normal(**normal).log_density(self._array(w))}

    def entropy(self, **normal: Any) -> Values:
        q = self._normal(**normal)
        return {"log_determinant": q.log_determinant(), "entropy": q.entropy()}

    def kl_divergence(self, first: Values, second: Values) -> Values:
        return {"kl_divergence": self._normal(**first).kl_divergence(self._normal(**second))}

    def natural_parameters(self, **normal: Any) -> Values:
        columns, rows, linear = self._normal(**normal).natural_parameters()
        return {"precision": self.backend.xp.kron(columns, rows), "linear": linear}

    def sampling(self, draws: Any, **normal: Any) -> Values:
        return {"weights": self._normal(**normal).sample(self._array(draws))}

    def layer_predictive(self, inputs: Any, **normal: Any) -> Values:
        mean, covariance = self._normal(**normal).predictive(self._array(inputs))
        return {"mean": mean, "covariance": covariance}

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

    def tempering(self, total: float, output_width: int, tempering: Any, max_temperature: float, **i: Any) -> Values:
        settings = Settings(tempering=tempering, max_temperature=max_temperature)
        heat = temperature(i["effective_parameters"], total, output_width, settings)
        S, P = self._array(i["column_covariance"]), self._array(i["row_precision"])
        q = MatrixNormal(self.backend.xp.zeros((len(P), len(S)), dtype=P.dtype), P, S, self.backend).tempered(heat)
        return {"temperature": heat, "column_covariance": q.column_covariance, "row_precision": q.row_precision}

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
    ) -> BALIState:
        mlp, states = self._mlp(activation, [layer["mean"] for layer in layers]), []
        for layer, (d, k) in zip(layers, mlp.shapes, strict=True):
            empty = {"count": 0.0, "gram": np.zeros((d, d)), "cross": np.zeros((d, k)),
                     "target_gram": np.zeros((k, k)), "curvature": np.zeros((k, k))}  # fmt: skip
            sums = self._given(layer.get("statistics", empty))
            rest = layer.get("prior_precision", 1.0), layer.get("determined", 0.0)
            states.append(LayerState(self._normal(**layer), sums, *rest))
        return BALIState(mlp, self._likelihood(likelihood), tuple(states), temperature, step_scale, iteration)

    def _predicted(self, p: Predictive, names: tuple[str, ...]) -> Values:
        return {name: getattr(p, name) for name in names if getattr(p, name) is not None}

    def linearized_predictive(self, x: Any, **state: Any) -> Values:
        p = predict_linearized(self._state(**state), self._array(x))
        return self._predicted(p, ("mean", "epistemic", "epistemic_by_layer", "aleatoric", "probabilities"))

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
               "iteration": state.iteration, "training_loss": state.training_loss}  # fmt: skip
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
        if isinstance(model, Gaussian):
            variances = [record.noise_variance for record in result.history]
            history["noise_variance"] = [v if model.noise_variance.ndim else v[0] for v in variances]
        return {"layers": layers, **history}
