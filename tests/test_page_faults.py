"""Memory that an iteration frees stays with the process: no page is faulted in twice."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, numpy as np
{first}
from balinp import MLP, Gaussian, Settings, bali_step, initial_state
g, settings = np.random.default_rng(0), Settings(warmup=0)
x, y = g.standard_normal((1000, 20)), g.standard_normal((1000, 1))
state = initial_state(MLP((20, 50, 1)), Gaussian(np.ones(1)), g, settings)
def run(iterations, state):
    for _ in range(iterations):
        state = bali_step(state, x, y, g, settings)
    return state
state, counts = run(20, state), []
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    state = run(5, state)
    counts.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)
print(min(counts))
"""
FORGETS = "np.empty = lambda *a, empty=np.empty, **k: empty(1 if a[0] == 2**25 - 2**16 else a[0], *a[1:], **k)"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="page faults are those of glibc's allocator")
def test_an_iteration_does_not_fault_its_memory_in_again():
    """Pages faulted in per iteration once it is warm: next to none, and hundreds where the import frees no block.

    The fewest of ten measurements: a system short of memory may take pages away at any time.
    """
    kept, given_back = (_faults_per_iteration(first) for first in ("", FORGETS))
    assert kept < 20
    assert given_back > 100


def _faults_per_iteration(first: str) -> float:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS.format(first=first)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=ours).stdout)
