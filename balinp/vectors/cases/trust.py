"""Iterations whose step the trust region cuts, grows or refuses, and the mistakes that only they show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from ..reference import iteration as exact
from ..reference import rules
from ..reference.exact import MP, lists
from .kit import Mistake, Values, scaled, zeros
from .states import LITERAL, MEAN, NATURAL, instance

_GRADIENT: Values = {**LITERAL, "rate": 0.25, "trust_region": True}
_SAMPLED: Values = {**NATURAL, "trust_region": True, "step_scale": 1.0, "warmup": 0}


def trusted_iterations() -> list[tuple[str, Values]]:
    """Names and inputs; the seeds are some for which the region decides."""
    draws = {"gradients": "sampled", "step_size": 2.0, "step_scale": 1.0, "tempering": 0.125}
    return [
        ("trust-region", instance(1413, {**_GRADIENT, "step_size": 4.0}, t=0)),
        ("trust-region-begun", _begun(instance(1502, _SAMPLED, n=4, total=20.0), step_scale=0.5)),
        ("trust-region-weighted", _begun(instance(1525, _SAMPLED, weighted=True), step_scale=0.5)),
        (
            "trust-region-at-its-limit",
            _begun(instance(1500, {**MEAN, "trust_region": True, "step_scale": 0.25}), step_scale=0.1875),
        ),
        ("trust-region-refuses", instance(1500, {**_GRADIENT, "step_size": 2.0**32})),
        ("trust-region-at-rest", _at_rest(instance(1500, {**_GRADIENT, "step_scale": 1.0}, (2, 1)))),
        (
            "trust-region-prior",
            _begun(instance(1581, _SAMPLED, n=4, total=4.0), tau=8.0, step_scale=1.0, temperature=4.0),
        ),
        (
            "trust-region-tied",
            _begun(instance(1549, {**_GRADIENT, **draws}, n=4, total=8.0), tau=4.0, temperature=1.0),
        ),
    ]


def _begun(inputs: Values, tau: float | None = None, **state: Any) -> Values:
    """The instance from another state."""
    layers = inputs["state"]["layers"]
    layers = layers if tau is None else [{**layer, "prior_precision": tau} for layer in layers]
    return {**inputs, "state": {**inputs["state"], **state, "layers": layers}}


def _at_rest(inputs: Values) -> Values:
    """A linear layer with nothing left to learn: its mean and the targets are 0."""
    (layer,) = inputs["state"]["layers"]
    still = _begun({**inputs, "y": zeros(len(inputs["x"]), 1)}, step_scale=0.25)
    return {**still, "state": {**still["state"], "layers": [{**layer, "mean": scaled(layer["mean"], 0.0)}]}}


def _with(name: str, other: Callable[[Values, Any], Any]) -> Callable[[Values], Values]:
    """The iteration with another function: other(i, right) in place of ``right``, the reference's of that name."""

    def wrong(i: Values) -> Values:
        with patch.object(exact, name, other(i, getattr(exact, name))):
            return exact.iteration(i)

    return wrong


def _region(change: Callable[..., tuple[Any, Any]]) -> Callable[[Values], Values]:
    """``change(right, i, weights, parts, loss, factor, rate)`` in place of the region's rule, where there is one."""

    def other(_: Values, right: Any) -> Any:
        def rule(i: Values, *rest: Any) -> Any:
            return change(right, i, *rest) if i["settings"]["trust_region"] else right(i, *rest)

        return rule

    return _with("taken_scale", other)


def _limit(i: Values, rate: Any) -> Any:
    return rate if i["settings"]["step_scale"] is None else i["settings"]["step_scale"]


def _forgetful(right: Any, i: Values, *rest: Any) -> Any:
    return right({**i, "state": {**i["state"], "step_scale": _limit(i, rest[-1])}}, *rest)


def _unlimited(right: Any, *given: Any) -> Any:
    scale, following = right(*given)
    return scale, 3 * scale / 2 if scale > 0 else following


def _unscaled(right: Any, i: Values, weights: Any, parts: Any, loss: Any, factor: Any, rate: Any) -> Any:
    return right(i, weights, parts, loss, MP.mpf(1), rate)


def _averaged(right: Any, i: Values, weights: Any, parts: Any, loss: Any, factor: Any, rate: Any) -> Any:
    return right(i, weights, parts, loss, factor / sum(i["sample_weight"] or [1] * len(i["x"])), rate)


def _strict(right: Any, i: Values, weights: Any, parts: Any, *rest: Any) -> Any:
    """< for ≤: the same but where no step is left to take."""
    if any(v != 0 for r in parts for v in r["delta"]):
        return right(i, weights, parts, *rest)
    return MP.mpf(0), min(i["state"]["step_scale"], _limit(i, rest[-1])) * MP.mpf("0.3") ** 12


def _unweighted(right: Any, i: Values, weights: Any, parts: Any, loss: Any, factor: Any, rate: Any) -> Any:
    plain = exact.batch_sums({**i, "sample_weight": None}, weights)[1]
    return right({**i, "sample_weight": None}, weights, parts, plain, factor, rate)


def _at_means(right: Any, i: Values, weights: Any, parts: Any, loss: Any, factor: Any, rate: Any) -> Any:
    means = exact.means_of(i["state"])
    return right(i, means, parts, exact.batch_sums(i, means)[1], factor, rate)


def _at_the_draw(right: Any, i: Values, weights: Any, *rest: Any) -> Any:
    layers = [{**layer, "mean": lists(W)} for layer, W in zip(i["state"]["layers"], weights, strict=True)]
    return right({**i, "state": {**i["state"], "layers": layers}}, weights, *rest)


def _obstinate(right: Any, *given: Any) -> Any:
    scale, following = right(*given)
    return (scale, following) if scale > 0 else (following, following)


def _begun_anew(right: Any, i: Values, *rest: Any) -> Any:
    scale, following = right(i, *rest)
    return (scale, following) if scale > 0 else (scale, min(i["state"]["step_scale"], _limit(i, rest[-1])))


def _impatient(right: Any, i: Values, *rest: Any) -> Any:
    """Three tries, the last of which is taken as it is."""
    scale, following = right(i, *rest)
    first = min(i["state"]["step_scale"], _limit(i, rest[-1]))
    least = first * MP.mpf("0.09")
    return (scale, following) if scale >= least else (least, least)


def _length(change: Callable[[Any, str, Any, Any], Any]) -> Callable[[Values], Values]:
    """Another ‖M‖² in the objective, given the right one; evidence has its own."""

    def other(_: Values, right: Any) -> Any:
        def penalty(*given: Any) -> Any:
            length = rules.prior_length
            with patch.object(rules, "prior_length", lambda prior, M, S: change(length, prior, M, S)):
                return right(*given)

        return penalty

    return _with("penalty", other)


_R = "eq:trust-region"
TRUST_MISTAKES = {
    "trust-region-missing": Mistake(
        _R,
        "the step not cut until the objective falls",
        lambda i: exact.iteration({**i, "settings": {**i["settings"], "trust_region": False}}),
    ),
    "region-forgotten": Mistake(_R, "the first try the whole step, not the state's step_scale", _region(_forgetful)),
    "region-unlimited": Mistake(_R, "the next try grown beyond the step_scale of the settings", _region(_unlimited)),
    "region-without-total": Mistake(_R, "the objective's loss not scaled by N/m", _region(_unscaled)),
    "region-of-the-mean": Mistake(_R, "the objective's loss a mean over rows, not a sum", _region(_averaged)),
    "region-strict": Mistake(_R, "a step refused that leaves the objective as it is", _region(_strict)),
    "region-without-weights": Mistake(_R, "sample weights left out of the objective", _region(_unweighted)),
    "region-at-the-means": Mistake(
        _R, "the objective's loss at the means though the weights are drawn", _region(_at_means)
    ),
    "region-prior-at-the-draw": Mistake(
        _R, "the objective's prior at the drawn weights, not at the means", _region(_at_the_draw)
    ),
    "region-without-prior": Mistake(
        _R, "the prior left out of the objective", _length(lambda right, prior, M, S: MP.mpf(0))
    ),
    "region-tied-norm-missing": Mistake(
        _R,
        "tr(MᵀM) in the objective for the tied prior too",
        _length(lambda right, prior, M, S: right("independent", M, S)),
    ),
    "region-tied-norm-inverted": Mistake(
        _R,
        "tr(S MᵀM) in the objective for tr(S⁻¹MᵀM)",
        _length(lambda right, prior, M, S: right(prior, M, S**-1)),
    ),
    "region-obstinate": Mistake(_R, "a step taken though no try lowers the objective", _region(_obstinate)),
    "region-begun-anew": Mistake(_R, "the next try not shortened though no step was taken", _region(_begun_anew)),
    "region-impatient": Mistake(_R, "fewer than twelve tries", _region(_impatient)),
}
