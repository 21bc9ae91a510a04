"""Cases of the likelihoods."""

from __future__ import annotations

from typing import Any

from ..reference import network as exact
from ..reference.exact import MP, lists, matrix, row
from .kit import Case, Mistake, Numbers, Operation, Values

LIKELIHOOD = 'kind "gaussian" (noise_variance σ²: a number, or one per output) or "categorical"'


Y = "Gaussian: (N, K); categorical: labels (N,), integers from 0"


H = "h (N, K)"


KINDS: tuple[tuple[str, Values, int], ...] = (
    ("gaussian", {"kind": "gaussian", "noise_variance": 0.25}, 2),
    ("gaussian-per-output", {"kind": "gaussian", "noise_variance": [0.25, 1.5, 4.0]}, 3),
    ("gaussian-one-output", {"kind": "gaussian", "noise_variance": 0.5}, 1),
    ("categorical", {"kind": "categorical"}, 3),
    ("categorical-two-classes", {"kind": "categorical"}, 2),
)


def _likelihoods(seed: int, y: bool) -> list[Case]:
    out = []
    for s, (name, likelihood, k) in enumerate(KINDS):
        numbers = Numbers(seed + s)
        inputs: Values = {"likelihood": likelihood, "outputs": numbers.matrix(4, k)}
        if y:
            inputs["y"] = numbers.matrix(4, k) if likelihood["kind"] == "gaussian" else numbers.integers(4, k)
        out.append(Case(name, inputs, {"N": 4, "K": k}))
    if y:
        far = {"likelihood": {"kind": "categorical"}, "outputs": [[200.0, 0.5, -1.0], [0.25, 1000.0, -1000.0]]}
        scale = {"loss": 1000.0, "gradient": 1.0}
        out.append(Case("categorical-saturated", {**far, "y": [1, 1]}, {"N": 2, "K": 3}, scale))
        base = out[3].inputs
        for name, labels in (("above", [0, 3, 1, 1]), ("below", [0, -1, 1, 1])):
            case = Case(f"reject-unknown-label-{name}", {**base, "y": labels}, {"N": 4, "K": 3}, reject="unknown label")
            out.append(case)
        short = {**out[0].inputs, "y": Numbers(seed + 30).matrix(3, 2)}
        out.append(Case("reject-shape", short, {"N": 4, "K": 2}, reject="shape"))
        flat = {**out[2].inputs, "y": [v[0] for v in out[2].inputs["y"]]}  # broadcast, it would be (N, N)
        out.append(Case("reject-flat-y", flat, {"N": 4, "K": 1}, reject="shape"))
        for name, variance in (("zero", 0.0), ("negative", -0.25)):
            bad = {**out[0].inputs, "likelihood": {"kind": "gaussian", "noise_variance": variance}}
            out.append(Case(f"reject-variance-{name}", bad, {"N": 4, "K": 2}, reject="value"))
    return out


def _gaussian_only(i: Values, wrong: Values, right: Values) -> Values:
    return wrong if i["likelihood"]["kind"] == "gaussian" else right


def _with_variance(operation: Any, change: Any) -> Any:
    """The operation with a changed noise variance."""

    def wrong(i: Values) -> Values:
        likelihood = i["likelihood"]
        if likelihood["kind"] != "gaussian":
            return operation(i)
        s2 = likelihood["noise_variance"]
        other = [change(s) for s in s2] if isinstance(s2, list) else change(s2)
        return operation({**i, "likelihood": {**likelihood, "noise_variance": other}})

    return wrong


def _loss_without_normaliser(i: Values) -> Values:
    right, k = exact.likelihood_loss(i), len(i["outputs"][0])
    normaliser = MP.mpf(k) / 2 * MP.log(2 * MP.pi)
    return _gaussian_only(i, {"loss": [v - normaliser for v in right["loss"]]}, right)


def _loss_base_two(i: Values) -> Values:
    right = exact.likelihood_loss(i)
    return _gaussian_only(i, right, {"loss": [v / MP.log(2) for v in right["loss"]]})


def _loss_unshifted(i: Values) -> Values:
    """exp overflows beyond e^88 in float32 (e^709 in float64)."""
    right = exact.likelihood_loss(i)
    if i["likelihood"]["kind"] == "gaussian":
        return right
    over = [any(v > 88 for v in h) for h in i["outputs"]]
    return {"loss": [MP.inf if o else v for o, v in zip(over, right["loss"])]}


def _gradient_factor(gaussian: Any, categorical: Any) -> Any:
    def wrong(i: Values) -> Values:
        factor = gaussian if i["likelihood"]["kind"] == "gaussian" else categorical
        return {"gradient": lists(factor * matrix(exact.likelihood_gradient(i)["gradient"]))}

    return wrong


def _fisher(i: Values) -> Values:
    right, h = exact.likelihood_curvature(i), matrix(i["outputs"])
    if i["likelihood"]["kind"] == "gaussian":
        return right
    p = [MP.matrix(exact.softmax(row(h, n))) for n in range(h.rows)]
    return {"curvature": [lists(MP.diag(list(v)) - v * v.T) for v in p]}


def _quarter(i: Values) -> Values:
    right = exact.likelihood_curvature(i)
    halved = {"curvature": [lists(matrix(v) / 2) for v in right["curvature"]]}
    return _gaussian_only(i, right, halved)


def _probes(seed: int) -> list[Case]:
    out = []
    for s, (name, likelihood, k) in enumerate(KINDS):
        noise = [[float(v) for v in r] for r in Numbers(seed + s).signs(4, k)]
        inputs = {"likelihood": likelihood, "noise": noise}
        out.append(Case(name, inputs, {"N": 4, "K": k}, {"probe": 1.0}))
    return out


def _probe_halved(i: Values) -> Values:
    right = exact.likelihood_probe(i)
    return _gaussian_only(i, right, {"probe": lists(matrix(right["probe"]) / MP.sqrt(2))})


def _probe_uncentred(i: Values) -> Values:
    right = exact.likelihood_probe(i)
    return _gaussian_only(i, right, {"probe": lists(matrix(i["noise"]) / MP.sqrt(2))})


GAUSSIAN, CATEGORICAL = "−log N(y | h, diag(σ²))", "logsumexp(h) − h_y"


OPERATIONS = (
    Operation(
        "likelihood_loss",
        "The loss of every row, in nats.",
        {"eq:gaussian-loss": GAUSSIAN, "eq:categorical-loss": CATEGORICAL},
        {"likelihood": LIKELIHOOD, "outputs": H, "y": Y},
        {"loss": "ℓ (N,)"},
        exact.likelihood_loss,
        _likelihoods(900, True),
        {
            "deviation-for-variance": Mistake(
                "eq:gaussian-loss", "σ for σ²", _with_variance(exact.likelihood_loss, MP.sqrt)
            ),
            "normaliser-missing": Mistake("eq:gaussian-loss", "½ log 2π left out", _loss_without_normaliser),
            "base-two": Mistake("eq:categorical-loss", "logarithm to base 2, not nats", _loss_base_two),
            "softmax-overflows": Mistake(
                "eq:categorical-loss", "exp of logits that were not shifted by the largest", _loss_unshifted
            ),
        },
    ),
    Operation(
        "likelihood_gradient",
        "The gradient of the loss by the network's outputs.",
        {"eq:gaussian-gradient": "(h − y)/σ²", "eq:categorical-gradient": "softmax(h) − onehot(y)"},
        {"likelihood": LIKELIHOOD, "outputs": H, "y": Y},
        {"gradient": "(N, K)"},
        exact.likelihood_gradient,
        _likelihoods(920, True),
        {
            "deviation-for-variance": Mistake(
                "eq:gaussian-gradient", "σ for σ²", _with_variance(exact.likelihood_gradient, MP.sqrt)
            ),
            "factor-two": Mistake(
                "eq:gaussian-gradient", "2(h − y)/σ²: the square's factor without its ½", _gradient_factor(2, 1)
            ),
            "mean-over-rows": Mistake(
                "eq:gaussian-gradient",
                "gradient of the mean loss, divided by N",
                lambda i: _gradient_factor(MP.mpf(1) / len(i["outputs"]), 1)(i),
            ),
            "label-minus-softmax": Mistake("eq:categorical-gradient", "wrong sign", _gradient_factor(1, -1)),
        },
    ),
    Operation(
        "likelihood_curvature",
        "The curvature bound of every row in the network's outputs.",
        {"eq:gaussian-curvature": "diag(1/σ²)", "eq:bohning-bound": "½(I − 11ᵀ/K)"},
        {"likelihood": LIKELIHOOD, "outputs": H},
        {"curvature": "(N, K, K)"},
        exact.likelihood_curvature,
        _likelihoods(940, False),
        {
            "deviation-for-variance": Mistake(
                "eq:gaussian-curvature", "1/σ for 1/σ²", _with_variance(exact.likelihood_curvature, MP.sqrt)
            ),
            "quarter": Mistake("eq:bohning-bound", "¼ for ½: no bound any more", _quarter),
            "fisher": Mistake("eq:bohning-bound", "diag(p) − ppᵀ, which is no bound", _fisher),
        },
    ),
    Operation(
        "likelihood_probe",
        "Random rows whose mean outer product is the curvature bound, from given noise of covariance I.",
        {"eq:gaussian-probe": "ε/σ", "eq:bohning-probe": "(ε − mean ε)/√2"},
        {"likelihood": LIKELIHOOD, "noise": "ε (N, K)"},
        {"probe": "z (N, K)"},
        exact.likelihood_probe,
        _probes(960),
        {
            "variance-for-deviation": Mistake(
                "eq:gaussian-probe", "ε/σ² for ε/σ", _with_variance(exact.likelihood_probe, lambda s: s * s)
            ),
            "halved": Mistake("eq:bohning-probe", "½ for 1/√2: the bound for its root", _probe_halved),
            "not-centred": Mistake("eq:bohning-probe", "the mean over classes not taken off", _probe_uncentred),
        },
    ),
)
