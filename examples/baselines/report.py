"""Tables and output files of the examples: Markdown, and JSON with seeds, versions and command."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy.stats import rankdata

import balinp

NAMES = {
    "bali": "BALI, defaults",
    "map": "MAP",
    "bayes_by_backprop": "Bayes by Backprop",
    "mc_dropout": "MC dropout",
    "ivon": "IVON",
    "swag": "SWAG",
    "laplace_last": "Laplace, last layer",
    "laplace_kfac": "Laplace, KFAC, all layers",
    "ensemble": "ensemble of 5",
    "gp": "Gaussian process, ARD",
    "mlp": "MLPRegressor (scikit-learn)",
}


def header(command: str, seeds: Iterable[int]) -> dict[str, Any]:
    """Where figures come from."""
    versions = {
        "balinp": balinp.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
    }
    try:
        import sklearn

        versions["scikit-learn"] = sklearn.__version__
    except ImportError:
        pass
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "not set")
    return {
        "command": command,
        "seeds": list(seeds),
        "versions": versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, OPENBLAS_NUM_THREADS {threads}",
    }


def markdown_header(header: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    return f"Output of `{header['command']}`; seeds {header['seeds']}; {versions}; {header['machine']}.\n\n"


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def collect(rows: list[dict[str, Any]], field: str) -> dict[tuple[str, str], np.ndarray]:
    """The values of a field over the splits, by (set, method)."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["set"], row["method"]), []).append(row[field])
    return {key: np.array(values) for key, values in found.items()}


def mean_error(values: np.ndarray, digits: int) -> str:
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}"


def mean_ranks(values: dict[tuple[str, str], np.ndarray], sets: list[str], methods: list[str]) -> dict[str, float]:
    """Rank of each method's mean among ``methods``, least first, averaged over the sets."""
    means = np.array([[values[s, m].mean() for m in methods] for s in sets])
    return dict(zip(methods, rankdata(means, axis=1).mean(axis=0).tolist()))


def table(title: str, head: list[str], lines: list[list[str]]) -> str:
    """Markdown; of more than fifteen columns on its side."""
    if len(head) > 15:
        head, *lines = (list(column) for column in zip(head, *lines))
    rule = "|".join(["---"] * len(head))
    body = "\n".join("| " + " | ".join(line) + " |" for line in [head, *lines])
    first, _, rest = body.partition("\n")
    return f"{title}\n\n{first}\n|{rule}|\n{rest}\n\n"


def tables(rows: list[dict[str, Any]], sets: list[str], methods: list[str], single: list[str]) -> str:
    """NLL with mean ranks, RMSE with its gap to the best, coverage and seconds; a method a line, a set a column."""
    nll, error = collect(rows, "nll"), collect(rows, "rmse")
    coverage, seconds, search = (collect(rows, field) for field in ("coverage", "seconds", "search_seconds"))
    rank, rank_all = mean_ranks(nll, sets, single), mean_ranks(nll, sets, methods)
    best = {s: min(error[s, m].mean() for m in single) for s in sets} if single else {}
    text = table(
        "Test NLL, nats a row in original units, mean ± standard error over the splits; mean rank over the sets, among "
        "single networks and among all.",
        ["method", *sets, "mean rank, single", "mean rank, all"],
        [
            [
                NAMES[m],
                *(mean_error(nll[s, m], 3) for s in sets),
                f"{rank[m]:.2f}" if m in rank else "",
                f"{rank_all[m]:.2f}",
            ]
            for m in methods
        ],
    )
    text += table(
        "Test RMSE in original units; in brackets how far above the best single network.",
        ["method", *sets],
        [
            [NAMES[m]]
            + [
                mean_error(error[s, m], 3)
                + (f" ({100 * (error[s, m].mean() / best[s] - 1):+.0f} %)" if m in single else "")
                for s in sets
            ]
            for m in methods
        ],
    )
    text += table(
        "Coverage of the 90 % interval.",
        ["method", *sets],
        [[NAMES[m], *(mean_error(coverage[s, m], 3) for s in sets)] for m in methods],
    )
    return text + table(
        "CPU seconds of one fit, median over the splits (+ those of the search for settings).",
        ["method", *sets],
        [
            [NAMES[m]]
            + [
                f"{np.median(seconds[s, m]):.2f}"
                + (f" (+ {np.median(search[s, m]):.1f})" if search[s, m].any() else "")
                for s in sets
            ]
            for m in methods
        ],
    )
