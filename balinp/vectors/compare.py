"""The one comparison: an error in units of eps, as in ``balinp.testing.residuals``, of plain nested lists."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

import numpy as np


def distance(computed: Any, expected: Any) -> float | None:
    """‖computed − expected‖ (Frobenius), by which a mistake is known again; None where there is none."""
    got, want = _numbers(computed), np.asarray(expected, dtype=np.float64)
    if got is None or got.shape != want.shape or not np.all(np.isfinite(got)):
        return None
    top = float(np.max(np.abs(got - want), initial=0.0))
    return top * float(np.linalg.norm((got - want) / top)) if top > 0 else 0.0


def _numbers(value: Any) -> np.ndarray | None:
    """As float64; None where it is no number or no array of numbers: null, text, true, ragged rows."""
    try:
        array = np.asarray(value)
        return array.astype(np.float64) if array.dtype.kind in "iuf" or array.size == 0 else None
    except (TypeError, ValueError, OverflowError):
        return None


def difference(computed: Any, expected: Any) -> str:
    """In words: what ``computed`` is and should be, where it is farthest off."""
    got, want = _numbers(computed), np.asarray(expected, dtype=np.float64)
    if got is None:
        text = "null" if computed is None else repr(computed)
        return f"no numbers of shape {want.shape}: {text if len(text) <= 40 else text[:40] + '…'}"
    if got.shape != want.shape:
        return f"shape {got.shape}, expected {want.shape}"
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.where(np.isfinite(got), np.abs(got - want), np.inf)
    place = np.unravel_index(int(np.argmax(off)), off.shape)
    return f"{''.join(f'[{i}]' for i in place)} {got[place]:.9g}, expected {want[place]:.9g}".strip()


def ratio(computed: Any, expected: Any, rule: dict[str, Any], size: int, eps: float) -> float:
    """How wrong ``computed`` is, in units that a right result stays below rule["threshold"] of.

    kind "norm": ‖computed − expected‖ / (n · eps · κ · max(‖expected‖, scale)), with n = ``size`` the case's largest
    dimension (at least 1), κ = rule["condition"] and scale = rule["scale"]. kind "exact": 0 if equal. Whatever is not a
    finite array of numbers of the expected shape is infinitely wrong.
    """
    got, want = _numbers(computed), np.asarray(expected, dtype=np.float64)
    if got is None or got.shape != want.shape or not np.all(np.isfinite(got)):
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
