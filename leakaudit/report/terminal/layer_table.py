"""The table of layers, laid out for the width there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click
from tabulate import tabulate

from leakaudit.findings import LayerReport, Verdict
from leakaudit.report import wording
from leakaudit.report.escape import plain, shorten

Style = Callable[[str, Verdict], str]


@dataclass(frozen=True, slots=True)
class _Layout:
    """One way to set the table. `stacked` gives each layer two lines instead of one."""

    stacked: bool = True
    tall_header: bool = True
    split_verdict: bool = True
    name_limit: int = 60


# From roomy to narrow; the first that fits is taken, else the last.
_LAYOUTS = (
    _Layout(stacked=False, tall_header=False, split_verdict=False),
    _Layout(stacked=False, split_verdict=False),
    _Layout(split_verdict=False),
    *(_Layout(name_limit=limit) for limit in (60, 40, 30, 22, 16)),
)


def layer_table(layers: Sequence[LayerReport], width: int, style: Style) -> list[str]:
    """Return the lines of the table, one row per layer.

    Args:
        layers: At least one.
        width: Columns to fit into. Below about 75 the narrowest layout may not fit.
        style: Colours a piece of text by the verdict it belongs to, adding no visible character.
    """
    for layout in _LAYOUTS:
        lines = _lines(layers, layout, style)
        if max(len(click.unstyle(line)) for line in lines) <= width:
            break
    return lines


def _lines(layers: Sequence[LayerReport], layout: _Layout, style: Style) -> list[str]:
    header = ["|X|", "|A|", "|B|", "rank bound", "determined", "verdict"]
    align = ["right"] * 5 + ["left"]
    if layout.tall_header:
        header[3:5] = ["rank\nbound", "deter-\nmined"]
    if layout.stacked:
        header, align = ["layer", "shape", *header], ["left", "left", *align]
    else:
        header = ["layer", "operator", "input", "output", *header]
        align = ["left"] * 4 + align
    # The header is a row like the others: given as `headers`, tabulate widens every column by two.
    table: str = tabulate(
        [header, *(_row(layer, layout, style) for layer in layers)],
        tablefmt="plain",
        colalign=align,
        disable_numparse=True,  # a layer named "1e5" is a name
    )
    lines = [line.rstrip() for line in table.splitlines()]
    rule = "-" * max(len(click.unstyle(line)) for line in lines)
    lines.insert(2 if layout.tall_header else 1, rule)
    return lines


def _row(layer: LayerReport, layout: _Layout, style: Style) -> list[str]:
    name = shorten(plain(layer.name), layout.name_limit)
    # A blank or empty cell would let the columns of a row run together for the eye.
    name = name if name.strip() else "(unnamed)"
    op = shorten(wording.operator(layer.op, layer.parameters), layout.name_limit)
    given, result = wording.shape(layer.input_shape), wording.shape(layer.output_shape)
    if layout.stacked:
        cells = [f"{name}\n{op}", f"{given}\n-> {result}"]
    else:
        cells = [name, op, given, result]
    counts = layer.counts
    numbers = ["-"] * 5
    if counts is not None:
        determined = style(wording.determined(counts), layer.verdict)
        numbers = [*wording.counted(counts), determined]
    verdict: tuple[str, ...] = (layer.verdict.value,)
    if layout.split_verdict and layer.verdict is Verdict.UNDERDETERMINED:
        verdict = ("under-", "determined")
    return [*cells, *numbers, "\n".join(style(part, layer.verdict) for part in verdict)]
