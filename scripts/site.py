"""Build the site: ``python scripts/site.py OUT``. Needs ``pip install '.[docs]'``; what it makes needs no network.

The documents stay where they are in the repository; they are copied to a folder together with what they link to, and
built by MkDocs in strict mode: a broken link or anchor is an error. Formulas become MathML before MkDocs sees them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = (".md", ".py", ".mjs", ".png", ".json", ".toml", ".csv", ".txt", ".cff")
FOLDERS = ("docs", "derivations", "examples", "benchmarks", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE")


def copy_documents(target: Path) -> None:
    """Copy the documents and what they show, and link what they name beside that."""
    for folder in FOLDERS:
        for source in sorted([ROOT / folder] if (ROOT / folder).is_file() else (ROOT / folder).rglob("*")):
            if source.is_file() and (source.suffix in KINDS or source.name == "LICENSE"):
                copy = target / source.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)


def external_links(html: str) -> list[str]:
    """What a page would load from elsewhere by itself: scripts, styles, images, fonts. Links to click are no such."""
    loads = re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="(?:https?:)?//[^"]*"', html)
    return loads + re.findall(r'<link(?![^>]*rel="canonical")[^>]*\bhref="(?:https?:)?//[^"]*"', html)


def main() -> int:
    """Build and check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the site")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as name:
        copy_documents(Path(name) / "pages")
        shutil.copyfile(ROOT / "docs" / "site.css", Path(name) / "pages" / "site.css")
        config = (ROOT / "docs" / "mkdocs.yml").read_text().replace("HOOK", str(ROOT / "scripts" / "site_math.py"))
        (Path(name) / "mkdocs.yml").write_text(config.replace("ROOT", str(ROOT)))
        build = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-f", f"{name}/mkdocs.yml", "-d", str(out)]
        if subprocess.run(build).returncode:
            return 1
    found = {str(p.relative_to(out)): external_links(p.read_text("utf-8")) for p in out.rglob("*.html")}
    found |= {str(p): re.findall(r"url\([\"']?https?:[^)]*\)", p.read_text("utf-8")) for p in out.rglob("*.css")}
    for page, links in found.items():
        for link in links:
            print(f"{page} loads from elsewhere: {link}", file=sys.stderr)
    print(f"{len(list(out.rglob('*.html')))} pages in {out}")
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
