"""The list of reporters."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from leakaudit.errors import UsageError
from leakaudit.report.github import GithubReporter
from leakaudit.report.gitlab import GitlabReporter
from leakaudit.report.html.report import HtmlReporter
from leakaudit.report.interface import Reporter
from leakaudit.report.json_report import JsonReporter
from leakaudit.report.junit import JunitReporter
from leakaudit.report.markdown.report import MarkdownReporter
from leakaudit.report.sarif import SarifReporter
from leakaudit.report.terminal.table import TableReporter

REPORTERS: Mapping[str, Reporter] = MappingProxyType(
    {
        "table": TableReporter(),
        "json": JsonReporter(),
        "sarif": SarifReporter(),
        "junit": JunitReporter(),
        "github": GithubReporter(),
        "gitlab": GitlabReporter(),
        "markdown": MarkdownReporter(),
        "html": HtmlReporter(),
    }
)


def reporter(name: str) -> Reporter:
    """Return the reporter of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in REPORTERS:
        raise UsageError(f"no report format {name!r}; use one of {', '.join(REPORTERS)}")
    return REPORTERS[name]
