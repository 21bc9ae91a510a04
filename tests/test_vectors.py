"""The conformance vectors: the package passes them on every backend and dtype, the files are what they claim, and the
four commands say what is wrong."""

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from balinp.backend import NUMPY
from balinp.cli import main
from balinp.settings import Settings
from balinp.vectors import compare, format, run, verify
from balinp.vectors.package import PackageAdapter

ROOT = Path(__file__).parent.parent
VECTORS = format.load()
RESULTS = ROOT / "examples" / "ports" / "results"


def double():
    """The strict double of the GPU."""
    return pytest.importorskip("balinp.testing.device").DOUBLE


def package(dtype="float64", backend=NUMPY, only=None):
    return run.candidate(PackageAdapter(backend, dtype).answer, VECTORS, dtype, only)


def failures(candidate, only=None):
    return {r.operation: r.diagnosis for r in verify.verify(candidate, VECTORS, only) if r.failed}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", [lambda: NUMPY, double], ids=["numpy", "double"])
def test_the_package_passes(backend, dtype):
    candidate = package(dtype, backend())
    assert failures(candidate) == {}
    assert len(candidate["answers"]) == sum(len(document["cases"]) for document in VECTORS.values()) > 200


def test_every_output_can_fail():
    """Every output of every case can fail: an error of 3 % of its norm is seen in float32, of 1e-10 in float64."""
    for document in VECTORS.values():
        for case in document["cases"]:
            for name, rule in case.get("compare", {}).items():
                expected, size = np.asarray(case["expected"][name], dtype=float), max(case["shapes"].values())
                assert compare.ratio(expected, expected, rule, size, 2.0**-52) == 0
                unit = max(float(np.linalg.norm(expected)), rule["scale"]) or 1.0
                moved = np.asarray(expected + unit / max(expected.size, 1) ** 0.5)
                for eps, relative in ((2.0**-52, 1e-10), (2.0**-23, 3e-2)):
                    wrong = expected + relative * (moved - expected)
                    assert compare.ratio(wrong, expected, rule, size, eps) > rule["threshold"], (case["id"], name)


def test_statements_are_those_of_the_code():
    text = "".join(p.read_text("utf-8") for p in (ROOT / "balinp").rglob("*.py") if "vectors" not in p.parts)
    known = set(re.findall(r"eq:[a-z-]+", text)) | {"eq:initial-weights"}
    assert {statement for document in VECTORS.values() for statement in document["statements"]} <= known


def test_every_setting_is_an_input():
    """A new setting has to be stated in cases/states.py: no case may lean on a default. Joint steps and rises that a
    trust region allows are none of the vectors': docs/porting.md says what a port that has them is checked with."""
    of_the_loop = {"batch_size", "block_rows", "block_bytes", "max_iterations", "tolerance", "patience"}
    assert Settings().joint_iterations == Settings().allowed_rise == 0
    names = {field.name for field in fields(Settings)} - of_the_loop - {"joint_iterations", "allowed_rise"}
    for operation in ("iteration", "epoch", "fit"):
        for case in VECTORS[operation]["cases"]:
            assert set(case["inputs"]["settings"]) - {"precision_bounds", "batch_size"} == names, case["id"]


def test_every_operation_of_the_issue_has_its_edges():
    ids = [case["id"] for document in VECTORS.values() for case in document["cases"]]
    for word in ("one-unit", "one-datum", "no-data", "float32", "reject-indefinite", "reject-nan", "reject-shape",
                 "reject-unknown-label"):  # fmt: skip
        assert any(word in id for id in ids), word


# --- lint and generate -----------------------------------------------------------------------------------------------
def test_lint_finds_nothing(capsys):
    pytest.importorskip("jsonschema")
    assert main(["vectors", "lint"]) == 0
    assert "31 files, no problem" in capsys.readouterr().out


def remove_condition(document):
    del document["cases"][0]["compare"]["mean"]["condition"]


def unknown_flag(document):
    document["cases"][0]["flags"]["novel"] = {"mean": 1.0}


def uncaught_mistake(document):
    for case in document["cases"]:
        case.get("flags", {}).pop("prior-mean-dropped", None)


def repeated_id(document):
    document["cases"][1]["id"] = document["cases"][0]["id"]


def inexact_input(document):
    document["cases"][0]["inputs"]["gram"][0][0] = 0.1


def unstated(document):
    document["cases"][0]["statements"] = ["eq:novel"]


def undescribed_input(document):
    document["cases"][0]["inputs"]["extra"] = 1.0


def ragged(document):
    document["cases"][0]["expected"]["mean"] = [[1.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("corrupt", "words"),
    [
        (remove_condition, "'condition' is a required property"),
        (unknown_flag, "flag 'novel' is not described"),
        (uncaught_mistake, "caught by no case"),
        (repeated_id, "occurs twice"),
        (inexact_input, "another number in float32"),
        (unstated, "'eq:novel' is not stated"),
        (undescribed_input, "inputs are"),
        (ragged, "not rectangular"),
    ],
)
def test_lint_finds_what_is_wrong(corrupt, words, tmp_path, capsys):
    pytest.importorskip("jsonschema")
    document = json.loads(json.dumps(VECTORS["layer_posterior"]))
    corrupt(document)
    (tmp_path / "layer_posterior.json").write_text(format.dumps(document), "utf-8")
    assert main(["vectors", "lint", str(tmp_path)]) == 1
    assert words in capsys.readouterr().out


def test_lint_wants_the_canonical_text(tmp_path, capsys):
    pytest.importorskip("jsonschema")
    (tmp_path / "probit.json").write_text(json.dumps(VECTORS["probit"]), "utf-8")
    assert main(["vectors", "lint", str(tmp_path)]) == 1
    assert "not written as generate writes it" in capsys.readouterr().out


SLOW = ("iteration", "fit", "epoch")  # .ci/run regenerates these too


def test_the_files_come_out_of_the_reference_byte_for_byte(capsys):
    pytest.importorskip("mpmath")
    quick = [name for name in VECTORS if name not in SLOW]
    assert main(["vectors", "generate", "--check", "--only", ",".join(quick)]) == 0
    assert f"{len(quick)} files, {len(quick)} as the reference gives them" in capsys.readouterr().out


def test_generate_writes_and_check_sees_a_changed_digit(tmp_path, capsys):
    pytest.importorskip("mpmath")
    only = ["--only", "probit", str(tmp_path)]
    assert main(["vectors", "generate", *only]) == 0
    path = tmp_path / "probit.json"
    assert path.read_bytes() == (format.FOLDER / "probit.json").read_bytes()
    text = path.read_text("utf-8")
    digit = re.search(r"\d(?=,\n)", text[text.index('"expected"') :] + "1,\n")
    assert digit is not None
    path.write_text(text.replace('"threshold": 10.0', '"threshold": 9.0', 1), "utf-8")
    assert main(["vectors", "generate", "--check", *only]) == 1
    assert "probit.json: differs from the reference" in capsys.readouterr().out


def test_without_mpmath_generate_says_what_to_install(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith(("balinp.vectors.reference", "balinp.vectors.cases"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "balinp.vectors.generate", raising=False)
    monkeypatch.setitem(sys.modules, "mpmath", None)
    assert main(["vectors", "generate", "--check"]) == 2
    assert "pip install 'balinp[test]'" in capsys.readouterr().err


@pytest.mark.equation("eq:log-evidence")
def test_the_reference_agrees_with_itself():
    """The evidence of sums, which iterations need, against the dense density of the data."""
    pytest.importorskip("mpmath")
    from balinp.vectors.generate import exact
    from balinp.vectors.reference import layer
    from balinp.vectors.reference.exact import matrix

    for case in VECTORS["log_evidence"]["cases"]:
        if "reject" not in case and case["inputs"]["inputs"]:
            i = exact(case["inputs"])
            M0, prior, S = (matrix(i[name]) for name in ("prior_mean", "prior_precision", "noise_covariance"))
            sums = layer.sums_of({**i, "D": M0.rows, "K": M0.cols})
            difference = layer.evidence_of_sums(sums, M0, prior, S) - layer.log_evidence(i)["log_evidence"]
            assert abs(difference) < 1e-40


@pytest.mark.parametrize(("operation", "name"), [("epoch", "even-batches"), ("fit", "natural"), ("fit", "linear")])
def test_the_reference_has_the_digits_it_says(operation, name):
    """Worked out with 20 more digits, nothing changes before the 40th."""
    pytest.importorskip("mpmath")
    from balinp.vectors.generate import exact
    from balinp.vectors.reference import iteration
    from balinp.vectors.reference.exact import MP

    case = next(c for c in VECTORS[operation]["cases"] if c["id"] == f"{operation}/{name}")
    results = []
    for digits in (MP.dps, MP.dps + 20):
        with MP.workdps(digits):
            results.append(format.flatten(getattr(iteration, operation)(exact(case["inputs"]))))
    short, long = results
    for output, value in long.items():
        pairs = zip(np.ravel(np.array(short[output], dtype=object)), np.ravel(np.array(value, dtype=object)))
        assert all(abs(a - b) <= 1e-40 * max(abs(b), 1) for a, b in pairs), output


def test_the_reference_is_independent_and_no_number_passes_through_a_float():
    """It imports mpmath and itself; copy.deepcopy of an mpf is among what rounds to a float (mpmath 1.4)."""
    folder = ROOT / "balinp" / "vectors" / "reference"
    assert len(list(folder.glob("*.py"))) > 5
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                raise AssertionError(f"{path.name} imports {node.names[0].name}")
            if isinstance(node, ast.ImportFrom):
                own = node.level == 1 and (node.module is None or (folder / f"{node.module}.py").is_file())
                assert own or node.module in ("__future__", "collections.abc", "typing", "mpmath"), path.name
            if isinstance(node, ast.Name):
                assert node.id not in ("float", "complex"), path.name


# --- verify and run --------------------------------------------------------------------------------------------------
def changed(only, change):
    """The package's answers to some operations, changed case by case."""
    candidate = package(only=only)
    candidate["answers"] = {id: change(id, answer) for id, answer in candidate["answers"].items()}
    return candidate


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda id, a: {"error": "not yet"}, "not answered: refused: not yet"),
        (lambda id, a: a if "error" in a else {**a, "mean": [[float("nan")]]}, "none of the listed mistakes"),
        (lambda id, a: a if "error" in a else {**a, "mean": "one"}, "no finite numbers of the expected shape in mean"),
        (lambda id, a: a if "error" in a else {"mean": a["mean"]}, "no output row_precision"),
        (lambda id, a: {"mean": 0, "row_precision": 0} if "error" in a else a, "must be refused are not checked"),
        (lambda id, a: a if "error" in a else {n: np.float32(v).tolist() for n, v in a.items()}, "right in float32"),
    ],
)
def test_verify_says_what_is_wrong(change, words):
    candidate = changed(["layer_posterior"], change)
    reports = verify.verify(candidate, VECTORS, ["layer_posterior"])
    assert reports[0].failed
    assert words in verify.table(reports, candidate, "")


def test_refusing_everything_is_no_pass():
    candidate = changed(["sampling"], lambda id, a: {"error": "no"})
    (report,) = verify.verify(candidate, VECTORS, ["sampling"])
    assert len(report.failed) == len(report.outcomes)


def test_an_operation_without_answers_fails_unless_left_out():
    candidate = package(only=["probit"])
    assert failures(candidate, ["probit"]) == {}
    assert set(failures(candidate)) == set(VECTORS) - {"probit"}
    assert "tempering: no case is answered" in verify.table(verify.verify(candidate, VECTORS), candidate, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"answers": []}, "an object of objects"),
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
    for arguments in (
        ["verify", str(tmp_path / "none.json")],
        ["verify", str(path), "--only", "novel"],
        ["novel"],
        ["run", "--adapter", "no_such_module"],
        ["run", "--adapter", "json"],
        ["run", "--only", "novel"],
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
