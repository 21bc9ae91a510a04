"""balinp score, report and doctor: measures, what they warn of, one page without a network."""

from __future__ import annotations

import html.parser
import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from balinp import BALIRegressor, doctor
from balinp.cli import main
from balinp.evaluation import _of_fit, cautions, evaluate
from balinp.evidence import PRECISION_BOUNDS

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


def write(path, **columns):
    rows = zip(*(np.asarray(c).tolist() for c in columns.values()))
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A regression of one input and a classification of two, fitted by the command; tables like and unlike theirs."""
    path, g = tmp_path_factory.mktemp("scored"), np.random.default_rng(5)
    x = g.uniform(0, 1, 200)
    write(path / "line.csv", dose=x, effect=3 * x + 0.1 * g.standard_normal(200))
    write(path / "far.csv", dose=x + 3, effect=3 * x + 100)
    X, label = g.standard_normal((2, 120)), np.array(["no", "yes"])
    kind = label[(X[0] + 0.2 * g.standard_normal(120) > 0).astype(int)]
    write(path / "plane.csv", u=X[0], v=X[1], kind=kind)
    write(path / "shifted.csv", u=X[0] * 0.5, v=X[1], kind=label[g.integers(0, 2, 120)])
    for table, target, options in (("line", "effect", []), ("plane", "kind", ["--hidden", "8"])):
        out = ["--out", f"{path}/{table}.npz", "--plot", f"{path}/{table}.png"]
        assert main(["fit", f"{path}/{table}.csv", "--target", target, *out, *options]) == 0
    return path


def test_score_says_the_measures_of_predict_and_draws(folder, capsys, tmp_path):
    picture = tmp_path / "score.png"
    assert main(["score", f"{folder}/line.npz", f"{folder}/line.csv", "--plot", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["predict", f"{folder}/line.npz", f"{folder}/line.csv", "--json"]) == 0
    assert found["measures"] == json.loads(capsys.readouterr().out)["measures"]
    assert found["cautions"] == []
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_score_tells_foreign_rows_apart(folder, capsys):
    assert main(["score", f"{folder}/line.npz", f"{folder}/line.csv", "--unlike", f"{folder}/far.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auroc_unlike"] == 1.0
    assert main(["score", f"{folder}/line.npz", f"{folder}/line.csv", "--unlike", f"{folder}/line.csv"]) == 0
    assert "AUROC against line.csv  0.5000" in capsys.readouterr().out


def test_each_caution_is_said_when_it_is_true_and_not_otherwise(folder):
    e = evaluate(folder / "line.npz", folder / "line.csv")
    assert cautions(e) == []
    far = "\n".join(cautions(evaluate(folder / "line.npz", folder / "far.csv")))
    assert "200 of 200 rows lie outside the range of the fit in 'dose' (lines 2, 3, 4, 5, 6, …" in far
    assert "hold 0.0% of the 200 rows" in far
    assert "too small" in far
    model = e.model
    e.model.converged_ = False
    assert [c.partition(":")[0] for c in cautions(e)] == ["Not converged"]
    model.converged_ = True
    last = replace(model.state_.layers[-1], prior_precision=PRECISION_BOUNDS[1])
    model.state_ = replace(model.state_, layers=(*model.state_.layers[:-1], last))
    (said,) = cautions(e)
    assert said.startswith("Prior precision at its bound: that of layer 2 is")


def test_intervals_that_are_too_wide_are_said_to_be(folder):
    e = evaluate(folder / "line.npz", folder / "line.csv")
    wide = replace(e.forecast, measures={**e.forecast.measures, "coverage_90": {"effect": 1.0}})
    (said,) = cautions(replace(e, forecast=wide))
    assert "too large: the model is too cautious" in said


def test_confident_and_wrong_classes_are_said_to_be(folder):
    (said,) = (c for c in cautions(evaluate(folder / "plane.npz", folder / "shifted.csv")) if "calibration" in c)
    assert "too confident" in said
    assert not [c for c in cautions(evaluate(folder / "plane.npz", folder / "plane.csv")) if "too confident" in c]


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.links, self.images, self.words = [], [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.links += [v for k, v in attributes if k in ("href", "src", "srcset", "action")]
        self.images += [dict(attributes)] if tag == "img" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize(("model", "table", "images"), [("line", "far", 4), ("plane", "shifted", 3)])
def test_the_page_is_whole_and_needs_no_network(folder, tmp_path, capsys, model, table, images):
    """A line parts the plane's classes: a model without hidden layers, of which there is no picture by layers."""
    out = tmp_path / "r.html"
    assert main(["report", f"{folder}/{model}.npz", f"{folder}/{table}.csv", "--html", str(out)]) == 0
    said = capsys.readouterr().out
    page = Page()
    page.feed(out.read_text())
    assert page.open == []
    assert len(page.images) == images
    assert all(i["alt"] and i["src"].startswith("data:image/png;base64,") for i in page.images)
    assert all(link.startswith("data:") for link in page.links)
    assert "http" not in re.sub(r"base64,[^\"]*", "", out.read_text())  # pictures may spell it by chance
    words = " ".join(page.words)
    for caution in cautions(evaluate(folder / f"{model}.npz", folder / f"{table}.csv")):
        assert caution.partition(": ")[2] in words
        assert caution in said
    assert "random_state" in words
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_names_from_a_table_cannot_write_html(tmp_path, capsys):
    """Of inputs, targets and files, in measures, captions, cautions and columns: they are there, escaped."""
    g = np.random.default_rng(0)
    a, y, z = g.standard_normal((3, 40))
    path = write(tmp_path / "t.csv", **{"<script>a": a, "<b>y": y, "<b>z": z})
    far = write(tmp_path / "<b>far.csv", **{"<script>a": a + 9, "<b>y": y, "<b>z": z})
    targets = ["--target", "<b>y", "--target", "<b>z"]
    assert main(["fit", path, *targets, "--out", f"{tmp_path}/m.npz", "--max-iterations", "3"]) == 0
    assert main(["report", f"{tmp_path}/m.npz", far, "--html", f"{tmp_path}/r.html"]) == 0
    text = (tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert not re.search("<b>[yz]|<b>far", text)
    for escaped in (
        "lie outside the range of the fit in &#x27;&lt;script&gt;a",
        "RMSE, &lt;b&gt;y",
        "Predicted against true &lt;b&gt;z",
        "on &lt;b&gt;far.csv",
    ):
        assert escaped in text


@pytest.mark.parametrize("command", ["score", "report"])
def test_refusals_are_one_line_with_the_remedy(folder, tmp_path, capsys, command):
    html_out = ["--html", str(tmp_path / "r.html")] if command == "report" else []
    write(tmp_path / "no_target.csv", dose=[1.0])
    for arguments, words in (
        ([f"{folder}/line.npz", f"{tmp_path}/no_target.csv", *html_out], "has no column 'effect' (it is the target)"),
        ([f"{folder}/line.csv", f"{folder}/line.csv", *html_out], "line.csv"),
        ([f"{folder}/line.npz", f"{tmp_path}/none.csv", *html_out], "cannot read"),
    ):
        assert main([command, *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("balinp: error:")
        assert error.count("\n") == 1
        assert words in error
    assert not (tmp_path / "r.html").exists()


def test_a_report_without_matplotlib_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["report", f"{folder}/line.npz", f"{folder}/line.csv", "--html", str(tmp_path / "r.html")]) == 2
    assert "pip install 'balinp[plot]'" in capsys.readouterr().err


def test_a_model_of_before_ranges_were_kept_still_loads(folder):
    e = evaluate(folder / "line.npz", folder / "far.csv")
    old = e.schema.to_json()
    for column in old["columns"]:
        del column["range"]
    assert type(e.schema).from_json(old).outside(e.table) == {}


def test_doctor_names_versions_and_what_to_install(capsys, monkeypatch):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["numpy"], found["backends"]["numpy"]) == (np.__version__, "works")
    assert found["missing"] == {n: found["missing"][n] for n in found["extras"] if found["extras"][n] is None}
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "matplotlib" else "1.0")
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "no matplotlib" in said
    assert "pip install 'balinp[plot]'" in said
    assert "pip install 'balinp[gpu]'" in said


def test_doctor_finds_a_blas_that_threadpoolctl_does_not_know(monkeypatch):
    monkeypatch.setattr(doctor, "threadpool_info", lambda: [])
    assert "as built" in doctor.blas()


@pytest.mark.parametrize(("predictive", "shown"), [("joint", False), ("monte_carlo", True)])
def test_a_split_by_layer_is_shown_only_of_predictions_that_have_one(predictive, shown):
    x = np.linspace(0, 1, 40)[:, None]
    model = BALIRegressor((3,), predictive=predictive, max_iterations=6, random_state=0).fit(x, x[:, 0])
    schema = SimpleNamespace(targets=["y"])
    titles = [title for title, _ in _of_fit(SimpleNamespace(model=model, regression=True, schema=schema, X=x))]
    assert any("layer" in title for title in titles) == shown
    assert any("over the fit" in title for title in titles)
