"""States in training, and the settings, that the cases of iterations and fits begin with."""

from __future__ import annotations

from typing import Any

from .kit import Numbers, Values, eye, scaled, zeros
from .priors import BOUNDS

LITERAL: Values = {
    "step": "gradient",
    "step_size": 0.25,
    "noise": "step",
    "gradients": "mean",
    "prior": "tied",
    "prior_precision": 0.75,
    "evidence": False,
    "rate": 1.0,
    "step_scale": None,
    "warmup": 0,
    "tempering": None,
    "max_temperature": 0.25,
    "damping": 0.0,
    "noise_floor": 2.0**-13,
    "learn_noise": False,
    "trust_region": False,
    "precision_bounds": BOUNDS,
}


NATURAL: Values = {
    **LITERAL,
    "step": "natural",
    "gradients": "sampled",
    "prior": "independent",
    "prior_precision": 0.125,
    "evidence": True,
    "rate": 0.25,
    "step_scale": 0.125,
    "warmup": 10,
    "tempering": 0.125,
    "learn_noise": True,
}


MEAN: Values = {**NATURAL, "gradients": "mean"}


CLASSES: Values = {**NATURAL, "evidence": False, "rate": 0.125, "warmup": 0, "tempering": 0.0625, "learn_noise": False}


GAUSSIAN: Values = {"kind": "gaussian", "noise_variance": 0.25}


PER_OUTPUT: Values = {"kind": "gaussian", "noise_variance": [0.5, 0.25]}


def _layer(numbers: Numbers, d: int, k: int, begun: bool) -> Values:
    if not begun:
        empty = {"gram": zeros(d, d), "cross": zeros(d, k), "target_gram": zeros(k, k), "curvature": zeros(k, k)}
        return {
            "mean": numbers.matrix(d, k, 1.0),
            "row_precision": eye(d, 0.75),
            "column_covariance": eye(k),
            "statistics": {"count": 0.0, **empty},
            "prior_precision": 0.75,
            "determined": 0.0,
        }
    sums = {
        "count": 16.0,
        "gram": scaled(numbers.spd(d, 2.0), 4.0),
        "cross": numbers.matrix(d, k),
        "target_gram": numbers.spd(k),
        "curvature": scaled(numbers.spd(k, 1.0), 8.0),
    }
    posterior = {**numbers.posterior(d, k), "mean": numbers.matrix(d, k, 1.0)}
    posterior["row_precision"] = scaled(posterior["row_precision"], 4.0)
    return {**posterior, "statistics": sums, "prior_precision": 0.375, "determined": 0.625}


def instance(
    seed: int,
    settings: Values,
    widths: tuple[int, ...] = (2, 3, 2),
    likelihood: Values = GAUSSIAN,
    activation: str = "tanh",
    n: int = 5,
    t: int = 12,
    total: float | None = None,
    weighted: bool = False,
) -> Values:
    numbers, deep = Numbers(seed), len(widths) > 2
    layers = [_layer(numbers, d + 1, k, t > 0) for d, k in zip(widths, widths[1:])]
    state = {
        "layers": layers,
        "likelihood": likelihood,
        "temperature": 0.1875 if t > 0 else 0.0,
        "step_scale": 1.0 if settings["step_scale"] is None else settings["step_scale"],
        "iteration": t,
        "parameters_per_target": 0.75 if t > 0 else 0.0,
    }
    y: Any = numbers.matrix(n, widths[-1]) if likelihood["kind"] == "gaussian" else numbers.integers(n, widths[-1])
    sampled = settings["gradients"] == "sampled" and deep and t > 0
    return {
        "activation": activation,
        "state": state,
        "x": numbers.matrix(n, widths[0]),
        "y": y,
        "sample_weight": [0.5 + v for v in numbers.integers(n, 3)] if weighted else None,
        "total": total,
        "weight_draws": [numbers.matrix(d + 1, k) for d, k in zip(widths, widths[1:])] if sampled else None,
        "probe_noise": [[float(v) for v in r] for r in numbers.signs(n, widths[-1])]
        if deep and settings["step"] != "gradient"
        else None,
        "settings": settings,
    }


def shapes_of(inputs: Values) -> dict[str, int]:
    layers = inputs["state"]["layers"]
    return {
        "N": len(inputs["x"]),
        "K0": len(inputs["x"][0]),
        **{f"K{l + 1}": len(v["column_covariance"]) for l, v in enumerate(layers)},
    }
