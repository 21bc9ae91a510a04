"""The fit loop: iterations of BALI over the whole data or mini-batches, their history, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol, TypeAlias

from .averaging import AveragedMeans, averaged_means
from .backend import Array, Backend
from .blocks import held_rows
from .caller import warn_caller
from .errors import ConvergenceWarning, InvalidArgumentError
from .heteroscedastic import Heteroscedastic
from .likelihoods import Categorical, Gaussian, Likelihood
from .mlp import MLP
from .predictive import predict_monte_carlo
from .settings import Settings
from .solver import bali_step, refuse_no_weight
from .state import BALIState, initial_state


@dataclass(frozen=True)
class IterationRecord:
    """What one pass over the data (full batch: one iteration) left to report; losses in nats per datum.

    iteration counts the calls of bali_step so far.

    train_nll is the mean loss the iteration met, at the weights its gradients were taken at; test_nll that of a
    ten-draw Monte-Carlo predictive of the state that the fit would end at. The tuples run over the layers;
    noise_variance over the outputs (empty for classes and for noise that depends on the input). seconds is time since
    the start.
    """

    iteration: int
    train_nll: float
    test_nll: float | None
    step_scale: float
    noise_variance: tuple[float, ...]
    prior_precision: tuple[float, ...]
    effective_parameters: tuple[float, ...]
    log_evidence: tuple[float, ...]
    temperature: float
    seconds: float


Callback: TypeAlias = Callable[[BALIState, IterationRecord], Any]  # returning True ends the fit


@dataclass(frozen=True)
class FitResult:
    """The state after the last iteration (with averaged means, where ``averaging`` asks for them), a record of each,
    whether the training loss had stopped falling, and whether the fit was interrupted before it came to its end.
    (eq:stopping, eq:averaged-means)
    """

    state: BALIState
    history: tuple[IterationRecord, ...] = field(default=())
    converged: bool = False
    interrupted: bool = False


@dataclass(frozen=True)
class Standing:
    """Where a fit stands between two iterations: all that is needed to go on to the same bits.   (eq:resume)

    ``batches`` of the pass under way are done; ``losses`` is their sum in nats over rows of total weight ``rows``.
    ``drawn`` and ``generator`` are the states of the generator's bit generator at the start of that pass, where its
    partition is drawn, and now. ``seconds`` were spent. ``ended``: None, "converged", "stopped" (by a callback) or
    "budget". ``averaged`` is what the fit would end at, once weights have been drawn and where that is asked for.
    """

    state: BALIState
    history: tuple[IterationRecord, ...] = ()
    batches: int = 0
    losses: float = 0.0
    rows: float = 0.0
    drawn: Any = None
    generator: Any = None
    seconds: float = 0.0
    ended: str | None = None
    averaged: AveragedMeans | None = None


class Keeper(Protocol):
    """What keeps a fit's standing: ``balinp.checkpoint.Checkpoint``.   (eq:resume)"""

    def resume(self, subject: Mapping[str, Any], backend: Backend) -> Standing | None:
        """The standing kept of a fit of ``subject`` (its arguments by name), on ``backend``; None: there is none yet.
        (eq:resume)"""

    def keep(self, standing: Callable[[], Standing], now: bool) -> None:
        """Offered the ``standing`` after every iteration; must be kept when ``now``.   (eq:resume)"""


def fit(
    x: Array,
    y: Array,
    mlp: MLP,
    likelihood: Likelihood,
    generator: Any,
    settings: Settings | None = None,
    preset: str | None = None,
    state: BALIState | None = None,
    test: tuple[Array, Array] | None = None,
    sample_weight: Array | None = None,
    callbacks: Callback | Sequence[Callback] | None = None,
    checkpoint: Keeper | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> FitResult:
    """Repeat ``bali_step`` until the training loss stops falling or the budget ends.
    (eq:iteration, eq:stopping, eq:resume, eq:averaged-means)

    Shapes: x (N, D), y (N, K) or class indices (N,), sample_weight (N,); ``test`` a pair like (x, y). ``settings``,
    or ``preset`` ("literal": the abstract's reading alone). ``state`` continues an earlier fit, from where that ended
    (averaged means, if it averaged). ``callbacks``, one or several callables, get (state, record) after every pass over
    the data (full batch: every iteration), the state that the fit would end at; one that returns True ends it there.
    ``checkpoint`` is where the fit goes on from and what it keeps its standing in; ``interrupted()``, asked after every
    iteration, ends it there. ``generator`` is a numpy Generator: the same seed gives the same bits, resumed or not.
    Rows may be Dask arrays (``balinp.distributed``; a mini-batch then takes its share of every chunk) or a RowSource
    (``balinp.rows``). A mini-batch of rows without weight is passed over. Warns with ConvergenceWarning when the budget
    of iterations ends first; raises as bali_step does.
    """
    if settings is not None and preset is not None:
        raise InvalidArgumentError("give settings or preset, not both; Settings.preset(name, ...) joins them")
    settings = settings or Settings.preset(preset)
    x, y, sample_weight = held_rows(x, y, sample_weight)
    _check_rows(x, y, mlp, likelihood, sample_weight)
    subject = {"x": x, "y": y, "sample_weight": sample_weight, "test": test, "network": mlp, "likelihood": likelihood}
    subject |= {"settings": settings, "state": state, "generator": generator}
    kept = None if checkpoint is None else checkpoint.resume(subject, mlp.backend)
    here = kept or Standing(state or initial_state(mlp, likelihood, generator, settings, x.dtype))
    current, history, ended, averaged = here.state, list(here.history), here.ended, here.averaged
    done, losses, seen, drawn = here.batches, here.losses, here.rows, here.drawn
    total = float(len(x)) if sample_weight is None else float(sample_weight.sum())
    refuse_no_weight(total)
    per_pass = 1 if settings.batch_size is None else -(-len(x) // settings.batch_size)
    patience = max(3, -(-settings.patience // per_pass))  # in passes
    budget = -(-settings.max_iterations // per_pass)
    start, cut = time.perf_counter() - here.seconds, False
    batches: list[Any] = []
    if done:  # amid a pass: its partition is drawn again
        generator.bit_generator.state = drawn
        batches = _weighed_batches(x, sample_weight, per_pass, generator, mlp.backend)
    if kept is not None:
        generator.bit_generator.state = here.generator

    def standing() -> Standing:
        now = generator.bit_generator.state
        spent = time.perf_counter() - start
        return Standing(current, tuple(history), done, losses, seen, drawn, now, spent, ended, averaged)

    while ended is None and not cut:
        if done == 0:
            losses, seen, drawn = 0.0, 0.0, None if checkpoint is None else generator.bit_generator.state
            batches = _weighed_batches(x, sample_weight, per_pass, generator, mlp.backend)
        batch_x, batch_y, weight = (_taken(array, batches[done]) for array in (x, y, sample_weight))
        sampled = current.is_sampled(settings)
        current = bali_step(current, batch_x, batch_y, generator, settings, total, weight)
        if sampled and settings.averaging is not None:
            averaged = averaged_means(averaged, current.means, settings.averaging)
        count = float(len(batch_y)) if weight is None else float(weight.sum())
        losses, seen, done = losses + current.training_loss * count, seen + count, (done + 1) % len(batches)
        if done == 0:
            model = _ended(current, averaged)
            history.append(_record(model, losses / total, test, time.perf_counter() - start))
            stop = _any_stops(callbacks, model, history[-1])
            recent = history[settings.warmup :][-2 * patience :]
            converged = has_plateaued([r.train_nll for r in recent], patience, settings.tolerance)
            ended = _ending(converged, stop, len(history) >= budget)
        cut = ended is None and interrupted is not None and interrupted()
        if checkpoint is not None:
            checkpoint.keep(standing, now=cut or ended is not None)
    if done:  # cut amid a pass
        history.append(_record(_ended(current, averaged), losses / seen, test, time.perf_counter() - start))
    if ended == "budget" and settings.tolerance > 0:
        warn_caller(
            f"max_iterations={settings.max_iterations} ended before the training loss stopped falling by more than "
            f"{settings.tolerance:g} nats in {settings.patience} iterations; raise max_iterations",
            ConvergenceWarning,
        )
    return FitResult(_ended(current, averaged), tuple(history), ended == "converged", cut)


def _ended(state: BALIState, averaged: AveragedMeans | None) -> BALIState:
    """The model of a fit that ends at ``state``.   (eq:averaged-means)"""
    return state if averaged is None else state.with_means(averaged.means)


def _any_stops(callbacks: Callback | Sequence[Callback] | None, state: BALIState, record: IterationRecord) -> bool:
    """Whether one of the callbacks, all of which are called, returns True."""
    several = [] if callbacks is None else [callbacks] if callable(callbacks) else callbacks
    answers = [callback(state, record) for callback in several]
    return any(answer is True for answer in answers)


def _ending(converged: bool, stop: bool, exhausted: bool) -> str | None:
    return "converged" if converged else "stopped" if stop else "budget" if exhausted else None


def has_plateaued(losses: Sequence[float], patience: int, tolerance: float) -> bool:
    """Whether the median of the last ``patience`` losses is less than ``tolerance`` below that of the ``patience``
    before.   (eq:stopping)"""
    if tolerance == 0 or len(losses) < 2 * patience:
        return False
    return median(losses[-2 * patience : -patience]) - median(losses[-patience:]) < tolerance


def _weighed_batches(x: Array, sample_weight: Array | None, count: int, generator: Any, backend: Backend) -> list[Any]:
    """The batches of a pass but for those whose rows are all without weight: nothing of them could stand for the data.
    (eq:iteration)"""
    batches = list(_batches(x, count, generator, backend))
    if sample_weight is None or count == 1:
        return batches
    return [rows for rows in batches if float(_taken(sample_weight, rows).sum()) != 0]


def _batches(x: Array, count: int, generator: Any, backend: Backend) -> Iterator[Any]:
    """All rows at once, or a random partition of them into ``count`` batches of nearly equal size; a source whose rows
    are elsewhere makes its own."""
    if count == 1:
        yield slice(None)
        return
    if hasattr(x, "batches"):
        yield from x.batches(count, generator)
        return
    rows = len(x)
    order = backend.asarray(generator.permutation(rows))
    for i in range(count):
        yield order[rows * i // count : rows * (i + 1) // count]


def _taken(array: Any, rows: Any) -> Any:
    """Those rows of an array; all of them as they are, lest a file be read for them."""
    return array if array is None or isinstance(rows, slice) else array[rows]


def _record(state: BALIState, loss: float, test: tuple[Array, Array] | None, seconds: float) -> IterationRecord:
    layers, likelihood = state.layers, state.likelihood
    noise = (
        likelihood.backend.to_host(likelihood.noise_variance).reshape(-1) if isinstance(likelihood, Gaussian) else ()
    )
    return IterationRecord(
        state.iteration,
        loss,
        None if test is None else negative_log_likelihood(state, *test),
        state.step_scale,
        tuple(float(v) for v in noise),
        tuple(layer.prior_precision for layer in layers),
        tuple(layer.effective_parameters for layer in layers),
        tuple(layer.log_evidence for layer in layers),
        state.temperature,
        seconds,
    )


def negative_log_likelihood(state: BALIState, x: Array, y: Array, draws: int = 10) -> float:
    """Mean −log p(y) in nats under a Monte-Carlo predictive of a few draws, always the same ones (they come from
    seed 0).   (eq:predictive-density)"""
    backend = state.mlp.backend
    predictive = predict_monte_carlo(state, x, backend.generator(0), draws)
    if not isinstance(state.likelihood, Categorical):
        return -float(predictive.log_density(y, backend).mean())
    xp, p = backend.xp, predictive.probabilities
    assert p is not None
    p = xp.maximum(p, float(xp.finfo(p.dtype).tiny))  # lest the loss take 0 times the infinite log p of other classes
    return float(state.likelihood.loss(xp.log(p), y).mean())


def _check_rows(x: Array, y: Array, mlp: MLP, likelihood: Likelihood, sample_weight: Array | None) -> None:
    targets = mlp.widths[-1] // (2 if isinstance(likelihood, Heteroscedastic) else 1)
    if x.ndim != 2 or x.shape[1] != mlp.widths[0] or len(x) == 0:
        raise InvalidArgumentError(f"x must have shape (N, {mlp.widths[0]}) with N >= 1, got {x.shape}")
    if len(y) != len(x) or (y.ndim == 2 and y.shape[1] != targets) or y.ndim > 2:
        raise InvalidArgumentError(
            f"y must have shape ({len(x)}, {targets}) or be class indices ({len(x)},), got {y.shape}"
        )
    if sample_weight is not None and sample_weight.shape != (len(x),):
        raise InvalidArgumentError(f"sample_weight must have shape ({len(x)},), got {sample_weight.shape}")
