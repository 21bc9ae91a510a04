"""How far whole fits drift apart when only the block size differs: one iteration agrees, a fit amplifies rounding.

Run: python benchmarks/drift.py   (Friedman-1, N = 1000, widths 10-50-1, one seed)
"""

from __future__ import annotations

import platform

import numpy as np
import scipy

import balinp
from balinp import MLP, Gaussian, Settings, bali_step, initial_state

ITERATIONS = (1, 10, 100, 300)


def trajectory(block_rows: int, gradients: str) -> list[list[np.ndarray]]:
    """The means of all layers after each of ITERATIONS."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (1000, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = ((y + generator.standard_normal(1000) - y.mean()) / y.std())[:, None]
    settings = Settings(block_rows=block_rows, gradients=gradients)
    state = initial_state(MLP((10, 50, 1)), Gaussian(np.ones(1)), generator, settings)
    means = []
    for t in range(1, max(ITERATIONS) + 1):
        state = bali_step(state, (x - 0.5) * 12**0.5, y, generator, settings)
        if t in ITERATIONS:
            means.append(state.means)
    return means


def main() -> None:
    print(
        f"balinp {balinp.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, {platform.machine()}; seed 0"
    )
    print("largest ‖ΔM‖/‖M‖ of a layer against one block of all 1000 rows\n")
    print("| gradients | block rows | " + " | ".join(f"after {t}" for t in ITERATIONS) + " |")
    print("|---|---|" + "---|" * len(ITERATIONS))
    for gradients in ("sampled", "mean"):
        whole = trajectory(1000, gradients)
        for block_rows in (64, 333):
            other = trajectory(block_rows, gradients)
            drift = [
                max(np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(first, second))
                for first, second in zip(whole, other)
            ]
            print(f"| {gradients} | {block_rows} | " + " | ".join(f"{d:.1e}" for d in drift) + " |")


if __name__ == "__main__":
    main()
