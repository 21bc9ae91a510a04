"""One full-batch iteration against the BLAS and LAPACK calls that it cannot do without, paired in one process.

Run: OPENBLAS_NUM_THREADS=1 python benchmarks/iteration.py [--repeats 15] [--sizes small middle large] [--no-growth]

The bare list, at the same shapes and on ready-made arrays, per layer with inputs A (N, D), outputs H (N, K):

- short: forward product A W; backward products G Wᵀ and Z Wᵀ, for the loss and the curvature probe (not for the first
  layer); Gram matrix AᵀA; cross product AᵀG; probe Gram matrix ZᵀZ; Cholesky factors of P (D, D) and Q (K, K); the
  solves of the step, P⁻¹ R and (P⁻¹ R) Q⁻¹.
- whole: the short list and what every iteration is to report or to draw as well: GᵀG (log evidence), L⁻¹ (trace of
  P⁻¹: effective parameters), the draw L⁻ᵀ z Rᵀ with the Cholesky factor R of the noise covariance.

The timed iteration is ``bali_step`` of the default settings after the warm-up: it draws the weights, learns noise
and prior precision, and has no trust region; of N rows it measures the spread of the outputs (two more forward passes)
in every ⌈N/1024⌉-th iteration, and each of those is timed as it comes. Each repetition times the lists and the
iteration one after the other; the figures are medians and quartiles of the ratios. Times are processor time of the
process, which other work on a shared machine disturbs less than the clock on the wall; keep BLAS to one thread.
Times then grow with N, width and depth: the exponent is the slope of a least-squares line through log times.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import scipy
from scipy.linalg import cho_factor, cho_solve, get_blas_funcs, get_lapack_funcs

import balinp
from balinp import MLP, Categorical, Gaussian, Settings, bali_step, initial_state

SIZES = {
    "small": (1_000, (20, 50, 1), 60),
    "middle": (10_000, (784, 200, 200, 10), 1),
    "large": (100_000, (100, 512, 512, 1), 1),
}
GROWTH = {  # steps of a factor 2, all else fixed; of the deeper networks one diverged here, at N = 2048
    "N": [(rows, (50, 256, 256, 1)) for rows in (2048, 4096, 8192, 16384)],
    "width": [(2048, (50, width, width, 1)) for width in (64, 128, 256, 512)],
    "depth": [(2048, (50, *[256] * depth, 1)) for depth in (1, 2, 4)],
}


def short_list(weights: list, inputs: list, gradients: list, probes: list) -> list:
    """The calls of the short list; returns the factors of every layer's P and Q."""
    factors = []
    for layer, (W, A, G, Z) in enumerate(zip(weights, inputs, gradients, probes)):
        A @ W
        if layer:
            G @ W[:-1].T
            Z @ W[:-1].T
        P, R, Q = A.T @ A, A.T @ G, Z.T @ Z
        P[np.diag_indices_from(P)] += 1
        Q[np.diag_indices_from(Q)] += 1
        factors.append([cho_factor(matrix, lower=True, check_finite=False) for matrix in (P, Q)])
        step = cho_solve(factors[-1][0], R, check_finite=False)
        cho_solve(factors[-1][1], step.T, check_finite=False)
    return factors


def rest_of_the_whole_list(weights: list, gradients: list, factors: list) -> None:
    """What the whole list has beyond the short one."""
    for W, G, ((L, _), (Q, _)) in zip(weights, gradients, factors):
        trtri, trsm = get_lapack_funcs(("trtri",), (L,))[0], get_blas_funcs(("trsm",), (L,))[0]
        G.T @ G
        trtri(L, lower=1)
        R, _ = cho_factor(np.eye(len(Q), dtype=Q.dtype), lower=True, check_finite=False)
        trsm(1, L, W, lower=1, trans_a=1) @ R.T


def prepared(rows: int, widths: tuple[int, ...], dtype: str) -> tuple[Callable[[], None], Callable[[], None], Callable]:
    """Functions that run an iteration, the short list, and the rest of the whole one."""
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

    def iterate() -> None:
        nonlocal state
        state = bali_step(state, x, y, generator, settings)

    def bare() -> list:
        return short_list(weights, activations.inputs, gradients, probes)

    return iterate, bare, lambda factors: rest_of_the_whole_list(weights, gradients, factors)


def measure(rows: int, widths: tuple[int, ...], dtype: str, repeats: int, inner: int = 1) -> np.ndarray:
    """Seconds of (an iteration, the short list, the whole list), (repeats, 3); each the mean of ``inner`` in a row."""
    iterate, bare, rest = prepared(rows, widths, dtype)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(inner):
            iterate()
        middle = time.process_time()
        for _ in range(inner):
            factors = bare()
        after = time.process_time()
        for _ in range(inner):
            rest(factors)
        end = time.process_time()
        times.append([middle - start, after - middle, end - middle])
    return np.array(times) / inner


def growth(problems: list, dtype: str, repeats: int) -> tuple[np.ndarray, float]:
    """Median seconds of an iteration of each problem, measured in turns, and the exponent of their growth."""
    iterations = [prepared(rows, widths, dtype)[0] for rows, widths in problems]
    times = np.empty((repeats, len(problems)))
    for repeat in range(repeats):
        for i, iterate in enumerate(iterations):
            start = time.process_time()
            iterate()
            times[repeat, i] = time.process_time() - start
    seconds = np.median(times, axis=0)
    return seconds, np.polyfit(np.log(2.0 ** np.arange(len(problems))), np.log(seconds), 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", nargs="*", choices=[*SIZES], default=[*SIZES])
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    versions = f"balinp {balinp.__version__}, numpy {np.__version__}, scipy {scipy.__version__}"
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    print(f"{versions}, python {platform.python_version()}, {os.cpu_count()} cores, {threads} BLAS thread(s)")
    print(
        f"processor seconds, {options.repeats} repetitions; ratio of an iteration to the bare calls: median (quartiles)"
    )
    for name in options.sizes:
        rows, widths, inner = SIZES[name]
        for dtype in ("float64", "float32"):
            times = measure(rows, widths, dtype, options.repeats, inner)
            low, middle, high = np.quantile(times[:, :1] / times[:, 1:], [0.25, 0.5, 0.75], axis=0)
            ratios = [f"{middle[i]:.2f} ({low[i]:.2f} to {high[i]:.2f})" for i in (0, 1)]
            where = f"{name}: N = {rows}, widths {'-'.join(map(str, widths))}, {dtype}"
            print(f"{where}: iteration {np.median(times[:, 0]):.4g} s, whole list {ratios[1]}, short list {ratios[0]}")
    for what, problems in GROWTH.items() if options.growth else ():
        seconds, exponent = growth(problems, "float64", max(3, options.repeats // 3))
        steps = ", ".join(f"{s:.3g}" for s in seconds)
        print(f"growth with {what}, doubled each time: {steps} s; exponent {exponent:.2f}")


if __name__ == "__main__":
    main()
