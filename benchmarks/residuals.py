"""The worst residual ratio that the test-suite meets, identity by identity, as a report.

Run: python benchmarks/residuals.py [--report benchmarks/residuals_report.md] [--hypothesis-profile ci]

Runs those tests that take residual ratios (‖computed − expected‖ in units of n · eps · scale, see balinp.testing) in
this process and writes the largest ratio of every statement. The profile ci is derandomised: the same versions give the
same table; deep draws new examples.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import scipy

import balinp
from balinp.testing import THRESHOLD, worst_ratios

ROOT = Path(__file__).parent.parent


def report(command: str, profile: str) -> str:
    """The table in Markdown."""
    versions = f"balinp {balinp.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, hypothesis "
    versions += f"{hypothesis.__version__}, Python {platform.python_version()}, {platform.machine()}"
    seed = "derandomised by hypothesis; every other seed is fixed in the tests" if profile == "ci" else "drawn anew"
    lines = [
        "# Worst residual ratio per identity",
        "",
        f"Command: `{command}`  ",
        f"Versions: {versions}  ",
        f"Profile: {profile}, examples {seed}  ",
        f"Threshold: {THRESHOLD:g} (in units of eps of the computed dtype, float32 and float64 alike)",
        "",
        "| identity | worst ratio | met in |",
        "|---|---:|---|",
    ]
    for name, (ratio, what) in sorted(worst_ratios().items()):
        cell = what.replace("|", "\\|")
        lines.append(f"| {name} | {ratio:.3f} | {cell} |")
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=ROOT / "benchmarks" / "residuals_report.md")
    parser.add_argument("--hypothesis-profile", default="ci")
    arguments = parser.parse_args()
    tests = sorted(str(p) for p in (ROOT / "tests").glob("test_*.py") if "assert_residual" in p.read_text())
    options = ["-q", "-p", "no:cacheprovider", f"--hypothesis-profile={arguments.hypothesis_profile}"]
    code = pytest.main([*options, f"--rootdir={ROOT}", *tests])
    profile = arguments.hypothesis_profile
    command = "python benchmarks/residuals.py" + ("" if profile == "ci" else f" --hypothesis-profile {profile}")
    text = report(command, profile)
    print(text)
    arguments.report.write_text(text)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
