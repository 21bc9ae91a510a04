"""Mistakes in how many parameters a target determines, by which draws are tempered and the noise is corrected."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from ..reference import iteration as exact
from ..reference import rules
from ..reference.exact import MP
from .kit import Mistake, Values


def _with_rule(name: str, other: Any) -> Any:
    """The iteration with another rule: other(i, right) in place of ``right``, the rule of that name."""

    def wrong(i: Values) -> Values:
        with patch.object(rules, name, other(i, getattr(rules, name))):
            return exact.iteration(i)

    return wrong


def _claimed(i: Values, right: Any) -> Any:
    after = exact.iteration({**i, "settings": {**i["settings"], "evidence": False}})
    gamma = sum(layer["effective_parameters"] for layer in after["layers"])
    total = sum(i["sample_weight"] or [MP.mpf(1)] * len(i["x"])) if i["total"] is None else i["total"]
    return lambda *_: gamma / (total * len(i["state"]["layers"][-1]["column_covariance"]))


def _undamped(i: Values, right: Any) -> Any:
    return lambda share, found, temperature, targets, rate: right(share, found, temperature, targets, MP.mpf(1))


def _heated(i: Values, right: Any) -> Any:
    return lambda share, found, temperature, targets, rate: right(share, found, MP.mpf(1), targets, rate)


def _euclidean(i: Values, right: Any) -> Any:
    unit = {"kind": "gaussian", "noise_variance": MP.mpf(1)}
    return lambda likelihood, drawn, central, weights: right(unit, drawn, central, weights)


SHARE_MISTAKES = {
    "share-claimed": Mistake(
        "eq:output-spread", "s by the sum of γ while sampling too", _with_rule("updated_share", _claimed)
    ),
    "share-not-damped": Mistake(
        "eq:output-spread", "the measured s without its average", _with_rule("updated_share", _undamped)
    ),
    "spread-heated": Mistake(
        "eq:output-spread", "the spread not divided by the temperature", _with_rule("updated_share", _heated)
    ),
    "spread-without-curvature": Mistake(
        "eq:output-spread", "squared distances of outputs, not in units of the noise", _with_rule("spread", _euclidean)
    ),
    "spread-every-time": Mistake(
        "eq:output-spread",
        "the spread measured in every iteration",
        _with_rule("measures_spread", lambda i, right: lambda t, weight: True),
    ),
    "spread-by-rows": Mistake(
        "eq:output-spread",
        "⌈rows/1024⌉ for ⌈m/1024⌉, m the sum of the weights",
        _with_rule("measures_spread", lambda i, right: lambda t, weight: right(t, MP.mpf(len(i["x"])))),
    ),
    "spread-a-time-late": Mistake(
        "eq:output-spread",
        "the spread measured where ⌈m/1024⌉ divides t + 1",
        _with_rule("measures_spread", lambda i, right: lambda t, weight: right(t + 1, weight)),
    ),
    "share-not-limited": Mistake(
        "eq:noise-update",
        "the weights' share of the noise above 1",
        _with_rule("weights_share", lambda i, right: lambda heat, gamma, targets: heat * gamma / targets),
    ),
}
