"""Pictures: what is drawn where, by looking at the axes; and that nothing global is left behind."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from balinp import InvalidArgumentError, IterationRecord, Predictive, plots

matplotlib = pytest.importorskip("matplotlib")


def record(iteration, train, test, temperature=1.0):
    return IterationRecord(iteration, train, test, 1.0, (), (), (), (), temperature, 0.0)


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_predictions_have_intervals_of_the_level(axes, generator):
    y, std = generator.standard_normal(20), np.full(20, 2.0)
    assert plots.plot_predictions(y, y + 1, std, "load [kN]", ax=axes) is axes
    (_, _, (bars,)) = axes.containers[0]
    lengths = [segment[1][1] - segment[0][1] for segment in bars.get_segments()]
    assert np.allclose(lengths, 2 * 1.6448536269514722 * 2.0)
    assert axes.get_xlabel() == "true load [kN]"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "predicted = true",
        "20 rows, 90% interval",
    ]


def test_reliability_shows_shares_by_confidence(axes):
    p = np.array([[0.95, 0.05]] * 4 + [[0.35, 0.65]] * 2)
    plots.plot_reliability([0, 0, 0, 1, 1, 0], p, ax=axes)
    points = axes.containers[0][0].get_xydata()
    assert np.allclose(points, [[0.65, 0.5], [0.95, 0.75]])
    assert [text.get_text() for text in axes.texts] == ["2", "4"]


def test_history_draws_train_and_test_in_different_line_styles(axes):
    plots.plot_history([record(i, 3.0 / i, 4.0 / i) for i in range(1, 50)], ax=axes)
    train, test = axes.get_lines()
    assert (train.get_linestyle(), test.get_linestyle()) == ("-", "--")
    assert axes.get_xscale() == "log"
    assert "nats per row" in axes.get_ylabel()


def test_history_says_what_it_leaves_out(axes):
    plots.plot_history([record(i, 1e6 if i < 3 else 1.0 - i / 1e3, None) for i in range(1, 101)], ax=axes)
    assert len(axes.get_lines()) == 1
    assert axes.get_ylim()[1] < 2
    assert "the first 5 left out" in axes.get_xlabel()


@pytest.mark.parametrize(("at_means", "marks"), [(0, []), (4, [5]), (10, [])])
def test_history_marks_the_end_of_the_warm_up(axes, at_means, marks):
    """The record of an iteration has the temperature of the next."""
    plots.plot_history([record(i, 1.0, None, float(i > at_means)) for i in range(1, 11)], ax=axes)
    assert [line.get_xdata()[0] for line in axes.get_lines()[1:]] == marks


@pytest.mark.parametrize("history", [[record(1, 2.0, 2.5)], [record(i, 1.0, 1.0) for i in (1, 2, 3)]])
def test_a_short_or_constant_history_can_be_drawn(tmp_path, axes, history):
    plots.plot_history(history, ax=axes)
    plots.save_figure(axes.figure, tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.PDF", "a.svg"])
def test_figures_are_written_whole_and_without_pyplot(tmp_path, generator, name):
    y = generator.standard_normal(30)
    drawings = [lambda ax: plots.plot_predictions(y, y, abs(y), ax=ax)] * 3
    drawings.append(lambda ax: plots.plot_history([record(1, 1.0, 2.0)], ax=ax))
    figure = plots.combined(drawings, "cost in $ and $")
    assert len(figure.axes) == 4
    plots.check_picture(tmp_path / name)
    plots.save_figure(figure, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert "matplotlib.pyplot" not in sys.modules


def test_without_axes_a_figure_is_made():
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    one, other = plots.plot_reliability([0, 1], p), plots.plot_reliability([0, 1], p)
    assert one.figure is not other.figure
    assert one.figure.axes == [one]


def test_the_band_keeps_aleatoric_and_epistemic_apart(axes):
    x = np.array([2.0, 0.0, 1.0])
    assert plots.plot_band(x, 10 * x, np.full(3, 4.0), np.full(3, 3.0), (x, x), ("dose", "effect"), ax=axes) is axes
    lower, upper, mean, points = (line.get_xydata() for line in axes.get_lines())
    z = 1.6448536269514722
    np.testing.assert_allclose(mean, [[0, 0], [1, 10], [2, 20]], rtol=0)
    np.testing.assert_allclose(upper[:, 1] - lower[:, 1], 2 * z * 5.0)  # the hypotenuse of 4 and 3
    total, epistemic = axes.collections
    heights = [np.ptp(c.get_paths()[0].vertices[:, 1]) for c in (total, epistemic)]
    np.testing.assert_allclose(heights, [20 + 2 * z * 5, 20 + 2 * z * 3])
    assert epistemic.get_hatch() == "////"  # told apart without colour
    assert len(points) == 3
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("dose", "effect")
    with pytest.raises(InvalidArgumentError, match=r"\(n,\)"):
        plots.plot_band(np.zeros((3, 2)), x, x, x)


def test_coverage_is_the_share_within_each_interval(axes):
    z = np.array([0.1, 0.5, 1.0, 3.0])  # deviations from the mean; Φ gives the probability of each interval
    plots.plot_coverage(2 * z, np.zeros(4), np.full(4, 2.0), "load", ax=axes)
    step = axes.get_lines()[1].get_xydata()
    np.testing.assert_allclose(step[:, 0], [0.0796556746, 0.3829249225, 0.6826894921, 0.9973002039, 1], atol=1e-10)
    assert step[:, 1].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert [text.get_text() for text in axes.texts] == ["0.50", "0.75"]
    assert "load" in axes.get_ylabel()


def test_the_roc_goes_through_its_thresholds(axes):
    plots.plot_roc([0.0, 1.0, 1.0, 2.0], [1.0, 3.0], ("old", "new"), "entropy", ax=axes)
    assert axes.get_lines()[0].get_xydata().tolist() == [[0, 0], [0, 0.5], [0.25, 0.5], [0.75, 1], [1, 1]]
    assert axes.get_legend().get_texts()[0].get_text() == "entropy (area 0.750)"  # 6 of 8 pairs


def test_layers_show_their_mean_variance(axes):
    parts = np.array([[[[1.0]], [[3.0]]], [[[6.0]], [[6.0]]]])  # two layers, two rows, one output
    ones = np.ones((2, 1, 1))
    plots.plot_epistemic_by_layer(Predictive(np.zeros((2, 1)), ones, ones, parts), "kN", ax=axes)
    assert [bar.get_height() for bar in axes.patches] == [2, 6]
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    assert [text.get_text() for text in axes.texts] == ["25%", "75%"]
    assert "kN²" in axes.get_ylabel()
    with pytest.raises(InvalidArgumentError, match="set_params"):
        plots.plot_epistemic_by_layer(Predictive(np.zeros((2, 1)), ones, ones))


def test_the_plane_of_two_inputs_shows_entropy_borders_and_classes(axes, generator):
    class Model:
        classes_ = np.array(["a", "b"])

        def predict_proba(self, X):
            p = 1 / (1 + np.exp(-X[:, 0]))
            return np.stack([1 - p, p], axis=1)

    X = generator.standard_normal((20, 2))
    plots.plot_class_uncertainty(Model(), X, np.where(X[:, 0] > 0, "b", "a"), ("u", "v"), points=41, ax=axes)
    border = axes.collections[-1].get_paths()[0].vertices
    assert np.abs(border[:, 0]).max() <= 1e-3 * np.ptp(X[:, 0])  # logit 0, between two points of the grid
    assert [line.get_marker() for line in axes.get_lines()] == ["o", "s"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("u", "v")
    with pytest.raises(InvalidArgumentError, match="two columns"):
        plots.plot_class_uncertainty(Model(), X[:, :1], X[:, 0])


def test_a_name_that_no_picture_has_is_refused():
    for name in ("a.docx", "a"):
        with pytest.raises(InvalidArgumentError, match="end its name in one of"):
            plots.check_picture(name)


def test_importing_plots_does_not_import_matplotlib():
    import subprocess

    code = "import sys, balinp.plots, balinp.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
