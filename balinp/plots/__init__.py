"""Pictures of a fit. Each function draws on ``ax``, or on a new Figure's axes when None, and returns the axes.

matplotlib (extra ``plot``) is imported on use, pyplot never: nothing global is left behind, no window opens. A picture
is saved by ``save_figure(axes.figure, path)``. Marks differ in shape, line style and hatch, not in colour alone: they
can be told apart in black and white.
"""

from .canvas import check_picture, combined, save_figure
from .classification import plot_class_uncertainty, plot_reliability, plot_roc
from .fit import plot_epistemic_by_layer, plot_history
from .regression import plot_band, plot_coverage, plot_predictions

__all__ = [
    "check_picture",
    "combined",
    "plot_band",
    "plot_class_uncertainty",
    "plot_coverage",
    "plot_epistemic_by_layer",
    "plot_history",
    "plot_predictions",
    "plot_reliability",
    "plot_roc",
    "save_figure",
]
