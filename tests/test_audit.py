"""The audit notices: every kind of broken link, made on purpose in a copy of the tree, is named with its statement."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import balinp
from balinp.audit.audit import Options, run_audit
from balinp.audit.command import as_json, main, table
from balinp.audit.execution import check_execution, read_executed
from balinp.audit.markers import read_markers
from balinp.audit.mutants import Mutant, check_mutants
from balinp.audit.shapes import Case, contradictions, stated_shapes
from balinp.audit.source import CORE, read_functions
from balinp.audit.statements import check_statements, find_cycle, read_statements
from balinp.errors import InvalidArgumentError

ROOT, PACKAGE = Path(__file__).parents[1], Path(balinp.__file__).parent
STATEMENTS, _ = read_statements(ROOT / "derivations")


@pytest.fixture(scope="module")
def audit():
    """The quick audit of this tree."""
    return run_audit(Options(root=ROOT, quick=True))


@pytest.fixture
def tree(tmp_path):
    """A copy of what the audit reads."""
    ignore = shutil.ignore_patterns("__pycache__", "derivations")
    shutil.copytree(PACKAGE, tmp_path / "balinp", ignore=ignore)
    for name in ("derivations", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edit(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == count, f"{old!r} occurs {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new), "utf-8")


def audited(tree: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit status of ``balinp audit --quick`` on the copy, and the lines that name what is wrong."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "balinp", "audit", "--quick", *arguments]
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, encoding="utf-8")
    assert run.returncode in (0, 1), run.stderr
    return run.returncode, [line for line in run.stdout.splitlines() if line.startswith("WRONG")]


# what the issue asks for


def test_nothing_is_wrong_and_there_is_enough(audit):
    assert audit.passed, table(audit)
    assert len(audit.statements) >= 40
    for s in audit.statements:
        assert any(test != "conformance" for test in s.check)
        beside = {"averaging", "relevance", "checkpoint", "streaming"}
        beside |= {"heldout", "heldout_heteroscedastic", "heldout_joint"}
        beside_the_core = any(function.split(".")[0] in beside for function in s.code)
        assert beside_the_core or audit.measured[s.id].ratio is not None  # no port has those
        assert audit.mutants_of(s.id)


def test_an_untouched_copy_passes(tree):
    """The negative control of all that follow."""
    assert audited(tree) == (0, [])


def test_a_removed_marker_is_named(tree):
    edit(tree / "tests" / "test_log_evidence.py", '@pytest.mark.equation("eq:log-evidence")\n', "", 5)
    status, wrong = audited(tree)
    assert status == 1
    assert any(line.startswith("WRONG  eq:log-evidence: ") and "marker" in line for line in wrong)


@pytest.mark.parametrize(("test", "statement"), [("test_solver.py", "eq:tempering"), ("test_edges.py", "eq:kl")])
def test_one_removed_marker_of_several_is_named(tree, test, statement):
    edit(tree / "tests" / test, f'@pytest.mark.equation("{statement}")\n', "")
    status, wrong = audited(tree)
    assert status == 1
    assert any(f"{statement}: tests/{test}" in line and "lost its marker" in line for line in wrong)


def test_a_renamed_function_is_named(tree):
    """Everywhere, so that nothing else breaks: only the derivation still has the old name."""
    for path in (tree / "balinp").rglob("*.py"):
        text = path.read_text("utf-8")
        path.write_text(re.sub(r"\bdetermined_share\b", "share_determined", text), "utf-8")
    status, wrong = audited(tree)
    assert status == 1
    (line,) = wrong
    assert line.startswith("WRONG  eq:determined-share: there is no balinp.evidence.determined_share: mend `code` in")


def test_a_dropped_transpose_is_named(tree):
    edit(tree / "balinp" / "mlp.py", ", w[:-1].T)", ", w[:-1])")
    status, wrong = audited(tree)
    assert status == 1
    assert any(line.startswith("WRONG  eq:backward: is broken: not G_l = ") for line in wrong)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("derivations/12-evidence.md", 'id = "eq:mackay"', 'id = "eq:mackai"'),
        ("balinp/evidence.py", "(eq:mackay)", "(eq:mackai)"),
        ("tests/test_evidence.py", '@pytest.mark.equation("eq:mackay")', '@pytest.mark.equation("eq:mackai")'),
        ("tests/mutants.toml", "'eq:mackay'", "'eq:mackai'"),
    ],
)
def test_an_edited_id_is_named(tree, file, old, new):
    edit(tree / file, old, new, (tree / file).read_text("utf-8").count(old))
    status, wrong = audited(tree)
    assert status == 1
    assert any("eq:mackai" in line or "eq:mackay" in line for line in wrong)


def test_a_wrong_docstring_shape_is_named(tree):
    edit(tree / "balinp" / "mlp.py", "result[l] (K_L, N, K_l)", "result[l] (N, K_L, K_l)")
    status, wrong = audited(tree)
    assert status == 1
    assert any(line.startswith("WRONG  eq:jacobian: the docstring of balinp.mlp.MLP.jacobians says") for line in wrong)


def test_a_public_function_without_a_statement_is_named(tree):
    path = tree / "balinp" / "evidence.py"
    path.write_text(path.read_text("utf-8") + '\n\ndef twice(x: float) -> float:\n    """2x."""\n    return 2 * x\n')
    assert audited(tree)[1] == [
        "WRONG  balinp.evidence.twice: a public function of the core (evidence.py) cites no statement"
    ]


def test_a_cycle_is_named(tree):
    path = tree / "derivations" / "01-notation.md"
    text = path.read_text("utf-8")
    at = text.index('id = "eq:cholesky"')
    path.write_text(text[:at] + text[at:].replace("uses = []", 'uses = ["eq:log-determinant"]', 1), "utf-8")
    wrong = audited(tree)[1]
    assert len(wrong) == 1
    assert "rests on itself" in wrong[0]
    assert "eq:cholesky" in wrong[0]
    assert "eq:log-determinant" in wrong[0]


# parts that need more than the quick audit


def test_a_function_that_no_marked_test_executes_is_named(tmp_path):
    """Two coverage contexts: one test runs the function and one does not."""
    coverage = pytest.importorskip("coverage")
    functions, name = read_functions(PACKAGE), "regression.layer_posterior"
    data = coverage.CoverageData(str(tmp_path / "data"))
    for test, lines in (
        ("tests/test_a.py::test_runs[1]|run", functions[name].body),
        ("tests/test_a.py::test_not|run", [1]),
    ):
        data.set_context(test)
        data.add_lines({str(PACKAGE / "regression.py"): lines})
    data.write()
    executed = read_executed(tmp_path / "data")
    (statement,) = [s for s in STATEMENTS if s.id == "eq:layer-posterior"]
    for test, count in (("test_a.py::test_runs", 0), ("test_a.py::test_not", 1)):
        findings = check_execution([statement], functions, {statement.id: [test]}, executed)
        assert [str(f) for f in findings] == [
            "eq:layer-posterior: no test that carries its marker executes balinp.regression.layer_posterior"
        ] * count
    with pytest.raises(InvalidArgumentError, match="no such file"):
        read_executed(tmp_path / "nothing")


def test_a_surviving_mutant_is_named():
    old = "P = prior.precision + statistics.gram"
    harmless = Mutant("regression.py", "none at all", old, old.replace("P =", "P = 1 *"), "eq:layer-posterior")
    gone = Mutant("regression.py", "text gone", "no such text", "", "eq:layer-posterior")
    right = Mutant("regression.py", "Λ₀ left out", old, "P = statistics.gram", "eq:layer-posterior")
    killed, findings = check_mutants(PACKAGE, ROOT / "tests", [harmless, gone, right])
    assert killed == {harmless.name: False, right.name: True}
    assert [str(f)[:62] for f in findings] == [
        "eq:layer-posterior: the mutant 'regression.py: none at all' su",
        "eq:layer-posterior: the mutant 'regression.py: text gone' cann",
    ]


# the pieces


def test_cycles():
    assert find_cycle({"a": ("b",), "b": ("c",), "c": ()}) == []
    assert find_cycle({"a": ("b",), "b": ("c",), "c": ("b",)}) == ["b", "c", "b"]


def test_malformed_blocks_are_findings(tmp_path):
    good = (ROOT / "derivations" / "03-regression.md").read_text("utf-8")
    (tmp_path / "01-a.md").write_text(good.replace('status = "derived"', 'status = "obvious"', 1), "utf-8")
    (tmp_path / "02-b.md").write_text("## `eq:b` B\n\n```toml\nid = \n```\n", "utf-8")
    statements, findings = read_statements(tmp_path)
    assert len(findings) == 2
    assert "obvious" in findings[0].message
    assert "cannot be read" in findings[1].message
    missing = [f for f in check_statements(statements) if "dangling" in f.message]
    assert any("eq:matrix-normal" in f.message for f in missing)


def test_shapes_are_parsed_and_held_against_calls():
    import numpy as np

    text = (
        "H − G S for outputs H (N, K), step S (K, K) or α; (N, K).  f(W), (K) and (A, G) are no shapes; (..., 2K) is."
    )
    assert [written for _, _, written in stated_shapes(text)] == ["(N, K)", "(K, K)", "(N, K)", "(..., 2K)"]
    sizes, H = {"N": 5, "K": 3}, np.zeros((5, 3))
    assert list(contradictions("outputs H (N, K); (N, K)", Case(sizes, {"outputs": H}, (H,)))) == []
    assert "says outputs (K, N)" in next(contradictions("outputs H (K, N)", Case(sizes, {"outputs": H}, (H,))))
    assert "says (K, N)" in next(contradictions("the same, (K, N)", Case(sizes, {}, (H,))))
    assert "does not say" in next(contradictions("inputs x (N, K), sums (K,)", Case(sizes, {"x": H, "s": H[0]}, (H,))))


def test_every_core_module_is_read():
    names = {name.split(".")[0] for name in read_functions(PACKAGE)}
    assert set(CORE) <= names
    assert read_markers(ROOT / "tests")["eq:entropy"]


def test_json_and_the_papers_numbers(tmp_path, capsys):
    (tmp_path / "map.toml").write_text('"eq:ema" = "(12)"\n')
    assert (
        main(["--quick", "--source", str(ROOT), "--json", "--seed", "3", "--paper-map", str(tmp_path / "map.toml")])
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert facts["passed"]
    assert facts["seed"] == 3
    assert {s["id"]: s["paper"] for s in facts["statements"]}["eq:ema"] == "(12)"
    (tmp_path / "map.toml").write_text('"eq:none" = "(12)"\n')
    assert main(["--quick", "--source", str(ROOT), "--paper-map", str(tmp_path / "map.toml")]) == 2
    assert "eq:none" in capsys.readouterr().err
    assert main(["--backend", "abacus", "--quick", "--source", str(ROOT)]) == 2
    assert "abacus" in capsys.readouterr().err
    assert main(["--source", str(tmp_path)]) == 2


def test_without_a_source_tree_the_rest_is_audited_and_the_parts_that_need_it_say_so(tree, monkeypatch):
    shutil.move(tree / "derivations", tree / "balinp" / "derivations")
    shutil.rmtree(tree / "tests")
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "balinp", "audit"]
    run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("needs the source tree") == 3
    assert "nothing is wrong" in run.stdout


def test_another_backend_measures_the_same_statements(audit, monkeypatch):
    """A backend that is not NUMPY goes through the conversion of every argument and result."""
    from dataclasses import replace

    from balinp import NUMPY
    from balinp.audit import numeric

    seen = []
    double = replace(NUMPY, name="double", to_host=lambda a: seen.append(a.shape) or NUMPY.to_host(a))
    monkeypatch.setattr(numeric, "get_backend", lambda name: double)
    _, measured = numeric.run_checks(0, "double")
    assert {i for i, m in measured.items() if m.verdict == "skipped"} == {"eq:cost"}  # it counts NumPy's products
    assert all(m.verdict == "holds" for i, m in measured.items() if i != "eq:cost")
    assert len(seen) > 1000
    same = [i for i, m in measured.items() if m.ratio == audit.measured[i].ratio]
    assert len(same) == len(measured) - 1


def test_as_json_has_everything_of_a_statement(audit):
    (row,) = [s for s in as_json(audit)["statements"] if s["id"] == "eq:layer-posterior"]
    assert row["code"][0]["name"] == "balinp.regression.layer_posterior"
    assert row["derivation"].startswith("derivations/03-regression.md:")
    assert row["mutants"][0]["killed"] is None
    assert row["verdict"] == "holds"
