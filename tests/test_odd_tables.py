"""Tables at the edge of what an estimator can use: few rows, equal rows, rows of no weight, other orders of memory."""

from __future__ import annotations

import numpy as np
import pytest

from balinp import BALIClassifier, BALIRegressor, InvalidArgumentError, Settings, predict_monte_carlo
from balinp.heldout import best_held_out
from balinp.likelihoods import Categorical, Gaussian
from balinp.mlp import MLP
from balinp.testing import assert_residual, comparison_residual, condition_number
from balinp.trial import Trial

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
SHORT = {"max_iterations": 20, "random_state": 0}


def rows(n, seed=0, d=3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    return x, x[:, 0] + x[:, 1] ** 2 / 2 + 0.2 * rng.standard_normal(n)


@pytest.mark.equation("eq:held-out-choice")
def test_of_few_rows_every_one_is_held_out_once():
    """59 rows: five fits, whose rows held out are a partition; 60: two, that lack a fifth each. Shares too small for a
    row hold out one."""
    for n, fraction, lacking in (
        (59, 0.2, [12] * 4 + [11]),
        (59, 0.4, [24] * 2),
        (60, 0.2, [12] * 2),
        (10, 0.001, [1] * 5),
    ):
        x, y = rows(n)
        trial = Trial(x, y[:, None], None, MLP((3, 4, 1)), Gaussian(np.ones(1)), 0, fraction, "joint")
        assert trial.folds == len(lacking)
        out = np.array([out for out, _, _ in trial.results(Settings(max_iterations=2))])
        assert out.sum(axis=0).max() == 1
        assert sorted(out.sum(axis=1), reverse=True) == lacking


def shares(x, y, likelihood, outputs):
    """How many rows each of the fits lacks, and how often each row is lacking."""
    trial = Trial(x, y, None, MLP((x.shape[1], 2, outputs)), likelihood, 0, 0.2, "linearized")
    out = np.array([out for out, _, _ in trial.results(Settings(max_iterations=2))])
    assert len(out) == trial.folds
    return sorted(out.sum(axis=1).tolist()), out.sum(axis=0).tolist()


@pytest.mark.equation("eq:held-out-choice")
def test_shares_of_few_rows_differ_by_one_at_most():
    """3 × 0.2 is above 3/5 in floating point: of five rows one fit lacked two and one none. Of fewer different rows
    than shares each is lacking from a fit of its own, and no fit lacks none."""
    for n in (5, 6, 7, 10, 13, 15, 20, 25, 35, 55):
        x, y = rows(n)
        sizes, times = shares(x, y[:, None], Gaussian(np.ones(1)), 1)
        assert sum(sizes) == n
        assert max(sizes) - min(sizes) <= 1, (n, sizes)
        assert times == [1] * n
    x, labels = np.repeat([[0.0], [1.0], [2.0]], 2, axis=0), np.array([0, 1] * 3)
    assert shares(x, labels, Categorical(), 2) == ([2, 2, 2], [1] * 6)


@pytest.mark.equation("eq:held-out-choice")
def test_rows_that_cannot_be_told_apart_are_not_held_out():
    """Six classes at one input, which a fit has either all or none of; negative control: two inputs."""
    labels = np.arange(6)
    for x, some in ((np.zeros((6, 1)), False), (labels[:, None] % 2.0, True)):
        trial = Trial(x, labels, None, MLP((1, 2, 6)), Categorical(), 0, 0.2, "linearized")
        settings = Settings.preset("classification", max_iterations=2)
        assert (best_held_out(trial, settings) is not None) == some
    model = BALIClassifier((3,), **SHORT).fit(np.zeros((6, 1)), labels)
    assert model.predict_proba([[0.0]]).shape == (1, 6)


@pytest.mark.equation("eq:held-out-joint")
def test_intervals_of_a_dozen_rows_are_wide_enough():
    """Coverage of the 90 % intervals on 1 000 rows, the mean of five tables of twelve rows: above 0.65.

    Of forty such tables it was 0.83 with a deviation of 0.14 from table to table: a mean of five is 2.9 deviations
    above that, which other seeds fail once in 500. Negative control: without held-out rows (0.33 and 0.28 of forty)
    it is below.
    """
    x, y = rows(1000, 99)

    def coverage(**chosen):
        shares = []
        for seed in range(5):
            model = BALIRegressor((20,), random_state=0, **chosen).fit(*rows(12, seed))
            mean, deviation = model.predict(x, return_std=True)
            shares.append(np.mean(np.abs(y - mean) < 1.645 * deviation))
        return float(np.mean(shares))

    assert coverage() > 0.65 > coverage(validation_fraction=0)


@pytest.mark.parametrize("case", ["one row counts", "equal rows", "two kinds of rows"])
def test_files_with_few_distinct_rows_are_fitted(tmp_path, case):
    """Equal rows of a memory map are not joined for the fit; for the choice by held-out rows they are."""
    x, y = rows(40)
    weight = np.ones(40)
    if case == "one row counts":
        weight[1:] = 0
    else:
        x, y = np.repeat(x[: 1 + (case[0] == "t")], 20, axis=0), np.repeat(y[: 1 + (case[0] == "t")], 20)
        weight = weight[: len(x)]
    for name, values in (("x", x), ("y", y), ("w", weight)):
        np.save(tmp_path / f"{name}.npy", values)
    on_disk = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xyw"]
    model = BALIRegressor((5,), **SHORT).fit(on_disk[0], on_disk[1], sample_weight=on_disk[2])
    mean, deviation = model.predict(x, return_std=True)
    assert np.all(np.isfinite(mean))
    assert np.all(deviation > 0)


def test_the_order_of_memory_changes_no_bit(tmp_path):
    """Columns after one another, as a data frame keeps them, or rows, in memory or in a file."""
    x, y = rows(60)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    kinds = (x, np.asfortranarray(x), np.load(tmp_path / "x.npy", mmap_mode="r"))
    first, *others = (BALIRegressor((5,), **SHORT).fit(part, y).predict(x, return_std=True) for part in kinds)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_without_hidden_layers_predictions_are_exact():
    """ "joint" is then the closed form: the mean of the exact regression, not an average over draws."""
    x, y = rows(50)
    model = BALIRegressor((), random_state=0).fit(x, y)
    p = model.predict_distribution(x)
    assert p.draws is None
    M = model.state_.means[0]
    A = np.column_stack([model.x_scaler_.transform(x, np.float64), np.ones(50)])
    expected = (A @ M)[:, 0] * model.y_scaler_.scale + model.y_scaler_.offset
    scale = condition_number(A.T @ A) * np.linalg.norm(expected)
    assert_residual(
        comparison_residual(p.mean[:, 0], expected, scale=scale, size=4), "mean", "eq:linearized-predictive"
    )


def test_steps_that_go_astray_are_cut_where_nothing_else_was_asked_for():
    """One hidden layer: a nat per target; more, or input-dependent noise: none; a choice of one's own stays."""

    def of(**parameters):
        settings = BALIRegressor(**parameters)._fit_settings(100)
        return settings.trust_region, settings.allowed_rise

    assert of() == (True, 1.0)
    assert of(hidden_widths=(5, 5)) == of(noise="input-dependent") == (True, 0.0)
    assert of(hidden_widths=()) == of(preset="literal") == of(settings={"trust_region": False}) == (False, 0.0)
    assert of(settings={"trust_region": True}) == (True, 0.0)
    assert of(settings={"allowed_rise": 0.5}) == (True, 0.5)


def test_targets_without_noise_are_predicted_as_such():
    """A law of three inputs: within a thousandth of the targets' deviation and as sure of it, with columns that repeat
    others; negative control: the floor of Settings. That floor stays in float32, where one asks for it and where no
    held-out rows tell the noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    X, y = np.hstack([X, X]), X @ [1.0, -2.0, 0.5] + 3
    sure = BALIRegressor(random_state=0).fit(X[:200], y[:200])
    mean, deviation = sure.predict(X[200:], return_std=True)
    assert np.all(np.abs(mean - y[200:]) < 1e-3 * y.std())
    assert np.all(deviation < 1e-3 * y.std())
    for model, data in (
        (BALIRegressor(random_state=0, settings={"noise_floor": 1e-4}), (X[:200], y[:200])),
        (BALIRegressor(random_state=0), (X[:200].astype(np.float32), y[:200].astype(np.float32))),
    ):
        assert np.all(model.fit(*data).predict(X[200:].astype(data[0].dtype), return_std=True)[1] > 5e-3 * y.std())
    assert [BALIRegressor()._table_settings(n).noise_floor for n in (4, 5, 5000, 5001)] == [1e-4, 1e-8, 1e-8, 1e-4]
    for parameters in ({"validation_fraction": 0}, {"hidden_widths": ()}, {"preset": "literal"}):
        assert BALIRegressor(**parameters)._table_settings(100).noise_floor == 1e-4
    assert BALIRegressor()._fit_settings(100).noise_floor == 1e-4  # a batch of a stream


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_watched_rows_where_a_class_has_no_probability(dtype):
    """Far rows of a classifier, whose other class has probability 0 exactly in each of the ten draws: their loss is
    that of their labels, without a warning."""
    rng = np.random.default_rng(0)
    X, y = np.vstack([rng.standard_normal((60, 2)) + 4, rng.standard_normal((60, 2)) - 4]), np.repeat([0, 1], 60)
    far, labels = np.array([[6000.0, 6000.0], [-6000.0, -6000.0]], dtype), np.array([0, 1])
    model = BALIClassifier((20,), max_iterations=40, random_state=0, validation_fraction=0)
    model.fit(X.astype(dtype), y, test=(far, labels))
    watched = model.x_scaler_.transform(far, dtype)
    p = predict_monte_carlo(model.state_, watched, np.random.default_rng(0), 10).probabilities
    assert np.any(p == 0)
    expected, found = -np.log(p[[0, 1], labels]).mean(), dtype(model.history_[-1].test_nll)
    assert_residual(comparison_residual(found, expected, scale=1.0), "watched loss", "eq:predictive-density")


def test_tables_of_counts_are_not_thrown_off():
    """3 000 rows in 25 cells: no iteration's loss is above two nats. Negative control: some are where steps are not
    cut. A choice of one's own stays, and so do larger tables, whose first steps are of some hundred rows."""
    rng = np.random.default_rng(0)
    X, p = rng.integers(0, 5, (3000, 2)), rng.uniform(0.05, 0.95, (5, 5))
    y = (rng.random(3000) < p[X[:, 0], X[:, 1]]).astype(int)
    worst = []
    for settings in (None, {"trust_region": False}):
        model = BALIClassifier(random_state=0, max_iterations=20, settings=settings).fit(X.astype(float), y)
        worst.append(max(record.train_nll for record in model.history_))
    assert worst[0] < 2 < 20 < worst[1], worst
    assert BALIClassifier()._table_settings(4999).trust_region
    assert not BALIClassifier()._table_settings(5000).trust_region
    assert not BALIClassifier(settings={"trust_region": False})._table_settings(100).trust_region


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, True, None])
def test_a_number_of_samples_is_a_positive_integer(n_samples):
    x, y = rows(30)
    models = [
        BALIRegressor((5,), **SHORT).fit(x, y),
        BALIRegressor((5,), predictive="monte_carlo", **SHORT).fit(x, y),
        BALIClassifier((5,), **SHORT).fit(x, y > 0),
    ]
    for model in models:
        with pytest.raises(InvalidArgumentError, match="n_samples must be an integer of at least 1"):
            model.sample_y(x, n_samples)


@pytest.mark.parametrize("scale", [1e-200, 1e14])
def test_weights_that_are_no_counts_of_rows_are_refused(scale):
    x, y = rows(40)
    for model, targets in ((BALIRegressor((5,), **SHORT), y), (BALIClassifier((5,), **SHORT), y > 0)):
        with pytest.raises(InvalidArgumentError, match="sample_weight must have a largest entry from 1e-100 to 1e"):
            model.fit(x, targets, sample_weight=np.full(40, scale))
        model.fit(x, targets, sample_weight=np.full(40, 1e-90 if scale < 1 else 1e12))


def test_text_labels_of_numpy_are_text():
    """Elements of kind numpy.str_ in an array of objects, as mapping a pandas column gives them."""
    x, y = rows(30)
    names = np.array(["low", "high"])[(y > 0).astype(int)]
    mapped = np.array([np.str_(name) for name in names], dtype=object)
    a, b = (BALIClassifier((5,), **SHORT).fit(x, labels) for labels in (names.tolist(), mapped))
    assert list(b.classes_) == ["high", "low"]
    assert {type(label) for label in b.classes_} == {str}
    np.testing.assert_array_equal(a.predict_proba(x), b.predict_proba(x))


def test_one_row_tells_no_noise():
    """The deviation elsewhere is of the size of the target, not the floor of the noise (a thousandth of it)."""
    x, y = rows(20)
    _, deviation = BALIRegressor((5,), **SHORT).fit(x[:1], y[:1] + 5).predict(x, return_std=True)
    assert np.all(deviation > (y[0] + 5) / 2)
