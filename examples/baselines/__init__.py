"""Baselines to compare BALI with: short, in NumPy, on balinp's own MLP. Examples, not part of the package."""

from __future__ import annotations

from . import bayes_by_backprop, ensemble, ivon, laplace, mc_dropout, swag
from . import map as map_
from .common import Method, Prediction, tuned

METHODS = {
    "map": Method(map_.fit, map_.GRID),
    "bayes_by_backprop": Method(bayes_by_backprop.fit, bayes_by_backprop.GRID, pick_noise=False),
    "mc_dropout": Method(mc_dropout.fit, mc_dropout.GRID),
    "ivon": Method(ivon.fit, ivon.GRID, pick_noise=False),
    "swag": Method(swag.fit, swag.GRID, from_map=True),
    "laplace_last": Method(laplace.fit, laplace.LAST_LAYER_GRID, from_map=True, pick_noise=False),
    "laplace_kfac": Method(laplace.fit, laplace.GRID, from_map=True, pick_noise=False),
    "ensemble": Method(ensemble.fit, ensemble.GRID, from_map=True, single=False),
}

__all__ = ["METHODS", "Method", "Prediction", "tuned"]
