"""The hand-written passes against brute-force differentiation, over depths, widths and several outputs."""

import numpy as np
import pytest

from balinp import MLP, Categorical, Gaussian, InvalidArgumentError
from balinp.testing import THRESHOLD
from balinp.testing.gradients import assert_backward, dense_ggn, weight_jacobians

pytestmark = pytest.mark.usefixtures("on_backend")

WIDTHS = [(2, 1), (3, 2), (1, 4, 1), (2, 3, 3), (3, 5, 2, 2), (2, 3, 1, 4, 3)]
TOLERANCE = {"tanh": 1e-12, "gelu": 1e-12, "identity": 1e-12, "relu": 1e-7}


def problem(widths, activation, seed=0, rows=5):
    """A network, weights with every bias in play, inputs; relu's hidden outputs kept away from its kink."""
    mlp, generator = MLP(widths, activation), np.random.default_rng(seed)
    while True:
        weights = [generator.standard_normal(shape) for shape in mlp.shapes]
        x = generator.standard_normal((rows, widths[0]))
        hidden = mlp.forward(weights, x).outputs[:-1]
        if activation != "relu" or all(np.min(np.abs(h)) > 1e-3 for h in hidden):
            return mlp, weights, x, generator


def relative(got, expected):
    return np.max(np.abs(got - expected)) / max(np.max(np.abs(expected)), np.finfo(float).tiny)


@pytest.mark.equation("eq:forward")
@pytest.mark.parametrize("widths", WIDTHS)
def test_forward_is_the_textbook_network(widths):
    mlp, weights, x, _ = problem(widths, "tanh")
    for n, row in enumerate(x):
        a = list(row)
        for l, w in enumerate(weights):
            inputs = np.tanh(a) if l else a
            assert np.allclose(mlp.forward(weights, x).inputs[l][n], [*inputs, 1], rtol=THRESHOLD * np.finfo(float).eps)
            a = [sum(inputs[d] * w[d, k] for d in range(len(inputs))) + w[-1, k] for k in range(w.shape[1])]
        assert np.allclose(mlp.forward(weights, x).outputs[-1][n], a, rtol=1e-12)


@pytest.mark.equation("eq:backward")
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("activation", sorted(TOLERANCE))
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_gradient_of_the_loss_in_every_weight(widths, activation, kind):
    """A_lᵀ G_l is ∂∑ℓ/∂W_l."""
    mlp, weights, x, generator = problem(widths, activation)
    k = widths[-1]
    likelihood = Gaussian(np.linspace(0.5, 2, k)) if kind == "gaussian" else Categorical()
    y = generator.standard_normal((len(x), k)) if kind == "gaussian" else generator.integers(0, k, len(x))
    assert_backward(mlp, likelihood, weights, x, y)


class BiasForgotten(MLP):
    """A wrong port: it takes the bias row for a row of weights."""

    def backward(self, weights, activations, output_gradient):
        return super().backward([np.roll(w, 1, axis=0) for w in weights], activations, output_gradient)


class Transposed(MLP):
    """A wrong port: W̃ where W̃ᵀ belongs; with square layers no shape tells."""

    def backward(self, weights, activations, output_gradient):
        return super().backward([np.vstack([w[:-1].T, w[-1:]]) for w in weights], activations, output_gradient)


@pytest.mark.equation("eq:backward")
@pytest.mark.parametrize("activation", sorted(TOLERANCE))
@pytest.mark.parametrize("wrong", [BiasForgotten, Transposed])
def test_a_wrong_port_is_told_which_statement_it_breaks(activation, wrong):
    _, weights, x, generator = problem((2, 2, 2), activation)
    y = generator.standard_normal((len(x), 2))
    with pytest.raises(AssertionError, match=f"eq:backward is broken: gradient of layer 0, {activation}"):
        assert_backward(wrong((2, 2, 2), activation), Gaussian(1.0), weights, x, y)


@pytest.mark.equation("eq:jacobian")
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("activation", sorted(TOLERANCE))
def test_jacobians_against_the_dense_ones_in_the_weights(widths, activation):
    """∂h_L/∂vec(W_l) = J_l ⊗ a_l for every row."""
    mlp, weights, x, _ = problem(widths, activation)
    activations = mlp.forward(weights, x)
    dense = weight_jacobians(mlp, weights, x)
    for J, a, expected in zip(mlp.jacobians(weights, activations), activations.inputs, dense):
        got = np.einsum("onk,nd->nokd", J, a).reshape(expected.shape)
        assert relative(got, expected) <= TOLERANCE[activation]


@pytest.mark.equation("eq:backward")
@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3)])
def test_leading_axes_carry_gradients_side_by_side(leading):
    mlp, weights, x, generator = problem((2, 3, 4, 2), "gelu")
    activations = mlp.forward(weights, x)
    stacked = generator.standard_normal((*leading, len(x), 2))
    kept = stacked.copy()
    together = mlp.backward(weights, activations, stacked)
    assert np.array_equal(stacked, kept)
    for index in np.ndindex(*leading):
        alone = mlp.backward(weights, activations, stacked[index])
        for a, b in zip(together, alone):
            assert a.shape == (*leading, *b.shape)
            assert relative(a[index], b) <= 1e-14


@pytest.mark.equation("eq:jacobian")
def test_mean_output_curvature_of_a_layer_is_the_dense_ggn_of_its_bias():
    """The bias row of A is one, so its block of the dense GGN is ∑_n J_lᵀ B J_l."""
    mlp, weights, x, _ = problem((2, 3, 2, 3), "tanh")
    likelihood = Categorical()
    activations = mlp.forward(weights, x)
    B = likelihood.curvature(activations.outputs[-1])
    ggn, at = dense_ggn(mlp, likelihood, weights, x), 0
    for J, (d, k) in zip(mlp.jacobians(weights, activations), mlp.shapes):
        biases = at + np.arange(k) * d + d - 1
        expected = ggn[np.ix_(biases, biases)]
        assert relative(np.einsum("ani,nab,bnj->ij", J, B, J), expected) <= 1e-12
        at += d * k


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_and_shapes(dtype):
    mlp = MLP((3, 4, 2), "gelu")
    weights = mlp.initial_weights(np.random.default_rng(0), dtype)
    x = np.zeros((5, 3), dtype=dtype)
    activations = mlp.forward(weights, x)
    G = mlp.backward(weights, activations, np.ones((5, 2), dtype=dtype))
    J = mlp.jacobians(weights, activations)
    assert mlp.shapes == [(4, 4), (5, 2)] == [w.shape for w in weights]
    assert [j.shape for j in J] == [(2, 5, 4), (2, 5, 2)]
    assert {a.dtype for a in (*weights, *activations.inputs, *activations.outputs, *G, *J)} == {np.dtype(dtype)}


def test_initial_weights():
    """He: variance 2/fan-in (4σ of the sample variance's own spread); biases; none of it without a hidden layer."""
    mlp = MLP((50, 200, 80, 1))
    first, second, _ = mlp.initial_weights(np.random.default_rng(0), bias_scale=3.0)
    for w, variance in ((first[:-1], 2 / 50), (second[:-1], 2 / 200), (first[-1], 9.0)):
        assert abs(w.var() / variance - 1) < 4 * np.sqrt(2 / w.size)
    assert not np.any(second[-1])
    assert not np.any(MLP((3, 2)).initial_weights(np.random.default_rng(0))[0])
    again = mlp.initial_weights(np.random.default_rng(0), bias_scale=3.0)[0]
    assert np.array_equal(first, again)


@pytest.mark.parametrize("widths", [(3,), (), (0, 1), (2, -1, 1)])
def test_bad_widths_are_refused(widths):
    with pytest.raises(InvalidArgumentError, match="widths"):
        MLP(widths)


def test_unknown_activation_is_refused_at_once():
    with pytest.raises(InvalidArgumentError, match="sigmoid"):
        MLP((1, 1), "sigmoid")
