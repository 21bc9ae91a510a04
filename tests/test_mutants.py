"""A wrong port is caught: copies of the package with one classic mistake each fail the public conformance tool, which
names the broken identity. The mistakes are data, in mutants.toml."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import balinp

PACKAGE, TESTS = Path(balinp.__file__).parent, Path(__file__).parent
MUTANTS = [
    (file, mutant)
    for file, mutants in tomllib.loads((TESTS / "mutants.toml").read_text("utf-8")).items()
    for mutant in mutants
]
NAMES = [f"{file[:-3]}-{mutant['mistake']}".replace(" ", "-") for file, mutant in MUTANTS]


def environment(folder=""):
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def check():
    """A function from a folder that holds a package to the conformance tool's verdict on it."""
    command = [sys.executable, str(TESTS / "mutant_worker.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, env=environment(), **pipes) as worker:

        def verdict(folder):
            worker.stdin.write(f"{folder}\n")
            worker.stdin.flush()
            answer = json.loads(worker.stdout.readline())
            assert Path(answer["file"]).is_relative_to(folder)
            return answer

        yield verdict
        worker.stdin.close()


def copied(folder, file=None, old=None, new=None):
    """``folder`` with a copy of the package, ``old`` replaced by ``new`` in ``file``."""
    shutil.copytree(PACKAGE, folder / "balinp", ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        path = folder / "balinp" / file
        source = path.read_text("utf-8")
        assert source.count(old) == 1, f"{old!r} must occur once in {file}: write the mutant anew"
        path.write_text(source.replace(old, new), "utf-8")
    return folder


def test_there_are_enough_mutants_and_each_has_its_own_name():
    assert len(MUTANTS) >= 25
    assert len(set(NAMES)) == len(NAMES)


def test_the_package_itself_conforms(check, tmp_path):
    answer = check(copied(tmp_path))
    assert answer["status"] == 0, answer["output"]
    assert "BROKEN" not in answer["output"].replace("0 BROKEN", "")


@pytest.mark.parametrize(("file", "mutant"), MUTANTS, ids=NAMES)
def test_a_wrong_port_is_caught(file, mutant, check, tmp_path):
    folder = copied(tmp_path, file, mutant["old"], mutant["new"])
    if "tests" in mutant:
        assert pytest_fails(folder, mutant["tests"])
        return
    answer = check(folder)
    assert answer["status"] == 1
    broken = [line.split()[0] for line in answer["output"].splitlines() if " is broken: " in line]
    assert mutant["statement"] in broken


def pytest_fails(folder, selection):
    """Whether a test of ``selection`` fails on the package in ``folder``; that tests were found is asserted."""
    shutil.copytree(TESTS, folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."]
    run = subprocess.run(
        [*command, selection], cwd=folder, env=environment(folder), capture_output=True, encoding="utf-8"
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.returncode == 1


def test_the_command_names_the_broken_identity(tmp_path):
    """The same through the command line, once: a process of its own, the exit status and the message."""
    folder = copied(
        tmp_path, "regression.py", "right = prior.linear_term + statistics.cross", "right = statistics.cross"
    )
    command = [sys.executable, "-m", "balinp.testing.conformance"]
    run = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, encoding="utf-8")
    assert run.returncode == 1, run.stderr
    assert "eq:layer-posterior is broken: not M = P⁻¹(Λ₀M₀ + AᵀT)" in run.stdout
