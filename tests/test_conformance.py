"""The conformance tool itself: the package passes for any seed, a part of a core is checked by that part, a wrong
function is named. test_mutants.py has the long list of wrong cores."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import balinp
from balinp.testing import THRESHOLD
from balinp.testing.conformance import assert_conforms, check_core, checks, main


def core(**changes):
    """balinp's public names with some replaced; None takes a name away."""
    names = {name: getattr(balinp, name) for name in balinp.__all__} | changes
    return SimpleNamespace(**{name: value for name, value in names.items() if value is not None})


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("seed", [0, 1, 2, 12345])
def test_the_package_conforms_for_any_seed(seed):
    results = check_core(balinp, seed)
    assert {result.verdict for result in results} == {"holds"}
    assert all(0 <= result.ratio < THRESHOLD for result in results)
    assert len({result.statement for result in results}) == len(results) > 40
    assert_conforms(balinp, seed)


def test_every_statement_has_one_description():
    descriptions = {}
    for check in checks():
        for statement, description in check.statements.items():
            assert descriptions.setdefault(statement, description) == description


def test_missing_names_are_skipped_by_name():
    only_a_layer = core(**dict.fromkeys(["MLP", "Gaussian", "Categorical", "log_evidence"]))
    results = {result.statement: result for result in check_core(only_a_layer)}
    assert results["eq:log-density"].verdict == "holds"
    assert results["eq:forward"].message == "eq:forward was skipped: the core has no MLP"
    assert "log_evidence" in results["eq:layer-posterior"].message
    assert results["eq:ema"].verdict == "holds"  # by the layer's check, though the network's was skipped
    assert_conforms(only_a_layer)  # what is not there is not wrong
    assert {result.verdict for result in check_core(SimpleNamespace())} == {"skipped"}


def test_a_wrong_function_is_named_with_its_identity():
    def plus(outputs, gradients, step):
        return outputs + gradients @ step if np.ndim(step) == 2 else outputs + gradients * float(step)

    with pytest.raises(AssertionError) as caught:
        assert_conforms(core(pseudo_targets=plus))
    message = str(caught.value)
    assert message.startswith("eq:pseudo-targets is broken: not T = H − G S (S ")
    broken = {line.split()[0] for line in message.splitlines()}  # and what rests on it, nothing else
    assert broken == {"eq:pseudo-targets", "eq:proximal-target", "eq:conjugate-layer", "eq:target-variance"}


def rounded(outputs, gradients, step):
    """A result in float64 that was computed in float32."""
    right = balinp.pseudo_targets(*(np.asarray(a, dtype="float32") for a in (outputs, gradients, step)))
    return right.astype(outputs.dtype)


def raises(outputs, gradients, step):
    raise RuntimeError("this port has\n no pseudo-targets")


def not_a_number(outputs, gradients, step):
    return outputs * np.nan


def wrong_shape(outputs, gradients, step):
    return outputs[:1]


def wrong_dtype(outputs, gradients, step):
    return balinp.pseudo_targets(outputs, gradients, step).astype("float64")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (rounded, "float64"),
        (raises, "RuntimeError: this port has no pseudo-targets"),
        (not_a_number, "ratio inf"),
        (wrong_shape, "shape"),
        (wrong_dtype, "dtype float64, the arguments float32"),
    ],
)
def test_whatever_is_wrong_is_reported(wrong, words):
    with pytest.raises(AssertionError, match=f"eq:pseudo-targets is broken.*{words}"):
        assert_conforms(core(pseudo_targets=wrong))


def test_the_command_prints_a_table_and_has_an_exit_status(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["statement", "identity", "ratio", "verdict"]
    assert lines[-1].endswith("0 BROKEN, 0 skipped")
    assert sum(line.endswith("  holds") for line in lines) == len(check_core(balinp))
    assert main(["--statement", "eq:kl"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 identities")
    with pytest.raises(SystemExit):
        main(["--statement", "eq:none"])
    assert main(["balinp.matrix_normal", "--seed", "3"]) == 0
    assert "eq:kl" in capsys.readouterr().out
    command = [sys.executable, "-m", "balinp.testing.conformance", "no_such_module"]
    assert subprocess.run(command, capture_output=True).returncode == 2
