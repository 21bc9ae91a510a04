"""Hypothesis strategies for small networks with weights and data: sizes, dtypes and seeds as in ``strategies.py``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..likelihoods import Categorical, Gaussian, Likelihood
from ..mlp import MLP
from ..settings import Settings
from ..state import BALIState, initial_state
from .strategies import SIZES, Draw, dtypes, seeds, sizes


@dataclass(frozen=True)
class NetworkProblem:
    """A small network with weights W_l (D_l, K_l) and data: inputs x (N, D), targets y (N, K), or labels (N,)."""

    mlp: MLP
    likelihood: Likelihood
    weights: list[np.ndarray]
    inputs: np.ndarray
    targets: np.ndarray
    seed: int = field(default=0)

    @property
    def dtype(self) -> np.dtype:
        """That of weights, inputs and, for the Gaussian, targets and noise."""
        return self.inputs.dtype

    @property
    def longest_sum(self) -> int:
        """The longest sum in a pass over the data, n of its residual ratios: all rows and widths one after another."""
        return len(self.inputs) + sum(self.mlp.widths) + len(self.weights)

    def generator(self) -> np.random.Generator:
        """A Generator for whatever else a test needs, the same one at every call."""
        return np.random.default_rng([self.seed, 1])

    def state(self, settings: Settings) -> BALIState:
        """The initial state under ``settings``, with this problem's weights for its means."""
        state = initial_state(self.mlp, self.likelihood, self.generator(), settings, self.dtype)
        layers = zip(state.layers, self.weights)
        return replace(state, layers=tuple(replace(s, posterior=s.posterior.with_mean(w)) for s, w in layers))


def random_network_problem(
    seed: int,
    rows: int,
    widths: tuple[int, ...],
    dtype: Any = "float64",
    kind: str = "gaussian",
    activation: str = "tanh",
    shared_noise: bool = False,
) -> NetworkProblem:
    """The NetworkProblem of that seed; ``kind`` "gaussian" or "categorical" (two outputs at least).

    Weights N(0, 1/D), biases too, so that hidden outputs are of order one; the Gaussian's noise variance lies in
    [0.25, 1], one per output unless ``shared_noise``.
    """
    generator, k = np.random.default_rng(seed), widths[-1]
    mlp = MLP(widths, activation)
    weights = [(generator.standard_normal(s) / np.sqrt(s[0])).astype(dtype) for s in mlp.shapes]
    x = generator.standard_normal((rows, widths[0])).astype(dtype)
    noise = np.asarray(generator.uniform(0.25, 1, () if shared_noise else (k,)), dtype=dtype)
    y = generator.standard_normal((rows, k)).astype(dtype) if kind == "gaussian" else generator.integers(0, k, rows)
    return NetworkProblem(mlp, Gaussian(noise) if kind == "gaussian" else Categorical(), weights, x, y, seed)


@st.composite
def network_problems(
    draw: Draw,
    rows: st.SearchStrategy[int] | None = None,
    kinds: tuple[str, ...] = ("gaussian", "categorical"),
    activations: tuple[str, ...] = ("relu", "tanh", "gelu", "identity"),
    hidden_layers: tuple[int, ...] = (0, 1, 2),
    most: int = 150,
    dtype: Any = None,
    shared_noise: bool | None = None,
) -> NetworkProblem:
    """Networks of at most ``most`` weights, widths 1, 2, 3, 5, 10 or 50, with 1 to 50 rows of data (0 if ``rows`` says
    so), fewer rows than weights included; whatever is not given is drawn."""
    depth, kind = draw(st.sampled_from(hidden_layers)), draw(st.sampled_from(kinds))
    outputs = draw(st.sampled_from([2, 3, 5] if kind == "categorical" else [1, 2, 3]))
    widths = draw(st.sampled_from(_widths(depth, outputs, most)))
    shared = draw(st.booleans()) if shared_noise is None else shared_noise
    type_, n = draw(dtypes()) if dtype is None else np.dtype(dtype), draw(sizes() if rows is None else rows)
    return random_network_problem(draw(seeds()), n, widths, type_, kind, draw(st.sampled_from(activations)), shared)


@cache
def _widths(depth: int, outputs: int, most: int) -> list[tuple[int, ...]]:
    """All widths with that many hidden layers and outputs, and at most ``most`` weights."""
    chains = ((*widths, outputs) for widths in product(SIZES, repeat=depth + 1))
    return [c for c in chains if sum((d + 1) * k for d, k in zip(c, c[1:])) <= most]
