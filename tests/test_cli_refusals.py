"""What the command refuses: exit code 2 and one line with the place and the remedy, and no file is left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from balinp import BALIClassifier, BALIRegressor, outputs, persistence
from balinp.cli import main

QUICK = ["--max-iterations", "15"]
LONE = np.random.default_rng(0).permutation(30)[27:]  # the test rows of 30


@pytest.fixture
def good(tmp_path):
    (tmp_path / "t.csv").write_text(table_text())
    return str(tmp_path / "t.csv")


@pytest.fixture
def run(capsys):
    def run(*arguments):
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def table_text(change=None, header="x,colour,y", rows=30):
    """A good table of 30 rows with one line (1 is the header) changed."""
    lines = [header, *(f"{i / 7},{'red' if i % 3 else 'blue'},{i * 1.5}" for i in range(rows))]
    for line, text in (change or {}).items():
        lines[line - 1] = text
    return "\n".join(lines) + "\n"


FIT_REFUSALS = {
    "missing number": (table_text({5: ",red,1"}), [], ["line 5", "'x'", "--drop"]),
    "missing text": (table_text({6: "1,NA,1"}), [], ["line 6", "'colour'", "--drop"]),
    "missing target": (table_text({7: "1,red,?"}), [], ["line 7", "'y'", "fill it in"]),
    "unreadable number": (table_text({8: "1.2.3,red,1"}), [], ["line 8", "'x'", "'1.2.3'", "correct"]),
    "infinite": (table_text({9: "inf,red,1"}), [], ["line 9", "'x'", "finite number"]),
    "duplicate names": (table_text(header="x,x,y"), [], ["'x' twice", "rename"]),
    "no header": (table_text(header="1,2,3"), [], ["no header", "add a line"]),
    "nameless column": (table_text(header="x,,y"), [], ["column 2", "give it one"]),
    "ragged": (table_text({10: "1,red"}), [], ["line 10", "2 cells", "complete"]),
    "decimal commas": (table_text({3: "1,5,red,2,5"}), [], ["line 3", "5 cells", "quotes"]),
    "bars": (table_text().replace(",", "|"), [], ["'|'", "with commas"]),
    "semicolons and decimal commas": (
        table_text().replace(",", ";").replace(".", ","), [], ["line 2", "'y'|'x'", "decimal commas|is not a number"],
    ),
    "empty": ("", [], ["is empty", "give"]),
    "only a header": ("x,colour,y\n", [], ["no rows", "add"]),
    "few rows": (table_text(rows=9), [], ["9 rows", "at least 10"]),
    "binary": (b"\x89PNG\r\n\0\0", [], ["binary", "CSV UTF-8"]),
    "latin-1": ("x,colour,y\n1,gr\u00fcn,2\n".encode("latin-1"), [], ["line 2", "UTF-8"]),
    "open quote": (table_text({4: '1,"red,3'}), [], ["line 4", "quotes"]),
    "unknown target": (table_text(), ["--target", "Y"], ["'Y'", "--target", "'colour'"]),
    "unknown drop": (table_text(), ["--drop", "id"], ["'id'", "--drop"]),
    "target dropped": (table_text(), ["--drop", "y"], ["'y'", "choose one"]),
    "target twice": (table_text(), ["--target", "y"], ["twice", "once"]),
    "nothing left": (table_text(), ["--drop", "x", "--drop", "colour"], ["no input columns", "'x'"]),
    "identifiers": (
        "id,x,y\n" + "".join(f"r{i},{i},{i}\n" for i in range(30)), [], ["'id'", "every row", "--drop 'id'"],
    ),
    "many categories": (
        "id,x,y\n" + "".join(f"r{i % 101},{i},{i}\n" for i in range(300)), [], ["'id'", "101", "--drop 'id'"],
    ),
    "text regression": (
        table_text(), ["--target", "colour", "--task", "regression"], ["line 2", "'colour'", "'blue' is not a number"],
    ),
    "fractions as classes": (table_text(), ["--task", "classification"], ["line 3", "'y'", "regression"]),
    "several to classify": (
        table_text(), ["--target", "colour", "--task", "classification"], ["'colour'", "fit each alone"],
    ),
    "one class": (
        "x,y\n" + "".join(f"{i},only\n" for i in range(30)), [], ["'y'", "'only'", "at least two"],
    ),
    "classes of test rows alone": (
        "x,y\n" + "".join(f"{i},{'lone' if i in LONE else 'ab'[i % 2]}\n" for i in range(30)),
        [], ["'y'", "'lone'", "--seed"],
    ),
    "bad seed": (table_text(), ["--seed", "-1"], ["--seed", "'-1'", "at least 0"]),
    "bad width": (table_text(), ["--hidden", "50,x"], ["--hidden", "'x'"]),
    "bad task": (table_text(), ["--task", "cluster"], ["--task", "'cluster'", "regression"]),
    "bad budget": (table_text(), ["--max-iterations", "0"], ["--max-iterations", "at least 1"]),
    "bad seconds": (table_text(), ["--every", "often"], ["--every", "'often'", "0 or more"]),
    "checkpoint over the model": (table_text(), ["--out", "m.npz", "--checkpoint", "m.npz"], ["m.npz", "another name"]),
    "no folder for the checkpoint": (table_text(), ["--checkpoint", "none/ck"], ["none/ck", "create it"]),
    "unknown option": (table_text(), ["--epochs", "3"], ["--epochs", "--help"]),
    "no folder": (table_text(), ["--out", "none/m.npz"], ["none/m.npz", "create it"]),
    "a device": (table_text(), ["--out", os.devnull], [os.devnull, "no ordinary file"]),
    "a folder as model": (table_text(), ["--out", "folder"], ["folder", "give a file name"]),
    "over the table": (table_text(), ["--out", "t.csv"], ["t.csv", "overwrite", "another name"]),
    "one file for two": (table_text(), ["--out", "a.png", "--plot", "a.png"], ["a.png", "another name"]),
    "no folder for the picture": (table_text(), ["--plot", "none/p.png"], ["none/p.png", "create it"]),
    "picture of no format": (table_text(), ["--plot", "p.xls"], ["p.xls", "png"]),
}  # fmt: skip


def assert_refused(result, words):
    code, printed, errors = result
    assert (code, printed) == (2, ""), errors
    assert errors.startswith("balinp: error: ")
    assert errors.endswith("\n")
    assert errors.count("\n") == 1
    for word in words:
        assert any(each in errors for each in word.split("|")), errors


@pytest.mark.parametrize("case", FIT_REFUSALS)
def test_fit_refuses_in_one_line_and_leaves_no_file(tmp_path, monkeypatch, run, case):
    content, extra, words = FIT_REFUSALS[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(BALIRegressor, "fit", None)  # all of it is refused before the fit
    monkeypatch.setattr(BALIClassifier, "fit", None)
    Path("folder").mkdir()
    Path("t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    before = Path("t.csv").read_bytes()
    default = [] if "--out" in extra else ["--out", "m.npz"]
    assert_refused(run("fit", "t.csv", "--target", "y", *default, *extra), words)
    assert sorted(os.listdir()) == ["folder", "t.csv"]
    assert Path("t.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "none.csv", "--target", "y"], ["none.csv", "No such file", "give the path"]),
        (["fit", ".", "--target", "y"], ["directory", "give the path"]),
        (["fit", "none.csv"], ["--target", "--help"]),
        (["predict", "none.npz", "none.csv"], ["none.npz"]),
        ([], ["COMMAND", "--help"]),
        (["train"], ["'train'", "fit"]),
    ],
)
def test_arguments_that_lead_nowhere(tmp_path, monkeypatch, run, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), words)
    assert os.listdir() == []


def test_a_picture_without_matplotlib_is_refused_before_the_fit(good, monkeypatch, run):
    monkeypatch.setattr(BALIRegressor, "fit", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_refused(run("fit", good, "--target", "y", "--plot", "p.png"), ["pip install 'balinp[plot]'"])


def test_a_class_of_test_rows_alone_is_trained_on(tmp_path, run):
    lines = [f"{i},{'lone' if i == LONE[0] else 'ab'[i % 2]}\n" for i in range(30)]
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(lines))
    code, printed, errors = run("fit", tmp_path / "t.csv", "--target", "y", "--json", *QUICK)
    assert code == 0
    assert "all rows of 'lone' fell among the test rows and are trained on instead" in errors
    facts = json.loads(printed)
    assert facts["rows"] == {"train": 28, "test": 2}
    assert facts["classes"] == ["a", "b", "lone"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_refused(tmp_path, good, run):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert_refused(run("fit", good, "--target", "y", "--out", tmp_path / "locked" / "m.npz"), ["locked", "permission"])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied"), "no permission"),
        (FileNotFoundError(2, "No such file"), "No such file"),
    ],
    ids=["no permission", "a folder that takes no files, as under /proc"],
)
def test_a_file_is_tried_in_the_folder_before_the_fit(tmp_path, good, monkeypatch, run, error, words):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(BALIRegressor, "fit", None)
    monkeypatch.setattr(outputs.tempfile, "NamedTemporaryFile", refuse)
    assert_refused(run("fit", good, "--target", "y", "--out", tmp_path / "m.npz"), ["m.npz", words])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "t.csv").write_text(table_text())
    assert main(["fit", str(folder / "t.csv"), "--target", "y", "--out", str(folder / "m.npz"), *QUICK]) == 0
    return (folder / "m.npz").read_bytes()


PREDICT_REFUSALS = {
    "missing columns": ("x,y\n1,2\n", [], ["'colour'", "fitted on it"]),
    "unseen category": (table_text({6: "1,pink,2"}), [], ["line 6", "'colour'", "'pink'", "'blue', 'red'", "correct"]),
    "missing number": (table_text({5: ",red,1"}), [], ["line 5", "'x'", "fill it in"]),
    "text for a number": ("x,colour\none,red\n", [], ["line 2", "'x'", "'one' is not a number"]),
    "infinite": ("x,colour\n1e999,red\n", [], ["line 2", "'x'", "finite number"]),
    "numbers for text": ("x,colour\n1,2\n", [], ["line 2", "'colour'", "'2' was not seen"]),
    "far away": ("x,colour\n1e300,red\n", [], ["far from the training data", "units"]),
    "no rows": ("x,colour\n", [], ["no rows"]),
    "over the model": (table_text(), ["--out", "m.npz"], ["m.npz", "overwrite"]),
    "over the table": (table_text(), ["--out", "t.csv"], ["t.csv", "overwrite"]),
    "no folder": (table_text(), ["--out", "none/p.csv"], ["none/p.csv", "create it"]),
}


@pytest.mark.parametrize("case", PREDICT_REFUSALS)
def test_predict_refuses_in_one_line_and_leaves_no_file(tmp_path, monkeypatch, run, fitted, case):
    content, extra, words = PREDICT_REFUSALS[case]
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(content)
    Path("m.npz").write_bytes(fitted)
    assert_refused(run("predict", "m.npz", "t.csv", *(extra or ["--out", "p.csv"])), words)
    assert sorted(os.listdir()) == ["m.npz", "t.csv"]
    assert Path("m.npz").read_bytes() == fitted
    assert Path("t.csv").read_text() == content


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "foreign", "folder", "from Python", "other schema"])
def test_predict_refuses_a_model_it_cannot_read(tmp_path, monkeypatch, run, fitted, damage):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(table_text())
    Path("good.npz").write_bytes(fitted)
    if damage == "foreign":
        np.savez("m.npz", a=np.arange(3))
    elif damage == "folder":
        Path("m.npz").mkdir()
    elif damage in ("from Python", "other schema"):
        model, extra = persistence.load_with_extra("good.npz")
        changed = None if damage == "from Python" else extra | {"columns": extra["columns"][:1]}
        persistence.save_estimator(model, "m.npz", extra=changed)
    else:
        content = {"truncated": fitted[: len(fitted) // 2], "empty": b"", "text": b"x,y\n1,2\n"}[damage]
        Path("m.npz").write_bytes(content)
    assert_refused(run("predict", "m.npz", "t.csv", "--out", "p.csv"), ["m.npz|balinp fit --out|save it again"])
    assert sorted(os.listdir()) == ["good.npz", "m.npz", "t.csv"]


@pytest.mark.parametrize("where", ["fit", "write"])
def test_an_interrupt_leaves_nothing_half_written(tmp_path, good, monkeypatch, run, where):
    def interrupt(*args, **kwargs):
        if where == "write":
            args[0].write(b"half")
        raise KeyboardInterrupt

    if where == "fit":
        monkeypatch.setattr(BALIRegressor, "fit", interrupt)
    else:
        monkeypatch.setattr(np, "savez", interrupt)
    code, printed, errors = run("fit", good, "--target", "y", "--out", tmp_path / "m.npz", *QUICK)
    assert (code, printed) == (130, "")
    assert "balinp: interrupted" in errors
    assert os.listdir(tmp_path) == ["t.csv"]
