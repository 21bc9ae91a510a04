"""The command as a user meets it: fits and predictions end to end, against the Python API and as a process."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import balinp
from balinp import BALIClassifier, BALIRegressor, cli
from balinp.cli import main

YACHT = Path(__file__).parent.parent / "examples" / "data" / "yacht.csv"
TARGET = "residuary_resistance"
QUICK = ["--max-iterations", "15"]


def write(folder, columns, name="t.csv"):
    with (folder / name).open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*(np.asarray(v).tolist() for v in columns.values())))
    return str(folder / name)


def mixed_columns(rows=120):
    g = np.random.default_rng(3)
    x, colour = g.standard_normal(rows), g.choice(["blue", "green", "red"], rows)
    y = 2 * x + (colour == "red") + 0.1 * g.standard_normal(rows)
    kind = np.where(y > 1, "high", np.where(y < -1, "low", 'né, "mid"'))
    return {"x": x, "colour": colour, "y": y, "z": -y, "kind": kind}


@pytest.fixture
def mixed(tmp_path):
    return write(tmp_path, mixed_columns())


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def read_columns(text):
    rows = list(csv.reader(io.StringIO(text)))
    return dict(zip(rows[0], zip(*rows[1:])))


def strict_json(text):
    def refuse(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


def split(rows, seed):
    order = np.random.default_rng(seed).permutation(rows)
    return order[: round(0.9 * rows)], order[round(0.9 * rows) :]


def test_yacht_end_to_end_is_the_python_api_bit_for_bit(tmp_path, run):
    pytest.importorskip("matplotlib")
    model, picture, out = tmp_path / "yacht.npz", tmp_path / "yacht.png", tmp_path / "p.csv"
    code, printed, errors = run(
        "fit", YACHT, "--target", TARGET, "--out", model, "--plot", picture, "--max-iterations", 2000
    )  # fmt: skip
    assert (code, errors) == (0, "")
    for words in ("NLL (nats per row)", "RMSE", "90 % interval coverage", "noise std", "converged", "seconds"):
        assert words in printed
    assert "regression of residuary_resistance (the target is numbers; --task classification" in printed
    assert "277 train, 31 test (seed 0)" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")

    data = np.genfromtxt(YACHT, delimiter=",", skip_header=1)
    train, test = split(len(data), 0)
    X, y = data[:, :-1], data[:, -1]
    api = BALIRegressor(random_state=0, max_iterations=2000).fit(X[train], y[train], test=(X[test], y[test]))
    code, printed, errors = run("predict", model, YACHT, "--out", out)
    assert (code, errors) == (0, "")
    assert "RMSE" in printed
    got = {name: np.array(cells, dtype=float) for name, cells in read_columns(out.read_text()).items()}
    mean, std = api.predict(X, return_std=True)
    p = api.predict_distribution(X)
    assert np.array_equal(got["mean"], mean)
    assert np.array_equal(got["total_std"], std)
    assert np.array_equal(got["aleatoric_std"], np.sqrt(p.aleatoric[:, 0, 0]))
    assert np.array_equal(got["epistemic_std"], np.sqrt(p.epistemic[:, 0, 0]))
    assert np.allclose((got["upper_90"] - got["lower_90"]) / 2, 1.6448536269514722 * std)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["p.csv", "yacht.npz", "yacht.png"]


def test_text_labels_and_one_hot_columns_are_the_python_api_bit_for_bit(tmp_path, mixed, run):
    pytest.importorskip("matplotlib")
    model, picture = tmp_path / "m.npz", tmp_path / "m.svg"
    code, printed, errors = run(
        "fit", mixed, "--target", "kind", "--drop", "y", "--drop", "z", "--out", model, "--plot", picture, "--seed", 4,
        "--hidden", "8,8", *QUICK,
    )  # fmt: skip
    assert code == 0
    assert errors == (
        "balinp: note: the iterations ended before the training loss stopped falling; raise --max-iterations\n"
    )
    for words in ("classification of kind (the target is text)", "accuracy", "calibration error", "not converged"):
        assert words in printed
    assert picture.stat().st_size > 1000

    columns = mixed_columns()
    X = np.column_stack([columns["x"], *(columns["colour"] == c for c in ("blue", "green", "red"))])
    train, _ = split(len(X), 4)
    with pytest.warns(balinp.ConvergenceWarning):
        api = BALIClassifier((8, 8), max_iterations=15, random_state=4).fit(X[train], columns["kind"][train])
    code, printed, errors = run("predict", model, mixed)
    got = read_columns(printed)
    assert list(got) == ["predicted", "probability_high", "probability_low", 'probability_né, "mid"', "entropy"]
    assert np.array_equal(np.array(list(got.values())[1:4], dtype=float).T, api.predict_proba(X))
    assert list(got["predicted"]) == api.predict(X).tolist()
    assert "accuracy" in errors  # the measures must not mix with the predictions


def test_several_targets(tmp_path, mixed, run):
    model = tmp_path / "m.npz"
    code, printed, _ = run("fit", mixed, "--target", "y", "--target", "z", "--drop", "kind", "--out", model, *QUICK)
    assert code == 0
    assert "RMSE, y" in printed
    assert "noise std, z" in printed
    got = read_columns(run("predict", model, mixed)[1])
    kinds = ("mean", "aleatoric_std", "epistemic_std", "total_std", "lower_90", "upper_90")
    assert list(got) == [f"{kind}_{target}" for target in "yz" for kind in kinds]


def test_json_of_both_is_one_object_of_plain_numbers(tmp_path, mixed, run):
    model, out = tmp_path / "m.npz", tmp_path / "p.csv"
    facts = strict_json(run("fit", mixed, "--target", "y", "--drop", "z", "--out", model, "--json", *QUICK)[1])
    assert facts["task"] == "regression"
    assert facts["rows"] == {"train": 108, "test": 12}
    assert set(facts["test"]) == {"nll", "rmse", "coverage_90"}
    assert facts["noise_std"]["y"] > 0
    assert facts["converged"] is False
    assert facts["inputs"] == 7
    written = strict_json(run("predict", model, mixed, "--json", "--out", out)[1])
    assert written["measures"]["rmse"]["y"] > 0
    assert written["rows"] == 120
    inline = strict_json(run("predict", model, mixed, "--json")[1])
    file = read_columns(out.read_text())
    assert inline["predictions"] == {name: [float(cell) for cell in cells] for name, cells in file.items()}

    facts = strict_json(run("fit", mixed, "--target", "kind", "--json", "--out", model, *QUICK)[1])
    assert facts["classes"] == ["high", "low", 'né, "mid"']
    assert set(facts["train"]) == {"nll", "accuracy", "calibration_error"}
    assert len(strict_json(run("predict", model, mixed, "--json")[1])["predictions"]["predicted"]) == 120


def test_json_has_null_where_a_number_is_not_finite(capsys):
    cli._print_json({"a": float("nan"), "b": np.array([1.0, np.inf]), "c": np.float64(2), "d": [True, np.int64(3)]})
    assert strict_json(capsys.readouterr().out) == {"a": None, "b": [1.0, None], "c": 2.0, "d": [True, 3]}


def test_without_out_no_model_is_written_and_the_table_says_so(tmp_path, mixed, run):
    code, printed, _ = run("fit", mixed, "--target", "y", "--hidden", "0", *QUICK)
    assert code == 0
    assert "not written; --out MODEL.npz writes it" in printed
    assert os.listdir(tmp_path) == ["t.csv"]


def test_predict_finds_columns_by_name_and_ignores_others(tmp_path, mixed, run):
    model = tmp_path / "m.npz"
    run("fit", mixed, "--target", "y", "--drop", "z", "--drop", "kind", "--out", model, *QUICK)
    whole = read_columns(run("predict", model, mixed)[1])
    columns = mixed_columns()
    shuffled = write(tmp_path, {"note": [""] * 120, "colour": columns["colour"], "x": columns["x"]}, "n.csv")
    code, printed, errors = run("predict", model, shuffled)
    assert (code, errors) == (0, "")
    assert read_columns(printed) == whole
    far = write(tmp_path, {"colour": columns["colour"], "x": [99, *columns["x"][1:]]}, "f.csv")
    code, _, errors = run("predict", model, far)
    assert (code, errors.count("\n")) == (0, 1)
    assert "Extrapolation: 1 of 120 rows lie outside the range of the fit in 'x' (lines 2 of the table)" in errors
    # a target that cannot be used is no reason to refuse predictions
    gaps = write(tmp_path, columns | {"y": ["?", *columns["y"][1:]]}, "g.csv")
    code, printed, errors = run("predict", model, gaps)
    assert (code, read_columns(printed)) == (0, whole)
    assert errors.startswith("balinp: note: the predictions are not measured: ")
    assert "line 2, column 'y'" in errors
    assert errors.count("\n") == 1


def test_a_label_unseen_at_fit_is_noted_and_not_measured(tmp_path, mixed, run):
    model = tmp_path / "m.npz"
    run("fit", mixed, "--target", "kind", "--out", model, *QUICK)
    columns = mixed_columns()
    code, _, errors = run("predict", model, write(tmp_path, columns | {"kind": ["odd", *columns["kind"][1:]]}, "n.csv"))
    assert code == 0
    assert "the label 'odd', which the model was not fitted on" in errors


def test_a_checkpoint_of_the_command_is_gone_on_from_and_of_another_is_refused(tmp_path, mixed, run, monkeypatch):
    place = ["fit", mixed, "--target", "y", *QUICK, "--json", "--checkpoint", tmp_path / "ck", "--every", "0.5"]
    first = json.loads(run(*place)[1])
    monkeypatch.setattr("balinp.training.bali_step", None)  # the second finds all of it done
    again = json.loads(run(*place)[1])
    for key in ("train", "test", "noise_std", "iterations"):
        assert again[key] == first[key]
    code, printed, errors = run(*place, "--hidden", "9")
    assert (code, printed) == (2, "")
    assert "is of another fit, with other hidden_widths" in errors


def test_verbose_says_what_runs(mixed, run):
    code, _, errors = run("fit", mixed, "--target", "y", *QUICK, "-v")
    assert code == 0
    for name in ("relevance", "held-out rows 1 of 2, variant 1", "held-out rows 2 of 2, variant 2", "fit"):
        assert f"balinp: {name}: ended after iteration 15" in errors
    assert "iteration 3," not in errors
    assert "iteration 3, train NLL" in run("fit", mixed, "--target", "y", *QUICK, "-vv")[2]


def test_a_progress_bar_on_a_terminal_only(mixed, monkeypatch, capsys):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["fit", mixed, "--target", "y", *QUICK]) == 0
    shown = capsys.readouterr().err
    assert all(f"{name} (at most)" in shown for name in ("relevance", "fit", "held-out rows 1 of 2, variant 2"))
    assert logging.getLogger("balinp").handlers == []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["fit", mixed, "--target", "y", "--json", *QUICK]) == 0
    assert "fit (at most)" not in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)  # without the extra: no bar, no error
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["fit", mixed, "--target", "y", *QUICK]) == 0


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "balinp", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        **options,
    )


def test_the_command_as_a_process(tmp_path, mixed):
    done = command("fit", mixed, "--target", "kind", "--out", tmp_path / "m.npz", *QUICK)
    assert done.returncode == 0
    assert "accuracy" in done.stdout
    assert "Warning" not in done.stderr
    refused = command("fit", mixed, "--target", "king")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("balinp: error: ")
    with subprocess.Popen(
        [sys.executable, "-m", "balinp", "predict", tmp_path / "m.npz", mixed],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()  # as ``| head`` does
        assert b"Traceback" not in process.stderr.read()


def test_help_and_version(run):
    assert run("--version")[:2] == (0, f"balinp {balinp.__version__}\n")
    for arguments in (["--help"], ["fit", "--help"], ["predict", "--help"]):
        code, printed, _ = run(*arguments)
        assert code == 0
        assert "balinp predict yacht.npz new.csv --out predictions.csv" in printed


def test_names_that_the_terminal_has_no_letters_for(tmp_path):
    columns = mixed_columns()
    table = write(tmp_path, {"größe ≥": columns["y"], "x": columns["x"]})
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    model = tmp_path / "m.npz"
    done = command("fit", table, "--target", "größe ≥", "--out", model, *QUICK, env=environment)
    assert (done.returncode, "gr\\xf6\\xdfe" in done.stdout) == (0, True)
    labels = write(tmp_path, {"k": np.where(columns["x"] > 0, "≥", "<"), "x": columns["x"]}, "k.csv")
    assert command("fit", labels, "--target", "k", "--out", model, *QUICK, env=environment).returncode == 0
    refused = command("predict", model, labels, env=environment)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("balinp: error: standard output cannot hold")
