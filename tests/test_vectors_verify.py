"""The verifier of the conformance vectors says what is wrong of a candidate, and the ports pass it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from vector_package import SLOW, VECTORS, failures, package

from balinp.cli import main
from balinp.vectors import format, run, verdict, verify

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "examples" / "ports" / "results"


# --- verify and run --------------------------------------------------------------------------------------------------
def changed(only, change):
    """The package's answers to some operations, changed case by case."""
    candidate = package(only=only)
    candidate["answers"] = {id: change(id, answer) for id, answer in candidate["answers"].items()}
    return candidate


def str_(rows):
    return [[str(v) for v in row] for row in rows]


def moved(rows):
    """The second number of the first row another, where there is one."""
    return [[v + 1 if (i, j) == (0, 1) else v for j, v in enumerate(row)] for i, row in enumerate(rows)]


def nested(depth):
    value = 1.0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda id, a: {"error": "not yet"}, "not answered: refused: not yet"),
        (lambda id, a: a if "error" in a else {**a, "mean": [[float("nan")]]}, "none of the listed mistakes"),
        (lambda id, a: a if "error" in a else {**a, "mean": [[float("nan")]]}, "mean: shape (1, 1), expected (4, 2)"),
        (lambda id, a: a if "error" in a else {**a, "mean": "one"}, "mean: no numbers of shape (4, 2): 'one'"),
        (lambda id, a: a if "error" in a else {**a, "mean": str_(a["mean"])}, "mean: no numbers of shape (4, 2): [['"),
        (lambda id, a: a if "error" in a else {**a, "mean": 10**400}, "mean: no numbers of shape (4, 2): 1000"),
        (lambda id, a: a if "error" in a else {**a, "mean": moved(a["mean"])}, "\n    mean[0][1] "),
        (lambda id, a: a if "error" in a else {"mean": {"0": nested(5_000)}}, "nested too deeply"),
        (lambda id, a: {"error": ""} if "error" in a else a, "a refusal must say why"),
        (lambda id, a: {"error": None} if "error" in a else a, "a refusal must say why"),
        (lambda id, a: a if "error" in a else {"mean": a["mean"]}, "no output row_precision"),
        (lambda id, a: {"mean": 0, "row_precision": 0} if "error" in a else a, "must be refused are not checked"),
        (lambda id, a: a if "error" in a else {n: np.float32(v).tolist() for n, v in a.items()}, "right in float32"),
    ],
)
def test_verify_says_what_is_wrong(change, words):
    candidate = changed(["layer_posterior"], change)
    reports = verify.verify(candidate, VECTORS, ["layer_posterior"])
    assert reports[0].failed
    assert words in verdict.table(reports, candidate, "")


def test_what_is_made_of_others_is_mended_after_them():
    """A mistake in the noise is nowhere taken for another of iterations, and stands before them; on its own it is
    theirs."""
    only = ["noise_update", "iteration", "epoch"]

    def change(id, answer):
        if "error" in answer:
            return answer
        return {n: np.multiply(v, 1.25).tolist() if "noise_variance" in n else v for n, v in answer.items()}

    candidate = changed(only, change)
    reports = verify.verify(candidate, VECTORS, only)
    assert [report.operation for report in reports] == only
    assert all(report.failed for report in reports)
    for report in reports[1:]:
        assert report.diagnosis.mistakes == ()
        assert report.diagnosis.notes[0] == "mend first what it is made of: " + ", ".join(
            only[: only.index(report.operation)]
        )
    text = verdict.table(reports, candidate, "")
    assert text.index("noise_update: ") < text.index("iteration: one of its ") < text.index("epoch: ")
    (alone,) = verify.verify(
        {**candidate, "answers": {n: a for n, a in candidate["answers"].items() if n.startswith("iteration")}},
        VECTORS,
        ["iteration"],
    )
    assert not any(note.startswith("mend first") for note in alone.diagnosis.notes)


def test_too_few_digits_are_said_of_whole_iterations_too():
    """An exact number, the iteration's, is among their outputs."""
    few = changed(["iteration"], lambda id, a: a if "error" in a else {n: rounded(v) for n, v in a.items()})
    (report,) = verify.verify(few, VECTORS, ["iteration"])
    assert report.diagnosis.notes == ("right in float32: computed in it, or written with too few digits",)


def rounded(value):
    return [rounded(v) for v in value] if isinstance(value, list) else float(f"{value:.9g}")


def test_the_guide_has_every_operation_in_the_order_of_its_document():
    assert tuple(VECTORS) == format.GUIDE
    text = (ROOT / "docs" / "porting.md").read_text("utf-8")
    places = [text.index(f"`{name}`", text.index("| step |")) for name in format.GUIDE]
    assert places == sorted(places)


def test_refusing_everything_is_no_pass():
    candidate = changed(["sampling"], lambda id, a: {"error": "no"})
    (report,) = verify.verify(candidate, VECTORS, ["sampling"])
    assert len(report.failed) == len(report.outcomes)


def test_an_operation_without_answers_fails_unless_left_out():
    candidate = package(only=["probit"])
    assert failures(candidate, ["probit"]) == {}
    assert set(failures(candidate)) == set(VECTORS) - {"probit"}
    assert "tempering: no case is answered" in verdict.table(verify.verify(candidate, VECTORS), candidate, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"dtype": ["float64"]}, "dtype must be one of"),
        ({"versions": "1"}, "versions must be an object, got '1'"),
        ({"answers": []}, "an object of objects"),
        (
            {"answers": {"probit/three-classes": 1}},
            "answer to probit/three-classes must be an object of outputs, got 1",
        ),
        ({"answers": {"probit/no-such": {}}}, "'probit/no-such'"),
        ({"format": "something"}, "must be a JSON object with format"),
    ],
)
def test_what_is_no_candidate_is_refused(change, words, tmp_path, capsys):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(package(only=["probit"]) | change), "utf-8")
    assert main(["vectors", "verify", str(path)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_the_commands_and_their_exit_codes(tmp_path, capsys):
    path = tmp_path / "c.json"
    assert main(["vectors", "run", "--only", "probit,mackay", "--dtype", "float32", "--out", str(path)]) == 0
    assert main(["vectors", "verify", str(path), "--only", "probit,mackay"]) == 0
    assert "2 of 2 operations pass" in capsys.readouterr().out
    document = json.loads(path.read_text("utf-8"))
    document["answers"]["probit/three-classes"]["probabilities"][0][0] += 1e-3
    path.write_text(json.dumps(document), "utf-8")
    assert main(["vectors", "verify", str(path), "--only", "probit,mackay"]) == 1
    assert "probit: eq:probit is broken" in capsys.readouterr().out
    wrong, twice, deep = tmp_path / "wrong.py", tmp_path / "twice.json", tmp_path / "deep.json"
    wrong.write_text("def answer(:\n")
    twice.write_text('{"format": "balinp-candidate/1", "dtype": "float64", "answers": {"a": {}, "a": {}}}')
    deep.write_text("[" * 200_000)
    for arguments in (
        ["verify", str(tmp_path / "none.json")],
        ["verify", str(path), "--only", "novel"],
        ["novel"],
        ["run", "--adapter", "no_such_module"],
        ["run", "--adapter", "json"],
        ["run", "--only", "novel"],
        ["run", "--only", ""],
        ["run", "--adapter", str(wrong)],
        ["verify", str(twice)],
        ["verify", str(deep)],
    ):
        assert main(["vectors", *arguments]) == 2
        assert capsys.readouterr().err.startswith("balinp: error: ")
    (tmp_path / "text.json").write_text("{", "utf-8")
    assert main(["vectors", "verify", str(tmp_path / "text.json")]) == 2
    assert main(["vectors", "--help"]) == 0
    assert main(["vectors", "where"]) == 0
    assert str(format.FOLDER) in capsys.readouterr().out


def test_an_adapter_in_a_file(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from balinp.vectors import package\nNAME = 'mine'\n"
        "def answer(operation, inputs, dtype):\n"
        "    out = package.answer(operation, inputs, dtype)\n"
        "    return {name: [[-v for v in row] for row in value] for name, value in out.items()}\n"
    )
    assert main(["vectors", "run", "--adapter", str(path), "--only", "probit"]) == 1
    assert capsys.readouterr().out.startswith("mine, float64")


def test_an_adapter_that_answers_no_numbers_is_said_to(tmp_path, capsys):
    path, out = tmp_path / "mine.py", tmp_path / "out.json"
    path.write_text("def answer(operation, inputs, dtype):\n    return {'probabilities': [1j]}\n")
    assert main(["vectors", "run", "--adapter", str(path), "--only", " probit", "--out", str(out)]) == 1
    assert "numbers and lists of them, got a complex" in capsys.readouterr().out
    assert "got a complex" in out.read_text()


def test_verify_needs_the_files_only(tmp_path):
    """Neither the core nor an extra is imported to read a candidate."""
    candidate = tmp_path / "c.json"
    candidate.write_text(json.dumps(package(only=["probit"])), "utf-8")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['mpmath', 'jsonschema', 'hypothesis', 'pytest']));"
        "from balinp.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "vectors", "verify", str(candidate), "--only", "probit"]
    assert subprocess.run(command, capture_output=True).returncode == 0


# --- ports -----------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not here")
def test_the_javascript_port_passes(tmp_path):
    port, out = ROOT / "examples" / "ports" / "node_port.mjs", tmp_path / "node.json"
    subprocess.run(["node", port, format.FOLDER, out], check=True)
    listed = subprocess.run(["node", port, "--operations"], check=True, capture_output=True, text=True).stdout
    only = listed.strip().split(",")
    assert {"statistics", "layer_posterior", "layer_predictive"} <= set(only)
    assert failures(format.read(out, format.CANDIDATE_FORMAT), only) == {}


@pytest.mark.parametrize("name", ["torch_float64", "torch_float32", "jax_float64", "jax_float32", "node_float64"])
def test_the_committed_results_of_the_ports_are_of_these_vectors(name):
    """After a change of the vectors: examples/ports/rerun.sh."""
    lines = (RESULTS / f"{name}.txt").read_text("utf-8").splitlines()
    assert lines[0].endswith(f"vectors {format.digest(VECTORS)}")
    assert not any("WRONG" in line for line in lines)
    operations = 12 if "node" in name else len(VECTORS)
    assert lines[-1].endswith(f"; {operations} of {operations} operations pass")


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_ports_pass_where_their_framework_is(framework):
    pytest.importorskip(framework)
    module = run.adapter(str(ROOT / "examples" / "ports" / f"{framework}_port.py"))
    quick = [name for name in VECTORS if name not in SLOW]
    assert failures(run.candidate(module.answer, VECTORS, "float64", quick), quick) == {}
