"""A wrong port is caught: copies of the package with one classic mistake each fail the public conformance tool, which
names the broken identity. The mistakes are data, in mutants.toml; the machinery is balinp.audit.mutants."""

import subprocess
import sys
from pathlib import Path

import pytest

import balinp
from balinp.audit.mutants import Mutant, copied, environment, killed, read_mutants, worker

PACKAGE, TESTS = Path(balinp.__file__).parent, Path(__file__).parent
MUTANTS = read_mutants(TESTS)
NAMES = [f"{mutant.file[:-3]}-{mutant.mistake}".replace(" ", "-") for mutant in MUTANTS]


@pytest.fixture(scope="module")
def by():
    """The one process that checks copies of the package."""
    with worker() as process:
        yield process


def test_there_are_enough_mutants_and_each_has_its_own_name():
    assert len(MUTANTS) >= 25
    assert len(set(NAMES)) == len(NAMES)


def test_the_package_itself_conforms(by, tmp_path):
    answer = by.verdict(copied(PACKAGE, tmp_path))
    assert answer["status"] == 0, answer["output"]
    assert "BROKEN" not in answer["output"].replace("0 BROKEN", "")


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_wrong_port_is_caught(mutant, by):
    assert killed(mutant, PACKAGE, TESTS, by)


def test_a_harmless_change_survives_and_one_that_cannot_be_made_is_refused(by):
    """Negative controls of the machinery: it does not call everything killed."""
    old = "P = prior.precision + statistics.gram"
    harmless = Mutant("regression.py", "none", old, old.replace("P =", "P = 1 *"), "eq:layer-posterior")
    assert not killed(harmless, PACKAGE, TESTS, by)
    with pytest.raises(ValueError, match="must occur once"):
        killed(Mutant("regression.py", "gone", "no such text", "", "eq:layer-posterior"), PACKAGE, TESTS, by)


def test_the_command_names_the_broken_identity(tmp_path):
    """The same through the command line, once: a process of its own, the exit status and the message."""
    old = "right = prior.linear_term + statistics.cross"
    folder = copied(PACKAGE, tmp_path, Mutant("regression.py", "", old, "right = statistics.cross"))
    command = [sys.executable, "-m", "balinp.testing.conformance"]
    run = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, encoding="utf-8")
    assert run.returncode == 1, run.stderr
    assert "eq:layer-posterior is broken: not M = P⁻¹(Λ₀M₀ + AᵀT)" in run.stdout
