"""What a fitted estimator predicts: the predictive distribution at rows of any kind, in blocks of bounded memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .backend import get_backend
from .blocks import blocks
from .errors import InvalidArgumentError, NotFittedError
from .likelihoods import Gaussian
from .params import kin
from .predictive import Predictive, predict_joint, predict_linearized, predict_monte_carlo
from .rows import gathered
from .scales import Standardizer
from .state import BALIState
from .threads import calm_threads
from .validation import Rows, as_features, as_generator
from .wide import Span

PREDICTED_BYTES = 2**26  # that the rows which ``predict`` works on at once take
PREDICTIVE_ROWS = 1024  # the predictive's own blocks: whole ones, so that the bits are the same


def mapped(predictive: Predictive, of: Callable[[Any], Any]) -> Predictive:
    """``predictive`` with ``of`` each of its arrays."""
    return replace(predictive, **{name: of(part) for name, part in vars(predictive).items() if hasattr(part, "shape")})


class Predictor(ABC):
    """The predictions of an estimator whose ``fit`` has set its state and its scales."""

    predictive: str
    draws: int
    backend: str
    hidden_widths: tuple[int, ...]
    x_scaler_: Standardizer
    x_span_: Span | None = None
    state_: BALIState
    n_features_in_: int
    _dtype: Any = np.float64  # of the core's arrays; the data that fit gets decide
    _predict_seed: int

    def predict_distribution(self, X: Any) -> Predictive:
        """The whole predictive distribution at X (n, d): means, aleatoric and epistemic covariances (see Predictive).

        In the units of y; joint, Monte Carlo or linearised as the parameter ``predictive`` says. The same X gives the
        same bits. Arrays of the kind that X is (see ``backend``), in memory and as many as X has rows.
        """
        predictive = self._predictive(X)
        return mapped(predictive, lambda part: self._like(X, part))

    def _predictive(self, X: Any) -> Predictive:
        """``predict_distribution`` on the host."""
        self._check_fitted()
        return self._predictive_of(as_features(self._host(X), self.n_features_in_, self._names()))

    def _by_blocks(self, X: Any, part: Callable[[Predictive], np.ndarray]) -> Any:
        """``part`` of the predictive, an array with a row for each row of X, in the memory of a block of rows.

        A lazy Dask array where X is one.
        """
        self._check_fitted()
        features = as_features(self._host(X), self.n_features_in_, self._names())
        if hasattr(features, "reduce_blocks"):
            from .distributed import predicted  # Dask is optional

            return predicted(lambda rows: self._by_blocks(rows, part), features)
        k = self._outputs()
        drawn = k * (len(self.hidden_widths) + 2) if self.predictive == "linearized" else self.draws
        each = 8 * (3 * self.n_features_in_ + 6 * k * drawn)  # of a row: scaled; its draws and what is made of them
        rows = max(1, PREDICTED_BYTES // (PREDICTIVE_ROWS * each)) * PREDICTIVE_ROWS
        parts = [part(self._predictive_of(features[block])) for block in blocks(len(features), rows)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _predictive_of(self, features: Rows) -> Predictive:
        """The predictive at checked features, all in memory."""
        x = self._scaled(gathered(features))
        if not np.all(np.isfinite(x)):
            raise InvalidArgumentError("X lies too far from the training data to be represented; check its units")
        core, weights = self.state_.mlp.backend, sum(d * k for d, k in self.state_.mlp.shapes)
        rows = min(len(x), PREDICTIVE_ROWS)
        with calm_threads(rows, weights), np.errstate(over="ignore", invalid="ignore"):
            if self._in_closed_form():
                found = predict_linearized(self.state_, core.asarray(x))
            elif self.predicts_jointly():
                found = predict_joint(self.state_, core.asarray(x))
            else:
                seed = as_generator(self._predict_seed)
                found = predict_monte_carlo(self.state_, core.asarray(x), seed, self.draws)
            predictive = self._rescaled(mapped(found, core.to_host))
        if not (np.all(np.isfinite(predictive.mean)) and np.all(np.isfinite(predictive.covariance))):
            raise InvalidArgumentError(
                "X lies so far from the training data that the prediction overflows; check its units"
            )
        return predictive

    def _scaled(self, features: Rows) -> Any:
        """Checked features as the network's inputs."""
        x = self.x_scaler_.transform(features, self._dtype)
        return x if self.x_span_ is None else self.x_span_.transform(gathered(x), self._dtype)

    def _in_closed_form(self) -> bool:
        """Whether predictions are by no draws: where that was asked for, or is exact and nothing else was."""
        exact = len(self.state_.layers) == 1 and isinstance(self.state_.likelihood, Gaussian)
        return self.predictive == "linearized" or (self.predictive == "joint" and exact)

    def predicts_jointly(self) -> bool:
        """Whether predictions are by draws of the joint posterior."""
        return self.predictive == "joint" and self.state_.deviations is not None

    def _host(self, values: Any) -> Any:
        """``values`` as a NumPy array if they are one of the backend; anything else as it is."""
        backend = get_backend(self.backend)
        foreign = isinstance(values, backend.xp.ndarray) and not isinstance(values, np.ndarray)
        return backend.to_host(values) if foreign else values

    def _like(self, X: Any, result: np.ndarray) -> Any:
        """``result`` as an array of the kind that X is; text, which no device holds, stays with NumPy."""
        backend = get_backend(self.backend)
        return backend.asarray(result) if isinstance(X, backend.xp.ndarray) and result.dtype.kind in "biuf" else result

    def _check_fitted(self) -> None:
        if not hasattr(self, "state_"):
            raise kin(NotFittedError)(
                f"this {type(self).__name__} is not fitted yet; call fit with training data first"
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "state_")

    def _names(self) -> list[str] | None:
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else list(names)

    @abstractmethod
    def _outputs(self) -> int: ...

    @abstractmethod
    def _rescaled(self, predictive: Predictive) -> Predictive: ...
