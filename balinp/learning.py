"""What an estimator does with data: the fits of a whole table one after the other, or one iteration on a batch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .backend import get_backend
from .blocks import held_rows, reduce_blocks
from .caller import warn_caller
from .distinct import joined_rows
from .errors import BALIError, ConvergenceWarning, InterruptedFitWarning, InvalidArgumentError
from .heldout import MOST_ROWS
from .heldout_heteroscedastic import applied_to_log_variance
from .heldout_joint import applied_jointly
from .persistence import json_params
from .predictive import predict_linearized, predict_monte_carlo
from .rows import block_rows, gathered
from .session import Session, as_callbacks
from .solver import bali_step
from .state import BALIState, initial_state
from .streaming import stream_settings
from .threads import calm_threads
from .trial import HeldOut, with_enough_noise
from .validation import as_generator
from .wide import InputMap, InputMaps, Span, is_wide

FEW = 0.1  # weights that sum to less than this of their rows are shares, not counts


def learn(estimator: Any, X: Any, y: Any, sample_weight: Any, test: Any, callbacks: Any, session: Session) -> Any:
    """Fit ``estimator``: relevance of the inputs, what held-out rows say, the fit proper, each as it wants; itself.

    Interrupted before the last, the network of the fit that was going on is the model, and the warning says so.
    """
    data = estimator._prepare_data(X, y, sample_weight)
    _check_watched(estimator, test, callbacks)
    _tell_few(data[2])
    rows, weights = len(data[0]), sum(d * k for d, k in estimator._network().shapes)
    with calm_threads(min(rows, estimator._fit_settings(rows).batch_size or rows), weights):
        return _learnt(estimator, data, test, callbacks, session)


def _tell_few(weight: Any) -> None:
    """Warn of weights that make next to nothing of many rows: most likely they are shares."""
    if weight is None:
        return
    sums = reduce_blocks(_sum_and_count, block_rows(weight), weight)
    if sums[0] < FEW * sums[1]:
        warn_caller(
            f"sample_weight sums to {sums[0]:.3g} over {sums[1]:.0f} rows, which then count as so many: a weight of 2 "
            f"is the row twice; if the weights only compare rows, divide them by their mean",
            UserWarning,
        )


def _sum_and_count(start: int, weight: Any) -> np.ndarray:
    return np.array([weight.sum(), np.count_nonzero(weight)])


def _check_watched(estimator: Any, test: Any, callbacks: Any) -> None:
    """Refuse what the fit proper will need, before the fits that come first have taken their time."""
    as_callbacks(callbacks)
    if test is None:
        return
    if not isinstance(test, Sequence) or len(test) != 2:
        raise InvalidArgumentError(f"test must be a pair (X, y), got {type(test).__name__}")
    try:
        estimator._later_data(*test, None)
    except BALIError as error:
        raise type(error)(f"test: {error}") from error


def _learnt(estimator: Any, data: tuple[Any, ...], test: Any, callbacks: Any, session: Session) -> Any:
    generator = as_generator(estimator.random_state)
    if session.checkpoint is not None:
        params = {name: v for name, v in json_params(estimator.get_params()).items() if name != "verbose"}
        session.checkpoint.begin({"estimator": type(estimator).__name__, **params}, generator)
    estimator._predict_seed = int(generator.integers(2**63))
    wide = is_wide(data[0], estimator._fit_settings(len(data[0])))
    if wide and len(data[0]) <= MOST_ROWS:
        data = joined_rows(*data)
    wide = wide and isinstance(data[0], np.ndarray)
    seen, held_out = (_judged_wide if wide else _judged)(estimator, data, session)
    ended = session.ended()
    if ended:  # the model is the fit that was under way
        assert session.inputs is not None
        seen, held_out = session.inputs, None
    estimator._see(seen)
    data = (seen(data[0]), *data[1:])
    settings = estimator._table_settings(len(data[0])) if held_out is None else held_out.settings
    result = session.last
    if not ended:
        backend = get_backend(estimator.backend)
        x, targets, weight = estimator._moved(data, backend)
        more: dict[str, Any] = {"sample_weight": weight, "callbacks": callbacks}
        if test is not None:
            watched = tuple(gathered(rows) for rows in estimator._later_data(*test, None))
            more["test"] = estimator._moved(watched, backend)[:2]
        network = estimator._network()
        if held_out is not None and held_out.mlp is not None:
            network = replace(held_out.mlp, widths=(network.widths[0], *held_out.mlp.widths[1:]))
        core = network, estimator._likelihood()
        with warnings.catch_warnings():
            if estimator._planned(settings):
                warnings.simplefilter("ignore", ConvergenceWarning)
            result = session.fit("fit", x, targets, *core, generator, settings, **more)
    assert result is not None
    estimator.state_ = result.state
    if held_out is not None:
        estimator.state_ = _as_judged(estimator, held_out, result.state, data, generator)
    estimator._generator = generator
    estimator.history_ = [estimator._in_units(record) for record in result.history]
    estimator.n_iter_, estimator.converged_ = result.state.iteration, result.converged
    estimator.n_rows_seen_ = float(len(data[0]) if data[2] is None else data[2].sum())
    if session.interrupted():
        _tell_interrupted(session, estimator.n_iter_, len(data[0]))
    return estimator


def _judged(estimator: Any, data: tuple[Any, ...], session: Session) -> tuple[InputMap, HeldOut | None]:
    """How the fit proper is to see its inputs, scaled by their relevance, and what held-out rows said."""
    rows = len(data[0])
    relevance = estimator._relevance(*data, estimator._fit_settings(rows), session, "relevance", None)
    if session.ended():
        return InputMap(estimator._dtype), None
    session.inputs = seen = InputMap(estimator._dtype, relevance=relevance)
    return seen, estimator._held_out(seen(data[0]), *data[1:], estimator._table_settings(rows), session)


def _judged_wide(estimator: Any, data: tuple[Any, ...], session: Session) -> tuple[InputMap, HeldOut | None]:
    """The same of few rows for their inputs, where each fit sees its inputs as its own rows say, and held-out rows also
    say whether it is better off with relevance or without.   (eq:input-span, eq:held-out-choice)"""
    x, y, weight = data
    first, settings = estimator._fit_settings(len(x)), estimator._table_settings(len(x))

    def relevance(x: Any, y: Any, weight: Any, before: InputMap, name: str) -> np.ndarray | None:
        found: np.ndarray | None = estimator._relevance(x, y, weight, first, session, f"relevance{name}", before)
        return found

    maps, best, chosen = InputMaps(relevance, estimator._dtype), None, estimator._knows_relevance()
    estimator.x_span_ = Span.if_part(x)  # so many inputs the network has, more or less
    for way in (True, False) if chosen else (False,):
        if not session.ended():
            label = ", inputs alike" if chosen and not way else ""
            trial = {"inputs": partial(maps.learnt, way), "label": label}
            held = estimator._held_out(x, y, weight, settings, session, **trial)
            if held is not None and (best is None or held.loss < best.loss):
                best, chosen = held, way
    return maps.learnt(chosen and not session.ended(), x, y, weight, ""), best


def _as_judged(estimator: Any, held: HeldOut, state: BALIState, data: tuple[Any, ...], generator: Any) -> BALIState:
    """``state`` to predict with what held-out rows chose, and with more noise where its own rows contradict that."""
    if held.log_variance is not None:
        return applied_to_log_variance(held, state)
    if held.likelihood is None:  # classes; no hidden layers, whose noise is exact
        return held.applied(state)
    x, y, weight = estimator._moved(tuple(gathered(rows) for rows in data), state.mlp.backend)
    if held.posterior_noise is not None:
        return applied_jointly(held, state, x, y, weight, generator, estimator.draws)
    state = held.applied(state)
    if estimator._in_closed_form():
        return with_enough_noise(state, predict_linearized(state, x), y, weight)
    own = np.random.default_rng(estimator._predict_seed)
    return with_enough_noise(state, predict_monte_carlo(state, x, own, estimator.draws), y, weight)


def how_it_ended(estimator: Any) -> str:
    """Of the iterations of a fitted model: "converged", "as planned" (all of a budget that is meant to be used up) or
    "not converged"."""
    if estimator.converged_:
        return "converged"
    settings = estimator._table_settings(round(estimator.n_rows_seen_))
    used_up = estimator._planned(settings) and estimator.n_iter_ == settings.max_iterations
    return "as planned" if used_up else "not converged"


def _tell_interrupted(session: Session, iteration: int, rows: int) -> None:
    text = f"interrupted: the fit ended after iteration {iteration} and the model is what it had learnt by then"
    if session.phase != "fit":
        text = (
            f"interrupted in {session.phase!r}, a fit before the one proper: the model is its network after iteration "
            f"{iteration}, learnt from {session.rows} of {rows} rows, and its deviations are not those of a whole fit; "
            f"fit again, or for one fit only with relevance=False, validation_fraction=0 (classes: the second alone)"
        )
    if session.checkpoint is not None:
        text += f"; the same fit goes on from {session.checkpoint.path}"
    session.say(logging.WARNING, text)
    warn_caller(text, InterruptedFitWarning)


def learn_batch(estimator: Any, X: Any, y: Any, sample_weight: Any, first: bool) -> Any:
    """One iteration of ``estimator`` on a batch of a stream; itself.   (eq:forgetting)"""
    estimator._check_parameters()
    if first:
        x, targets, weight = estimator._prepare_data(X, y, sample_weight)
        estimator._generator = as_generator(estimator.random_state)
        estimator._predict_seed = int(estimator._generator.integers(2**63))
        core = estimator._network(), estimator._likelihood(), estimator._generator
        estimator.state_ = initial_state(*core, estimator._fit_settings(len(x)), estimator._dtype)
        estimator.history_, estimator.n_iter_, estimator.converged_, estimator.n_rows_seen_ = [], 0, False, 0.0
    else:
        if estimator.x_span_ is not None:  # rows to come may lie outside what those of the fit span
            estimator.state_, estimator.x_span_ = estimator.x_span_.unfolded(estimator.state_), None
        x, targets, weight = estimator._later_data(X, y, sample_weight)
        x, targets, weight = joined_rows(x, targets, weight)
    rows = float(len(x) if weight is None else weight.sum())
    estimator.n_rows_seen_ += rows
    settings, total = estimator._fit_settings(len(x)), estimator.n_rows_seen_
    if estimator.forgetting is not None:
        iteration, chosen = estimator.state_.iteration, estimator.settings
        settings, total = stream_settings(settings, estimator.forgetting, iteration, rows, chosen)
    x, targets, weight = held_rows(*estimator._moved((x, targets, weight), estimator.state_.mlp.backend))
    estimator.state_ = bali_step(estimator.state_, x, targets, estimator._generator, settings, total, weight)
    estimator.n_iter_ += 1
    return estimator
