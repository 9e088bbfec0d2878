"""Every format tells the same findings: read back from its own text and counted."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from leakaudit.findings import AuditReport, Severity
from leakaudit.report import REPORTERS, RenderOptions, reporter

# What a format keeps of a finding's severity: GitLab and SARIF's own field all five.
Found = tuple[str, str, str | None]  # rule, severity, layer

GITLAB = {
    "blocker": "critical",
    "critical": "high",
    "major": "medium",
    "minor": "low",
    "info": "note",
}


def _json(text: str) -> list[Found]:
    return [
        (found["rule"], found["severity"], found["layer"])
        for model in json.loads(text)["models"]
        for found in model["findings"]
    ]


def _sarif(text: str) -> list[Found]:
    found = []
    for result in json.loads(text)["runs"][0]["results"]:
        place = result["locations"][0]["logicalLocations"][0]
        layer = place["name"] if place["kind"] == "object" else None
        found.append((result["ruleId"], result["properties"]["severity"], layer))
    return found


def _told(texts: list[str], pattern: str) -> list[Found]:
    return [
        (match["rule"], match["severity"], match["layer"])
        for text in texts
        for match in re.finditer(pattern, text, re.M)
    ]


def _junit(text: str) -> list[Found]:
    cases = ET.fromstring(text).iter("testcase")
    texts = [part.text or "" for case in cases for part in case]
    return _told(texts, r"^(?P<severity>\w+) (?P<rule>LA\d+): (?:Model|Layer (?P<layer>[^:]+)): ")


def _github(text: str) -> list[Found]:
    return _told(
        [text],
        r"^::\w+ file=[^,]*,title=leakaudit%3A (?P<rule>LA\d+) [^:]*::"
        r"(?:Model|Layer (?P<layer>[^:]+)): .*?\((?P<severity>critical|high|medium|low|note)\)"
        r"(?:%0A|$)",
    )


def _gitlab(text: str) -> list[Found]:
    found = []
    for entry in json.loads(text):
        if entry["check_name"].startswith("LA"):
            match = re.search(r"\. (?:Model|Layer (\S+)): ", entry["description"])
            assert match
            found.append((entry["check_name"], GITLAB[entry["severity"]], match[1]))
    return found


def _markdown(text: str) -> list[Found]:
    found: list[Found] = []
    rule = ""
    for line in text.splitlines():
        if heading := re.match(r"#### (LA\d+) ", line):
            rule = heading[1]
        elif entry := re.match(r"<details><summary>\S+ <b>(\w+)</b> (.*?)(:|</summary>)", line):
            layer = re.sub(r"</?code>", "", entry[2])
            found.append((rule, entry[1], None if layer == "model" else layer))
    return found


class _Html(HTMLParser):
    """Collects rule, severity and layer where the page shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Found] = []
        self.words: list[str] = []
        self.rule = ""
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "h4" or ("class", "finding") in attrs:
            self.words, self.inside = [], True

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            self.words.append(data.strip())

    def handle_endtag(self, tag: str) -> None:
        if tag == "h4":
            self.rule, self.inside = self.words[0], False
        elif tag == "li" and self.inside:
            layer = None if self.words[1] == "Model" else self.words[1]
            self.found.append((self.rule, self.words[0], layer))
            self.inside = False


def _html(text: str) -> list[Found]:
    page = _Html()
    page.feed(text)
    return page.found


def _table(text: str) -> list[Found]:
    found: list[Found] = []
    rule = ""
    for line in text.splitlines():
        if heading := re.match(r"(LA\d+)  ", line):
            rule = heading[1]
        elif entry := re.match(r"  (critical|high|medium|low|note)\s+([^ :]+): ", line):
            found.append((rule, entry[1], None if entry[2] == "model" else entry[2]))
    return found


READERS: dict[str, Callable[[str], list[Found]]] = {
    "table": _table,
    "json": _json,
    "sarif": _sarif,
    "junit": _junit,
    "github": _github,
    "gitlab": _gitlab,
    "markdown": _markdown,
    "html": _html,
}


def test_every_format_has_a_reader() -> None:
    assert set(READERS) == set(REPORTERS)


@pytest.mark.parametrize("name", list(READERS))
def test_the_findings_are_those_of_the_audit(name: str, ci_report: AuditReport) -> None:
    model = ci_report.models[0]
    more = tuple(
        replace(model.findings[0], rule=f"LA{number}", severity=severity, layer=layer)
        for number, (severity, layer) in enumerate(
            ((severity, layer) for severity in Severity for layer in ("conv2", "fc", None)),
            start=200,
        )
    )
    models = (replace(model, findings=(*model.findings, *more)), *ci_report.models[1:])
    report = replace(ci_report, models=models)
    expected = Counter(
        (found.rule, found.severity.value, found.layer)
        for model in report.models
        for found in model.findings
    )
    assert expected.total() == 20
    assert Counter(READERS[name](reporter(name)(report, RenderOptions()))) == expected
