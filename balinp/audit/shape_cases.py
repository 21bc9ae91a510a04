"""Calls of the core's public functions on arrays of random sizes, all different: what shapes.py holds docstrings to."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import (
    MLP,
    NUMPY,
    Categorical,
    Gaussian,
    Heteroscedastic,
    LayerStatistics,
    MatrixNormal,
    Prior,
    Settings,
    initial_state,
    layer_posterior,
    log_evidence,
    predict_linearized,
    predict_monte_carlo,
    probit_probabilities,
    pseudo_targets,
)
from ..evidence import kronecker_precision, prior_norm, step_curvature
from ..passes import block_sums, data_sums
from ..solver import bali_step
from ..training import fit
from .shapes import Case

Cases = dict[str, list[Case]]


def cases(generator: np.random.Generator) -> Cases:
    """Per function (and per class, whose fields are its arguments) one call or a few."""
    sizes = dict(zip("NDKS", map(int, generator.choice(np.arange(3, 14), 4, replace=False))))
    return {
        **_linear_algebra(generator, sizes),
        **_layer(generator, sizes),
        **_likelihoods(generator, sizes),
        **_network(generator, sizes),
    }


def _spd(generator: np.random.Generator, n: int) -> np.ndarray:
    A = generator.standard_normal((n + 2, n))
    return A.T @ A + np.eye(n)


def _linear_algebra(generator: np.random.Generator, s: dict[str, int]) -> Cases:
    P, right = _spd(generator, s["D"]), generator.standard_normal((s["D"], s["K"]))
    L = NUMPY.cholesky(P)
    name = "backend.Backend."
    return {
        f"{name}cholesky": [Case(s, {}, (L,))],
        f"{name}solve_triangular": [Case(s, {"L": L, "right": right}, (NUMPY.solve_triangular(L, right),))],
        f"{name}triangular_inverse": [Case(s, {"L": L}, (NUMPY.triangular_inverse(L),))],
        f"{name}cho_solve": [Case(s, {"factor": L, "right": right}, (NUMPY.cho_solve(L, right),))],
        f"{name}eigh": [Case(s, {}, NUMPY.eigh(P))],
    }


def _layer(generator: np.random.Generator, s: dict[str, int]) -> Cases:
    n, d, k, draws = s.values()
    A, T, Z = (generator.standard_normal((n, size)) for size in (d, k, k))
    M, P, sigma = generator.standard_normal((d, k)), _spd(generator, d), _spd(generator, k)
    w, z = np.ones(n), generator.standard_normal((draws, d, k))
    q, sums, prior = MatrixNormal(M, P, sigma), LayerStatistics.from_batch(A, T, w, Z), Prior(M, P)
    posterior = layer_posterior(sums, prior, sigma)
    natural = q.natural_parameters()
    normal, layer = "matrix_normal.MatrixNormal", "statistics.LayerStatistics"
    fields = {"count": sums.count, "gram": sums.gram, "cross": sums.cross, "curvature": sums.curvature}
    return {
        normal: [Case(s, {"mean": M, "row_precision": P, "column_covariance": sigma})],
        f"{normal}.row_factor": [Case(s, {}, (q.row_factor,))],
        f"{normal}.column_factor": [Case(s, {}, (q.column_factor,))],
        f"{normal}.log_density": [Case(s, {"w": M}, (q.log_density(M),))],
        f"{normal}.sample": [Case(s, {}, (q.sample(z), q.sample(z[0])))],
        f"{normal}.natural_parameters": [Case(s, {}, natural)],
        f"{normal}.row_variance": [Case(s, {"a": A}, (q.row_variance(A),))],
        f"{normal}.predictive": [Case(s, {"a": A}, q.predictive(A))],
        f"{normal}.with_column_covariance": [Case(s, {"sigma": sigma})],
        f"{normal}.with_mean": [Case(s, {"mean": M}, (q.with_mean(M).mean,))],
        layer: [Case(s, {**fields, "target_gram": sums.target_gram, "T": T, "A": A})],
        f"{layer}.from_batch": [Case(s, {"inputs": A, "targets": T, "weights": w, "probes": Z})],
        f"{layer}.map_targets": [Case(s, {"matrix": sigma}, (sums.map_targets(sigma).target_gram,))],
        "regression.Prior": [Case(s, {"mean": M, "precision": P})],
        "regression.Prior.isotropic": [Case(s, {"mean": M}, (Prior.isotropic(M, 0.3).mean,))],
        "regression.Prior.linear_term": [Case(s, {}, (prior.linear_term,))],
        "regression.pseudo_targets": [
            Case(s, {"outputs": T, "gradients": Z, "step": sigma}, (pseudo_targets(T, Z, sigma),))
        ],
        "regression.layer_posterior": [
            Case(
                s,
                {"statistics.gram": sums.gram, "statistics.cross": sums.cross, "noise_covariance": sigma},
                (posterior.mean,),
            )
        ],
        "regression.log_evidence": [Case(s, {}, (log_evidence(sums, prior, sigma),))],
        "evidence.step_curvature": [Case(s, {"curvature": sigma}, (step_curvature(sigma, Settings(), np),))],
        "evidence.kronecker_precision": [
            Case(s, {"curvature": sigma}, (kronecker_precision(sigma, 0.5, q, 0.3, "independent")[1],))
        ],
        "evidence.prior_norm": [Case(s, {"mean": M}, (prior_norm(M, sigma, "tied", NUMPY),))],
    }


def _likelihoods(generator: np.random.Generator, s: dict[str, int]) -> Cases:
    n, k = s["N"], s["K"]
    h, y, noise = generator.standard_normal((3, n, k))
    variances = generator.uniform(0.5, 1, k)
    result: Cases = {}
    both = generator.standard_normal((n, 2 * k))
    kinds: tuple[tuple[str, Any, np.ndarray, Any, np.ndarray], ...] = (
        ("likelihoods.Gaussian", Gaussian(variances), h, y, noise),
        ("likelihoods.Categorical", Categorical(), h, generator.integers(0, k, n), noise),
        ("heteroscedastic.Heteroscedastic", Heteroscedastic(), both, y, generator.standard_normal((n, 2 * k))),
    )
    for name, likelihood, outputs, targets, probe in kinds:
        case = {"h": outputs, "y": targets}
        result |= {
            f"{name}.loss": [Case(s, case, (likelihood.loss(outputs, targets),))],
            f"{name}.gradient": [Case(s, case, (likelihood.gradient(outputs, targets),))],
            f"{name}.curvature": [Case(s, case, (likelihood.curvature(outputs),))],
            f"{name}.probe": [Case(s, {"h": outputs, "noise": probe}, (likelihood.probe(outputs, probe),))],
            f"{name}.aleatoric": [Case(s, case, (likelihood.aleatoric(outputs),))],
            f"{name}.layer_curvature": [Case(s, case, (likelihood.layer_curvature(outputs),))],
            f"{name}.row_curvature": [Case(s, case, (likelihood.row_curvature(outputs),))],
        }
    rows = Categorical().one_hot(h, kinds[1][3])
    result["likelihoods.Categorical.one_hot"] = [Case(s, {"h": h, "y": rows}, (rows,))]
    name = "heteroscedastic.Heteroscedastic"
    mixed: Any = kinds[2][1]
    result["likelihoods.Gaussian"] = [Case(s, {"noise_variance": variances})]
    residual = Gaussian(variances).squared_residual(h, y, np.ones(n))
    result["likelihoods.Gaussian.squared_residual"] = [Case(s, {}, (residual,))]
    result[f"{name}.split"] = [Case(s, {"h": both}, mixed.split(both))]
    result[f"{name}.row_weights"] = [Case(s, {"h": both, "y": y}, (mixed.row_weights(both, y),))]
    result[f"{name}.referred_to"] = [Case(s, {"curvature": np.eye(2 * k)})]
    result[f"{name}.aleatoric"] = [Case(s, {"h": both, "log_variance_variance": y**2}, (mixed.aleatoric(both, y**2),))]
    return result


def _network(generator: np.random.Generator, s: dict[str, int]) -> Cases:
    n, d, k, draws = s.values()
    widths = (d, *(int(w) for w in generator.choice(np.arange(14, 20), 2, replace=False)), k)
    mlp, likelihood, settings = MLP(widths), Gaussian(np.full(k, 0.3)), Settings(warmup=0)
    x, y = generator.standard_normal((n, d)), generator.standard_normal((n, k))
    state = bali_step(initial_state(mlp, likelihood, generator, settings), x, y, generator, settings)
    passes = mlp.forward(state.means, x)
    gradients, jacobians = mlp.backward(state.means, passes, y), mlp.jacobians(state.means, passes)
    flat = {**s, "n": n, "m": n, "K_L": k, "L": len(widths) - 1}
    layers = [{**flat, "D_l": rows, "K_l": columns} for rows, columns in mlp.shapes]
    linear, sampled = predict_linearized(state, x), predict_monte_carlo(state, x, generator, draws)
    classes = initial_state(MLP((d, k)), Categorical(), generator, settings)
    drawn = predict_monte_carlo(classes, x, generator, draws)
    predictive = {**flat, "S": draws}
    fields = {name: getattr(linear, name) for name in ("mean", "aleatoric", "epistemic", "epistemic_by_layer")}
    extra = {"probabilities": drawn.probabilities, "draws": sampled.draws, "draw_variances": sampled.draws}
    sums = data_sums(mlp, likelihood, state.means, x, y, generator, settings, None)
    noise = np.ones((n, k))
    one = block_sums(mlp, likelihood, state.means, x, y, noise)
    V = np.stack([_spd(generator, k)] * n)
    end = fit(x, y, mlp, likelihood, generator, Settings(max_iterations=1, tolerance=0), sample_weight=np.ones(n))
    data = {"x": x, "y": y, "sample_weight": np.ones(n)}
    result: Cases = {
        "mlp.Activations": [
            Case(z, {"inputs": a, "outputs": h}) for z, a, h in zip(layers, passes.inputs, passes.outputs)
        ],
        "mlp.MLP": [Case(z, {}, (w,)) for z, w in zip(layers, state.means)],
        "mlp.MLP.shapes": [Case(z, {}, (w,)) for z, w in zip(layers, state.means)],
        "mlp.MLP.forward": [
            Case(z, {"weights": w}, (a, h)) for z, w, a, h in zip(layers, state.means, passes.inputs, passes.outputs)
        ],
        "mlp.MLP.backward": [Case(z, {"output_gradient": y}, (g,)) for z, g in zip(layers, gradients)],
        "mlp.MLP.jacobians": [Case(z, {}, (J,)) for z, J in zip(layers, jacobians)],
        "mlp.MLP.pushforward": [
            Case(z, {"directions": w}, (mlp.pushforward(state.means, passes, state.means),))
            for z, w in zip(layers, state.means)
        ],
        "state.BALIState.means": [Case(z, {}, (w,)) for z, w in zip(layers, state.means)],
        "solver.bali_step": [Case(flat, data)],
        "training.fit": [Case(flat, data, (end.history,))],
        "passes.block_sums": [Case(flat, {"x": x, "y": y, "labels": noise[:, 0], "probe_noise": noise}, (one.loss,))],
        "passes.data_sums": [Case(flat, {}, (sums.loss,))],
        "predictive.Predictive": [Case(predictive, {**fields, **extra})],
        "predictive.Predictive.covariance": [Case(flat, {}, (linear.covariance,))],
        "predictive.Predictive.log_density": [
            Case(flat, {"y": y}, (p.log_density(y, NUMPY),)) for p in (linear, sampled)
        ],
        "predictive.Predictive.entropy": [Case(flat, {}, (drawn.entropy(NUMPY),))],
        "predictive.predict_linearized": [Case(flat, {"x": x})],
        "predictive.predict_monte_carlo": [Case(flat, {"x": x})],
        "predictive.predict_joint": [Case(flat, {"x": x})],
        "predictive.probit_probabilities": [
            Case(flat, {"covariance": V}, (probit_probabilities(y, V, Categorical()),))
        ],
    }
    return result
