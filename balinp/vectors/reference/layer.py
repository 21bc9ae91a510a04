"""One layer in dense 50-digit arithmetic: statistics, posterior, matrix-normal, evidence, predictive."""

from __future__ import annotations

from typing import Any

from .exact import (
    MP,
    Matrix,
    Number,
    identity,
    inverse,
    kronecker,
    lists,
    log_det,
    matrix,
    row,
    trace,
    unvec,
    vec,
)

Values = dict[str, Any]
SUMS = ("count", "gram", "cross", "target_gram", "curvature")


# --- sums over data ---------------------------------------------------------------------------------------------------
def sums_of(i: Values) -> Values:
    """count, AᵀA, AᵀT, TᵀT, ZᵀZ row n weighted by w_n; matrices."""
    d, k = i["D"], i["K"]
    A, T = matrix(i["inputs"], d), matrix(i["targets"], k)
    w = i.get("weights") or [MP.mpf(1)] * A.rows
    Z = matrix(i["probes"], k) if i.get("probes") is not None else MP.matrix(A.rows, k)
    WA, WT, WZ = (MP.matrix([[v * b for b in row(B, n)] for n, v in enumerate(w)]) if w else B for B in (A, T, Z))
    sums = {"gram": A.T * WA, "cross": A.T * WT, "target_gram": T.T * WT, "curvature": Z.T * WZ}
    return {"count": sum(w, MP.mpf(0)), **sums}


def as_lists(sums: Values) -> Values:
    """The same sums, matrices as nested lists."""
    return {name: lists(v) if hasattr(v, "rows") else v for name, v in sums.items()}


def as_matrices(sums: Values) -> Values:
    """The same sums, nested lists as matrices."""
    return {name: matrix(v) if isinstance(v, list) else v for name, v in sums.items()}


def combine(a: Values, b: Values, left: Number, right: Number) -> Values:
    """left · a + right · b, name by name."""
    return {name: left * a[name] + right * b[name] for name in SUMS}


def statistics(i: Values) -> Values:
    """eq:statistics"""
    return as_lists(sums_of(i))


def block_sum(i: Values) -> Values:
    """eq:block-sum"""
    total = sums_of({**i, **i["blocks"][0]})
    for block in i["blocks"][1:]:
        total = combine(total, sums_of({**i, **block}), MP.mpf(1), MP.mpf(1))
    return as_lists(total)


def ema_step(i: Values) -> Values:
    """eq:ema  (1 − β)·old + β·(N/m)·new, m the weights' sum."""
    batch = sums_of({**i, **i["batch"]})
    return as_lists(
        combine(as_matrices(i["statistics"]), batch, 1 - i["rate"], i["rate"] * i["total"] / batch["count"])
    )


# --- regression -------------------------------------------------------------------------------------------------------
def layer_posterior(i: Values) -> Values:
    """eq:layer-posterior, as a Gaussian over vec W: precision Σ⁻¹ ⊗ P, linear term vec((Λ₀M₀ + C)Σ⁻¹)."""
    U, C, M0, prior, S = (
        matrix(i[name]) for name in ("gram", "cross", "prior_mean", "prior_precision", "noise_covariance")
    )
    Q = inverse(S)
    precision = kronecker(Q, U) + kronecker(Q, prior)
    linear = vec(prior * M0 * Q) + vec(C * Q)
    return {"mean": lists(unvec(inverse(precision) * linear, U.rows)), "row_precision": lists(U + prior)}


def step_form(i: Values) -> Values:
    """eq:step-form  M⁺ = M − η P⁻¹(w AᵀG S + Λ₀(M − M₀)), P = U + Λ₀."""
    M, U, A, G, S, M0, prior = (
        matrix(i[name]) for name in ("mean", "gram", "inputs", "gradients", "step", "prior_mean", "prior_precision")
    )
    delta = -inverse(U + prior) * (i["weight"] * (A.T * G * S) + prior * (M - M0))
    return {"mean": lists(M + i["scale"] * delta)}


def log_evidence(i: Values) -> Values:
    """eq:log-evidence, densely: vec T ~ N(vec(A M₀), Σ ⊗ (I + A Λ₀⁻¹ Aᵀ))."""
    M0, prior, S = (matrix(i[name]) for name in ("prior_mean", "prior_precision", "noise_covariance"))
    A, T = matrix(i["inputs"], M0.rows), matrix(i["targets"], M0.cols)
    if not A.rows:
        return {"log_evidence": MP.mpf(0)}
    covariance = kronecker(S, identity(A.rows) + A * inverse(prior) * A.T)
    return {"log_evidence": normal_log_density(vec(T - A * M0), covariance)}


def evidence_of_sums(s: Values, M0: Matrix, prior: Matrix, S: Matrix) -> Number:
    """The same from sums, which may be moving averages: by the determinant lemma and Woodbury's identity."""
    P, right, k = prior + s["gram"], prior * M0 + s["cross"], M0.cols
    square = s["target_gram"] + M0.T * prior * M0 - right.T * inverse(P) * right
    normaliser = s["count"] * (k * MP.log(2 * MP.pi) + log_det(S)) + k * (log_det(P) - log_det(prior))
    return -(normaliser + trace(inverse(S) * square)) / 2


# --- the matrix-normal as the Gaussian of vec W -----------------------------------------------------------------------
def normal_log_density(difference: Matrix, covariance: Matrix) -> Number:
    """log N(difference | 0, covariance)."""
    square = (difference.T * inverse(covariance) * difference)[0]
    return -(square + difference.rows * MP.log(2 * MP.pi) + log_det(covariance)) / 2


def dense(i: Values) -> tuple[Matrix, Matrix]:
    """(vec M, Σ ⊗ P⁻¹)."""
    return vec(matrix(i["mean"])), kronecker(matrix(i["column_covariance"]), inverse(matrix(i["row_precision"])))


def log_density(i: Values) -> Values:
    """eq:log-density"""
    mean, covariance = dense(i)
    return {"log_density": normal_log_density(vec(matrix(i["w"])) - mean, covariance)}


def entropy(i: Values) -> Values:
    """eq:log-determinant, eq:entropy"""
    covariance = dense(i)[1]
    total = log_det(covariance)
    return {"log_determinant": total, "entropy": (covariance.rows * (1 + MP.log(2 * MP.pi)) + total) / 2}


def kl_divergence(i: Values) -> Values:
    """eq:kl  between the Gaussians of vec W."""
    (m1, V1), (m2, V2) = dense(i["first"]), dense(i["second"])
    W = inverse(V2)
    square = ((m1 - m2).T * W * (m1 - m2))[0]
    return {"kl_divergence": (trace(W * V1) + square - m1.rows + log_det(V2) - log_det(V1)) / 2}


def natural_parameters(i: Values) -> Values:
    """eq:natural-parameters  the precision of vec W and its linear term."""
    mean, covariance = dense(i)
    precision = inverse(covariance)
    return {"precision": lists(precision), "linear": lists(unvec(precision * mean, len(i["mean"])))}


def sample(M: Matrix, P: Matrix, S: Matrix, z: Matrix) -> Matrix:
    """M + L⁻ᵀ z Rᵀ with P = L Lᵀ and Σ = R Rᵀ, L and R lower triangular."""
    return M + inverse(MP.cholesky(P).T) * z * MP.cholesky(S).T


def sampling(i: Values) -> Values:
    """eq:sampling"""
    M, P, S = (matrix(i[name]) for name in ("mean", "row_precision", "column_covariance"))
    return {"weights": [lists(sample(M, P, S, matrix(z))) for z in i["draws"]]}


def layer_predictive(i: Values) -> Values:
    """eq:layer-predictive  vec(a W) = (I ⊗ a) vec W."""
    mean, covariance = dense(i)
    A, k = matrix(i["inputs"]), len(i["column_covariance"])
    means, covariances = [], []
    for n in range(A.rows):
        F = kronecker(identity(k), row(A, n))
        means.append(list(F * mean))
        covariances.append(lists(F * covariance * F.T))
    return {"mean": means, "covariance": covariances}
