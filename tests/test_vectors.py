"""The conformance vectors: the package passes them on every backend and dtype, the files are what they claim."""

import ast
import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from vector_package import SLOW, VECTORS, failures, package

from balinp.backend import NUMPY
from balinp.cli import main
from balinp.settings import Settings
from balinp.vectors import compare, format

ROOT = Path(__file__).parent.parent


def double():
    """The strict double of the GPU."""
    return pytest.importorskip("balinp.testing.device").DOUBLE


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
    """A new setting has to be stated in cases/states.py: no case may lean on a default. Joint steps, rises that a
    trust region allows and averaged means are none of the vectors': docs/porting.md says what a port that has them is
    checked with."""
    of_the_loop = {"batch_size", "block_rows", "block_bytes", "max_iterations", "tolerance", "patience"}
    assert Settings().joint_iterations == Settings().allowed_rise == 0
    assert Settings().averaging is None
    names = {field.name for field in fields(Settings)} - of_the_loop - {"joint_iterations", "allowed_rise", "averaging"}
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
