"""``balinp report``: one self-contained page about a model on a table. No network, no other file."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .evaluation import Evaluation, cautions, pictures
from .learning import how_it_ended
from .report import measure_rows, number
from .schema import Schema

_STYLE = """
:root { color-scheme: light; --ink: #1c2733; --soft: #56636f; --line: #d5dce3; --paper: #fff; --tint: #f3f6f9 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1180px; padding: 1.2rem clamp(.8rem, 3vw, 2rem) 3rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .3rem 0 } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem }
p { margin: .4rem 0 } .soft { color: var(--soft) }
.verdict { border: 1px solid var(--line); border-left: .4rem solid #2d7d46; padding: .6rem 1rem; margin: 1rem 0;
  background: var(--tint) }
.verdict.careful { border-left-color: #b45309; border-left-style: double; border-left-width: .6rem }
.verdict ul { margin: .3rem 0; padding-left: 1.2rem } .verdict li { margin: .35rem 0 }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 1.2rem }
figure { margin: 0; border: 1px solid var(--line); padding: .7rem }
figure img { width: 100%; height: auto; display: block }
figcaption { font-weight: 600; margin-bottom: .4rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number { text-align: right; font-weight: 600 } th { font-weight: 500; color: var(--soft) }
details { margin: 1rem 0 } summary { cursor: pointer; font-weight: 600 }
@media print { figure { break-inside: avoid } }
"""
_MEANING = {
    "NLL": "Mean −log probability of a row's target under its prediction. Smaller is better; wrong means and wrong "
    "deviations both raise it.",
    "RMSE": "Root of the mean squared error of the predicted mean, in units of the target.",
    "90 % interval coverage": "The share of rows inside their 90 % interval: near 0.9 when the deviations are right.",
    "accuracy": "The share of rows whose most probable class is the true one.",
    "calibration error": "Mean distance between confidence and the share predicted right.",
}
_READING = """<b>Aleatoric</b> uncertainty is the noise that the model sees in the target: more rows do not remove it.
<b>Epistemic</b> uncertainty is ignorance of the weights: it grows away from the data of the fit and shrinks with more
of them. Both are approximations of one model; they do not know that the world may change, that a column may mean
something else tomorrow, or that the rows of this table may differ from those to come."""


def report_page(e: Evaluation, model_path: str) -> str:
    """The page: measures, cautions, pictures, settings and columns of an evaluation."""
    model, table = html.escape(Path(model_path).name), html.escape(Path(e.table.path).name)
    title = f"{model} on {table}"
    shown = "".join(_figure(caption, draw(None)) for caption, draw in pictures(e))
    targets = html.escape(", ".join(e.schema.targets))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: balinp report</title><style>{_STYLE}</style></head><body>
<header><p class="soft">balinp {__version__} · report</p><h1>{title}</h1>
<p>{e.schema.task.capitalize()} of <b>{targets}</b>, {len(e.table)} rows.</p></header>
{_verdict(cautions(e))}
<h2>Measures</h2>{_measures(e)}
<h2>Pictures</h2><div class="pictures">{shown}</div>
<h2>The fit</h2>{_rows(_fit_facts(e.model))}
<details><summary>Columns ({len(e.schema.columns)})</summary>{_columns(e.schema)}</details>
<details><summary>Settings</summary>{_rows([(k, repr(v)) for k, v in e.model.get_params().items()])}</details>
<h2>What the uncertainty means</h2><p>{_READING}</p>
</body></html>
"""


def _verdict(noticed: list[str]) -> str:
    if not noticed:
        return (
            '<div class="verdict"><b>Nothing to warn of.</b> No row outside the range of the fit, calibration within '
            "what chance allows, a converged fit.</div>"
        )
    parts = (html.escape(caution).partition(":") for caution in noticed)
    items = "".join(f"<li><b>{head}:</b>{rest}</li>" for head, _, rest in parts)
    count = f"{len(noticed)} thing{'s' if len(noticed) > 1 else ''} to be careful of"
    return f'<div class="verdict careful"><b>{count}</b><ul>{items}</ul></div>'


def _measures(e: Evaluation) -> str:
    def meaning(name: str) -> str:
        return next((text for start, text in _MEANING.items() if name.startswith(start)), "")

    rows = "".join(
        f'<tr><th>{html.escape(name)}</th><td class="number">{value}</td><td class="soft">{meaning(name)}</td></tr>'
        for name, value in measure_rows([e.forecast.measures or {}])
    )
    return f'<div class="wide"><table>{rows}</table></div>'


def _fit_facts(model: Any) -> list[tuple[str, str]]:
    history = model.history_
    widths = " – ".join(str(width) for width in model.state_.mlp.widths)
    span = "" if model.x_span_ is None else f"; {model.n_features_in_} inputs seen in the span of the rows"
    facts = [("estimator", type(model).__name__), ("network", f"{widths}, {model.activation}{span}")]
    facts += [
        ("rows of the fit", f"{model.n_rows_seen_:g}"),
        ("iterations", f"{model.n_iter_} ({how_it_ended(model)})"),
    ]
    if history:
        facts.append(("training NLL at the end", f"{number(history[-1].train_nll)} nats per row"))
    if getattr(model, "noise", None) == "constant":
        noise = ", ".join(number(v) for v in np.sqrt(model.noise_variance_))
        facts.append(("noise deviation", f"{noise} (units of the target)"))
    precisions = ", ".join(number(layer.prior_precision) for layer in model.state_.layers)
    return [*facts, ("prior precision by layer", precisions), ("temperature", number(model.state_.temperature))]


def _columns(schema: Schema) -> str:
    rows = []
    for c in schema.columns:
        if c.categories is not None:
            kinds = ", ".join(c.categories[:12]) + (", …" if len(c.categories) > 12 else "")
            rows.append((c.name, f"{len(c.categories)} categories: {kinds}"))
        else:
            rows.append((c.name, "numbers" if c.range is None else f"numbers, {c.range[0]:g} to {c.range[1]:g}"))
    return _rows(rows)


def _rows(pairs: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in pairs)
    return f'<div class="wide"><table>{cells}</table></div>'


def _figure(caption: str, axes: Any) -> str:
    file = io.BytesIO()
    axes.figure.savefig(file, format="png", dpi=150)
    image, text = base64.b64encode(file.getvalue()).decode(), html.escape(caption, quote=True)
    return f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="data:image/png;base64,{image}"></figure>'
