"""What the pictures are drawn on: figures without pyplot, the legend above the axes, files written whole."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidArgumentError
from ..files import write_atomically

BLUE, ORANGE = "#1b5e9b", "#d9770f"


def check_picture(path: str | Path) -> None:
    """Raises InvalidArgumentError when matplotlib is not installed or does not write files named like ``path``."""
    check_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if _format(path) not in known:
        raise InvalidArgumentError(f"a picture named {path} cannot be written; end its name in one of {known}")


def check_matplotlib() -> None:
    """Raises InvalidArgumentError when matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidArgumentError("a picture needs matplotlib: pip install 'balinp[plot]'")


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a matplotlib Figure; the file appears whole or not at all. Raises ModelFileError naming the path."""
    write_atomically(path, lambda file: figure.savefig(file, format=_format(path), dpi=150))


def combined(drawings: Sequence[Callable[[Any], Any]], title: str = "", columns: int = 3) -> Any:
    """A Figure with the pictures side by side, at most ``columns`` in a row and as many in each as fill the rows alike;
    each of ``drawings`` draws on the axes it gets."""
    check_matplotlib()
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    down = -(-len(drawings) // columns)
    across = -(-len(drawings) // down)
    figure = Figure(figsize=(5.2 * across, 4.4 * down), layout="constrained")
    if title:
        figure.suptitle(title.replace("$", r"\$"))
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for each in axes[len(drawings) :]:
        each.remove()
    for each, draw in zip(axes, drawings):
        each.grid(alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
        draw(each)
    return figure


def axes_or_new(ax: Any) -> Any:
    """``ax``, or the axes of a new Figure."""
    return combined([lambda new: new]).axes[0] if ax is None else ax


def legend(axes: Any, handles: list[Any] | None = None, columns: int = 2) -> None:
    """The legend above the axes, where it hides no data."""
    handles = axes.get_legend_handles_labels()[0] if handles is None else handles
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=9)


def _format(path: str | Path) -> str:
    return Path(path).suffix.lower().lstrip(".")
