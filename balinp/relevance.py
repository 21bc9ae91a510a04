"""How much each input counts, learnt by a first fit: automatic relevance determination by rescaling the inputs."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from .errors import ConvergenceWarning
from .likelihoods import Gaussian
from .mlp import MLP
from .rows import RowSource, on_backend
from .session import Session
from .settings import Settings
from .wide import InputMap, Span, is_wide

ITERATIONS = 300  # of the first fit; the order of the inputs shows long before the fit has converged
LEAST = 0.3  # relevance of an input at least: that a first fit uses it little is no proof that it does not count


def input_relevance(
    x: np.ndarray | RowSource,
    y: np.ndarray | RowSource,
    weight: np.ndarray | RowSource | None,
    mlp: MLP,
    likelihood: Gaussian,
    settings: Settings,
    seed: int,
    session: Session | None = None,
    phase: str = "relevance",
    inputs: InputMap | None = None,
) -> np.ndarray:
    """r_d = ‖M_d‖/√(mean ‖M‖²), the size of input d's first-layer weights after a fit of their own, (D,).
    (eq:input-relevance)

    A fit on x · r has, for the weights of x itself, the prior N(0, r_d²/τ): inputs that did not count are kept from
    counting by accident, with one τ per layer as before. An input that is the same in all rows says nothing of itself:
    r_d = 1. Where few rows span less than all inputs the fit is in coordinates of the span (eq:input-span).
    Shapes: x (N, D), y (N, K), weight (N,), on the host; ``inputs`` is what made x of standardised inputs.
    """
    short = replace(settings, max_iterations=min(settings.max_iterations, ITERATIONS))
    run, generator, span = session or Session(), np.random.default_rng(seed), None
    inputs, core = inputs or InputMap(x.dtype), mlp.backend
    if is_wide(x, settings) and isinstance(x, np.ndarray):
        known, span = x, Span.if_part(x, inputs.dtype)
        if span is not None:
            inputs, mlp = replace(inputs, span=span), span.network(mlp)
        x = known.astype(inputs.dtype) if span is None else span.transform(known, inputs.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it need not converge
        rows = on_backend(x, core), on_backend(y, core)
        w = on_backend(weight, core)
        state = run.fit(phase, *rows, mlp, likelihood, generator, short, sample_weight=w, inputs=inputs).state
    weights = core.to_host(state.means[0]).astype(np.float64)[:-1]
    if span is None:
        varies = np.diagonal(core.to_host(state.layers[0].statistics.gram))[:-1] > 0
    else:
        varies, weights = np.any(known != 0, axis=0), span.weights(weights)
    size = np.sqrt(np.mean(weights**2, axis=1))
    mean = np.sqrt(np.mean(size[varies] ** 2)) if np.any(varies) else 0.0
    return np.where(varies, np.maximum(size / mean, LEAST), 1.0) if mean > 0 else np.ones_like(size)
