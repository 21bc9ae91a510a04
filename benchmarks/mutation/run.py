"""Mutation testing of the core with mutmut: python benchmarks/mutation/run.py [--work DIR] [--children N] [MODULE ...]

Needs mutmut (3.8) and the extra ``test`` in the environment that runs it. The package and its tests are copied to DIR
and mutated there; the checkout is only read. Every mutant meets the conformance tool and the tests of QUICK first
(quick.py), and what those let live the tests of mutmut.toml (mutmut run). A run that was stopped goes on where it was;
--fresh begins anew, --report only reports. The table is printed, DIR/survivors.txt has every mutant that lives.

mutmut leaves decorated functions alone. In the copy the body of every property is therefore moved to a plain method
that the property calls, so that it is mutated too. ``cupy_backend`` is left out: it needs a GPU to run.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = (
    "backend",
    "cupy_backend",
    "activations",
    "mlp",
    "likelihoods",
    "heteroscedastic",
    "matrix_normal",
    "statistics",
    "regression",
    "evidence",
    "passes",
    "solver",
    "training",
    "predictive",
    "joint",
    "joint_posterior",
    "trust",
    "state",
    "settings",
    "deferred",
)
QUICK = (  # mutmut's trampolines add stack frames, so the one test that counts those is left out
    "-k",
    "not points_at_the_caller",
    "tests/test_errors.py",
    "tests/test_survivors_core.py",
    "tests/test_survivors_solver.py",
    "tests/test_survivors_training.py",
)
THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PROPERTIES = ("property", "cached_property", "cache")
SURVIVED, UNCOVERED, TIME_OUT = (0,), (5, 33), (24, 36, 152, 255, -24)  # exit codes, of pytest and mutmut


def prepare(work: Path) -> None:
    """Copy what the tests need to ``work``, properties taken apart, mutmut's configuration added."""
    for folder in ("balinp", "tests", "examples", "derivations"):
        target = work / folder
        if target.exists():
            shutil.rmtree(target)
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, target, ignore=shutil.ignore_patterns("__pycache__"))
    for module in MODULES:
        path = work / "balinp" / f"{module}.py"
        path.write_text(without_property_bodies(path.read_text("utf-8")), "utf-8")
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, work / name)
    with (work / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write("\n" + (HERE / "mutmut.toml").read_text("utf-8"))
    shutil.copy(HERE / "mutation_profile.py", work)


def without_property_bodies(source: str) -> str:
    """``source`` with the body of each property (and of ``get_backend``) in a function of its own, called by it."""
    lines = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        if node.name == "cupy_backend":
            lines[node.lineno - 1] += "  # pragma: no mutate block"
        decorators = [d.id for d in node.decorator_list if isinstance(d, ast.Name)]
        if not set(decorators) & set(PROPERTIES):
            continue
        head, indent = lines[node.lineno - 1], " " * node.col_offset
        names = [argument.arg for argument in node.args.args]
        owner = "self." if names[:1] == ["self"] else ""
        call = f"{owner}{node.name}_body({', '.join(name for name in names if name != 'self')})"
        body = [f"{indent}    return {call}", "", head.replace(f"def {node.name}(", f"def {node.name}_body(")]
        lines[node.lineno : node.lineno] = body
    return "\n".join(lines) + "\n"


def mutmut(work: Path, *arguments: str) -> str:
    """Run mutmut in ``work``, one thread per process; what it printed."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    environment = {**os.environ, **THREADS, "PYTHONPATH": str(work)}
    return subprocess.run(command, cwd=work, env=environment, stdout=subprocess.PIPE, text=True).stdout


def quick(work: Path, names: list[str], children: int) -> None:
    """Put ``names`` to quick.py, in ``children`` processes; exit codes are added to DIR/quick.txt as they come."""
    with (work / "quick.txt").open("a", encoding="utf-8") as record:
        command, processes = [sys.executable, str(HERE / "quick.py"), *QUICK], []
        for i in range(children):
            options = {"cwd": work / "mutants", "env": {**os.environ, **THREADS}, "stdin": subprocess.PIPE}
            processes.append(subprocess.Popen(command, stdout=record, text=True, **options))
            Thread(target=_feed, args=(processes[-1].stdin, names[i::children])).start()
        if any(process.wait() for process in processes):
            raise SystemExit("quick.py failed: see its message above")


def _feed(pipe: Any, names: list[str]) -> None:
    with pipe:
        pipe.writelines(f"{name}\n" for name in names)


def collect(work: Path) -> dict[str, dict[str, int | None]]:
    """Per module the exit code of every mutant: of the first tests that killed it, else mutmut's; None: not run."""
    codes, results = quick_codes(work), {}
    for module in MODULES:
        meta = work / "mutants" / "balinp" / f"{module}.py.meta"
        names = json.loads(meta.read_text("utf-8"))["exit_code_by_key"] if meta.exists() else {}
        results[module] = {name: codes.get(name) or code for name, code in names.items()}
    return results


def quick_codes(work: Path) -> dict[str, int]:
    """The exit code of every mutant that met quick.py."""
    record = work / "quick.txt"
    lines = record.read_text("utf-8").splitlines() if record.exists() else []
    return {name: int(code) for name, code in (line.split("\t") for line in lines)}


def unfinished(work: Path, modules: list[str], verdicts: tuple[str, ...]) -> list[str]:
    """The names of the mutants of ``modules`` with one of ``verdicts``."""
    results = collect(work)
    return [name for m in modules for name, code in results[m].items() if kind(code) in verdicts]


def kind(code: int | None) -> str:
    """The verdict that mutmut's exit code stands for."""
    if code is None:
        return "not run"
    if code in SURVIVED:
        return "survived"
    if code in UNCOVERED:
        return "not covered"
    if code in TIME_OUT:
        return "time-out"
    return "killed"  # a failed test, or a crash of the interpreter


def table(results: dict[str, dict[str, int | None]]) -> str:
    """The results per module in Markdown; a time-out counts as killed."""
    kinds = ("killed", "time-out", "survived", "not covered", "not run")
    lines = [f"| module | mutants | {' | '.join(kinds)} | score |", "|---|---|" + "---|" * (len(kinds) + 1)]
    total = dict.fromkeys(kinds, 0)
    for module in MODULES:
        counts = {k: sum(kind(code) == k for code in results[module].values()) for k in kinds}
        total = {k: total[k] + counts[k] for k in kinds}
        lines.append(_row(module, counts))
    return "\n".join([*lines, _row("**all**", total)])


def _row(name: str, counts: dict[str, int]) -> str:
    run = sum(counts.values()) - counts["not run"]
    score = 100 * (counts["killed"] + counts["time-out"]) / max(run, 1)
    return f"| {name} | {sum(counts.values())} | {' | '.join(map(str, counts.values()))} | {score:.1f} % |"


def survivors(work: Path, results: dict[str, dict[str, int | None]]) -> str:
    """The changed lines of every mutant that was not killed, by name."""
    parts = []
    for codes in results.values():
        for name, code in codes.items():
            if kind(code) in ("survived", "not covered"):
                lines = [
                    l for l in mutmut(work, "show", name).splitlines() if l[:1] in "+-" and l[:3] not in ("+++", "---")
                ]
                parts.append("\n".join([f"{name} ({kind(code)})", *lines]))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("/tmp/balinp-mutation"))
    parser.add_argument("--children", type=int, default=1, help="processes at once")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--report", action="store_true", help="run nothing, only write the report")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="of the core; default: all")
    options = parser.parse_args()
    if options.fresh and options.work.exists():
        shutil.rmtree(options.work)
    options.work.mkdir(parents=True, exist_ok=True)
    modules = options.modules or list(MODULES)
    if not options.report:
        if not (options.work / "mutants").exists():
            prepare(options.work)
            mutmut(options.work, "run", "balinp.activations.x__relu__mutmut_1")  # makes all mutants, runs one
        met = quick_codes(options.work)
        new = [name for name in unfinished(options.work, modules, ("not run",)) if name not in met]
        quick(options.work, new, options.children)
        lived = unfinished(options.work, modules, ("not run",))
        mutmut(options.work, "run", "--max-children", str(options.children), *lived)
    results = collect(options.work)
    (options.work / "survivors.txt").write_text(survivors(options.work, results), "utf-8")
    print(table(results))
    print(f"survivors: {options.work / 'survivors.txt'}")


if __name__ == "__main__":
    main()
