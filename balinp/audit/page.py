"""The audit as one self-contained page: no network, no other file."""

from __future__ import annotations

import ast
import html
import math
import re
from functools import cache
from importlib import resources
from pathlib import Path

import balinp

from .audit import Audit, source_root
from .command import verdict
from .graph import dependency_graph, ratio_bar
from .mutants import Mutant
from .render import markdown
from .source import Function, citing_lines, excerpt
from .statements import Statement


def page(audit: Audit) -> str:
    """The whole page."""
    verdicts = {s.id: verdict(audit, s) for s in audit.statements}
    title = f"balinp {balinp.__version__}: audit"
    rows = "\n".join(_chapter(audit, file) for file in dict.fromkeys(s.file for s in audit.statements))
    graph = dependency_graph(audit.statements, verdicts)
    style, script = (
        resources.files("balinp.audit").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
<header><h1>{title}</h1>{_summary(audit)}</header>
<nav><input id="find" type="search" placeholder="find: layer-posterior, cholesky, τ, …" aria-label="find a statement">
<select id="status" aria-label="status"><option value="">every status</option><option>fixed by the abstract</option>
<option>derived</option><option>our choice</option><option>WRONG</option></select>
<a href="#graph">graph</a> <a href="#reading">how to read this</a></nav>
<main>{_reading()}{rows}
<section id="graph"><h2>What rests on what</h2>
<p>From left to right: a statement uses those to its left. Click one to open it.
<span class="chip fixed-by-the-abstract">fixed by the abstract</span> <span class="chip derived">derived</span>
<span class="chip our-choice">our choice</span></p><div class="wide">{graph}</div></section></main>
<script>{script}</script></body></html>
"""


def _summary(audit: Audit) -> str:
    counts = {status: sum(s.status == status for s in audit.statements) for status in _STATUSES}
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    wrong = "".join(f"<li>{html.escape(str(f))}</li>" for f in audit.findings)
    state = '<p class="verdict good">Nothing is wrong.</p>' if audit.passed else f'<ul class="verdict bad">{wrong}</ul>'
    parts = "".join(f"<tr><th>{name}</th><td>{html.escape(what)}</td></tr>" for name, what in audit.parts.items())
    return (
        f"<p>{len(audit.statements)} statements ({told}), each followed to its derivation, code, tests and mutants.</p>"
        f"{state}<details><summary>what was checked</summary><table>{parts}</table></details>"
    )


_PARTS = ("code", "mutants", "tests", "figures")
_STATUSES = ("fixed by the abstract", "derived", "our choice")


READING = """Every row is one formula. Open it for what it assumes and uses, its derivation, the functions that compute
it (the lines that cite it are marked), the tests that carry its marker, and the mistakes that were put into the code on
purpose: each must make a check fail. The <em>ratio</em> is the worst error of its numerical check, in units of machine
precision times what a backward-stable algorithm may lose; it must stay below the threshold. <em>Fixed by the
abstract</em>: the paper's abstract says so. <em>Derived</em>: follows from what it uses. <em>Our choice</em>: the
abstract is silent; the alternative and the reason are given."""


def _reading() -> str:
    return f'<details id="reading"><summary>How to read this page</summary><p>{READING}</p></details>'


def _chapter(audit: Audit, file: str) -> str:
    statements = [s for s in audit.statements if s.file == file]
    name = file.removesuffix(".md").partition("-")
    title = f"{int(name[0])}. {name[2].replace('-', ' ').capitalize()}"
    return f"<section><h2>{title}</h2>{''.join(_row(audit, s) for s in statements)}</section>"


def _row(audit: Audit, s: Statement) -> str:
    measured, mutants = audit.measured.get(s.id), audit.mutants_of(s.id)
    ratio = "–" if measured is None or measured.ratio is None else f"{measured.ratio:.2g}"
    state = verdict(audit, s)
    ids = {other.id for other in audit.statements}
    users = [other.id for other in audit.statements if s.id in other.uses]
    body = [
        "".join(f'<p class="bad">{html.escape(f.message)}</p>' for f in audit.findings_of(s.id)),
        _facts(s, users),
        '<p class="jump">' + "".join(f'<a href="#{s.id}/{part}">{part}</a>' for part in _PARTS) + "</p>",
        f"<h3>Derivation</h3><div class=derivation>{markdown(s.body, ids)}</div>",
        f"{_heading(s, 'code')}{''.join(_code(audit.functions[c], s.id) for c in s.code if c in audit.functions)}",
        f"{_heading(s, 'mutants')}{''.join(_mutant(m, audit.killed.get(m.name)) for m in mutants)}",
        f"{_heading(s, 'tests')}{_tests(audit, s)}",
        f"{_heading(s, 'figures')}{_figures(audit, s)}",
    ]
    mark = {"holds": "✓", "WRONG": "✗"}.get(state, "–")
    kind = s.status.replace(" ", "-")
    words = html.escape(f"{s.id} {s.title} {s.status} {state} {' '.join(s.code)}".lower(), quote=True)
    return (
        f'<details class="row" id="{s.id}" data-words="{words}"><summary>'
        f'<span class="mark m{mark}" title="{state}">{mark}</span> <code>{s.id}</code> '
        f'<span class="title">{html.escape(s.title)}</span>'
        f'<span class="chip {kind}">{s.status}</span><span class="number" title="worst residual ratio">{ratio}</span>'
        f"</summary><div class=inside>{''.join(body)}</div></details>"
    )


def _heading(s: Statement, part: str) -> str:
    return f'<h3 id="{s.id}/{part}">{part.capitalize()}</h3>'


def _links(ids: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f'<a class="id" href="#{i}">{i}</a>' for i in ids) or "nothing"


def _facts(s: Statement, users: list[str]) -> str:
    rows = [("assumes", html.escape("; ".join(s.assumptions)) or "nothing"), ("uses", _links(s.uses))]
    rows += [("used by", _links(users)), ("in the paper", html.escape(s.paper))]
    if s.alternative:
        rows += [("alternative", html.escape(s.alternative)), ("reason", html.escape(s.reason))]
    rows.append(("written in", f"derivations/{s.file}, line {s.line}"))
    return "<table class=facts>" + "".join(f"<tr><th>{k}</th><td>{v}</td></tr>" for k, v in rows) + "</table>"


def _code(function: Function, statement: str) -> str:
    first, text = excerpt(function, statement)
    marked = set(citing_lines(function, statement))
    where = f"balinp/{function.file}:{first}"
    caption = f"<figcaption><code>balinp.{function.name}</code> <span>{where}</span></figcaption>"
    return f"<figure>{caption}{_lines(text, first, marked)}</figure>"


def _lines(text: str, first: int, marked: set[int]) -> str:
    shown = []
    for number, line in enumerate(text.splitlines(), first):
        inside = f'<span class="n">{number:4d}</span> {html.escape(line)}'
        shown.append(f"<mark>{inside}</mark>" if number in marked else inside)
    return "<pre>" + "\n".join(shown) + "</pre>"


def _mutant(m: Mutant, killed: bool | None) -> str:
    verdict = {True: "killed ✓", False: "survives ✗", None: "not run"}[killed]
    kind = {True: "good", False: "bad", None: ""}[killed]
    by = f" by {m.tests}" if m.tests else " by the conformance check of this statement" if killed else ""
    old = "\n".join(f"- {line}" for line in m.old.strip("\n").splitlines())
    new = "\n".join(f"+ {line}" for line in (m.new.strip("\n") or "(nothing)").splitlines())
    return (
        f"<figure><figcaption>{html.escape(m.mistake)} <span>balinp/{m.file}</span> <b class='{kind}'>{verdict}</b>{by}"
        f"</figcaption><pre><del>{html.escape(old)}</del>\n<ins>{html.escape(new)}</ins></pre></figure>"
    )


def _tests(audit: Audit, s: Statement) -> str:
    root, own = source_root(audit.options.root), [t for t in s.check if t != "conformance"]
    rest = [t for t in sorted(set(audit.markers.get(s.id, ()))) if t not in own]
    shown = ["<p>balinp.testing.conformance, on fresh instances</p>" if "conformance" in s.check else ""]
    for test in own:
        first, text = (0, "") if root is None else _test_source(root / "tests", test)
        source = _lines(text, first, set()) if text else ""
        shown.append(f"<details><summary><code>tests/{html.escape(test)}</code></summary>{source}</details>")
    listed = "".join(f"<li><code>tests/{html.escape(t)}</code></li>" for t in rest)
    return "".join(shown) + (f"<ul>{listed}</ul>" if listed else "")


@cache
def _test_source(tests: Path, name: str) -> tuple[int, str]:
    """(first line, text) of the test "file.py::name"; ("", 0) when it is not there."""
    file, _, function = name.partition("::")
    path = tests / file
    text = path.read_text("utf-8") if path.is_file() else ""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            return first, "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    return 0, ""


def _figures(audit: Audit, s: Statement) -> str:
    measured = audit.measured.get(s.id)
    if measured is None or measured.ratio is None:
        return f"<p>Not measured here{': ' + html.escape(measured.what) if measured else ''}.</p>"
    ratio = measured.ratio if math.isfinite(measured.ratio) else 1e9
    what = html.escape(re.sub(r"\s+", " ", measured.what))
    return (
        f"<p>{html.escape(measured.identity)}</p>{ratio_bar(ratio, audit.threshold)}"
        f"<p>Worst residual ratio {measured.ratio:.3g} (threshold {audit.threshold:g}), of: {what}. "
        f"Seed {audit.options.seed}, backend {html.escape(audit.options.backend)}.</p>"
    )
