"""Markdown with mathematics as HTML that needs no network: formulas become MathML."""

from __future__ import annotations

import html
import re
from typing import Any

from ..errors import InvalidArgumentError

try:
    import latex2mathml.converter
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin
except ImportError as error:
    raise InvalidArgumentError(f"--html needs more packages ({error}): pip install 'balinp[audit]'") from None


_THIN = '<mspace width="0.15em"/>'


def mathml(formula: str, block: bool = False) -> str:
    """The formula, LaTeX, as a MathML element; its source stays in the alttext. Raises ValueError for a command that
    the converter does not know."""
    shown = latex2mathml.converter.convert(_supported(formula), display="block" if block else "inline")
    left = re.search(r"<m[io]>(\\\\[^<]*|&)</m", shown)
    if left is not None:
        raise ValueError(f"{left[1]!r} has no MathML: {formula}")
    names = re.compile(r"<m([io])>([A-Za-z]{2,})</m\1>(?!<mo[^>]*>(?:&#x00028;|\())")  # a thin space on both sides
    shown = names.sub(rf"<mrow>{_THIN}<mi>\2</mi>{_THIN}</mrow>", shown)
    shown = re.sub(r"<m([io])>([A-Za-z]{2,})</m\1>(?=<mo)", rf"<mrow>{_THIN}<mi>\2</mi></mrow>", shown)
    shown = shown.replace("<mo>&#x0007C;</mo>", '<mo form="prefix" stretchy="false" lspace="0" rspace="0">|</mo>')
    shown = shown.replace("<mi>&#x0007E;</mi>", "<mo>∼</mo>")
    return shown.replace("<math ", f'<math alttext="{html.escape(formula, quote=True)}" ', 1)


def _supported(formula: str) -> str:
    """The same formula in the commands that the converter knows."""
    formula = re.sub(r"\\(?:bigl|bigr|Bigl|Bigr)\b", "", formula)
    formula = re.sub(r"\\mathrm\{([A-Za-z]{2,})\}", r"\\operatorname{\1}", formula)
    formula = formula.replace("{aligned}", "{align*}")
    return re.sub(r"\\\\\[\d+pt\]", r"\\\\", formula)


def _renderer() -> MarkdownIt:
    markdown = MarkdownIt("commonmark").enable("table")
    markdown.use(dollarmath_plugin, double_inline=False, renderer=_math)
    rules: Any = markdown.renderer.rules  # type: ignore[attr-defined]
    code = rules["fence"]

    def fence(tokens: Any, index: int, options: Any, env: Any) -> str:
        if tokens[index].info.strip() == "math":
            return f'<div class="math">{mathml(tokens[index].content, True)}</div>\n'
        return str(code(tokens, index, options, env))

    rules["fence"] = fence
    return markdown


def _math(formula: str, options: dict[str, bool]) -> str:
    return mathml(formula, options.get("display_mode", False))


def markdown(text: str, links: set[str]) -> str:
    """``text`` as HTML; every id in code that is among ``links`` becomes a link to its row."""
    shown = str(_renderer().render(text))
    return re.sub(
        r"<code>(eq:[a-z0-9-]+)</code>",
        lambda m: f'<a class="id" href="#{m[1]}">{m[1]}</a>' if m[1] in links else m[0],
        shown,
    )
