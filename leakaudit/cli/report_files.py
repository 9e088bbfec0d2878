"""`--report FORMAT=FILE`: further reports of the same audit, for a gate with several readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from leakaudit.findings import AuditReport
from leakaudit.report import REPORTERS, RenderOptions, reporter
from leakaudit.report.destination import write_text


class ReportFile(click.ParamType[tuple[str, Path]]):
    """`sarif=leakaudit.sarif`: a format and the file that receives it."""

    name = "report"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Path]:
        """Return (format, file)."""
        if isinstance(value, tuple):
            return value
        file_format, _, file = str(value).partition("=")
        if file_format not in REPORTERS:
            self.fail(f"{value!r} names no format: write one of {', '.join(REPORTERS)}", param, ctx)
        if not file:
            self.fail(f"{value!r} names no file: write {file_format}=FILE", param, ctx)
        return file_format, Path(file)


def report_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--report` to a command, as `reports`."""
    return click.option(
        "--report",
        "reports",
        type=ReportFile(),
        multiple=True,
        metavar="FORMAT=FILE",
        help="Write a further report of the same audit, e.g. sarif=leakaudit.sarif; repeatable.",
    )(command)


def write_reports(
    reports: Iterable[tuple[str, Path]], report: AuditReport, options: RenderOptions
) -> None:
    """Write every report that was asked for; `options` are those of the main one.

    Raises:
        UsageError: A file cannot be written.
    """
    for file_format, path in reports:
        # A terminal's colours have no place in a file.
        text = reporter(file_format)(report, replace(options, color=False))
        write_text(path, text, "--report")
