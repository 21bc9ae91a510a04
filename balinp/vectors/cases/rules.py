"""Cases of the rules for tempering and for the noise variance."""

from __future__ import annotations

from typing import Any

from ..reference import rules as exact
from ..reference.exact import MP, lists, matrix, squares
from .kit import Case, Mistake, Numbers, Operation, Values

LEAST = MP.mpf("1e-30")  # of what mistakes divide by


def _temperatures() -> list[Case]:
    out = []
    for s, (name, share, layers, cap, tempering) in enumerate(
        [
            ("tempered", 4.75, 3, 0.25, 0.5),
            ("capped", 0.46875, 2, 0.25, 0.5),
            ("one-layer", 3.25, 1, 0.25, 0.5),
            ("switched-off", 4.5, 2, 0.25, None),
            ("nothing-determined", 0.0, 2, 0.25, 0.5),
        ]
    ):
        numbers = Numbers(1190 + s)
        inputs = {
            "parameters_per_target": share,
            "layers": layers,
            "tempering": tempering,
            "max_temperature": cap,
            "column_covariance": numbers.spd(2),
            "row_precision": numbers.spd(3),
            "draw": numbers.matrix(3, 2),
        }
        out.append(Case(name, inputs, {"D": 3, "K": 2}))
    return out


def _heated(factor: Any) -> Any:
    """Another temperature, from (the right one, the inputs); the covariance follows it."""

    def wrong(i: Values) -> Values:
        right = exact.tempering(i)
        t = factor(right["temperature"], i)
        covariance = lists(t * matrix(i["column_covariance"]))
        deviation = lists(exact.tempered_deviation(t, i))
        return {**right, "temperature": t, "column_covariance": covariance, "deviation": deviation}

    return wrong


def _uncapped(t: Any, i: Values) -> Any:
    share = i["parameters_per_target"]
    return t if i["tempering"] is None or i["layers"] == 1 or share == 0 else i["tempering"] / share


def _single_too(t: Any, i: Values) -> Any:
    return t if i["tempering"] is None else exact.heat(i["parameters_per_target"], 2, i)


def _both(i: Values) -> Values:
    right = exact.tempering(i)
    return {**right, "row_precision": lists(matrix(i["row_precision"]) / right["temperature"])}


def _stale(i: Values) -> Values:
    return {**exact.tempering(i), "deviation": lists(exact.tempered_deviation(MP.mpf(1), i))}


def _rooted(i: Values) -> Values:
    right = exact.tempering(i)
    root = MP.sqrt(right["temperature"])
    return {**right, "column_covariance": lists(root * matrix(i["column_covariance"]))}


def _noises() -> list[Case]:
    out = []
    for s, (name, s2, share, floor, n) in enumerate(
        [
            ("shared", 0.5, 0.0, 2.0**-13, 5),
            ("per-output", [0.5, 2.0], 0.0, 2.0**-13, 5),
            ("at-the-mean", 0.5, 0.25, 2.0**-13, 5),
            ("floor", [0.5, 0.25], 0.0, 1.5, 4),
            ("one-datum", [0.5, 2.0], 0.5, 2.0**-13, 1),
        ]
    ):
        numbers = Numbers(1210 + s)
        inputs = {
            "likelihood": {"kind": "gaussian", "noise_variance": s2},
            "outputs": numbers.matrix(n, 2),
            "y": numbers.matrix(n, 2),
            "weights_share": share,
            "rate": 0.25,
            "floor": floor,
        }
        out.append(Case(name, inputs, {"N": n, "K": 2}))
    return out


def _noise_with(residual: Any = None, **change: Any) -> Any:
    def wrong(i: Values) -> Values:
        i = {**i, **{n: f(i) for n, f in change.items()}}
        d = matrix(i["outputs"]) - matrix(i["y"])
        parts = [squares(d[:, j]) / d.rows for j in range(d.cols)]
        parts = parts if residual is None else [residual(v, d.rows) for v in parts]
        moved = exact.moved_noise(i["likelihood"], parts, i["weights_share"], i["rate"], i["floor"])
        return {"noise_variance": moved}

    return wrong


OPERATIONS = (
    Operation(
        "tempering",
        "The temperature of all layers' covariances, and one layer's posterior with it.",
        {
            "eq:tempering": "min(max_temperature, tempering/s), 1 for a single layer or tempering null; "
            "Σ times it, P as it is"
        },
        {
            "parameters_per_target": "s",
            "layers": "how many",
            "tempering": "a number or null",
            "max_temperature": "the cap",
            "column_covariance": "Σ (K, K)",
            "row_precision": "P (D, D)",
            "draw": "z (D, K)",
        },
        {
            "temperature": "a number",
            "column_covariance": "tempered Σ (K, K)",
            "row_precision": "P (D, D)",
            "deviation": "L⁻ᵀ z Rᵀ, L Lᵀ = P, R Rᵀ = tempered Σ: what sampling adds to the mean (D, K)",
        },
        exact.tempering,
        _temperatures(),
        {
            "cap-missing": Mistake("eq:tempering", "max_temperature left out", _heated(_uncapped)),
            "one-layer-tempered": Mistake(
                "eq:tempering", "a single layer tempered, though it is exact", _heated(_single_too)
            ),
            "share-inverted": Mistake(
                "eq:tempering",
                "tempering · s for tempering/s",
                _heated(lambda t, i: exact.heat(1 / max(i["parameters_per_target"], LEAST), i["layers"], i)),
            ),
            "both-factors": Mistake("eq:tempering", "P divided too: the temperature counts twice", _both),
            "stale-factor": Mistake("eq:tempering", "sampling with the factor of Σ from before tempering", _stale),
            "deviation-tempered": Mistake("eq:tempering", "covariance times the root of the temperature", _rooted),
        },
    ),
    Operation(
        "noise_update",
        "The Gaussian's noise variance moved towards the mean squared residual, per output or averaged over them.",
        {"eq:noise-update": "max((1 − β)σ² + β(mean residual² + σ² · weights_share), floor)"},
        {
            "likelihood": "Gaussian: noise_variance σ², a number or one per output",
            "outputs": "h (N, K)",
            "y": "(N, K)",
            "weights_share": "temperature · ∑γ/(N K) when h is at the mean weights; 0 at a draw",
            "rate": "β",
            "floor": "the smallest σ²",
        },
        {"noise_variance": "σ², a number or (K,) as given"},
        exact.noise_update,
        _noises(),
        {
            "rate-swapped": Mistake(
                "eq:noise-update", "βσ² + (1 − β)residual", _noise_with(rate=lambda i: 1 - i["rate"])
            ),
            "sum-for-mean": Mistake(
                "eq:noise-update", "the residual not divided by N", _noise_with(lambda v, n: v * n)
            ),
            "deviation": Mistake(
                "eq:noise-update", "the root of the mean squared residual", _noise_with(lambda v, n: MP.sqrt(v))
            ),
            "weights-share-missing": Mistake(
                "eq:noise-update", "the weights' own share left out", _noise_with(weights_share=lambda i: MP.mpf(0))
            ),
            "floor-missing": Mistake("eq:noise-update", "the floor left out", _noise_with(floor=lambda i: MP.mpf(0))),
        },
    ),
)
