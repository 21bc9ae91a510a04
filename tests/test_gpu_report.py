"""The report for a machine with a GPU, tried on the double: it prints what it should, and it can fail."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from balinp.backend import get_backend, register_backend
from balinp.testing.device import DOUBLE
from balinp.testing.gpu import FITS, compare, comparisons, main

QUICK = ["--rows", "30", "--widths", "3,4,2", "--repeats", "1"]


def run(capsys, name):
    status = main(["--backend", name, *QUICK])
    return status, capsys.readouterr()


def test_the_report(capsys):
    status, printed = run(capsys, "double")
    assert status == 0
    assert printed.out.count("87 of 87 identities hold") == 2
    for text in ("backend double", "NumPy 2", *FITS, "float64", "float32", "one iteration of 30 rows", "all is well"):
        assert text in printed.out
    assert printed.out.startswith("```\n")
    assert printed.out.endswith("```\n")


@pytest.mark.gpu
def test_the_report_on_cupy(capsys, cupy_backend):
    status, printed = run(capsys, "cupy")
    print(printed.out)  # into the log that is committed
    assert status == 0, printed.out
    assert "compute capability" in printed.out


def wrong_by(error: float):
    """A device whose triangular solves are wrong by that much, relatively."""
    solve = DOUBLE._solve_triangular
    wrong = replace(DOUBLE, name="wrong", _solve_triangular=lambda *a, **k: solve(*a, **k) * (1 + error))
    register_backend("wrong", lambda: wrong)
    return wrong


def test_a_device_that_computes_wrongly_is_found(capsys):
    wrong_by(1e-4)
    status, printed = run(capsys, "wrong")
    assert status == 1
    assert "eq:layer-posterior is broken" in printed.out
    assert "SOMETHING IS BROKEN" in printed.out


@pytest.mark.parametrize(("error", "seen"), [(1e-7, {"float64"}), (0.05, {"float32", "float64"})])
def test_the_comparison_of_fits_sees_a_wrong_device(error, seen):
    lines, good = comparisons(wrong_by(error))
    assert not good
    broken = [line for line in lines if "BROKEN" in line]
    assert len(broken) == len(seen) * len(FITS)
    assert all(any(dtype in line for dtype in seen) for line in broken)


def test_every_iteration_is_compared():
    steps = list(compare(DOUBLE, "regression", "float64", 4))
    assert [step.iteration for step in steps] == [0, 1, 2, 3]
    assert all(0 <= step.ratio < 1 for step in steps)
    assert all(step.drift < 1e-12 for step in steps)


def test_without_cupy_one_line_and_an_exit_status(capsys, monkeypatch):
    get_backend.cache_clear()
    monkeypatch.setitem(sys.modules, "cupy", None)
    status, printed = run(capsys, "cupy")
    assert status == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "pip install 'balinp[gpu]'" in printed.err
    get_backend.cache_clear()
