"""BALI in JAX, in one file; every gradient by autodiff, so that it also checks hand-written backward passes.

    pip install balinp jax
    balinp vectors run --adapter examples/ports/jax_port.py [--dtype float32]

A function per operation of balinp/vectors/v1, from its inputs to its outputs; ``answer`` is what the command calls.
Rows are data, A (N, D) carries a ones column, W ~ MN(M, P⁻¹, Σ) means Cov(vec W) = Σ ⊗ P⁻¹.
"""

import math
import platform

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.stats import multivariate_normal

jax.config.update("jax_enable_x64", True)
NAME = "JAX port"
VERSIONS = {"jax": jax.__version__, "python": platform.python_version()}
ACTIVATIONS = {
    "relu": jax.nn.relu,  # jnp.maximum(h, 0) would have slope ½ at 0
    "tanh": jnp.tanh,
    "gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "identity": lambda h: h,
}
DTYPE = "float64"


def answer(operation, inputs, dtype):
    global DTYPE
    DTYPE = dtype
    return globals()[operation](**inputs)


def array(values, columns=None):
    out = jnp.asarray(values, dtype=DTYPE)
    return out if columns is None else out.reshape(-1, columns)


def eye(n):
    return jnp.eye(n, dtype=DTYPE)


def cholesky(matrix):
    """Lower L with L Lᵀ = matrix; raises if there is none."""
    L = jnp.linalg.cholesky(matrix)
    if not jnp.isfinite(L).all():  # JAX does not raise
        raise ValueError("not positive definite")
    return L


def inverse(matrix):
    return solve(matrix, eye(len(matrix)))


def solve(matrix, right):
    return cho_solve((cholesky(matrix), True), right)


def log_det(matrix):
    return 2 * jnp.log(cholesky(matrix).diagonal()).sum()


# --- the network ------------------------------------------------------------------------------------------------------
def activation(activation, outputs):
    phi, h = ACTIVATIONS[activation], array(outputs)
    return {"value": phi(h), "derivative": jax.vmap(jax.grad(phi))(h)}


def passes(activation, weights, x, moves=None):
    """(A_l, H_l) of every layer; ``moves`` are added to the outputs, so that derivatives by them are those by H_l."""
    A, H = [], []
    for l, W in enumerate(weights):
        a = ACTIVATIONS[activation](H[-1]) if H else x
        A.append(jnp.concatenate([a, jnp.ones((len(a), 1), a.dtype)], axis=1))
        H.append(A[-1] @ W + (0 if moves is None else moves[l]))
    return A, H


def forward(activation, weights, x):
    A, H = passes(activation, [array(w) for w in weights], array(x))
    return {"inputs": A, "outputs": H}


def pullback(activation, weights, x):
    """The function from ∂ℓ/∂H_L to ∂ℓ/∂H_l for every layer."""
    nothing = [jnp.zeros((len(x), W.shape[1]), DTYPE) for W in weights]
    return lambda g: list(jax.vjp(lambda moves: passes(activation, weights, x, moves)[1][-1], nothing)[1](g)[0])


def backward(activation, weights, x, output_gradient):
    return {"gradients": pullback(activation, [array(w) for w in weights], array(x))(array(output_gradient))}


# --- likelihoods ------------------------------------------------------------------------------------------------------
def losses(likelihood, h, y):
    """−log p(y_n | h_n) in nats."""
    if likelihood["kind"] == "categorical":
        labels = jnp.asarray(y)
        if labels.min() < 0 or labels.max() >= h.shape[1]:  # JAX clamps an index out of range
            raise ValueError("unknown label")
        return jax.nn.logsumexp(h, axis=1) - jnp.take_along_axis(h, labels[:, None], axis=1)[:, 0]
    y, s2 = array(y), array(likelihood["noise_variance"])
    if y.shape != h.shape or not (s2 > 0).all():
        raise ValueError(f"shapes {y.shape} and {h.shape}, variance {s2}")
    return ((h - y) ** 2 / s2 + jnp.log(2 * math.pi * s2)).sum(1) / 2


def likelihood_loss(likelihood, outputs, y):
    return {"loss": losses(likelihood, array(outputs), y)}


def likelihood_gradient(likelihood, outputs, y):
    return {"gradient": jax.grad(lambda h: losses(likelihood, h, y).sum())(array(outputs))}


def bound(likelihood, k):
    """The curvature bound (K, K)."""
    if likelihood["kind"] == "categorical":
        return (eye(k) - 1 / k) / 2
    return eye(k) / array(likelihood["noise_variance"])


def likelihood_curvature(likelihood, outputs):
    n, k = len(outputs), len(outputs[0])
    return {"curvature": jnp.broadcast_to(bound(likelihood, k), (n, k, k))}


def likelihood_probe(likelihood, noise):
    return {"probe": probes(likelihood, array(noise))}


def probes(likelihood, noise):
    if likelihood["kind"] == "categorical":
        return (noise - noise.mean(1, keepdims=True)) / math.sqrt(2)
    return noise / jnp.sqrt(array(likelihood["noise_variance"]))


def step_curvature(B, kind, step_size=1.0, damping=0.0):
    """S⁻¹ of a step kind, from the mean curvature B."""
    k = len(B)
    if kind == "gradient":
        return eye(k) / step_size
    return B.trace() / k * eye(k) if kind == "isotropic" else B + damping * B.trace() / k * eye(k)


def pseudo_targets(outputs, gradients, curvature, step):
    S = inverse(step_curvature(array(curvature), **step))
    return {"step": S, "targets": array(outputs) - array(gradients) @ S}


# --- one layer --------------------------------------------------------------------------------------------------------
def sums(A, T, weights, Z):
    """The statistics of a layer's regression of T on A, with probes Z."""
    if len(T) != len(A):
        raise ValueError("rows differ")
    w = jnp.ones(len(A), DTYPE) if weights is None else array(weights)
    if (w < 0).any():
        raise ValueError("negative weight")
    WA, WT, WZ = (w[:, None] * v for v in (A, T, Z))
    return {"count": w.sum(), "gram": A.T @ WA, "cross": A.T @ WT, "target_gram": T.T @ WT, "curvature": Z.T @ WZ}


def combine(a, b, left, right):
    return {name: left * a[name] + right * b[name] for name in a}


def statistics(D, K, inputs, targets, weights, probes):
    A, T = array(inputs, D), array(targets, K)
    return sums(A, T, weights, jnp.zeros(T.shape, DTYPE) if probes is None else array(probes, K))


def block_sum(D, K, blocks):
    total, *others = (statistics(D, K, **block) for block in blocks)
    for other in others:
        total = combine(total, other, 1, 1)
    return total


def ema_step(D, K, statistics, batch, total, rate):
    new = globals()["statistics"](D, K, **batch)
    old = {name: array(statistics[name]) for name in new}
    return combine(old, new, 1 - rate, rate * total / float(new["count"]))


def layer_posterior(gram, cross, prior_mean, prior_precision, noise_covariance):
    prior, right = array(prior_precision), array(cross)
    P = prior + array(gram)
    M = solve(P, prior @ array(prior_mean) + right)
    if not jnp.isfinite(M).all():
        raise ValueError("not finite")
    return {"mean": M, "row_precision": P}


def step_form(mean, gram, inputs, gradients, weight, step, prior_mean, prior_precision, scale):
    M, A, G, S, prior = (array(v) for v in (mean, inputs, gradients, step, prior_precision))
    right = weight * A.T @ G @ S + prior @ (M - array(prior_mean))
    return {"mean": M - scale * solve(array(gram) + prior, right)}


def evidence(s, M0, prior, S):
    """log p(T) from sums, by the determinant lemma and Woodbury's identity."""
    P, right = prior + s["gram"], prior @ M0 + s["cross"]
    white = solve_triangular(cholesky(P), right, lower=True)
    square = s["target_gram"] + M0.T @ prior @ M0 - white.T @ white
    k = len(S)
    logs = s["count"] * (k * math.log(2 * math.pi) + log_det(S)) + k * (log_det(P) - log_det(prior))
    return -(logs + (inverse(S) @ square).trace()) / 2


def log_evidence(inputs, targets, prior_mean, prior_precision, noise_covariance):
    M0 = array(prior_mean)
    s = statistics(*M0.shape, inputs, targets, None, None)
    return {"log_evidence": evidence(s, M0, array(prior_precision), array(noise_covariance))}


class MatrixNormal:
    """W ~ MN(M, P⁻¹, Σ) with P = L Lᵀ and Σ = R Rᵀ."""

    def __init__(self, mean, row_precision, column_covariance, **rest):
        self.M, self.P, self.S = array(mean), array(row_precision), array(column_covariance)
        if self.P.shape != (len(self.M),) * 2 or self.S.shape != (self.M.shape[1],) * 2:
            raise ValueError("shapes")

    def sample(self, z, temperature=1.0):
        rows = solve_triangular(cholesky(self.P).T, z, lower=False)
        return self.M + rows @ cholesky(temperature * self.S).T

    def log_determinant(self):
        d, k = self.M.shape
        return d * log_det(self.S) - k * log_det(self.P)


def distance(q, difference):
    """tr(Σ⁻¹ dᵀ P d)."""
    white = cholesky(q.P).T @ difference
    return (solve_triangular(cholesky(q.S), white.T, lower=True) ** 2).sum()


def log_density(w, **normal):
    q = MatrixNormal(**normal)
    logs = q.M.size * math.log(2 * math.pi) + q.log_determinant()
    return {"log_density": -(distance(q, array(w) - q.M) + logs) / 2}


def entropy(**normal):
    q = MatrixNormal(**normal)
    total = q.log_determinant()
    return {"log_determinant": total, "entropy": (q.M.size * (1 + math.log(2 * math.pi)) + total) / 2}


def kl_divergence(first, second):
    p, q = MatrixNormal(**first), MatrixNormal(**second)
    traces = (q.P * inverse(p.P)).sum() * (inverse(q.S) * p.S).sum()
    logs = q.log_determinant() - p.log_determinant()
    return {"kl_divergence": (traces + distance(q, p.M - q.M) - p.M.size + logs) / 2}


def natural_parameters(**normal):
    q = MatrixNormal(**normal)
    Q = inverse(q.S)
    return {"precision": jnp.kron(Q, q.P), "linear": q.P @ q.M @ Q}


def sampling(draws, **normal):
    q = MatrixNormal(**normal)
    return {"weights": jnp.stack([q.sample(array(z)) for z in draws])}


def layer_predictive(inputs, **normal):
    q, a = MatrixNormal(**normal), array(inputs)
    variances = (a @ inverse(q.P) * a).sum(1)
    return {"mean": a @ q.M, "covariance": variances[:, None, None] * q.S}


# --- the rules --------------------------------------------------------------------------------------------------------
def kronecker(prior, B, tau, sigma, determined):
    """(π, Q) of a layer's posterior precision Q ⊗ (U + πI)."""
    if prior == "tied":
        return tau, B
    b = float((B * sigma).sum() / sigma.trace())
    eps = float(jnp.finfo(B.dtype).eps)
    rest = max(1 - determined, eps**0.5)  # B may be singular: rounding must not make Q indefinite
    return tau / b, (1 - rest) * B + max(rest * b, 4 * eps * float(B.trace())) * eye(len(B))


def kronecker_form(prior, curvature, prior_precision, column_covariance, determined):
    pi, Q = kronecker(prior, array(curvature), prior_precision, array(column_covariance), determined)
    return {"row_prior": pi, "column_precision": Q}


def counts(prior, P, pi, tau, sigma):
    """(κ, γ)."""
    (d, k), rows = (len(P), len(sigma)), float(inverse(P).trace())
    kappa = 1 - pi * rows / d
    return kappa, k * d * kappa if prior == "tied" else max(d * k - tau * rows * float(sigma.trace()), 0.0)


def effective_parameters(prior, gram, row_prior, prior_precision, column_covariance):
    U = array(gram)
    P = U + row_prior * eye(len(U))
    kappa, gamma = counts(prior, P, row_prior, prior_precision, array(column_covariance))
    return {"determined": kappa, "effective_parameters": gamma}


def length(prior, M, Q):
    """‖M‖² as the prior measures it."""
    return float((M * M).sum() if prior == "independent" else (M @ Q * M).sum())


def updated(tau, gamma, norm, rate, bounds):
    target = min(max(gamma / norm, bounds["low"]), bounds["high"]) if norm > 0 else bounds["high"]
    return tau ** (1 - rate) * target**rate


def mackay(prior, mean, step, prior_precision, effective_parameters, most, rate, bounds):
    norm = length(prior, array(mean), inverse(array(step)))
    return {"prior_precision": updated(prior_precision, min(effective_parameters, most), norm, rate, bounds)}


def heat(share, layers, tempering, max_temperature):
    if tempering is None or layers == 1:
        return 1.0
    return min(max_temperature, tempering / max(share, 1e-12))


def tempering(parameters_per_target, layers, tempering, max_temperature, draw, **posterior):
    t = heat(parameters_per_target, layers, tempering, max_temperature)
    z = array(draw)
    deviation = MatrixNormal(mean=0 * z, **posterior).sample(z, t)
    S, P = array(posterior["column_covariance"]), posterior["row_precision"]
    return {"temperature": t, "column_covariance": t * S, "row_precision": P, "deviation": deviation}


def moved_noise(s2, residual, share, rate, floor):
    """σ² after one update, from the mean squared residual of every output."""
    residual = residual if s2.ndim else residual.mean()
    return jnp.maximum((1 - rate) * s2 + rate * (residual + s2 * share), floor)


def noise_update(likelihood, outputs, y, weights_share, rate, floor):
    residual = ((array(outputs) - array(y)) ** 2).mean(0)
    return {"noise_variance": moved_noise(array(likelihood["noise_variance"]), residual, weights_share, rate, floor)}


# --- predictions ------------------------------------------------------------------------------------------------------
def linearized_predictive(activation, likelihood, layers, temperature, x, y):
    normals, x = [MatrixNormal(**layer) for layer in layers], array(x)
    h = passes(activation, [q.M for q in normals], x)[1][-1]
    by_layer = []
    for l, q in enumerate(normals):

        def outputs(W, l=l):
            weights = [W if i == l else p.M for i, p in enumerate(normals)]
            return passes(activation, weights, x)[1][-1]

        J = jax.jacrev(outputs)(q.M)  # ∂h/∂W, (n, K_L, D, K)
        by_layer.append(temperature * jnp.einsum("nadk,de,kj,nbej->nab", J, inverse(q.P), q.S, J))
    V = jnp.stack(by_layer).sum(0)
    out = {"mean": h, "epistemic": V, "epistemic_by_layer": jnp.stack(by_layer)}
    if likelihood["kind"] == "gaussian":
        noise = eye(h.shape[1]) * array(likelihood["noise_variance"])
        density = [multivariate_normal.logpdf(*row) for row in zip(array(y), h, V + noise)]
        return {**out, "aleatoric": jnp.broadcast_to(noise, V.shape), "log_density": jnp.stack(density)}
    p = probit_probabilities(h, V)
    return {**out, "probabilities": p, "aleatoric": p[:, :, None] * eye(p.shape[1]) - p[:, :, None] * p[:, None, :]}


def probit_probabilities(h, V):
    k = h.shape[1]
    centre = eye(k) - 1 / k
    v = (k / (k - 1)) ** 2 * (centre @ V @ centre).diagonal(axis1=1, axis2=2)
    return jax.nn.softmax(h @ centre / jnp.sqrt(1 + math.pi / 8 * v), axis=1)


def probit(logits, covariance):
    return {"probabilities": probit_probabilities(array(logits), array(covariance))}


def monte_carlo_predictive(activation, likelihood, layers, temperature, x, draws, y):
    normals, x = [MatrixNormal(**layer) for layer in layers], array(x)
    sampled = [[q.sample(array(z), temperature) for q, z in zip(normals, draw)] for draw in draws]
    h = jnp.stack([passes(activation, weights, x)[1][-1] for weights in sampled])
    left = h - h.mean(0)
    out = {"draws": h, "mean": h.mean(0), "epistemic": jnp.einsum("sni,snj->nij", left, left) / len(h)}
    if likelihood["kind"] == "gaussian":
        noise = eye(h.shape[2]) * array(likelihood["noise_variance"])
        logs = jnp.stack([-losses(likelihood, one, y) for one in h])
        density = jax.nn.logsumexp(logs, axis=0) - math.log(len(h))
        return {**out, "aleatoric": jnp.broadcast_to(noise, out["epistemic"].shape), "log_density": density}
    each = jax.nn.softmax(h, axis=2)
    p = each.mean(0)
    aleatoric = p[:, :, None] * eye(p.shape[1]) - jnp.einsum("sni,snj->nij", each, each) / len(h)
    return {**out, "probabilities": p, "aleatoric": aleatoric, "entropy": jax.scipy.special.entr(p).sum(1)}


# --- whole iterations -------------------------------------------------------------------------------------------------
def read_state(state):
    """The state of the JSON file with arrays."""
    layers = []
    for layer in state["layers"]:
        arrays = {name: array(layer[name]) for name in ("mean", "row_precision", "column_covariance")}
        layers.append({**layer, **arrays, "statistics": {n: array(v) for n, v in layer["statistics"].items()}})
    return {**state, "layers": layers}


def iteration(activation, state, x, y, sample_weight, total, weight_draws, probe_noise, settings):
    return stepped(activation, read_state(state), x, y, sample_weight, total, weight_draws, probe_noise, settings)


def stepped(activation, state, x, y, sample_weight, total, weight_draws, probe_noise, settings):
    """One iteration on a batch: the new state."""
    layers, likelihood, t = state["layers"], state["likelihood"], state["iteration"]
    beta = max(settings["rate"], 1 / (t + 1))
    weights = [layer["mean"] for layer in layers]
    if weight_draws is not None:
        normals = [MatrixNormal(**layer) for layer in layers]
        weights = [q.sample(array(z), state["temperature"]) for q, z in zip(normals, weight_draws)]
    w = jnp.ones(len(x), DTYPE) if sample_weight is None else array(sample_weight)
    x = array(x)
    A, H = passes(activation, weights, x)
    each, pull = losses(likelihood, H[-1], y), pullback(activation, weights, x)
    G = pull(jax.grad(lambda h: losses(likelihood, h, y).sum())(H[-1]))
    Z = [0 * h for h in H] if probe_noise is None else pull(probes(likelihood, array(probe_noise)))
    loss, count = float(w @ each), float(w.sum())
    if not math.isfinite(loss):
        raise ValueError("the loss is not finite")
    batches = [sums(a, g, w, z) for a, g, z in zip(A, G, Z)]
    k = H[-1].shape[1]
    B = bound(likelihood, k) if likelihood["kind"] == "gaussian" else eye(k) / 2  # classes: a shift is curved as well
    batches[-1]["curvature"] = count * B
    n = count if total is None else total
    parts = [regression(layer, b, n / count, beta, settings) for layer, b in zip(layers, batches)]
    scale = following = beta if settings["step_scale"] is None else settings["step_scale"]
    if settings["trust_region"]:

        def objective(s):
            moved = [W + s * r["delta"] for W, r in zip(weights, parts)]
            fit = n / count * float(w @ losses(likelihood, passes(activation, moved, x)[1][-1], y))
            taus = [layer["prior_precision"] for layer in layers]
            norms = [length(settings["prior"], a["mean"] + s * r["delta"], r["Q"]) for a, r in zip(layers, parts)]
            return fit + sum(tau * norm for tau, norm in zip(taus, norms)) / 2

        scale, following = trusted(objective, min(state["step_scale"], scale), scale)
    new, gammas = [], []
    for layer, r in zip(layers, parts):
        tau, prior = layer["prior_precision"], settings["prior"]
        M = layer["mean"] + scale * r["delta"]
        kappa, gamma = counts(prior, r["P"], r["pi"], tau, r["sigma"])
        gammas.append(gamma)
        if settings["evidence"] and t + 1 >= settings["warmup"]:
            capped = min(gamma, 0.9 * n * k)
            norm = length(prior, M, inverse(r["sigma"]))  # by Σ; the trust region's is by S
            tau = updated(tau, capped, norm, beta, settings["precision_bounds"])
        new.append(
            {
                "mean": M,
                "row_precision": r["P"],
                "column_covariance": r["sigma"],
                "statistics": r["running"],
                "prior_precision": tau,
                "determined": kappa,
                "effective_parameters": gamma,
                "log_evidence": r["evidence"],
            }
        )
    warm = t + 1 >= settings["warmup"]
    per_target = sum(gammas) / (n * k)
    if weight_draws is not None:
        per_target = state["parameters_per_target"]
        if t % math.ceil(count / 1024) == 0:
            d = H[-1] - passes(activation, [layer["mean"] for layer in layers], x)[1][-1]
            spread = float(w @ (d @ bound(likelihood, k) * d).sum(1))
            per_target = per_target ** (1 - beta) * (spread / (state["temperature"] * count * k)) ** beta
    hot = heat(per_target, len(layers), settings["tempering"], settings["max_temperature"]) if warm else 0.0
    if likelihood["kind"] == "gaussian" and settings["learn_noise"] and t >= settings["warmup"]:
        residual = w @ (H[-1] - array(y)) ** 2 / count
        share = min(hot * sum(gammas) / (n * k), 1.0) if weight_draws is None else 0.0
        s2 = moved_noise(array(likelihood["noise_variance"]), residual, share, beta, settings["noise_floor"])
        likelihood = {**likelihood, "noise_variance": s2.tolist()}
    return {
        "layers": new,
        "likelihood": likelihood,
        "temperature": hot,
        "step_scale": following,
        "iteration": t + 1,
        "training_loss": loss / count,
        "parameters_per_target": per_target,
    }


def regression(layer, batch, factor, beta, settings):
    """A layer's exact regression on its pseudo-targets, centred on its mean: the full step Δ and what belongs to it."""
    prior, tau, M = settings["prior"], layer["prior_precision"], layer["mean"]
    running = combine(layer["statistics"], batch, 1 - beta, beta * factor)
    batch = {name: factor * value for name, value in batch.items()}
    kind = {"kind": settings["step"], "step_size": settings["step_size"], "damping": settings["damping"]}
    B = step_curvature(running["curvature"] / running["count"], **kind)
    pi, Q = kronecker(prior, B, tau, layer["column_covariance"], layer["determined"])
    S, P = inverse(Q), running["gram"] + pi * eye(len(M))
    pull = -M if prior == "tied" else -tau / pi * M @ S
    delta = solve(P, pi * pull - batch["cross"] @ S)
    sigma = S
    if settings["noise"] == "residual":
        cross = -delta.T @ batch["cross"] @ S
        sigma = (S @ batch["target_gram"] @ S - cross - cross.T + delta.T @ batch["gram"] @ delta) / batch["count"]
        sigma = sigma + settings["damping"] * sigma.trace() / len(sigma) * eye(len(sigma))
    targets = {**running, "cross": -running["cross"] @ S, "target_gram": S @ running["target_gram"] @ S}
    found = evidence(targets, pull, pi * eye(len(M)), sigma)
    return {"running": running, "P": P, "Q": Q, "pi": pi, "sigma": sigma, "delta": delta, "evidence": found}


def trusted(objective, scale, largest):
    """(the share of the step that is taken, the one to begin with next time)."""
    before = objective(0.0)
    for _ in range(12):
        if objective(scale) <= before:
            return scale, min(1.5 * scale, largest)
        scale *= 0.3
    return 0.0, scale


def epoch(activation, state, x, y, permutation, batches, settings):
    state, n, loss = read_state(state), len(x), 0.0
    for b, draws in enumerate(batches):
        rows = permutation[n * b // len(batches) : n * (b + 1) // len(batches)]
        part = [x[r] for r in rows], [y[r] for r in rows]
        state = stepped(activation, state, *part, None, float(n), **draws, settings=settings)
        loss += state["training_loss"] * len(rows)
    return {**state, "training_loss": loss / n}


def fit(activation, likelihood, x, y, initial_draws, iterations, settings):
    layers = []
    for l, z in enumerate(initial_draws):
        Z = array(z)
        d, k = Z.shape
        M = (Z * math.sqrt(2 / (d - 1))).at[-1].set(Z[-1] if l == 0 else 0.0)
        tau = settings["prior_precision"] * (d - 1 if settings["prior"] == "independent" else 1)
        empty = sums(jnp.zeros((0, d), DTYPE), jnp.zeros((0, k), DTYPE), None, jnp.zeros((0, k), DTYPE))
        M = M if len(initial_draws) > 1 else 0 * M
        posterior = {"mean": M, "row_precision": tau * eye(d), "column_covariance": eye(k)}
        layers.append({**posterior, "statistics": empty, "prior_precision": tau, "determined": 0.0})
    state = {"layers": layers, "likelihood": likelihood, "temperature": 0.0, "iteration": 0,
             "parameters_per_target": 0.0, "step_scale": settings["step_scale"] or 1.0}  # fmt: skip
    history = {"training_loss": [], "temperature": []}
    for draws in iterations:
        state = stepped(activation, state, x, y, None, None, **draws, settings=settings)
        history["training_loss"].append(state["training_loss"])
        history["temperature"].append(state["temperature"])
        if likelihood["kind"] == "gaussian":
            history.setdefault("noise_variance", []).append(state["likelihood"]["noise_variance"])
    names = ("mean", "row_precision", "column_covariance", "prior_precision")
    return {"layers": [{name: layer[name] for name in names} for layer in state["layers"]], **history}
