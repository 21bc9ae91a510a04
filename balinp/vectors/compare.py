"""The one comparison: an error in units of eps, as in ``balinp.testing.residuals``, of plain nested lists."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

import numpy as np


def distance(computed: Any, expected: Any) -> float | None:
    """‖computed − expected‖ (Frobenius), by which a mistake is known again; None where there is none."""
    try:
        got, want = np.asarray(computed, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if got.shape != want.shape or not np.all(np.isfinite(got)):
        return None
    top = float(np.max(np.abs(got - want), initial=0.0))
    return top * float(np.linalg.norm((got - want) / top)) if top > 0 else 0.0


def ratio(computed: Any, expected: Any, rule: dict[str, Any], size: int, eps: float) -> float:
    """How wrong ``computed`` is, in units that a right result stays below rule["threshold"] of.

    kind "norm": ‖computed − expected‖ / (n · eps · κ · max(‖expected‖, scale)), with n = ``size`` the case's largest
    dimension (at least 1), κ = rule["condition"] and scale = rule["scale"]. kind "exact": 0 if equal. Whatever is not a
    finite array of numbers of the expected shape is infinitely wrong.
    """
    try:
        got, want = np.asarray(computed, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    except (TypeError, ValueError):
        return inf
    if got.shape != want.shape or not np.all(np.isfinite(got)):
        return inf
    if rule["kind"] == "exact":
        return 0.0 if np.array_equal(got, want) else inf
    top = max(float(np.max(np.abs(want), initial=0.0)), float(rule["scale"]))
    if top == 0:
        return 0.0 if not np.any(got) else inf
    with np.errstate(over="ignore"):
        error = float(np.linalg.norm(got / top - want / top))  # scaled: squares neither over- nor underflow
    unit = max(float(np.linalg.norm(want / top)), rule["scale"] / top)
    result = error / (max(size, 1) * eps * rule["condition"] * unit)
    return result if isfinite(result) else inf
