"""BALIClassifier: the core behind scikit-learn's conventions, with labels of any kind."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np

from .backend import get_backend
from .base import BALIEstimator
from .caller import warn_caller
from .errors import DataConversionWarning, InvalidArgumentError
from .heldout import convex
from .likelihoods import Categorical
from .params import kin
from .predictive import Predictive
from .rows import RowSource, gathered
from .settings import Settings, check_integer
from .training import IterationRecord
from .validation import Rows, as_generator, as_labels, as_sample_weight, labels_present

MANY_ROWS = 5_000


class BALIClassifier(BALIEstimator):
    """Bayesian neural-network classification by BALI; labels of any one kind.

    Parameters as for BALIRegressor, without shared_noise, noise and relevance; batch_size "auto": 200 rows below 5 000
    rows, else 500; validation_fraction: the share of rows held out of fits with up to three prior precisions and of as
    many without hidden layers, of which the best one is taken (with 5 to 5 000 rows and hidden layers, unless settings
    has one; 0: never): the model has no hidden layers, as ``state_.mlp.widths`` says, unless held-out rows speak for
    them by a standard error. Of inputs that occur ten times and more on average, as in tables of counts, none are held
    out and the fit is without draws.
    After fit also: classes_ (K,), sorted.
    """

    _estimator_type = "classifier"
    _preset = "classification"

    def __init__(
        self,
        hidden_widths: tuple[int, ...] = (50,),
        activation: str = "relu",
        predictive: str = "linearized",
        draws: int = 100,
        batch_size: int | str | None = "auto",
        max_iterations: int | None = None,
        preset: str | None = None,
        settings: dict[str, Any] | None = None,
        random_state: Any = None,
        validation_fraction: float = 0.2,
        backend: str = "numpy",
        forgetting: float | None = None,
        verbose: int = 0,
    ):
        super().__init__(
            *(hidden_widths, activation, predictive, draws, batch_size, max_iterations, preset, settings),
            *(random_state, backend, validation_fraction, forgetting, verbose),
        )

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """One iteration on a batch of a stream; the first call needs ``classes``, all labels there will be.

        The first call also fixes the scale of X; ``forgetting`` as for BALIRegressor. Shapes and errors as in fit.
        """
        first = not hasattr(self, "state_")
        if first:
            if classes is None:
                raise InvalidArgumentError("classes must be given in the first call of partial_fit, got None")
            if np.ndim(self._host(classes)) != 1:
                raise InvalidArgumentError(f"classes must be a sequence of all labels there will be, got {classes!r}")
            self._known_classes = np.unique(as_labels(self._host(classes), len(classes)))
        try:
            return self._partial_fit(X, y, sample_weight, first)
        finally:
            self.__dict__.pop("_known_classes", None)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label at each row of X (n, d); (n,)."""
        return self._like(X, self._by_blocks(X, self._most_probable))

    def _most_probable(self, predictive: Predictive) -> np.ndarray:
        probabilities: Any = predictive.probabilities
        labels: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, in the order of classes_, (n, K)."""
        probabilities: np.ndarray = self._like(X, self._by_blocks(X, _probabilities))
        return probabilities

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = 0) -> np.ndarray:
        """Draws of the label at X (n, d): (n, n_samples)."""
        check_integer("n_samples", n_samples, 1)
        cumulative = np.cumsum(np.asarray(self.predict_proba(self._host(X))), axis=1)
        uniform = as_generator(random_state).random((len(cumulative), n_samples))
        index = (uniform[:, :, None] > cumulative[:, None, :]).sum(axis=2)
        return self._like(X, self.classes_[np.minimum(index, len(self.classes_) - 1)])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of labels predicted right."""
        predicted = np.asarray(self.predict(self._host(X)))
        right = predicted == gathered(as_labels(self._host(y), len(predicted)))
        return float(np.average(right, weights=gathered(as_sample_weight(self._host(sample_weight), len(predicted)))))

    def _automatic(self, rows: int) -> dict[str, Any]:
        return {"batch_size": 200, "max_iterations": 2000} if rows < MANY_ROWS else {"batch_size": 500}

    def _table_settings(self, rows: int) -> Settings:
        settings = super()._table_settings(rows)
        if self.preset is not None or rows >= MANY_ROWS:
            return settings
        chosen = self._chosen()
        if "trust_region" not in chosen:  # inputs that occur a hundred times can throw the first steps off
            settings = replace(settings, trust_region=True)
        return settings if self.hidden_widths else convex(settings, chosen)

    def _undecided(self, settings: Settings) -> bool:
        return "prior_precision" not in (self.settings or {})

    def _outputs(self) -> int:
        return len(self.classes_)

    def _likelihood(self) -> Categorical:
        return Categorical(get_backend(self.backend))

    def _fit_targets(self, y: Any, features: Rows, weight: Rows | None) -> Rows:
        labels = as_labels(y, len(features))
        self._dtype = features.dtype.type
        self.classes_ = self._known_classes if hasattr(self, "_known_classes") else labels_present(labels, weight)
        if len(self.classes_) < 2:
            raise InvalidArgumentError(
                f"y must have at least two classes to tell apart, got one class: {self.classes_[0]}"
            )
        return self._indices(labels, weight)

    def _numbered(self, y: Any, rows: int) -> Rows:
        labels = as_labels(y, rows)
        if getattr(y, "ndim", 1) == 2:
            warn_caller(
                "A column-vector y was passed when a 1d array was expected; use y.ravel()",
                kin(DataConversionWarning),
            )
        return labels if isinstance(labels, RowSource) else np.unique(labels, return_inverse=True)[1].reshape(-1)

    def _later_targets(self, y: Any, rows: int) -> Rows:
        return self._indices(as_labels(y, rows))

    def _indices(self, labels: Rows, weight: Rows | None = None) -> Rows:
        """The places of the labels among the classes; a row without weight may have any label, and gets some place."""
        unknown = np.setdiff1d(labels_present(labels, weight), self.classes_)
        if len(unknown):
            known = self.classes_.tolist()
            raise InvalidArgumentError(f"y has labels that are not among the classes {known}: {unknown.tolist()}")
        place = partial(_places, self.classes_)
        return labels.map(place) if isinstance(labels, RowSource) else place(labels)

    def _rescaled(self, p: Predictive) -> Predictive:
        return p

    def _in_units(self, record: IterationRecord) -> IterationRecord:
        return record


def _places(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(classes, labels), len(classes) - 1)


def _probabilities(predictive: Predictive) -> np.ndarray:
    probabilities: Any = predictive.probabilities
    return np.asarray(probabilities)
