"""Numbers at the edge: LAPACK's sizes × condition numbers 2, √(0.1/eps), 0.1/eps × scales near under- and overflow, in
both dtypes, for the factor, the posterior, samples and KL; and bad matrices met inside a network fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from balinp import (
    MLP,
    NUMPY,
    Gaussian,
    LayerStatistics,
    MatrixNormal,
    NotPositiveDefiniteError,
    Prior,
    Settings,
    bali_step,
    fit,
    layer_posterior,
)
from balinp.testing import (
    assert_residual,
    cholesky_residual,
    comparison_residual,
    condition_number,
    dense_normal,
    random_network_problem,
    random_spd,
    solve_residual,
)
from balinp.testing.strategies import SIZES

pytestmark = pytest.mark.usefixtures("on_backend")


def conditions(dtype: np.dtype) -> tuple[float, float, float]:
    """LAPACK's: 2, √(0.1/eps), 0.1/eps."""
    limit = 0.1 / float(np.finfo(dtype).eps)
    return 2.0, limit**0.5, limit


def scales(dtype: np.dtype) -> tuple[float, float, float]:
    """One, and powers of four (whose roots are exact) within about 2¹⁰ of the largest and of the smallest number that
    has a full significand relative to its neighbours in a factorisation: tiny/eps, max/2¹⁰."""
    info = np.finfo(dtype)
    high, low = (int(np.log2(float(v))) // 2 * 2 for v in (info.max, info.tiny / info.eps))
    return 1.0, 2.0 ** (high - 10), 2.0 ** (low + 2)


GRID = list(product(SIZES, range(3), range(3)))


def names(case: tuple[int, int, int]) -> str:
    size, condition, scale = case
    return f"{size}-{('2', 'root', 'limit')[condition]}-{('one', 'large', 'small')[scale]}"


@pytest.fixture(params=GRID, ids=names)
def case(request, dtype) -> tuple[np.random.Generator, int, float, float]:
    size, condition, scale = request.param
    return np.random.default_rng(size), size, conditions(dtype)[condition], scales(dtype)[scale]


def test_the_factor(case, dtype):
    generator, n, kappa, scale = case
    A = random_spd(generator, n, kappa, dtype, scale)
    assert_residual(cholesky_residual(NUMPY.cholesky(A), A), f"L Lᵀ, {n}, {kappa:.2g}, {scale:.2g}", "cholesky")


@pytest.mark.equation("eq:layer-posterior")
def test_the_posterior(case, dtype):
    """Λ₀ and AᵀA of the scale, so A of its root; the mean is of order one. The backward error of P M = Λ₀M₀ + AᵀT."""
    generator, n, kappa, scale = case
    precision, root = random_spd(generator, n, kappa, dtype, scale), float(np.sqrt(scale))
    A = (root / 8 * generator.standard_normal((3, n)) / np.sqrt(n)).astype(dtype)
    T = (root / 8 * generator.standard_normal((3, 2))).astype(dtype)
    M0 = generator.standard_normal((n, 2)).astype(dtype)
    q = layer_posterior_of(A, T, M0, precision)
    wide = [x.astype(np.float64) for x in (A, T, M0, precision)]
    right = (wide[3] @ wide[2] + wide[0].T @ wide[1]).astype(dtype)
    assert np.all(np.isfinite(q.mean))
    assert q.mean.dtype == dtype
    # rounding is relative to what is added up, ‖P‖‖M‖ and the terms of the right-hand side (all in units of the scale)
    norms = [float(np.linalg.norm(x / unit)) for x, unit in zip(wide, (root, root, 1, scale))]
    solved = float(np.linalg.norm(q.row_precision / dtype.type(scale)) * np.linalg.norm(q.mean))
    share = solved / (solved + norms[3] * norms[2] + norms[0] * norms[1])
    ratio = share * solve_residual(q.row_precision, q.mean, right)
    assert 1e-9 < share < 1
    assert_residual(ratio, f"P M, {n}, {kappa:.2g}, {scale:.2g}", "eq:layer-posterior")


def layer_posterior_of(A, T, M0, precision) -> MatrixNormal:
    return layer_posterior(LayerStatistics.from_batch(A, T), Prior(M0, precision), np.eye(2, dtype=A.dtype))


@pytest.mark.equation("eq:sampling")
def test_a_sample(case, dtype):
    """Lᵀ(W − M) = Z Rᵀ: the solve's backward error, whatever the condition number; P of the scale, Σ of its inverse
    where that exists."""
    generator, n, kappa, scale = case
    P = random_spd(generator, n, kappa, dtype, scale)
    sigma = random_spd(generator, 3, 2.0, dtype, 1.0)
    q = MatrixNormal(np.zeros((n, 3), dtype), P, sigma)
    z = generator.standard_normal((n, 3)).astype(dtype)
    W = q.sample(z)
    assert np.all(np.isfinite(W))
    root = q.row_factor.T.astype(np.float64)
    exact = z.astype(np.float64) @ q.column_factor.T.astype(np.float64)
    unit = float(np.linalg.norm(root)) * float(np.linalg.norm(W)) + float(np.linalg.norm(z) * np.linalg.norm(sigma))
    exponent = int(np.frexp(unit)[1])
    error = np.ldexp(root @ W.astype(np.float64) - exact, -exponent)
    ratio = comparison_residual(error.astype(dtype), np.zeros_like(W), 1, float(np.ldexp(unit, -exponent)), max(n, 3))
    assert_residual(ratio, f"Lᵀ W, {n}, {kappa:.2g}, {scale:.2g}", "eq:sampling")


@pytest.mark.equation("eq:kl")
def test_the_divergence(case, dtype):
    """KL has no unit: P of both by a power of four and W by its root leave every bit of it. At 0.1/eps, where the trace
    term itself is lost in rounding of κ, it must still be finite and no more negative than that."""
    generator, n, kappa, scale = case
    root = float(np.sqrt(scale))
    P1, P2 = (random_spd(generator, n, kappa, dtype) for _ in range(2))
    S1, S2 = (random_spd(generator, 2, 2.0, dtype) for _ in range(2))
    M1, M2 = (generator.standard_normal((n, 2)).astype(dtype) for _ in range(2))
    kl = MatrixNormal(M1, P1, S1).kl_divergence(MatrixNormal(M2, P2, S2))
    scale_, down = dtype.type(scale), dtype.type(1 / root)
    scaled = MatrixNormal(down * M1, scale_ * P1, S1).kl_divergence(MatrixNormal(down * M2, scale_ * P2, S2))
    assert np.isfinite(kl)
    p, q = dense_normal(M1, P1, S1), dense_normal(M2, P2, S2)
    kappas = condition_number(P1) * condition_number(S1) + condition_number(P2) * condition_number(S2)
    size, trace = max(n, 2), float(np.trace(q.precision @ p.covariance))
    d = M1.astype(np.float64) - M2
    quadratic = float(np.linalg.norm(P2) * np.linalg.norm(np.linalg.inv(S2)) * np.linalg.norm(d) ** 2)
    logs = abs(p.log_determinant()) + abs(q.log_determinant())
    unit = trace + quadratic + logs + 2 * n
    ratio = comparison_residual(kl, p.kl_divergence(q), kappas, unit, size)
    assert_residual(ratio, f"KL, {n}, {kappa:.2g}", "eq:kl")
    # log|P| of both now has a term n log(scale), which cancels
    ratio = comparison_residual(scaled, kl, 1, unit + 4 * n * abs(np.log(scale)), size)
    assert_residual(ratio, f"KL in other units, {n}, {kappa:.2g}, {scale:.2g}", "eq:kl")
    assert float(kl) > -10 * size * float(np.finfo(dtype).eps) * kappas * unit


# bad matrices inside a network fit

BAD = ("indefinite", "singular", "NaN")


def poisoned(layer, which: str, pivot: int, kind: str):
    """The layer with running sums whose ``which`` makes the next factorisation fail at that pivot, by 2⁶⁰ or a NaN.

    After β = ½ and, for the curvature, division by 8 rows, the large entries are even powers of two with exact roots:
    beside them all else is rounded away, so two equal rows of them are singular to the last bit."""
    sums = layer.statistics
    dtype = sums.gram.dtype
    matrix = np.zeros(getattr(sums, which).shape, dtype=dtype)
    big = dtype.type(2.0**61 if which == "gram" else 2.0**60)
    if kind == "NaN":
        matrix[pivot, pivot] = np.nan
    elif kind == "indefinite":
        matrix[pivot, pivot] = -big
    else:
        matrix[np.ix_([0, pivot], [0, pivot])] = big
    return replace(layer, statistics=replace(sums, count=8.0, **{which: matrix}))


@pytest.mark.equation("eq:iteration")
@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("which", ["gram", "curvature"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_bad_matrix_in_a_fit_is_reported_with_everything(kind, which, layer, dtype):
    """Layer, matrix, size, first failing pivot (index and value), dtype, remedy; and nothing of the state changes.

    (A NaN of the curvature reaches its whole diagonal through the trace that damping is relative to: pivot 0 or 2.)"""
    problem = random_network_problem(3, 8, (2, 4, 3, 3), dtype)
    settings = Settings(prior="tied", gradients="mean", rate=0.5, prior_precision=0.5, learn_noise=False)
    state = replace(problem.state(settings), iteration=5)
    fine = []
    for l, part in enumerate(state.layers):
        d, k = part.posterior.mean.shape
        rows, columns = np.eye(d, dtype=dtype), np.eye(k, dtype=dtype)
        sums = LayerStatistics(8.0, rows, np.zeros((d, k), dtype), columns, columns)
        part = replace(part, statistics=sums)
        fine.append(poisoned(part, which, 2, kind) if l == layer else part)
    state = replace(state, layers=tuple(fine))
    before = [m.copy() for m in state.means]
    with pytest.raises(NotPositiveDefiniteError) as caught:
        bali_step(state, problem.inputs, problem.targets, problem.generator(), settings)
    error, (d, k) = caught.value, problem.mlp.shapes[layer]
    assert error.layer == layer
    assert (error.name, error.size) == (("row_precision", d) if which == "gram" else ("noise precision", k))
    assert error.dtype == dtype.name
    spread = which == "curvature" and kind == "NaN"
    assert error.pivot_index in ((0, 2) if spread else (2,))
    assert np.isnan(error.pivot_value) if kind == "NaN" else error.pivot_value <= 0
    assert kind != "indefinite" or error.pivot_value < 0
    message = str(error)
    for word in (
        f"of layer {layer}",
        f"({error.size} x {error.size}, {dtype.name})",
        f"pivot {error.pivot_index}",
        "use a larger prior" if which == "gram" else "use the setting damping",
    ):
        assert word in message
    assert all(np.array_equal(a, b) for a, b in zip(before, state.means))


def test_a_deep_network_that_diverges_is_told_the_trust_region_which_cures_it():
    """The steps of 13 layers overshoot together, the inputs grow until the prior is lost in rounding beside them."""
    generator = np.random.default_rng(0)
    mlp, x = MLP((50, *[128] * 12, 1)), generator.standard_normal((512, 50))
    y, noise = generator.standard_normal((512, 1)), Gaussian(np.ones(1))
    settings = Settings(max_iterations=8, tolerance=0)
    with pytest.raises(NotPositiveDefiniteError, match=r"of layer .* rising, the setting trust_region=True"):
        fit(x, y, mlp, noise, np.random.default_rng(0), settings)
    cured = fit(x, y, mlp, noise, np.random.default_rng(0), replace(settings, trust_region=True))
    losses = [record.train_nll for record in cured.history]
    assert max(losses[1:]) < losses[0]
