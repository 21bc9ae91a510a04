"""The documents: every block of Python and shell runs, every quoted message is produced, the API's list is complete.

The shell blocks of a document run in a folder of its own, one after the other; then those of Python, as one script. A
block is left out only by a comment above it: ``<!-- run by .ci/run -->`` (checked) or ``<!-- not run: why -->``.
``pip`` does nothing here: .ci/run installs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import balinp
from balinp import plots

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS += [ROOT / "derivations" / "README.md", ROOT / "examples" / "README.md"]
FENCE = re.compile(r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<kind>[a-z]+)\n(?P<body>.*?)^```$", re.S | re.M)
SHELL = 'set -euo pipefail\npip() { :; }\npython() { "$PYTHON" "$@"; }\nbalinp() { "$PYTHON" -m balinp "$@"; }\n'


def blocks(document):
    """(note, kind, body) of every fence with a kind."""
    found = [(m["note"] or "", m["kind"], m["body"]) for m in FENCE.finditer(document.read_text("utf-8"))]
    return [b for b in found if b[1] in ("sh", "python", "text", "bash", "console")]


def run(kind, code, folder):
    arguments = [sys.executable, "-c", code] if kind == "python" else ["bash", "-c", SHELL + code]
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d)], ids=lambda d: str(d.relative_to(ROOT)))
def test_every_block_does_what_its_document_says(document, tmp_path):
    for name in ("examples", "derivations", "balinp"):
        (tmp_path / name).symlink_to(ROOT / name)
    ci, shown, python = (ROOT / ".ci" / "run").read_text("utf-8"), blocks(document), ""
    for (note, kind, body), following in zip(shown, [*shown[1:], ("", "", "")]):
        assert kind in ("sh", "python", "text"), f"{kind}: write sh or python"
        message = following[2] if following[1] == "text" else None
        if note == "run by .ci/run":
            for command in re.split(r"&&|\n", re.sub(r" #.*", "", body).strip()):
                assert " ".join(command.split()[:2]) in ci, f".ci/run does not run {command}"
        elif note.startswith("not run: ") or kind == "text":
            continue
        elif message is not None:  # the block ends in the error that stands below it
            result = run(kind, body, tmp_path)
            assert result.returncode != 0, body
            last = result.stderr.strip().splitlines()[-1]
            assert (last if kind == "sh" else last.partition(": ")[2]) == message.strip()
        elif kind == "python":
            python += body
        else:
            result = run(kind, body, tmp_path)
            assert result.returncode == 0, f"{body}\n{result.stdout}\n{result.stderr}"
    result = run("python", python, tmp_path)
    assert result.returncode == 0, f"{python}\n{result.stdout}\n{result.stderr}"


def test_the_reference_lists_the_public_names_and_no_other():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    listed = re.findall(r"^::: balinp\.([\w.]+)$", text, re.M)
    expected = [*balinp.__all__, *(f"plots.{name}" for name in plots.__all__), "metrics"]
    assert sorted(listed) == sorted(expected)
    for name in balinp.__all__:
        assert getattr(balinp, name) is not None
    assert sorted(balinp.__all__) == sorted(set(balinp.__all__))


def test_what_is_public_is_documented():
    for name in balinp.__all__:
        thing = getattr(balinp, name)
        if callable(thing):
            assert (thing.__doc__ or "").strip(), f"{name} has no docstring"


def test_the_changes_name_this_version():
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert balinp.__version__ in headings
    assert re.fullmatch(r"\d+\.\d+\.\d+", balinp.__version__)
