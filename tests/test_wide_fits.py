"""Fits of few rows for their inputs, whole: what they find, cost, keep in files, and leave when interrupted."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pytest
from sklearn.base import clone

from balinp import (
    MLP,
    BALIClassifier,
    BALIRegressor,
    Gaussian,
    InterruptedFitWarning,
    ModelFileError,
    Settings,
    fit,
)
from balinp.cli import main
from balinp.files import read_arrays, write_arrays
from balinp.heldout import best_held_out
from balinp.metrics import rmse
from balinp.persistence import MODEL
from balinp.trial import HeldOut, Trial
from balinp.wide import InputMaps

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
QUICK = {"max_iterations": 20, "random_state": 0}


@pytest.mark.equation("eq:input-span")
def test_few_inputs_of_many_are_found():
    """Three inputs of 300 make the target: held-out rows want relevance, and the error is less than half of what it is
    without."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((520, 300))
    y = 2 * X[:, 0] - X[:, 1] + X[:, 2] + 0.3 * rng.standard_normal(520)
    model, alike = (BALIRegressor((10,), random_state=0, relevance=r).fit(X[:120], y[:120]) for r in (True, False))
    assert set(np.argsort(model.x_scaler_.scale)[:3]) == {0, 1, 2}
    assert rmse(y[120:], model.predict(X[120:])) < rmse(y[120:], alike.predict(X[120:])) / 2


def test_a_linear_model_is_the_regression_it_was():
    """hidden_widths=() on twenty rows of fifty inputs: the mean is that of ridge regression on the inputs themselves,
    whose ridge is the prior's precision over c²; 0.85 of what is left stays in every one of 300 iterations."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((20, 50)), rng.standard_normal(20)
    fixed = {"tolerance": 0, "evidence": False, "learn_noise": False, "max_iterations": 300}
    model = BALIRegressor((), random_state=0, settings=fixed).fit(X, y)
    new = rng.standard_normal((7, 50))
    a, b = ((rows - X.mean(0)) / X.std(0) for rows in (X, new))
    target = (y - y.mean()) / y.std()
    ridge = model.state_.layers[0].posterior.row_precision[-2, -2] / model.x_span_.unit**2  # the prior's alone
    mean = b @ a.T @ np.linalg.solve(a @ a.T + ridge * np.eye(20), target) * y.std() + y.mean()
    assert model.predict(new) == pytest.approx(mean, abs=1e-10)


def test_memory_does_not_grow_with_the_square_of_the_inputs():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 5000)), rng.standard_normal(20)
    BALIRegressor((3,), **QUICK).fit(X[:, :50], y)  # whatever is loaded once
    tracemalloc.start()
    model = BALIRegressor((3,), **QUICK).fit(X, y)
    model.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5000**2 * 8 / 4
    assert model.n_features_in_ == 5000


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("inputs", [40, 9])
@pytest.mark.parametrize("kind", [BALIRegressor, BALIClassifier])
def test_a_wide_model_comes_back_from_its_file(kind, inputs, dtype, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((14, inputs)).astype(dtype), rng.integers(0, 2, 14)
    model, path = kind((3,), **QUICK).fit(X, y), tmp_path / "wide.npz"
    model.save(path)
    again = kind.load(path)
    new = rng.standard_normal((5, inputs)).astype(dtype)
    for name in ("mean", "epistemic"):
        one, other = (getattr(each.predict_distribution(new), name) for each in (model, again))
        assert np.array_equal(one, other)
    header, arrays = read_arrays(path, MODEL)
    if inputs == 9:  # all of which the rows span
        assert "x_span" not in arrays
        return
    basis = arrays["x_span"]
    for bad in (basis[:, :-1], 2 * basis, basis.astype(np.float32), np.where(basis > 0, np.nan, basis), basis[0]):
        write_arrays(path, MODEL, header, {**arrays, "x_span": bad})
        with pytest.raises(ModelFileError, match="span of the inputs"):
            kind.load(path)


@pytest.mark.parametrize(
    ("share", "inputs", "dtype"), [(0.0, 30, "float64"), (0.2, 30, "float64"), (0.2, 7, "float32")]
)
def test_an_interrupted_fit_predicts_with_the_inputs_it_saw_and_goes_on(share, inputs, dtype, tmp_path):
    """Ended in any of the fits, by what Ctrl-C sets, the model is that fit's network in that fit's coordinates; the
    same fit with the same checkpoint goes on to the bits of one that was not interrupted."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, inputs)).astype(dtype), rng.standard_normal(12)
    whole, phases = BALIRegressor((3,), max_iterations=8, random_state=0, validation_fraction=share).fit(X, y), set()
    for after in range(0, 400, 7):  # less than the iterations of a fit
        model, asked, seen = clone(whole), iter(range(9999)), []
        path = tmp_path / f"{after}.npz"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("balinp.session.Session.interrupted", lambda self: next(asked) >= after)  # noqa: B023
            patch.setattr("balinp.session.fit", lambda x, *a, **k: seen.append(x) or fit(x, *a, **k))  # noqa: B023
            with pytest.warns(InterruptedFitWarning) as told:
                model.fit(X, y, checkpoint=path)
        text = str(told[0].message)
        phase = text.split("'")[1].split(" ")[0] if "'" in text else "fit"
        known = model.x_scaler_.transform(X, np.float64)
        if inputs == 30:
            known = model.x_span_.transform(known, np.float64)
        assert model.state_.mlp.widths[0] == known.shape[1]
        for row in seen[-1]:
            apart = np.abs(known - row).max(axis=1) / np.abs(known).max()
            assert apart.min() < 10 * known.shape[1] * np.finfo(dtype).eps, "the rows that the fit saw"
        if phase not in phases:
            assert np.array_equal(clone(whole).fit(X, y, checkpoint=path).predict(X), whole.predict(X))
        phases.add(phase)
        if phase == "fit":
            break
    assert phases == {"relevance", "fit"} | ({"held-out"} if share else set())


def test_few_rows_of_a_file_are_as_few_rows_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((12, 30)))
    X, y = np.load(tmp_path / "x.npy", mmap_mode="r"), rng.standard_normal(12)
    mapped, here = (BALIRegressor((3,), **QUICK).fit(rows, y) for rows in (X, np.array(X)))
    assert mapped.x_span_ is not None
    assert np.array_equal(mapped.predict(X), here.predict(X))
    weight = np.array([0.0, 0.0, 2.0] + 9 * [1.0])
    for rows in (X, np.array(X)):
        model = BALIRegressor((3,), **QUICK).fit(rows, y, sample_weight=weight)
        assert model.x_span_.inputs == 10, "ten rows have a weight, and nine dimensions about their mean"


def test_weights_are_rows_on_wide_tables_too():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((9, 20)), rng.standard_normal(9)
    w = np.array([1.0, 2, 1, 3, 1, 1, 2, 1, 1])
    one = BALIRegressor((3,), **QUICK).fit(X, y, sample_weight=w)
    index = np.repeat(np.arange(9), w.astype(int))
    other = BALIRegressor((3,), **QUICK).fit(X[index], y[index])
    assert np.array_equal(one.predict(X), other.predict(X))


def test_the_report_says_that_the_network_has_fewer_inputs(tmp_path):
    rng = np.random.default_rng(0)
    lines = [",".join([*(f"x{i}" for i in range(25)), "y"])]
    lines += [",".join(f"{v:.6f}" for v in row) for row in rng.standard_normal((20, 26))]
    (tmp_path / "wide.csv").write_text("\n".join(lines))
    table, model, page = (str(tmp_path / name) for name in ("wide.csv", "wide.npz", "wide.html"))
    assert main(["fit", table, "--target", "y", "--out", model, "--hidden", "4", "--max-iterations", "10"]) == 0
    assert main(["report", model, table, "--html", page]) == 0
    assert "; 25 inputs seen in the span of the rows" in (tmp_path / "wide.html").read_text()


@pytest.mark.equation("eq:held-out-choice", "eq:input-span")
def test_hidden_layers_need_two_standard_errors(monkeypatch):
    """Of a wide regression; a network that is better by 1.5 of them does not get in, one that is by 2.5 does."""
    rng = np.random.default_rng(0)
    x, y, gains = rng.standard_normal((20, 30)), rng.standard_normal((20, 1)), rng.standard_normal(20)
    gains = (gains - gains.mean()) / gains.std()
    maps = InputMaps(lambda *_: None, np.float64)
    trial = Trial(x, y, None, MLP((30, 3, 1)), Gaussian(np.ones(1)), 0, 0.2, inputs=partial(maps.learnt, False))
    for errors, hidden in ((1.5, False), (2.5, True)):

        def judged(trial, settings, label):
            losses = np.zeros(20) if len(trial.mlp.widths) == 2 else gains - errors / 20**0.5  # noqa: B023
            return HeldOut(settings, float(losses.mean()), losses, Gaussian(np.ones(1)))

        monkeypatch.setattr("balinp.heldout.held_out_noise", judged)
        assert (best_held_out(trial, Settings()).mlp is None) == hidden
