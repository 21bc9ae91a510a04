"""Pictures: what is drawn where, by looking at the axes; and that nothing global is left behind."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from balinp import InvalidArgumentError, IterationRecord, plots

matplotlib = pytest.importorskip("matplotlib")


def record(iteration, train, test):
    return IterationRecord(iteration, train, test, 1.0, (), (), (), (), 1.0, 0.0)


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_predictions_have_intervals_of_the_level(axes, generator):
    y, std = generator.standard_normal(20), np.full(20, 2.0)
    assert plots.plot_predictions(axes, y, y + 1, std, "load [kN]") is axes
    (_, _, (bars,)) = axes.containers[0]
    lengths = [segment[1][1] - segment[0][1] for segment in bars.get_segments()]
    assert np.allclose(lengths, 2 * 1.6448536269514722 * 2.0)
    assert axes.get_xlabel() == "true load [kN]"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "predicted = true",
        "test rows (20), 90% interval",
    ]


def test_reliability_shows_shares_by_confidence(axes):
    p = np.array([[0.95, 0.05]] * 4 + [[0.35, 0.65]] * 2)
    plots.plot_reliability(axes, [0, 0, 0, 1, 1, 0], p)
    points = axes.containers[0][0].get_xydata()
    assert np.allclose(points, [[0.65, 0.5], [0.95, 0.75]])
    assert [text.get_text() for text in axes.texts] == ["2", "4"]


def test_history_draws_train_and_test_in_different_line_styles(axes):
    plots.plot_history(axes, [record(i, 3.0 / i, 4.0 / i) for i in range(1, 50)])
    train, test = axes.get_lines()
    assert (train.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert axes.get_xscale() == "log"
    assert "nats per row" in axes.get_ylabel()


def test_history_says_what_it_leaves_out(axes):
    plots.plot_history(axes, [record(i, 1e6 if i < 3 else 1.0 - i / 1e3, None) for i in range(1, 101)])
    assert len(axes.get_lines()) == 1
    assert axes.get_ylim()[1] < 2
    assert "the first 5 left out" in axes.get_xlabel()


@pytest.mark.parametrize("history", [[record(1, 2.0, 2.5)], [record(i, 1.0, 1.0) for i in (1, 2, 3)]])
def test_a_short_or_constant_history_can_be_drawn(tmp_path, axes, history):
    plots.plot_history(axes, history)
    plots.save_figure(axes.figure, tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.PDF", "a.svg"])
def test_figures_are_written_whole_and_without_pyplot(tmp_path, generator, name):
    y = generator.standard_normal((30, 6))
    figure = plots.regression_figure(list("abcdef"), y, y, np.abs(y), [record(1, 1.0, 2.0)], "cost in $ and $")
    assert len(figure.axes) == 5  # four targets at most, and the history
    plots.check_picture(tmp_path / name)
    plots.save_figure(figure, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == [name]
    p = generator.dirichlet(np.ones(3), 25)
    assert len(plots.classification_figure(p.argmax(axis=1), p, [record(1, 1.0, 2.0)]).axes) == 2


def test_a_name_that_no_picture_has_is_refused():
    for name in ("a.docx", "a"):
        with pytest.raises(InvalidArgumentError, match="end its name in one of"):
            plots.check_picture(name)


def test_importing_plots_does_not_import_matplotlib():
    import subprocess

    code = "import sys, balinp.plots, balinp.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
