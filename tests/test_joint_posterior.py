"""The joint posterior of all weights: its precision, covariance and draws, predictions by it, its choice of noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from balinp import (
    MLP,
    NUMPY,
    BALIRegressor,
    Gaussian,
    InvalidArgumentError,
    JointPosterior,
    ModelFileError,
    Settings,
    initial_state,
    joint_precision,
    predict_joint,
)
from balinp.heldout_joint import applied_jointly, held_out_joint, most_probable_joint
from balinp.joint_posterior import MOST_WEIGHTS, joint_posterior, weight_jacobian, with_joint_draws
from balinp.testing import assert_residual, comparison_residual, condition_number, seeds
from balinp.testing.gradients import dense_ggn, weight_jacobians
from balinp.testing.oracles import vec
from balinp.testing.residuals import THRESHOLD
from balinp.trial import HeldOut, Trial

pytestmark = pytest.mark.filterwarnings("ignore::balinp.ConvergenceWarning")
on_every_backend = pytest.mark.usefixtures("on_backend")
WIDTHS = [(3, 2), (3, 4, 2), (2, 3, 3, 1)]


def problem(widths=(3, 4, 2), n=11, seed=0):
    rng = np.random.default_rng(seed)
    mlp = MLP(widths, "tanh")
    weights = [rng.standard_normal(shape) for shape in mlp.shapes]
    return mlp, Gaussian(np.linspace(0.5, 1, widths[-1])), weights, rng.standard_normal((n, widths[0]))


def precisions_of(mlp, seed):
    return np.random.default_rng([seed, 3]).uniform(0.2, 3, len(mlp.shapes))


def diagonal(mlp, tau):
    return np.diag(np.concatenate([np.full(d * k, t) for t, (d, k) in zip(tau, mlp.shapes)]))


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("block_rows", [2048, 4])
@given(seed=seeds())
def test_the_precision_is_the_dense_one(widths, block_rows, seed):
    """∑ JᵀBJ by complex steps, in whole and in blocks, weighted or not; control: without the weights it is another."""
    mlp, likelihood, weights, x = problem(widths, seed=seed)
    w, settings = np.random.default_rng([seed, 2]).integers(1, 4, len(x)).astype(float), Settings(block_rows=block_rows)
    size = 10 * float(np.prod([1 + np.linalg.norm(m) for m in weights]))
    for weight, rows in ((None, x), (w, np.repeat(x, w.astype(int), axis=0))):
        expected = dense_ggn(mlp, likelihood, weights, rows)
        got = joint_precision(mlp, likelihood, weights, x, settings, weight)
        ratio = comparison_residual(got, expected, scale=size * np.linalg.norm(expected), size=len(expected))
        assert_residual(ratio, f"{widths}, {block_rows} rows a block", "eq:joint-posterior")
    other = joint_precision(mlp, likelihood, weights, x, settings)
    assert comparison_residual(other, expected, scale=size * np.linalg.norm(expected), size=len(expected)) > THRESHOLD
    J = np.concatenate(weight_jacobians(mlp, weights, x), axis=2)
    ratio = comparison_residual(weight_jacobian(mlp, weights, x), J, scale=size * np.linalg.norm(J), size=J.shape[2])
    assert_residual(ratio, "derivative", "eq:joint-posterior")


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@pytest.mark.parametrize("widths", WIDTHS)
@given(seed=seeds())
def test_the_covariance_at_any_heat_is_the_dense_inverse(widths, seed):
    """Variances of outputs against (H/h + diag τ)⁻¹ and below the prior's; control: another heat's are not."""
    mlp, likelihood, weights, x = problem(widths, seed=seed)
    tau, H = precisions_of(mlp, seed), dense_ggn(mlp, likelihood, weights, x)
    posterior = JointPosterior.of(H, list(tau), mlp.shapes, NUMPY)
    J, prior = np.concatenate(weight_jacobians(mlp, weights, x), axis=2), diagonal(mlp, tau)
    shares = posterior.shares(J)
    for heat in (0.01, 1.0, 30.0):
        precision = H / heat + prior
        expected = np.einsum("nkp,pq,nkq->nk", J, np.linalg.inv(precision), J)
        got = shares @ (heat / (heat + posterior.eigenvalues))
        scale = condition_number(precision) * np.linalg.norm(expected)
        assert_residual(comparison_residual(got, expected, scale=scale, size=len(H)), f"{heat}", "eq:joint-posterior")
        assert np.all(got <= np.einsum("nkp,p,nkp->nk", J, 1 / np.diag(prior), J) * (1 + 1e-12))
    other = shares @ (1 / (1 + posterior.eigenvalues))
    assert comparison_residual(other, expected, scale=np.linalg.norm(expected), size=len(H)) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@given(seed=seeds())
def test_draws_have_the_posteriors_covariance(seed):
    """Unit vectors for normals give roots of C: their sum of squares is (H/h + diag τ)⁻¹; every layer in its place."""
    mlp, likelihood, weights, x = problem(seed=seed)
    tau, H = precisions_of(mlp, seed), dense_ggn(mlp, likelihood, weights, x)
    posterior, p = JointPosterior.of(H, list(tau), mlp.shapes, NUMPY), len(H)
    for heat in (0.1, 2.0):
        layers = posterior.deviations(np.eye(p), heat)
        roots = np.stack([np.concatenate([vec(part[s]) for part in layers]) for s in range(p)])
        precision = H / heat + diagonal(mlp, tau)
        expected = np.linalg.inv(precision)
        scale = condition_number(precision) * np.linalg.norm(expected)
        ratio = comparison_residual(roots.T @ roots, expected, scale=scale, size=p)
        assert_residual(ratio, f"heat {heat}", "eq:joint-posterior")
    assert comparison_residual(roots.T @ roots / 2, expected, scale=scale, size=p) > THRESHOLD


def state_of(mlp, likelihood, weights, tau):
    """A state with these means and prior precisions."""
    state = initial_state(mlp, likelihood, np.random.default_rng(0), Settings())
    layers = (
        replace(layer, posterior=layer.posterior.with_mean(w), prior_precision=float(t))
        for layer, w, t in zip(state.layers, weights, tau)
    )
    return replace(state, layers=tuple(layers))


@on_every_backend
@pytest.mark.equation("eq:joint-posterior")
@given(seed=seeds())
def test_a_states_posterior_is_at_its_means_with_its_prior_and_the_noise_given(seed):
    """Its unit draws square to the dense inverse for weighted rows; the draws of a state are those of its normals;
    control: not with the state's own noise."""
    mlp, likelihood, weights, x = problem(seed=seed)
    tau, w = precisions_of(mlp, seed), np.random.default_rng([seed, 2]).integers(1, 4, len(x)).astype(float)
    state, noise = state_of(mlp, likelihood, weights, tau), Gaussian(np.array([2.0, 0.1]))

    def precision_with(given_noise):
        return dense_ggn(mlp, given_noise, weights, np.repeat(x, w.astype(int), axis=0)) + diagonal(mlp, tau)

    posterior, precision = joint_posterior(state, noise, x, Settings(), w), precision_with(noise)
    flat = [np.concatenate([vec(p) for p in parts]) for parts in zip(*posterior.deviations(np.eye(len(precision))))]
    got, expected = np.stack(flat).T @ np.stack(flat), np.linalg.inv(precision)
    scale = condition_number(precision) * np.linalg.norm(expected)
    assert_residual(comparison_residual(got, expected, scale=scale, size=len(got)), "state", "eq:joint-posterior")
    own = np.linalg.inv(precision_with(likelihood))
    assert comparison_residual(own, expected, scale=scale, size=len(got)) > THRESHOLD
    drawn = with_joint_draws(state, noise, x, np.random.default_rng(4), 6, Settings(), w).deviations
    normals = np.random.default_rng(4).standard_normal((6, len(precision)))
    for part, same in zip(drawn, posterior.deviations(normals)):
        size = scale * np.linalg.norm(normals)
        assert_residual(comparison_residual(part, same, scale=size, size=len(got)), "draws", "eq:joint-posterior")


@on_every_backend
@pytest.mark.equation("eq:joint-predictive")
@pytest.mark.parametrize("block_rows", [1024, 3])
@given(seed=seeds())
def test_predictions_are_those_of_the_linearised_draws(block_rows, seed):
    """h_L(M) + J vec Δ_s by complex steps; the covariance about h_L(M); control: that about the draws' mean is not."""
    mlp, likelihood, weights, x = problem(seed=seed)
    state = state_of(mlp, likelihood, weights, precisions_of(mlp, seed))
    with pytest.raises(InvalidArgumentError, match="deviations"):
        predict_joint(state, x)
    state = with_joint_draws(state, likelihood, x, np.random.default_rng(1), 5, Settings())
    J, h = np.concatenate(weight_jacobians(mlp, weights, x), axis=2), mlp.forward(weights, x).outputs[-1]
    drawn = np.stack([J @ np.concatenate([vec(part[s]) for part in state.deviations]) for s in range(5)])
    p, size = predict_joint(state, x, block_rows), 10 * float(np.prod([1 + np.linalg.norm(m) for m in weights]))
    scale = size * (np.linalg.norm(drawn) + np.linalg.norm(h))
    assert_residual(comparison_residual(p.mean, h, scale=scale, size=4), "mean", "eq:joint-predictive")
    assert_residual(comparison_residual(p.draws, h + drawn, scale=scale, size=4), "draws", "eq:joint-predictive")
    expected = np.einsum("snk,snj->nkj", drawn, drawn) / 5
    scale = size * np.linalg.norm(drawn) ** 2
    got = comparison_residual(p.epistemic, expected, scale=scale, size=4)
    assert_residual(got, "covariance", "eq:joint-predictive")
    about = drawn - drawn.mean(axis=0)
    wrong = np.einsum("snk,snj->nkj", about, about) / 5
    assert comparison_residual(wrong, expected, scale=scale, size=4) > THRESHOLD
    assert p.normal
    assert np.array_equal(p.covariance, p.aleatoric + p.epistemic)


def sinc_rows(n=120, seed=0):
    """sinc with noise 0.05 on [−3, 0.5] and [1.7, 3]."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < 0.5, rng.uniform(-3, 0.5, n), rng.uniform(1.7, 3, n))
    return x[:, None], np.sinc(x) + 0.05 * rng.standard_normal(n)


@pytest.fixture(scope="module")
def sinc():
    return BALIRegressor(random_state=0).fit(*sinc_rows())


@pytest.mark.equation("eq:joint-predictive")
def test_deviations_grow_in_a_gap_and_beyond_the_data(sinc):
    """Seeded: the epistemic deviation in the gap's middle half and beyond the data is more than twice that on the data;
    negative control: of the layers' own posteriors that in the gap is not larger."""
    parts = [np.linspace(*ends, 40)[:, None] for ends in ((-3, 0.5), (0.8, 1.4), (4.5, 6))]

    def mean_deviation(model, x):
        return float(np.sqrt(model.predict_distribution(x).epistemic[:, 0, 0]).mean())

    data, gap, beyond = (mean_deviation(sinc, x) for x in parts)
    assert gap > 2 * data
    assert beyond > 2 * data
    layerwise = BALIRegressor(predictive="monte_carlo", random_state=0).fit(*sinc_rows())
    data, gap, _ = (mean_deviation(layerwise, x) for x in parts)
    assert gap < data


def objective(noise, heat, square, shares, eigenvalues, mean, weight):
    """−∑ w log N(r | 0, σ² + v) + ½ (log θ)², up to a constant: row after row, output after output."""
    theta = heat * np.exp(np.mean(np.log(mean)) - np.mean(np.log(noise)))
    total, row = np.log(theta) ** 2 / 2, 0
    for part, values in zip(shares, eigenvalues):
        for each in part:
            for k, share in enumerate(each):
                v = noise[k % len(noise)] + sum(s * heat / (heat + value) for s, value in zip(share, values))
                total += weight[row] * (square[row, k] / v + np.log(v)) / 2
            row += 1
    return total


@pytest.mark.equation("eq:held-out-joint")
@pytest.mark.parametrize("shared", [False, True])
@given(seed=seeds())
def test_the_most_probable_noises_are_where_the_likelihood_is_largest(shared, seed):
    """No better point within a hundredth or a half of it in any direction, by sums over rows, outputs and eigenvalues;
    and from a hundredth on every other is worse, so that nothing else would pass."""
    rng = np.random.default_rng(seed)
    shares = [rng.uniform(0, 1, (n, 2, 4)) for n in (14, 10)]
    eigenvalues = [10.0 ** rng.uniform(-1, 2, 4) for _ in range(2)]
    weight, square = rng.uniform(0.5, 2, 24), rng.standard_normal((24, 2)) ** 2 * rng.uniform(0.3, 3, (24, 2))
    mean = square.mean(axis=0)
    given_ = square, shares, eigenvalues, mean, weight
    noise, heat = most_probable_joint(*given_, 1e-4, shared)
    assert noise.shape == ((1,) if shared else (2,))
    best = objective(noise, heat, *given_)
    for size in (1e-2, 0.1, 0.5):
        for direction in rng.standard_normal((4, len(noise) + 1)):
            shift = np.exp(size * direction / np.linalg.norm(direction))
            other = objective(np.maximum(noise * shift[:-1], 1e-4), heat * shift[-1], *given_)
            assert other >= best - 1e-6 * abs(best)
            assert size == 1e-2 or other > best


@pytest.mark.equation("eq:held-out-joint")
def test_held_out_rows_tell_the_noises_apart():
    """Residuals of variance 0.1 + v(h), half the rows with v, h = 0.3 and 3: log h is found to 0.8.

    v is 25 (h/(h + 1)) there: 1 000 such rows give log h a deviation of √(2/1000) (h + 1) = 0.06 and 0.18, and the
    prior on log θ pulls by at most 0.14 (1 against 1/0.18²): 3.7 deviations, a false-fail rate of 2·10⁻⁴; seeded.
    Negative control: the other h is off by more than 1.
    """
    rng = np.random.default_rng(0)
    shares = [np.where(np.arange(2000) % 2, 25.0, 0.0)[:, None, None]]
    for heat, other in ((0.3, 3.0), (3.0, 0.3)):
        variance = 0.1 + shares[0][:, :, 0] * heat / (heat + 1)
        square = variance * rng.standard_normal((2000, 1)) ** 2
        noise, found = most_probable_joint(square, shares, [np.ones(1)], square.mean(axis=0), np.ones(2000), 1e-4)
        assert abs(np.log(noise[0] / 0.1)) < 5 * (2 / 1000) ** 0.5
        assert abs(np.log(found / heat)) < 0.8
        assert abs(np.log(found / other)) > 1


@pytest.mark.equation("eq:held-out-joint")
def test_the_choice_is_made_on_the_rows_held_out():
    """The loss is that of the dense covariance at the chosen noises, on the very rows; weights by weight over mean."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((40, 2))
    y, w = np.sin(x) + 0.3 * rng.standard_normal((40, 2)), rng.integers(1, 3, 40).astype(float)
    mlp, settings = MLP((2, 4, 2), "tanh"), Settings(max_iterations=25)
    trial = Trial(x, y, w, mlp, Gaussian(np.ones(2)), 0, 0.25, "joint")
    held = held_out_joint(trial, settings)
    losses = []
    for out, state, _ in trial.results(settings):
        tau = np.diag(diagonal(mlp, [layer.prior_precision for layer in state.layers]))
        H = np.zeros((len(tau), len(tau)))
        J = np.concatenate(weight_jacobians(mlp, state.means, x), axis=2)
        for n in np.flatnonzero(~out):
            H += w[n] * J[n].T @ np.diag(1 / held.posterior_noise.noise_variance) @ J[n]
        v = np.einsum("nkp,pq,nkq->nk", J[out], np.linalg.inv(H + np.diag(tau)), J[out])
        total = v + held.likelihood.noise_variance
        square = (y[out] - mlp.forward(state.means, x[out]).outputs[-1]) ** 2
        losses.append(np.sum(np.log(2 * np.pi * total) + square / total, axis=1) / 2 * w[out])
    weights = w[np.concatenate([np.flatnonzero(out) for out, _, _ in trial.results(settings)])]
    assert held.losses == pytest.approx(np.concatenate(losses) / weights.mean(), rel=1e-8)
    assert held.loss == pytest.approx(float(held.losses.mean()), rel=1e-12)
    shared = held_out_joint(replace(trial, likelihood=Gaussian(np.ones(()))), settings)
    assert shared.likelihood.noise_variance.shape == ()
    assert len(set(shared.posterior_noise.noise_variance)) == 1 < len(set(held.posterior_noise.noise_variance))


@pytest.mark.equation("eq:held-out-joint")
def test_a_fit_that_misses_its_own_rows_predicts_with_more_noise():
    """The mean of r² − σ² − v over the fit's rows is added to σ² where it is positive, per output or over all; nothing
    where it is not."""
    mlp, likelihood, weights, x = problem((2, 3, 2), n=30)
    state, w = state_of(mlp, likelihood, weights, [1.0, 2.0]), np.arange(1.0, 31)
    mean = mlp.forward(weights, x).outputs[-1]
    y = mean + np.random.default_rng(5).standard_normal(mean.shape) * [0.01, 9.0]
    for shape in ((2,), ()):
        noise = Gaussian(np.full(shape, 0.04))
        held = HeldOut(Settings(), 0.0, np.zeros(1), noise, posterior_noise=Gaussian(np.full(2, 0.1)))
        for weight in (None, w):
            got = applied_jointly(held, state, x, y, weight, np.random.default_rng(0), 50)
            p = predict_joint(replace(got, likelihood=noise), x)
            excess = (y - p.mean) ** 2 - np.diagonal(p.covariance, axis1=1, axis2=2)
            lacking = np.average(excess, axis=0, weights=weight)
            assert lacking[0] < 0 < lacking[1]
            expected = 0.04 + np.maximum(lacking if shape else lacking.mean(), 0)
            assert got.likelihood.noise_variance == pytest.approx(expected, rel=1e-10)
            assert np.shape(got.likelihood.noise_variance) == shape


def test_the_estimator_predicts_by_the_joint_posterior_where_it_can(sinc):
    """Up to 2 000 weights and with held-out rows; else by the layers' own. Its normals are float64 for float32 data."""
    assert sinc.state_.deviations[0].shape == (100, 2, 50)
    assert sinc.state_.predictive_temperature is None
    p = sinc.predict_distribution(sinc_rows()[0])
    assert p.normal
    assert p.draws.shape[0] == 100
    X, y = np.random.default_rng(0).standard_normal((60, 3)), np.arange(60.0)
    short = {"max_iterations": 12, "random_state": 0}
    wide = BALIRegressor((30, 40, 20), **short).fit(X, y)
    assert sum(w.size for w in wide.state_.means) > MOST_WEIGHTS
    for model in (wide, BALIRegressor(validation_fraction=0, **short).fit(X, y), sinc_copy("monte_carlo")):
        assert model.state_.deviations is None
    single = BALIRegressor((6,), draws=7, **short).fit(X.astype(np.float32), y.astype(np.float32))
    assert [part.dtype for part in single.state_.deviations] == [np.float32] * 2
    assert single.state_.deviations[0].shape == (7, 4, 6)
    assert single.predict_distribution(X).covariance.dtype == np.float32
    again = single.partial_fit(X, y)
    assert again.state_.deviations is None
    with pytest.raises(InvalidArgumentError, match="'joint' or 'monte_carlo' or 'linearized', got 'exact'"):
        BALIRegressor(predictive="exact").fit(X, y)


def sinc_copy(predictive):
    x, y = sinc_rows(40)
    return BALIRegressor((5,), predictive=predictive, max_iterations=12, random_state=0).fit(x, y)


def test_samples_are_the_joint_draws(sinc):
    """Without noise a sample is one of the draws; none comes twice unless more are asked for than there are."""
    x = sinc_rows()[0][:3]
    quiet = BALIRegressor(random_state=0)
    quiet.__dict__.update(sinc.__dict__)
    quiet.state_ = replace(sinc.state_, likelihood=Gaussian(np.full(1, 1e-300)))
    draws = sinc.predict_distribution(x).draws[:, 0, 0]
    few, many = quiet.sample_y(x, 100)[0], quiet.sample_y(x, 300, random_state=1)[0]
    assert np.sort(few) == pytest.approx(np.sort(draws), rel=1e-12)
    assert set(np.round(many, 9)) <= set(np.round(draws, 9))
    assert many.shape == (300,)
    assert not np.array_equal(quiet.sample_y(x, 5), quiet.sample_y(x, 5, random_state=2))


def test_a_weight_of_two_is_a_row_twice_in_the_joint_posterior():
    """To the bit: equal rows are joined."""
    x, y = sinc_rows(40)
    twice = np.arange(40) % 3 == 0
    model = BALIRegressor((5,), max_iterations=12, random_state=0)
    a = model.fit(x, y, sample_weight=1.0 + twice).predict(x, return_std=True)
    b = model.fit(np.concatenate([x, x[twice]]), np.concatenate([y, y[twice]])).predict(x, return_std=True)
    np.testing.assert_array_equal(a, b)


def test_draws_are_saved_and_damaged_ones_refused(tmp_path):
    model, path = sinc_copy("joint"), tmp_path / "m.npz"
    model.save(path)
    x = sinc_rows()[0]
    np.testing.assert_array_equal(BALIRegressor.load(path).predict(x, True), model.predict(x, True))
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    first = content["deviations.0"]
    for bad in (
        {"deviations.0": first[:50]},
        {"deviations.0": first[:0]},
        {"deviations.0": np.full_like(first, np.nan)},
    ):
        np.savez(path, **{**content, **bad})
        with pytest.raises(ModelFileError, match="deviations"):
            BALIRegressor.load(path)
    del content["deviations.1"]
    np.savez(path, **content)
    with pytest.raises(ModelFileError, match="damaged"):
        BALIRegressor.load(path)
