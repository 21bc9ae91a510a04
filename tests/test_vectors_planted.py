"""Planted-wrong candidates: ``verify`` fails each, and names the statement that it breaks and the mistake it makes.

Two kinds: classic mistakes worked out in the reference's arithmetic (the flags of the vectors), and wrong programs,
copies of the package with one line changed (mutants.toml).
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("mpmath")

import balinp
from balinp.vectors import format, verdict, verify
from balinp.vectors.cases import OPERATIONS
from balinp.vectors.cases.network import backpropagated
from balinp.vectors.generate import exact, rounded

PACKAGE, TESTS = Path(balinp.__file__).parent, Path(__file__).parent
VECTORS = format.load()
PLANTED = [(operation, flag) for operation in OPERATIONS for flag in operation.mistakes]
MUTANTS = [
    (file, mutant)
    for file, mutants in tomllib.loads((TESTS / "mutants.toml").read_text("utf-8")).items()
    for mutant in mutants
    if any(mutant.get("statement") in document["statements"] for document in VECTORS.values())
    and "allowed_rise" not in mutant["old"]  # 0 in all cases
]


def right_answers(vectors):
    return {
        case["id"]: {"error": case["reject"]} if "reject" in case else dict(case["expected"])
        for document in vectors.values()
        for case in document["cases"]
    }


def candidate(answers, dtype="float64"):
    return {"format": format.CANDIDATE_FORMAT, "name": "planted", "dtype": dtype, "answers": answers}


def test_there_are_enough_planted_mistakes_of_every_operation():
    assert len(PLANTED) >= 100
    assert all(operation.mistakes for operation in OPERATIONS)
    assert len(MUTANTS) >= 50


def test_the_right_answers_pass():
    """Negative control: nothing but the mistake makes a planted candidate fail."""
    assert not any(report.failed for report in verify.verify(candidate(right_answers(VECTORS)), VECTORS))


@pytest.mark.parametrize(("operation", "flag"), PLANTED, ids=[f"{o.name}-{flag}" for o, flag in PLANTED])
def test_a_planted_mistake_is_found_and_named(operation, flag):
    mistake, vectors = operation.mistakes[flag], {operation.name: VECTORS[operation.name]}
    answers = right_answers(vectors)
    for case, stored in zip(operation.cases, VECTORS[operation.name]["cases"], strict=True):
        if flag in stored.get("flags", {}):  # elsewhere the mistake changes nothing, or too little for float32
            wrong = format.flatten(mistake.wrong(exact(case.inputs)), operation.per_layer)
            answers[stored["id"]] = {name: rounded(value) for name, value in wrong.items()}
    for dtype in ("float64", "float32"):
        reports = verify.verify(candidate(answers, dtype), vectors)
        (failed,) = [report for report in reports if report.failed]
        assert mistake.statement in failed.diagnosis.statements
        assert mistake.text in failed.diagnosis.mistakes[:4]
        assert f"{operation.name}: " in verdict.table(reports, candidate(answers, dtype), "")


def test_the_recursion_that_the_mistakes_are_made_in_is_right_without_one():
    operation = next(operation for operation in OPERATIONS if operation.name == "backward")
    for case, stored in zip(operation.cases, VECTORS["backward"]["cases"], strict=True):
        if case.reject is None:
            got = format.flatten(backpropagated(exact(case.inputs)), ("gradients",))
            assert {name: rounded(value) for name, value in got.items()} == stored["expected"]


@pytest.fixture(scope="module")
def broken():
    """A function from a folder that holds a package, and operations, to the statements it breaks."""
    command = [sys.executable, str(TESTS / "vectors_worker.py")]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": ""}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, env=environment, **pipes) as worker:

        def answer(folder, operations):
            worker.stdin.write(json.dumps([str(folder), operations]) + "\n")
            worker.stdin.flush()
            return json.loads(worker.stdout.readline())

        yield answer
        worker.stdin.close()


def copied(folder, file=None, old=None, new=None):
    shutil.copytree(PACKAGE, folder / "balinp", ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        path = folder / "balinp" / file
        source = path.read_text("utf-8")
        assert source.count(old) == 1, f"{old!r} must occur once in {file}: write the mutant anew"
        path.write_text(source.replace(old, new), "utf-8")
    return folder


def test_the_package_as_it_is_breaks_nothing(broken, tmp_path):
    assert broken(copied(tmp_path), list(VECTORS)) == {}


def stating(statement):
    return [name for name, document in VECTORS.items() if statement in document["statements"]]


@pytest.mark.parametrize(("file", "mutant"), MUTANTS, ids=[f"{f[:-3]}-{m['mistake']}" for f, m in MUTANTS])
def test_a_wrong_program_is_found(file, mutant, broken, tmp_path):
    operations = stating(mutant["statement"])
    found = broken(copied(tmp_path, file, mutant["old"], mutant["new"]), operations)
    named = {statement for statements in found.values() for statement in statements}
    assert mutant["statement"] in named
