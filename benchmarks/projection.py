"""How far the matrix-normal form of a layer's posterior is from the exact one, after real fits.   (eq:projection-error)

    python benchmarks/projection.py > benchmarks/projection_output.md

For every layer: the divergence of the nearest matrix-normal and its bound, from the eigenvalues of curvature B and
Gram matrix U of the last iteration; the divergence per weight; and the projected variance over the exact one in the
common eigenvectors (its mean over input directions is 1 by construction). Beside it the prototype's form, P = U + πI
and Q = B + (τ/π)I with π² = τ (tr U/D)/(tr B/K), in the same measures. Then MacKay's formula for class probabilities.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.special import softmax

import balinp
from balinp import BALIClassifier, BALIRegressor, Categorical, probit_probabilities
from balinp.testing import projection_error

HERE = Path(__file__).parents[1]


def layers(state):
    """(B summed over rows per datum, U, τ) of every layer."""
    for layer in state.layers:
        s = layer.statistics
        B = np.asarray(s.curvature, float) / s.count
        yield B + 1e-9 * np.trace(B) / len(B) * np.eye(len(B)), np.asarray(s.gram, float), layer.prior_precision


def prototype(B, U, tau):
    """(divergence in nats, variance ratios) of the prototype's form: covariances commute, so in the eigenvectors."""
    beta, u = np.linalg.eigvalsh(B), np.maximum(np.linalg.eigvalsh(U), 0)
    pi = np.sqrt(tau * np.mean(u) / np.mean(beta))
    ratio = np.outer(beta + tau / pi, u + pi) / (np.outer(beta, u) + tau)
    return np.sum(1 / ratio - 1 + np.log(ratio)) / 2, 1 / ratio


def spread(ratios):
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
    return f"{np.mean(ratios):.2f} | {low:.2f} … {middle:.2f} … {high:.2f}"


def report(name, model):
    for l, (B, U, tau) in enumerate(layers(model.state_)):
        exact, (kl, ratios), size = projection_error(B, U, tau), prototype(B, U, tau), len(B) * len(U)
        print(
            f"| {name} | {l}: {len(U)} × {len(B)} | {exact.divergence / size:.4f} | {exact.bound / size:.4f} "
            f"| {spread(1 / exact.ratios)} | {kl / size:.4f} | {spread(ratios)} |"
        )


def probit():
    """Mean absolute error of class probabilities for random logits N(m, V), against 50 000 draws."""
    rng = np.random.default_rng(0)
    print("\n| classes | deviation of logits | against the rest (balinp) | centred | pairwise differences |")
    print("|---|---|---|---|---|")
    for c in (2, 3, 5, 10, 30):
        for s in (0.5, 1.0, 2.0, 4.0):
            errors = []
            for _ in range(20):
                m, F = s * rng.standard_normal(c), s * rng.standard_normal((c, c)) / np.sqrt(c)
                V, C = F @ F.T, np.eye(c) - 1 / c
                rest = probit_probabilities(m[None], V[None], Categorical())[0]
                truth = softmax(m + rng.standard_normal((50_000, c)) @ F.T, axis=1).mean(axis=0)
                centred = softmax(C @ m / np.sqrt(1 + np.pi / 8 * np.diag(C @ V @ C)))
                d = V.diagonal()[:, None] + V.diagonal() - 2 * V  # variances of h_k − h_j
                pairs = 1 / np.exp(-(m[:, None] - m) / np.sqrt(1 + np.pi / 8 * d)).sum(axis=1)
                errors.append([np.abs(p - truth).mean() for p in (rest, centred, pairs / pairs.sum())])
            print(f"| {c} | {s:g} | " + " | ".join(f"{e:.4f}" for e in np.mean(errors, axis=0)) + " |")


def main():
    print(f"# The projection's error after real fits\n\nbalinp {balinp.__version__}, numpy {np.__version__}, ", end="")
    print(f"Python {sys.version.split()[0]}; `python benchmarks/projection.py`; defaults, random_state 0.\n")
    print("KL per weight in nats; variance ratios are projected over exact: mean \\| 5 % … median … 95 %.\n")
    print("| fit | layer | KL/weight | its bound | mean | ratios | prototype: KL/weight | mean | ratios |")
    print("|---|---|---|---|---|---|---|---|---|")
    table = np.loadtxt(HERE / "examples" / "data" / "yacht.csv", delimiter=",", skiprows=1)
    report("yacht", BALIRegressor(random_state=0).fit(table[:, :-1], table[:, -1]))
    from sklearn.datasets import load_diabetes, load_digits

    report("diabetes", BALIRegressor(random_state=0).fit(*load_diabetes(return_X_y=True)))
    report("digits", BALIClassifier(random_state=0).fit(*load_digits(return_X_y=True)))
    print("\n# Class probabilities in closed form\n\nMean absolute error of a class probability. (eq:probit)")
    probit()


if __name__ == "__main__":
    main()
