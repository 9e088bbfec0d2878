"""Layers and their formulas in the HTML report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from leakaudit.findings import Counts, LayerReport, Verdict
from leakaudit.report import wording
from leakaudit.report.html import svg
from leakaudit.report.html.text import Column, name, table, text, verdict_badge

_COLUMNS = (
    Column("layer", "layer"),
    Column('<abbr title="unknowns of the input">|X|</abbr>', "|X| unknowns", number=True),
    Column('<abbr title="gradient constraints">|A|</abbr>', "|A| gradient", number=True),
    Column('<abbr title="weight constraints">|B|</abbr>', "|B| weight", number=True),
    Column("rank bound", "rank bound", number=True),
    Column("determined", "determined"),
    Column("verdict", "verdict"),
)
_FORMULA_COLUMNS = (
    Column("count", "count"),
    Column("formula", "formula"),
    Column("with the numbers", "numbers"),
    Column("result", "result", number=True),
)
_POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def layer_table(layers: Sequence[LayerReport]) -> str:
    """Return one row per layer, the determined fraction as a bar."""
    rows = [[_heading(layer), *_numbers(layer), verdict_badge(layer.verdict)] for layer in layers]
    caption = (
        "|X|: unknowns of the layer's input; |A|: gradient constraints; |B|: weight constraints; "
        "determined: rank bound / |X|"
    )
    shown = table(caption, _COLUMNS, rows)
    if any(layer.verdict is Verdict.UNDERDETERMINED for layer in layers):
        shown += f'\n<p class="muted">{text(wording.UNDERDETERMINED_NOTE)}</p>'
    return shown


def formulas(layers: Sequence[LayerReport]) -> str:
    """Return the counts of each layer as formulas, with this layer's numbers put in."""
    parts = []
    for layer in layers:
        if layer.counts is None:
            continue
        values = ", ".join(
            f"{key} = {number}" for key, number in layer.counts.symbolic.values.items()
        )
        given = f'<p class="muted">with {text(values)}</p>' if values else ""
        rows = _formulas(layer.counts)
        caption = f"The counts of {layer.name} as formulas"
        parts.append(
            f"<details><summary>{name(layer.name)}</summary>{given}"
            f"{table(caption, _FORMULA_COLUMNS, rows)}</details>"
        )
    joined = "\n".join(parts)
    return f'<div class="formulas">{joined}</div>' if joined else ""


def pretty(formula: str) -> str:
    """Return a formula as it is written by hand: F·K²·N."""
    raised = re.sub(r"\*\*(\d+)", lambda match: match[1].translate(_POWERS), formula)
    return raised.replace("*", "·").replace(" - ", " − ")


def _heading(layer: LayerReport) -> str:
    shapes = f"{wording.shape(layer.input_shape)} → {wording.shape(layer.output_shape)}"
    lines = [wording.operator(layer.op, layer.parameters), shapes]
    if layer.note:
        lines.append(layer.note.strip())
    return name(layer.name) + "".join(f'<span class="under">{text(line)}</span>' for line in lines)


def _numbers(layer: LayerReport) -> list[str]:
    counts = layer.counts
    if counts is None:
        return ["–"] * 5
    share = text(wording.determined(counts).removeprefix("! "))
    if counts.fixes_input:
        share = f"<b>{share}</b>"
    return [
        *wording.counted(counts),
        f'<span class="share">{svg.bar(counts)}<span>{share}</span></span>',
    ]


def _formulas(counts: Counts) -> list[list[str]]:
    given = counts.symbolic
    margin = counts.gradient_constraints + counts.weight_constraints - counts.unknowns
    unknowns, gradient, weight, _ = wording.counted(counts)
    rows = (
        ("|X|", given.unknowns, unknowns),
        ("|A|", given.gradient_constraints, gradient),
        ("|B|", given.weight_constraints, weight),
        ("|A| + |B| − |X|", given.margin, wording.count(margin)),
    )
    return [
        [label, text(pretty(formula)), text(_put_in(formula, given.values)), result]
        for label, formula, result in rows
    ]


def _put_in(formula: str, values: Mapping[str, int]) -> str:
    """Return the formula with the layer's numbers for its symbols; empty where they are unknown."""
    if not values:
        return ""
    return pretty(
        re.sub(r"[A-Za-z_]\w*", lambda match: str(values.get(match[0], match[0])), formula)
    )
