"""Training and test NLL against iterations and against seconds: BALI full batch and mini-batch next to baselines.

Run: python examples/convergence.py [--data FOLDER] [--sets a,b] [--splits 3] [--out DIR]

Without FOLDER: yacht (sample data) and diabetes. BALI is one fit, without those that the estimator makes before it.
A full-batch
fit begins with thirty joint iterations (balinp.joint), each of which takes 21 passes over the data and one for each
try of its step; "layerwise from the start" is the same fit without them, twice as long. Seconds count them all.
Splits and standardisation as in uci.py. The baselines' settings and stopping are those of uci.py (from its cache, or
searched for now; the search is not timed). MAP and MC dropout have the noise that the search found from their first
iteration on; BALI and Bayes by Backprop learn it on the way. All curves are measured alike: the NLL of 50 sampled
networks (MAP: of the one) on the test rows and on the training rows, in nats a row and original units; seconds are
CPU seconds of one process, the clock stopped while NLLs are measured. The picture shows split 0.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from baselines import METHODS, report
from uci import Cache, Split, data_sets, one_row, with_arrays

from balinp import NUMPY, BALIRegressor
from balinp.predictive import predict_monte_carlo

SETS = ("boston", "yacht", "energy", "diabetes", "wine")
ONE_FIT = {"relevance": False, "validation_fraction": 0}  # whose states also take the split's own inputs
LAYERWISE = {"joint_iterations": 0, "warmup": 10, "rate": 0.3}
BALI = {
    "BALI, full batch": ONE_FIT,
    "BALI, layerwise from the start": {**ONE_FIT, "max_iterations": 600, "settings": LAYERWISE},
    "BALI, batches of 64": {**ONE_FIT, "batch_size": 64, "settings": {"rate": 0.1, "step_scale": 0.1}},
}
BASELINES = {"Bayes by Backprop": "bayes_by_backprop", "MC dropout": "mc_dropout", "MAP": "map"}
REFERENCE = "Bayes by Backprop"
NEAR = 0.05
DRAWS = 50
STYLES = {  # told apart without colours: line, marker
    "BALI, full batch": ("black", "-", "o"),
    "BALI, layerwise from the start": ("0.6", "-", "v"),
    "BALI, batches of 64": ("black", "--", "s"),
    "Bayes by Backprop": ("0.35", "-", "^"),
    "MC dropout": ("0.35", "-.", "x"),
    "MAP": ("0.35", ":", "d"),
}


class Curve:
    """Points (iteration, CPU seconds, training NLL, test NLL); the clock stands still while a point is measured."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float, float, float]] = []
        self.seconds, self.started = 0.0, time.process_time()

    def mark(self, iteration: int, losses: Callable[[], tuple[float, float]] | None) -> None:
        self.seconds += time.process_time() - self.started
        if losses is not None:
            self.points.append((iteration, self.seconds, *losses()))
        self.started = time.process_time()

    @property
    def columns(self) -> np.ndarray:
        """(points, 4)."""
        return np.array(self.points)


def bali_curve(split: Split, parameters: dict[str, Any]) -> Curve:
    """Every iteration (pass) of the first fifty, then every fifth."""
    curve, shift = Curve(), float(np.log(split.scale))
    parts = [(split.x, split.t[:, None]), (split.x_test, split.t_test[:, None])]

    def losses(state: Any) -> tuple[float, float]:
        train, test = (
            shift - float(predict_monte_carlo(state, x, np.random.default_rng(0), DRAWS).log_density(t, NUMPY).mean())
            for x, t in parts
        )
        return train, test

    def watch(state: Any, record: Any) -> None:
        wanted = len(curve.points) < 50 or record.iteration % 5 == 0
        curve.mark(record.iteration, (lambda: losses(state)) if wanted else None)

    model = BALIRegressor(random_state=split.seed, **parameters)
    curve.started = time.process_time()
    model.fit(split.x, split.t, callbacks=watch)
    curve.mark(model.n_iter_, lambda: losses(model.state_))
    return curve


def baseline_curve(split: Split, name: str, settings: dict[str, Any], checks: int = 400) -> Curve:
    method, y, shift = METHODS[name], split.t[:, None], float(np.log(split.scale))
    iterations = settings.get("iterations", method.fit.__kwdefaults__["iterations"])
    curve = Curve()

    def watch(share: float, model: Any) -> bool:
        def losses() -> tuple[float, float]:
            train = model.predict(split.x, np.random.default_rng(0), DRAWS).nll(y)
            return train + shift, model.predict(split.x_test, np.random.default_rng(0), DRAWS).nll(
                split.t_test[:, None]
            ) + shift

        # Sparser later on, as the axis is logarithmic.
        count = round(share * checks)
        curve.mark(round(share * iterations), losses if count < 40 or count % 8 == 0 else None)
        return False

    curve.started = time.process_time()
    model = method.fit(
        split.x, y, "regression", np.random.default_rng(split.seed), watch=watch, checks=checks, **settings
    )
    watch(settings["stop"], model)
    return curve


def first_at(curve: Curve, level: float) -> np.ndarray | None:
    """The first point with a test NLL of at most ``level``."""
    below = np.flatnonzero(curve.columns[:, 3] <= level)
    return curve.columns[below[0]] if len(below) else None


def summary(curves: dict[str, Curve], search: float) -> dict[str, dict[str, Any]]:
    """Per method: final NLL, iterations and seconds until within 0.05 nats of it, and how many times sooner than the
    reference it reached the NLL that the reference ends with (None: it never did). ``search``: CPU seconds of the
    reference's search for settings."""
    end = curves[REFERENCE].columns[-1, 3]
    arrival = first_at(curves[REFERENCE], end)
    result = {}
    whole = float(curves[REFERENCE].columns[-1, 1])
    for name, curve in curves.items():
        final = float(curve.columns[-1, 3])
        near, reached = first_at(curve, final + NEAR), first_at(curve, end)
        assert near is not None  # the last point is there at least
        assert arrival is not None
        result[name] = {
            "final_test_nll": final,
            "iterations": int(curve.columns[-1, 0]),
            "seconds": float(curve.columns[-1, 1]),
            "iterations_until_near": int(near[0]),
            "seconds_until_near": float(near[1]),
            "times_sooner": None if reached is None else float(arrival[1] / reached[1]),
            "times_sooner_than_whole_fit": None if reached is None else float(whole / reached[1]),
            "times_sooner_than_search_and_fit": None if reached is None else float((search + whole) / reached[1]),
        }
    return result


def draw(curves: dict[str, dict[str, Curve]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = ((0, 3, "iterations", "test"), (1, 3, "CPU seconds", "test"))
    rows += ((0, 2, "iterations", "training"), (1, 2, "CPU seconds", "training"))
    figure, axes = pyplot.subplots(4, len(curves), figsize=(3.4 * len(curves), 11), squeeze=False)
    for column, (name, of_set) in enumerate(curves.items()):
        for ax, (x, y, x_label, y_label) in zip(axes[:, column], rows):
            for method, curve in of_set.items():
                colour, line, marker = STYLES[method]
                points = curve.columns
                places = np.unique(np.geomspace(1, len(points), 9).round().astype(int)) - 1
                ax.plot(points[:, x], points[:, y], color=colour, ls=line, lw=1.2)
                ax.plot(points[places, x], points[places, y], color=colour, ls="", marker=marker, ms=4.5)
            ends = [curve.columns[-1, y] for curve in of_set.values()]
            span = max(ends) - min(ends)
            ax.set_ylim(min(ends) - 0.2 * span - 0.05, max(ends) + max(span, 0.5))
            ax.set_xscale("log")
            ax.set_xlabel(x_label)
            if column == 0:
                ax.set_ylabel(f"{y_label} NLL, nats a row")
        axes[0, column].set_title(name)
    handles = [
        pyplot.Line2D([], [], color=c, ls=line, marker=marker, ms=4.5, label=method)
        for method, (c, line, marker) in STYLES.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=min(5, 2 * len(curves)), frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def markdown(results: dict[str, list[dict[str, dict[str, Any]]]]) -> str:
    """Medians over the splits."""

    def sooner(values: list[float | None]) -> str:
        reached = [v for v in values if v is not None]
        if not reached:
            return "not reached"
        missed = "" if len(reached) == len(values) else f" ({len(reached)} of {len(values)} splits reach it)"
        return f"{np.median(reached):.1f}{missed}"

    lines = []
    for name, splits in results.items():
        for method in splits[0]:
            of = [split[method] for split in splits]
            lines.append(
                [
                    name,
                    method,
                    f"{np.median([r['final_test_nll'] for r in of]):.3f}",
                    f"{np.median([r['iterations_until_near'] for r in of]):.0f}",
                    f"{np.median([r['iterations'] for r in of]):.0f}",
                    f"{np.median([r['seconds_until_near'] for r in of]):.2f}",
                    f"{np.median([r['seconds'] for r in of]):.2f}",
                    sooner([r["times_sooner"] for r in of]),
                    sooner([r["times_sooner_than_whole_fit"] for r in of]),
                    sooner([r["times_sooner_than_search_and_fit"] for r in of]),
                ]
            )
    return report.table(
        f"Medians over the splits. Near: test NLL within {NEAR} nats of its own final one. The last three columns: "
        f"the CPU seconds {REFERENCE} takes to first reach the test NLL it ends with, those of its whole fit, and with "
        "them those of the search that found its settings and where it stops, over the seconds the method takes to "
        "reach that NLL. The baselines' own searches are in none of the seconds.",
        [
            "set",
            "method",
            "final test NLL",
            "iterations until near",
            "iterations in all",
            "seconds until near",
            "seconds in all",
            "times sooner",
            "than its whole fit",
            "with its search",
        ],
        lines,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of npz (X, y) or CSV tables")
    parser.add_argument("--sets", help="comma-separated names; default: those of the figure that are there")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    tables = data_sets(options.data, [])
    names = options.sets.split(",") if options.sets else [name for name in SETS if name in tables]
    options.out.mkdir(parents=True, exist_ok=True)
    cache = Cache(options.out / "uci_cache.jsonl")
    results: dict[str, list[dict[str, dict[str, Any]]]] = {}
    pictured: dict[str, dict[str, Curve]] = {}
    for name in names:
        for seed in range(options.splits):
            split = Split(*tables[name], seed)
            curves = {label: bali_curve(split, parameters) for label, parameters in BALI.items()}
            search: dict[str, float] = {}
            for label, method in BASELINES.items():
                row = one_row(method, name, split, cache)[0]
                search[label] = row["search_seconds"]
                curves[label] = baseline_curve(split, method, with_arrays(row["settings"]))
            results.setdefault(name, []).append(summary(curves, search[REFERENCE]))
            pictured.setdefault(name, curves)
            for method, figures in results[name][-1].items():
                print(f"{name} split {seed}, {method}: {figures}", flush=True)
    draw(pictured, options.out / "convergence.png")
    command = "python examples/convergence.py" + (" --data FOLDER" if options.data else "")
    command += f" --sets {options.sets}" if options.sets else ""
    header = report.header(f"{command} --splits {options.splits}", range(options.splits))
    text = report.markdown_header(header) + markdown(results)
    (options.out / "convergence.md").write_text(text + "![convergence](convergence.png)\n", encoding="utf-8")
    curves_json = {s: {m: c.columns.round(5).tolist() for m, c in of.items()} for s, of in pictured.items()}
    fields = ["iteration", "seconds", "train_nll", "test_nll"]
    report.write_json(
        options.out / "convergence.json",
        {
            **header,
            "bali_parameters": BALI,
            "figures": results,
            "curve_fields": fields,
            "curves_of_split_0": curves_json,
        },
    )
    print(text)


if __name__ == "__main__":
    main()
