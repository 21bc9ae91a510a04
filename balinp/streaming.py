"""Streams: how many rows a batch stands for when older ones are to be forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .settings import Settings
from .solver import moving_rate


def stream_settings(
    settings: Settings, forgetting: float, iteration: int, rows: float, chosen: dict[str, Any] | None = None
) -> tuple[Settings, float]:
    """(settings, total) under which ``bali_step`` forgets: rate φ, the whole moving average as the step unless
    ``chosen`` settings name another, and the batch of so many ``rows`` m standing for N = m/β_t.   (eq:forgetting)

    Then N β_t/m = 1: a row counts once when it is new, (1 − β_t) times that after every later batch, and the sums are
    those of (1 + (1 − φ) + (1 − φ)² + …) m = m/φ rows in the long run, however long the stream.
    """
    step = settings.step_scale if "step_scale" in (chosen or {}) else None
    return replace(settings, rate=forgetting, step_scale=step), rows / moving_rate(forgetting, iteration)
