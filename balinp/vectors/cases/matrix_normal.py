"""Cases of the matrix-normal distribution: density, entropy, KL, natural parameters, sampling, layer predictive."""

from __future__ import annotations

from typing import Any

from ..reference import layer as exact
from ..reference.exact import MP, identity, inverse, kronecker, lists, log_det, matrix, row, vec
from .kit import SHAPES, Case, Mistake, Numbers, Operation, Values, eye, scaled, zeros

NORMAL = {
    "mean": "M (D, K)",
    "row_precision": "P (D, D)",
    "column_covariance": "Σ (K, K); Cov(vec W) = Σ ⊗ P⁻¹, vec stacking columns",
}
WHY = "not positive definite"
INDEFINITE = [[1.0, 2.0], [2.0, 1.0]]


def _cases(seed: int, extra: Any = None, reject: tuple[str, ...] = ("rows", "columns")) -> list[Case]:
    """A case per shape, then an indefinite P and an indefinite Σ (where the operation has to factor them);
    ``extra(numbers, d, k)`` gives further inputs."""
    out = []
    for s, (name, (d, k)) in enumerate(SHAPES.items()):
        numbers = Numbers(seed + s)
        out.append(Case(name, {**numbers.posterior(d, k), **(extra(numbers, d, k) if extra else {})}, {"D": d, "K": k}))
    numbers, fields = Numbers(seed + 10), {"rows": "row_precision", "columns": "column_covariance"}
    good = {**numbers.posterior(2, 2), **(extra(numbers, 2, 2) if extra else {})}
    for name in reject:
        bad = {**good, fields[name]: INDEFINITE}
        out.append(Case(f"reject-indefinite-{name}", bad, {"D": 2, "K": 2}, reject=WHY))
    return out


def _densities() -> list[Case]:
    out = _cases(600, lambda numbers, d, k: {"w": numbers.matrix(d, k)})
    numbers, small = Numbers(620), 2.0**-25
    wide = {**numbers.posterior(4, 2), "w": scaled(numbers.matrix(4, 2), small), "mean": zeros(4, 2)}
    wide["row_precision"] = scaled(wide["row_precision"], 2.0**50)  # det P = 2^200 …: no float32
    out.insert(3, Case("float32-determinant", wide, {"D": 4, "K": 2}))
    nan: Any = {**Numbers(621).posterior(2, 2), "w": zeros(2, 2)}
    nan["row_precision"][0][0] = "NaN"
    wrong = {**Numbers(622).posterior(3, 2), "w": zeros(3, 2), "row_precision": eye(2)}
    return [*out, Case("reject-nan", nan, {"D": 2, "K": 2}, reject="not finite"),
            Case("reject-shape", wrong, {"D": 3, "K": 2}, reject="shape")]  # fmt: skip


def _parts(i: Values) -> tuple[Any, Any, Any, int, int]:
    M, P, S = (matrix(i[name]) for name in NORMAL)
    return M, P, S, M.rows, M.cols


def _log_terms(i: Values, change: str) -> tuple[Any, Any]:
    """(log|Cov|, DK log 2π) with a mistake in one of them."""
    _, P, S, d, k = _parts(i)
    a, b, normaliser = d * log_det(S), k * log_det(P), d * k * MP.log(2 * MP.pi)
    if change == "order":
        a, b = k * log_det(S), d * log_det(P)
    if change == "sign":
        a, b = -a, -b
    if change == "halved":
        a, b = a / 2, b / 2
    if change == "base":
        a, b, normaliser = (v / MP.log(2) for v in (a, b, normaliser))
    return a - b, normaliser * (0 if change == "normaliser" else 1)


def _density_with(change: str) -> Any:
    def wrong(i: Values) -> Values:
        mean, covariance = exact.dense(i)
        difference = vec(matrix(i["w"])) - mean
        W = covariance if change == "covariance" else inverse(covariance)
        log_det_, normaliser = _log_terms(i, change)
        return {"log_density": -((difference.T * W * difference)[0] + log_det_ + normaliser) / 2}

    return wrong


def _overflowing(i: Values) -> Values:
    det = MP.det(matrix(i["row_precision"]))
    return exact.log_density(i) if det < MP.mpf(2) ** 128 else {"log_density": MP.inf}


def _entropy_with(change: str) -> Any:
    def wrong(i: Values) -> Values:
        total, normaliser = _log_terms(i, change)
        _, _, _, d, k = _parts(i)
        return {"log_determinant": total, "entropy": (d * k * (0 if change == "one" else 1) + normaliser + total) / 2}

    return wrong


def _pairs() -> list[Case]:
    out = []
    for s, (name, (d, k)) in enumerate(SHAPES.items()):
        numbers = Numbers(700 + s)
        out.append(Case(name, {"first": numbers.posterior(d, k), "second": numbers.posterior(d, k)}, {"D": d, "K": k}))
    same = Numbers(710).posterior(3, 2)
    out.append(Case("itself", {"first": same, "second": same}, {"D": 3, "K": 2}, {"kl_divergence": 6.0}))
    other = {"first": Numbers(711).posterior(3, 2), "second": Numbers(712).posterior(2, 2)}
    return [*out, Case("reject-shape", other, {"D": 3, "K": 2}, reject="shape")]


def _swapped(i: Values) -> Values:
    return exact.kl_divergence({"first": i["second"], "second": i["first"]})


def _kl_without(terms: str) -> Any:
    def wrong(i: Values) -> Values:
        (m1, V1), (m2, V2) = exact.dense(i["first"]), exact.dense(i["second"])
        right = exact.kl_divergence(i)["kl_divergence"]
        W = inverse(V2)
        part = {
            "count": MP.mpf(-m1.rows),
            "distance": ((m1 - m2).T * W * (m1 - m2))[0],
            "determinants": log_det(V2) - log_det(V1),
        }[terms]
        return {"kl_divergence": right - part / 2}

    return wrong


def _kronecker_swapped(i: Values) -> Values:
    _, P, S, _, _ = _parts(i)
    return {**exact.natural_parameters(i), "precision": lists(kronecker(P, inverse(S)))}


def _linear_with(change: str) -> Any:
    def wrong(i: Values) -> Values:
        M, P, S, _, _ = _parts(i)
        linear = M * inverse(S) if change == "rows" else P * M
        return {**exact.natural_parameters(i), "linear": lists(linear)}

    return wrong


def _covariance(i: Values) -> Values:
    return {**exact.natural_parameters(i), "precision": lists(exact.dense(i)[1])}


def _sampled_with(left: Any, right: Any) -> Any:
    """M + left(P) z right(Σ)."""

    def wrong(i: Values) -> Values:
        M, P, S, _, _ = _parts(i)
        return {"weights": [lists(M + left(P) * matrix(z) * right(S)) for z in i["draws"]]}

    return wrong


def _rooted_rows(P: Any) -> Any:
    return inverse(MP.cholesky(P).T)


def _predicted_with(row_variance: Any, columns: Any) -> Any:
    def wrong(i: Values) -> Values:
        M, P, S, _, _ = _parts(i)
        A = matrix(i["inputs"])
        rows = [row(A, n) for n in range(A.rows)]
        return {"mean": lists(A * M), "covariance": [lists(row_variance(a, P) * columns(S)) for a in rows]}

    return wrong


LOGS = {
    "order": "Kronecker order: K log|Σ| and D log|P| swapped",
    "sign": "log determinant of the precision for that of the covariance",
    "halved": "log determinant halved: log|L| for log|L Lᵀ|",
    "base": "logarithms to base 2, not nats",
}
OPERATIONS = (
    Operation(
        "log_density",
        "log p(W) of a matrix-normal, in nats.",
        {"eq:log-density": "−½[tr(Σ⁻¹(W−M)ᵀP(W−M)) + DK log 2π + D log|Σ| − K log|P|]"},
        {**NORMAL, "w": "W (D, K)"},
        {"log_density": "a number"},
        exact.log_density,
        _densities(),
        {
            **{f"log-determinant-{n}": Mistake("eq:log-density", t, _density_with(n)) for n, t in LOGS.items()},
            "determinant-overflows": Mistake(
                "eq:log-density", "log of a determinant that overflows float32, for a sum of logs", _overflowing
            ),
            "normaliser-missing": Mistake("eq:log-density", "DK log 2π left out", _density_with("normaliser")),
            "covariance-for-precision": Mistake(
                "eq:log-density", "distance measured by the covariance", _density_with("covariance")
            ),
        },
    ),
    Operation(
        "entropy",
        "log|Cov(vec W)| and the entropy of a matrix-normal, in nats.",
        {"eq:log-determinant": "D log|Σ| − K log|P|", "eq:entropy": "½[DK(1 + log 2π) + log|Cov|]"},
        NORMAL,
        {"log_determinant": "log|Cov|", "entropy": "a number"},
        exact.entropy,
        _cases(640),
        {
            **{f"log-determinant-{n}": Mistake("eq:log-determinant", t, _entropy_with(n)) for n, t in LOGS.items()},
            "one-forgotten": Mistake("eq:entropy", "DK log 2π for DK(1 + log 2π)", _entropy_with("one")),
        },
    ),
    Operation(
        "kl_divergence",
        "KL(first ‖ second) of two matrix-normals, in nats.",
        {"eq:kl": "½[tr(P₂P₁⁻¹) tr(Σ₂⁻¹Σ₁) + tr(Σ₂⁻¹(M₁−M₂)ᵀP₂(M₁−M₂)) − DK + log|Cov₂| − log|Cov₁|]"},
        {"first": "{mean, row_precision, column_covariance}", "second": "the same"},
        {"kl_divergence": "a number"},
        exact.kl_divergence,
        _pairs(),
        {
            "reversed": Mistake("eq:kl", "KL(second ‖ first)", _swapped),
            "count-missing": Mistake("eq:kl", "− DK left out", _kl_without("count")),
            "distance-missing": Mistake("eq:kl", "the distance of the means left out", _kl_without("distance")),
            "determinants-missing": Mistake("eq:kl", "the log determinants left out", _kl_without("determinants")),
        },
    ),
    Operation(
        "natural_parameters",
        "The precision of vec W (columns stacked) and the linear term of a matrix-normal.",
        {"eq:natural-parameters": "precision Σ⁻¹ ⊗ P, linear term P M Σ⁻¹"},
        NORMAL,
        {"precision": "Σ⁻¹ ⊗ P (DK, DK)", "linear": "P M Σ⁻¹ (D, K)"},
        exact.natural_parameters,
        _cases(660, reject=("columns",)),
        {
            "kronecker-order": Mistake(
                "eq:natural-parameters", "P ⊗ Σ⁻¹: rows stacked, not columns", _kronecker_swapped
            ),
            "covariance-for-precision": Mistake("eq:natural-parameters", "Σ ⊗ P⁻¹ given", _covariance),
            "linear-without-rows": Mistake("eq:natural-parameters", "M Σ⁻¹ for P M Σ⁻¹", _linear_with("rows")),
            "linear-without-columns": Mistake("eq:natural-parameters", "P M for P M Σ⁻¹", _linear_with("columns")),
        },
    ),
    Operation(
        "sampling",
        "Weights from given standard-normal draws, with the lower Cholesky factors P = L Lᵀ and Σ = R Rᵀ.",
        {"eq:sampling": "W = M + L⁻ᵀ z Rᵀ"},
        {**NORMAL, "draws": "z (S, D, K)"},
        {"weights": "W (S, D, K)"},
        exact.sampling,
        _cases(680, lambda numbers, d, k: {"draws": [numbers.matrix(d, k) for _ in range(2)]}),
        {
            "variance-for-deviation": Mistake(
                "eq:sampling", "Σ for its root R", _sampled_with(_rooted_rows, lambda S: S)
            ),
            "column-factor-transposed": Mistake(
                "eq:sampling", "z R for z Rᵀ", _sampled_with(_rooted_rows, MP.cholesky)
            ),
            "row-factor-not-transposed": Mistake(
                "eq:sampling",
                "L⁻¹ for L⁻ᵀ",
                _sampled_with(lambda P: inverse(MP.cholesky(P)), lambda S: MP.cholesky(S).T),
            ),
            "precision-for-covariance": Mistake(
                "eq:sampling", "L z for L⁻ᵀ z", _sampled_with(MP.cholesky, lambda S: MP.cholesky(S).T)
            ),
            "factor-of-inverse": Mistake(
                "eq:sampling",
                "the lower factor of P⁻¹ for L⁻ᵀ: right in law, not for these draws",
                _sampled_with(lambda P: MP.cholesky(inverse(P)), lambda S: MP.cholesky(S).T),
            ),
        },
    ),
    Operation(
        "layer_predictive",
        "Mean and covariance of a W for rows a.",
        {"eq:layer-predictive": "a W ~ N(a M, (a P⁻¹ aᵀ) Σ)"},
        {**NORMAL, "inputs": "a (n, D)"},
        {"mean": "(n, K)", "covariance": "(n, K, K)"},
        exact.layer_predictive,
        _cases(690, lambda numbers, d, k: {"inputs": numbers.matrix(3, d)}, reject=("rows",)),
        {
            "deviation-for-variance": Mistake(
                "eq:layer-predictive",
                "√(a P⁻¹ aᵀ) for a P⁻¹ aᵀ",
                _predicted_with(lambda a, P: MP.sqrt((a * inverse(P) * a.T)[0]), lambda S: S),
            ),
            "precision-for-covariance": Mistake(
                "eq:layer-predictive",
                "a P aᵀ for a P⁻¹ aᵀ",
                _predicted_with(lambda a, P: (a * P * a.T)[0], lambda S: S),
            ),
            "columns-missing": Mistake(
                "eq:layer-predictive",
                "I for Σ",
                _predicted_with(lambda a, P: (a * inverse(P) * a.T)[0], lambda S: identity(S.rows)),
            ),
        },
    ),
)
