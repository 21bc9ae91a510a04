"""The predictive distributions in 50-digit arithmetic: every Jacobian is that of the outputs by the weights, dense."""

from __future__ import annotations

from typing import Any

from .exact import MP, Matrix, Number, derivative, identity, inverse, kronecker, lists, matrix, row, unvec, vec
from .layer import normal_log_density, sample
from .network import passes, row_loss, softmax, variances

Values = dict[str, Any]


def linearized_predictive(i: Values) -> Values:
    """eq:linearized-predictive, eq:predictive-density  h(W) ≈ h(M) + J vec(W − M), J by differences of every weight."""
    kind, means = i["activation"], [matrix(layer["mean"]) for layer in i["layers"]]
    x = matrix(i["x"])
    h = passes(kind, means, x)[1][-1]
    by_layer: list[list[Matrix]] = []
    for l, layer in enumerate(i["layers"]):
        covariance = kronecker(matrix(layer["column_covariance"]), inverse(matrix(layer["row_precision"])))
        parts = []
        for n in range(x.rows):

            def outputs(v: Matrix, l: int = l, n: int = n) -> list[Number]:
                weights = [*means[:l], unvec(v.T, means[l].rows), *means[l + 1 :]]
                return list(passes(kind, weights, row(x, n))[1][-1])

            J = derivative(outputs, vec(means[l]).T)
            parts.append(i["temperature"] * (J * covariance * J.T))
        by_layer.append(parts)
    epistemic = [sum((parts[n] for parts in by_layer), MP.matrix(h.cols, h.cols)) for n in range(x.rows)]
    result = {
        "mean": lists(h),
        "epistemic": [lists(v) for v in epistemic],
        "epistemic_by_layer": [[lists(v) for v in parts] for parts in by_layer],
    }
    if i["likelihood"]["kind"] == "gaussian":
        noise = MP.diag(variances(i["likelihood"], h.cols))
        y = matrix(i["y"])
        density = [normal_log_density((row(y, n) - row(h, n)).T, epistemic[n] + noise) for n in range(x.rows)]
        return {**result, "aleatoric": [lists(noise)] * x.rows, "log_density": density}
    p = [probit_row(row(h, n), epistemic[n]) for n in range(x.rows)]
    return {**result, "probabilities": p, "aleatoric": [lists(label_covariance(v)) for v in p]}


def label_covariance(p: list[Number]) -> Matrix:
    """diag(p) − ppᵀ."""
    column = MP.matrix(p)
    return MP.diag(p) - column * column.T


def probit_row(h: Matrix, covariance: Matrix) -> list[Number]:
    """eq:probit  softmax(μ/√(1 + πv/8)), μ the logits less their mean, v_k = Var(h_k − mean of the other logits)."""
    n, eye, scaled = h.cols, identity(h.cols), []
    for k in range(n):
        c = MP.matrix([eye[j, k] if j == k else -MP.mpf(1) / (n - 1) for j in range(n)])
        mean = (h * (eye[:, k] - MP.ones(n, 1) / n))[0]
        scaled.append(mean / MP.sqrt(1 + MP.pi * (c.T * covariance * c)[0] / 8))
    return softmax(MP.matrix([scaled]))


def probit(i: Values) -> Values:
    """eq:probit"""
    h = matrix(i["logits"])
    return {"probabilities": [probit_row(row(h, n), matrix(v)) for n, v in enumerate(i["covariance"])]}


def monte_carlo_predictive(i: Values) -> Values:
    """eq:monte-carlo-predictive, eq:predictive-density, eq:predictive-entropy  moments over the given draws."""
    x, likelihood, draws = matrix(i["x"]), i["likelihood"], []
    for z in i["draws"]:
        weights = [
            sample(
                matrix(q["mean"]),
                matrix(q["row_precision"]),
                i["temperature"] * matrix(q["column_covariance"]),
                matrix(part),
            )
            for q, part in zip(i["layers"], z, strict=True)
        ]
        draws.append(passes(i["activation"], weights, x)[1][-1])
    count, k = len(draws), draws[0].cols
    mean = sum(draws[1:], draws[0]) / count
    epistemic = []
    for n in range(x.rows):
        total = MP.matrix(k, k)
        for h in draws:
            difference = row(h, n) - row(mean, n)
            total += difference.T * difference / count
        epistemic.append(lists(total))
    result = {"draws": [lists(h) for h in draws], "mean": lists(mean), "epistemic": epistemic}
    if likelihood["kind"] == "gaussian":
        density = [
            MP.log(sum(MP.exp(-row_loss(likelihood, row(h, n), i["y"][n])) for h in draws) / count)
            for n in range(x.rows)
        ]
        noise = lists(MP.diag(variances(likelihood, k)))
        return {**result, "log_density": density, "aleatoric": [noise] * x.rows}
    each = [[softmax(row(h, n)) for h in draws] for n in range(x.rows)]
    p = [[sum(v[j] for v in rows) / count for j in range(k)] for rows in each]
    aleatoric = [
        lists(sum((label_covariance(v) for v in rows[1:]), label_covariance(rows[0])) / count) for rows in each
    ]
    entropy = [-sum(v * MP.log(v) for v in rows) for rows in p]
    return {**result, "probabilities": p, "aleatoric": aleatoric, "entropy": entropy}
