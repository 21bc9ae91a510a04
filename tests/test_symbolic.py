"""Algebraic statements of derivations/ as SymPy sees them, at small fixed sizes: the difference of both sides is 0."""

from __future__ import annotations

import pytest

sympy = pytest.importorskip("sympy")
from sympy import Matrix, Rational, eye, log, symbols  # noqa: E402
from sympy import kronecker_product as kron  # noqa: E402

beta = symbols("beta", positive=True)


def matrix(name: str, rows: int, columns: int) -> Matrix:
    return Matrix(rows, columns, lambda i, j: symbols(f"{name}{i}{j}", real=True))


def symmetric(name: str, size: int) -> Matrix:
    return Matrix(size, size, lambda i, j: symbols(f"{name}{min(i, j)}{max(i, j)}", real=True))


def vec(m: Matrix) -> Matrix:
    return m.T.reshape(len(m), 1)


def is_zero(value) -> bool:
    entries = value if isinstance(value, sympy.MatrixBase) else [value]
    return all(sympy.simplify(entry) == 0 for entry in entries)


A, W, T, G, M0 = matrix("a", 2, 2), matrix("w", 2, 2), matrix("t", 2, 2), matrix("g", 2, 2), matrix("m", 2, 2)
L0, Q = symmetric("l", 2), symmetric("q", 2)  # a prior precision and a noise precision


@pytest.mark.equation("eq:vec-kronecker")
def test_vec_and_kronecker():
    U, B = matrix("u", 2, 2), matrix("b", 2, 2)
    assert is_zero(vec(U * W * B) - kron(B.T, U) * vec(W))
    assert is_zero(kron(B, U) * kron(Q, L0) - kron(B * Q, U * L0))
    assert is_zero(kron(B, U).det() - B.det() ** 2 * U.det() ** 2)
    assert is_zero((vec(W).T * kron(B, U) * vec(W))[0] - (B.T * W.T * U * W).trace())
    assert not is_zero(vec(U * W * B) - kron(B, U) * vec(W))  # negative control: B not transposed


@pytest.mark.equation("eq:woodbury")
def test_woodbury_and_the_determinant_lemma():
    P, inverse = L0 + A.T * A, L0.inv()
    rows = eye(2) + A * inverse * A.T
    assert is_zero(rows.det() - P.det() / L0.det())
    assert is_zero(rows * (eye(2) - A * P.inv() * A.T) - eye(2))


@pytest.mark.equation("eq:layer-posterior")
def test_completing_the_square():
    """With B = Λ₀M₀ + AᵀT the exponent is WᵀPW − WᵀB − BᵀW + const; with B = PM, (W − M)ᵀP(W − M) + const."""
    P, B, M = L0 + A.T * A, L0 * M0 + A.T * T, matrix("n", 2, 2)
    exponent = (T - A * W).T * (T - A * W) + (W - M0).T * L0 * (W - M0)
    constant = T.T * T + M0.T * L0 * M0
    assert is_zero(exponent - (W.T * P * W - W.T * B - B.T * W) - constant)
    assert is_zero((W - M).T * P * (W - M) - (W.T * P * W - W.T * P * M - (P * M).T * W) - M.T * P * M)


@pytest.mark.equation("eq:log-evidence")
def test_the_quadratic_form_of_the_evidence():
    a, l, m, t = A[:, :1], L0[:1, :1], M0[:1, :], T
    P = l + a.T * a
    M = P.inv() * (l * m + a.T * t)
    F = (t - a * m).T * (eye(2) - a * P.inv() * a.T) * (t - a * m)
    assert is_zero(F - (t.T * t + m.T * l * m - M.T * P * M))


@pytest.mark.equation("eq:proximal-target")
def test_the_proximal_term():
    h, g, d = T[:1, :], G[:1, :], matrix("d", 1, 2)
    S = Q.inv()
    t = h - g * S
    square = ((t - h - d) * Q * (t - h - d).T)[0] / 2
    model = (g * d.T)[0] + (d * Q * d.T)[0] / 2
    assert is_zero(square - model - (g * S * g.T)[0] / 2)  # without δ: a constant in W


@pytest.mark.equation("eq:step-form")
def test_step_form():
    S, P = Q.inv(), L0 + A.T * A
    left = P * W + L0 * (M0 - W) - A.T * G * S  # P M⁺ as the step form says
    right = L0 * M0 + A.T * (A * W - G * S)  # P M⁺ as the regression says
    assert is_zero(left - right)


@pytest.mark.equation("eq:ema")
def test_moving_average_form():
    """P M_new both ways, with N/m a symbol and M_old the solution of the old sums."""
    U, share, S = symmetric("u", 2), symbols("r", positive=True), Q.inv()
    old = (U + L0) * W - L0 * M0
    new = (1 - beta) * old + beta * share * A.T * (A * W - G * S)
    P = (1 - beta) * U + beta * share * A.T * A + L0
    assert is_zero(new + L0 * M0 - (P * W - beta * (share * A.T * G * S + L0 * (W - M0))))
    wrong = (1 - beta) * U + share * A.T * A + L0  # negative control
    assert not is_zero(new + L0 * M0 - (wrong * W - beta * (share * A.T * G * S + L0 * (W - M0))))


@pytest.mark.equation("eq:natural-gradient")
def test_natural_gradient_of_a_scalar_layer():
    """F⁻¹∇L = η̂ − η for a normal in one dimension, with F the Hessian of its log normaliser."""
    a, b, c, d = symbols("a b c d", positive=True)  # η = (linear b, precision a), η̂ = (d, c); s = (w, −w²/2)
    normaliser = b**2 / (2 * a) - log(a) / 2
    eta = Matrix([b, a])
    mean = Matrix([normaliser.diff(b), normaliser.diff(a)])
    bound = ((Matrix([d, c]) - eta).T * mean)[0] + normaliser
    fisher = sympy.hessian(normaliser, (b, a))
    gradient = Matrix([bound.diff(b), bound.diff(a)])
    assert is_zero(fisher.inv() * gradient - (Matrix([d, c]) - eta))
    assert is_zero(mean - Matrix([b / a, -(1 / a + (b / a) ** 2) / 2]))  # E w and −E w²/2


@pytest.mark.equation("eq:conjugate-layer")
def test_targets_of_a_linear_layer_are_the_data():
    S, Y = Q.inv(), matrix("y", 2, 2)
    assert is_zero(T - (T - Y) * Q * S - Y)


@pytest.mark.equation("eq:prior-gradient")
def test_pull_of_the_independent_prior():
    tau, pi = symbols("tau pi", positive=True)
    S = Q.inv()
    right = pi * (-(tau / pi) * W * S) - A.T * G * S  # P Δ by the regression
    assert is_zero(right + (A.T * G + tau * W) * S)


@pytest.mark.equation("eq:target-variance")
def test_which_centre_has_less_variance():
    X = symmetric("x", 2)
    assert is_zero((eye(2) - X) ** 2 - X**2 - (eye(2) - 2 * X))


@pytest.mark.equation("eq:bohning-bound")
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_curvature_of_softmax(classes):
    h = symbols(f"h:{classes}", real=True)
    loss = log(sum(sympy.exp(x) for x in h)) - h[0]
    p = Matrix([sympy.exp(x) for x in h]) / sum(sympy.exp(x) for x in h)
    assert is_zero(sympy.hessian(loss, h) - (sympy.diag(*p) - p * p.T))
    C = eye(classes) - sympy.ones(classes) / classes
    assert is_zero(C * C - C)  # eq:bohning-probe: (C/√2)ᵀ(C/√2) is the bound
    x = Matrix([1, -1] + [0] * (classes - 2))
    assert (x.T * C * x)[0] / 2 == 1  # touched by the variance of two equally likely values 1 and −1


@pytest.mark.equation("eq:kronecker-projection")
def test_stationarity_of_the_divergence():
    """With B and U diagonal, X and Y are; both derivatives vanish at the stated form when b and κ are consistent."""
    b1, b2, u1, u2, tau, x1, x2, y1, y2 = symbols("b1 b2 u1 u2 tau x1 x2 y1 y2", positive=True)
    KL = (
        (b1 * y1 + b2 * y2) * (u1 * x1 + u2 * x2) + tau * (y1 + y2) * (x1 + x2) - 2 * log(x1 * x2) - 2 * log(y1 * y2)
    ) / 2
    b = (b1 * y1 + b2 * y2) / (y1 + y2)
    pi, s = tau / b, 2 / (b1 * y1 + b2 * y2)
    at_x = {x1: s / (u1 + pi), x2: s / (u2 + pi)}
    assert is_zero(KL.diff(x1).subs(at_x))
    kappa = (u1 / (u1 + pi) + u2 / (u2 + pi)) / 2
    for i, y in ((0, y1), (1, y2)):  # ∂KL/∂y = 0 reads 1/y = s·(κβ + (1 − κ)b)
        slope = KL.diff(y).subs(at_x)
        assert is_zero(slope - (s * (kappa * (b1, b2)[i] + (1 - kappa) * b) - 1 / y))


@pytest.mark.equation("eq:projection-error")
def test_ratio_of_projected_to_exact_precision():
    b, e, u, pi, kappa = symbols("b e u pi kappa", positive=True)
    B, tau, k = b * (1 + e), pi * b, u / (u + pi)
    ratio = (kappa * B + (1 - kappa) * b) * (u + pi) / (B * u + tau)
    assert is_zero(ratio - (1 + kappa * e) / (1 + k * e))


@pytest.mark.equation("eq:mackay")
def test_slope_of_the_evidence_in_log_tau():
    """Two weights, diagonal curvature: d log p/d log τ = ½(γ − τ‖M‖²)."""
    tau, l1, l2, c1, c2 = symbols("tau l1 l2 c1 c2", positive=True)
    evidence = log(tau) - log((l1 + tau) * (l2 + tau)) / 2 + c1**2 / (2 * (l1 + tau)) + c2**2 / (2 * (l2 + tau))
    gamma = l1 / (l1 + tau) + l2 / (l2 + tau)
    norm = (c1 / (l1 + tau)) ** 2 + (c2 / (l2 + tau)) ** 2
    assert is_zero(tau * evidence.diff(tau) - (gamma - tau * norm) / 2)


@pytest.mark.equation("eq:heteroscedastic-curvature")
def test_the_hessian_is_indefinite_and_its_mean_the_fisher_information():
    y, m, l = symbols("y m lambda", real=True)
    loss = ((y - m) ** 2 * sympy.exp(-l) + l) / 2
    H = sympy.hessian(loss, (m, l))
    assert is_zero(H.det() + (y - m) ** 2 * sympy.exp(-2 * l) / 2)  # −q/(2 s²)
    spread = symbols("z", real=True)
    moments = {spread: 0, spread**2: sympy.exp(l)}  # of y − m
    mean = H.subs(y, m + spread).applyfunc(
        lambda x: sympy.expand(x).subs(spread**2, moments[spread**2]).subs(spread, 0)
    )
    assert is_zero(mean - sympy.diag(sympy.exp(-l), Rational(1, 2)))


@pytest.mark.equation("eq:heteroscedastic-variance")
def test_slope_of_the_limited_log_variance():
    rho, f, c = symbols("rho f c", positive=True)
    v = 1 / (sympy.exp(-rho) + 1 / c)
    assert is_zero(log(f + v).diff(rho) - v / (f + v) * (1 - v / c))


@pytest.mark.equation("eq:tanh")
@pytest.mark.equation("eq:gelu")
def test_derivatives_of_activations():
    h = symbols("h", real=True)
    assert is_zero((sympy.tanh(h).diff(h) - (1 - sympy.tanh(h) ** 2)).rewrite(sympy.exp))
    Phi = (1 + sympy.erf(h / sympy.sqrt(2))) / 2
    assert is_zero((h * Phi).diff(h) - Phi - h * sympy.exp(-(h**2) / 2) / sympy.sqrt(2 * sympy.pi))
