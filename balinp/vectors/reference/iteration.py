"""One iteration, one epoch of mini-batches and one whole fit in 50-digit arithmetic.

A state is a dictionary as in the JSON files: layers (each mean, row_precision, column_covariance, statistics,
prior_precision, determined), likelihood, temperature, step_scale, iteration, parameters_per_target.
"""

from __future__ import annotations

from typing import Any

from . import rules
from .exact import MP, Matrix, Number, identity, inverse, kronecker, lists, matrix, solve, trace, unvec, vec
from .layer import as_lists, as_matrices, combine, evidence_of_sums, sample, sums_of
from .network import (
    jacobians,
    layer_bound,
    loss_gradient,
    losses,
    passes,
    probe_rows,
    pulled_back,
    step_curvature,
)

Values = dict[str, Any]


def means_of(state: Values) -> list[Matrix]:
    """M of every layer."""
    return [matrix(layer["mean"]) for layer in state["layers"]]


def drawn_weights(state: Values, draws: list[Any] | None) -> list[Matrix]:
    """One draw of every layer from its tempered posterior; without draws the means.   (eq:sampling, eq:tempering)"""
    means = means_of(state)
    if draws is None:
        return means
    return [
        sample(M, matrix(q["row_precision"]), state["temperature"] * matrix(q["column_covariance"]), matrix(z))
        for M, q, z in zip(means, state["layers"], draws, strict=True)
    ]


def batch_sums(i: Values, weights: list[Matrix]) -> tuple[list[Values], Number, list[Number]]:
    """(per layer the sums of (A_l, G_l) and of probes, the loss, the squared residual per output) of one batch."""
    kind, likelihood = i["activation"], i["state"]["likelihood"]
    inputs, outputs = passes(kind, weights, matrix(i["x"]))
    h, y = outputs[-1], i["y"]
    w = i["sample_weight"] or [MP.mpf(1)] * h.rows
    J = jacobians(kind, weights, outputs)
    gradients = pulled_back(J, loss_gradient(likelihood, h, y))
    probes: list[Any] = [None] * len(weights)
    if i["probe_noise"] is not None:
        probes = [lists(z) for z in pulled_back(J, probe_rows(likelihood, matrix(i["probe_noise"])))]
    probes[-1] = None
    layers = [
        sums_of({"inputs": lists(a), "targets": lists(g), "weights": w, "probes": z, "D": a.cols, "K": g.cols})
        for a, g, z in zip(inputs, gradients, probes, strict=True)
    ]
    layers[-1]["curvature"] = sum(w) * layer_bound(likelihood, h.cols)  # eq:output-curvature
    loss = sum((v * l for v, l in zip(w, losses(likelihood, h, y), strict=True)), MP.mpf(0))
    residual = []
    if likelihood["kind"] == "gaussian":
        residual = [sum((w[n] * (h[n, j] - y[n][j]) ** 2 for n in range(h.rows)), MP.mpf(0)) for j in range(h.cols)]
    return layers, loss, residual


def regression(layer: Values, batch: Values, rate: Number, settings: Values) -> Values:
    """A layer's running sums, π, S, and its full step Δ: (Q ⊗ P) vec Δ = −vec(C) − the prior's pull.

    eq:ema, eq:step-kinds, eq:step-form, eq:prior-gradient, eq:residual-covariance
    """
    M, prior, tau = matrix(layer["mean"]), settings["prior"], layer["prior_precision"]
    running = combine(as_matrices(layer["statistics"]), batch, 1 - rate, rate)
    B = step_curvature(running["curvature"] / running["count"], {**settings, "kind": settings["step"]})
    pi, Q = rules.kronecker_terms(prior, B, tau, matrix(layer["column_covariance"]), layer["determined"])
    (d, k), S = (M.rows, M.cols), inverse(Q)
    P = running["gram"] + identity(d, pi)
    pull = (kronecker(Q, identity(d, pi)) if prior == "tied" else identity(d * k, tau)) * vec(M)
    delta = unvec(solve(kronecker(Q, P), -vec(batch["cross"]) - pull), d)
    sigma = S
    if settings["noise"] == "residual":
        cross = delta.T * batch["cross"] * -S
        square = S.T * batch["target_gram"] * S - cross - cross.T + delta.T * batch["gram"] * delta
        sigma = square / batch["count"]
        sigma += identity(k, settings["damping"] * trace(sigma) / k)
    centre = unvec(solve(kronecker(Q, identity(d, pi)), -pull), d)
    targets = {**running, "cross": running["cross"] * -S, "target_gram": S.T * running["target_gram"] * S}
    evidence = evidence_of_sums(targets, centre, identity(d, pi), sigma)
    return {"running": running, "P": P, "pi": pi, "S": S, "sigma": sigma, "delta": delta, "evidence": evidence}


def penalty(state: Values, parts: list[Values], scale: Number, prior: str) -> Number:
    """∑_l ½ τ‖M + scale Δ‖²."""
    lengths = [
        layer["prior_precision"] * rules.prior_length(prior, matrix(layer["mean"]) + scale * r["delta"], r["S"])
        for layer, r in zip(state["layers"], parts, strict=True)
    ]
    return sum(lengths, MP.mpf(0)) / 2


def taken_scale(
    i: Values, weights: list[Matrix], parts: list[Values], loss: Number, factor: Number, rate: Number
) -> tuple[Number, Number]:
    """(the share of Δ that is taken, the trust region's next).   eq:trust-region"""
    settings, state = i["settings"], i["state"]
    largest = rate if settings["step_scale"] is None else settings["step_scale"]
    if not settings["trust_region"]:
        return largest, largest

    def objective(scale: Number) -> Number:
        moved = [W + scale * r["delta"] for W, r in zip(weights, parts, strict=True)]
        h = passes(i["activation"], moved, matrix(i["x"]))[1][-1]
        w = i["sample_weight"] or [MP.mpf(1)] * h.rows
        total = sum(v * l for v, l in zip(w, losses(state["likelihood"], h, i["y"]), strict=True))
        return factor * total + penalty(state, parts, scale, settings["prior"])

    before = factor * loss + penalty(state, parts, MP.mpf(0), settings["prior"])
    scale = min(state["step_scale"], largest)
    for _ in range(12):
        if objective(scale) <= before:
            return scale, min(MP.mpf(3) / 2 * scale, largest)
        scale *= MP.mpf(3) / 10
    return MP.mpf(0), scale


def iteration(i: Values) -> Values:
    """eq:iteration"""
    state, settings = i["state"], i["settings"]
    t, prior = state["iteration"], settings["prior"]
    beta = max(settings["rate"], MP.mpf(1) / (t + 1))
    weights = drawn_weights(state, i["weight_draws"])
    batches, loss, residual = batch_sums(i, weights)
    count = batches[0]["count"]
    total = count if i["total"] is None else i["total"]
    scaled = [{name: total / count * v for name, v in b.items()} for b in batches]
    parts = [regression(l, b, beta, settings) for l, b in zip(state["layers"], scaled, strict=True)]
    scale, next_scale = taken_scale(i, weights, parts, loss, total / count, beta)
    width, layers, gammas = parts[-1]["delta"].cols, [], []
    for layer, r in zip(state["layers"], parts, strict=True):
        kappa, gamma = rules.counts(prior, r["running"]["gram"], r["pi"], layer["prior_precision"], r["sigma"])
        mean = matrix(layer["mean"]) + scale * r["delta"]
        tau = layer["prior_precision"]
        if settings["evidence"] and t + 1 >= settings["warmup"]:
            length, most = rules.prior_length(prior, mean, r["sigma"]), MP.mpf(9) / 10 * total * width
            tau = rules.mackay_update(tau, min(gamma, most), length, beta, settings["precision_bounds"])
        gammas.append(gamma)
        layers.append(
            {
                "mean": lists(mean),
                "row_precision": lists(r["P"]),
                "column_covariance": lists(r["sigma"]),
                "statistics": as_lists(r["running"]),
                "prior_precision": tau,
                "determined": kappa,
                "effective_parameters": gamma,
                "log_evidence": r["evidence"],
            }
        )
    per_target = sum(gammas) / (total * width)
    if i["weight_draws"] is not None:
        per_target = state["parameters_per_target"]
        if rules.measures_spread(t, count):
            w = i["sample_weight"] or [MP.mpf(1)] * len(i["x"])
            drawn, central = (passes(i["activation"], at, matrix(i["x"]))[1][-1] for at in (weights, means_of(state)))
            found = rules.spread(state["likelihood"], drawn, central, w)
            per_target = rules.updated_share(per_target, found, state["temperature"], count * width, beta)
    hot = rules.heat(per_target, len(layers), settings) if t + 1 >= settings["warmup"] else MP.mpf(0)
    likelihood = dict(state["likelihood"])
    if likelihood["kind"] == "gaussian" and settings["learn_noise"] and t >= settings["warmup"]:
        share = MP.mpf(0)
        if i["weight_draws"] is None:
            share = rules.weights_share(hot, sum(gammas), total * width)
        errors = [r / count for r in residual]
        likelihood["noise_variance"] = rules.moved_noise(likelihood, errors, share, beta, settings["noise_floor"])
    return {
        "layers": layers,
        "likelihood": likelihood,
        "temperature": hot,
        "step_scale": next_scale,
        "iteration": t + 1,
        "training_loss": loss / count,
        "parameters_per_target": per_target,
    }


def epoch(i: Values) -> Values:
    """eq:iteration on batches: the permutation cut into ⌈N/batch⌉ pieces of nearly equal size."""
    n, size = len(i["x"]), i["settings"]["batch_size"]
    pieces = -(-n // size)
    state, loss = i["state"], MP.mpf(0)
    for b, draws in zip(range(pieces), i["batches"], strict=True):
        rows = i["permutation"][n * b // pieces : n * (b + 1) // pieces]
        batch = {"x": [i["x"][r] for r in rows], "y": [i["y"][r] for r in rows], "total": MP.mpf(n)}
        state = iteration({**i, **draws, **batch, "state": state, "sample_weight": None})
        loss += state["training_loss"] * len(rows)
    return {**state, "training_loss": loss / n}


def initial_state(i: Values) -> Values:
    """He-initialised means, N(0, 2/fan-in) with biases N(0, 1) in the first layer and 0 beyond; no data seen."""
    layers, draws = [], i["initial_draws"]
    for l, z in enumerate(draws):
        Z = matrix(z)
        d, k = Z.rows, Z.cols
        M = Z * MP.sqrt(MP.mpf(2) / (d - 1))
        for j in range(k):
            M[d - 1, j] = Z[d - 1, j] if l == 0 else MP.mpf(0)
        if len(draws) == 1:
            M = MP.matrix(d, k)
        fan_in = d - 1 if i["settings"]["prior"] == "independent" else 1
        tau = i["settings"]["prior_precision"] * fan_in
        layers.append(
            {
                "mean": lists(M),
                "row_precision": lists(identity(d, tau)),
                "column_covariance": lists(identity(k)),
                "statistics": as_lists(sums_of({"inputs": [], "targets": [], "D": d, "K": k})),
                "prior_precision": tau,
                "determined": MP.mpf(0),
            }
        )
    scale = i["settings"]["step_scale"]
    start = {"layers": layers, "likelihood": i["likelihood"], "temperature": MP.mpf(0), "iteration": 0}
    start["parameters_per_target"] = MP.mpf(0)
    return {**start, "step_scale": MP.mpf(1) if scale is None else scale}


def fit(i: Values) -> Values:
    """eq:iteration repeated from the initial state; history of the losses, noise variances and temperatures."""
    state = initial_state(i)
    history: dict[str, list[Any]] = {"training_loss": [], "temperature": []}
    for draws in i["iterations"]:
        state = iteration({**i, **draws, "state": state, "total": None, "sample_weight": None})
        history["training_loss"].append(state["training_loss"])
        history["temperature"].append(state["temperature"])
        if i["likelihood"]["kind"] == "gaussian":
            history.setdefault("noise_variance", []).append(state["likelihood"]["noise_variance"])
    layers = [
        {name: layer[name] for name in ("mean", "row_precision", "column_covariance", "prior_precision")}
        for layer in state["layers"]
    ]
    return {"layers": layers, **history}
