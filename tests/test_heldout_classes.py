"""What rows held out decide where they have labels: the prior precision, and how many fits tell it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from balinp import MLP, BALIClassifier, Categorical, Gaussian, Settings
from balinp.heldout import (
    HeldOut,
    Trial,
    best_held_out,
    convex,
    held_out_classes,
)
from balinp.predictive import predict_linearized
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual
from balinp.training import fit

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


EPS = np.finfo(float).eps
SURE, UNSURE = np.zeros(4), np.array([9.0, -9.0, 9.0, -9.0])  # differences row by row beside those of the means
POOR = {0.015: 50, 0.25: 60, 0.001: 80}  # losses without hidden layers


@pytest.mark.equation("eq:held-out-choice")
@pytest.mark.parametrize(
    ("losses", "noise", "linear", "wanted", "asked"),
    [
        ({0.015: 3, 0.06: 2, 0.25: 1}, SURE, POOR, 0.25, [0.015, 0.06, 0.25]),
        ({0.015: 3, 0.06: 2, 0.25: 2.5}, SURE, POOR, 0.06, [0.015, 0.06, 0.25]),
        ({0.015: 3, 0.06: 4, 0.003: 2}, SURE, POOR, 0.003, [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 4, 0.003: 5}, SURE, POOR, 0.015, [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 2, 0.003: 2}, UNSURE, POOR, 0.015, [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 4, 0.003: 5}, SURE, {0.015: 2, 0.25: 2.5, 0.001: 3}, (0.015,), [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 4, 0.003: 5}, SURE, {0.015: 4, 0.25: 2, 4.0: 1}, (4.0,), [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 2, 0.25: 1}, SURE, {0.015: 2, 0.25: 3, 0.001: 3}, 0.25, [0.015, 0.06, 0.25]),
        ({0.015: 3, 0.06: 4, 0.003: 5}, SURE, {0.015: 3, 0.25: 4, 0.001: 5}, (0.015,), [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 4, 0.003: 5}, SURE, {0.015: 3, 0.25: 4, 0.001: 2}, (0.001,), [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 4, 0.003: 5}, UNSURE, {0.015: 3.5, 0.25: 4, 0.001: 2}, (0.015,), [0.015, 0.06, 0.003]),
    ],
)
def test_classes_take_the_way_that_gets_better_by_a_standard_error(monkeypatch, losses, noise, linear, wanted, asked):
    """The walk over prior precisions, of losses given by hand: upwards, downwards, to its end, and not for less than a
    standard error, which is that of differences row by row; then a way without hidden layers, downwards for a standard
    error only, whose end is taken unless the network is better by one."""
    trial = Trial(np.arange(6.0)[:, None], np.arange(6), None, MLP((1, 2, 6)), Categorical(), 0, 0.2)
    settings, seen = Settings.preset("classification"), {3: [], 2: []}

    def judge(trial, variant, label=""):
        known = seen[len(trial.mlp.widths)]
        known.append(variant.prior_precision)
        mean = (losses if len(trial.mlp.widths) == 3 else linear)[variant.prior_precision]
        linear_start = len(trial.mlp.widths) == 2 and variant.prior_precision != 0.001
        each = mean + (noise if linear_start or (len(known) > 1 and len(trial.mlp.widths) == 3) else SURE)
        return HeldOut(variant, float(each.mean()), each)

    monkeypatch.setattr("balinp.heldout.held_out_classes", judge)
    found = best_held_out(trial, settings)
    assert (found.mlp is not None) == isinstance(wanted, tuple)
    assert found.settings.prior_precision == (wanted[0] if isinstance(wanted, tuple) else wanted)
    assert found.mlp is None or found.mlp.widths == (1, 6)
    assert seen[3] == asked
    assert seen[2] == list(linear)[: len(seen[2])]
    assert len(seen[2]) >= 2


@pytest.mark.equation("eq:held-out-choice")
@pytest.mark.equation("eq:row-curvature")
@pytest.mark.parametrize("seed", range(4))
def test_classes_without_hidden_layers_end_at_the_minimum(seed):
    """The slope of the penalised loss vanishes to rounding with forty joint steps; with the default's twenty and sixty
    iterations it is a millionth and less of what a thousand short steps by the bound leave, the negative control."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((120, 5))
    y = (3 * x @ rng.standard_normal((5, 3)) + rng.gumbel(size=(120, 3))).argmax(axis=1)
    short = Settings.preset("classification", trust_region=True, max_iterations=1000)
    ratios = []
    for settings in (replace(convex(short), joint_iterations=40), convex(short), short):
        state = fit(x, y, MLP((5, 3)), Categorical(), np.random.default_rng(0), settings).state
        activations = state.mlp.forward(state.means, x)
        A, G = activations.inputs[0], state.likelihood.gradient(activations.outputs[-1], y)
        slope = A.T @ G + state.layers[0].prior_precision * state.means[0]
        ratios.append(np.linalg.norm(slope) / (len(x) * EPS * np.linalg.norm(A) * np.linalg.norm(G)))
        assert settings is short or state.iteration == 60
    assert_residual(ratios[0], "slope at the end", "eq:row-curvature")
    assert ratios[1] < 1e-6 * ratios[2]


@pytest.mark.equation("eq:output-curvature")
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("tau", [0.001, 1.0])
def test_classes_posterior_is_exact_for_their_contrasts(monkeypatch, classes, tau):
    """Without hidden layers, of differences between logits, given Böhning's bound: against one dense inverse. Negative
    control: with the singular bound in the layer, one row factor has to do for the shift of all logits too."""
    rng = np.random.default_rng(classes)
    x, y = rng.standard_normal((60, 3)), rng.integers(0, classes, 60)
    settings = convex(Settings.preset("classification", max_iterations=200, prior_precision=tau))
    A, contrasts = np.column_stack([x, np.ones(60)]), np.eye(classes) - 1 / classes

    def ratio():
        (layer,) = fit(x, y, MLP((3, classes)), Categorical(), np.random.default_rng(0), settings).state.layers
        q, prior = layer.posterior, layer.prior_precision
        precision = np.kron(contrasts / 2, A.T @ A) + prior * np.eye(4 * classes)
        project = np.kron(contrasts, np.eye(4))
        expected = project @ np.linalg.inv(precision) @ project
        got = project @ np.kron(q.column_covariance, np.linalg.inv(q.row_precision)) @ project
        # κ is nearly 1, and what is left of it is rounded: by a condition of its own
        condition = np.linalg.cond(precision) + 1 / (1 - layer.determined)
        return comparison_residual(got, expected, size=len(precision)) / condition

    assert_residual(ratio(), f"{classes} classes, τ {tau:g}", "eq:output-curvature")
    monkeypatch.setattr(Categorical, "layer_curvature", Categorical.curvature)
    assert ratio() > THRESHOLD


def test_what_the_user_chose_stays_in_fits_without_hidden_layers():
    short = Settings.preset("classification", max_iterations=30)
    assert convex(short).joint_iterations == 15  # as many again are left for the draws' temperature
    assert convex(short, {"step_scale", "patience"}) == replace(short, joint_iterations=15)
    assert convex(replace(short, batch_size=64), {"batch_size"}) == replace(short, batch_size=64)
    assert convex(replace(short, batch_size=64)).batch_size is None
    assert convex(replace(short, prior="tied")) == replace(short, prior="tied")
    x, y = np.random.default_rng(0).standard_normal((40, 2)), np.arange(40) % 2
    model = BALIClassifier((), settings={"joint_iterations": 0}, random_state=0).fit(x, y)
    assert model._table_settings(40).joint_iterations == 0
    assert BALIClassifier((), random_state=0).fit(x, y)._table_settings(40).joint_iterations == 20
    assert model._table_settings(5_000).batch_size == 500


@pytest.mark.equation("eq:held-out-choice")
def test_labels_of_equal_inputs_are_held_out_together():
    """By hand: no input is on both sides, in a regression rows that differ in their targets may be. Ten copies of each
    input and more, as rows or as weights: nothing is held out."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal((30, 2)), 3, axis=0)
    y, t = rng.integers(0, 2, 90), rng.standard_normal((90, 1))
    quick = {"max_iterations": 3}
    classes = Trial(x, y, None, MLP((2, 3, 2)), Categorical(), 0, 0.2, "linearized")
    numbers = Trial(x, t, None, MLP((2, 3, 1)), Gaussian(np.ones(1)), 0, 0.2, "linearized")
    split = []
    for trial, settings in ((classes, Settings.preset("classification", **quick)), (numbers, Settings(**quick))):
        out = trial.results(settings)[0][0].reshape(30, 3)
        split.append(bool(np.any(out.any(axis=1) & ~out.all(axis=1))))
        assert out.sum() in (17, 18)
    assert split == [False, True]
    assert classes.copies == 3
    assert replace(classes, weight=np.full(90, 2.0)).copies == 6
    settings = Settings.preset("classification", **quick)
    assert best_held_out(replace(classes, weight=np.full(90, 3.3)), settings).losses.size
    counted = best_held_out(replace(classes, weight=np.full(90, 3.4)), settings)
    assert counted.losses.size == 0
    assert counted.settings == replace(settings, gradients="mean")
    assert best_held_out(replace(classes, weight=np.full(90, 3.4)), settings, {"gradients"}).settings == settings


@pytest.mark.equation("eq:held-out-choice")
def test_a_table_of_four_cells_predicts_their_frequencies():
    """400 rows in four cells: probabilities within 0.05 of the cells' own frequencies, a standard error of a cell of a
    hundred, with each of three seeds. Negative control: with draws in training they are farther off on average."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (400, 2)).astype(float)
    y = (rng.random(400) < np.array([[0.2, 0.5], [0.7, 0.4]])[X[:, 0].astype(int), X[:, 1].astype(int)]).astype(int)
    cells = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    known = np.array([y[(cell == X).all(axis=1)].mean() for cell in cells])
    exact, drawn = (
        [
            np.abs(BALIClassifier(random_state=r, settings=changes).fit(X, y).predict_proba(cells)[:, 1] - known).max()
            for r in range(3)
        ]
        for changes in (None, {"gradients": "sampled"})
    )
    assert max(exact) < 0.05 < np.mean(drawn), (exact, drawn)


@pytest.mark.equation("eq:held-out-choice")
def test_classes_that_a_line_parts_get_no_hidden_layers():
    """Twenty inputs of which five count, by a linear rule with noise, 200 rows: no hidden layers, and a smaller loss on
    fresh rows than the network's. Negative control: a ring keeps its network."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1200, 20))
    y = (X[:, :5].sum(axis=1) + rng.logistic(size=1200) > 0).astype(int)
    losses = []
    for share in (0.2, 0.0):
        model = BALIClassifier(validation_fraction=share, random_state=0).fit(X[:200], y[:200])
        assert len(model.state_.mlp.widths) == (2 if share else 3)
        losses.append(-np.mean(np.log(model.predict_proba(X[200:])[np.arange(1000), y[200:]])))
    assert losses[0] < losses[1] - 0.05, losses
    ring = ((X[:, :2] ** 2).sum(axis=1) > 1.4).astype(int)
    model = BALIClassifier(random_state=0, max_iterations=200).fit(X[:300, :2], ring[:300])
    assert len(model.state_.mlp.widths) == 3


@pytest.mark.equation("eq:held-out-choice")
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_of_classes_is_that_of_the_rows_held_out(weighted):
    """−log of the probability of the label, weighted, as predicted by the same fits made by hand at its temperature."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 2)), rng.integers(0, 3, 60)
    weight = rng.uniform(0.5, 2, 60) if weighted else None
    settings = Settings.preset("classification", max_iterations=20)
    trial = Trial(x, y, weight, MLP((2, 4, 3)), Categorical(), 1, 0.3, "linearized")
    held, results = held_out_classes(trial, settings), trial.results(settings)
    assert trial.folds == len(results) == 2
    total = count = 0.0
    for out, state, _ in results:
        p = predict_linearized(held.applied(state), x[out]).probabilities
        for row, label, w in zip(p, y[out], np.ones(60) if weight is None else weight[out]):
            total, count = total - w * np.log(row[label]), count + w
    assert held.loss == pytest.approx(total / count, rel=60 * np.finfo(float).eps)
    assert not np.any(results[0][0] & results[1][0])
    assert 16 <= results[0][0].sum() <= 20
    assert held.applied(results[0][1]).predictive_temperature == held.temperature * results[0][1].temperature
    assert replace(trial, x=np.zeros((1000, 2))).folds == 1


@pytest.mark.equation("eq:held-out-choice")
def test_noisy_labels_get_a_larger_prior_precision():
    """A third of the labels drawn, the others no line parts: a precision above the default's 0.015 · 12, and a smaller
    loss on fresh rows."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((600, 12))
    y = np.where(rng.random(600) < 1 / 3, rng.integers(0, 2, 600), np.abs(X[:, 0]) > 0.7).astype(int)
    losses, precisions = [], []
    for share in (0.2, 0.0):
        model = BALIClassifier(validation_fraction=share, max_iterations=300, random_state=0).fit(X[:300], y[:300])
        losses.append(-np.mean(np.log(model.predict_proba(X[300:])[np.arange(300), y[300:]])))
        precisions.append(model.history_[-1].prior_precision[0])
    assert precisions[0] > 2 * precisions[1]
    assert losses[0] < losses[1], losses
    given = BALIClassifier(settings={"prior_precision": 0.015}, max_iterations=300, random_state=0)
    assert given.fit(X[:300], y[:300]).history_[-1].prior_precision[0] == precisions[1]
