"""The cases of every operation and the classic mistakes that they catch; needs mpmath (extra ``test``)."""

from . import fits, iteration, likelihoods, matrix_normal, network, predictive, priors, regression, rules, sums
from .kit import Case, Mistake, Operation

OPERATIONS: tuple[Operation, ...] = (
    *network.OPERATIONS,
    *likelihoods.OPERATIONS,
    *sums.OPERATIONS,
    *regression.OPERATIONS,
    *matrix_normal.OPERATIONS,
    *priors.OPERATIONS,
    *rules.OPERATIONS,
    *predictive.OPERATIONS,
    *iteration.OPERATIONS,
    *fits.OPERATIONS,
)

__all__ = ["OPERATIONS", "Case", "Mistake", "Operation"]
