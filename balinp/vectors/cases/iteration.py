"""Cases of whole iterations. Every setting is an input; so is every draw."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from ..reference import iteration as exact
from ..reference.exact import MP, matrix
from ..reference.network import bound, layer_bound, passes, variances
from .kit import Case, Mistake, Operation, Values, eye, scaled
from .shares import SHARE_MISTAKES
from .states import CLASSES, LITERAL, MEAN, NATURAL, PER_OUTPUT, instance, shapes_of
from .trust import TRUST_MISTAKES, trusted_iterations


def _iterations() -> list[Case]:
    tied = {**MEAN, "prior": "tied", "prior_precision": 0.75, "damping": 0.125}
    gradient = {**LITERAL, "rate": 0.25}
    kinds: list[tuple[str, Values]] = [
        ("literal-first", instance(1400, LITERAL, t=0)),
        ("literal-mini-batch", instance(1401, {**gradient, "rate": 0.5}, n=4, total=20.0)),
        ("linear-layer", instance(1402, {**LITERAL, "step": "natural"}, (3, 2), t=0)),
        ("linear-layer-weighted", instance(1403, {**LITERAL, "step": "natural"}, (3, 2), t=0, weighted=True)),
        ("natural-first", instance(1404, NATURAL, t=0)),
        ("natural-second", instance(1405, {**MEAN, "warmup": 2}, t=1)),
        ("natural-at-mean", instance(1406, MEAN)),
        ("natural-sampled", instance(1407, NATURAL, likelihood=PER_OUTPUT)),
        ("natural-mini-batch", instance(1408, NATURAL, n=4, total=20.0)),
        ("natural-tied", instance(1409, tied)),
        ("isotropic", instance(1410, {**MEAN, "step": "isotropic"}, activation="gelu")),
        ("classification", instance(1411, CLASSES, (2, 3, 3), {"kind": "categorical"}, "relu", total=15.0)),
        ("residual-noise", instance(1412, {**gradient, "noise": "residual", "damping": 0.5})),
        *trusted_iterations(),
        ("weighted", instance(1414, NATURAL, weighted=True)),
        ("one-datum", instance(1415, MEAN, n=1)),
        ("one-unit", instance(1416, NATURAL, (1, 1, 1))),
        ("three-layers", instance(1417, NATURAL, (2, 3, 2, 1), n=4)),
        ("share-above-one", instance(1500, {**MEAN, "tempering": None}, n=1)),
        (
            "residual-noise-evidence",
            instance(1500, {**gradient, "noise": "residual", "damping": 0.5, "evidence": True}),
        ),
        ("residual-noise-independent", instance(1500, {**gradient, "prior": "independent", "noise": "residual"})),
        ("damped", instance(1500, {**MEAN, "damping": 0.125})),
        ("heavy-rows", {**instance(1500, NATURAL, t=13), "sample_weight": [512.0, 512.0, 256.0, 128.0, 128.5]}),
    ]
    out = [Case(name, inputs, shapes_of(inputs)) for name, inputs in kinds]
    good = kinds[6][1]
    nan: Any = {**good, "x": [[*good["x"][0][:1], "NaN"], *good["x"][1:]]}
    wide = {**good, "x": [[*r, 1.0] for r in good["x"]]}
    sampled = kinds[7][1]
    layers = sampled["state"]["layers"]
    broken = {**layers[0], "row_precision": scaled(layers[0]["row_precision"], -1.0)}
    indefinite = {**sampled, "state": {**sampled["state"], "layers": [broken, *layers[1:]]}}
    for name, inputs, why in (
        ("nan", nan, "not finite"),
        ("shape", wide, "shape"),
        ("indefinite", indefinite, "not positive definite"),
    ):
        out.append(Case(f"reject-{name}", inputs, shapes_of(good), reject=why))
    return out


def _changed(**settings: Any) -> Any:
    """The iteration with other settings: a part of the method left out."""
    return lambda i: exact.iteration({**i, "settings": {**i["settings"], **settings}})


def _state_changed(**change: Any) -> Any:
    """The iteration from a changed state."""

    def wrong(i: Values) -> Values:
        state = i["state"]
        return exact.iteration({**i, "state": {**state, **{n: f(state) for n, f in change.items()}}})

    return wrong


def _uncorrected(i: Values) -> Values:
    """β not started at 1/(t + 1): the iteration far along, with t put back."""
    late = {**i["state"], "iteration": i["state"]["iteration"] + 1000}
    settings = {**i["settings"], "warmup": i["settings"]["warmup"] + (0 if i["state"]["iteration"] + 1 >=
                i["settings"]["warmup"] else 1000)}  # fmt: skip
    out = exact.iteration({**i, "state": late, "settings": settings})
    return {**out, "iteration": i["state"]["iteration"] + 1}


def _no_prior(state: Values) -> list[Values]:
    return [{**layer, "prior_precision": layer["prior_precision"] * MP.mpf("1e-6")} for layer in state["layers"]]


def _old_rows(i: Values) -> Values:
    """The precision P of the last iteration kept beside the new mean."""
    out = exact.iteration(i)
    olds = (layer["row_precision"] for layer in i["state"]["layers"])
    return {**out, "layers": [{**layer, "row_precision": old} for layer, old in zip(out["layers"], olds)]}


def _gradients_for_probes(i: Values) -> Values:
    """Noise (h − y)/σ makes of a Gaussian's probe ε/σ its loss gradient (h − y)/σ²."""
    likelihood = i["state"]["likelihood"]
    if i["probe_noise"] is None or likelihood["kind"] != "gaussian":
        return exact.iteration(i)
    h = passes(i["activation"], exact.drawn_weights(i["state"], i["weight_draws"]), matrix(i["x"]))[1][-1]
    roots = [MP.sqrt(s) for s in variances(likelihood, h.cols)]
    noise = [[(h[n, j] - i["y"][n][j]) / roots[j] for j in range(h.cols)] for n in range(h.rows)]
    return exact.iteration({**i, "probe_noise": noise})


def _mean_curvature(i: Values) -> Values:
    def mean(likelihood: Values, k: int) -> Any:
        return layer_bound(likelihood, k) / len(i["x"])

    with patch.object(exact, "layer_bound", mean):
        return exact.iteration(i)


def _without_shift(i: Values) -> Values:
    with patch.object(exact, "layer_bound", bound):
        return exact.iteration(i)


def _nothing_determined(state: Values) -> list[Values]:
    return [{**layer, "determined": MP.mpf(0)} for layer in state["layers"]]


def _identity_columns(state: Values) -> list[Values]:
    k = [len(layer["column_covariance"]) for layer in state["layers"]]
    return [{**layer, "column_covariance": [[MP.mpf(v) for v in r] for r in eye(n)]} for n, layer in
            zip(k, state["layers"])]  # fmt: skip


def _by_step(i: Values) -> Values:
    """The norm in eq:mackay by S where it is by Σ; of the tied prior alone, whose γ is the same by both."""
    right = exact.iteration(i)
    if i["settings"]["prior"] != "tied":
        return right
    by_step = exact.iteration({**i, "settings": {**i["settings"], "noise": "step"}})["layers"]
    taus = [layer["prior_precision"] for layer in by_step]
    return {**right, "layers": [{**layer, "prior_precision": t} for layer, t in zip(right["layers"], taus)]}


MISTAKES = {
    "batch-weight-missing": Mistake(
        "eq:ema", "the batch not scaled by N/m", lambda i: exact.iteration({**i, "total": None})
    ),
    "rate-not-corrected": Mistake("eq:ema", "β from the start, not max(β, 1/(t + 1))", _uncorrected),
    "nothing-remembered": Mistake("eq:ema", "the old sums dropped: β = 1", _changed(rate=MP.mpf(1))),
    "row-weights-ignored": Mistake(
        "eq:statistics", "sample weights left out", lambda i: exact.iteration({**i, "sample_weight": None})
    ),
    "gradients-at-the-mean": Mistake(
        "eq:iteration",
        "gradients at the mean, not at the drawn weights",
        lambda i: exact.iteration({**i, "weight_draws": None}),
    ),
    "draws-not-tempered": Mistake(
        "eq:tempering",
        "weights drawn with a stale factor of Σ, not tempered",
        _state_changed(temperature=lambda s: MP.mpf(1)),
    ),
    **SHARE_MISTAKES,
    "prior-missing": Mistake(
        "eq:prior-gradient", "the prior's pull and precision left out", _state_changed(layers=_no_prior)
    ),
    "stale-precision": Mistake("eq:step-form", "P of the last iteration kept beside the new mean", _old_rows),
    "gradients-for-probes": Mistake(
        "eq:curvature-probe", "loss gradients back-propagated for probes", _gradients_for_probes
    ),
    "mean-for-sum": Mistake("eq:output-curvature", "the output layer's curvature a mean over rows", _mean_curvature),
    "shift-without-curvature": Mistake(
        "eq:output-curvature", "½(I − 11ᵀ/K) for ½I: no curvature along the shift of all logits", _without_shift
    ),
    "damping-missing": Mistake("eq:step-kinds", "damping left out", _changed(damping=MP.mpf(0))),
    "share-not-carried": Mistake(
        "eq:kronecker-projection", "κ of the last iteration not used", _state_changed(layers=_nothing_determined)
    ),
    "columns-not-carried": Mistake(
        "eq:kronecker-projection", "Σ of the last iteration not used", _state_changed(layers=_identity_columns)
    ),
    "evidence-missing": Mistake("eq:mackay", "τ not re-estimated", _changed(evidence=False)),
    "norm-by-step": Mistake("eq:mackay", "tr(S⁻¹MᵀM) for tr(Σ⁻¹MᵀM) in evidence", _by_step),
    "noise-not-learnt": Mistake("eq:noise-update", "σ² not updated", _changed(learn_noise=False)),
    "warm-up-ignored": Mistake("eq:iteration", "no warm-up", _changed(warmup=0)),
    "one-prior-for-both": Mistake(
        "eq:tied-prior", "the tied prior treated as independent", _changed(prior="independent")
    ),
    **TRUST_MISTAKES,
    "step-for-residual": Mistake("eq:residual-covariance", "Σ = S for the residual covariance", _changed(noise="step")),
    "whole-step": Mistake("eq:step-form", "the whole step taken", _changed(step_scale=MP.mpf(1))),
}


STATE_OUT = {
    "layers.l.mean": "M (D, K)",
    "layers.l.row_precision": "P (D, D)",
    "layers.l.column_covariance": "Σ (K, K), not tempered",
    "layers.l.statistics.*": "running sums of (A, G) and probes: count, gram, cross, target_gram, curvature",
    "layers.l.prior_precision": "τ",
    "layers.l.determined": "κ",
    "layers.l.effective_parameters": "γ",
    "layers.l.log_evidence": "of the running sums, in nats",
    "likelihood.noise_variance": "σ², Gaussian only",
    "temperature": "of the next draws; 0 before the warm-up ends",
    "step_scale": "the trust region's next; otherwise η",
    "iteration": "t + 1",
    "training_loss": "mean loss that the iteration met, in nats",
    "parameters_per_target": "s, which sets the temperature",
}


SETTINGS = (
    "all settings, as in balinp.Settings; step_scale null means β_t; precision_bounds: of the target of eq:mackay"
)


STATEMENTS = {
    "eq:iteration": "gradients at the drawn weights (means if not sampled), one regression per layer, rules, noise",
    "eq:statistics": "∑ w_n over rows of (A_l, G_l)",
    "eq:curvature-probe": "a hidden layer's curvature is ZᵀZ of the probes of noise probe_noise, back-propagated",
    "eq:output-curvature": "the output layer's curvature is ∑ w_n B, B the likelihood's bound, of classes ½I",
    "eq:ema": "(1 − β_t)·old + β_t·(N/m)·new, β_t = max(β, 1/(t + 1))",
    "eq:step-kinds": "B = curvature/count → αI, tr(B)/K I or B + δ tr(B)/K I",
    "eq:tied-prior": "π = λ, Q = B; the prior pulls M by −M",
    "eq:kronecker-projection": "b = tr(BΣ)/tr(Σ), π = τ/b, Q = κB + (1 − κ)bI with Σ, κ of the last iteration",
    "eq:prior-gradient": "the independent prior pulls M by −(τ/π) M Q⁻¹",
    "eq:step-form": "Δ = −P⁻¹((N/m)AᵀG S + π·pull), P = U + πI, S = Q⁻¹; M⁺ = M + ηΔ, η = step_scale or β_t",
    "eq:residual-covariance": 'noise "residual": Σ = (T − AΔ)ᵀ(T − AΔ)/N + δ tr/K I, T = −G S',
    "eq:trust-region": "η = min(the state's step_scale, largest), largest = step_scale of the settings or β_t; cut by"
    " 0.3, twelve tries, until N/m ∑ w_n ℓ_n(drawn weights + ηΔ) + ½∑ τ‖M + ηΔ‖² (M the means; tied: ½∑ λ"
    " tr(S⁻¹(·)ᵀ(·))) is not above its value at η = 0; the next try min(1.5 η, largest). If none is, no step is taken"
    " and the next try is the first times 0.3¹²",
    "eq:mackay": "τ by evidence from the new M, the new Σ and γ up to 0.9 N K_L, once t + 1 ≥ warmup",
    "eq:tempering": "min(max_temperature, tempering/s) (the cap where s = 0), once t + 1 ≥ warmup; 0 before it, of a"
    " single layer too; draws are tempered by the state's",
    "eq:output-spread": "s = ∑γ/(N K_L) at the means; with weight_draws s^(1−β_t) (spread/(temperature · m K_L))^β_t,"
    " spread = ∑ w_n (h_n − h̄_n) B (h_n − h̄_n)ᵀ of this draw about the means, m = ∑ w_n, where ⌈m/1024⌉ divides t",
    "eq:noise-update": "σ² towards the mean squared residual at the drawn weights, once t ≥ warmup; at the means plus"
    " σ² min(ϑ ∑γ/(N K_L), 1), ϑ the temperature after this iteration",
}


DRAWS = {"weight_draws": "z per layer (D, K), or null: gradients at the means", "probe_noise": "±1 (N, K_L), or null"}


OPERATIONS = (
    Operation(
        "iteration",
        "One iteration on a full batch, or on m rows that stand for N = total.",
        STATEMENTS,
        {
            "activation": "φ",
            "state": "layers, likelihood, temperature, step_scale, iteration, parameters_per_target, named as after it",
            "x": "(m, widths[0])",
            "y": "(m, K), or labels (m,)",
            "sample_weight": "(m,) or null",
            "total": "N, or null: m",
            **DRAWS,
            "settings": SETTINGS,
        },
        STATE_OUT,
        exact.iteration,
        _iterations(),
        MISTAKES,
    ),
)
