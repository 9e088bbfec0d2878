"""Markdown: read back by an independent parser; no name becomes markup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt
from report_samples import HOSTILE, poisoned

from leakaudit.findings import AuditReport
from leakaudit.report import RenderOptions
from leakaudit.report.escape import plain
from leakaudit.report.markdown import text as markdown_text
from leakaudit.report.markdown.report import render as markdown

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Page(HTMLParser):
    """Tags in order, and the text; the elements that only part or set names are left out."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[tuple[str, str | None]] = set()
        self.words: list[str] = []
        self.feed(PARSER.render(source))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("span", "code"):
            self.tags.append(tag)
        self.attributes |= set(attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def text_of(report: AuditReport) -> str:
    return markdown(report, RenderOptions())


def test_golden(ci_report: AuditReport, golden: Callable[[str, str], None]) -> None:
    golden("report.md", text_of(ci_report))


def test_tables_headings_and_details(ci_report: AuditReport) -> None:
    page = Page(text_of(ci_report))
    assert page.tags.count("table") == 3  # models, and the layers of two of them
    assert page.tags.count("h2") == 3
    rows = 1 + 3 + (1 + 5) + (1 + 2)
    assert page.tags.count("tr") == rows
    # Every row has all its cells: |X| in the header does not split it.
    assert page.tags.count("th") == 3 + 10 + 10
    assert page.tags.count("td") == 3 * 3 + 5 * 10 + 2 * 10
    assert page.tags.count("details") == 5 + 2  # findings, and the steps of two paths
    assert "|X|" in page.text
    assert "Not audited: the file ends in the middle" in page.text


def test_a_shared_remedy_stands_once(ci_report: AuditReport) -> None:
    text = text_of(ci_report)
    assert text.count("Raise the stride") == 1
    assert "`leakaudit advise` lists the smallest" in text


def test_nothing_found(ci_report: AuditReport) -> None:
    model = replace(ci_report.models[0], findings=())
    text = text_of(replace(ci_report, models=(model,)))
    assert "No findings." in text
    assert text_of(AuditReport("1", ())).startswith("# leakaudit\n\n**0 models, 0 layers")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_inert(hostile: str, ci_report: AuditReport) -> None:
    text = text_of(poisoned(ci_report, hostile))
    clean, dirty = Page(text_of(ci_report)), Page(text)
    assert dirty.tags == clean.tags
    assert dirty.attributes - clean.attributes == set()
    assert not {"script", "img", "a", "svg"} & set(dirty.tags)
    assert plain(f"{hostile} conv4 {hostile}") in dirty.text
    assert all(character.isprintable() or character == "\n" for character in text)
    for line in text.splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


@pytest.mark.parametrize("bare", ["https://x.example", "www.x.example", "@team", "#12", "GH-3"])
def test_no_link_is_made_of_bare_text(bare: str) -> None:
    """Hosts link such words wherever they stand in text, but not across elements or in code."""
    assert bare not in markdown_text.text(f"see {bare} now").replace("\\", "")
    assert markdown_text.code(bare) == f"`{bare}`"


@settings(max_examples=60)
@given(st.text(alphabet="ab |\\`*_[]()<>~#&!-+=1.:/@$%\n\t\x1b", max_size=20))
def test_any_name_comes_out_as_itself(name: str) -> None:
    """In a table's cell and in a paragraph, as text and as code."""
    shown = plain(name)
    for made in (markdown_text.text(name), markdown_text.code(name), markdown_text.rich(name)):
        table = Page(f"| {made} | x |\n| --- | --- |\n| {made} | y |\n")
        assert table.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    expected = shown.strip()
    assert Page(markdown_text.text(name)).text.strip() == expected
    code = Page(f"x {markdown_text.code(name)} y").text.strip()
    assert code == f"x {shown if expected else '(unnamed)'} y"
