"""What accompanies the fits of an estimator: the log, callbacks, the checkpoint, Ctrl-C."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .checkpoint import Checkpoint
from .errors import InvalidArgumentError
from .interruption import Interruption
from .mlp import MLP
from .settings import Settings
from .state import BALIState
from .training import Callback, FitResult, IterationRecord, fit
from .wide import InputMap

LOGGER = logging.getLogger("balinp")


def as_callbacks(callbacks: Any) -> list[Callback]:
    """A list of the callables; raises InvalidArgumentError for anything else than None, one, or a sequence of them."""
    own = [] if callbacks is None else [callbacks] if callable(callbacks) else callbacks
    if not isinstance(own, Sequence) or not all(map(callable, own)):
        raise InvalidArgumentError(f"callbacks must be a callable or a sequence of them, got {callbacks!r}")
    return list(own)


class Session:
    """One call of an estimator's fit, which makes several: each goes through ``fit`` with a name of its own.

    The logger "balinp" gets a line (INFO) when one begins and ends, and one (DEBUG) after every record, with the
    attributes ``phase``, ``record`` (None at the beginning and the end) and ``budget`` (iterations at most) for who
    wants to draw them. ``verbose`` 1 or 2 writes the INFO or also the DEBUG lines to stderr if logging does not take
    them. Losses are in nats per row, in the units that ``units`` turns a record into.
    """

    def __init__(
        self,
        verbose: int = 0,
        checkpoint: Checkpoint | None = None,
        interruption: Interruption | None = None,
        units: Callable[[IterationRecord], IterationRecord] | None = None,
    ):
        self.verbose, self.checkpoint, self._units = verbose, checkpoint, units
        self._interruption = interruption or Interruption()
        self.last: FitResult | None = None  # of the fit called ``phase``, on so many ``rows``
        self.phase, self.rows = "", 0
        self.inputs: InputMap | None = None

    def interrupted(self) -> bool:
        """Whether the fits have been asked to end."""
        return self._interruption.answered()

    def ended(self) -> bool:
        """Whether no other fit should begin: Ctrl-C came, in a fit or since, and there is a network to be the model."""
        return self.last is not None and self.interrupted()

    def fit(
        self,
        phase: str,
        x: Any,
        y: Any,
        mlp: MLP,
        likelihood: Any,
        generator: Any,
        settings: Settings,
        *,
        callbacks: Callback | Sequence[Callback] | None = None,
        inputs: InputMap | None = None,
        **more: Any,
    ) -> FitResult:
        """``balinp.fit``, accompanied; ``phase`` is its name in the log and in the checkpoint, ``inputs`` what made x
        of the standardised inputs, if it is another than before. Weights that no row had a say in end at the prior."""
        own = as_callbacks(callbacks)
        budget, start = settings.max_iterations, time.perf_counter()
        self.say(logging.INFO, f"{phase}: {len(x)} rows, at most {budget} iterations", phase, None, budget)

        def note(state: BALIState, record: IterationRecord) -> None:
            if self.verbose > 1 or LOGGER.isEnabledFor(logging.DEBUG):
                shown = self._units(record) if self._units else record
                self.say(logging.DEBUG, f"{phase}: {_line(shown)}", phase, shown, budget)

        place = None if self.checkpoint is None else self.checkpoint.part(phase)
        more |= {"callbacks": [note, *own], "checkpoint": place, "interrupted": self.interrupted}
        self.phase, self.rows, self.inputs = phase, len(x), inputs or self.inputs
        result = fit(x, y, mlp, likelihood, generator, settings, **more)
        self.last = result = replace(result, state=result.state.with_silent_weights_at_prior())
        end = "interrupted" if result.interrupted else "converged" if result.converged else "ended"
        text = f"{phase}: {end} after iteration {result.state.iteration}, {time.perf_counter() - start:.1f} s"
        self.say(logging.INFO, text, phase, None, budget)
        return result

    def say(
        self, level: int, text: str, phase: str = "", record: IterationRecord | None = None, budget: int = 0
    ) -> None:
        """A line for the log, or for stderr where ``verbose`` asks for it and logging is not set up to take it."""
        attributes = {"phase": phase, "record": record, "budget": budget}
        if LOGGER.hasHandlers() and LOGGER.isEnabledFor(level):
            LOGGER.log(level, "%s", text, extra=attributes)
        elif level >= {0: logging.CRITICAL, 1: logging.INFO, 2: logging.DEBUG}[int(self.verbose)]:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter("balinp: %(message)s"))
            handler.handle(LOGGER.makeRecord(LOGGER.name, level, "", 0, "%s", (text,), None, extra=attributes))


def _line(record: IterationRecord) -> str:
    test = "" if record.test_nll is None else f", test NLL {record.test_nll:.4g}"
    return f"iteration {record.iteration}, train NLL {record.train_nll:.4g}{test}, {record.seconds:.1f} s"
