"""Cases of one layer's regression: posterior, step form, evidence."""

from __future__ import annotations

from typing import Any

from ..reference import layer as exact
from ..reference.exact import MP, identity, inverse, kronecker, lists, log_det, matrix, trace, vec
from .kit import SHAPES, Case, Mistake, Numbers, Operation, Values, eye, gram, scaled, zeros
from .sums import rows_of


def _problem(seed: int, n: int, d: int, k: int) -> Values:
    numbers, rows = Numbers(seed), rows_of(seed + 50, n, d, k)
    return {
        "gram": gram(rows["inputs"], rows["inputs"], (d, d)),
        "cross": gram(rows["inputs"], rows["targets"], (d, k)),
        "prior_mean": numbers.matrix(d, k),
        "prior_precision": numbers.spd(d, 1.0, 0.5),
        "noise_covariance": numbers.spd(k, 0.25, 0.75),
    }


def _posteriors() -> list[Case]:
    out = []
    for s, (name, (d, k)) in enumerate(SHAPES.items()):
        out.append(Case(name, _problem(300 + s, 6, d, k), {"N": 6, "D": d, "K": k}))
    shapes = {"N": 6, "D": 3, "K": 2}
    out.append(Case("one-datum", _problem(310, 1, 3, 2), {**shapes, "N": 1}))
    out.append(Case("no-data", _problem(311, 0, 3, 2), {**shapes, "N": 0}))
    out.append(Case("prior-mean-zero", {**_problem(312, 6, 3, 2), "prior_mean": zeros(3, 2)}, shapes))
    hard = _problem(313, 6, 3, 2)
    hard["gram"][0][0] += 4096.0
    out.append(Case("ill-conditioned", {**hard, "prior_precision": eye(3, 0.125)}, shapes))
    huge = _problem(314, 6, 3, 2)
    for name, factor in (("gram", 2.0**60), ("cross", 2.0**60), ("prior_precision", 2.0**60)):
        huge[name] = scaled(huge[name], factor)
    out.append(Case("float32-large", huge, shapes))
    bad = {**_problem(315, 6, 3, 2), "prior_precision": eye(3, -32.0)}
    out.append(Case("reject-indefinite", bad, shapes, reject="not positive definite"))
    for field in ("gram", "cross"):
        nan: Any = _problem(316, 6, 3, 2)
        nan[field][1][1] = "NaN"
        out.append(Case(f"reject-nan-{field}", nan, shapes, reject="not finite"))
    short = _problem(317, 6, 3, 2)
    return [*out, Case("reject-shape", {**short, "prior_mean": short["prior_mean"][:2]}, shapes, reject="shape")]


def _posterior_with(precision: Any, right: Any) -> Any:
    """A posterior with another precision from (U, Λ₀, Σ) and another right side from (C, Λ₀, M₀)."""

    def wrong(i: Values) -> Values:
        U, C, M0, prior, S = (
            matrix(i[n]) for n in ("gram", "cross", "prior_mean", "prior_precision", "noise_covariance")
        )
        P = precision(U, prior, S)
        return {"mean": lists(inverse(P) * right(C, prior, M0)), "row_precision": lists(P)}

    return wrong


def _covariance_given(i: Values) -> Values:
    right = exact.layer_posterior(i)
    return {**right, "row_precision": lists(inverse(matrix(right["row_precision"])))}


def _steps() -> list[Case]:
    out = []
    for s, (name, (d, k), n) in enumerate(
        [(n, s, 5) for n, s in SHAPES.items()] + [("one-datum", (3, 2), 1), ("square-again", (2, 2), 4)]
    ):
        numbers, rows = Numbers(400 + s), rows_of(450 + s, n, d, k)
        inputs = {
            "mean": numbers.matrix(d, k),
            "gram": numbers.spd(d, 2.0),
            "inputs": rows["inputs"],
            "gradients": rows["targets"],
            "weight": 4.0,
            "step": numbers.spd(k, 0.25, 0.75),
            "prior_mean": numbers.matrix(d, k) if s % 2 == 0 else zeros(d, k),
            "prior_precision": numbers.spd(d, 1.0, 0.5),
            "scale": 0.25 if s != 1 else 1.0,
        }
        out.append(Case(name, inputs, {"N": n, "D": d, "K": k}))
    return out


def _stepped(change: Values) -> Any:
    return lambda i: exact.step_form({**i, **{n: f(i) for n, f in change.items()}})


def _negative(rows: Any) -> Any:
    return lists(-matrix(rows))


def _evidences() -> list[Case]:
    out, needed = [], ("prior_mean", "prior_precision", "noise_covariance")
    for s, (name, (d, k), n) in enumerate(
        [(n, s, 5) for n, s in SHAPES.items()] + [("one-datum", (3, 2), 1), ("no-data", (3, 2), 0)]
    ):
        rows, problem = rows_of(500 + s, n, d, k), _problem(550 + s, 1, d, k)
        inputs = {"inputs": rows["inputs"], "targets": rows["targets"], **{m: problem[m] for m in needed}}
        scale = {} if n else {"log_evidence": 20.0}  # 0, as the difference of terms of this size
        out.append(Case(name, inputs, {"N": n, "D": d, "K": k}, scale))
    bad = {**out[0].inputs, "prior_precision": eye(4, -1.0)}
    bad_noise = {**out[0].inputs, "noise_covariance": [[1.0, 2.0], [2.0, 1.0]]}
    shapes, why = {"N": 5, "D": 4, "K": 2}, "not positive definite"
    return [*out, Case("reject-indefinite-prior", bad, shapes, reject=why),
            Case("reject-indefinite-noise", bad_noise, shapes, reject=why)]  # fmt: skip


def _evidence_with(prior_sign: int = 1, square_sign: int = 1, noise: float = 1.0, base: Any = None) -> Any:
    """The closed form with a changed sign, a factor of log|Σ|, or logarithms to another base."""

    def wrong(i: Values) -> Values:
        M0, prior, S = (matrix(i[n]) for n in ("prior_mean", "prior_precision", "noise_covariance"))
        A, T = matrix(i["inputs"], M0.rows), matrix(i["targets"], M0.cols)
        P, right = prior + A.T * A, prior * M0 + A.T * T
        square = T.T * T + M0.T * prior * M0 - square_sign * right.T * inverse(P) * right
        unit = 1 if base is None else 1 / MP.log(base)
        logs = A.rows * (M0.cols * MP.log(2 * MP.pi) + noise * log_det(S))
        logs += M0.cols * (log_det(P) - prior_sign * log_det(prior))
        return {"log_evidence": -(unit * logs + trace(inverse(S) * square)) / 2}

    return wrong


def _noise_once(i: Values) -> Values:
    """Cov(vec T) taken as Σ ⊗ A Λ₀⁻¹ Aᵀ + I."""
    M0, prior, S = (matrix(i[n]) for n in ("prior_mean", "prior_precision", "noise_covariance"))
    A, T = matrix(i["inputs"], M0.rows), matrix(i["targets"], M0.cols)
    if not A.rows:
        return {"log_evidence": MP.mpf(0)}
    V = kronecker(S, A * inverse(prior) * A.T) + identity(A.rows * M0.cols)
    return {"log_evidence": exact.normal_log_density(vec(T - A * M0), V)}


OPERATIONS = (
    Operation(
        "layer_posterior",
        "The exact posterior MN(M, P⁻¹, Σ) of one layer's weights given its regression statistics.",
        {"eq:layer-posterior": "P = Λ₀ + AᵀA, M = P⁻¹(Λ₀M₀ + AᵀT)"},
        {
            "gram": "AᵀA (D, D)",
            "cross": "AᵀT (D, K)",
            "prior_mean": "M₀ (D, K)",
            "prior_precision": "Λ₀ (D, D)",
            "noise_covariance": "Σ (K, K)",
        },
        {"mean": "M (D, K)", "row_precision": "P (D, D)"},
        exact.layer_posterior,
        _posteriors(),
        {
            "prior-mean-dropped": Mistake(
                "eq:layer-posterior",
                "Λ₀M₀ missing from the right side",
                _posterior_with(lambda U, p, S: U + p, lambda C, p, m: C),
            ),
            "prior-mean-unscaled": Mistake(
                "eq:layer-posterior", "M₀ for Λ₀M₀", _posterior_with(lambda U, p, S: U + p, lambda C, p, m: C + m)
            ),
            "data-counted-twice": Mistake(
                "eq:layer-posterior",
                "AᵀA counted twice in P",
                _posterior_with(lambda U, p, S: 2 * U + p, lambda C, p, m: C + p * m),
            ),
            "noise-counted-twice": Mistake(
                "eq:layer-posterior",
                "AᵀA and AᵀT divided by the noise: Σ is in the columns already",
                _posterior_with(lambda U, p, S: U / S[0, 0] + p, lambda C, p, m: C + p * m),
            ),
            "prior-covariance": Mistake(
                "eq:layer-posterior",
                "Λ₀⁻¹ for Λ₀",
                _posterior_with(lambda U, p, S: U + inverse(p), lambda C, p, m: C + inverse(p) * m),
            ),
            "covariance-for-precision": Mistake("eq:layer-posterior", "P⁻¹ given as P", _covariance_given),
        },
    ),
    Operation(
        "step_form",
        "The posterior mean as a step from the present mean, which loses no digits in float32.",
        {"eq:step-form": "M⁺ = M − η P⁻¹(w AᵀG S + Λ₀(M − M₀)), P = U + Λ₀"},
        {
            "mean": "M (D, K)",
            "gram": "U (D, D)",
            "inputs": "A (N, D)",
            "gradients": "G (N, K)",
            "weight": "w = N/m",
            "step": "S (K, K)",
            "prior_mean": "M₀ (D, K)",
            "prior_precision": "Λ₀ (D, D)",
            "scale": "η",
        },
        {"mean": "M⁺ (D, K)"},
        exact.step_form,
        _steps(),
        {
            "gradient-sign": Mistake(
                "eq:step-form", "+G for −G", _stepped({"gradients": lambda i: _negative(i["gradients"])})
            ),
            "batch-weight-missing": Mistake(
                "eq:step-form", "the factor N/m left out", _stepped({"weight": lambda i: MP.mpf(1)})
            ),
            "step-missing": Mistake("eq:step-form", "S left out", _stepped({"step": lambda i: eye(len(i["step"]))})),
            "step-inverted": Mistake(
                "eq:step-form", "S⁻¹ for S", _stepped({"step": lambda i: lists(inverse(matrix(i["step"])))})
            ),
            "prior-mean-dropped": Mistake(
                "eq:step-form",
                "Λ₀M for Λ₀(M − M₀)",
                _stepped({"prior_mean": lambda i: lists(0 * matrix(i["prior_mean"]))}),
            ),
            "prior-pushes": Mistake(
                "eq:step-form",
                "the prior's pull with the wrong sign",
                _stepped({"prior_mean": lambda i: lists(2 * matrix(i["mean"]) - matrix(i["prior_mean"]))}),
            ),
            "scale-ignored": Mistake(
                "eq:step-form", "the whole step taken, η left out", _stepped({"scale": lambda i: MP.mpf(1)})
            ),
            "step-for-new-mean": Mistake(
                "eq:step-form",
                "the step given in place of the new mean",
                lambda i: {"mean": lists(matrix(exact.step_form(i)["mean"]) - matrix(i["mean"]))},
            ),
        },
    ),
    Operation(
        "log_evidence",
        "The log density of a layer's targets with the weights integrated out, in nats.",
        {"eq:log-evidence": "log p(T), T ~ MN(A M₀, I + A Λ₀⁻¹ Aᵀ, Σ)"},
        {
            "inputs": "A (N, D)",
            "targets": "T (N, K)",
            "prior_mean": "M₀ (D, K)",
            "prior_precision": "Λ₀ (D, D)",
            "noise_covariance": "Σ (K, K)",
        },
        {"log_evidence": "a number"},
        exact.log_evidence,
        _evidences(),
        {
            "prior-determinant-sign": Mistake("eq:log-evidence", "log|Λ₀| with the wrong sign", _evidence_with(-1)),
            "square-sign": Mistake("eq:log-evidence", "MᵀPM with the wrong sign", _evidence_with(square_sign=-1)),
            "noise-determinant-halved": Mistake("eq:log-evidence", "log|Σ| halved", _evidence_with(noise=0.5)),
            "base-ten": Mistake("eq:log-evidence", "logarithms to base 10, not nats", _evidence_with(base=10)),
            "noise-outside": Mistake("eq:log-evidence", "noise I, not Σ, for every row", _noise_once),
            "prior-mean-dropped": Mistake(
                "eq:log-evidence",
                "M₀ taken as 0",
                lambda i: exact.log_evidence({**i, "prior_mean": lists(0 * matrix(i["prior_mean"]))}),
            ),
        },
    ),
)
