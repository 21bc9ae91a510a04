"""Prove the package on a GPU: one command, one report to be pasted into an issue.

    pip install 'balinp[gpu,test]' && python -m balinp.testing.gpu

It checks every identity of balinp.testing.conformance with the core on CuPy; runs the same fits on NumPy and CuPy with
the same draws and compares them iteration by iteration, in residual ratios; and times both, with device events. The
exit status is 1 when something is broken, 2 when CuPy cannot run. ``--backend double`` tries the command without a GPU.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np
import scipy

from .. import __version__
from ..backend import NUMPY, Backend, get_backend
from ..errors import BackendUnavailableError
from ..likelihoods import Categorical, Gaussian, Likelihood
from ..mlp import MLP
from ..settings import Settings
from ..solver import bali_step
from ..state import BALIState, initial_state
from .boundary import core_on, landed, lifted
from .conformance import check_core
from .residuals import THRESHOLD, comparison_residual, condition_number

FITS: dict[str, tuple[tuple[int, ...], str | None, dict[str, Any]]] = {  # name → (widths, preset, changes)
    "regression": ((5, 20, 2), None, {"warmup": 2}),
    "regression, tied prior, trust region": ((5, 20, 2), None, {"prior": "tied", "trust_region": True, "warmup": 2}),
    "classification": ((5, 20, 10, 3), "classification", {}),
    "literal": ((5, 20, 2), "literal", {"step_size": 0.1}),
}


def machine(backend: Backend) -> list[str]:
    """What ran where, one fact a line."""
    lines = [
        f"balinp {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"NumPy {np.__version__}, SciPy {scipy.__version__}, backend {backend.name}",
    ]
    if backend.name == "cupy":
        cupy = import_module("cupy")
        runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
        properties = runtime.getDeviceProperties(device.id)
        lines.append(
            f"CuPy {cupy.__version__}, CUDA runtime {runtime.runtimeGetVersion()}, driver {runtime.driverGetVersion()}"
        )
        lines.append(
            f"device {properties['name'].decode(errors='replace')}, compute capability {device.compute_capability}"
        )
    return lines


def conformance(backend: Backend, seeds: Sequence[int] = (0, 1)) -> tuple[list[str], bool]:
    """(lines, whether all hold) for every identity with the core on ``backend``."""
    package, lines, good = import_module("balinp"), [], True
    for seed in seeds:
        with core_on(backend) as boundary:
            results = check_core(package, seed)
        broken = [result.message for result in results if result.verdict != "holds"]
        worst = max(results, key=lambda result: result.ratio or 0.0)
        crossings = f"{boundary.crossings} calls of the core on {backend.name}"
        lines.append(f"seed {seed}: {len(results) - len(broken)} of {len(results)} identities hold, {crossings}")
        lines += [f"  worst: {worst.message}", *(f"  {message}" for message in broken)]
        good = good and not broken
    return lines, good


@dataclass(frozen=True)
class Comparison:
    """One iteration on both: the largest residual ratio of one step from the same state, over the layers' means, the
    loss and the noise; and how far the two runs, each from its own states, are apart relative to the weights."""

    iteration: int
    ratio: float
    what: str
    drift: float


def compare(backend: Backend, name: str, dtype: str, iterations: int = 15) -> Iterator[Comparison]:
    """The fit called ``name`` on NumPy and on ``backend``, with the same draws, iteration by iteration."""
    widths, preset, changes = FITS[name]
    settings = Settings.preset(preset, **changes)
    x, y, likelihood = _problem(widths, dtype, preset == "classification")
    host = initial_state(MLP(widths, "tanh"), likelihood, np.random.default_rng(0), settings, dtype)
    device = lifted(host, backend)
    data = backend.asarray(x), backend.asarray(y)
    for t in range(iterations):
        before = landed(device, backend)
        device = bali_step(device, *data, np.random.default_rng(t), settings)
        after = landed(device, backend)
        again = bali_step(before, x, y, np.random.default_rng(t), settings)
        host = bali_step(host, x, y, np.random.default_rng(t), settings)
        size = len(x) + sum(widths)
        ratios = dict(_ratios(after, again, size))
        what = max(ratios, key=lambda part: ratios[part])
        drift = max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(after.means, host.means))
        yield Comparison(t, ratios[what], what, drift)


def _ratios(computed: BALIState, expected: BALIState, size: int) -> Iterator[tuple[str, float]]:
    for l, (a, b) in enumerate(zip(computed.layers, expected.layers)):
        q, p = a.posterior, b.posterior
        kappa = condition_number(p.row_precision) * condition_number(p.column_covariance)
        yield f"mean of layer {l}", comparison_residual(q.mean, p.mean, kappa, size=size)
        ratio = comparison_residual(q.column_covariance, p.column_covariance, kappa, size=size)  # from sums over rows
        yield f"column covariance of layer {l}", ratio
        scale = float(np.linalg.norm(p.row_precision))
        yield f"row precision of layer {l}", comparison_residual(q.row_precision, p.row_precision, kappa, scale, size)
    eps = np.finfo(expected.means[0].dtype).eps
    unit = size * eps * max(1.0, abs(expected.training_loss))
    yield "training loss", abs(computed.training_loss - expected.training_loss) / unit
    if isinstance(computed.likelihood, Gaussian) and isinstance(expected.likelihood, Gaussian):
        left, right = computed.likelihood.noise_variance, expected.likelihood.noise_variance
        yield "noise variance", comparison_residual(left, right, size=size)


def _problem(widths: tuple[int, ...], dtype: str, classes: bool, rows: int = 100) -> tuple[Any, Any, Likelihood]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, widths[0])).astype(dtype)
    if classes:
        return x, rng.integers(0, widths[-1], rows), Categorical()
    y = np.tanh(x @ rng.standard_normal((widths[0], widths[-1]))) + 0.1 * rng.standard_normal((rows, widths[-1]))
    return x, y.astype(dtype), Gaussian(np.ones(widths[-1], dtype))


def comparisons(backend: Backend) -> tuple[list[str], bool]:
    """(lines, whether every ratio is below THRESHOLD) of every fit in both dtypes."""
    lines, good = [f"{'fit':38s} {'dtype':8s} {'worst ratio':>11s}  {'at':>3s}  {'of':28s} {'drift':>8s}"], True
    for name in FITS:
        for dtype in ("float64", "float32"):
            try:
                steps = list(compare(backend, name, dtype))
            except Exception as error:  # whatever a wrong device leads to belongs into the report
                lines.append(f"{name:38s} {dtype:8s} BROKEN: {type(error).__name__}: {error}")
                good = False
                continue
            worst = max(steps, key=lambda step: step.ratio if step.ratio == step.ratio else np.inf)
            holds = all(step.ratio < THRESHOLD for step in steps)
            end = f"{worst.what:28s} {steps[-1].drift:8.1e}" + ("" if holds else "  BROKEN")
            lines.append(f"{name:38s} {dtype:8s} {worst.ratio:11.3g}  {worst.iteration:3d}  {end}")
            good = good and holds
    return lines, good


def seconds(backend: Backend, run: Callable[[], Any], repeats: int) -> float:
    """The median time of ``run``, after one run that does not count: by device events on CuPy."""
    run()
    times = []
    for _ in range(repeats):
        if backend.name == "cupy":
            cuda = backend.xp.cuda
            start, stop = cuda.Event(), cuda.Event()
            start.record()
            run()
            stop.record()
            stop.synchronize()
            times.append(cuda.get_elapsed_time(start, stop) / 1e3)
        else:
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
    return median(times)


def timings(backend: Backend, rows: int, widths: tuple[int, ...], repeats: int) -> list[str]:
    """Seconds of one full-batch iteration on NumPy and on ``backend``."""
    lines = [f"one iteration of {rows} rows, widths {widths}, median of {repeats}:"]
    for dtype in ("float64", "float32"):
        took = []
        for each in (NUMPY, backend):
            settings = Settings(warmup=0, block_rows=rows)
            x, y, likelihood = _problem(widths, dtype, False, rows)
            state = lifted(initial_state(MLP(widths), likelihood, np.random.default_rng(0), settings, dtype), each)
            data = each.asarray(x), each.asarray(y)
            state = bali_step(state, *data, np.random.default_rng(0), settings)
            took.append(seconds(each, lambda: bali_step(state, *data, np.random.default_rng(1), settings), repeats))  # noqa: B023
        lines.append(f"  {dtype}: NumPy {took[0]:.4f} s, {backend.name} {took[1]:.4f} s")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m balinp.testing.gpu", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend", default="cupy", help="cupy (default), or double: the command itself, without a GPU"
    )
    parser.add_argument("--rows", type=int, default=10_000, help="of the data for the timing (default: 10000)")
    parser.add_argument("--widths", default="784,200,200,10", help="of the network for the timing")
    parser.add_argument("--repeats", type=int, default=7, help="of the timing (default: 7)")
    options = parser.parse_args(arguments)
    if options.backend == "double":
        import_module("balinp.testing.device")
    try:
        backend = get_backend(options.backend)
    except BackendUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    print("```", *machine(backend), "", "== the core's identities", sep="\n", flush=True)
    lines, conforms = conformance(backend)
    print(*lines, "", "== the same fits, step by step (ratios in eps, threshold 10)", sep="\n", flush=True)
    lines, agrees = comparisons(backend)
    print(*lines, "", "== times", sep="\n", flush=True)
    widths = tuple(int(width) for width in options.widths.split(","))
    print(*timings(backend, options.rows, widths, options.repeats), "", sep="\n")
    print("all is well" if conforms and agrees else "SOMETHING IS BROKEN: see above", "```", sep="\n")
    return int(not (conforms and agrees))


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # the messages are mathematics
    sys.exit(main())
