"""Verifies packages against the vectors: reads "folder operations" lines, answers with the statements that are broken.

A process of its own, so that the wrong packages never meet the tests' own.
"""

import importlib
import json
import sys

import numpy  # noqa: F401  (loaded once, before the packages come and go)
import scipy.special  # noqa: F401


def broken(folder, operations):
    """Operation → broken statements, of the package in ``folder``."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "balinp"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    try:
        load = importlib.import_module("balinp.vectors.format").load
        run, verify, package = (importlib.import_module(f"balinp.vectors.{n}") for n in ("run", "verify", "package"))
        vectors = {name: document for name, document in load().items() if name in operations}
        candidate = run.candidate(package.answer, vectors)
        reports = verify.verify(candidate, vectors)
        return {report.operation: report.diagnosis.statements for report in reports if report.diagnosis}
    finally:
        sys.path.remove(folder)


for line in sys.stdin:
    folder, operations = json.loads(line)
    print(json.dumps(broken(folder, operations)), flush=True)
