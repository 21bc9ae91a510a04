"""What rows held out decide where they have labels: the prior precision, and how many fits tell it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from balinp import MLP, BALIClassifier, Categorical, Settings
from balinp.heldout import (
    HeldOut,
    Trial,
    best_held_out,
    held_out_classes,
)
from balinp.predictive import predict_linearized

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")


@pytest.mark.equation("eq:held-out-choice")
def test_classes_take_the_way_that_gets_better_by_a_standard_error(monkeypatch):
    """The walk over prior precisions, of losses given by hand: upwards, downwards, to its end, and not for less than a
    standard error, which is that of differences row by row."""
    trial = Trial(np.zeros((4, 1)), np.arange(4), None, MLP((1, 2, 4)), Categorical(), 0, 0.2)
    settings, sure, unsure = Settings.preset("classification"), np.zeros(4), np.array([9.0, -9.0, 9.0, -9.0])
    for losses, noise, wanted, asked in (
        ({0.015: 3, 0.06: 2, 0.25: 1}, sure, 0.25, [0.015, 0.06, 0.25]),
        ({0.015: 3, 0.06: 2, 0.25: 2.5}, sure, 0.06, [0.015, 0.06, 0.25]),
        ({0.015: 3, 0.06: 4, 0.003: 2}, sure, 0.003, [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 4, 0.003: 5}, sure, 0.015, [0.015, 0.06, 0.003]),
        ({0.015: 3, 0.06: 2, 0.003: 2}, unsure, 0.015, [0.015, 0.06, 0.003]),
    ):
        seen = []

        def judge(trial, variant, label="", losses=losses, noise=noise, seen=seen):
            seen.append(variant.prior_precision)
            each = losses[variant.prior_precision] + (noise if len(seen) > 1 else 0 * noise)
            return HeldOut(variant, float(each.mean()), each)

        monkeypatch.setattr("balinp.heldout.held_out_classes", judge)
        assert best_held_out(trial, settings).settings.prior_precision == wanted
        assert seen == asked


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
    """A third of the labels wrong: a precision above the default's 0.015 · 10, and a smaller loss on fresh rows."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 10))
    y = np.where(rng.random(600) < 1 / 3, rng.integers(0, 2, 600), X[:, 0] > 0).astype(int)
    losses, precisions = [], []
    for share in (0.2, 0.0):
        model = BALIClassifier(validation_fraction=share, max_iterations=300, random_state=0).fit(X[:300], y[:300])
        losses.append(-np.mean(np.log(model.predict_proba(X[300:])[np.arange(300), y[300:]])))
        precisions.append(model.history_[-1].prior_precision[0])
    assert precisions[0] > 2 * precisions[1]
    assert losses[0] < losses[1] - 0.05, losses
    given = BALIClassifier(settings={"prior_precision": 0.015}, max_iterations=300, random_state=0)
    assert given.fit(X[:300], y[:300]).history_[-1].prior_precision[0] == precisions[1]
