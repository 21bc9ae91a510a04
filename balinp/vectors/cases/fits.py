"""Cases of an epoch of mini-batches and of whole tiny fits. Every setting is an input; so is every draw."""

from __future__ import annotations

from ..reference import iteration as exact
from ..reference.exact import MP, lists, matrix
from .iteration import SETTINGS, STATE_OUT, STATEMENTS
from .kit import Case, Mistake, Numbers, Operation, Values
from .states import CLASSES, GAUSSIAN, LITERAL, NATURAL, instance, shapes_of


def _epochs() -> list[Case]:
    out = []
    for s, (name, settings, n, size, likelihood) in enumerate(
        [
            ("even-batches", NATURAL, 6, 2, GAUSSIAN),
            ("uneven-batches", {**CLASSES, "evidence": True}, 7, 3, {"kind": "categorical"}),
        ]
    ):
        widths, numbers = (2, 2, 2), Numbers(1500 + s)
        inputs = instance(1510 + s, {**settings, "batch_size": size}, widths, likelihood, n=n)
        for unused in ("weight_draws", "probe_noise", "total", "sample_weight"):
            del inputs[unused]
        pieces = -(-n // size)
        inputs["permutation"] = numbers.permutation(n)
        inputs["batches"] = [
            {
                "weight_draws": [numbers.matrix(d + 1, k) for d, k in zip(widths, widths[1:])],
                "probe_noise": [
                    [float(v) for v in r] for r in numbers.signs(n * (b + 1) // pieces - n * b // pieces, 2)
                ],
            }
            for b in range(pieces)
        ]
        out.append(Case(name, inputs, shapes_of(inputs)))
    return out


def _in_order(i: Values) -> Values:
    return exact.epoch({**i, "permutation": sorted(i["permutation"])})


def _last_loss(i: Values) -> Values:
    n, pieces = len(i["x"]), len(i["batches"])
    rows = i["permutation"][n * (pieces - 1) // pieces :]
    state = i["state"]
    for b, draws in enumerate(i["batches"]):
        rows = i["permutation"][n * b // pieces : n * (b + 1) // pieces]
        part = {"x": [i["x"][r] for r in rows], "y": [i["y"][r] for r in rows]}
        state = exact.iteration({**i, **draws, **part, "total": MP.mpf(n), "state": state, "sample_weight": None})
    return state


def _batches_as_everything(i: Values) -> Values:
    """N/m left out in every batch."""
    n, pieces, state, loss = len(i["x"]), len(i["batches"]), i["state"], MP.mpf(0)
    for b, draws in enumerate(i["batches"]):
        rows = i["permutation"][n * b // pieces : n * (b + 1) // pieces]
        part = {"x": [i["x"][r] for r in rows], "y": [i["y"][r] for r in rows]}
        state = exact.iteration({**i, **draws, **part, "total": None, "state": state, "sample_weight": None})
        loss += state["training_loss"] * len(rows)
    return {**state, "training_loss": loss / n}


def _fits() -> list[Case]:
    out = []
    quick = {**NATURAL, "warmup": 2, "step_scale": 0.25}
    for s, (name, settings, widths, likelihood, activation, n) in enumerate(
        [
            ("literal", {**LITERAL, "step_size": 0.125}, (1, 3, 1), GAUSSIAN, "tanh", 6),
            ("natural", quick, (1, 3, 1), GAUSSIAN, "tanh", 6),
            ("classification", {**CLASSES, "rate": 0.25}, (2, 2, 2), {"kind": "categorical"}, "tanh", 6),
            ("linear", {**quick, "damping": 0.0}, (2, 1), GAUSSIAN, "relu", 5),
        ]
    ):
        numbers, shapes = Numbers(1600 + s), [(d + 1, k) for d, k in zip(widths, widths[1:])]
        deep, natural = len(widths) > 2, settings["step"] == "natural"
        iterations = []
        for t in range(5):
            sampled = settings["gradients"] == "sampled" and deep and t >= max(settings["warmup"], 1)
            iterations.append(
                {
                    "weight_draws": [numbers.matrix(d, k) for d, k in shapes] if sampled else None,
                    "probe_noise": [[float(v) for v in r] for r in numbers.signs(n, widths[-1])]
                    if deep and natural
                    else None,
                }
            )
        gaussian = likelihood["kind"] == "gaussian"
        inputs = {
            "activation": activation,
            "likelihood": likelihood,
            "x": numbers.matrix(n, widths[0]),
            "y": numbers.matrix(n, widths[-1], 0.75) if gaussian else numbers.integers(n, widths[-1]),
            "initial_draws": [numbers.matrix(d, k) for d, k in shapes],
            "iterations": iterations,
            "settings": settings,
        }
        shape = {"N": n, "T": len(iterations), **{f"K{l}": k for l, k in enumerate(widths)}}
        out.append(Case(name, inputs, shape))
    return out


def _drawn_weights_unscaled(i: Values) -> Values:
    draws = []
    for z in i["initial_draws"]:
        Z = matrix(z)
        root = MP.sqrt(MP.mpf(2) / (Z.rows - 1))
        draws.append(lists(Z / root))
        draws[-1][-1] = z[-1]
    return exact.fit({**i, "initial_draws": draws})


OPERATIONS = (
    Operation(
        "epoch",
        "One pass over the data in mini-batches: batch b of B = ⌈N/batch_size⌉ takes permutation[⌊Nb/B⌋ : ⌊N(b+1)/B⌋].",
        {"eq:iteration": STATEMENTS["eq:iteration"], "eq:ema": STATEMENTS["eq:ema"]},
        {
            "activation": "φ",
            "state": "as for iteration",
            "x": "(N, widths[0])",
            "y": "(N, K), or labels (N,)",
            "permutation": "of the rows (N,), from 0",
            "batches": "per batch {weight_draws, probe_noise}",
            "settings": SETTINGS + "; batch_size",
        },
        {**STATE_OUT, "training_loss": "mean over all rows of the losses that the iterations met"},
        exact.epoch,
        _epochs(),
        {
            "permutation-ignored": Mistake("eq:iteration", "rows in their order, not permuted", _in_order),
            "last-loss-for-all": Mistake("eq:iteration", "the loss of the last batch given for all", _last_loss),
            "batch-weight-missing": Mistake("eq:ema", "batches not scaled by N/m", _batches_as_everything),
        },
    ),
    Operation(
        "fit",
        "A whole tiny fit: He-initialised from given draws, five full-batch iterations.",
        {
            "eq:iteration": STATEMENTS["eq:iteration"],
            "eq:initial-weights": "N(0, 2/fan-in), biases N(0, 1) in the first "
            "layer and 0 beyond; all 0 without a hidden layer; P = τI, τ = prior_precision · fan-in (tied: without it)"
            ", Σ = I, no data, κ = 0, temperature 0",
        },
        {
            "activation": "φ",
            "likelihood": "as for iteration",
            "x": "(N, widths[0])",
            "y": "(N, K), or labels (N,)",
            "initial_draws": "z per layer (D, K), the last row for the biases",
            "iterations": "per iteration {weight_draws, probe_noise}",
            "settings": SETTINGS,
        },
        {
            "layers.l.mean": "M (D, K)",
            "layers.l.row_precision": "P (D, D)",
            "layers.l.column_covariance": "Σ (K, K)",
            "layers.l.prior_precision": "τ",
            "training_loss": "of every iteration (T,)",
            "noise_variance": "after every iteration (T,), Gaussian only",
            "temperature": "after every iteration (T,)",
        },
        exact.fit,
        _fits(),
        {
            "one-iteration-missing": Mistake(
                "eq:iteration", "one iteration too few", lambda i: exact.fit({**i, "iterations": i["iterations"][:-1]})
            ),
            "weights-not-scaled": Mistake(
                "eq:initial-weights", "weights N(0, 1), not N(0, 2/fan-in)", _drawn_weights_unscaled
            ),
            "biases-zero": Mistake(
                "eq:initial-weights",
                "the first layer's biases 0",
                lambda i: exact.fit(
                    {**i, "initial_draws": [[*z[:-1], [MP.mpf(0)] * len(z[0])] for z in i["initial_draws"]]}
                ),
            ),
        },
    ),
)
