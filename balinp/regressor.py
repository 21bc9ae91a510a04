"""BALIRegressor: the core behind scikit-learn's conventions, with the scales, the noise and the inputs' relevance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np

from .backend import get_backend
from .base import BALIEstimator
from .errors import InvalidArgumentError
from .heldout import FEWEST_ROWS
from .heteroscedastic import Heteroscedastic
from .joint_posterior import affordable
from .likelihoods import Gaussian
from .prediction import mapped
from .predictive import Predictive, predict_joint, predict_monte_carlo
from .relevance import input_relevance
from .rows import RowSource, gathered
from .scales import Standardizer
from .session import Session
from .settings import Settings, check_integer
from .training import IterationRecord
from .validation import Rows, as_columns, as_features, as_generator, as_regression_targets, as_sample_weight
from .wide import InputMap

# More rows go in mini-batches, unless ``batch_size`` says otherwise, and without joint steps.
WHOLE_ROWS = 20_000

# A table of up to WHOLE_ROWS rows begins with steps of all layers together, which take it in thirty iterations to where
# layerwise steps need hundreds.
JOINT: dict[str, Any] = {"joint_iterations": 30, "warmup": 8, "rate": 0.5, "max_iterations": 300}

# Of the means, over some ten iterations: what a draw has just done to them matters less.
AVERAGING = 0.1

# In squared deviations of y, for fits in float64 that held-out rows judge: targets without noise are predicted as
# surely as they can be. Else the floor of Settings is what a network that fits all its rows is left with; and float32
# needs it for the normal matrices of columns that depend on each other.
NOISE_FLOOR = 1e-8


class BALIRegressor(BALIEstimator):
    """Bayesian neural-network regression by BALI: predictions with aleatoric and epistemic uncertainty.

    Parameters: hidden_widths (() is Bayesian linear regression), activation ("relu", "tanh", "gelu", "identity"),
    predictive ("joint": by draws of the joint posterior of all weights, where held-out rows were predicted so, which is
    for networks of up to 2 000/√outputs weights, and else "monte_carlo", by networks drawn from the layers' posteriors;
    or "linearized", by the latter in closed form, which without hidden layers is exact and what "joint" does), draws
    (their number; those of the joint posterior are made by fit), batch_size ("auto": all rows up to 20 000; None:
    all), max_iterations (rounded up to whole passes over the data), shared_noise (one noise variance for all outputs),
    preset ("literal": the abstract's reading alone), settings (a dict of Settings fields, to change any detail),
    random_state, noise ("constant", or "input-dependent": the network learns a log-variance for every target beside its
    mean), relevance (a first fit finds how much each input counts, and the inputs are scaled by it),
    validation_fraction (the share of rows held out of each of two fits with either of two settings: of 5 to 5 000 rows
    and hidden layers they choose between the settings and estimate the noise, for which training residuals are too
    small, or how its log-variances are to be changed, and what the posterior of predictions is to believe of it; where
    the regression without hidden layers predicts them better by a standard error, it is the model, as
    ``state_.mlp.widths`` says; 0: never), backend ("numpy", or "cupy": on the GPU), forgetting (for partial_fit: with
    every batch older rows count this share less; None: see there), verbose (1: a line on stderr for each of the fits,
    2: for each iteration). After fit with constant noise also: noise_variance_ (outputs,), in squared units of y.
    """

    _estimator_type = "regressor"
    _preset = None
    _predictives = ("joint", "monte_carlo", "linearized")

    def __init__(
        self,
        hidden_widths: tuple[int, ...] = (50,),
        activation: str = "relu",
        predictive: str = "joint",
        draws: int = 100,
        batch_size: int | str | None = "auto",
        max_iterations: int | None = None,
        shared_noise: bool = False,
        preset: str | None = None,
        settings: dict[str, Any] | None = None,
        random_state: Any = None,
        noise: str = "constant",
        relevance: bool = True,
        validation_fraction: float = 0.2,
        backend: str = "numpy",
        forgetting: float | None = None,
        verbose: int = 0,
    ):
        super().__init__(
            *(hidden_widths, activation, predictive, draws, batch_size, max_iterations, preset, settings),
            *(random_state, backend, validation_fraction, forgetting, verbose),
        )
        self.shared_noise = shared_noise
        self.noise = noise
        self.relevance = relevance

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One iteration on a batch of a stream.

        With ``forgetting`` φ a row that is k batches old counts (1 − φ)^k, and the covariances are those of about
        rows/φ rows: the model follows a task that drifts and stays as unsure as that (eq:forgetting). Without, the
        means move by Settings.step_scale and the covariances are those of all rows ever seen. The first call, or an
        earlier fit, fixes the scales of X and y. Shapes and errors as in fit.
        """
        return self._partial_fit(X, y, sample_weight, not hasattr(self, "state_"))

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The predictive mean at X (n, d), (n,) or (n, outputs) as y was; with ``return_std`` also the total
        deviation."""
        both, k = self._by_blocks(X, _mean_and_deviation if return_std else _mean), self._outputs()
        mean = self._like(X, self._shaped(both[:, :k]))
        return (mean, self._like(X, self._shaped(both[:, k:]))) if return_std else mean

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draws of y at X (n, d), noise included: (n, n_samples) or (n, outputs, n_samples); each is one network's, as
        far from the mean as held-out rows wanted; with predictive="joint" one of the ``draws`` that fit made, the same
        one again only if more are asked for."""
        self._check_fitted()
        check_integer("n_samples", n_samples, 1)
        generator = as_generator(random_state)
        features = as_features(self._host(X), self.n_features_in_, self._names())
        x = self._scaled(gathered(features))
        core = self.state_.mlp.backend
        if self.predicts_jointly():
            drawn: Any = mapped(predict_joint(self.state_, core.asarray(x)), core.to_host)
            kept = len(drawn.draws)
            h, variances = drawn.draws[generator.choice(kept, n_samples, replace=n_samples > kept)], None
        else:
            predictive = predict_monte_carlo(self.state_, core.asarray(x), generator, max(n_samples, self.draws))
            drawn = mapped(predictive, core.to_host)
            h, variances = drawn.draws[:n_samples], drawn.draw_variances
        variance = self._noise() if variances is None else variances[:n_samples]
        noise = generator.standard_normal(h.shape).astype(h.dtype)
        y = (h + noise * np.sqrt(variance)) * self.y_scaler_.scale + self.y_scaler_.offset
        draws = np.moveaxis(y.astype(h.dtype), 0, -1)
        return self._like(X, draws[:, 0] if self._flat_y else draws)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination R² of the predictive mean, averaged over outputs."""
        mean = np.asarray(self.predict(self._host(X)))
        y = gathered(self._with_outputs(as_regression_targets(self._host(y), len(mean)))).reshape(mean.shape)
        weight = gathered(as_sample_weight(self._host(sample_weight), len(mean)))
        residual = np.average((y - mean) ** 2, axis=0, weights=weight)
        spread = np.average((y - np.average(y, axis=0, weights=weight)) ** 2, axis=0, weights=weight)
        ratio = np.where(spread > 0, residual / np.where(spread > 0, spread, 1), np.where(residual > 0, 1.0, 0.0))
        return float(np.mean(1 - ratio))

    @property
    def noise_variance_(self) -> np.ndarray:
        """The learnt noise variance per output (outputs,), in squared units of y."""
        self._check_fitted()
        return np.broadcast_to(self._noise(), self._outputs()) * self.y_scaler_.scale**2

    def _noise(self) -> Any:
        likelihood = self.state_.likelihood
        if not isinstance(likelihood, Gaussian):
            raise InvalidArgumentError(
                "noise_variance_ is for noise='constant'; with noise='input-dependent' it is "
                "predict_distribution(X).aleatoric"
            )
        return likelihood.backend.to_host(likelihood.noise_variance)

    def _automatic(self, rows: int) -> dict[str, Any]:
        return {} if rows <= WHOLE_ROWS else {"batch_size": 4096, "rate": 0.1, "step_scale": 0.05}

    def _fit_settings(self, rows: int) -> Settings:
        settings, given = super()._fit_settings(rows), self.settings or {}
        if self.preset is not None or (self.noise == "constant" and not self.hidden_widths):
            return settings
        safe: dict[str, Any] = {"trust_region": True, "averaging": AVERAGING}
        if self.noise == "constant" and len(self.hidden_widths) == 1:
            # Descent at every draw would follow the draws; a rise of a nat per target is a step gone astray.
            safe |= {} if "trust_region" in given else {"allowed_rise": 1.0}
        elif settings.batch_size is not None:
            # Several hidden layers that move at once overshoot, and Heteroscedastic's curvature is no bound: a step
            # that raises the loss is cut, and small batches take small ones.
            safe |= {"rate": 0.1, "step_scale": 0.05}
        return replace(settings, **{name: value for name, value in safe.items() if name not in given})

    def _table_settings(self, rows: int) -> Settings:
        settings = self._surer(super()._table_settings(rows), rows)
        if rows == 1:  # which any weights fit: nothing is known of the noise, and it stays that of the size of y
            settings = replace(settings, learn_noise=False)
        joint = settings.batch_size is None and rows <= WHOLE_ROWS and settings.prior == "independent"
        if not joint or self.preset is not None or not self.hidden_widths or self.noise != "constant":
            return settings
        given = {*(self.settings or {}), *(["max_iterations"] if self.max_iterations is not None else [])}
        if "joint_iterations" in given and settings.joint_iterations == 0:
            return settings  # layerwise from the start, with what goes with that
        budget = settings.max_iterations if "max_iterations" in given else JOINT["max_iterations"]
        few = {name: min(JOINT[name], budget // 2) for name in ("joint_iterations", "warmup")}  # leave time for draws
        return replace(settings, **{name: value for name, value in {**JOINT, **few}.items() if name not in given})

    def _relevance(
        self, x: Rows, y: Rows, w: Rows | None, settings: Settings, session: Session, phase: str, seen: InputMap | None
    ) -> np.ndarray | None:
        if not self._knows_relevance() or x.shape[1] == 1:
            return None
        core: tuple[Any, Any] = self._network(), self._likelihood()
        settings = self._surer(settings, x.shape[0])
        return input_relevance(x, y, w, *core, settings, self._predict_seed, session, phase, seen)

    def _knows_relevance(self) -> bool:
        return self.relevance and self.preset is None and bool(self.hidden_widths)

    def _surer(self, settings: Settings, rows: int) -> Settings:
        """``settings`` with NOISE_FLOOR where held-out rows will tell what noise there is."""
        known = "noise_floor" in (self.settings or {}) or self._dtype != np.float64 or rows < FEWEST_ROWS
        return settings if known or not self._judged(rows, settings) else replace(settings, noise_floor=NOISE_FLOOR)

    def _undecided(self, settings: Settings) -> bool:
        return settings.learn_noise

    def _planned(self, settings: Settings) -> bool:
        chosen = self.max_iterations is not None or "max_iterations" in (self.settings or {})
        return settings.joint_iterations > 0 and not chosen

    def _predictive_kind(self, settings: Settings) -> str:
        jointly = settings.prior == "independent" and self.noise == "constant" and affordable(self._network())
        return "monte_carlo" if self.predictive == "joint" and not jointly else self.predictive

    def _outputs(self) -> int:
        return len(self.y_scaler_.offset)

    def _network_outputs(self) -> int:
        return self._outputs() * (2 if self.noise == "input-dependent" else 1)

    def _likelihood(self) -> Gaussian | Heteroscedastic:
        backend = get_backend(self.backend)
        if self.noise == "input-dependent":
            return Heteroscedastic(self._fit_settings(1).noise_floor, backend=backend)
        return Gaussian(np.ones(() if self.shared_noise else self._outputs(), self._dtype), backend)

    def _fit_targets(self, y: Any, features: Rows, weight: Rows | None) -> Rows:
        targets = as_regression_targets(y, len(features))
        self._flat_y = targets.ndim == 1
        given = y.dtype if isinstance(targets, RowSource) else np.asarray(y).dtype
        single = features.dtype == np.float32 and given != np.float64
        self._dtype = np.float32 if single else np.float64
        columns = as_columns(targets)
        self.y_scaler_ = Standardizer.from_data(columns, weight)
        largest = float(np.finfo(self._dtype).max) ** 0.5 / 1e3
        if np.any(self.y_scaler_.scale > largest) or np.any(self.y_scaler_.scale < 1 / largest):
            raise InvalidArgumentError(
                f"y must be rescaled: its deviation {self.y_scaler_.scale} squared leaves {self._dtype}"
            )
        return self.y_scaler_.transform(columns, self._dtype)

    def _numbered(self, y: Any, rows: int) -> Rows:
        return as_regression_targets(y, rows)

    def _later_targets(self, y: Any, rows: int) -> Rows:
        return self.y_scaler_.transform(self._with_outputs(as_regression_targets(y, rows)), self._dtype)

    def _with_outputs(self, targets: Rows) -> Rows:
        columns, k = as_columns(targets), self._outputs()
        if columns.shape[1] != k:
            raise InvalidArgumentError(f"y must have {k} outputs as in the first fit, got {columns.shape[1]}")
        return columns

    def _rescaled(self, p: Predictive) -> Predictive:
        scale, offset = self.y_scaler_.scale, self.y_scaler_.offset
        outer = (scale[:, None] * scale).astype(self._dtype)

        def location(h: Any) -> Any:
            return None if h is None else (h * scale + offset).astype(self._dtype)

        by_layer = None if p.epistemic_by_layer is None else p.epistemic_by_layer * outer
        variances = None if p.draw_variances is None else (p.draw_variances * scale**2).astype(self._dtype)
        return Predictive(
            *(location(p.mean), p.aleatoric * outer, p.epistemic * outer, by_layer, None),
            *(location(p.draws), variances, p.normal),
        )

    def _in_units(self, record: IterationRecord) -> IterationRecord:
        shift = float(np.sum(np.log(self.y_scaler_.scale)))
        known = record.noise_variance
        noise = tuple(np.broadcast_to(known, self._outputs()) * self.y_scaler_.scale**2) if known else ()
        test = None if record.test_nll is None else record.test_nll + shift
        return replace(
            record, train_nll=record.train_nll + shift, test_nll=test, noise_variance=tuple(map(float, noise))
        )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.noise not in ("constant", "input-dependent"):
            raise InvalidArgumentError(f"noise must be 'constant' or 'input-dependent', got {self.noise!r}")
        for name in ("shared_noise", "relevance"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise InvalidArgumentError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.shared_noise and self.noise == "input-dependent":
            raise InvalidArgumentError("shared_noise goes with noise='constant' only, got noise='input-dependent'")

    def _shaped(self, values: np.ndarray) -> np.ndarray:
        return values[:, 0] if self._flat_y else values


def _mean(predictive: Predictive) -> np.ndarray:
    mean: np.ndarray = predictive.mean
    return mean


def _mean_and_deviation(predictive: Predictive) -> np.ndarray:
    return np.hstack([predictive.mean, np.sqrt(np.diagonal(predictive.covariance, axis1=1, axis2=2))])
