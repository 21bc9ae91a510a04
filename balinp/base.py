"""What BALIRegressor and BALIClassifier share: parameters, training, saving; predictions are in prediction.py."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from . import persistence
from .backend import Backend, get_backend
from .checkpoint import EVERY, Checkpoint
from .distinct import distinct_rows, joined_rows
from .errors import InvalidArgumentError
from .heldout import MOST_ROWS, best_held_out
from .interruption import Interruption
from .learning import learn, learn_batch
from .likelihoods import Likelihood
from .mlp import MLP
from .params import Parameters
from .prediction import Predictor
from .rows import RowSource, on_backend
from .scales import Standardizer
from .session import Session
from .settings import Settings, check_integer
from .training import Callback, IterationRecord
from .trial import HeldOut, Trial
from .validation import (
    Rows,
    as_features,
    as_sample_weight,
    feature_names,
)
from .wide import InputMap


class BALIEstimator(Parameters, Predictor):
    """What the two estimators share: the network, training, prediction blocks, saving.

    Attributes after fit: state_ (BALIState), history_ (IterationRecords, losses in nats per row in the units of y),
    n_iter_, converged_, n_features_in_, feature_names_in_ (data frames only); x_scaler_ and, of rows that span less
    than all inputs and are few, x_span_ (else None), which make the network's inputs of X.

    backend "cupy" does the training and the predictions on the GPU. X, y and weights may then be NumPy or CuPy arrays,
    and what comes back is of the kind that X is; checks and scales are made on the host, files are the same.

    Memory-mapped X and y (np.load(..., mmap_mode="r")) are read block by block and never held; Dask arrays stay with
    the workers of the running cluster (balinp.distributed), and predictions of them are Dask arrays.
    """

    _preset: str | None
    _predictives: tuple[str, ...] = ("monte_carlo", "linearized")
    history_: list[IterationRecord]
    _generator: np.random.Generator

    def __init__(
        self,
        hidden_widths: tuple[int, ...],
        activation: str,
        predictive: str,
        draws: int,
        batch_size: int | str | None,
        max_iterations: int | None,
        preset: str | None,
        settings: dict[str, Any] | None,
        random_state: Any,
        backend: str,
        validation_fraction: float,
        forgetting: float | None,
        verbose: int,
    ):
        self.hidden_widths = hidden_widths
        self.activation = activation
        self.predictive = predictive
        self.draws = draws
        self.batch_size = batch_size
        self.max_iterations = max_iterations
        self.preset = preset
        self.settings = settings
        self.random_state = random_state
        self.backend = backend
        self.validation_fraction = validation_fraction
        self.forgetting = forgetting
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        test: tuple[Any, Any] | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        checkpoint: str | Path | None = None,
        every: float = EVERY,
    ) -> Self:
        """Learn from X (n, d) and y; the inputs are standardised inside.

        ``sample_weight`` (n,): a weight of two is the row twice, to the bit (see balinp.distinct). ``test``, a pair
        like (X, y), is only watched: its NLL goes into history_. ``callbacks``, one or several callables, get (state,
        record) after every pass over the data (full batch: every iteration); one that returns True ends the fit.
        ``checkpoint``: a file that is written ``every`` so many seconds; the same fit with the same path goes on from
        there after whatever ended it, to the same bits, and returns at once when it was finished. Ctrl-C ends the fit
        after the iteration, with a usable model and an InterruptedFitWarning, which says so where the model is that of
        a fit before the one proper; a second one aborts. Raises a BALIError naming the argument, what it got and the
        remedy; warns with ConvergenceWarning when max_iterations ends first (not the default one that goes
        with joint steps, which is meant to be used up).
        """
        before = dict(self.__dict__)
        try:
            with Interruption() as interruption:
                self._check_parameters()
                kept = None if checkpoint is None else Checkpoint(checkpoint, every)
                session = Session(self.verbose, kept, interruption, self._in_units)
                return learn(self, X, y, sample_weight, test, callbacks, session)
        except BaseException:
            self.__dict__ = before  # a refused or aborted fit leaves the model as it was
            raise

    def save(self, path: str | Path) -> None:
        """Write the fitted model to ``path`` (npz with a JSON header); the file appears whole or not at all."""
        self._check_fitted()
        persistence.save_estimator(self, path)

    @classmethod
    def load(cls, path: str | Path, backend: str = "numpy") -> Self:
        """The model saved at ``path``, bit for bit, whatever it was trained on, to go on with ``backend``.

        Raises ModelFileError for a damaged, foreign or newer file.
        """
        estimator = persistence.load_estimator(path, get_backend(backend))
        if not isinstance(estimator, cls):
            raise InvalidArgumentError(f"{path} holds a {type(estimator).__name__}, not a {cls.__name__}")
        return estimator

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, first: bool) -> Self:
        before = dict(self.__dict__)
        try:
            return learn_batch(self, X, y, sample_weight, first)
        except BaseException:
            self.__dict__ = before
            raise

    def _prepare_data(self, X: Any, y: Any, sample_weight: Any) -> tuple[Rows, Rows, Rows | None]:
        features = as_features(self._host(X))
        weight = as_sample_weight(self._host(sample_weight), len(features))
        features, y, weight = self._distinct(features, self._host(y), weight)
        targets = self._fit_targets(y, features, weight)
        self.n_features_in_ = features.shape[1]
        self.__dict__.pop("feature_names_in_", None)
        names = feature_names(X)
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        self.x_scaler_, self.x_span_ = Standardizer.from_data(features, weight, inputs=True), None
        x = self.x_scaler_.transform(features, self._dtype)
        return x, targets, None if weight is None else weight.astype(self._dtype)

    def _distinct(self, features: Rows, y: Any, weight: Rows | None) -> tuple[Rows, Any, Rows | None]:
        """Equal rows joined, rows without weight left out; a source keeps its rows, which cannot be told apart."""
        numbers = self._numbered(y, len(features))
        if any(isinstance(rows, RowSource) for rows in (features, numbers, weight)):
            return features, y, weight
        index, weight = distinct_rows(features, numbers, weight)
        return (features, y, weight) if index is None else (features[index], np.asarray(y)[index], weight)

    def _later_data(self, X: Any, y: Any, sample_weight: Any) -> tuple[Rows, Rows, Rows | None]:
        features = as_features(self._host(X), self.n_features_in_, self._names())
        weight = as_sample_weight(self._host(sample_weight), len(features))
        x = self._scaled(features)
        return x, self._later_targets(self._host(y), len(x)), None if weight is None else weight.astype(self._dtype)

    @staticmethod
    def _moved(arrays: tuple[Any, ...], backend: Backend) -> tuple[Any, ...]:
        """Data checked and scaled on the host, moved to where the core works; None stays None."""
        return tuple(on_backend(array, backend) for array in arrays)

    def _see(self, seen: InputMap) -> None:
        """Take in what the fit sees of its inputs."""
        if seen.offset is not None:
            self.x_scaler_ = replace(self.x_scaler_, offset=self.x_scaler_.offset + seen.offset * self.x_scaler_.scale)
        if seen.relevance is not None:
            self.x_scaler_ = replace(self.x_scaler_, scale=self.x_scaler_.scale / seen.relevance)
        self.x_span_ = seen.span

    def _network(self) -> MLP:
        inputs = self.n_features_in_ if self.x_span_ is None else self.x_span_.inputs
        widths = (inputs, *self.hidden_widths, self._network_outputs())
        return MLP(widths, self.activation, get_backend(self.backend))

    def _fit_settings(self, rows: int) -> Settings:
        changes: dict[str, Any] = {}
        if self.batch_size == "auto":
            changes = self._automatic(rows) if self.preset is None else {}
        elif self.batch_size is not None:
            changes["batch_size"] = self.batch_size
        if self.max_iterations is not None:
            changes["max_iterations"] = self.max_iterations
        return Settings.preset(self.preset or self._preset, **{**changes, **(self.settings or {})})

    def _chosen(self) -> set[str]:
        """Names of the settings that the user gave."""
        given = {"max_iterations": self.max_iterations is not None, "batch_size": self.batch_size != "auto"}
        return {*(self.settings or {}), *(name for name, is_given in given.items() if is_given)}

    def _table_settings(self, rows: int) -> Settings:
        """The settings of fits of a whole table, as opposed to one iteration on a batch of a stream."""
        return self._fit_settings(rows)

    def _check_parameters(self) -> None:
        widths = self.hidden_widths
        if isinstance(widths, (str, bytes)) or not all(
            hasattr(w, "__index__") and w > 0 for w in (widths if np.iterable(widths) else [None])
        ):
            raise InvalidArgumentError(f"hidden_widths must be a sequence of positive integers, got {widths!r}")
        if not isinstance(self.backend, str):
            raise InvalidArgumentError(f"backend must be 'numpy' or 'cupy', got {self.backend!r}")
        get_backend(self.backend)
        if self.predictive not in self._predictives:
            names = " or ".join(repr(name) for name in self._predictives)
            raise InvalidArgumentError(f"predictive must be {names}, got {self.predictive!r}")
        check_integer("draws", self.draws, 1)
        share = self.validation_fraction
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 0.5:
            raise InvalidArgumentError(f"validation_fraction must be a number from 0 to 0.5, got {share!r}")
        if self.forgetting is not None and not (isinstance(self.forgetting, (int, float)) and 0 < self.forgetting < 1):
            raise InvalidArgumentError(f"forgetting must be a number between 0 and 1, or None, got {self.forgetting!r}")
        if not hasattr(self.verbose, "__index__") or self.verbose not in (0, 1, 2):
            raise InvalidArgumentError(f"verbose must be 0, 1 or 2, got {self.verbose!r}")
        if self.settings is not None and not isinstance(self.settings, dict):
            raise InvalidArgumentError(f"settings must be a dict of Settings fields or None, got {self.settings!r}")

    # What differs between the tasks:
    @abstractmethod
    def _automatic(self, rows: int) -> dict[str, Any]:
        """Settings that follow the number of training rows."""

    def _network_outputs(self) -> int:
        return self._outputs()

    @abstractmethod
    def _likelihood(self) -> Likelihood: ...

    def _relevance(
        self, x: Rows, y: Rows, w: Rows | None, settings: Settings, session: Session, phase: str, seen: InputMap | None
    ) -> np.ndarray | None:
        """How much each input counts, (d,), as a first fit says; None: all alike."""
        return None

    def _knows_relevance(self) -> bool:
        """Whether inputs are scaled by their relevance."""
        return False

    def _held_out(
        self, x: Rows, targets: Rows, weight: Rows | None, settings: Settings, session: Session, **more: Any
    ) -> HeldOut | None:
        """The settings and the noise that rows held out of a few fits speak for; None: nothing was held out. ``more``
        is the Trial's."""
        if not self._judged(len(x), settings):
            return None
        x, targets, weight = joined_rows(x, targets, weight)  # of a file only now
        core, kind = (self._network(), self._likelihood()), self._predictive_kind(settings)
        trial = Trial(x, targets, weight, *core, self._predict_seed, self.validation_fraction, kind, session, **more)
        return best_held_out(trial, settings, self._chosen())

    def _judged(self, rows: int, settings: Settings) -> bool:
        """Whether rows are held out, if the data do not forbid it."""
        known = self.preset is not None or self.validation_fraction == 0 or not self.hidden_widths
        return not known and rows <= MOST_ROWS and self._undecided(settings)

    def _planned(self, settings: Settings) -> bool:
        """Whether a fit is meant to take all the iterations that it may."""
        return False

    def _predictive_kind(self, settings: Settings) -> str:
        """The predictive that held-out rows judge."""
        return self.predictive

    @abstractmethod
    def _undecided(self, settings: Settings) -> bool:
        """Whether there is anything that held-out rows are to decide."""

    @abstractmethod
    def _fit_targets(self, y: Any, features: Rows, weight: Rows | None) -> Rows:
        """Learn the scale or the classes of y, set _dtype; the targets the core works on."""

    @abstractmethod
    def _numbered(self, y: Any, rows: int) -> Rows:
        """y checked, as numbers that are equal where targets are."""

    @abstractmethod
    def _later_targets(self, y: Any, rows: int) -> Rows: ...

    @abstractmethod
    def _in_units(self, record: IterationRecord) -> IterationRecord: ...
