"""Ctrl-C while a fit runs: the first asks it to end after the iteration, the second aborts."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """``with Interruption() as interruption:`` the first SIGINT inside only sets ``interruption.asked``.

    A second one raises KeyboardInterrupt, and so does the end of the block if nobody has ``answered()`` the first.

    In the main thread, and where SIGINT would have raised KeyboardInterrupt; elsewhere it changes nothing. The previous
    handler comes back at the end, however the block ends.
    """

    def __init__(self) -> None:
        self.asked = False
        self._answered = False
        self._previous: Any = None

    def answered(self) -> bool:
        """Whether the fit has been asked to end; from now on it counts as known."""
        self._answered = self._answered or self.asked
        return self.asked

    def __enter__(self) -> Interruption:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if error is None and self.asked and not self._answered:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
