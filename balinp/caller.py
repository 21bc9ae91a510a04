"""Warnings that point at the line outside the package that called it, however deep inside they are found."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


def warn_caller(text: str, category: type[Warning]) -> None:
    """``warnings.warn`` as if from the first line up the stack that is not of this package.

    (Python 3.12 has ``skip_file_prefixes`` for it.)
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
