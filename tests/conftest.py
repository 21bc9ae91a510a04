"""Hypothesis profiles, small fixtures, and the table of the worst residual ratio seen per identity.

``pytest`` runs the profile "ci": derandomised, so that a failure repeats. ``pytest --hypothesis-profile=deep`` draws
new and many more examples. ``pytest --worst-residuals`` prints the table at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from balinp import Backend, BackendUnavailableError, get_backend
from balinp.testing import THRESHOLD, worst_ratios
from balinp.testing.boundary import core_on
from balinp.testing.device import DOUBLE

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, database=None, max_examples=40, **COMMON)
settings.register_profile("deep", max_examples=2000, print_blob=True, **COMMON)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--worst-residuals", action="store_true", help="print the worst residual ratio per identity")


_seen_by_workers: dict[str, tuple[float, str]] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # under pytest -n: this process is a worker
        session.config.workeroutput["worst_ratios"] = worst_ratios()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for statement, seen in getattr(node, "workeroutput", {}).get("worst_ratios", {}).items():
        _seen_by_workers[statement] = max(tuple(seen), _seen_by_workers.get(statement, (0.0, "")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
    if not config.getoption("--worst-residuals"):
        return
    terminalreporter.write_sep("-", f"worst residual ratios in eps (threshold {THRESHOLD:g})")
    for statement, (ratio, what) in sorted({**_seen_by_workers, **worst_ratios()}.items()):
        terminalreporter.write_line(f"{statement:32s} {ratio:8.3f}  {what}")


@pytest.fixture
def generator() -> np.random.Generator:
    """A numpy Generator with a fixed seed."""
    return np.random.default_rng(20240611)


@pytest.fixture(params=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    """Both floating-point types that the core promises to keep."""
    return np.dtype(request.param)


BACKENDS = ["numpy", DOUBLE.name, pytest.param("cupy", marks=pytest.mark.gpu)]


def available(name: str) -> Backend:
    """The backend of that name; skips the test, saying why, where there is none."""
    try:
        return get_backend(name)
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def cupy_backend() -> Backend:
    """CuPy, for tests marked gpu."""
    return available("cupy")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn, for tests that say themselves what lives where."""
    return available(request.param)


@pytest.fixture(params=BACKENDS)
def on_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The test's NumPy arrays go to every backend in turn whenever the core is called, and its results come back."""
    chosen, only = available(request.param), request.node.get_closest_marker("numpy_only")
    if only is not None and chosen.name != "numpy":
        pytest.skip(f"on NumPy only: {only.args[0]}")
    with core_on(chosen, request.module) as boundary:
        yield chosen
    assert boundary.crossings or chosen.name == "numpy", "this test never called the core: nothing ran on the backend"
