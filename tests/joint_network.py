"""A small network, its state and some rows, for the tests of the joint posterior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from balinp import MLP, Gaussian, Settings, initial_state


def problem(widths=(3, 4, 2), n=11, seed=0):
    rng = np.random.default_rng(seed)
    mlp = MLP(widths, "tanh")
    weights = [rng.standard_normal(shape) for shape in mlp.shapes]
    return mlp, Gaussian(np.linspace(0.5, 1, widths[-1])), weights, rng.standard_normal((n, widths[0]))


def precisions_of(mlp, seed):
    return np.random.default_rng([seed, 3]).uniform(0.2, 3, len(mlp.shapes))


def diagonal(mlp, tau):
    return np.diag(np.concatenate([np.full(d * k, t) for t, (d, k) in zip(tau, mlp.shapes)]))


def state_of(mlp, likelihood, weights, tau):
    """A state with these means and prior precisions."""
    state = initial_state(mlp, likelihood, np.random.default_rng(0), Settings())
    layers = (
        replace(layer, posterior=layer.posterior.with_mean(w), prior_precision=float(t))
        for layer, w, t in zip(state.layers, weights, tau)
    )
    return replace(state, layers=tuple(layers))


def sinc_rows(n=120, seed=0):
    """sinc with noise 0.05 on [−3, 0.5] and [1.7, 3]."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < 0.5, rng.uniform(-3, 0.5, n), rng.uniform(1.7, 3, n))
    return x[:, None], np.sinc(x) + 0.05 * rng.standard_normal(n)
