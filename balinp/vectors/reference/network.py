"""The network's passes and the likelihoods in 50-digit arithmetic; every derivative through layers is a difference."""

from __future__ import annotations

from typing import Any

from .exact import MP, Matrix, Number, derivative, identity, inverse, lists, matrix, row, stack, trace, with_ones

Values = dict[str, Any]


# --- activations ------------------------------------------------------------------------------------------------------
def value(name: str, h: Number) -> Number:
    """φ(h)."""
    if name == "relu":
        return h if h > 0 else MP.mpf(0)
    if name == "tanh":
        return MP.tanh(h)
    return h * MP.ncdf(h) if name == "gelu" else h


def slope(name: str, h: Number) -> Number:
    """φ′(h); relu's is 0 at 0."""
    if name == "relu":
        return MP.mpf(1 if h > 0 else 0)
    if name == "tanh":
        return MP.sech(h) ** 2
    return MP.ncdf(h) + h * MP.npdf(h) if name == "gelu" else MP.mpf(1)


def activation(i: Values) -> Values:
    """eq:relu, eq:tanh, eq:gelu"""
    kind, h = i["activation"], i["outputs"]
    return {"value": [value(kind, v) for v in h], "derivative": [slope(kind, v) for v in h]}


def applied(name: str, h: Matrix) -> Matrix:
    """φ of every entry."""
    return h.apply(lambda v: value(name, v))


# --- passes -----------------------------------------------------------------------------------------------------------
def passes(activation: str, weights: list[Matrix], x: Matrix) -> tuple[list[Matrix], list[Matrix]]:
    """(A_l, H_l) of every layer.   (eq:forward)"""
    inputs: list[Matrix] = []
    outputs: list[Matrix] = []
    for W in weights:
        inputs.append(with_ones(applied(activation, outputs[-1]) if outputs else x))
        outputs.append(inputs[-1] * W)
    return inputs, outputs


def onwards(activation: str, weights: list[Matrix], layer: int, h: Matrix) -> Matrix:
    """The network's output (1, K_L) when layer ``layer`` puts out h (1, K_l)."""
    for W in weights[layer + 1 :]:
        h = with_ones(applied(activation, h)) * W
    return h


def jacobians(activation: str, weights: list[Matrix], outputs: list[Matrix]) -> list[list[Matrix]]:
    """J_l = ∂h_L/∂h_l for every layer and row, (K_L, K_l), by differences.   (eq:jacobian)"""
    return [
        [derivative(lambda v, l=l: list(onwards(activation, weights, l, v)), row(H, n)) for n in range(H.rows)]  # type: ignore[misc]
        for l, H in enumerate(outputs)
    ]


def forward(i: Values) -> Values:
    """eq:forward"""
    inputs, outputs = passes(i["activation"], [matrix(w) for w in i["weights"]], matrix(i["x"]))
    return {"inputs": [lists(a) for a in inputs], "outputs": [lists(h) for h in outputs]}


def pulled_back(jacobian: list[list[Matrix]], gradient: Matrix) -> list[Matrix]:
    """G_l with rows g_n J_l,n."""
    return [stack([row(gradient, n) * J for n, J in enumerate(rows)]) for rows in jacobian]


def backward(i: Values) -> Values:
    """eq:backward"""
    weights = [matrix(w) for w in i["weights"]]
    outputs = passes(i["activation"], weights, matrix(i["x"]))[1]
    pulled = pulled_back(jacobians(i["activation"], weights, outputs), matrix(i["output_gradient"]))
    return {"gradients": [lists(g) for g in pulled]}


# --- likelihoods ------------------------------------------------------------------------------------------------------
def variances(likelihood: Values, k: int) -> list[Number]:
    """σ² of each of k outputs."""
    s2 = likelihood["noise_variance"]
    return list(s2) if isinstance(s2, list) else [s2] * k


def row_loss(likelihood: Values, h: Matrix, y: Any) -> Number:
    """−log p(y | h) for one row h (1, K); y a list of numbers or a label."""
    if likelihood["kind"] == "gaussian":
        terms = zip(h, y, variances(likelihood, h.cols), strict=True)
        return sum(((a - b) ** 2 / s + MP.log(2 * MP.pi * s) for a, b, s in terms), MP.mpf(0)) / 2
    return MP.log(sum(MP.exp(v) for v in h)) - h[0, y]


def losses(likelihood: Values, h: Matrix, y: list[Any]) -> list[Number]:
    """ℓ_n of every row."""
    return [row_loss(likelihood, row(h, n), y[n]) for n in range(h.rows)]


def loss_gradient(likelihood: Values, h: Matrix, y: list[Any]) -> Matrix:
    """∂ℓ_n/∂h_n of every row, by differences."""
    return stack(
        [derivative(lambda v, n=n: [row_loss(likelihood, v, y[n])], row(h, n)) for n in range(h.rows)]  # type: ignore[misc]
    )


def bound(likelihood: Values, k: int) -> Matrix:
    """The curvature bound, (K, K): diag(1/σ²), or Böhning's ½(I − 11ᵀ/K)."""
    if likelihood["kind"] == "gaussian":
        return MP.diag([1 / s for s in variances(likelihood, k)])
    return (identity(k) - MP.ones(k) / k) / 2


def layer_bound(likelihood: Values, k: int) -> Matrix:
    """eq:output-curvature  B, of classes with ½ along the common shift: ½I."""
    shift = MP.ones(k) / (2 * k) if likelihood["kind"] == "categorical" else MP.matrix(k, k)
    return bound(likelihood, k) + shift


def probe_rows(likelihood: Values, noise: Matrix) -> Matrix:
    """Rows with mean outer product ``bound``: ε/σ, or (ε − mean ε)/√2."""
    out = noise.copy()
    for n in range(noise.rows):
        mean = sum(row(noise, n)) / noise.cols
        for j in range(noise.cols):
            if likelihood["kind"] == "gaussian":
                out[n, j] = noise[n, j] / MP.sqrt(variances(likelihood, noise.cols)[j])
            else:
                out[n, j] = (noise[n, j] - mean) / MP.sqrt(2)
    return out


def softmax(h: Matrix) -> list[Number]:
    """exp h/∑ exp h of one row."""
    return [MP.exp(v) / sum(MP.exp(u) for u in h) for v in h]


def likelihood_loss(i: Values) -> Values:
    """eq:gaussian-loss, eq:categorical-loss"""
    return {"loss": losses(i["likelihood"], matrix(i["outputs"]), i["y"])}


def likelihood_gradient(i: Values) -> Values:
    """eq:gaussian-gradient, eq:categorical-gradient"""
    return {"gradient": lists(loss_gradient(i["likelihood"], matrix(i["outputs"]), i["y"]))}


def likelihood_curvature(i: Values) -> Values:
    """eq:gaussian-curvature, eq:bohning-bound"""
    h = matrix(i["outputs"])
    return {"curvature": [lists(bound(i["likelihood"], h.cols)) for _ in range(h.rows)]}


def likelihood_probe(i: Values) -> Values:
    """eq:gaussian-probe, eq:bohning-probe"""
    return {"probe": lists(probe_rows(i["likelihood"], matrix(i["noise"])))}


def pseudo_targets(i: Values) -> Values:
    """eq:pseudo-targets with the step S of eq:step-kinds."""
    S = inverse(step_curvature(matrix(i["curvature"]), i["step"]))
    return {"step": lists(S), "targets": lists(matrix(i["outputs"]) - matrix(i["gradients"]) * S)}


def step_curvature(curvature: Matrix, step: Values) -> Matrix:
    """eq:step-kinds  S⁻¹: I/α, tr(B)/K · I, or B + δ tr(B)/K · I."""
    k = curvature.rows
    mean = trace(curvature) / k
    if step["kind"] == "gradient":
        return identity(k, 1 / step["step_size"])
    return identity(k, mean) if step["kind"] == "isotropic" else curvature + identity(k, step["damping"] * mean)
