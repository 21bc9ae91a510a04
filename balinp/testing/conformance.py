"""Does a port compute what BALI is? Each identity on seeded random instances, against dense oracles.

    python -m balinp.testing.conformance [MODULE]       a table; exit status 1 when an identity is broken
    check_core(core), assert_conforms(core)             the same from Python

``core`` is a module, or any object, with the names of balinp or some of them: MatrixNormal, layer_posterior, MLP,
bali_step, ... with the same arguments and fields, taking NumPy arrays and returning what ``numpy.asarray`` understands.
A check whose names are missing is skipped and says so. Every error is a residual ratio in units of eps, and must be
below the one THRESHOLD; what raises an exception counts as infinitely wrong. Only oracles and textbook formulas are
compared with: no code of balinp's core. Identities come from the simplest to the most composed: mend the first that is
broken, and many of the later ones are mended with it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any

from ..errors import InvalidArgumentError
from ..module_loading import module_named
from . import (
    conformance_algebra,
    conformance_fit,
    conformance_heteroscedastic,
    conformance_iteration,
    conformance_joint,
    conformance_layer,
    conformance_network,
    conformance_predictive,
    conformance_variants,
)
from .residuals import THRESHOLD

Measurement = tuple[str, str, float]  # statement id, of what, residual ratio


@dataclass(frozen=True)
class Check:
    """A function that measures some identities: ``run(core, seed)`` yields (statement, what, ratio).

    needs: the names that ``core`` must have. statements: each id with its one-line description.
    """

    run: Callable[[Any, int], Iterator[Measurement]]
    needs: tuple[str, ...]
    statements: dict[str, str]


@dataclass(frozen=True)
class Result:
    """The outcome for one identity: its statement id and description, the worst residual ratio and what it was of.

    ratio is None, and ``missing`` holds the names that ``core`` lacks, when every check of it was skipped.
    """

    statement: str
    description: str
    ratio: float | None
    what: str = ""
    missing: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """ "holds", "BROKEN" or "skipped"."""
        if self.ratio is None:
            return "skipped"
        return "holds" if self.ratio < THRESHOLD else "BROKEN"

    @property
    def message(self) -> str:
        """What to tell a porter, e.g. "eq:layer-posterior is broken: not M = P⁻¹(Λ₀M₀ + AᵀT) (mean, ratio 3e+15)"."""
        if self.ratio is None:
            return f"{self.statement} was skipped: the core has no {', '.join(self.missing)}"
        if self.verdict == "holds":
            return f"{self.statement} holds: worst ratio {self.ratio:.2g} ({self.what})"
        return f"{self.statement} is broken: not {self.description} ({self.what}, ratio {self.ratio:.3g})"


def checks() -> list[Check]:
    """Every check there is, from one layer to the whole network."""
    parts = (
        *conformance_layer.CHECKS,
        *conformance_algebra.CHECKS,
        *conformance_network.CHECKS,
        *conformance_heteroscedastic.CHECKS,
        *conformance_iteration.CHECKS,
        *conformance_variants.CHECKS,
        *conformance_joint.CHECKS,
        *conformance_fit.CHECKS,
        *conformance_predictive.CHECKS,
    )
    return [Check(*part) for part in parts]


def check_core(core: Any, seed: int = 0, only: str | None = None) -> list[Result]:
    """One Result per identity; ``core`` as in the module's docstring, ``seed`` chooses the random instances.

    ``only``: the id of the one statement to check.
    """
    descriptions: dict[str, str] = {}
    worst: dict[str, tuple[float, str]] = {}
    missing: dict[str, tuple[str, ...]] = {}
    for check in checks():
        if only is not None and only not in check.statements:
            continue
        for statement, description in check.statements.items():
            descriptions.setdefault(statement, description)
        absent = tuple(name for name in check.needs if not hasattr(core, name))
        if absent:
            missing.update(dict.fromkeys(check.statements, absent))
            continue
        for statement, what, ratio in _measured(check, core, seed):
            ratio = inf if isnan(ratio) else float(ratio)
            if ratio > worst.get(statement, (-inf, ""))[0]:
                worst[statement] = ratio, what
    return [
        Result(statement, description, *worst[statement])
        if statement in worst
        else Result(statement, description, None, missing=missing[statement])
        for statement, description in descriptions.items()
        if only in (None, statement)
    ]


def _measured(check: Check, core: Any, seed: int) -> Iterator[Measurement]:
    """The check's measurements; after an exception, infinity for all its statements: none has been checked fully."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a wrong port overflows; the ratio tells
            yield from check.run(core, seed)
    except Exception as error:  # whatever a wrong port raises
        text = " ".join(str(error).split())
        for statement in check.statements:
            yield statement, f"{type(error).__name__}: {text[:150]}", inf


def assert_conforms(core: Any, seed: int = 0) -> None:
    """Raise AssertionError listing the identities that ``core`` breaks; identities it has no names for are passed."""
    broken = [result.message for result in check_core(core, seed) if result.verdict == "BROKEN"]
    if broken:
        raise AssertionError("\n".join(broken))


def table(results: Sequence[Result]) -> str:
    """Statement, description, worst ratio and verdict, one line each; then a message per broken identity."""
    lines = [f"{'statement':24s} {'identity':58s} {'ratio':>9s}  verdict"]
    for result in results:
        ratio = "-" if result.ratio is None else f"{result.ratio:.2g}"
        lines.append(f"{result.statement:24s} {result.description:58s} {ratio:>9s}  {result.verdict}")
    verdicts = [result.verdict for result in results]
    lines += [result.message for result in results if result.verdict != "holds"]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("holds", "BROKEN", "skipped"))
    return "\n".join([*lines, f"{len(results)} identities, threshold {THRESHOLD:g} eps: {counts}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m balinp.testing.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("module", nargs="?", default="balinp", help="the core: a module or .py file (default: balinp)")
    parser.add_argument("--seed", type=int, default=0, help="of the random instances (default: 0)")
    parser.add_argument("--statement", metavar="ID", help="check one identity only, e.g. eq:layer-posterior")
    options = parser.parse_args(arguments)
    try:
        core = module_named(options.module, "core")
    except InvalidArgumentError as error:
        parser.error(str(error))
    results = check_core(core, options.seed, options.statement)
    if not results:
        parser.error(f"there is no identity {options.statement!r}")
    print(table(results))
    return int(any(result.verdict == "BROKEN" for result in results))


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # the messages are mathematics
    sys.exit(main())
