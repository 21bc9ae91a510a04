"""How far to go along a step: the trust region."""

from __future__ import annotations

from collections.abc import Callable


def trusted_scale(
    objective: Callable[[float], float], limit: float, start: float, largest: float
) -> tuple[float, float]:
    """(scale to take, scale to try next): cut by 0.3 until the objective is low, grown by 1.5 after.
    (eq:trust-region)

    ``objective(scale)``: N/m ∑ℓ_n at the weights that the gradients were taken at, moved ``scale`` of the way, plus the
    priors' terms; σ², τ and S are held fixed. Low is at most ``limit``, its value at 0 or more; a step that never
    brings it there is not taken.
    """
    scale = start
    for _ in range(12):
        if objective(scale) <= limit:
            return scale, min(1.5 * scale, largest)
        scale *= 0.3
    return 0.0, scale
