"""BALI on one page: Bayesian layerwise inference, literally as its abstract reads, in plain NumPy.

Every layer of an MLP is a multivariate Bayesian linear regression. Its inputs A come from the forward pass; its
*pseudo-targets* T are its own outputs H, moved against the back-propagated gradients G of the loss. Given A and T the
posterior of its weights is exact, a matrix-normal. Repeat, layer by layer and pass by pass: that is the method.

Notation: rows are data, N in all and m in a batch. A (m, D) layer inputs, the constant 1 in the last column; W (D, K)
weights, so the bias is the last row; H = A W, T and G (m, K). W ~ MN(M, P⁻¹, Σ) means Cov(vec W) = Σ ⊗ P⁻¹: P (D, D)
is the precision of the rows, Σ (K, K) the covariance of the columns. Names like (eq:forward) are statements in
derivations/.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Layer:
    """What a layer knows: its posterior MN(M, P⁻¹, αI), and the running sums U of AᵀA and C of AᵀT it rests on."""

    M: np.ndarray
    P: np.ndarray
    U: np.ndarray
    C: np.ndarray


def initial_layer(M, lam):
    """Any random weights M break the symmetry of the hidden units; no data yet, so P is the prior's λI."""
    return Layer(M, lam * np.eye(len(M)), np.zeros((len(M), len(M))), np.zeros_like(M))


def forward(weights, x):
    """A₁ = [x, 1], H_l = A_l W_l, A_{l+1} = [tanh H_l, 1].   (eq:forward)"""
    A, H = [], []
    for W in weights:
        a = np.tanh(H[-1]) if H else x
        A.append(np.column_stack([a, np.ones(len(a))]))
        H.append(A[-1] @ W)
    return A, H


def backward(weights, H, G_last):
    """G_l = (G_{l+1} W̃ᵀ_{l+1}) ⊙ tanh′(H_l): the chain rule; W̃ is W without its bias row.   (eq:backward)"""
    G = [G_last]
    for W, h in zip(weights[:0:-1], H[-2::-1]):
        G.insert(0, (G[0] @ W[:-1].T) * (1 - np.tanh(h) ** 2))
    return G


def regress(layer, A, T, lam, beta, N):
    """The exact posterior of one layer's weights given its pseudo-targets, under the prior MN(0, (λI)⁻¹, αI)."""
    weight = N / len(A)  # each row of the batch stands for N/m data
    U = (1 - beta) * layer.U + beta * weight * (A.T @ A)  # eq:ema  the natural parameters of the posterior are
    C = (1 - beta) * layer.C + beta * weight * (A.T @ T)  # sums over data, so a moving average forgets old targets
    P = U + lam * np.eye(len(U))  # eq:layer-posterior  P = Λ₀ + AᵀA
    M = np.linalg.solve(P, C)  #                        M = P⁻¹(Λ₀M₀ + AᵀT), with M₀ = 0
    return Layer(M, P, U, C)


def iteration(layers, x, y, sigma2, alpha, lam, beta, N):
    """One iteration on a batch (x, y) of the N data, Gaussian noise σ²: all layers at once.   (eq:iteration)"""
    M = [layer.M for layer in layers]
    A, H = forward(M, x)
    G = backward(M, H, (H[-1] - y) / sigma2)  # eq:gaussian-gradient  ℓ = (h − y)²/(2σ²) + constant
    T = [h - alpha * g for h, g in zip(H, G)]  # eq:pseudo-targets  where this layer's outputs should have been
    return [regress(layer, a, t, lam, beta, N) for layer, a, t in zip(layers, A, T)]


def sample(layer, alpha, rng):
    """W = M + L⁻ᵀ Z Rᵀ with P = L Lᵀ, Σ = R Rᵀ = αI and Z standard normal.   (eq:sampling)"""
    L = np.linalg.cholesky(layer.P)
    return layer.M + np.linalg.solve(L.T, rng.standard_normal(layer.M.shape)) * np.sqrt(alpha)


def predict(layers, x, sigma2, alpha, draws, rng):
    """Mean and variance of y over networks sampled from the posterior.   (eq:monte-carlo-predictive)"""
    h = np.stack([forward([sample(layer, alpha, rng) for layer in layers], x)[1][-1] for _ in range(draws)])
    return h.mean(axis=0), h.var(axis=0) + sigma2  # epistemic (the networks disagree) + aleatoric (the noise of y)


def negative_log_likelihood(layers, x, y, sigma2):
    """Mean of −log N(y | h, σ²) in nats, at the posterior means of the weights.   (eq:gaussian-loss)"""
    h = forward([layer.M for layer in layers], x)[1][-1]
    return np.mean((h - y) ** 2 / sigma2 + np.log(2 * np.pi * sigma2)) / 2


def main():
    """The sinc function from 100 noisy points: the loss falls, and the error bars open where there are no data."""
    rng = np.random.default_rng(0)
    N, sigma2, alpha, lam, beta = 100, 0.1**2, 0.1**2, 0.01, 0.3
    x = rng.uniform(-2, 2, (N, 1))
    y = np.sinc(2 * x) + np.sqrt(sigma2) * rng.standard_normal((N, 1))

    widths = (1, 30, 1)
    layers = [initial_layer(rng.standard_normal((d + 1, k)) * 2 / d**0.5, lam) for d, k in zip(widths, widths[1:])]
    for t in range(101):  # the average starts at rate 1, so that the data-less U and C leave no trace
        if t < 5 or t % 10 == 0:
            print(f"iteration {t:3d}   train NLL {negative_log_likelihood(layers, x, y, sigma2):9.3f}")
        layers = iteration(layers, x, y, sigma2, alpha, lam, max(beta, 1 / (t + 1)), N)

    x_new = np.linspace(-4, 4, 9)[:, None]
    mean, variance = predict(layers, x_new, sigma2, alpha, 200, rng)
    print("\n     x     truth     mean      std")
    for row in np.column_stack([x_new, np.sinc(2 * x_new), mean, np.sqrt(variance)]):
        print("{:6.1f} {:9.3f} {:8.3f} {:8.3f}".format(*row))


if __name__ == "__main__":
    main()
