"""What a batch that stands for more rows, and rows with weights, change: the trust region, the spread of the outputs,
the Gram matrices and predictions of a noise that depends on the input, batches without any weight."""

from dataclasses import replace

import numpy as np
import pytest

from balinp import (
    MLP,
    BALIRegressor,
    Categorical,
    Gaussian,
    Heteroscedastic,
    InvalidArgumentError,
    MatrixNormal,
    Settings,
    bali_step,
    fit,
    initial_state,
    predict_linearized,
)
from balinp.passes import block_sums, data_spread
from balinp.testing import assert_residual, comparison_residual
from balinp.testing.oracles import dense_normal

LITERAL = Settings.preset("literal", prior_precision=2.0)


def problem(likelihood, widths, n=40, seed=0, settings=LITERAL):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((n, widths[0])), rng.integers(0, 4, n).astype(float)
    y = 2 * rng.standard_normal((n, len(likelihood.noise_variance) if isinstance(likelihood, Gaussian) else 2))
    state = initial_state(MLP(widths, "tanh"), likelihood, rng, settings)
    means = [rng.standard_normal(m.shape) for m in state.means]
    layers = [replace(layer, posterior=layer.posterior.with_mean(m)) for layer, m in zip(state.layers, means)]
    return replace(state, layers=tuple(layers), step_scale=1.0), x, y, w


@pytest.mark.equation("eq:trust-region")
def test_the_loss_of_a_batch_counts_for_the_rows_it_stands_for():
    """The share of the step that is taken, 0.3^j, worked out from N/m ∑ w ℓ + ½ ∑ τ‖M‖² along it, which may rise by
    five nats per target of the N rows. Negative controls, each of which takes another share of some of the steps: N/m
    left out before, after or in both; the rise of the batch's own rows."""
    settings = replace(LITERAL, prior="independent", step_size=3.0, trust_region=True, allowed_rise=5.0)
    told_apart = dict.fromkeys(("before", "after", "both", "rise"), 0)
    for seed in range(30):
        state, x, y, w = problem(Gaussian(np.array([0.5, 2.0])), (3, 5, 2), seed=seed, settings=settings)
        state = replace(state, layers=tuple(replace(layer, prior_precision=100.0) for layer in state.layers))
        m, total = w.sum(), 6.0 * w.sum()

        far = bali_step(state, x, y, np.random.default_rng(1), replace(settings, trust_region=False), total, w)
        step = [a - mean for a, mean in zip(far.means, state.means)]  # the whole of it

        def terms(scale, state=state, x=x, y=y, w=w, step=step):
            means = [mean + scale * part for mean, part in zip(state.means, step)]
            loss = w @ state.likelihood.loss(state.mlp.forward(means, x).outputs[-1], y)
            return loss, 50.0 * sum(np.sum(mean**2) for mean in means)

        def share(before, after, rows):
            loss, penalty = terms(0.0)
            limit = before * loss + penalty + 5.0 * rows * 2
            tries = [0.3**j for j in range(12)]
            return next((s for s in tries if after * terms(s)[0] + terms(s)[1] <= limit), 0.0)

        near = bali_step(state, x, y, np.random.default_rng(1), settings, total, w)
        found = np.linalg.norm(near.means[0] - state.means[0]) / np.linalg.norm(step[0])
        expected = share(6.0, 6.0, total)
        assert found == pytest.approx(expected, rel=1e-9)
        others = {"before": (1.0, 6.0, total), "after": (6.0, 1.0, total), "both": (1.0, 1.0, total)}
        for name, change in {**others, "rise": (6.0, 6.0, m)}.items():
            told_apart[name] += share(*change) != expected
    assert min(told_apart.values()) > 0, told_apart


@pytest.mark.equation("eq:trust-region")
def test_the_step_of_a_draw_is_cut_by_the_loss_of_the_draw_and_the_prior_of_the_means():
    """The share of the step, 0.3^j of what it was left at, worked out from ∑ℓ at the drawn weights and ½ ∑ τ‖M‖² at the
    means, both moved by the same steps. Negative controls, each of which takes another share of some of the steps: the
    loss at the means, the prior's term at the draw."""
    settings = Settings(warmup=0, step_scale=1.0, trust_region=True, max_temperature=0.5, tempering=1e9)
    told_apart = {"loss at the means": 0, "prior at the draw": 0}
    for seed in range(30):
        state, x, y, _ = problem(Gaussian(np.array([1.0, 2.0])), (3, 5, 2), seed=seed, settings=settings)
        state = bali_step(state, x, y, np.random.default_rng(0), settings)
        layers = tuple(replace(layer, prior_precision=3.0) for layer in state.layers)
        state = replace(state, layers=layers, step_scale=0.9)
        drawn = state.sample_weights(np.random.default_rng(1))
        far = bali_step(state, x, y, np.random.default_rng(1), replace(settings, trust_region=False))
        step = [a - mean for a, mean in zip(far.means, state.means)]  # the whole of it

        def share(of_loss, of_prior, state=state, x=x, y=y, step=step):
            def objective(scale):
                at = [w + scale * part for w, part in zip(of_loss, step)]
                loss = np.sum(state.likelihood.loss(state.mlp.forward(at, x).outputs[-1], y))
                return loss + 1.5 * sum(np.sum((m + scale * part) ** 2) for m, part in zip(of_prior, step))

            tries = [0.9 * 0.3**j for j in range(12)]
            return next((s for s in tries if objective(s) <= objective(0.0)), 0.0)

        near = bali_step(state, x, y, np.random.default_rng(1), settings)
        found = np.linalg.norm(near.means[0] - state.means[0]) / np.linalg.norm(step[0])
        expected = share(drawn, state.means)
        assert found == pytest.approx(expected, rel=1e-9)
        assert near.step_scale == pytest.approx(min(1.5 * expected, 1.0) if expected else 0.9 * 0.3**12, rel=1e-12)
        told_apart["loss at the means"] += share(state.means, state.means) != expected
        told_apart["prior at the draw"] += share(drawn, drawn) != expected
    assert min(told_apart.values()) > 0, told_apart


@pytest.mark.equation("eq:output-spread")
def test_the_spread_is_measured_every_so_many_iterations_of_the_weight():
    """⌈m/1024⌉ with m = ∑ w = 1 500 of 600 rows is 2: iteration 2 measures, 3 does not; unweighted both do."""
    settings = Settings(warmup=0)
    state, x, y, _ = problem(Gaussian(np.ones(2)), (3, 5, 2), n=600, settings=settings)
    state = bali_step(state, x, y, np.random.default_rng(0), settings)
    assert state.temperature > 0
    for iteration, weight, measured in ((2, 2.5, True), (3, 2.5, False), (2, 1.0, True), (3, 1.0, True)):
        at = replace(state, iteration=iteration)
        after = bali_step(at, x, y, np.random.default_rng(3), settings, None, np.full(600, weight))
        assert (after.parameters_per_target != state.parameters_per_target) == measured, (iteration, weight)


@pytest.mark.equation("eq:output-spread")
def test_the_spread_is_in_the_curvature_at_the_mean():
    """For a noise that depends on the input, row by row; negative control: the curvature at the draw."""
    state, x, _, w = problem(Heteroscedastic(), (3, 5, 4))
    rng = np.random.default_rng(4)
    drawn = [m + 0.3 * rng.standard_normal(m.shape) for m in state.means]
    h, mean = (state.mlp.forward(v, x).outputs[-1] for v in (drawn, state.means))
    found = data_spread(state.mlp, state.likelihood, drawn, state.means, x, Settings(block_rows=7), w)
    by_row = {at: [d @ b @ d for d, b in zip(h - mean, state.likelihood.curvature(at_h))] for at, at_h in
              (("mean", mean), ("draw", h))}  # fmt: skip
    assert_residual(comparison_residual(found, w @ by_row["mean"]), "spread", "eq:output-spread")
    assert abs(found - w @ by_row["draw"]) > 0.01 * found


@pytest.mark.equation("eq:heteroscedastic-rows")
def test_the_gram_matrix_of_rows_with_weights_is_that_of_rows_repeated():
    state, x, y, w = problem(Heteroscedastic(reference_precision=np.array([0.5, 3.0])), (3, 5, 4))
    weighted = block_sums(state.mlp, state.likelihood, state.means, x, y, None, w)
    times = np.repeat(np.arange(len(x)), w.astype(int))
    repeated = block_sums(state.mlp, state.likelihood, state.means, x[times], y[times])
    plain = block_sums(state.mlp, state.likelihood, state.means, x, y)
    for a, b, c in zip(weighted.layers, repeated.layers, plain.layers):
        for name in ("gram", "cross", "target_gram", "curvature"):
            assert_residual(comparison_residual(getattr(a, name), getattr(b, name)), name, "eq:heteroscedastic-rows")
        assert np.array_equal(a.gram, a.gram.T)
        assert not np.allclose(a.gram, c.gram), "negative control: without weights"


@pytest.mark.equation("eq:heteroscedastic-rows")
def test_the_reference_precision_of_a_batch_is_the_mean_of_its_rows_whatever_it_stands_for():
    state, x, y, w = problem(Heteroscedastic(), (3, 5, 4), settings=replace(LITERAL, step="natural", damping=0.1))
    settings = replace(LITERAL, step="natural", damping=0.1, trust_region=True)
    of = [bali_step(state, x, y, np.random.default_rng(0), settings, total, w) for total in (None, 9 * w.sum())]
    h = state.mlp.forward(state.means, x).outputs[-1]
    expected = (w @ (1 / state.likelihood.aleatoric(h).diagonal(axis1=1, axis2=2))) / w.sum()
    for after in of:
        found = after.likelihood.reference_precision
        assert_residual(comparison_residual(found, expected), "mean of 1/s²", "eq:heteroscedastic-rows")


@pytest.mark.equation("eq:heteroscedastic-aleatoric")
def test_linearised_predictions_have_the_noise_of_an_uncertain_log_variance():
    """v is the variance of the log-variance output, by the dense covariance of the last layer alone; without it the
    noise is smaller (negative control), and with that of the mean output it is another."""
    state, x, _, _ = problem(Heteroscedastic(), (3, 4))
    rng = np.random.default_rng(2)
    root, r = rng.standard_normal((4, 4)), rng.standard_normal((4, 4))
    q = MatrixNormal(state.means[0], root @ root.T + np.eye(4), (r @ r.T + np.eye(4)) / 4)
    state = replace(state, layers=(replace(state.layers[0], posterior=q),), temperature=1.0)
    a = np.column_stack([x, np.ones(len(x))])
    covariance = dense_normal(q.mean, q.row_precision, q.column_covariance).covariance
    variances = np.array([np.diag(d @ covariance @ d.T) for d in (np.kron(np.eye(4), row[None]) for row in a)])
    found, h = predict_linearized(state, x).aleatoric, a @ q.mean
    expected, without, of_means = (state.likelihood.aleatoric(h, v) for v in (variances[:, 2:], 0.0, variances[:, :2]))
    size = np.linalg.cond(q.row_precision)
    assert_residual(comparison_residual(found, expected, condition=size), "noise", "eq:heteroscedastic-aleatoric")
    assert np.max(found - without) > 0.01 * np.max(found)
    assert np.max(np.abs(found - of_means)) > 0.01 * np.max(found)


@pytest.mark.equation("eq:iteration")
def test_a_batch_without_weight_is_passed_over():
    """Three rows of ten count: to the bit the iterations by hand on the batches that hold one, also where the fit is
    interrupted after the first of them, which is not the first batch."""
    settings = replace(LITERAL, batch_size=2, max_iterations=15, tolerance=0)
    state, x, y, _ = problem(Gaussian(np.array([0.5, 2.0])), (3, 5, 2), n=10, settings=settings)
    w = np.isin(np.arange(10), (0, 4, 7)).astype(float)

    def fitted(**more):
        arguments = state.mlp, state.likelihood, np.random.default_rng(3), settings
        return fit(x, y, *arguments, state=state, sample_weight=w, **more)

    expected, rng, passed, seen = [state], np.random.default_rng(3), [], []
    for _ in range(3):  # 15 batches
        order = rng.permutation(10)
        for batch in order.reshape(5, 2):
            passed.append(w[batch].sum() == 0)
            if not passed[-1]:
                expected.append(bali_step(expected[-1], x[batch], y[batch], rng, settings, 3.0, w[batch]))
        seen.append(len(expected) - 1)
    assert passed[0]
    result, cut = fitted(), fitted(interrupted=lambda: True)
    assert [record.iteration for record in result.history] == seen
    assert [record.iteration for record in cut.history] == [1]
    assert cut.history[0].train_nll == expected[1].training_loss
    for got, by_hand in ((result.state, expected[-1]), (cut.state, expected[1])):
        for one, other in zip(got.means, by_hand.means):
            np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
def test_rows_of_a_file_without_weight_add_nothing(tmp_path):
    """Four rows of 64 count, in batches of four, most of which are without weight; 32 iterations are two passes."""
    rng = np.random.default_rng(0)
    w = (np.arange(64) < 4).astype(float)
    for name, values in (("x", rng.standard_normal((64, 2))), ("y", rng.standard_normal(64)), ("w", w)):
        np.save(tmp_path / f"{name}.npy", values)
    x, y, weight = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xyw")
    model = BALIRegressor((4,), batch_size=4, max_iterations=32, random_state=0, validation_fraction=0)
    model.fit(x, y, sample_weight=weight)
    assert len(model.history_) == 2
    assert 2 <= model.n_iter_ <= 8
    assert np.all(np.isfinite(model.predict(x)))


@pytest.mark.parametrize("likelihood", [Gaussian(np.ones(2)), Categorical(), Heteroscedastic()])
def test_rows_without_any_weight_are_refused(likelihood):
    """By an iteration and by a fit, in whole or in batches."""
    state, x, y, w = problem(likelihood, (3, 5, 4 if isinstance(likelihood, Heteroscedastic) else 2))
    y, none = (y[:, 0] > 0).astype(int) if isinstance(likelihood, Categorical) else y, 0 * w
    with pytest.raises(InvalidArgumentError, match="sample_weight must not be zero for every row, got a sum of 0"):
        bali_step(state, x, y, np.random.default_rng(0), LITERAL, sample_weight=none)
    for size in (None, 7):
        settings = replace(LITERAL, batch_size=size)
        with pytest.raises(InvalidArgumentError, match="sample_weight must not be zero for every row"):
            fit(x, y, state.mlp, likelihood, np.random.default_rng(0), settings, sample_weight=none)
