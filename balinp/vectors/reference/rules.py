"""What is a choice of ours and may change between versions: a layer's Kronecker form under either prior, what the data
say about the prior precision, tempering, the noise update. To change a rule here: edit it, ``balinp vectors generate``.
"""

from __future__ import annotations

from typing import Any

from .exact import MP, Matrix, Number, identity, inverse, kronecker, lists, matrix, row, squares, trace
from .layer import sample
from .network import bound, variances

Values = dict[str, Any]


def kronecker_terms(prior: str, B: Matrix, tau: Number, sigma: Matrix, determined: Number) -> tuple[Number, Matrix]:
    """(π, Q) of the posterior precision Q ⊗ (U + πI); Σ and κ (``determined``) are the last iteration's.

    eq:tied-prior: π = λ, Q = B. eq:kronecker-projection: b = tr(BΣ)/tr(Σ), π = τ/b, Q = κB + (1 − κ)bI.
    """
    if prior == "tied":
        return tau, B
    b = trace(B * sigma) / trace(sigma)
    return tau / b, determined * B + identity(B.rows, (1 - determined) * b)


def kronecker_form(i: Values) -> Values:
    """eq:tied-prior, eq:kronecker-projection"""
    B, sigma = matrix(i["curvature"]), matrix(i["column_covariance"])
    pi, Q = kronecker_terms(i["prior"], B, i["prior_precision"], sigma, i["determined"])
    return {"row_prior": pi, "column_precision": lists(Q)}


def counts(prior: str, U: Matrix, pi: Number, tau: Number, sigma: Matrix) -> tuple[Number, Number]:
    """(κ, γ).   eq:determined-share: κ = tr(U P⁻¹)/D; eq:effective-parameters: γ = DK − tr(prior precision · Cov)."""
    d, k = U.rows, sigma.rows
    rows = inverse(U + identity(d, pi))
    precision = kronecker(inverse(sigma), identity(d, pi)) if prior == "tied" else identity(d * k, tau)
    gamma = d * k - sum(a * b for a, b in zip(precision, kronecker(sigma, rows), strict=True))  # both are symmetric
    return trace(U * rows) / d, gamma if gamma > 0 else MP.mpf(0)


def effective_parameters(i: Values) -> Values:
    """eq:determined-share, eq:effective-parameters"""
    sigma = matrix(i["column_covariance"])
    kappa, gamma = counts(i["prior"], matrix(i["gram"]), i["row_prior"], i["prior_precision"], sigma)
    return {"determined": kappa, "effective_parameters": gamma}


def prior_length(prior: str, M: Matrix, S: Matrix) -> Number:
    """‖M‖² as the prior measures it: tr(MᵀM), or tr(S⁻¹MᵀM) for the tied one."""
    return squares(M) if prior == "independent" else trace(inverse(S) * M.T * M)


def mackay_update(tau: Number, gamma: Number, length: Number, rate: Number, bounds: Values) -> Number:
    """eq:mackay  τ ← τ^(1−β) (γ/‖M‖²)^β, the target kept within ``bounds``."""
    target = gamma / length if length > 0 else bounds["high"]
    return tau ** (1 - rate) * min(max(target, bounds["low"]), bounds["high"]) ** rate


def mackay(i: Values) -> Values:
    """eq:mackay, for γ counted up to ``most``."""
    length = prior_length(i["prior"], matrix(i["mean"]), matrix(i["step"]))
    gamma = min(i["effective_parameters"], i["most"])
    return {"prior_precision": mackay_update(i["prior_precision"], gamma, length, i["rate"], i["bounds"])}


def heat(share: Number, layers: int, settings: Values) -> Number:
    """eq:tempering  min(max_temperature, tempering/s), s effective parameters per target; a single layer is exact and
    never tempered."""
    if settings["tempering"] is None or layers == 1:
        return MP.mpf(1)
    cap = settings["max_temperature"]
    return min(cap, settings["tempering"] / share) if share > 0 else cap


def spread(likelihood: Values, drawn: Matrix, central: Matrix, weights: list[Number]) -> Number:
    """eq:output-spread  ∑ w_n (h_n − h̄_n) B (h_n − h̄_n)ᵀ of outputs ``drawn`` about ``central``, both (N, K)."""
    d, B = drawn - central, bound(likelihood, drawn.cols)
    each = [(row(d, n) * B * row(d, n).T)[0, 0] for n in range(d.rows)]
    return sum((w * v for w, v in zip(weights, each, strict=True)), MP.mpf(0))


def measures_spread(t: int, weight: Number) -> bool:
    """eq:output-spread  whether ⌈weight/1024⌉ divides t."""
    return t % int(MP.ceil(weight / 1024)) == 0


def updated_share(share: Number, found: Number, temperature: Number, targets: Number, rate: Number) -> Number:
    """eq:output-spread  s ← s^(1−β) (spread/(temperature · targets))^β."""
    return share ** (1 - rate) * (found / (temperature * targets)) ** rate


def tempering(i: Values) -> Values:
    """eq:tempering  the temperature, and a layer's covariance multiplied by it."""
    temperature = heat(i["parameters_per_target"], i["layers"], i)
    return {
        "temperature": temperature,
        "column_covariance": lists(temperature * matrix(i["column_covariance"])),
        "row_precision": i["row_precision"],
        "deviation": lists(tempered_deviation(temperature, i)),
    }


def tempered_deviation(temperature: Number, i: Values) -> Matrix:
    """L⁻ᵀ z Rᵀ with L Lᵀ = P and R Rᵀ = temperature · Σ: a draw's distance from the mean."""
    P, S, z = matrix(i["row_precision"]), temperature * matrix(i["column_covariance"]), matrix(i["draw"])
    return sample(0 * z, P, S, z)


def weights_share(temperature: Number, gamma: Number, targets: Number) -> Number:
    """eq:noise-update  the weights' own share of the noise variance, of a residual at the means."""
    return min(temperature * gamma / targets, MP.mpf(1))


def moved_noise(likelihood: Values, residual: list[Number], share: Number, rate: Number, floor: Number) -> Any:
    """eq:noise-update  σ² ← max((1 − β)σ² + β(residual + σ² · share), floor).

    ``residual``: the mean squared residual of each output. ``share``: temperature · ∑γ/(N · outputs), the weights' own
    share of the noise, when the gradients were taken at the mean; 0 when at a draw.
    """
    old = likelihood["noise_variance"]
    if not isinstance(old, list):
        residual = [sum(residual) / len(residual)]
    moved = [
        max((1 - rate) * s + rate * (r + s * share), floor)
        for s, r in zip(variances(likelihood, len(residual)), residual, strict=True)
    ]
    return moved if isinstance(old, list) else moved[0]


def noise_update(i: Values) -> Values:
    """eq:noise-update from outputs and targets."""
    h, y = matrix(i["outputs"]), matrix(i["y"])
    residual = [squares((h - y)[:, j]) / h.rows for j in range(h.cols)]
    moved = moved_noise(i["likelihood"], residual, i["weights_share"], i["rate"], i["floor"])
    return {"noise_variance": moved}
