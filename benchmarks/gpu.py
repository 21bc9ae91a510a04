"""A GPU against the host and against its own bare library calls, in one process: times, waits, memory, verdicts.

Run: python benchmarks/gpu.py [--data FOLDER] [--repeats 7]    (needs CuPy and a device; PyTorch for the waits alone)

FOLDER holds mnist_10k.npz and uci_power.npz as for examples/. Sections, each as a table:

- iterations: one full-batch iteration (``bali_step``, default settings after the warm-up) on NumPy (with one BLAS
  thread or all, whichever is faster), on the GPU, and the bare cuBLAS and cuSOLVER calls of the same shapes (the short
  list of benchmarks/iteration.py); medians, GPU times by device events.
- waits: kernels, copies and waits of one iteration, counted by CUPTI through PyTorch's profiler.
- memory: the peak of the device's memory during an iteration, without the data, over N.
- the same numbers: two fits with one seed on the GPU, bit by bit; and the GPU's predictions against NumPy's.
- verdicts: what cuSOLVER says and leaves for matrices that have no Cholesky factor, and what balinp makes of it.
- fits: the estimators on both (gpu_fits.py, as "the same numbers").
"""

from __future__ import annotations

import argparse
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gpu_fits import again, fits
from threadpoolctl import threadpool_limits

from balinp import MLP, Backend, Categorical, Gaussian, Settings, bali_step, get_backend
from balinp import __version__ as version
from balinp.errors import NotPositiveDefiniteError
from balinp.state import initial_state
from balinp.testing.boundary import lifted
from balinp.testing.gpu import machine, seconds

NUMPY = get_backend("numpy")
SIZES = [
    (1_000, (20, 50, 1)),
    (10_000, (784, 200, 200, 10)),
    (100_000, (100, 512, 512, 1)),
    (100_000, (784, 1024, 1024, 10)),
]
BLOCKS = [2048, None]  # a CPU's, and the default on a GPU


def prepared(
    backend: Backend, rows: int, widths: tuple[int, ...], dtype: str, block_rows: int | None
) -> Callable[[], Any]:
    """A function that runs an iteration on ``backend``."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((rows, widths[0])).astype(dtype)
    y = (
        generator.integers(0, widths[-1], rows)
        if widths[-1] > 1
        else generator.standard_normal((rows, 1)).astype(dtype)
    )
    likelihood = Categorical() if widths[-1] > 1 else Gaussian(np.ones(1, dtype))
    settings = Settings(warmup=0, block_rows=block_rows)
    state = lifted(initial_state(MLP(widths), likelihood, generator, settings, dtype), backend)
    x, y = backend.asarray(x), backend.asarray(y)
    state = bali_step(state, x, y, generator, settings)
    return lambda: bali_step(state, x, y, np.random.default_rng(1), settings)


def bare(backend: Backend, rows: int, widths: tuple[int, ...], dtype: str) -> Callable[[], Any]:
    """The products, factorisations and solves that an iteration cannot do without, on ready-made arrays."""
    xp, generator = backend.xp, np.random.default_rng(0)

    def array(*shape: int) -> Any:
        return backend.asarray(generator.standard_normal(shape).astype(dtype))

    layers = [(array(d + 1, k), array(rows, d + 1), array(rows, k)) for d, k in zip(widths, widths[1:])]
    solve = backend.solve_triangular

    def run() -> None:
        for l, (W, A, G) in enumerate(layers):
            A @ W
            if l:
                G @ W[:-1].T
                G @ W[:-1].T
            P, R, Q = A.T @ A, A.T @ G, G.T @ G
            P, Q = P + xp.eye(len(P), dtype=dtype), Q + xp.eye(len(Q), dtype=dtype)
            L, F = xp.linalg.cholesky(P), xp.linalg.cholesky(Q)
            step = solve(L, solve(L, R), transposed=True)
            solve(F, solve(F, step.T), transposed=True)

    return run


def iterations(gpu: Backend, repeats: int) -> Iterator[str]:
    yield "| rows, widths | dtype | rows of a block | NumPy, s | GPU, s | NumPy : GPU | GPU : bare calls |"
    yield "|---|---|---|---|---|---|---|"
    for rows, widths in SIZES:
        for dtype in ("float64", "float32"):
            host = on_host(rows, widths, dtype, repeats)
            least = seconds(gpu, bare(gpu, rows, widths, dtype), repeats)
            for block_rows in BLOCKS if rows > 2048 else BLOCKS[1:]:
                took = seconds(gpu, prepared(gpu, rows, widths, dtype, block_rows), repeats)
                figures = f"{host:.4f} | {took:.4f} | {host / took:.1f} | {took / least:.1f}"
                yield f"| {rows}, {'-'.join(map(str, widths))} | {dtype} | {block_rows or 'default'} | {figures} |"


def on_host(rows: int, widths: tuple[int, ...], dtype: str, repeats: int) -> float:
    """Seconds of an iteration on NumPy, with one BLAS thread or all, the faster; NaN where it takes minutes."""
    if rows * widths[1] > 6e7:
        return float("nan")
    times = []
    for threads in (1, None):
        with threadpool_limits(threads, user_api="blas"):
            times.append(seconds(NUMPY, prepared(NUMPY, rows, widths, dtype, None), max(1, repeats // 3)))
    return min(times)


def waits(gpu: Backend) -> Iterator[str]:
    try:
        import torch.profiler as profiler
    except ImportError:
        yield "PyTorch is not here: not counted"
        return
    yield "| rows, widths | rows of a block | kernels | copies to the device | copies to the host | waits |"
    yield "|---|---|---|---|---|---|"
    for rows, widths in SIZES[:2]:
        for block_rows in (512, None):
            run = prepared(gpu, rows, widths, "float64", block_rows)
            run()
            gpu.xp.cuda.Device().synchronize()
            with profiler.profile(
                activities=[profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
            ) as profile:
                run()
            names = Counter(event.name for event in profile.events())
            kernels = sum(n for name, n in names.items() if "LaunchKernel" in name)
            down = sum(n for name, n in names.items() if "Memcpy DtoH" in name)
            up = sum(n for name, n in names.items() if "Memcpy HtoD" in name)
            waited = sum(n for name, n in names.items() if "StreamSynchronize" in name)
            figures = f"{block_rows or 'default'} | {kernels} | {up} | {down} | {waited}"
            yield f"| {rows}, {'-'.join(map(str, widths))} | {figures} |"


class _Peak:
    """The most bytes that were in use at once, above those at the beginning."""

    def __init__(self, cupy: Any) -> None:
        peak = self

        class Hook(cupy.cuda.MemoryHook):  # type: ignore[misc]
            name = "peak"

            def malloc_postprocess(self, **what: Any) -> None:
                peak.now += what["mem_size"]
                peak.most = max(peak.most, peak.now)

            def free_postprocess(self, **what: Any) -> None:
                peak.now -= what["mem_size"]

        self.hook, self.now, self.most = Hook(), 0, 0


def memory(gpu: Backend) -> Iterator[str]:
    yield "| N | data, MiB | block 2048, MiB beside it | default block, MiB beside it |"
    yield "|---|---|---|---|"
    widths = (100, 512, 512, 1)
    for rows in (25_000, 100_000, 400_000):
        figures = []
        for block_rows in BLOCKS:
            run, peak = prepared(gpu, rows, widths, "float32", block_rows), _Peak(gpu.xp)
            run()
            with peak.hook:
                run()
            figures.append(f"{peak.most / 2**20:.0f}")
            del run
            gpu.xp.get_default_memory_pool().free_all_blocks()
        yield f"| {rows} | {rows * 101 * 4 / 2**20:.0f} | {' | '.join(figures)} |"


def verdicts(gpu: Backend) -> Iterator[str]:
    import cupyx

    yield "| matrix | dtype | cuSOLVER's verdict | left when it is ignored | balinp at once | balinp deferred |"
    yield "|---|---|---|---|---|---|"
    rng = np.random.default_rng(0)
    z = rng.standard_normal((40, 5))
    gram = z.T @ z
    bad = gram - 1.001 * np.linalg.eigvalsh(gram)[0] * np.eye(5)
    huge = np.full((5, 5), 1e200) + np.diag(np.full(5, 1e305))
    matrices: dict[str, np.ndarray] = {
        "positive definite": gram,
        "smallest eigenvalue −.001 of what it was": bad,
        "zeros": np.zeros((5, 5)),
        "rank one": np.ones((5, 5)),
        "NaN on the diagonal": np.where(np.eye(5) * np.arange(5) == 2, np.nan, gram),
        "NaN below the diagonal": np.where((np.arange(5)[:, None] == 3) & (np.arange(5) == 1), np.nan, gram),
        "infinity on the diagonal": np.where(np.eye(5) * np.arange(5) == 2, np.inf, gram),
        "overflows on the way": np.where(np.eye(5, dtype=bool), 1e-300, 1e200),
        "large, positive definite": huge,
    }
    for dtype in ("float64", "float32"):
        for name, matrix in matrices.items():
            with np.errstate(over="ignore"):
                there = gpu.asarray(matrix.astype(dtype))
            with cupyx.errstate(linalg="raise"):
                try:
                    gpu.xp.linalg.cholesky(there)
                    said = "factor"
                except np.linalg.LinAlgError:
                    said = "refused"
            with cupyx.errstate(linalg="ignore"):
                left = gpu.to_host(gpu.xp.linalg.cholesky(there))
            left_there = "finite" if np.all(np.isfinite(left)) else "not finite"
            made = []
            for deferred in (False, True):
                try:
                    if deferred:
                        with gpu.deferred():
                            gpu.cholesky(there)
                    else:
                        gpu.cholesky(there)
                    made.append("factor")
                except NotPositiveDefiniteError as error:
                    made.append(f"refused, pivot {error.pivot_index}")
            yield f"| {name} | {dtype} | {said} | {left_there} | {' | '.join(made)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backend", default="cupy")
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    gpu = get_backend(options.backend)
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    print(
        *machine(gpu),
        f"{os.cpu_count()} cores, {threads} BLAS threads; balinp {version}, {platform.processor()}",
        sep="\n",
    )
    sections = {
        "verdicts": lambda: verdicts(gpu),
        "waits": lambda: waits(gpu),
        "memory": lambda: memory(gpu),
        "iterations": lambda: iterations(gpu, options.repeats),
        "the same numbers": lambda: again(gpu),
        "fits": lambda: fits(options.data) if options.data else iter(()),
    }
    for name, section in sections.items():
        if options.only and name not in options.only:
            continue
        print(f"\n## {name}\n", flush=True)
        try:
            for line in section():
                print(line, flush=True)
        except Exception as error:  # one section that breaks leaves the others
            print(f"BROKEN: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
