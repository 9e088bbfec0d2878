"""The list of report formats."""

from __future__ import annotations

from collections.abc import Mapping

from leakaudit.errors import UsageError
from leakaudit.report import github, gitlab, json_report, junit, sarif
from leakaudit.report.html import report as html
from leakaudit.report.interface import Reporter
from leakaudit.report.markdown import report as markdown
from leakaudit.report.terminal import table

REPORTERS: Mapping[str, Reporter] = {
    "table": table.render,
    "json": json_report.render,
    "sarif": sarif.render,
    "junit": junit.render,
    "github": github.render,
    "gitlab": gitlab.render,
    "markdown": markdown.render,
    "html": html.render,
}


def reporter(name: str) -> Reporter:
    """Return the reporter of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in REPORTERS:
        raise UsageError(f"no report format {name!r}; use one of {', '.join(REPORTERS)}")
    return REPORTERS[name]
