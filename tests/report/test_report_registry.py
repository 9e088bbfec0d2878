"""The registry names every reporter there is, and what reporters may import."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import leakaudit.report
from leakaudit.errors import UsageError
from leakaudit.findings import AuditReport
from leakaudit.report import REPORTERS, RenderOptions, reporter

FOLDER = Path(leakaudit.report.__file__).parent


def test_every_reporter_on_disk_is_registered_under_its_name() -> None:
    found = set()
    for path in FOLDER.rglob("*.py"):
        if path.stem in ("__init__", "interface"):
            continue
        dotted = ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        module = importlib.import_module(f"leakaudit.report.{dotted}")
        if hasattr(module, "render"):
            found.add(module.render)
    assert found == set(REPORTERS.values())
    assert len(found) == len(REPORTERS)


def test_an_unknown_format_is_a_usage_error_that_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"'yaml'.*table, json"):
        reporter("yaml")


@pytest.mark.parametrize("name", list(REPORTERS))
def test_every_report_ends_in_one_newline(name: str, mixed_report: AuditReport) -> None:
    for report in (mixed_report, AuditReport("1", ())):
        text = reporter(name)(report, RenderOptions())
        assert text.endswith("\n")
        assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", list(REPORTERS))
def test_only_a_report_with_colour_has_escape_codes(name: str, mixed_report: AuditReport) -> None:
    assert "\x1b" not in reporter(name)(mixed_report, RenderOptions(color=False))


def test_reporters_import_nothing_of_ours_but_findings_and_errors() -> None:
    allowed = ("leakaudit.findings", "leakaudit.errors", "leakaudit.report")
    seen = set()
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                within = [f"leakaudit.{alias.name}" for alias in node.names]
                seen.update(within if node.module == "leakaudit" else [node.module or ""])
            elif isinstance(node, ast.Import):
                seen.update(alias.name for alias in node.names)
    ours = {name for name in seen if name.startswith("leakaudit")}
    assert "leakaudit.findings" in ours
    assert [name for name in ours if not name.startswith(allowed)] == []
