"""Does the epistemic deviation grow in a gap of the data? The layers' posteriors beside the joint one, densely.

Run: OPENBLAS_NUM_THREADS=1 python benchmarks/gap.py [--seeds 5]

The two curves of examples/toy.py, BALIRegressor's defaults. Per seed: the mean epistemic deviation in the middle half
of the gap, and outside the data, over that on the data; of the linearised predictive, by layer and in all, and of the
joint posterior N(M, (H + diag τ)⁻¹) at the same weights, noise and prior precisions, H the dense Gauss–Newton precision
of all weights (balinp.testing.gradients.dense_ggn), and of what the estimator predicts: draws of it at the noise that
held-out rows chose. A temperature would scale all of a column alike and no ratio.
"""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from pathlib import Path

import numpy as np

import balinp
from balinp import BALIRegressor, Gaussian, predict_linearized
from balinp.testing.gradients import dense_ggn, weight_jacobians

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from toy import CURVES

COLUMNS = ("first layer", "output layer", "both", "joint posterior", "as predicted")


def deviations(name: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Which points of the grid lie where, and their deviations (5, points) in the order of COLUMNS."""
    curve = CURVES[name]
    x, y = curve.rows(120, np.random.default_rng(seed))
    model, grid = BALIRegressor(random_state=seed).fit(x, y), np.linspace(*curve.shown, 200)
    state, noise = model.state_, np.asarray(model.history_[-1].noise_variance) / model.y_scaler_.scale**2
    rows, points = (model.x_scaler_.transform(part, np.float64) for part in (x, grid[:, None]))
    found = predict_linearized(state, points)
    precision = dense_ggn(state.mlp, Gaussian(noise), state.means, rows)
    precision += np.diag(np.concatenate([np.full(q.posterior.mean.size, q.prior_precision) for q in state.layers]))
    J = np.concatenate(weight_jacobians(state.mlp, state.means, points), axis=2)[:, 0]
    joint = np.einsum("np,pn->n", J, np.linalg.solve(precision, J.T))
    assert found.epistemic_by_layer is not None
    variances = [*found.epistemic_by_layer[:, :, 0, 0], found.epistemic[:, 0, 0], joint]
    variances.append(model.predict_distribution(grid[:, None]).epistemic[:, 0, 0])
    return curve.parts(grid), np.sqrt(np.array(variances))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    warnings.simplefilter("ignore")
    print(f"Output of `OPENBLAS_NUM_THREADS=1 python benchmarks/gap.py --seeds {len(seeds)}`; seeds {list(seeds)};")
    print(f"balinp {balinp.__version__}, numpy {np.__version__}, python {platform.python_version()}\n")
    print("Epistemic deviation over that on the data; median of the seeds (least, most).\n")
    print(f"| curve | where | {' | '.join(COLUMNS)} |\n|---|---|---|---|---|---|---|")
    for name in CURVES:
        found = [deviations(name, seed) for seed in seeds]
        for part in ("gap", "outside"):
            ratios = np.array([d[:, parts[part]].mean(axis=1) / d[:, parts["data"]].mean(axis=1) for parts, d in found])
            cells = (f"{np.median(r):.2f} ({r.min():.2f}, {r.max():.2f})" for r in ratios.T)
            print(f"| {name} | {part} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
