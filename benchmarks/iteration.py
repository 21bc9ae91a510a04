"""One full-batch iteration against the BLAS and LAPACK calls that it cannot do without, paired in one process.

Run: python benchmarks/iteration.py [--rows 10000] [--widths 784 200 200 10] [--dtype float64] [--repeats 15]

The bare list, at the same shapes and on ready-made arrays, per layer with inputs A (N, D), outputs H (N, K):
forward product A W; backward products G Wᵀ and Z Wᵀ, for the loss and the curvature probe (not for the first layer);
Gram matrix AᵀA; cross product AᵀG; probe Gram matrix ZᵀZ; Cholesky factors of P (D, D) and Q (K, K); the solves of the
step, P⁻¹ R and (P⁻¹ R) Q⁻¹. Each repetition times the list, then an iteration; the figure is the median ratio.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np
import scipy
from scipy.linalg import cho_factor, cho_solve

import balinp
from balinp import MLP, Categorical, Gaussian, Settings, bali_step, initial_state


def bare_calls(mlp: MLP, weights: list, inputs: list, gradients: list, probes: list) -> None:
    """The stated list of calls, results thrown away."""
    for layer, (W, A, G, Z) in enumerate(zip(weights, inputs, gradients, probes)):
        A @ W
        if layer:
            G @ W[:-1].T
            Z @ W[:-1].T
        P, R, Q = A.T @ A, A.T @ G, Z.T @ Z
        P[np.diag_indices_from(P)] += 1
        Q[np.diag_indices_from(Q)] += 1
        step = cho_solve(cho_factor(P, lower=True, check_finite=False), R, check_finite=False)
        cho_solve(cho_factor(Q, lower=True, check_finite=False), step.T, check_finite=False)


def measure(rows: int, widths: tuple[int, ...], dtype: str, repeats: int) -> list[tuple[float, float]]:
    """Seconds of (an iteration, the bare list), for each repetition."""
    generator = np.random.default_rng(0)
    mlp = MLP(widths)
    x = generator.standard_normal((rows, widths[0])).astype(dtype)
    if widths[-1] > 1:
        likelihood, y = Categorical(), generator.integers(0, widths[-1], rows)
    else:
        likelihood, y = Gaussian(np.ones(1, dtype)), generator.standard_normal((rows, 1)).astype(dtype)
    settings = Settings(warmup=0)
    state = initial_state(mlp, likelihood, generator, settings, dtype)
    for _ in range(2):
        state = bali_step(state, x, y, generator, settings)
    weights = state.means
    activations = mlp.forward(weights, x)
    gradients = mlp.backward(weights, activations, likelihood.gradient(activations.outputs[-1], y))
    probes = [generator.standard_normal(g.shape).astype(dtype) for g in gradients]
    pairs = []
    for _ in range(repeats):
        start = time.perf_counter()
        bare_calls(mlp, weights, activations.inputs, gradients, probes)
        middle = time.perf_counter()
        state = bali_step(state, x, y, generator, settings)
        pairs.append((time.perf_counter() - middle, middle - start))
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[784, 200, 200, 10])
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    pairs = np.array(measure(options.rows, tuple(options.widths), options.dtype, options.repeats))
    ratios = pairs[:, 0] / pairs[:, 1]
    versions = f"balinp {balinp.__version__}, numpy {np.__version__}, scipy {scipy.__version__}"
    print(f"{versions}, python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"N = {options.rows}, widths {'-'.join(map(str, options.widths))}, {options.dtype}, step natural, full batch")
    iteration, bare = np.median(pairs, axis=0)
    print(f"median of {options.repeats} repetitions: iteration {iteration:.3f} s, bare {bare:.3f} s")
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"ratio: median {middle:.2f}, quartiles {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
