"""Cases of the predictive distributions: linearised, Monte Carlo, and the probit link between them and classes."""

from __future__ import annotations

from typing import Any

from ..reference import predictive as exact
from ..reference.exact import MP, inverse, lists, matrix, row
from ..reference.layer import normal_log_density
from ..reference.network import row_loss, softmax
from .kit import Case, Mistake, Numbers, Operation, Values

LAYERS = "per layer {mean (D, K), row_precision (D, D), column_covariance (K, K)}"
COMMON = {
    "activation": "φ",
    "likelihood": '{kind: "gaussian", noise_variance} or {kind: "categorical"}',
    "layers": LAYERS,
    "temperature": "every column covariance is multiplied by it",
    "x": "(n, widths[0])",
    "y": "(n, K); null for categorical",
}
OUTPUTS = {
    "mean": "of the network's outputs (n, K)",
    "epistemic": "covariance of the outputs (n, K, K)",
    "aleatoric": "diag(σ²), or of the one-hot label given the weights, averaged (n, K, K)",
    "probabilities": "categorical only (n, K)",
    "log_density": "of y (n,), in nats, Gaussian only",
}
GAUSSIAN = {"kind": "gaussian", "noise_variance": 0.5}
NETWORKS: tuple[tuple[str, Values, tuple[int, ...], str, int], ...] = (
    ("regression", GAUSSIAN, (2, 3, 2), "tanh", 2),
    ("regression-per-output", {"kind": "gaussian", "noise_variance": [0.5, 0.125]}, (1, 3, 2), "relu", 2),
    ("classification", {"kind": "categorical"}, (2, 3, 3), "tanh", 2),
    ("linear", GAUSSIAN, (2, 1), "relu", 2),
    ("one-unit", GAUSSIAN, (1, 1, 1), "gelu", 1),
)


def _networks(seed: int, draws: bool) -> list[Case]:
    out = []
    for s, (name, likelihood, widths, kind, n) in enumerate(NETWORKS):
        numbers = Numbers(seed + s)
        layers = [numbers.posterior(d + 1, k) for d, k in zip(widths, widths[1:])]
        x = numbers.matrix(n, widths[0])
        inputs = {"activation": kind, "likelihood": likelihood, "layers": layers, "temperature": 0.25, "x": x}
        if draws:
            shapes = list(zip(widths, widths[1:]))
            inputs["draws"] = [[numbers.matrix(d + 1, k) for d, k in shapes] for _ in range(3)]
        inputs["y"] = numbers.matrix(n, widths[-1]) if likelihood["kind"] == "gaussian" else None
        out.append(Case(name, inputs, {"n": n, "S": 3 * draws, **{f"K{l}": k for l, k in enumerate(widths)}}))
    good, classes = out[0].inputs, out[2].inputs
    if draws:
        far, *rest = good["y"]
        out.append(Case("regression-far", {**good, "y": [[100.0 * v for v in far], *rest]}, out[0].shapes))
        last = classes["layers"][-1]
        certain = {**last, "mean": [*last["mean"][:-1], [1000.0, -1000.0, 0.0]]}
        inputs = {**classes, "layers": [*classes["layers"][:-1], certain]}
        scale = {"entropy": 1.0, "aleatoric": 1.0}
        out.append(Case("classification-certain", inputs, out[2].shapes, scale))
    first = {**good["layers"][0], "row_precision": [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]}
    bad = {**good, "layers": [first, *good["layers"][1:]]}
    return [*out, Case("reject-indefinite", bad, out[0].shapes, reject="not positive definite")]


def _layers(change: Any) -> Any:
    return lambda i: exact.linearized_predictive({**i, "layers": [change(layer) for layer in i["layers"]]})


def _squared_columns(layer: Values) -> Values:
    S = matrix(layer["column_covariance"])
    return {**layer, "column_covariance": lists(S * S)}


def _inverse_rows(layer: Values) -> Values:
    return {**layer, "row_precision": lists(inverse(matrix(layer["row_precision"])))}


def _last_layer(i: Values) -> Values:
    right = exact.linearized_predictive(i)
    return {**right, "epistemic": right["epistemic_by_layer"][-1]}


def _density(i: Values, times: int) -> Values:
    """log N(y | h, times · epistemic + noise)."""
    right = exact.linearized_predictive(i)
    if i["likelihood"]["kind"] != "gaussian":
        return right
    density = []
    for y, h, V, noise in zip(i["y"], right["mean"], right["epistemic"], right["aleatoric"]):
        left = (MP.matrix([y]) - MP.matrix([h])).T
        density.append(normal_log_density(left, times * matrix(V) + matrix(noise)))
    return {**right, "log_density": density}


def _each_alone(i: Values) -> Values:
    p = []
    for h, V in zip(i["logits"], i["covariance"]):
        p.append(softmax(MP.matrix([[v / MP.sqrt(1 + MP.pi * V[j][j] / 8) for j, v in enumerate(h)]])))
    return {"probabilities": p}


def _probits() -> list[Case]:
    out = []
    for s, (name, k) in enumerate((("three-classes", 3), ("two-classes", 2))):
        numbers = Numbers(1360 + s)
        covariance = [numbers.spd(k, 0.5, 2.0) for _ in range(2)]
        inputs = {"logits": numbers.matrix(2, k), "covariance": covariance}
        out.append(Case(name, inputs, {"n": 2, "K": k}))
    numbers = Numbers(1370)
    nothing = {"logits": numbers.matrix(1, 3), "covariance": [[[0.0] * 3 for _ in range(3)]]}
    shift = {"logits": numbers.matrix(1, 3), "covariance": [[[4.0] * 3 for _ in range(3)]]}
    out.append(Case("no-variance", nothing, {"n": 1, "K": 3}))
    return [*out, Case("common-shift-only", shift, {"n": 1, "K": 3})]


def _probit_with(factor: Any) -> Any:
    return lambda i: exact.probit({**i, "covariance": [lists(factor * matrix(v)) for v in i["covariance"]]})


def _centred(i: Values) -> Values:
    """Each class scaled by the variance of its own logit, both centred over the classes."""
    p = []
    for h, rows in zip(i["logits"], i["covariance"]):
        k, V = len(h), matrix(rows)
        centre = MP.eye(k) - MP.ones(k) / k
        z, W = MP.matrix([h]) * centre, centre * V * centre
        p.append(softmax(MP.matrix([[z[0, j] / MP.sqrt(1 + MP.pi * W[j, j] / 8) for j in range(k)]])))
    return {"probabilities": p}


def _uncorrelated(i: Values) -> Values:
    """The covariances between the logits left out of the variances of their differences."""
    only = [[[v if a == b else 0.0 for b, v in enumerate(r)] for a, r in enumerate(V)] for V in i["covariance"]]
    return exact.probit({**i, "covariance": only})


def _second_moment(i: Values) -> Values:
    right = exact.monte_carlo_predictive(i)
    mean = matrix(right["mean"])
    outer = [row(mean, n).T * row(mean, n) for n in range(mean.rows)]
    return {**right, "epistemic": [lists(matrix(v) + o) for v, o in zip(right["epistemic"], outer)]}


def _unbiased(i: Values) -> Values:
    right, s = exact.monte_carlo_predictive(i), len(i["draws"])
    return {**right, "epistemic": [lists(matrix(v) * s / (s - 1)) for v in right["epistemic"]]}


def _density_of_draws(i: Values, how: str) -> Values:
    right = exact.monte_carlo_predictive(i)
    if i["likelihood"]["kind"] != "gaussian":
        return right
    draws = [matrix(h) for h in right["draws"]]
    each = [[-row_loss(i["likelihood"], row(h, n), y) for h in draws] for n, y in enumerate(i["y"])]
    if how == "mean of logs":
        return {**right, "log_density": [sum(v) / len(v) for v in each]}
    return {**right, "log_density": [MP.log(sum(MP.exp(u) for u in v)) for v in each]}


def _underflowing(i: Values) -> Values:
    """Densities in place of their logarithms: 0 where float64 has none so small."""
    right = exact.monte_carlo_predictive(i)
    if i["likelihood"]["kind"] != "gaussian":
        return right
    return {**right, "log_density": [v if v > MP.log(LEAST) else MP.ninf for v in right["log_density"]]}


def _nothing_times_infinity(i: Values) -> Values:
    """p log p where p is 0 in float64."""
    right = exact.monte_carlo_predictive(i)
    if i["likelihood"]["kind"] == "gaussian":
        return right
    pairs = zip(right["entropy"], right["probabilities"])
    return {**right, "entropy": [v if min(p) > LEAST else MP.nan for v, p in pairs]}


def _softmax_of_mean(i: Values) -> Values:
    right = exact.monte_carlo_predictive(i)
    if i["likelihood"]["kind"] == "gaussian":
        return right
    mean = matrix(right["mean"])
    return {**right, "probabilities": [softmax(row(mean, n)) for n in range(mean.rows)]}


def _entropy_base(i: Values) -> Values:
    right = exact.monte_carlo_predictive(i)
    if i["likelihood"]["kind"] == "gaussian":
        return right
    return {**right, "entropy": [v / MP.log(2) for v in right["entropy"]]}


LEAST = MP.mpf("5e-324")
LINEARIZED, MONTE_CARLO = "eq:linearized-predictive", "eq:monte-carlo-predictive"
OPERATIONS = (
    Operation(
        "linearized_predictive",
        "The predictive of a network linearised in its weights, split by layer; classes by the probit link.",
        {
            LINEARIZED: "f(x) ~ N(h_L, temperature · ∑_l (a_l P_l⁻¹ a_lᵀ) J_l Σ_l J_lᵀ)",
            "eq:probit": "p = softmax(μ/√(1 + πv/8)), μ_k = h_k − mean h, v_k = Var(h_k − mean of the other h)",
            "eq:predictive-density": "log N(y | h, epistemic + diag(σ²))",
        },
        COMMON,
        {**OUTPUTS, "epistemic_by_layer": "its split, (L, n, K, K)"},
        exact.linearized_predictive,
        _networks(1300, False),
        {
            "temperature-missing": Mistake(
                LINEARIZED,
                "covariances not tempered",
                lambda i: exact.linearized_predictive({**i, "temperature": MP.mpf(1)}),
            ),
            "temperature-squared": Mistake(
                LINEARIZED,
                "covariances tempered twice",
                lambda i: exact.linearized_predictive({**i, "temperature": i["temperature"] ** 2}),
            ),
            "columns-squared": Mistake(LINEARIZED, "variance for deviation: J Σ Σ Jᵀ", _layers(_squared_columns)),
            "precision-for-covariance": Mistake(LINEARIZED, "a P aᵀ for a P⁻¹ aᵀ", _layers(_inverse_rows)),
            "epistemic-twice": Mistake(
                "eq:predictive-density", "epistemic covariance counted twice in the density", lambda i: _density(i, 2)
            ),
            "noise-only": Mistake("eq:predictive-density", "density of the noise alone", lambda i: _density(i, 0)),
            "last-layer-only": Mistake(LINEARIZED, "the last layer's uncertainty only", _last_layer),
        },
    ),
    Operation(
        "probit",
        "Class probabilities from the mean and the covariance of the logits.",
        {"eq:probit": "p = softmax(μ/√(1 + πv/8)), μ_k = h_k − mean h, v_k = Var(h_k − mean of the other h)"},
        {"logits": "h (n, K)", "covariance": "V (n, K, K)"},
        {"probabilities": "p (n, K)"},
        exact.probit,
        _probits(),
        {
            "each-alone": Mistake("eq:probit", "each logit scaled by its own variance", _each_alone),
            "centred": Mistake("eq:probit", "each class against the mean of all, itself included", _centred),
            "uncorrelated": Mistake("eq:probit", "covariances between the logits left out", _uncorrelated),
            "wrong-constant": Mistake("eq:probit", "π/4 for π/8", _probit_with(2)),
            "variance-ignored": Mistake("eq:probit", "softmax of the mean logits", _probit_with(0)),
        },
    ),
    Operation(
        "monte_carlo_predictive",
        "Moments over networks sampled with given draws, log density of targets, class probabilities and entropy.",
        {
            MONTE_CARLO: "h_s of W_s = M + L⁻ᵀ z_s Rᵀ, L Lᵀ = P, R Rᵀ = temperature · Σ; mean and covariance over s",
            "eq:predictive-density": "log of the mean over s of N(y | h_s, diag(σ²))",
            "eq:predictive-entropy": "−∑ p log p, p the mean over s of softmax(h_s); 0 log 0 = 0",
        },
        {**COMMON, "draws": "z: per draw s, per layer (D, K)"},
        {
            **OUTPUTS,
            "draws": "h_s (S, n, K)",
            "entropy": "of the class probabilities, in nats (n,), categorical only",
        },
        exact.monte_carlo_predictive,
        _networks(1330, True),
        {
            "temperature-missing": Mistake(
                MONTE_CARLO,
                "draws not tempered (a stale factor of Σ)",
                lambda i: exact.monte_carlo_predictive({**i, "temperature": MP.mpf(1)}),
            ),
            "deviation-tempered": Mistake(
                MONTE_CARLO,
                "deviations multiplied by the temperature, not its root",
                lambda i: exact.monte_carlo_predictive({**i, "temperature": i["temperature"] ** 2}),
            ),
            "second-moment": Mistake(MONTE_CARLO, "second moment for covariance", _second_moment),
            "unbiased": Mistake(MONTE_CARLO, "covariance divided by S − 1, not S", _unbiased),
            "mean-of-logs": Mistake(
                "eq:predictive-density",
                "mean of log densities for log of their mean",
                lambda i: _density_of_draws(i, "mean of logs"),
            ),
            "no-logarithms": Mistake("eq:predictive-density", "log of densities that underflow", _underflowing),
            "nothing-times-infinity": Mistake(
                "eq:predictive-entropy", "p log p not 0 where p is", _nothing_times_infinity
            ),
            "sum-over-draws": Mistake(
                "eq:predictive-density", "sum over draws for mean", lambda i: _density_of_draws(i, "sum")
            ),
            "softmax-of-mean": Mistake(MONTE_CARLO, "softmax of the mean logits", _softmax_of_mean),
            "base-two": Mistake("eq:predictive-entropy", "entropy in bits, not nats", _entropy_base),
        },
    ),
)
