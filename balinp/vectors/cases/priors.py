"""Cases of the priors' rules: Kronecker form, effective parameters, prior precision by evidence."""

from __future__ import annotations

from typing import Any

from ..reference import rules as exact
from ..reference.exact import MP, identity, matrix, trace
from .kit import Case, Mistake, Numbers, Operation, Values, eye, zeros

BOUNDS = {"low": 1e-4, "high": 1e5}


PRIOR = '"independent" (N(0, 1/τ) on every weight) or "tied" (precision Σ⁻¹ ⊗ λI)'


def _forms() -> list[Case]:
    out = []
    for s, (name, prior, k, kappa) in enumerate(
        [
            ("tied", "tied", 3, 0.5),
            ("independent", "independent", 3, 0.75),
            ("independent-two", "independent", 2, 0.25),
            ("independent-one-unit", "independent", 1, 0.5),
            ("nothing-determined", "independent", 2, 0.0),
            ("nearly-determined", "independent", 3, 1 - 2.0**-11),
        ]
    ):
        numbers = Numbers(1100 + s)
        singular = name == "nearly-determined"  # as of classes, whose curvature is 0 along a shift of all logits
        inputs = {
            "prior": prior,
            "curvature": [[2.0 if i == j else -1.0 for j in range(k)] for i in range(k)]
            if singular
            else numbers.spd(k),
            "prior_precision": 0.375,
            "column_covariance": numbers.spd(k, 0.25, 0.75),
            "determined": kappa,
        }
        out.append(Case(name, inputs, {"K": k}))
    return out


def _form_with(**change: Any) -> Any:
    def wrong(i: Values) -> Values:
        return exact.kronecker_form({**i, **{n: f(i) for n, f in change.items()}})

    return wrong


def _product(i: Values) -> Values:
    right = exact.kronecker_form(i)
    tau = i["prior_precision"]
    return right if i["prior"] == "tied" else {**right, "row_prior": tau * tau / right["row_prior"]}


def _counts() -> list[Case]:
    out = []
    for s, (name, prior, d, k) in enumerate(
        [
            ("tied", "tied", 3, 2),
            ("independent", "independent", 4, 2),
            ("independent-square", "independent", 3, 3),
            ("independent-one-unit", "independent", 1, 1),
            ("no-data", "independent", 3, 2),
            ("prior-larger-than-count", "independent", 2, 2),
        ]
    ):
        numbers = Numbers(1130 + s)
        gram = zeros(d, d) if name == "no-data" else numbers.spd(d, 2.0, 2.0)
        inputs = {
            "prior": prior,
            "gram": gram,
            "row_prior": 0.5,
            "prior_precision": 8.0 if name == "prior-larger-than-count" else 0.125 if prior == "independent" else 0.5,
            "column_covariance": numbers.spd(k, 0.25, 0.75),
        }
        out.append(Case(name, inputs, {"D": d, "K": k}, {"determined": 1.0, "effective_parameters": float(d * k)}))
    return out


def _unclipped(i: Values) -> Values:
    sigma, U = matrix(i["column_covariance"]), matrix(i["gram"])
    rows = trace((U + identity(U.rows, i["row_prior"])) ** -1)
    gamma = U.rows * sigma.rows - i["prior_precision"] * rows * trace(sigma)
    right = exact.effective_parameters(i)
    return right if i["prior"] == "tied" else {**right, "effective_parameters": gamma}


def _of_one_output(i: Values) -> Values:
    right = exact.effective_parameters(i)
    return {**right, "effective_parameters": right["effective_parameters"] / len(i["column_covariance"])}


def _complement(i: Values) -> Values:
    right = exact.effective_parameters(i)
    return {**right, "determined": 1 - right["determined"]}


def _row_prior_for_tau(i: Values) -> Values:
    return exact.effective_parameters({**i, "prior_precision": i["row_prior"]})


def _updates() -> list[Case]:
    out = []
    for s, (name, prior, gamma, most, mean) in enumerate(
        [
            ("independent", "independent", 5.5, 100.0, None),
            ("tied", "tied", 5.5, 100.0, None),
            ("count-capped", "independent", 7.5, 4.5, None),
            ("mean-zero", "independent", 2.0, 100.0, 0.0),
            ("nothing-determined", "independent", 0.0, 100.0, None),
            ("one-datum", "tied", 0.75, 0.875, None),
        ]
    ):
        numbers = Numbers(1160 + s)
        inputs = {
            "prior": prior,
            "mean": zeros(3, 2) if mean == 0.0 else numbers.matrix(3, 2),
            "step": numbers.spd(2, 0.25, 0.75),
            "prior_precision": 0.625,
            "effective_parameters": gamma,
            "most": most,
            "rate": 0.25,
            "bounds": BOUNDS,
        }
        out.append(Case(name, inputs, {"D": 3, "K": 2}))
    return out


def _update_with(target: Any = None, damped: Any = None, **change: Any) -> Any:
    """The update with changed inputs, another target γ/‖M‖², or another damping."""

    def wrong(i: Values) -> Values:
        i = {**i, **{n: f(i) for n, f in change.items()}}
        length = exact.prior_length(i["prior"], matrix(i["mean"]), matrix(i["step"]))
        gamma, low, high = min(i["effective_parameters"], i["most"]), i["bounds"]["low"], i["bounds"]["high"]
        ratio = gamma / length if length > 0 else high
        if target is not None and gamma > 0 and length > 0:
            ratio = target(gamma, length)
        ratio = min(max(ratio, low), high)
        tau, rate = i["prior_precision"], i["rate"]
        moved = tau ** (1 - rate) * ratio**rate if damped is None else damped(tau, ratio, rate)
        return {"prior_precision": moved}

    return wrong


OPERATIONS = (
    Operation(
        "kronecker_form",
        "A layer's posterior precision under either prior as Q ⊗ (U + πI).",
        {
            "eq:tied-prior": "π = λ, Q = B",
            "eq:kronecker-projection": "b = tr(BΣ)/tr(Σ), π = τ/b, Q = κB + (1 − κ)bI",
        },
        {
            "prior": PRIOR,
            "curvature": "B (K, K), positive semi-definite",
            "prior_precision": "τ or λ",
            "column_covariance": "Σ (K, K) of the last iteration",
            "determined": "κ of the last iteration",
        },
        {"row_prior": "π", "column_precision": "Q (K, K)"},
        exact.kronecker_form,
        _forms(),
        {
            "row-prior-multiplied": Mistake("eq:kronecker-projection", "π = τb for τ/b", _product),
            "share-swapped": Mistake(
                "eq:kronecker-projection", "κ and 1 − κ swapped", _form_with(determined=lambda i: 1 - i["determined"])
            ),
            "plain-mean": Mistake(
                "eq:kronecker-projection",
                "b = tr(B)/K, not weighted by Σ",
                _form_with(column_covariance=lambda i: eye(len(i["curvature"]))),
            ),
            "always-independent": Mistake(
                "eq:tied-prior",
                "the independent prior's form for the tied prior",
                _form_with(prior=lambda i: "independent"),
            ),
        },
    ),
    Operation(
        "effective_parameters",
        "How many input directions and parameters of a layer the data determine.",
        {
            "eq:determined-share": "κ = tr(U P⁻¹)/D = 1 − π tr(P⁻¹)/D, P = U + πI",
            "eq:effective-parameters": "γ = DK − tr(prior precision · posterior covariance), at least 0: "
            "independent DK − τ tr(P⁻¹) tr(Σ), tied KDκ",
        },
        {
            "prior": PRIOR,
            "gram": "U (D, D)",
            "row_prior": "π",
            "prior_precision": "τ or λ (= π)",
            "column_covariance": "Σ (K, K)",
        },
        {"determined": "κ", "effective_parameters": "γ"},
        exact.effective_parameters,
        _counts(),
        {
            "one-output-only": Mistake("eq:effective-parameters", "γ of one output, not of all K", _of_one_output),
            "complement": Mistake("eq:determined-share", "1 − κ for κ", _complement),
            "row-prior-for-precision": Mistake("eq:effective-parameters", "π for τ", _row_prior_for_tau),
            "negative": Mistake("eq:effective-parameters", "γ below 0 not set to 0", _unclipped),
        },
    ),
    Operation(
        "mackay",
        "The prior precision re-estimated by evidence.",
        {
            "eq:mackay": "τ^(1−β) t^β, t = min(γ, most)/‖M‖² within bounds (the upper one if M = 0); "
            "tied prior: ‖M‖² = tr(Σ⁻¹MᵀM)"
        },
        {
            "prior": PRIOR,
            "mean": "M (D, K)",
            "step": "Σ (K, K), the layer's noise covariance (S where that is of the step)",
            "prior_precision": "τ",
            "effective_parameters": "γ",
            "most": "the largest γ counted",
            "rate": "β",
            "bounds": "of the target t: {low, high}",
        },
        {"prior_precision": "the new τ"},
        exact.mackay,
        _updates(),
        {
            "inverted": Mistake("eq:mackay", "‖M‖²/γ for γ/‖M‖²", _update_with(lambda g, m: m / g)),
            "rate-swapped": Mistake("eq:mackay", "τ^β t^(1−β)", _update_with(rate=lambda i: 1 - i["rate"])),
            "not-in-logs": Mistake(
                "eq:mackay",
                "(1 − β)τ + βt: damped, but not in log space",
                _update_with(damped=lambda t, r, b: (1 - b) * t + b * r),
            ),
            "tied-norm-missing": Mistake(
                "eq:mackay", "tr(MᵀM) for the tied prior too", _update_with(step=lambda i: eye(len(i["step"])))
            ),
            "count-not-capped": Mistake(
                "eq:mackay", "γ above most", _update_with(most=lambda i: i["effective_parameters"])
            ),
            "norm-for-square": Mistake("eq:mackay", "‖M‖ for ‖M‖²", _update_with(lambda g, m: g / MP.sqrt(m))),
        },
    ),
)
