"""Pictures as inline SVG: the graph of what rests on what, and a residual ratio beside its threshold."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from .statements import Statement

COLUMN, ROW, WIDTH, HEIGHT = 228, 27, 184, 20  # of a cell of the graph, and of the box in it


def levels(statements: Sequence[Statement]) -> dict[str, int]:
    """How many uses deep each statement rests: 0 for one that uses nothing. Cycles and unknown ids count as nothing."""
    uses = {s.id: s.uses for s in statements}
    depth: dict[str, int] = {}

    def visit(node: str, path: tuple[str, ...]) -> int:
        if node in depth:
            return depth[node]
        below = [visit(other, (*path, node)) + 1 for other in uses.get(node, ()) if other in uses and other not in path]
        depth[node] = max(below, default=0)
        return depth[node]

    for s in statements:
        visit(s.id, ())
    return depth


def dependency_graph(statements: Sequence[Statement], verdicts: Mapping[str, str]) -> str:
    """The graph, from what uses nothing on the left; a statement is a link to its row."""
    place = _layout(statements)
    width = COLUMN * (max(x for x, _ in place.values()) + 1)
    height = ROW * (max(y for _, y in place.values()) + 1) + 8
    parts = [
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="which statement rests on which">'
    ]
    for s in statements:
        for other in s.uses:
            if other in place:
                parts.append(_edge(other, s.id, place))
    for s in statements:
        x, y = place[s.id]
        left, top, wrong = x * COLUMN + 4, y * ROW + 4, " wrong" if verdicts[s.id] == "WRONG" else ""
        kind = s.status.replace(" ", "-")
        parts.append(
            f'<a href="#{s.id}"><g class="node {kind}{wrong}" data-id="{s.id}"><title>{html.escape(s.title)}</title>'
            f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>'
            f'<text x="{left + 6}" y="{top + 13.5}">{s.id[3:]}</text></g></a>'
        )
    return "".join([*parts, "</svg>"])


def _layout(statements: Sequence[Statement]) -> dict[str, tuple[int, int]]:
    """(column, row) of every statement: column its level, rows ordered so that edges are short."""
    depth = levels(statements)
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for s in statements:
        columns[depth[s.id]].append(s.id)
    neighbours: dict[str, list[str]] = {s.id: [] for s in statements}
    for s in statements:
        for other in s.uses:
            if other in neighbours:
                neighbours[s.id].append(other)
                neighbours[other].append(s.id)
    height = max(len(c) for c in columns)
    at = {name: i + (height - len(c)) / 2 for c in columns for i, name in enumerate(c)}
    for sweep in range(12):  # by the mean of the neighbours' rows, back and forth
        for column in columns if sweep % 2 == 0 else reversed(columns):
            column.sort(key=lambda n: sum(at[o] for o in neighbours[n]) / max(len(neighbours[n]), 1))
            at.update({name: i + (height - len(column)) / 2 for i, name in enumerate(column)})
    top = [(height - len(c)) // 2 for c in columns]
    return {name: (x, top[x] + i) for x, c in enumerate(columns) for i, name in enumerate(c)}


def _edge(start: str, end: str, place: Mapping[str, tuple[int, int]]) -> str:
    (x0, y0), (x1, y1) = place[start], place[end]
    a, b = x0 * COLUMN + 4 + WIDTH, y0 * ROW + 4 + HEIGHT / 2
    c, d = x1 * COLUMN + 4, y1 * ROW + 4 + HEIGHT / 2
    bend = max(24.0, (c - a) / 2)
    return (
        f'<path class="edge" data-from="{start}" data-to="{end}" '
        f'd="M{a} {b}C{a + bend:g} {b} {c - bend:g} {d} {c} {d}"/>'
    )


def ratio_bar(ratio: float, threshold: float) -> str:
    """The ratio on a logarithmic scale from 10⁻⁶ to 10³ of eps, the threshold a line."""

    def place(value: float) -> float:
        return 240 * (min(max(math.log10(max(value, 1e-6)), -6), 3) + 6) / 9

    end, limit, kind = place(ratio), place(threshold), "good" if ratio < threshold else "bad"
    ticks = "".join(f'<text x="{place(10.0**e):g}" y="34">10{_superscript(e)}</text>' for e in (-6, -3, 0, 3))  # of eps
    return (
        '<svg class="ratio" xmlns="http://www.w3.org/2000/svg" viewBox="-14 0 280 38" width="280" height="38" '
        f'role="img" aria-label="residual ratio {ratio:.2g} of {threshold:g}">'
        f'<rect class="track" x="0" y="8" width="240" height="10"/>'
        f'<rect class="{kind}" x="0" y="8" width="{max(end, 2):g}" height="10"/>'
        f'<line x1="{limit:g}" x2="{limit:g}" y1="3" y2="23"/>{ticks}</svg>'
    )


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
