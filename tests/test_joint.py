"""The joint regression: its products with the curvature, its solver, its step and its count of parameters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given

from balinp import (
    MLP,
    NUMPY,
    Categorical,
    Gaussian,
    MatrixNormal,
    Settings,
)
from balinp.joint import conjugate_gradients, curvature_product, first_damping, joint_regression
from balinp.passes import block_sums
from balinp.statistics import LayerStatistics
from balinp.testing import assert_residual, comparison_residual, condition_number, seeds
from balinp.testing.gradients import dense_ggn, weight_jacobians
from balinp.testing.oracles import unvec, vec
from balinp.testing.residuals import THRESHOLD

on_every_backend = pytest.mark.usefixtures("on_backend")
JOINTLY = Settings(joint_iterations=30, warmup=8, rate=0.5, max_iterations=60, tolerance=0)


def problem(kind="gaussian", widths=(3, 4, 2), n=11, seed=0):
    rng = np.random.default_rng(seed)
    mlp, k = MLP(widths, "tanh"), widths[-1]
    weights = [rng.standard_normal(shape) for shape in mlp.shapes]
    x = rng.standard_normal((n, widths[0]))
    if kind == "gaussian":
        return mlp, Gaussian(np.linspace(0.5, 1, k)), weights, x, rng.standard_normal((n, k))
    return mlp, Categorical(), weights, x, rng.integers(0, k, n)


def directions_of(mlp, seed, systems=()):
    rng = np.random.default_rng([seed, 1])
    return [rng.standard_normal((*systems, *shape)) for shape in mlp.shapes]


def flat(layers):
    return np.concatenate([vec(part) for part in layers])


@on_every_backend
@pytest.mark.equation("eq:pushforward")
@pytest.mark.parametrize("widths", [(3, 2), (3, 4, 2), (3, 3, 3, 3)])
@given(seed=seeds())
def test_outputs_move_as_the_jacobian_says(widths, seed):
    """J · vec V by complex steps, for one direction and for several side by side; control: another layer left out."""
    mlp, _, weights, x, _ = problem(widths=widths, seed=seed)
    several = directions_of(mlp, seed, (3,))
    dense = np.concatenate(weight_jacobians(mlp, weights, x), axis=2)
    got = mlp.pushforward(weights, mlp.forward(weights, x), several)
    size = 10 * float(np.prod([1 + np.linalg.norm(w) for w in weights]))
    for s in range(3):
        one = [part[s] for part in several]
        expected = dense @ flat(one)
        alone = mlp.pushforward(weights, mlp.forward(weights, x), one)
        assert_residual(comparison_residual(alone, expected, scale=size, size=len(flat(one))), "one", "eq:pushforward")
        ratio = comparison_residual(got[s], expected, scale=size, size=len(flat(one)))
        assert_residual(ratio, "several", "eq:pushforward")
        wrong = mlp.pushforward(weights, mlp.forward(weights, x), [*one[:-1], 0 * one[-1]])
        assert comparison_residual(wrong, expected, scale=size, size=len(flat(one))) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:curvature-product")
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
@pytest.mark.parametrize("block_rows", [2048, 4])
@given(seed=seeds())
def test_the_product_is_that_with_the_dense_curvature(kind, block_rows, seed):
    """In whole and in blocks, weighted or not; control: without the weights it is another."""
    mlp, likelihood, weights, x, _ = problem(kind, seed=seed)
    several, settings = directions_of(mlp, seed, (2,)), Settings(block_rows=block_rows)
    w = np.random.default_rng([seed, 2]).integers(1, 4, len(x)).astype(float)
    for weight, rows in ((None, x), (w, np.repeat(x, w.astype(int), axis=0))):
        H = dense_ggn(mlp, likelihood, weights, rows, own=True)
        got = curvature_product(mlp, likelihood, weights, several, x, settings, weight)
        scale, size = 10 * np.linalg.norm(H, 2) * np.linalg.norm(flat([v[0] for v in several])), len(H)
        for s in range(2):
            expected = H @ flat([part[s] for part in several])
            ratio = comparison_residual(flat([part[s] for part in got]), expected, scale=scale, size=size)
            assert_residual(ratio, f"{kind}, {block_rows} rows a block", "eq:curvature-product")
    other = curvature_product(mlp, likelihood, weights, several, x, settings, None)
    assert (
        comparison_residual(flat([p[0] for p in other]), flat([p[0] for p in got]), scale=scale, size=size) > THRESHOLD
    )


def spd(rng, n):
    a = rng.standard_normal((2 * n, n))
    return a.T @ a / n + np.eye(n)


@on_every_backend
@pytest.mark.equation("eq:conjugate-gradients")
@given(seed=seeds())
def test_conjugate_gradients_solve_the_system(seed):
    """As many steps as unknowns, then some for the rounding; systems side by side do not see one another; control: one
    step alone does not solve it."""
    rng, shapes = np.random.default_rng(seed), ((3, 2), (2, 1))
    A = spd(rng, 8)
    posteriors = [MatrixNormal(np.zeros(s), spd(rng, s[0]), spd(rng, s[1])) for s in shapes]
    right = [rng.standard_normal((2, *s)) for s in shapes]

    def product(v):
        out = [A @ np.concatenate([np.asarray(p[s]).ravel() for p in v]) for s in range(len(v[0]))]
        return [np.stack([o[:6].reshape(3, 2) for o in out]), np.stack([o[6:].reshape(2, 1) for o in out])]

    def residual(found, s):
        x, b = (np.concatenate([np.asarray(p[s]).ravel() for p in parts]) for parts in (found, right))
        return comparison_residual(A @ x, b, scale=np.linalg.norm(A, 2) * np.linalg.norm(x) + np.linalg.norm(b), size=8)

    found = conjugate_gradients(product, right, posteriors, 16, NUMPY)
    for s in range(2):
        assert_residual(residual(found, s), "residual of the solution", "eq:conjugate-gradients")
        alone = conjugate_gradients(product, [r[s : s + 1] for r in right], posteriors, 16, NUMPY)
        for a, b in zip(alone, found):
            condition = condition_number(A)
            ratio = comparison_residual(a[0], b[s], scale=condition * float(np.linalg.norm(b[s])), size=8)
            assert_residual(ratio, "alone and side by side", "eq:conjugate-gradients")
    assert residual(conjugate_gradients(product, right, posteriors, 1, NUMPY), 0) > THRESHOLD


def joint_of(signs=None, damping=0.3, seed=0, widths=(1, 2, 1), tau=(0.7, 1.9)):
    """The joint regression of a small network, and the dense H, slopes and τ that it is of."""
    mlp, likelihood, weights, x, y = problem(widths=widths, n=9, seed=seed)
    sums, settings = block_sums(mlp, likelihood, weights, x, y, np.ones((len(x), widths[-1]))), Settings()
    posteriors = [
        MatrixNormal(w, s.gram + np.eye(len(w)), np.linalg.inv(s.curvature / s.count + np.eye(w.shape[1])))
        for w, s in zip(weights, sums.layers)
    ]
    slopes = [s.cross + t * w for s, t, w in zip(sums.layers, tau, weights)]
    signs = signs or [np.ones_like(w) for w in weights]

    def product(v):
        return curvature_product(mlp, likelihood, weights, v, x, settings, None)

    found = joint_regression(product, slopes, tau, np.asarray(damping), signs, posteriors, NUMPY)
    return (
        found,
        dense_ggn(mlp, likelihood, weights, x, own=True),
        slopes,
        np.repeat(tau, [w.size for w in weights]),
        weights,
    )


@on_every_backend
@pytest.mark.equation("eq:joint-step")
@pytest.mark.parametrize("damping", [0.0, 0.3])
@given(seed=seeds())
def test_the_step_solves_the_joint_system(damping, seed):
    """Against a dense solve; control: the layers' own systems, without what couples them, have another solution."""
    (steps, _), H, slopes, tau, weights = joint_of(damping=damping, seed=seed)
    A = H + np.diag(tau) + damping * np.eye(len(H))
    expected = np.linalg.solve(A, -flat(slopes))
    scale = condition_number(A) * float(np.linalg.norm(expected))
    assert_residual(comparison_residual(flat(steps), expected, scale=scale, size=len(H)), "step", "eq:joint-step")
    n = weights[0].size
    apart = A.copy()
    apart[:n, n:] = apart[n:, :n] = 0
    wrong = np.linalg.solve(apart, -flat(slopes))
    assert comparison_residual(wrong, expected, scale=scale, size=len(H)) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:joint-parameters")
def test_the_count_of_parameters_is_right_on_average():
    """Over all 2⁷ sign patterns the mean of γ_l is D K − τ tr (H + τ)⁻¹ of the layer's block, where no pattern's count
    is so low that it is cut; control: the layers' counts exchanged."""
    patterns = list(itertools.product((-1.0, 1.0), repeat=7))
    counts = []
    for pattern in patterns:
        signs = [unvec(np.array(pattern[:4]), 2), unvec(np.array(pattern[4:]), 3)]
        (_, gammas), H, _, tau, weights = joint_of(signs, tau=(0.02, 0.03), seed=5)
        counts.append([float(g) for g in gammas])
        assert all(g > 0.02 * w.size for g, w in zip(counts[-1], weights)), "this instance is cut: take another"
    inverse = np.linalg.inv(H + np.diag(tau))
    exact = [4 - tau[0] * np.trace(inverse[:4, :4]), 3 - tau[-1] * np.trace(inverse[4:, 4:])]
    scale = 7 * condition_number(H + np.diag(tau))
    ratio = comparison_residual(np.mean(counts, axis=0), np.array(exact), scale=scale, size=7)
    assert_residual(ratio, "mean over all signs", "eq:joint-parameters")
    assert comparison_residual(np.array(exact[::-1]), np.array(exact), scale=scale, size=7) > THRESHOLD


@on_every_backend
@pytest.mark.equation("eq:joint-parameters")
def test_no_layer_counts_less_than_a_hundredth_of_its_parameters():
    (_, gammas), _, _, _, weights = joint_of(tau=(1e9, 1e9))
    assert [float(g) for g in gammas] == pytest.approx([0.01 * w.size for w in weights])


@on_every_backend
@pytest.mark.equation("eq:joint-step")
def test_damping_is_the_mean_of_the_curvatures_diagonal_and_falls():
    rng = np.random.default_rng(3)
    A, Z = rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    sums = LayerStatistics.from_batch(A, rng.standard_normal((9, 2)), None, Z)
    expected = np.trace(np.kron(Z.T @ Z / 9, A.T @ A)) / 6
    for t in (0, 2):
        got = float(first_damping([sums], t, NUMPY.xp))
        ratio = comparison_residual(np.array(got), np.array(0.3**t * expected), scale=abs(expected), size=9)
        assert_residual(ratio, f"iteration {t}", "eq:joint-step")
    assert float(first_damping([sums, sums], 0, NUMPY.xp)) == pytest.approx(expected)
