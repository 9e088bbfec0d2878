"""What every reporter is: one function from an audit to text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leakaudit.findings import AuditReport


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How to write a report. A format for machines takes notice of `show_seconds` only.

    Attributes:
        color: Style the text with ANSI codes. Off: the output holds none.
        width: Columns of the terminal; text is wrapped and tables laid out to fit.
        verbosity: 0 is the default; -1 leaves out tables, paths and remedies, -2 all but the
            summary; 1 adds hashes, formulas, premises and everything that was tried.
        show_seconds: Off: no durations, so that two runs give the same bytes.
    """

    color: bool = False
    width: int = 100
    verbosity: int = 0
    show_seconds: bool = True


# Gives the whole report, ending in one newline. Names and messages in the audit come from model
# files and are untrusted: whatever the format could read as more than text is escaped.
Reporter = Callable[[AuditReport, RenderOptions], str]
