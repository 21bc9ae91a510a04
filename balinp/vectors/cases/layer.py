"""Cases of one layer's regression: sums over data, posterior, step form, evidence."""

from __future__ import annotations

from typing import Any

from ..reference import layer as exact
from ..reference.exact import MP, identity, inverse, kronecker, lists, log_det, matrix, trace, vec
from .kit import SHAPES, Case, Mistake, Numbers, Operation, Values, eye, gram, scaled, zeros

STATISTICS = "count ∑w_n, AᵀWA, AᵀWT, TᵀWT, ZᵀWZ with W = diag(w)"
SUMS = {
    "count": "∑ w_n",
    "gram": "AᵀA (D, D)",
    "cross": "AᵀT (D, K)",
    "target_gram": "TᵀT (K, K)",
    "curvature": "ZᵀZ (K, K), 0 without probes",
}
ROWS = {
    "D": "columns of inputs",
    "K": "columns of targets",
    "inputs": "A (N, D), the ones column included",
    "targets": "T (N, K)",
    "weights": "w (N,) or null: all 1",
    "probes": "Z (N, K) or null",
}


def _rows(seed: int, n: int, d: int, k: int, weights: bool = False, probes: bool = False) -> Values:
    numbers = Numbers(seed)
    return {
        "inputs": numbers.with_ones(n, d),
        "targets": numbers.matrix(n, k),
        "weights": [0.5 + v for v in numbers.integers(n, 3)] if weights else None,
        "probes": numbers.matrix(n, k) if probes else None,
    }


def _statistics_cases() -> list[Case]:
    out = []
    for i, (name, n, d, k, w, z) in enumerate(
        [
            ("rectangular", 5, 3, 2, False, False),
            ("square", 6, 3, 3, False, False),
            ("weighted", 5, 3, 2, True, False),
            ("probes", 5, 2, 3, True, True),
            ("one-unit", 4, 1, 1, False, True),
            ("one-datum", 1, 3, 2, True, True),
            ("no-data", 0, 3, 2, False, False),
        ]
    ):
        out.append(Case(name, {"D": d, "K": k, **_rows(i, n, d, k, w, z)}, {"N": n, "D": d, "K": k}))
    short = {"D": 3, "K": 2, **_rows(20, 5, 3, 2)}
    short["targets"] = short["targets"][:-1]
    out.append(Case("reject-row-counts", short, {"N": 5, "D": 3, "K": 2}, reject="shape"))
    negative = {"D": 3, "K": 2, **_rows(21, 4, 3, 2, True)}
    negative["weights"][1] = -1.0
    return [*out, Case("reject-negative-weight", negative, {"N": 4, "D": 3, "K": 2}, reject="value")]


def _weights(change: Any) -> Any:
    def wrong(i: Values) -> Values:
        return exact.statistics({**i, "weights": None if i["weights"] is None else [change(w) for w in i["weights"]]})

    return wrong


def _divided(i: Values) -> Values:
    right = exact.sums_of(i)
    count = right["count"] or MP.mpf(1)
    return exact.as_lists({name: v if name == "count" else v / count for name, v in right.items()})


def _transposed_cross(i: Values) -> Values:
    right = exact.sums_of(i)
    return exact.as_lists({**right, "cross": right["cross"].T})


def _loose_rows(i: Values, name: str) -> Values:
    return {**exact.statistics(i), name: exact.statistics({**i, "weights": None})[name]}


def _blocks() -> list[Case]:
    out = []
    for name, sizes in (("three-blocks", (2, 3, 1)), ("with-an-empty-block", (3, 0, 2)), ("one-row-blocks", (1, 1))):
        blocks = [_rows(100 + 10 * len(out) + b, n, 3, 2, True, True) for b, n in enumerate(sizes)]
        out.append(Case(name, {"D": 3, "K": 2, "blocks": blocks}, {"N": sum(sizes), "D": 3, "K": 2}))
    return out


def _mean_of_blocks(i: Values) -> Values:
    right = exact.block_sum(i)
    return exact.as_lists({n: v / len(i["blocks"]) for n, v in exact.as_matrices(right).items()})


def _ema() -> list[Case]:
    out = []
    for name, n, rate, total, w in (("mini-batch", 4, 0.25, 20.0, False), ("weighted", 3, 0.5, 12.0, True),
                                    ("forgets-all", 4, 1.0, 8.0, False), ("one-datum", 1, 0.125, 16.0, False)):  # fmt: skip
        numbers = Numbers(200 + len(out))
        old = {
            "count": 20.0,
            "gram": numbers.spd(3, 2.0),
            "cross": numbers.matrix(3, 2, 3.0),
            "target_gram": numbers.spd(2, 1.0),
            "curvature": numbers.spd(2, 1.0),
        }
        batch = _rows(210 + len(out), n, 3, 2, w, True)
        inputs = {"D": 3, "K": 2, "statistics": old, "batch": batch, "total": total, "rate": rate}
        out.append(Case(name, inputs, {"N": n, "D": 3, "K": 2}))
    return out


def _ema_with(old: Any, new: Any) -> Any:
    """A moving average with other factors of the old sums and of the batch's, from (β, N, m)."""

    def wrong(i: Values) -> Values:
        batch = exact.sums_of({**i, **i["batch"]})
        args = i["rate"], i["total"], batch["count"]
        return exact.as_lists(exact.combine(exact.as_matrices(i["statistics"]), batch, old(*args), new(*args)))

    return wrong


def _problem(seed: int, n: int, d: int, k: int) -> Values:
    numbers, rows = Numbers(seed), _rows(seed + 50, n, d, k)
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
        numbers, rows = Numbers(400 + s), _rows(450 + s, n, d, k)
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
        rows, problem = _rows(500 + s, n, d, k), _problem(550 + s, 1, d, k)
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
        "statistics",
        "The sums over the rows of one batch that a layer's regression needs.",
        {"eq:statistics": STATISTICS},
        ROWS,
        SUMS,
        exact.statistics,
        _statistics_cases(),
        {
            "cross-transposed": Mistake("eq:statistics", "TᵀA for AᵀT", _transposed_cross),
            "weights-ignored": Mistake("eq:statistics", "row weights left out", _weights(lambda w: MP.mpf(1))),
            "weights-squared": Mistake(
                "eq:statistics", "row weights squared: both factors carry w, not √w", _weights(lambda w: w * w)
            ),
            "weights-rooted": Mistake("eq:statistics", "√w for w", _weights(MP.sqrt)),
            "mean-for-sum": Mistake("eq:statistics", "means over rows in place of sums", _divided),
            "probes-unweighted": Mistake(
                "eq:statistics", "probes without the row weights", lambda i: _loose_rows(i, "curvature")
            ),
            "target-gram-unweighted": Mistake(
                "eq:statistics", "TᵀT without the row weights", lambda i: _loose_rows(i, "target_gram")
            ),
        },
    ),
    Operation(
        "block_sum",
        "The statistics of all rows from those of consecutive blocks of rows.",
        {"eq:block-sum": "statistics of all rows = the sum of the blocks'"},
        {"D": ROWS["D"], "K": ROWS["K"], "blocks": "list of {inputs, targets, weights, probes}"},
        SUMS,
        exact.block_sum,
        _blocks(),
        {
            "last-block-only": Mistake(
                "eq:block-sum",
                "sums overwritten by the last block",
                lambda i: exact.statistics({**i, **i["blocks"][-1]}),
            ),
            "mean-of-blocks": Mistake("eq:block-sum", "mean of the blocks in place of their sum", _mean_of_blocks),
        },
    ),
    Operation(
        "ema_step",
        "One step of the moving average: a batch of m rows (m the sum of weights) that stands for N.",
        {"eq:ema": "(1 − β)·old + β·(N/m)·new"},
        {
            "D": ROWS["D"],
            "K": ROWS["K"],
            "statistics": "the old sums",
            "batch": "{inputs, targets, weights, probes}",
            "total": "N",
            "rate": "β",
        },
        SUMS,
        exact.ema_step,
        _ema(),
        {
            "rate-swapped": Mistake(
                "eq:ema", "β·old + (1 − β)·new", _ema_with(lambda b, n, m: b, lambda b, n, m: (1 - b) * n / m)
            ),
            "batch-weight-missing": Mistake(
                "eq:ema", "the batch not scaled by N/m", _ema_with(lambda b, n, m: 1 - b, lambda b, n, m: b)
            ),
            "batch-weight-inverted": Mistake(
                "eq:ema", "m/N for N/m", _ema_with(lambda b, n, m: 1 - b, lambda b, n, m: b * m / n)
            ),
            "nothing-forgotten": Mistake(
                "eq:ema",
                "old + β·new: the old sums not decayed",
                _ema_with(lambda b, n, m: MP.mpf(1), lambda b, n, m: b * n / m),
            ),
        },
    ),
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
