"""Pieces of HTML: escaping, badges, tables. All text that goes in comes out inert."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leakaudit.findings import Severity, Verdict
from leakaudit.report.escape import plain

_UNBROKEN = 16  # characters
_SEPARATOR = re.compile(r"([/._:\\])(?=\w)")


def text(untrusted: str) -> str:
    """Return `untrusted` as text for an element or a quoted attribute."""
    return html.escape(plain(untrusted), quote=True)


def name(untrusted: str) -> str:
    """Return a name as code; a long one may be broken after its separators."""
    shown = text(untrusted)
    if len(shown) > _UNBROKEN:
        shown = _SEPARATOR.sub(r"\1<wbr>", shown)
    return f"<code>{shown}</code>" if shown.strip() else "<em>(unnamed)</em>"


def rich(prose: str) -> str:
    """Return prose in which backticks mark code."""
    pieces = re.split(r"`([^`]*[^`\s][^`]*)`", plain(prose))
    return "".join(
        name(piece) if odd % 2 else html.escape(piece) for odd, piece in enumerate(pieces)
    )


def severity_badge(severity: Severity) -> str:
    """Return the severity's word in its colour."""
    return f'<span class="badge {severity.value}">{severity.value}</span>'


def verdict_badge(verdict: Verdict) -> str:
    """Return the verdict's word in its colour."""
    return f'<span class="verdict {verdict.value}">{verdict.value}</span>'


def listed(entries: Iterable[str]) -> str:
    """Return entries of finished HTML as a list; empty where there are none."""
    items = "".join(f"<li>{entry}</li>" for entry in entries)
    return f'<ul class="plain-list">{items}</ul>' if items else ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading (HTML), the heading's plain text, and whether it holds numbers."""

    heading: str
    label: str
    number: bool = False


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column heads its rows.

    On a narrow screen each row becomes a block; the roles keep it a table for a screen reader.

    Args:
        caption: Plain text.
        columns: One per cell of a row.
        rows: Cells of finished HTML.
    """
    kinds = [' class="number"' if column.number else "" for column in columns]
    head = "".join(
        f'<th role="columnheader" scope="col"{kind}>{column.heading}</th>'
        for column, kind in zip(columns, kinds, strict=True)
    )
    lines = [
        '<table role="table">',
        f"<caption>{text(caption)}</caption>",
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>',
        '<tbody role="rowgroup">',
    ]
    for first, *others in rows:
        cells = "".join(
            f'<td role="cell" data-label="{text(column.label)}"{kind}><span>{cell}</span></td>'
            for column, kind, cell in zip(columns[1:], kinds[1:], others, strict=True)
        )
        lines.append(f'<tr role="row"><th role="rowheader" scope="row">{first}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>"])
