"""Runs the conformance tool on copies of the package: a line of input names a folder and, after a tab, the statement to
check (none: all of them); a line of JSON answers it.

One process serves all mutants, with NumPy, SciPy and hypothesis loaded once; balinp itself is imported anew from every
folder, so nothing of one mutant is left for the next.
"""

import contextlib
import importlib
import io
import json
import sys

import hypothesis.strategies  # noqa: F401  (loaded once, as the slow part of every start)
import scipy.linalg
import scipy.special
import scipy.stats  # noqa: F401


def conformance(folder: str, statement: str) -> dict[str, object]:
    """Exit status and output of ``python -m balinp.testing.conformance`` with the package in ``folder``."""
    for name in [name for name in sys.modules if name.split(".")[0] == "balinp"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, folder)
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            tool = importlib.import_module("balinp.testing.conformance")
            status = tool.main(["--statement", statement] if statement else [])
    finally:
        sys.path.remove(folder)
    return {"status": status, "output": output.getvalue(), "file": tool.__file__}


if __name__ == "__main__":
    for line in sys.stdin:
        name, _, chosen = line.rstrip("\n").partition("\t")
        print(json.dumps(conformance(name, chosen)), flush=True)
