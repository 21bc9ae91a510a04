"""Cases of the sums over data: statistics of a batch, of blocks, of a moving average."""

from __future__ import annotations

from typing import Any

from ..reference import layer as exact
from ..reference.exact import MP
from .kit import Case, Mistake, Numbers, Operation, Values

STATISTICS = "count ∑w_n, AᵀWA, AᵀWT, TᵀWT, ZᵀWZ with W = diag(w)"


SUMS = {
    "count": "∑ w_n",
    "gram": "AᵀA (D, D)",
    "cross": "AᵀT (D, K)",
    "target_gram": "TᵀT (K, K)",
    "curvature": "ZᵀZ (K, K), 0 without probes",
}


ROWS = {
    "D": "columns of inputs",
    "K": "columns of targets",
    "inputs": "A (N, D), the ones column included",
    "targets": "T (N, K)",
    "weights": "w (N,) or null: all 1",
    "probes": "Z (N, K) or null",
}


def rows_of(seed: int, n: int, d: int, k: int, weights: bool = False, probes: bool = False) -> Values:
    numbers = Numbers(seed)
    return {
        "inputs": numbers.with_ones(n, d),
        "targets": numbers.matrix(n, k),
        "weights": [0.5 + v for v in numbers.integers(n, 3)] if weights else None,
        "probes": numbers.matrix(n, k) if probes else None,
    }


def _statistics_cases() -> list[Case]:
    out = []
    for i, (name, n, d, k, w, z) in enumerate(
        [
            ("rectangular", 5, 3, 2, False, False),
            ("square", 6, 3, 3, False, False),
            ("weighted", 5, 3, 2, True, False),
            ("probes", 5, 2, 3, True, True),
            ("one-unit", 4, 1, 1, False, True),
            ("one-datum", 1, 3, 2, True, True),
            ("no-data", 0, 3, 2, False, False),
        ]
    ):
        out.append(Case(name, {"D": d, "K": k, **rows_of(i, n, d, k, w, z)}, {"N": n, "D": d, "K": k}))
    short = {"D": 3, "K": 2, **rows_of(20, 5, 3, 2)}
    short["targets"] = short["targets"][:-1]
    out.append(Case("reject-row-counts", short, {"N": 5, "D": 3, "K": 2}, reject="shape"))
    negative = {"D": 3, "K": 2, **rows_of(21, 4, 3, 2, True)}
    negative["weights"][1] = -1.0
    return [*out, Case("reject-negative-weight", negative, {"N": 4, "D": 3, "K": 2}, reject="value")]


def _weights(change: Any) -> Any:
    def wrong(i: Values) -> Values:
        return exact.statistics({**i, "weights": None if i["weights"] is None else [change(w) for w in i["weights"]]})

    return wrong


def _divided(i: Values) -> Values:
    right = exact.sums_of(i)
    count = right["count"] or MP.mpf(1)
    return exact.as_lists({name: v if name == "count" else v / count for name, v in right.items()})


def _transposed_cross(i: Values) -> Values:
    right = exact.sums_of(i)
    return exact.as_lists({**right, "cross": right["cross"].T})


def _loose_rows(i: Values, name: str) -> Values:
    return {**exact.statistics(i), name: exact.statistics({**i, "weights": None})[name]}


def _blocks() -> list[Case]:
    out: list[Case] = []
    for name, sizes in (("three-blocks", (2, 3, 1)), ("with-an-empty-block", (3, 0, 2)), ("one-row-blocks", (1, 1))):
        blocks = [rows_of(100 + 10 * len(out) + b, n, 3, 2, True, True) for b, n in enumerate(sizes)]
        out.append(Case(name, {"D": 3, "K": 2, "blocks": blocks}, {"N": sum(sizes), "D": 3, "K": 2}))
    return out


def _mean_of_blocks(i: Values) -> Values:
    right = exact.block_sum(i)
    return exact.as_lists({n: v / len(i["blocks"]) for n, v in exact.as_matrices(right).items()})


def _ema() -> list[Case]:
    out: list[Case] = []
    kinds = (
        ("mini-batch", 4, 0.25, 20.0, False),
        ("weighted", 3, 0.5, 12.0, True),
        ("forgets-all", 4, 1.0, 8.0, False),
        ("one-datum", 1, 0.125, 16.0, False),
    )
    for name, n, rate, total, w in kinds:
        numbers = Numbers(200 + len(out))
        old = {
            "count": 20.0,
            "gram": numbers.spd(3, 2.0),
            "cross": numbers.matrix(3, 2, 3.0),
            "target_gram": numbers.spd(2, 1.0),
            "curvature": numbers.spd(2, 1.0),
        }
        batch = rows_of(210 + len(out), n, 3, 2, w, True)
        inputs = {"D": 3, "K": 2, "statistics": old, "batch": batch, "total": total, "rate": rate}
        out.append(Case(name, inputs, {"N": n, "D": 3, "K": 2}))
    return out


def _ema_with(old: Any, new: Any) -> Any:
    """A moving average with other factors of the old sums and of the batch's, from (β, N, m)."""

    def wrong(i: Values) -> Values:
        batch = exact.sums_of({**i, **i["batch"]})
        args = i["rate"], i["total"], batch["count"]
        return exact.as_lists(exact.combine(exact.as_matrices(i["statistics"]), batch, old(*args), new(*args)))

    return wrong


OPERATIONS = (
    Operation(
        "statistics",
        "The sums over the rows of one batch that a layer's regression needs.",
        {"eq:statistics": STATISTICS},
        ROWS,
        SUMS,
        exact.statistics,
        _statistics_cases(),
        {
            "cross-transposed": Mistake("eq:statistics", "TᵀA for AᵀT", _transposed_cross),
            "weights-ignored": Mistake("eq:statistics", "row weights left out", _weights(lambda w: MP.mpf(1))),
            "weights-squared": Mistake(
                "eq:statistics", "row weights squared: both factors carry w, not √w", _weights(lambda w: w * w)
            ),
            "weights-rooted": Mistake("eq:statistics", "√w for w", _weights(MP.sqrt)),
            "mean-for-sum": Mistake("eq:statistics", "means over rows in place of sums", _divided),
            "probes-unweighted": Mistake(
                "eq:statistics", "probes without the row weights", lambda i: _loose_rows(i, "curvature")
            ),
            "target-gram-unweighted": Mistake(
                "eq:statistics", "TᵀT without the row weights", lambda i: _loose_rows(i, "target_gram")
            ),
        },
    ),
    Operation(
        "block_sum",
        "The statistics of all rows from those of consecutive blocks of rows.",
        {"eq:block-sum": "statistics of all rows = the sum of the blocks'"},
        {"D": ROWS["D"], "K": ROWS["K"], "blocks": "list of {inputs, targets, weights, probes}"},
        SUMS,
        exact.block_sum,
        _blocks(),
        {
            "last-block-only": Mistake(
                "eq:block-sum",
                "sums overwritten by the last block",
                lambda i: exact.statistics({**i, **i["blocks"][-1]}),
            ),
            "mean-of-blocks": Mistake("eq:block-sum", "mean of the blocks in place of their sum", _mean_of_blocks),
        },
    ),
    Operation(
        "ema_step",
        "One step of the moving average: a batch of m rows (m the sum of weights) that stands for N.",
        {"eq:ema": "(1 − β)·old + β·(N/m)·new"},
        {
            "D": ROWS["D"],
            "K": ROWS["K"],
            "statistics": "the old sums",
            "batch": "{inputs, targets, weights, probes}",
            "total": "N",
            "rate": "β",
        },
        SUMS,
        exact.ema_step,
        _ema(),
        {
            "rate-swapped": Mistake(
                "eq:ema", "β·old + (1 − β)·new", _ema_with(lambda b, n, m: b, lambda b, n, m: (1 - b) * n / m)
            ),
            "batch-weight-missing": Mistake(
                "eq:ema", "the batch not scaled by N/m", _ema_with(lambda b, n, m: 1 - b, lambda b, n, m: b)
            ),
            "batch-weight-inverted": Mistake(
                "eq:ema", "m/N for N/m", _ema_with(lambda b, n, m: 1 - b, lambda b, n, m: b * m / n)
            ),
            "nothing-forgotten": Mistake(
                "eq:ema",
                "old + β·new: the old sums not decayed",
                _ema_with(lambda b, n, m: MP.mpf(1), lambda b, n, m: b * n / m),
            ),
        },
    ),
)
