"""The progress bar of the command, drawn from what the logger "balinp" says of the fits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .report import number
from .session import LOGGER


@contextmanager
def progress_bar(wanted: bool) -> Iterator[None]:
    """Inside, every fit moves a bar of its own, if stderr is a terminal and tqdm (extra ``progress``) is installed."""
    tqdm = _tqdm() if wanted and sys.stderr.isatty() else None
    if tqdm is None:
        yield
        return
    handler, before = _Bar(tqdm), (LOGGER.level, LOGGER.propagate)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False  # whoever calls the command from Python asked for no lines
    try:
        yield
    finally:
        handler.end()
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(before[0])
        LOGGER.propagate = before[1]


def _tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm


class _Bar(logging.Handler):
    """One tqdm bar for the phase under way; ``end`` closes it."""

    def __init__(self, tqdm: Any):
        super().__init__()
        self._tqdm = tqdm
        self._bar: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        said: Any = record
        if said.record is None:  # a fit begins, or ends
            self.end()
            return
        if self._bar is None:
            name = f"{said.phase} (at most)"
            self._bar = self._tqdm(total=said.budget, desc=name, unit="it", leave=False, file=sys.stderr)
        bar, now = self._bar, said.record
        bar.total = max(said.budget, now.iteration)
        loss = now.train_nll if now.test_nll is None else now.test_nll
        bar.set_postfix_str(f"{'train' if now.test_nll is None else 'test'} NLL {number(loss)}", refresh=False)
        bar.update(now.iteration - bar.n)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
