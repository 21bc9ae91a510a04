"""Hypothesis profiles, small fixtures, and the table of the worst residual ratio seen per identity.

``pytest`` runs the profile "ci": derandomised, so that a failure repeats. ``pytest --hypothesis-profile=deep`` draws
new and many more examples. ``pytest --worst-residuals`` prints the table at the end.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from balinp.testing import THRESHOLD, worst_ratios

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, database=None, max_examples=40, **COMMON)
settings.register_profile("deep", max_examples=2000, print_blob=True, **COMMON)
settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--worst-residuals", action="store_true", help="print the worst residual ratio per identity")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--worst-residuals"):
        return
    terminalreporter.write_sep("-", f"worst residual ratios in eps (threshold {THRESHOLD:g})")
    for statement, (ratio, what) in sorted(worst_ratios().items()):
        terminalreporter.write_line(f"{statement:32s} {ratio:8.3f}  {what}")


@pytest.fixture
def generator() -> np.random.Generator:
    """A numpy Generator with a fixed seed."""
    return np.random.default_rng(20240611)


@pytest.fixture(params=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    """Both floating-point types that the core promises to keep."""
    return np.dtype(request.param)
