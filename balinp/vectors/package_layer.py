"""balinp itself as a candidate, first half: the network's passes, the likelihoods and one layer, on any backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..activations import get_activation
from ..backend import NUMPY, Backend
from ..evidence import step_curvature
from ..likelihoods import Categorical, Gaussian
from ..matrix_normal import MatrixNormal
from ..mlp import MLP
from ..regression import Prior, layer_posterior, log_evidence, pseudo_targets
from ..settings import Settings
from ..statistics import LayerStatistics

SUMS = ("count", "gram", "cross", "target_gram", "curvature")
Values = dict[str, Any]


class LayerAdapter:
    """The operations on one backend, in one dtype; each is a method and raises what the package raises."""

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
        M, P, S = (self._array(v) for v in (mean, row_precision, column_covariance))
        return MatrixNormal(M, P, S, self.backend)

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
        U, C, TT, Z = (self._array(sums[name]) for name in SUMS[1:])
        return LayerStatistics(sums["count"], U, C, TT, Z)

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
        d, k = prior.mean.shape
        sums = self._statistics(d, k, rows)
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
