"""Data and fits that the tests of checkpoints share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from balinp import (
    MLP,
    Categorical,
    Gaussian,
    Heteroscedastic,
    Settings,
)

rng = np.random.default_rng(0)
X = rng.standard_normal((40, 3))
Y = np.column_stack([np.sin(X[:, 0]), X[:, 1]]) + 0.1 * rng.standard_normal((40, 2))
WEIGHT = np.random.default_rng(1).uniform(0.5, 2, 40)


def subject(kind, dtype, weighted, batch_size):
    """Arguments of a core fit; ``weighted`` "few": only three rows count."""
    y = Y[:, 0] > 0 if kind == "classes" else Y.astype(dtype)
    outputs = {"gaussian": 2, "classes": 2, "input-dependent": 4}[kind]
    likelihoods = {"gaussian": Gaussian(dtype(0.5)), "classes": Categorical(), "input-dependent": Heteroscedastic()}
    settings = Settings(warmup=2, max_iterations=12, tolerance=0, batch_size=batch_size, averaging=0.2)
    settings = replace(settings, trust_region=kind == "input-dependent")
    counts = WEIGHT * (np.arange(40) < 3) if weighted == "few" else WEIGHT
    weight = counts.astype(dtype) if weighted else None
    positional = X.astype(dtype), y.astype(int) if kind == "classes" else y, MLP((3, 5, outputs), "tanh")
    return (*positional, likelihoods[kind]), {"settings": settings, "sample_weight": weight, "test": positional[:2]}
