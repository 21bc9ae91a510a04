"""One iteration of BALI against dense conjugate regression, its own other forms, and its fixed points."""

from dataclasses import replace

import numpy as np
import pytest

from balinp import (
    MLP,
    Categorical,
    DivergenceError,
    Gaussian,
    Heteroscedastic,
    LayerStatistics,
    NotPositiveDefiniteError,
    Prior,
    Settings,
    bali_step,
    initial_state,
    layer_posterior,
    pseudo_targets,
)
from balinp.passes import data_sums
from balinp.solver import layer_regression
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual, solve_residual

pytestmark = pytest.mark.usefixtures("on_backend")

ONE_STEP = Settings.preset("literal", prior_precision=0.7)  # one exact regression, the whole step, nothing learnt


def vec(matrix):
    return np.asarray(matrix, dtype=float).reshape(-1, 1, order="F")


def generator():
    return np.random.default_rng(7)


def problem(
    widths=(3, 4, 2), n=30, kind="gaussian", activation="tanh", settings=ONE_STEP, dtype="float64", variance=0.3
):
    """Data, and a state whose means are random everywhere (an initial linear layer would be zero)."""
    rng = np.random.default_rng(0)
    mlp, k = MLP(widths, activation), widths[-1]
    x = rng.standard_normal((n, widths[0])).astype(dtype)
    y = rng.standard_normal((n, k)).astype(dtype) if kind == "gaussian" else rng.integers(0, k, n)
    likelihood = Gaussian(np.asarray(variance, dtype=dtype)) if kind == "gaussian" else Categorical()
    state = initial_state(mlp, likelihood, rng, settings, dtype)
    return with_means(state, [rng.standard_normal(m.shape).astype(dtype) for m in state.means]), x, y


def with_means(state, means):
    layers = [replace(layer, posterior=layer.posterior.with_mean(m)) for layer, m in zip(state.layers, means)]
    return replace(state, layers=tuple(layers))


def ones(x):
    return np.hstack([x, np.ones((len(x), 1))])


# (a) one linear layer: one iteration is conjugate regression


def conjugate_residuals(posterior, x, y, noise, prior_precision):
    """(mean, covariance) against p(vec W | Y) by the full Kronecker matrices, prior Σ⁻¹ ⊗ Λ₀ on vec W."""
    A, k, eps = ones(x).astype(float), y.shape[1], np.finfo(posterior.mean.dtype).eps
    design = np.kron(np.eye(k), A)  # vec(A W) = (I ⊗ A) vec W
    data_precision = np.kron(np.linalg.inv(noise), np.eye(len(A)))
    precision = design.T @ data_precision @ design + prior_precision
    right = design.T @ data_precision @ vec(y)
    covariance = np.kron(posterior.column_covariance, np.linalg.inv(posterior.row_precision.astype(float)))
    mean = vec(posterior.mean).astype(posterior.mean.dtype)
    error = np.linalg.norm(covariance @ precision - np.eye(len(precision)), 2)
    return solve_residual(precision, mean, right), error / (len(precision) * eps * np.linalg.cond(precision))


@pytest.mark.equation("eq:iteration")
@pytest.mark.equation("eq:tied-prior")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", ["gradient", "natural", "isotropic", "natural per output"])
@pytest.mark.parametrize("widths", [(1, 1), (3, 2), (6, 4)])
def test_one_iteration_of_a_linear_layer_is_the_conjugate_posterior(step, widths, dtype):
    k = widths[1]
    variance = np.linspace(0.1, 3, k) if step.endswith("output") else 0.3
    settings = replace(ONE_STEP, step=step.split()[0], step_size=0.3)
    before, x, y = problem(widths, settings=settings, dtype=dtype, variance=variance)
    state = bali_step(before, x, y, generator(), settings)
    noise = np.eye(k) * variance
    prior = np.kron(np.linalg.inv(noise), 0.7 * np.eye(widths[0] + 1))
    mean, covariance = conjugate_residuals(state.posteriors[0], x, y, noise, prior)
    assert_residual(mean, f"mean, {step}, {widths}, {dtype}", "eq:iteration")
    assert_residual(covariance, f"covariance, {step}, {widths}, {dtype}", "eq:iteration")
    assert min(conjugate_residuals(state.posteriors[0], x, y, noise, 2 * prior)) > THRESHOLD  # negative control


@pytest.mark.equation("eq:kronecker-projection")
@pytest.mark.equation("eq:prior-gradient")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", ["isotropic", "natural"])
def test_independent_prior_is_exact_for_a_scalar_output(step, dtype):
    """Prior precision τI on vec W whatever the noise; so too for several outputs of equal noise. (B = bI)"""
    for widths in ((1, 1), (4, 1), (4, 3)):
        settings = replace(ONE_STEP, step=step, prior="independent")
        state, x, y = problem(widths, settings=settings, dtype=dtype)
        tau = 0.7 * widths[0]  # prior_precision is τ over the fan-in
        after = bali_step(bali_step(state, x, y, generator(), settings), x, y, generator(), settings)
        for s in (bali_step(state, x, y, generator(), settings), after):  # the second leaves it where it is
            size = (widths[0] + 1) * widths[1]
            mean, covariance = conjugate_residuals(s.posteriors[0], x, y, 0.3 * np.eye(widths[1]), tau * np.eye(size))
            assert_residual(mean, f"mean, {step}, {widths}, {dtype}", "eq:kronecker-projection")
            assert_residual(covariance, f"covariance, {step}, {widths}, {dtype}", "eq:kronecker-projection")


@pytest.mark.equation("eq:lower-bound")
@pytest.mark.parametrize("prior", ["tied", "independent"])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_output_layers_regression_never_raises_the_loss_of_classes(classes, prior):
    """Minorise and maximise: the penalised loss falls by ½ tr(Σ⁻¹ΔᵀPΔ) at least, what the bound promises of a step Δ.
    Negative control: a step whose Σ⁻¹ = I/8 is no bound."""

    def shortfall(**changes):
        settings = replace(ONE_STEP, prior=prior, **changes)
        state, x, y = problem((3, classes), kind="categorical", settings=settings)
        worst = -np.inf
        for _ in range(10):
            before, state = state, bali_step(state, x, y, generator(), settings)
            q, tau = state.layers[0].posterior, state.layers[0].prior_precision
            Q = np.linalg.inv(q.column_covariance)
            weight = tau * (Q if prior == "tied" else np.eye(classes))
            losses = []
            for M in (before.means[0], state.means[0]):
                h = ones(x) @ M
                each = np.log(np.sum(np.exp(h), axis=1)) - h[np.arange(len(y)), y]
                losses.append(np.sum(each) + np.trace(weight @ M.T @ M) / 2)
            step = state.means[0] - before.means[0]
            promised = np.trace(Q @ step.T @ q.row_precision @ step) / 2
            worst = max(worst, (losses[1] + promised - losses[0]) / (len(x) * np.finfo(float).eps * losses[0]))
        return worst

    assert_residual(shortfall(step="natural"), f"{classes} classes, {prior} prior", "eq:lower-bound")
    assert shortfall(step="gradient", step_size=8.0) > THRESHOLD


# (b) step form = regression form


@pytest.mark.equation("eq:step-form")
@pytest.mark.equation("eq:ema")
@pytest.mark.equation("eq:pseudo-targets")
@pytest.mark.parametrize("step", ["gradient", "natural"])
@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_step_form_is_the_moving_average_of_regression_statistics(step, rate, kind):
    settings = replace(ONE_STEP, step=step, rate=0.3, step_scale=0.3, damping=0.1)
    state, x, y = problem(kind=kind, settings=settings)
    for _ in range(4):
        state = bali_step(state, x, y, generator(), settings)
    m, N = 10, len(x)
    x, y = x[:m], y[:m]
    sums = data_sums(state.mlp, state.likelihood, state.means, x, y, generator(), settings, None)
    activations = state.mlp.forward(state.means, x)
    G = state.mlp.backward(state.means, activations, state.likelihood.gradient(activations.outputs[-1], y))
    for l, layer in enumerate(state.layers):
        regression = layer_regression(layer, sums.layers[l].scale(N / m), rate, settings)
        got = layer.posterior.mean + rate * regression.posterior.mean

        def natural_form(weight, layer=layer, regression=regression, l=l):
            (d, k), M, old = layer.posterior.mean.shape, layer.posterior.mean, layer.statistics
            prior = Prior(np.zeros((d, k)), layer.prior_precision * np.eye(d))
            cross = (old.gram + prior.precision) @ M - prior.precision @ prior.mean  # C, of which M is the solution
            T = pseudo_targets(activations.inputs[l] @ M, G[l], regression.step)
            batch = LayerStatistics.from_batch(activations.inputs[l], T).scale(weight)
            return layer_posterior(replace(old, cross=cross).decay(batch, rate), prior, regression.step)

        def residual(weight, got=got, regression=regression, natural_form=natural_form):
            expected = natural_form(weight)
            P = expected.row_precision
            rows = comparison_residual(regression.posterior.row_precision, P)
            return rows, solve_residual(P, got, P @ expected.mean)

        rows, mean = residual(N / m)
        assert_residual(rows, f"row precision of layer {l}, {step}, β = {rate}", "eq:ema")
        assert_residual(mean, f"mean of layer {l}, {step}, β = {rate}", "eq:step-form")
        assert min(residual(m / N)) > THRESHOLD  # negative control: the classic wrong batch weight


# (c) blocks, batches


def residuals(one, other):
    """Of each layer: row precision, column covariance, and the mean as a residual of its normal equations."""
    for l, (a, b) in enumerate(zip(one.layers, other.layers)):
        p, q = a.posterior, b.posterior
        P, condition = q.row_precision, np.linalg.cond(q.column_covariance)
        yield f"P of layer {l}", comparison_residual(p.row_precision, P, size=90)
        yield f"Σ of layer {l}", comparison_residual(p.column_covariance, q.column_covariance, condition, size=90)
        scale = np.linalg.norm(P) * np.linalg.norm(q.mean)
        yield f"mean of layer {l}", comparison_residual(P @ p.mean, P @ q.mean, condition, scale, 90)


def compare_states(one, other, what, statement):
    for name, ratio in residuals(one, other):
        assert_residual(ratio, f"{name}, {what}", statement)


@pytest.mark.equation("eq:block-sum")
@pytest.mark.parametrize("step", ["gradient", "isotropic", "natural"])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_one_iteration_is_the_same_for_any_blocks(step, kind):
    settings = Settings(step=step, warmup=1, tempering=0.5)
    state, x, y = problem((3, 5, 4, 2), 90, kind, settings=settings)
    for _ in range(3):
        state = bali_step(state, x, y, generator(), settings)
    whole = bali_step(state, x, y, generator(), settings)
    for block_rows in (1, 7, 45, 89):
        blocked = bali_step(state, x, y, generator(), replace(settings, block_rows=block_rows))
        compare_states(blocked, whole, f"{step} {kind} in blocks of {block_rows}", "eq:block-sum")


@pytest.mark.equation("eq:ema")
def test_a_batch_stands_for_the_whole_data():
    """β = 1 on all rows as a mini-batch is full batch; m rows that stand for 3m are the same rows three times."""
    settings = replace(ONE_STEP, step="isotropic", prior="independent")
    state, x, y = problem((3, 1), settings=settings)  # a linear layer draws no probes, so rows may be repeated
    whole = bali_step(state, x, y, generator(), settings)
    order = np.random.default_rng(3).permutation(len(x))
    compare_states(bali_step(state, x[order], y[order], generator(), settings, float(len(x))), whole, "whole", "eq:ema")
    thrice = bali_step(state, np.tile(x, (3, 1)), np.tile(y, (3, 1)), generator(), settings)
    batch = bali_step(state, x, y, generator(), settings, 3.0 * len(x))
    compare_states(batch, thrice, "a third of the data", "eq:ema")
    weighted = bali_step(state, x, y, generator(), settings, None, np.full(len(x), 3.0))
    compare_states(weighted, thrice, "weight three", "eq:ema")
    assert max(ratio for _, ratio in residuals(whole, thrice)) > THRESHOLD  # negative control: N/m left out


@pytest.mark.equation("eq:ema")
@pytest.mark.equation("eq:step-kinds")
@pytest.mark.parametrize("rate", [0.01, 0.4])
def test_running_statistics_start_without_bias_and_give_the_noise(rate):
    """β_t = max(β, 1/(t+1)): a plain average at first. S is of the running curvature, not of the last batch's."""
    settings = replace(ONE_STEP, step="natural", rate=rate, step_scale=0.1, damping=0.1)
    state, x, y = problem((3, 4, 2), 100, kind="categorical", settings=settings)
    gram = curvature = 0.0
    for t in range(5):
        rows = slice(20 * t, 20 * t + 20)
        inputs = state.mlp.forward(state.means, x[rows]).inputs[1]
        beta = max(rate, 1 / (t + 1))
        gram = (1 - beta) * gram + beta * 5 * inputs.T @ inputs
        sums = data_sums(state.mlp, state.likelihood, state.means, x[rows], y[rows], generator(), settings, None)
        curvature = (1 - beta) * curvature + beta * sums.layers[0].curvature / 20
        state = bali_step(state, x[rows], y[rows], generator(), settings, 100.0)
        assert state.layers[0].statistics.count == pytest.approx(100, rel=1e-14)
        running = comparison_residual(state.layers[1].statistics.gram, gram, size=100)
        assert_residual(running, f"running Gram matrix after {t + 1} batches, β = {rate}", "eq:ema")
        B = curvature + 0.1 * np.trace(curvature) / 4 * np.eye(4)
        S = state.layers[0].posterior.column_covariance
        noise = comparison_residual(S @ B, np.eye(4), np.linalg.cond(B), size=100)
        assert_residual(noise, f"S of the running curvature after {t + 1} batches, β = {rate}", "eq:step-kinds")


@pytest.mark.equation("eq:tempering")
def test_nothing_is_sampled_or_reweighed_before_the_warm_up_ends():
    settings = Settings(warmup=3)
    state, x, y = problem(settings=settings)
    for t in range(5):
        before, state = state, bali_step(state, x, y, generator(), settings)
        changed = [a.prior_precision != b.prior_precision for a, b in zip(before.layers, state.layers)]
        assert (state.temperature > 0) == all(changed) == any(changed) == (t + 1 >= 3)
    for tempered, layer in zip(state.posteriors, state.layers):
        cold = state.temperature * layer.posterior.column_covariance
        assert_residual(comparison_residual(tempered.column_covariance, cold), "tempered Σ", "eq:tempering")
        assert tempered.mean is layer.posterior.mean
    fixed = bali_step(state, x, y, generator(), replace(settings, evidence=False))
    assert [layer.prior_precision for layer in fixed.layers] == [layer.prior_precision for layer in state.layers]


def test_a_single_layer_is_never_sampled():
    state, x, y = problem((3, 2))
    state = replace(state, temperature=1.0)
    mean, sampled = (bali_step(state, x, y, generator(), replace(ONE_STEP, gradients=g)) for g in ("mean", "sampled"))
    assert np.array_equal(mean.means[0], sampled.means[0])


# (d) errors, symmetry, dtype


@pytest.mark.parametrize("layer", [0, 1])
def test_a_failed_factorisation_names_its_layer(layer):
    settings = replace(ONE_STEP, step="gradient", prior_precision=1e-30)
    state, x, y = problem((1, 2, 1), 16, activation="identity", settings=settings)
    x = np.repeat([2.0, -2.0], [12, 4])[:, None] if layer else np.ones((16, 1))  # sums with exact square roots
    state = with_means(state, [np.array([[1.0, 1.0], [0.0, 0.0]]), np.ones((3, 1))])  # twin hidden units
    with pytest.raises(NotPositiveDefiniteError, match=f"row_precision of layer {layer}") as caught:
        bali_step(state, x, y, generator(), settings)
    assert (caught.value.layer, caught.value.pivot_index, caught.value.pivot_value) == (layer, 1, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_divergence_is_refused(bad):
    state, x, y = problem()
    y[3, 1] = bad
    with np.errstate(invalid="ignore"), pytest.raises(DivergenceError, match="iteration 0"):
        bali_step(state, x, y, generator(), ONE_STEP)


@pytest.mark.equation("eq:iteration")
@pytest.mark.parametrize("step", ["gradient", "isotropic", "natural"])
def test_permuting_hidden_units_permutes_the_posterior(step):
    settings = replace(ONE_STEP, step=step, prior="independent", step_scale=0.3)
    state, x, y = problem((2, 4, 1), settings=settings)
    order = np.array([2, 0, 3, 1])
    rows = np.append(order, 4)  # the bias row stays
    first, second = state.means
    permuted = with_means(state, [first[:, order], second[rows]])
    for _ in range(2):
        state, permuted = (bali_step(s, x, y, generator(), settings) for s in (state, permuted))
        p, q = (s.posteriors for s in (state, permuted))
        expected = (
            (p[0].mean[:, order], p[0].row_precision, p[0].column_covariance[np.ix_(order, order)]),
            (p[1].mean[rows], p[1].row_precision[np.ix_(rows, rows)], p[1].column_covariance),
        )
        for l, (posterior, (M, P, S)) in enumerate(zip(q, expected)):
            condition = np.linalg.cond(S) * np.linalg.cond(P)
            assert_residual(comparison_residual(posterior.mean, M, condition, size=30), f"mean {l}", "eq:iteration")
            assert_residual(comparison_residual(posterior.row_precision, P, size=30), f"P {l}", "eq:iteration")
            columns = comparison_residual(posterior.column_covariance, S, np.linalg.cond(S), size=30)
            assert_residual(columns, f"Σ {l}", "eq:iteration")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", ["gradient", "isotropic", "natural"])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("prior", ["tied", "independent"])
def test_dtype_is_kept_everywhere(dtype, step, kind, prior):
    settings = Settings(step=step, prior=prior, warmup=2, damping=0.01)
    state, x, y = problem(kind=kind, settings=settings, dtype=dtype)
    for trust_region in (False, False, False, True):
        state = bali_step(state, x, y, generator(), replace(settings, trust_region=trust_region))
    for layer in state.layers:
        p, s = layer.posterior, layer.statistics
        arrays = (p.mean, p.row_precision, p.column_covariance, s.gram, s.cross, s.target_gram, s.curvature)
        assert {a.dtype for a in arrays} == {np.dtype(dtype)}
        assert type(layer.prior_precision) is type(layer.effective_parameters) is type(layer.log_evidence) is float
    assert kind == "categorical" or state.likelihood.noise_variance.dtype == dtype


@pytest.mark.equation("eq:precision")
@pytest.mark.parametrize("dtype", ["int64", "float64"])
@pytest.mark.parametrize("likelihood", [Gaussian(np.float32(0.3)), Heteroscedastic()])
def test_sample_weights_of_another_dtype_leave_that_of_the_rows_alone(likelihood, dtype):
    settings, rng = Settings(warmup=1, joint_iterations=1), generator()
    x, y = rng.standard_normal((10, 2)).astype("float32"), rng.standard_normal((10, 1)).astype("float32")
    mlp = MLP((2, 3, 2 if isinstance(likelihood, Heteroscedastic) else 1))
    states = []
    for kind in ("float32", dtype):
        state = initial_state(mlp, likelihood, generator(), settings, "float32")
        for _ in range(2):
            state = bali_step(state, x, y, generator(), settings, None, np.arange(10).astype(kind))
        states.append(state)
    for one, other in zip(*(state.layers for state in states)):
        p, s = other.posterior, other.statistics
        arrays = (p.mean, p.row_precision, p.column_covariance, s.gram, s.cross, s.target_gram, s.curvature)
        assert {a.dtype for a in arrays} == {np.dtype("float32")}
        assert np.array_equal(p.mean, one.posterior.mean)
