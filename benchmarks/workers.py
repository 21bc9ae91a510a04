"""What a distributed iteration sends, that it equals one machine's, and the constants of docs/scaling.md.

Run: python benchmarks/workers.py   (a LocalCluster of worker processes; about two minutes)

Traffic is what all processes write to their TCP connections, counted in Dask's own write, per iteration: scheduler and
client (one process here) and workers apart. Heartbeats are in it.
"""

from __future__ import annotations

import pickle
import platform
import time
from functools import partial
from statistics import median

import dask
import dask.array as da
import numpy as np
import scipy
from distributed import Client, LocalCluster
from distributed.comm.tcp import TCP

import balinp
from balinp import MLP, BALIState, Gaussian, Settings, bali_step, initial_state
from balinp.backend import NUMPY
from balinp.blocks import held_rows
from balinp.passes import data_sums
from balinp.testing import comparison_residual

WIDTHS, SEED, ROUNDS = (20, 50, 1), 0, 12
SETTINGS = Settings(warmup=0)


def count_from_now() -> None:
    """Count what this process writes to TCP connections, from 0."""
    if not hasattr(TCP, "written"):
        write = TCP.write

        async def counted(self: TCP, *args: object, **options: object) -> int:
            size: int = await write(self, *args, **options)
            TCP.written += size
            return size

        TCP.write = counted
    TCP.written = 0


def counted() -> int:
    return TCP.written


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(SEED)
    x = generator.standard_normal((rows, WIDTHS[0]))
    return x, np.sin(x[:, :1]) + 0.1 * generator.standard_normal((rows, 1))


def started(dtype: str = "float64") -> BALIState:
    return initial_state(MLP(WIDTHS), Gaussian(np.ones(1)), np.random.default_rng(SEED), SETTINGS, dtype)


def traffic(client: Client, rows: int, chunks: int) -> tuple[float, float, float]:
    """(KiB from client and scheduler, KiB from the workers, seconds) of an iteration, medians."""
    state, generator = started(), np.random.default_rng(SEED)
    x, y = (da.from_array(a, (rows // chunks, a.shape[1])) for a in data(rows))
    x, y = held_rows(x, y)
    found = []
    for _ in range(ROUNDS):
        count_from_now()
        client.run(count_from_now)
        start = time.perf_counter()
        state = bali_step(state, x, y, generator, SETTINGS)
        seconds = time.perf_counter() - start
        there = sum(client.run(counted).values())
        found.append((counted() / 1024, there / 1024, seconds))
    return tuple(median(column) for column in zip(*found))


def worst_ratio(rows: int, chunks: int) -> tuple[float, float]:
    """The largest residual ratio, in eps, of a pass's sums and of the means after one iteration, against one machine's
    from the same state."""
    x, y = data(rows)
    state, generator = started(), np.random.default_rng(SEED)
    for _ in range(3):
        state = bali_step(state, x, y, generator, SETTINGS)
    apart = held_rows(*(da.from_array(a, (rows // chunks, a.shape[1])) for a in (x, y)))
    sums = [
        data_sums(state.mlp, state.likelihood, state.means, *each, np.random.default_rng(1), SETTINGS, None)
        for each in ((x, y), apart)
    ]
    pairs = [
        (getattr(a, name), getattr(b, name))
        for a, b in zip(sums[1].layers, sums[0].layers)
        for name in ("gram", "cross", "target_gram", "curvature")
    ]
    of_sums = max(comparison_residual(a, b, scale=float(rows) ** 0.5, size=rows) for a, b in pairs)
    here, there = (bali_step(state, *each, np.random.default_rng(1), SETTINGS) for each in ((x, y), apart))
    of_means = 0.0
    for a, b in zip(there.layers, here.layers):
        P, condition = b.posterior.row_precision, np.linalg.cond(b.posterior.column_covariance)
        scale = float(np.linalg.norm(P) * np.linalg.norm(b.posterior.mean))
        ratio = comparison_residual(P @ a.posterior.mean, P @ b.posterior.mean, condition, scale, rows)
        of_means = max(of_means, ratio)
    return of_sums, of_means


def seconds_of(action: partial, repetitions: int = 5) -> float:
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return median(times)


def constants() -> None:
    """What the cost model needs, on one core."""
    x, y = data(200_000)
    state, generator = started(), np.random.default_rng(SEED)
    state = bali_step(state, x, y, generator, SETTINGS)
    whole = partial(data_sums, state.mlp, state.likelihood, state.means)
    of_all = seconds_of(partial(whole, x, y, generator, SETTINGS, None))
    sums = whole(x, y, generator, SETTINGS, None)
    regressions = seconds_of(partial(bali_step, state, x[:1], y[:1], generator, SETTINGS, 1e6))
    print(f"one pass over a row: {of_all / len(x) * 1e6:.2f} µs; the rest of an iteration: {regressions * 1e3:.1f} ms")
    weights = len(pickle.dumps(state.means)) / 1024
    print(f"the weights: {weights:.1f} KiB; the sums of a pass: {len(pickle.dumps(sums)) / 1024:.1f} KiB")
    added = seconds_of(partial(sums.__add__, sums), 50)
    print(f"two such sums added: {added * 1e6:.0f} µs")
    for size in (500, 1000, 2000):
        a = np.random.default_rng(SEED).standard_normal((size, size))
        spd = a @ a.T + size * np.eye(size)
        print(f"Cholesky factor of {size} × {size}: {seconds_of(partial(NUMPY.cholesky, spd)) * 1e3:.0f} ms")


def main() -> None:
    print(
        f"balinp {balinp.__version__}, dask {dask.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"python {platform.python_version()}, {platform.machine()}; seed {SEED}; widths {WIDTHS}, float64; two shared "
        "cores\n"
    )
    print("| workers | rows | chunks | KiB from client and scheduler | KiB from workers | ms per iteration |")
    print("|---|---|---|---|---|---|")
    for workers in (2, 4):
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
            Client(cluster) as client,
        ):
            for rows, chunks in ((10_000, 8), (100_000, 8), (1_000_000, 8), (100_000, 16), (100_000, 32)):
                sent, back, seconds = traffic(client, rows, chunks)
                line = f"| {workers} | {rows:,} | {chunks} | {sent:.0f} | {back:.0f} | {seconds * 1e3:.0f} |"
                print(line, flush=True)
            if workers == 4:
                print("\n| rows | chunks | sums: ratio to one machine's, eps | means after an iteration, eps |")
                print("|---|---|---|---|")
                for rows, chunks in ((10_000, 1), (10_000, 8), (10_000, 100), (100_000, 8)):
                    print(f"| {rows:,} | {chunks} | {' | '.join(f'{r:.2g}' for r in worst_ratio(rows, chunks))} |")
    print()
    constants()


if __name__ == "__main__":
    main()
