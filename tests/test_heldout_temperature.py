"""The temperature of class probabilities that held-out labels choose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from balinp import MLP, BALIClassifier, Categorical, Settings
from balinp.heldout import HeldOut, Trial, held_out_classes, probabilities_at
from balinp.predictive import predict_linearized, predict_monte_carlo
from balinp.testing import assert_residual, comparison_residual, random_network_problem

KINDS = ("linearized", "monte_carlo")


def predicted(state, x, kind):
    return (
        predict_linearized(state, x)
        if kind == "linearized"
        else predict_monte_carlo(state, x, np.random.default_rng(3))
    )


@pytest.mark.equation("eq:held-out-temperature")
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_at_a_temperature_are_those_that_a_state_of_it_predicts(kind):
    """For one that is hotter and one that is colder; control: at training's own they are others."""
    problem = random_network_problem(0, 20, (2, 4, 3))
    state = replace(problem.state(Settings()), likelihood=Categorical(), temperature=0.5)
    x = np.random.default_rng(1).standard_normal((7, 2))
    for heat in (4.0, 0.3):
        held = HeldOut(Settings(), 0.0, np.zeros(1), temperature=heat)
        wanted = predicted(held.applied(state), x, kind).probabilities
        got = probabilities_at(predicted(state, x, kind), heat, state.likelihood)
        assert_residual(comparison_residual(got, wanted, scale=7.0, size=100), kind, "eq:held-out-temperature")
        assert comparison_residual(predicted(state, x, kind).probabilities, wanted, scale=7.0, size=100) > 1e6


@pytest.mark.equation("eq:held-out-temperature")
@pytest.mark.parametrize("kind", KINDS)
def test_the_temperature_makes_the_labels_most_probable(kind):
    """No temperature a tenth or a factor away has a smaller ∑ w ℓ + ½ (log θ)², summed row by row from fits made again;
    control: the sum without its second term is smaller elsewhere."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 2))
    y, weight = (x[:, 0] + 0.8 * rng.standard_normal(80) > 0).astype(int), rng.uniform(0.5, 2, 80)
    settings = Settings.preset("classification", max_iterations=60, prior_precision=1e-3)
    trial = Trial(x, y, weight, MLP((2, 12, 2)), Categorical(), 1, 0.3, kind)
    held, found = held_out_classes(trial, settings), trial.results(settings)

    def total(heat, prior=1.0):
        value = prior * np.log(heat) ** 2 / 2
        for out, _, p in found:
            for row, label, w in zip(probabilities_at(p, heat, Categorical()), y[out], weight[out]):
                value -= w * np.log(row[label])
        return value

    here = total(held.temperature)
    factors = (0.1, 0.5, 0.9, 1.1, 2.0, 10.0)
    assert all(here < total(held.temperature * f) for f in factors)
    assert min(total(held.temperature * f, prior=0.0) for f in factors) < total(held.temperature, prior=0.0)


def test_the_estimator_predicts_at_the_temperature_chosen_and_keeps_it(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 3))
    y = np.where(X[:, 0] + rng.standard_normal(150) > 0, "yes", "no")
    model = BALIClassifier(random_state=0, max_iterations=100, settings={"prior_precision": 0.06}).fit(X, y)
    assert (
        model.state_.predictive_temperature is None
    )  # a prior precision that was given leaves nothing to hold out for
    model = BALIClassifier(random_state=0, max_iterations=100).fit(X, y)
    assert model.state_.predictive_temperature not in (None, model.state_.temperature)
    model.save(tmp_path / "model.npz")
    loaded = BALIClassifier.load(tmp_path / "model.npz")
    assert np.array_equal(loaded.predict_proba(X), model.predict_proba(X))
