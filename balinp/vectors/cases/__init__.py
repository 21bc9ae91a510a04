"""The cases of every operation and the classic mistakes that they catch; needs mpmath (extra ``test``)."""

from . import iteration, layer, matrix_normal, network, predictive, rules
from .kit import Case, Mistake, Operation

OPERATIONS: tuple[Operation, ...] = (
    *network.OPERATIONS,
    *layer.OPERATIONS,
    *matrix_normal.OPERATIONS,
    *rules.OPERATIONS,
    *predictive.OPERATIONS,
    *iteration.OPERATIONS,
)

__all__ = ["OPERATIONS", "Case", "Mistake", "Operation"]
