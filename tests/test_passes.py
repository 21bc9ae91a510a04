"""One pass over the data: block sums, weights, the curvature probe."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balinp import MLP, Categorical, Gaussian, InvalidArgumentError, MatrixNormal, Settings
from balinp.blocks import blocks
from balinp.passes import block_sums, data_loss, data_spread, data_sums
from balinp.testing.gradients import dense_ggn, weight_jacobians
from balinp.testing.residuals import THRESHOLD, assert_residual, comparison_residual

pytestmark = pytest.mark.usefixtures("on_backend")

EPS = np.finfo(float).eps


def problem(kind="gaussian", widths=(3, 4, 2), n=11, activation="tanh", seed=0):
    generator = np.random.default_rng(seed)
    mlp = MLP(widths, activation)
    weights = [generator.standard_normal(shape) for shape in mlp.shapes]
    x, k = generator.standard_normal((n, widths[0])), widths[-1]
    if kind == "gaussian":
        return mlp, Gaussian(np.linspace(0.5, 1, k)), weights, x, generator.standard_normal((n, k))
    return mlp, Categorical(), weights, x, generator.integers(0, k, n)


def arrays(sums):
    layers = [(s.gram, s.cross, s.target_gram, s.curvature) for s in sums.layers]
    return [np.asarray(a) for a in (*itertools.chain(*layers), sums.loss, sums.squared_residual)]


def worst(one, other, rows):
    """The largest residual ratio of two sums over ``rows`` rows, whose terms are of order one."""
    assert [a.count for a in one.layers] == pytest.approx([b.count for b in other.layers], rel=THRESHOLD * EPS)
    return max(comparison_residual(a, b, scale=1.0, size=rows) for a, b in zip(arrays(one), arrays(other)))


@pytest.mark.equation("eq:block-sum")
@given(data=st.data(), kind=st.sampled_from(["gaussian", "categorical"]), weighted=st.booleans())
def test_any_blocks_sum_to_the_whole(data, kind, weighted):
    mlp, likelihood, weights, x, y = problem(kind, seed=data.draw(st.integers(0, 99)))
    noise = np.sign(np.random.default_rng(1).standard_normal((len(x), 2)))
    w = np.random.default_rng(2).uniform(0.5, 2, len(x)) if weighted else None
    cuts = sorted(data.draw(st.sets(st.integers(1, len(x) - 1), max_size=6)))
    whole = block_sums(mlp, likelihood, weights, x, y, noise, w)
    parts = [
        block_sums(mlp, likelihood, weights, x[a:b], y[a:b], noise[a:b], None if w is None else w[a:b])
        for a, b in zip([0, *cuts], [*cuts, len(x)])
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert_residual(worst(total, whole, len(x)), f"{kind} sums over blocks cut at {cuts}", "eq:block-sum")


@pytest.mark.equation("eq:block-sum")
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("step", ["natural", "gradient"])
def test_block_rows_change_neither_the_sums_nor_the_draws(kind, step):
    mlp, likelihood, weights, x, y = problem(kind, n=37)

    def sums(block_rows):
        generator = np.random.default_rng(5)
        settings = Settings(step=step, block_rows=block_rows)
        return data_sums(mlp, likelihood, weights, x, y, generator, settings, None), generator.standard_normal()

    whole, after = sums(10**6)
    for block_rows in (1, 2, 5, 36, 37):
        part, drawn = sums(block_rows)
        assert drawn == after  # the generator is left in the same place
        assert_residual(worst(part, whole, len(x)), f"{kind} sums over blocks of {block_rows}", "eq:block-sum")
    assert any(np.any(layer.curvature) for layer in whole.layers[:-1]) == (step == "natural")


@pytest.mark.equation("eq:statistics")
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_weight_two_is_a_duplicated_row(kind):
    mlp, likelihood, weights, x, y = problem(kind)
    noise = np.sign(np.random.default_rng(1).standard_normal((len(x), 2)))
    w = np.ones(len(x))
    w[[1, 4]], w[7] = 2, 0
    rows = [n for n in range(len(x)) for _ in range(int(w[n]))]
    weighted = block_sums(mlp, likelihood, weights, x, y, noise, w)
    repeated = block_sums(mlp, likelihood, weights, x[rows], y[rows], noise[rows])
    assert_residual(worst(weighted, repeated, len(x)), f"{kind} sums of duplicated rows", "eq:statistics")
    w[1] = 1  # negative control: one row's weight forgotten
    forgotten = block_sums(mlp, likelihood, weights, x, y, noise, w)
    pairs = list(zip(arrays(forgotten), arrays(repeated)))[:8]
    assert all(comparison_residual(a, b, size=len(x)) > THRESHOLD for a, b in pairs)


@pytest.mark.equation("eq:output-curvature")
@pytest.mark.equation("eq:curvature-probe")
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("widths", [(2, 3, 1), (2, 3, 2), (2, 2, 3, 2)])
def test_curvature_probe_is_unbiased(kind, widths):
    """Averaged over every sign vector, the same for all rows, it is ∑_n J_lᵀ B J_l from dense Jacobians."""
    mlp, likelihood, weights, x, y = problem(kind, widths, n=6)
    k = widths[-1]
    noises = [np.tile(s, (len(x), 1)) for s in itertools.product([-1.0, 1.0], repeat=k)]

    def average(scale):
        draws = [block_sums(mlp, likelihood, weights, x, y, scale * noise) for noise in noises]
        return [np.mean([d.layers[l].curvature for d in draws], axis=0) for l in range(len(weights))]

    B = likelihood.curvature(mlp.forward(weights, x).outputs[-1])
    controls = average(1.01)
    for l, (got, J) in enumerate(zip(average(1.0), weight_jacobians(mlp, weights, x))):
        if l == len(weights) - 1 and kind == "categorical":
            B = np.broadcast_to(np.eye(k) / 2, B.shape)  # a shift of all logits is curved as well
        d, width = mlp.shapes[l]
        J = J[:, :, np.arange(width) * d + d - 1]  # ∂h_L/∂(bias of layer l) = ∂h_L/∂h_l
        expected = np.einsum("nai,nab,nbj->ij", J, B, J)
        ratio = comparison_residual(got, expected, scale=EPS, size=len(x))
        assert_residual(ratio, f"mean curvature of layer {l}", "eq:curvature-probe")
        hidden = l < len(weights) - 1 and np.any(expected)  # one class: no curvature at all
        assert not hidden or comparison_residual(controls[l], expected, size=len(x)) > THRESHOLD


@pytest.mark.equation("eq:curvature-probe")
def test_curvature_is_the_bias_block_of_the_dense_ggn():
    mlp, likelihood, weights, x, y = problem(widths=(2, 3, 1), n=6)
    sums = block_sums(mlp, likelihood, weights, x, y, np.ones((6, 1)))  # a scalar output: any sign gives the same
    d, k = mlp.shapes[0]
    biases = np.arange(k) * d + d - 1
    expected = dense_ggn(mlp, likelihood, weights, x)[np.ix_(biases, biases)]
    ratio = comparison_residual(sums.layers[0].curvature, expected, size=6)
    assert_residual(ratio, "curvature of the first layer", "eq:curvature-probe")


@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("block_rows", [1, 4, 100])
def test_loss_and_residual(kind, block_rows):
    mlp, likelihood, weights, x, y = problem(kind)
    w = np.random.default_rng(2).uniform(0.5, 2, len(x))
    settings = Settings(block_rows=block_rows)
    h = mlp.forward(weights, x).outputs[-1]
    each = likelihood.loss(h, y)
    got = (
        data_loss(mlp, likelihood, weights, x, y, settings, w),
        data_loss(mlp, likelihood, weights, x, y, settings, None),
    )
    for value, expected in zip(got, (w @ each, each.sum())):
        assert_residual(abs(value - expected) / (EPS * np.abs(each).sum()), f"{kind} loss", "eq:block-sum")
    sums = block_sums(mlp, likelihood, weights, x, y, None, w)
    assert sums.loss == pytest.approx(w @ each, rel=THRESHOLD * EPS)
    if kind == "gaussian":
        ratio = comparison_residual(sums.squared_residual, w @ (y - h) ** 2, size=len(x))
        assert_residual(ratio, "squared residual", "eq:block-sum")


@pytest.mark.numpy_only("slices, no arrays")
def test_blocks_cover_every_row_once_in_order():
    for rows, block_rows in itertools.product((1, 2, 7, 8), (1, 3, 7, 9)):
        slices = list(blocks(rows, block_rows))
        assert [n for s in slices for n in range(s.start, s.stop)] == list(range(rows))
        assert max(s.stop - s.start for s in slices) <= block_rows


def test_no_rows_are_refused():
    mlp, likelihood, weights, x, y = problem()
    with pytest.raises(InvalidArgumentError, match="at least one row"):
        data_sums(mlp, likelihood, weights, x[:0], y[:0], np.random.default_rng(0), Settings(), None)


@pytest.mark.equation("eq:output-spread")
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_spread_of_the_outputs_row_by_row(kind, weighted):
    """∑ w (h − h̄) B (h − h̄)ᵀ, each row and entry for itself, in blocks of any size."""
    mlp, likelihood, means, x, _ = problem(kind)
    weights = [m + 0.3 * np.random.default_rng(1).standard_normal(m.shape) for m in means]
    w = np.random.default_rng(2).uniform(0.5, 2, len(x)) if weighted else np.ones(len(x))
    expected, size = 0.0, 0.0
    for n in range(len(x)):
        h, mean = (mlp.forward(v, x[n : n + 1]).outputs[-1][0] for v in (weights, means))
        B = np.diag(1 / likelihood.noise_variance) if kind == "gaussian" else (np.eye(len(h)) - 1 / len(h)) / 2
        expected += w[n] * sum(B[i, j] * (h - mean)[i] * (h - mean)[j] for i in range(len(h)) for j in range(len(h)))
        size += w[n] * np.linalg.norm(B) * (np.linalg.norm(h) + np.linalg.norm(mean)) ** 2
    for block_rows in (1, 4, 11, 2048):
        rows = Settings(block_rows=block_rows)
        got = data_spread(mlp, likelihood, weights, means, x, rows, w if weighted else None)
        ratio = comparison_residual(got, expected, scale=size, size=len(x))
        assert_residual(ratio, f"spread, {kind}, blocks of {block_rows}", "eq:output-spread")
    if weighted:  # negative control
        without = data_spread(mlp, likelihood, weights, means, x, Settings(), None)
        assert comparison_residual(without, expected, scale=size, size=len(x)) > THRESHOLD


@pytest.mark.equation("eq:output-spread")
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_the_expected_spread_is_the_linearised_trace(kind):
    """Mean of spread/T over draws at a small T against ∑_l ∑_n (a P⁻¹ aᵀ) tr(B J Σ Jᵀ), worked out from Jacobians.

    Within 5 standard errors of 400 draws: fails falsely once in 10⁶ (normal mean); T = 10⁻⁸: no curvature to 10⁻⁴.
    Negative control: the sum over one layer alone.
    """
    mlp, likelihood, means, x, _ = problem(kind)
    generator, heat = np.random.default_rng(3), 1e-8
    layers = []
    for mean in means:
        d, k = mean.shape
        root, other = generator.standard_normal((2, d, d))[0], generator.standard_normal((k, k))
        layers.append(MatrixNormal(mean, root @ root.T + np.eye(d), other @ other.T + np.eye(k)))
    activations, by_layer, k = mlp.forward(means, x), [], mlp.widths[-1]
    B = np.diag(1 / likelihood.noise_variance) if kind == "gaussian" else (np.eye(k) - 1 / k) / 2
    for q, inputs, h in zip(layers, activations.inputs, activations.outputs):
        after = means[1][:-1] if h is activations.outputs[0] else None
        J = np.eye(k)[None] if after is None else (1 - np.tanh(h) ** 2)[:, None, :] * after.T[None]
        rows = np.einsum("ni,ij,nj->n", inputs, np.linalg.inv(q.row_precision), inputs)
        by_layer.append(rows @ np.einsum("ab,nbi,ij,naj->n", B, np.broadcast_to(J, (len(x), *J.shape[1:])),
                                         q.column_covariance, np.broadcast_to(J, (len(x), *J.shape[1:]))))  # fmt: skip
    found = []
    for _ in range(400):
        drawn = [q.sample(heat**0.5 * generator.standard_normal(q.mean.shape)) for q in layers]
        found.append(data_spread(mlp, likelihood, drawn, means, x, Settings(), None) / heat)
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - sum(by_layer)) < 5 * error
    assert min(abs(np.mean(found) - one) for one in by_layer) > 5 * error
