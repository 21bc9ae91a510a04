"""Metamorphic properties of whole iterations and fits: what must happen to the posterior when the data change.

Where a change is by powers of two or moves nothing that is added up, the posterior follows to the last bit; elsewhere
to residual ratios: of P and Σ, and of the mean through the normal equations that it solves (``assert_same``).
"""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balinp import (
    MLP,
    BALIRegressor,
    Gaussian,
    LayerStatistics,
    MatrixNormal,
    Prior,
    Settings,
    bali_step,
    initial_state,
    layer_posterior,
    predict_linearized,
    predict_monte_carlo,
)
from balinp.passes import block_sums
from balinp.testing import (
    NetworkProblem,
    assert_residual,
    comparison_residual,
    condition_number,
    layer_problems,
    network_problems,
    orthogonal,
    random_network_problem,
    sizes,
)

pytestmark = pytest.mark.usefixtures("on_backend")

GRADIENT = Settings(  # untempered: a temperature of 0 would make every Σ zero, and every comparison of them empty
    step="gradient",
    step_size=0.5,
    prior="tied",
    gradients="mean",
    evidence=False,
    learn_noise=False,
    warmup=0,
    tempering=None,
)
STEPS = st.sampled_from(["natural", "isotropic", "gradient"])
PROBED = st.just(50)  # rows: with a single one, a softmax probe may be zero by chance, and the curvature unknown
FIELDS = ("count", "gram", "cross", "target_gram", "curvature")


def step(problem: NetworkProblem, settings: Settings = GRADIENT, rows=None, weight=None, state=None, total=None):
    """One iteration on the rows given (all), from the problem's weights or ``state``; always with the same noise."""
    x, y = (problem.inputs, problem.targets) if rows is None else (problem.inputs[rows], problem.targets[rows])
    return bali_step(state or problem.state(settings), x, y, problem.generator(), settings, total, weight)


def norm(a) -> float:
    return float(np.linalg.norm(np.asarray(a, dtype=np.float64)))


def assert_same(p: MatrixNormal, q: MatrixNormal, size: int, what: str, statement: str = "eq:iteration") -> None:
    """P, Σ, and ‖P (M − M′)‖ against ‖P‖ ‖M‖ and the rounding of the right-hand side, whose condition is Σ's."""
    kappa = condition_number(q.column_covariance)
    ratio = comparison_residual(p.row_precision, q.row_precision, size=size)
    assert_residual(ratio, f"P, {what}", statement)
    ratio = comparison_residual(p.column_covariance, q.column_covariance, kappa, size=size)
    assert_residual(ratio, f"Σ, {what}", statement)
    P, scale = q.row_precision.astype(np.float64), norm(q.row_precision) * norm(q.mean)
    difference = (P @ (p.mean.astype(np.float64) - q.mean)).astype(q.mean.dtype)
    ratio = comparison_residual(difference, np.zeros_like(difference), kappa, scale, size)
    assert_residual(ratio, f"mean, {what}", statement)


def assert_states(a, b, size: int, what: str, statement: str = "eq:iteration") -> None:
    for l, (p, q) in enumerate(zip(a.posteriors, b.posteriors)):
        assert_same(p, q, size, f"layer {l}, {what}", statement)


def assert_equal_states(a, b) -> None:
    for p, q in zip(a.posteriors, b.posteriors):
        for name in ("mean", "row_precision", "column_covariance"):
            assert np.array_equal(getattr(p, name), getattr(q, name)), name


# rows: order, weights, blocks


@pytest.mark.equation("eq:iteration")
@given(problem=network_problems(activations=("tanh", "gelu", "identity")))
def test_the_order_of_rows_does_not_matter(problem):
    """With the gradient step no probe noise is drawn, so the iteration depends on sums over rows alone."""
    order = problem.generator().permutation(len(problem.inputs))
    assert_states(step(problem, rows=order), step(problem), problem.longest_sum, "permuted rows")


@pytest.mark.equation("eq:iteration")
@given(problem=network_problems(kinds=("gaussian",), activations=("identity",)), kind=STEPS)
def test_the_order_of_rows_does_not_matter_to_a_linear_network_with_probes(problem, kind):
    """Probe noise is drawn in row order and so meets other rows; but in a linear Gaussian network a probe row is
    ε W̃ᵀ/σ, whatever its datum, and the sum over rows is the same."""
    settings = replace(GRADIENT, step=kind, damping=0.1)
    order = problem.generator().permutation(len(problem.inputs))
    one, other = step(problem, settings, rows=order), step(problem, settings)
    assert_states(one, other, problem.longest_sum, f"permuted rows, {kind}")


@pytest.mark.equation("eq:curvature-probe")
@given(problem=network_problems(hidden_layers=(1, 2), activations=("tanh", "gelu")))
def test_rows_and_their_probe_noise_permuted_together_change_no_sum(problem):
    """The one way that row order enters the other steps is which datum meets which noise."""
    generator = problem.generator()
    order = generator.permutation(len(problem.inputs))
    noise = np.sign(generator.standard_normal((len(order), problem.mlp.widths[-1]))).astype(problem.dtype)
    arguments = problem.mlp, problem.likelihood, problem.weights
    whole = block_sums(*arguments, problem.inputs, problem.targets, noise)
    moved = block_sums(*arguments, problem.inputs[order], problem.targets[order], noise[order])
    for l, (a, b) in enumerate(zip(moved.layers, whole.layers)):
        trace = {"gram": (b.gram, b.gram), "cross": (b.gram, b.target_gram), "curvature": (b.curvature, b.curvature)}
        for name, (left, right) in trace.items():
            scale = float(np.sqrt(np.trace(left) * np.trace(right)))  # ‖A‖ ‖T‖ of the product AᵀT
            ratio = comparison_residual(getattr(a, name), getattr(b, name), scale=scale, size=problem.longest_sum)
            assert_residual(ratio, f"{name} of layer {l}", "eq:statistics")


@pytest.mark.equation("eq:iteration")
@given(problem=network_problems())
def test_a_row_twice_is_weight_two_and_weight_zero_is_no_row(problem):
    n = len(problem.inputs)
    row = int(problem.generator().integers(n))
    weight = np.ones(n, dtype=problem.dtype)
    weight[row] = 2
    twice = step(problem, rows=[*range(n), row])
    assert_states(step(problem, weight=weight), twice, problem.longest_sum, "weight two")
    if n > 1:
        weight[row] = 0
        without = step(problem, rows=[i for i in range(n) if i != row])
        assert_states(step(problem, weight=weight), without, problem.longest_sum, "weight zero")


@pytest.mark.equation("eq:block-sum")
@given(problem=network_problems(), pieces=st.integers(1, 6))
def test_any_tree_of_passes_over_blocks_gives_one_iteration(problem, pieces):
    """Blocks of rows, some empty, on as many machines; their sums added in any order and bracketing."""
    generator = problem.generator()
    groups = np.array_split(generator.permutation(len(problem.inputs)), pieces)
    arguments = problem.mlp, problem.likelihood, problem.weights
    parts = [block_sums(*arguments, problem.inputs[g], problem.targets[g]) for g in groups]
    while len(parts) > 1:
        i, j = generator.choice(len(parts), 2, replace=False)
        parts = [p for n, p in enumerate(parts) if n not in (i, j)] + [parts[i] + parts[j]]
    whole = block_sums(*arguments, problem.inputs, problem.targets)
    assert parts[0].layers[0].count == whole.layers[0].count == len(problem.inputs)
    for l, (a, b) in enumerate(zip(parts[0].layers, whole.layers)):
        scale = float(np.sqrt(np.trace(b.gram) * np.trace(b.target_gram)))
        ratio = comparison_residual(a.cross, b.cross, scale=scale, size=problem.longest_sum)
        assert_residual(ratio, f"AᵀG of layer {l} as a tree", "eq:block-sum")
        ratio = comparison_residual(a.gram, b.gram, scale=float(np.trace(b.gram)), size=problem.longest_sum)
        assert_residual(ratio, f"AᵀA of layer {l} as a tree", "eq:block-sum")


@pytest.mark.equation("eq:ema")
@given(problem=network_problems(rows=PROBED), kind=STEPS, seed=st.integers(0, 99))
def test_rate_one_forgets_all_older_data_to_the_last_bit(problem, kind, seed):
    settings = replace(GRADIENT, step=kind, rate=1.0, damping=0.1)
    start = replace(problem.state(settings), iteration=3)
    junk = np.random.default_rng(seed).standard_normal((7, problem.inputs.shape[1])).astype(problem.dtype)
    layers = []
    for layer, (d, k) in zip(start.layers, problem.mlp.shapes):
        rows = np.resize(junk, (7, d + k))
        old = LayerStatistics.from_batch(rows[:, :d], rows[:, d:], probes=rows[:, d:])
        layers.append(replace(layer, statistics=old))
    other = replace(start, layers=tuple(layers))
    assert_equal_states(step(problem, settings, state=other), step(problem, settings, state=start))


# scales and shifts


@pytest.mark.equation("eq:iteration")
@given(problem=network_problems(kinds=("gaussian",)), c=st.sampled_from([0.25, 2.0, 1024.0]), kind=STEPS)
def test_units_of_the_targets_are_units_of_the_last_layer(problem, c, kind):
    """y by c and σ² by c²: with W_L by c, the last layer's mean scales by c, its Σ by c² (the gradient step: not), and
    the hidden layers stay; c is a power of two, so all to the last bit. The prior must scale as well: it is tied."""
    if kind == "gradient":  # S = αI has no units of its own: α must get them in the last layer, so one layer only
        problem = random_network_problem(problem.seed, 10, (3, problem.mlp.widths[-1]), problem.dtype)
    settings = replace(GRADIENT, step=kind, damping=0.125)
    other = replace(settings, step_size=settings.step_size * c**2) if kind == "gradient" else settings
    weights = [*problem.weights[:-1], (c * problem.weights[-1]).astype(problem.dtype)]
    noise = Gaussian((problem.likelihood.noise_variance * c**2).astype(problem.dtype))
    targets = (c * problem.targets).astype(problem.dtype)
    scaled = replace(problem, likelihood=noise, weights=weights, targets=targets)
    plain, moved = step(problem, settings), step(scaled, other)
    for l, (p, q) in enumerate(zip(plain.posteriors, moved.posteriors)):
        factor = c if l == len(weights) - 1 else 1
        assert np.array_equal(q.mean, factor * p.mean)
        assert np.array_equal(q.row_precision, p.row_precision)
        assert np.array_equal(q.column_covariance, factor**2 * p.column_covariance)


@hypothesis.settings(max_examples=hypothesis.settings.default.max_examples // 8)  # dozens of fits each
@given(seed=st.integers(0, 99), c=st.sampled_from([2.0**-20, 8.0]), s=st.sampled_from([0.5, 2.0**30]))
def test_a_whole_fit_is_the_same_in_any_units(seed, c, s):
    """y by c and X by s, powers of two: the standardised data have the same bits, so the whole fit scales exactly.

    What is scaled: mean and draws by c, covariances by c²; at inputs in the same units. Nothing else changes."""
    generator = np.random.default_rng(seed)
    X, noise = generator.standard_normal((15, 2)), generator.standard_normal((15, 2))
    y = np.abs(X) + noise / 9 if seed % 2 else noise  # or held-out rows take no hidden layers, and there are no draws
    model = BALIRegressor((3,), max_iterations=13, draws=5, random_state=seed, settings={"tolerance": 0})
    plain = model.fit(X, y).predict_distribution(X)
    scaled = model.fit(s * X, c * y).predict_distribution(s * X)
    assert np.array_equal(scaled.mean, c * plain.mean)
    assert (plain.draws is None) == (scaled.draws is None) == (len(model.state_.layers) == 1)
    assert plain.draws is None or np.array_equal(scaled.draws, c * plain.draws)
    for name in ("aleatoric", "epistemic"):
        assert np.array_equal(getattr(scaled, name), c**2 * getattr(plain, name)), name


@pytest.mark.equation("eq:layer-posterior")
@given(problem=layer_problems(rows=sizes()))
def test_shifting_the_inputs_is_a_change_of_the_prior(problem):
    """Adding a row s to every input (0 in the ones column) is A′ = A C with C = I + e sᵀ, e the unit vector of the
    bias. A′W′ = A W for W′ = C⁻¹W, and W ~ MN(M₀, Λ₀⁻¹, Σ) is W′ ~ MN(C⁻¹M₀, (CᵀΛ₀C)⁻¹, Σ): with that prior the
    posterior is C⁻¹M and CᵀPC, and so weights stay and the bias falls by s · weights. (C⁻¹ = I − e sᵀ, as sᵀe = 0.)
    Λ₀ zero in the bias's row and column is CᵀΛ₀C = Λ₀: there the prior does not change (test_regression).
    """
    d = problem.inputs.shape[1]
    s = problem.generator().integers(-3, 4, d).astype(problem.inputs.dtype)
    s[-1] = 0
    C, back = np.eye(d, dtype=s.dtype), np.eye(d, dtype=s.dtype)
    C[-1] += s
    back[-1] -= s
    prior = Prior(back @ problem.prior.mean, C.T @ problem.prior.precision @ C)
    moved = replace(problem, inputs=problem.inputs + s, prior=prior)
    q, other = (layer_posterior(p.statistics, p.prior, p.noise_covariance) for p in (problem, moved))
    grown = (1 + norm(s)) ** 2  # ‖C‖²
    unit = grown * (norm(problem.prior.precision) + norm(problem.inputs) ** 2)
    ratio = comparison_residual(other.row_precision, C.T @ q.row_precision @ C, scale=unit, size=problem.longest_sum)
    assert_residual(ratio, "P of shifted inputs", "eq:layer-posterior")
    scale = (problem.mean_scale(q) + moved.mean_scale(other)) * grown
    ratio = comparison_residual(other.mean, back @ q.mean, scale=scale, size=problem.longest_sum)
    assert_residual(ratio, "M of shifted inputs", "eq:layer-posterior")


# symmetries of the network


@pytest.mark.equation("eq:matrix-normal")
@given(problem=network_problems(dtype="float64"), a=st.sampled_from([0.25, 4.0, 2.0**20]))
def test_the_gauge_leaves_predictions_alone_to_the_last_bit(problem, a):
    """(aΣ, aP) in every layer is the same Σ ⊗ P⁻¹; a = 4ⁿ has an exact root, so even the draws keep their bits."""
    state = step(problem)
    layers = []
    for layer in state.layers:
        p = layer.posterior
        layers.append(replace(layer, posterior=MatrixNormal(p.mean, a * p.row_precision, a * p.column_covariance)))
    other, x = replace(state, layers=tuple(layers)), problem.inputs[:5]
    p, q = predict_linearized(state, x), predict_linearized(other, x)
    assert np.array_equal(p.epistemic_by_layer, q.epistemic_by_layer)
    p, q = (predict_monte_carlo(s, x, problem.generator(), 3) for s in (state, other))
    assert np.array_equal(p.draws, q.draws)


@pytest.mark.equation("eq:iteration")
@given(problem=network_problems(kinds=("gaussian",), shared_noise=True))
def test_rotating_the_outputs_rotates_the_last_layer_only(problem):
    """Noise shared by the outputs has no direction: y R is learnt as W_L R, and no hidden layer can tell."""
    R = orthogonal(problem.generator(), problem.mlp.widths[-1], problem.dtype)
    turned = replace(problem, targets=problem.targets @ R, weights=[*problem.weights[:-1], problem.weights[-1] @ R])
    plain, other = step(problem).posteriors, step(turned).posteriors
    for l, (p, q) in enumerate(zip(plain[:-1], other[:-1])):
        assert_same(q, p, problem.longest_sum, f"hidden layer {l}, outputs rotated")
    expected = MatrixNormal(plain[-1].mean @ R, plain[-1].row_precision, R.T @ plain[-1].column_covariance @ R)
    assert_same(other[-1], expected, problem.longest_sum, "last layer, outputs rotated")


@pytest.mark.equation("eq:iteration")
@given(problem=network_problems(rows=PROBED, hidden_layers=(1, 2)), kind=STEPS)
def test_permuting_inputs_or_hidden_units_permutes_the_posterior(problem, kind):
    """Units of a layer have no order: columns of W_l and rows of W_{l+1} move together (the bias row stays)."""
    settings = replace(GRADIENT, step=kind, damping=0.1)
    generator = problem.generator()
    orders = [generator.permutation(w) for w in problem.mlp.widths[:-1]]
    rows = [np.append(order, len(order)) for order in orders]
    columns = [*orders[1:], np.arange(problem.mlp.widths[-1])]
    weights = [w[r][:, c] for w, r, c in zip(problem.weights, rows, columns)]
    moved = replace(problem, inputs=problem.inputs[:, orders[0]], weights=weights)
    plain, other = step(problem, settings), step(moved, settings)
    for l, (p, q, r, c) in enumerate(zip(plain.posteriors, other.posteriors, rows, columns)):
        expected = MatrixNormal(p.mean[r][:, c], p.row_precision[np.ix_(r, r)], p.column_covariance[np.ix_(c, c)])
        assert_same(q, expected, problem.longest_sum, f"layer {l} with units permuted, {kind}")


# predictive variance


@pytest.mark.equation("eq:linearized-predictive")
@given(problem=network_problems(rows=PROBED), kind=STEPS, far=st.sampled_from([0.0, 1.0, 1e3]))
def test_variances_are_never_negative_nor_below_the_aleatoric(problem, kind, far):
    """The epistemic covariance is a sum of squares, so its diagonal has no rounding below zero; the total of two
    non-negative numbers is not below either."""
    settings = replace(GRADIENT, step=kind, damping=0.1, tempering=0.5, warmup=1)
    state = step(problem, settings)
    x = (far * problem.inputs).astype(problem.dtype)
    for p in (predict_linearized(state, x), predict_monte_carlo(state, x, problem.generator(), 4)):
        epistemic, aleatoric, total = (
            np.diagonal(c, axis1=1, axis2=2) for c in (p.epistemic, p.aleatoric, p.covariance)
        )
        assert np.all(epistemic >= 0)
        assert np.all(aleatoric >= 0)
        assert np.all(total >= aleatoric)
        assert np.all(np.isfinite(p.covariance))


@pytest.mark.equation("eq:layer-predictive")
@given(problem=network_problems(kinds=("gaussian",), hidden_layers=(0,), shared_noise=True), cut=st.floats(0, 1))
def test_more_data_never_widen_a_linear_model(problem, cut):
    """One layer, noise known, tied prior, one iteration from the start: exact Bayes. P only gains AᵀA, so a P⁻¹ aᵀ
    falls; by rounding it may rise by eps κ(P) of itself."""
    settings = Settings.preset("literal", step="natural", prior_precision=0.5)
    n = max(1, round(cut * len(problem.inputs)))
    x = problem.inputs
    few, many = (step(problem, settings, rows=slice(m)) for m in (n, None))
    before, after = (np.diagonal(predict_linearized(s, x).epistemic, axis1=1, axis2=2) for s in (few, many))
    growth = np.maximum(after - before, 0)
    kappa = max(condition_number(s.posteriors[0].row_precision) for s in (few, many))
    ratio = comparison_residual(growth, np.zeros_like(growth), kappa, norm(before), problem.longest_sum)
    assert_residual(ratio, "growth of the variance with data", "eq:layer-predictive")


@pytest.mark.equation("eq:layer-posterior")
def test_a_state_without_data_is_the_prior(dtype):
    """Zero rows: no pass over them is possible, and until then a layer's posterior is its prior's covariance."""
    settings = Settings(prior="tied", prior_precision=2.5)
    state = initial_state(MLP((2, 3, 1)), Gaussian(np.ones(1, dtype)), np.random.default_rng(0), settings, dtype)
    for layer in state.layers:
        assert layer.statistics.count == 0
        assert not any(np.any(getattr(layer.statistics, name)) for name in FIELDS)
        assert np.array_equal(layer.posterior.row_precision, 2.5 * np.eye(len(layer.posterior.mean), dtype=dtype))
        assert np.array_equal(layer.posterior.column_covariance, np.eye(layer.posterior.mean.shape[1], dtype=dtype))


def test_posteriors_that_differ_are_told_apart(monkeypatch):
    """The negative control of ``assert_same``: a change of 1e-9, and a comparison in which infinity forgives all."""
    monkeypatch.setattr("balinp.testing.residuals._worst", {})  # keep the table of worst ratios clean
    p = step(random_network_problem(0, 10, (2, 3, 1))).posteriors[0]
    assert_same(p, p, 10, "itself")
    grown = 1 + 1e-9
    for q in (
        p.with_mean(grown * p.mean),
        p.with_column_covariance(grown * p.column_covariance),
        MatrixNormal(p.mean, grown * p.row_precision, p.column_covariance),
        p.with_column_covariance(0 * p.column_covariance),
    ):
        with pytest.raises(AssertionError, match="eq:iteration is broken"):
            assert_same(p, q, 10, "another")
