"""Tests that planted mistakes asked for: each kills one that the tests of its statement let live."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from balinp import MLP, NUMPY, BALIRegressor, Gaussian, JointPosterior, Settings, bali_step, initial_state
from balinp.heldout import held_out_noise
from balinp.testing import assert_residual, comparison_residual
from balinp.testing.residuals import THRESHOLD
from balinp.trial import Trial, mean_noise
from balinp.wide import InputMaps

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
on_every_backend = pytest.mark.usefixtures("on_backend")
JOINTLY = Settings(joint_iterations=30, warmup=0, rate=0.5)
QUICK = {"max_iterations": 20, "random_state": 0}


def curve(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 2))
    return x, np.sin(2 * x[:, :1]) + 0.05 * rng.standard_normal((n, 1))


@on_every_backend
@pytest.mark.equation("eq:joint-step", "eq:joint-parameters")
def test_a_batch_of_a_joint_iteration_stands_for_the_rows_of_the_whole():
    """Rows that stand for four times as many take the step, and count the parameters, of rows that weigh four each,
    whose sums are the same but for a power of two; control: not those of rows that stand for themselves."""
    x, y = curve(40)
    state = initial_state(MLP((2, 5, 1)), Gaussian(np.ones(1)), np.random.default_rng(0), JOINTLY)

    def after(total=None, weight=None):
        found = bali_step(state, x, y, np.random.default_rng(1), JOINTLY, total, weight)
        return np.concatenate([m.ravel() for m in found.means]), [l.effective_parameters for l in found.layers]

    for one, other, alone in zip(after(total=160.0), after(weight=np.full(40, 4.0)), after()):
        assert_residual(comparison_residual(one, other), "N = 4 m", "eq:joint-step")
        assert comparison_residual(alone, other) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:joint-parameters")
@pytest.mark.parametrize(("rows", "capped"), [(4, True), (200, False)])
def test_at_most_nine_tenths_of_the_noise_are_of_parameters(rows, capped):
    """From σ² = 1 at rate 1: the mean squared residual at the old means, and γ/(N K), or 0.9 where γ is more."""
    x, y = curve(rows)
    settings = replace(JOINTLY, prior_precision=1e-6)
    state = initial_state(MLP((2, 20, 1)), Gaussian(np.ones(1)), np.random.default_rng(0), settings)
    after = bali_step(state, x, y, np.random.default_rng(0), settings)
    share = sum(layer.effective_parameters for layer in after.layers) / rows
    assert (share > 0.9) == capped
    expected = np.mean((state.mlp.forward(state.means, x).outputs[-1] - y) ** 2, axis=0) + min(share, 0.9)
    ratio = comparison_residual(after.likelihood.noise_variance, expected, size=rows)
    assert_residual(ratio, f"noise of {rows} rows", "eq:joint-parameters")


@pytest.mark.equation("eq:held-out-noise")
def test_losses_are_those_of_the_predictives_at_the_noise_and_temperature_found():
    """−log N(y | h, σ² + θ σ̄² v/(T s²)), v the variance of the predictive that a fit with noise s² makes at T; control:
    with v/s² for v/(T s²) they are others."""
    x, y = curve(60)
    trial = Trial(x, y, None, MLP((2, 6, 1)), Gaussian(np.ones(1)), 0, 0.25, "linearized")
    settings = Settings(max_iterations=25)
    held, losses = held_out_noise(trial, settings), {"tempered": [], "not": []}
    noise = held.likelihood.noise_variance
    for out, state, p in trial.results(settings):
        variance = np.diagonal(p.epistemic, axis1=1, axis2=2) / mean_noise(state.likelihood)
        for name, unit in (("tempered", variance / state.temperature), ("not", variance)):
            total = noise + held.temperature * mean_noise(held.likelihood) * unit
            losses[name].append((np.log(2 * np.pi * total) + (y[out] - p.mean) ** 2 / total).sum(axis=1) / 2)
    expected, other = (np.concatenate(each) for each in losses.values())
    assert_residual(comparison_residual(held.losses, expected), "losses", "eq:held-out-noise")
    assert comparison_residual(other, expected) > THRESHOLD


@pytest.mark.equation("eq:forgetting")
def test_rows_of_a_stream_count_by_their_weight():
    """Each of eight batches counts m = 32, 16 rows of weight 2, when it is new, and is weighed down by 1 − 1/t up to
    the fifth, to (5 + 1) m/2 in all, and by 1 − φ later, towards m/φ; control: rows of weight 1 count half."""
    rng, counts = np.random.default_rng(0), []
    for weight in (2.0, 1.0):
        model = BALIRegressor((5,), random_state=0, forgetting=0.2)
        for _ in range(8):
            x = rng.standard_normal((16, 2))
            model.partial_fit(x, x[:, 0], sample_weight=np.full(16, weight))
        counts.append(model.state_.layers[0].statistics.count)
    expected = 160 + (96 - 160) * 0.8**3
    for weight, count in zip((1.0, 0.5), counts):
        assert_residual(comparison_residual(count, weight * expected, size=8), "rows that count", "eq:forgetting")


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
def test_draws_do_not_depend_on_the_signs_of_the_eigenvectors():
    """Every other eigenvector turned round gives the same draws from the same normals; control: not by the root that
    takes the normals along the eigenvectors."""
    rng, mlp = np.random.default_rng(0), MLP((3, 2))
    A, normals = rng.standard_normal((9, 8)), rng.standard_normal((5, 8))
    posterior = JointPosterior.of(A.T @ A, [0.7], mlp.shapes, NUMPY)
    turned = replace(posterior, directions=posterior.directions * np.where(np.arange(8) % 2, 1, -1))
    (one,), (other,) = posterior.deviations(normals), turned.deviations(normals)
    scale = np.linalg.norm(normals) * np.linalg.norm(posterior.directions) ** 2 * 0.7**0.5
    assert_residual(comparison_residual(one, other, scale=scale, size=8), "draws", "eq:joint-posterior")
    roots = [normals @ each.directions.T for each in (posterior, turned)]
    assert comparison_residual(*roots, scale=scale, size=8) > THRESHOLD


@pytest.mark.equation("eq:input-span")
def test_an_unfolded_layer_has_the_prior_and_the_sums_of_the_inputs_themselves():
    """τ/c² in proportion to the inputs' number, and the sums AᵀR: X of the inputs against them is what the coordinates
    against theirs are, over c²."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((14, 30)), rng.standard_normal(14)
    model = BALIRegressor((3,), predictive="linearized", **QUICK).fit(X, y)
    span = model.x_span_
    folded, whole = (state.layers[0] for state in (model.state_, span.unfolded(model.state_)))
    ratio = comparison_residual(whole.prior_precision / 30, folded.prior_precision / span.inputs)
    assert_residual(ratio, "prior precision per input", "eq:input-span")
    x, z = model.x_scaler_.transform(X, np.float64), model._scaled(X)
    one, other = whole.statistics.cross, folded.statistics.cross
    scale = float(np.linalg.norm(z) * np.linalg.norm(other))
    ratio = comparison_residual(x @ one[:-1] * span.unit**2, z @ other[:-1], scale=scale, size=30)
    assert_residual(ratio, "sums of inputs by targets", "eq:input-span")
    assert_residual(comparison_residual(one[-1], other[-1]), "sums of targets", "eq:input-span")
    assert np.linalg.norm(z @ other[:-1]) > 0.01 * scale, "there is something to compare"
    P, U = whole.posterior.row_precision, whole.statistics.gram
    kappa = np.trace(np.linalg.solve(P, U)) / 31
    ratio = comparison_residual(whole.determined, kappa, condition=np.linalg.cond(P), size=31)
    assert_residual(ratio, "share of directions that the data determine", "eq:input-span")
    assert abs(folded.determined / kappa - 1) > 0.1, "negative control: that of the coordinates"


@pytest.mark.equation("eq:input-span")
def test_inputs_of_few_rows_are_centred_by_their_weighted_mean():
    """A row of weight two is two rows; control: the plain mean is another."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((6, 9)), np.array([1.0, 2, 3, 1, 2, 1])
    offset = InputMaps(lambda *_: None, np.float64).learnt(False, x, None, w, "").offset
    expected = np.repeat(x, w.astype(int), axis=0).mean(axis=0)
    assert_residual(comparison_residual(offset, expected, scale=float(np.linalg.norm(x))), "offset", "eq:input-span")
    assert comparison_residual(x.mean(axis=0), expected, scale=float(np.linalg.norm(x))) > THRESHOLD


@pytest.mark.equation("eq:input-span")
@pytest.mark.parametrize("relevant", [True, False])
def test_of_inputs_with_relevance_and_without_held_out_rows_choose(relevant, monkeypatch):
    """Held-out rows that are more probable with relevance scale the inputs by it, others leave them alike."""
    found = BALIRegressor._held_out

    def judged(self, *arguments, label, **more):
        held = found(self, *arguments, label=label, **more)
        return replace(held, loss=float((label == "") != relevant))

    monkeypatch.setattr(BALIRegressor, "_held_out", judged)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((14, 30))
    model = BALIRegressor((3,), **QUICK).fit(X, X[:, 0] + 0.1 * rng.standard_normal(14))
    ratio = model.x_scaler_.scale / X.std(axis=0)
    assert (np.ptp(ratio) > 0.1) == relevant
