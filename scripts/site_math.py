"""MkDocs hook: formulas, as GitHub writes them, become MathML, which browsers draw by themselves."""

from __future__ import annotations

import re
from typing import Any

from balinp.audit.render import mathml

_FENCES = re.compile(r"^(```+|~~~+)(\w*).*?^\1[ \t]*$", re.S | re.M)
_CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.S)
_INLINE = re.compile(r"\$(?!\s)((?:[^$\\]|\\.)+?)(?<!\s)\$(?!\d)", re.S)
_kept: dict[str, str] = {}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a token in the place of every formula, so that Markdown does not read its underscores."""
    _kept.clear()

    def keep(html: str) -> str:
        token = f"MATHML{len(_kept)}LMHTAM"
        _kept[token] = html
        return token

    code: dict[str, str] = {}

    def set_aside(match: re.Match[str]) -> str:
        name = f"CODE{len(code)}EDOC"
        code[name] = match[0]
        return name

    def fence(match: re.Match[str]) -> str:
        if match[2] != "math":
            return set_aside(match)
        formula = re.sub(r"^```+math\n|```+\s*$", "", match[0])
        return "\n" + keep(f'<div class="math">{mathml(formula, True)}</div>') + "\n"

    text = _CODE.sub(set_aside, _FENCES.sub(fence, markdown))
    text = _INLINE.sub(lambda m: keep(mathml(m[1])), text)
    while re.search(r"CODE\d+EDOC", text):
        text = re.sub(r"CODE\d+EDOC", lambda m: code[m[0]], text)
    return text


def on_page_content(html: str, **_: Any) -> str:
    """The formulas back in their places."""
    return re.sub(r"MATHML\d+LMHTAM", lambda m: _kept[m[0]], html)
