"""Cases of the activations, the network's passes and the pseudo-targets."""

from __future__ import annotations

from typing import Any

from ..reference import network as exact
from ..reference.exact import MP, identity, inverse, lists, matrix, trace, with_ones
from .kit import Case, Mistake, Numbers, Operation, Values

H = "h (N, K)"


def _activations() -> list[Case]:
    out = []
    for name in ("relu", "tanh", "gelu", "identity"):
        for kind, h in (("moderate", [v / 8 for v in range(-29, 31, 6)]), ("at-zero", [0.0]), ("far", [-30.0, 30.0])):
            scale = {"value": 1.0, "derivative": 1.0}
            out.append(Case(f"{name}-{kind}", {"activation": name, "outputs": h}, {"N": len(h)}, scale))
    return out


def _slopes(name: str, wrong_slope: Any) -> Any:
    def wrong(i: Values) -> Values:
        right = exact.activation(i)
        return right if i["activation"] != name else {**right, "derivative": [wrong_slope(h) for h in i["outputs"]]}

    return wrong


def _tanh_gelu(i: Values) -> Values:
    right = exact.activation(i)
    if i["activation"] != "gelu":
        return right
    inner = [MP.sqrt(2 / MP.pi) * (h + MP.mpf("0.044715") * h**3) for h in i["outputs"]]
    return {**right, "value": [h * (1 + MP.tanh(v)) / 2 for h, v in zip(i["outputs"], inner)]}


def _networks(seed: int, gradient: bool) -> list[Case]:
    out = []
    for s, (name, kind, widths, n) in enumerate(
        [
            ("relu", "relu", (2, 3, 2), 4),
            ("tanh-square", "tanh", (3, 3, 3, 3), 3),
            ("gelu-deep", "gelu", (2, 4, 3, 1), 3),
            ("identity", "identity", (2, 2, 2), 2),
            ("linear", "relu", (3, 2), 3),
            ("one-unit", "tanh", (1, 1, 1), 2),
            ("one-datum", "tanh", (2, 3, 2), 1),
        ]
    ):
        numbers = Numbers(800 + seed + s)
        weights = [numbers.matrix(d + 1, k, 1.0) for d, k in zip(widths, widths[1:])]
        x = numbers.matrix(n, widths[0])
        inputs: Values = {"activation": kind, "weights": weights, "x": x}
        if gradient:
            inputs["output_gradient"] = numbers.matrix(n, widths[-1])
        shapes = {"N": n, **{f"K{l}": k for l, k in enumerate(widths)}}
        out.append(Case(name, inputs, shapes))
    wide = {**out[0].inputs, "x": Numbers(890).matrix(4, 3)}
    return [*out, Case("reject-shape", wide, out[0].shapes, reject="shape")]


def _forward_with(ones: str = "last", first: bool = False, last: bool = False) -> Any:
    """The forward pass with the ones column elsewhere, or with φ where there is none."""

    def wrong(i: Values) -> Values:
        A: list[Any] = []
        H: list[Any] = []
        for l, w in enumerate(i["weights"]):
            a = exact.applied(i["activation"], H[-1]) if H else matrix(i["x"])
            if first and l == 0:
                a = exact.applied(i["activation"], a)
            b = with_ones(a)
            if ones == "first":
                b = MP.matrix([[b[n, (j - 1) % b.cols] for j in range(b.cols)] for n in range(b.rows)])
            if ones == "missing":
                b[:, b.cols - 1] = MP.matrix(b.rows, 1)
            A.append(b)
            H.append(b * matrix(w))
            if last and l + 1 == len(i["weights"]):
                H[-1] = exact.applied(i["activation"], H[-1])
        return {"inputs": [lists(a) for a in A], "outputs": [lists(h) for h in H]}

    return wrong


def backpropagated(i: Values, mistake: str = "") -> Values:
    """G_l by the recursion G_l = (G_{l+1} W̃ᵀ) ⊙ φ′(H_l), with a mistake or (checked by a test) without one."""
    weights, G = [matrix(w) for w in i["weights"]], [matrix(i["output_gradient"])]
    outputs = exact.passes(i["activation"], weights, matrix(i["x"]))[1]
    for l in range(len(weights) - 1, 0, -1):
        W = weights[l]
        first = 1 if mistake == "first-row-dropped" else 0
        inner = MP.matrix([[W[r + first, j] for j in range(W.cols)] for r in range(W.rows - 1)])
        square = inner.rows == inner.cols
        g = G[0] * (inner if mistake == "wrong-transpose" and square else inner.T)
        at = outputs[l] if mistake == "slope-of-the-next-layer" and square else outputs[l - 1]
        if mistake != "slope-missing":
            values = exact.applied(i["activation"], at) if mistake == "slope-at-activations" else at
            g = MP.matrix(
                [[g[n, j] * exact.slope(i["activation"], values[n, j]) for j in range(g.cols)] for n in range(g.rows)]
            )
        G.insert(0, g)
    return {"gradients": [lists(g) for g in G]}


def _back(mistake: str, text: str) -> Mistake:
    return Mistake("eq:backward", text, lambda i: backpropagated(i, mistake))


def _targets() -> list[Case]:
    out = []
    for s, (name, step, k) in enumerate(
        [
            ("gradient", {"kind": "gradient", "step_size": 0.25}, 2),
            ("isotropic", {"kind": "isotropic"}, 3),
            ("natural", {"kind": "natural", "damping": 0.0}, 2),
            ("natural-damped", {"kind": "natural", "damping": 0.125}, 3),
            ("natural-one-unit", {"kind": "natural", "damping": 0.5}, 1),
        ]
    ):
        numbers, n = Numbers(970 + s), 4 if s else 1
        inputs = {
            "outputs": numbers.matrix(n, k),
            "gradients": numbers.matrix(n, k),
            "curvature": numbers.spd(k),
            "step": step,
        }
        out.append(Case(name, inputs, {"N": n, "K": k}))
    bad = {**out[2].inputs, "curvature": [[1.0, 2.0], [2.0, 1.0]]}
    return [*out, Case("reject-indefinite", bad, {"N": 4, "K": 2}, reject="not positive definite")]


def _target_with(sign: int = -1, change: Any = None) -> Any:
    def wrong(i: Values) -> Values:
        B = matrix(i["curvature"])
        S = inverse(exact.step_curvature(B, i["step"])) if change is None else change(B, i["step"])
        return {"step": lists(S), "targets": lists(matrix(i["outputs"]) + sign * matrix(i["gradients"]) * S)}

    return wrong


def _absolute_damping(B: Any, step: Values) -> Any:
    mean = trace(B) / B.rows
    right = exact.step_curvature(B, step)
    return inverse(right if step["kind"] != "natural" else right - identity(B.rows, step["damping"] * (mean - 1)))


def _trace_for_mean(B: Any, step: Values) -> Any:
    right = inverse(exact.step_curvature(B, step))
    return right / B.rows if step["kind"] == "isotropic" else right


OPERATIONS = (
    Operation(
        "activation",
        "φ and φ′ at layer outputs h.",
        {
            "eq:relu": "max(h, 0); φ′ = 1[h > 0], 0 at 0",
            "eq:tanh": "φ′ = 1 − φ²",
            "eq:gelu": "h Φ(h), Φ the normal distribution function; φ′ = Φ(h) + h N(h)",
        },
        {"activation": '"relu", "tanh", "gelu" or "identity"', "outputs": "h (N,)"},
        {"value": "φ(h) (N,)", "derivative": "φ′(h) (N,)"},
        exact.activation,
        _activations(),
        {
            "relu-slope-reversed": Mistake("eq:relu", "φ′ = 1[h < 0]", _slopes("relu", lambda h: MP.mpf(int(h < 0)))),
            "relu-slope-one-at-zero": Mistake("eq:relu", "φ′(0) = 1", _slopes("relu", lambda h: MP.mpf(int(h >= 0)))),
            "relu-slope-half-at-zero": Mistake(
                "eq:relu",
                "φ′(0) = ½: the autodiff of maximum",
                _slopes("relu", lambda h: MP.mpf(1) / 2 if h == 0 else MP.mpf(int(h > 0))),
            ),
            "tanh-slope-unsquared": Mistake("eq:tanh", "1 − φ for 1 − φ²", _slopes("tanh", lambda h: 1 - MP.tanh(h))),
            "gelu-slope-without-density": Mistake("eq:gelu", "φ′ without h N(h)", _slopes("gelu", MP.ncdf)),
            "gelu-by-tanh": Mistake("eq:gelu", "the tanh approximation of φ", _tanh_gelu),
        },
    ),
    Operation(
        "forward",
        "The forward pass: layer inputs with their ones column, and layer outputs.",
        {"eq:forward": "H_l = A_l W_l with A_1 = [x, 1], A_{l+1} = [φ(H_l), 1]"},
        {"activation": "φ", "weights": "per layer W (D, K), the last row the bias", "x": "(N, widths[0])"},
        {"inputs.l": "A_l (N, D_l)", "outputs.l": "H_l (N, K_l)"},
        exact.forward,
        _networks(0, False),
        {
            "ones-missing": Mistake("eq:forward", "no bias: the ones column is missing", _forward_with("missing")),
            "ones-first": Mistake("eq:forward", "the ones column first, not last", _forward_with("first")),
            "output-activated": Mistake("eq:forward", "φ of the last layer's outputs", _forward_with(last=True)),
            "input-activated": Mistake("eq:forward", "φ of the network's inputs", _forward_with(first=True)),
        },
        per_layer=("inputs", "outputs"),
    ),
    Operation(
        "backward",
        "The gradient of the loss by every layer's outputs, from that by the network's outputs.",
        {"eq:backward": "G_l = (G_{l+1} W̃ᵀ) ⊙ φ′(H_l), W̃ without its bias row"},
        {
            "activation": "φ",
            "weights": "per layer W (D, K), the last row the bias",
            "x": "(N, widths[0])",
            "output_gradient": "G_L (N, K_L)",
        },
        {"gradients.l": "G_l (N, K_l)"},
        exact.backward,
        _networks(20, True),
        {
            "wrong-transpose": _back("wrong-transpose", "W̃ for W̃ᵀ"),
            "first-row-dropped": _back("first-row-dropped", "the first row of W dropped, not the bias row"),
            "slope-missing": _back("slope-missing", "φ′ left out"),
            "slope-of-the-next-layer": _back("slope-of-the-next-layer", "φ′ at the outputs of the next layer"),
            "slope-at-activations": _back("slope-at-activations", "φ′ at φ(H), not at H"),
        },
        per_layer=("gradients",),
    ),
    Operation(
        "pseudo_targets",
        "A layer's step S and its pseudo-targets; B (K, K) the layer's mean curvature per datum.",
        {
            "eq:pseudo-targets": "T = H − G S",
            "eq:step-kinds": "S = αI, (tr(B)/K)⁻¹ I, or (B + δ tr(B)/K I)⁻¹",
        },
        {
            "outputs": "H (N, K)",
            "gradients": "G (N, K)",
            "curvature": "B (K, K)",
            "step": 'kind "gradient" (step_size α), "isotropic" or "natural" (damping δ)',
        },
        {"step": "S (K, K)", "targets": "T (N, K)"},
        exact.pseudo_targets,
        _targets(),
        {
            "gradient-sign": Mistake("eq:pseudo-targets", "+G for −G", _target_with(1)),
            "step-inverted": Mistake(
                "eq:step-kinds", "the curvature for its inverse", _target_with(change=exact.step_curvature)
            ),
            "damping-absolute": Mistake("eq:step-kinds", "δI for δ tr(B)/K I", _target_with(change=_absolute_damping)),
            "trace-for-mean": Mistake("eq:step-kinds", "tr(B) for tr(B)/K", _target_with(change=_trace_for_mean)),
        },
    ),
)
