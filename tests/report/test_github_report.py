"""GitHub workflow commands, read back the way the runner reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from report_samples import HOSTILE, poisoned

from leakaudit.findings import AuditReport
from leakaudit.report import RenderOptions, github
from leakaudit.report.escape import plain


def text_of(report: AuditReport) -> str:
    return github.render(report, RenderOptions())


def parse(line: str) -> tuple[str, dict[str, str], str]:
    """Command, properties and message of a line, as the runner's ActionCommand reads it."""
    assert line.startswith("::")
    head, message = line[2:].split("::", 1)
    name, _, rest = head.partition(" ")
    properties = {}
    for pair in rest.split(","):
        key, value = pair.split("=", 1)
        for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ",")):
            value = value.replace(code, character)
        properties[key] = value.replace("%25", "%")
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        message = message.replace(code, character)
    return name, properties, message


def test_golden(ci_report: AuditReport, golden: Callable[[str, str], None]) -> None:
    golden("report.github.txt", text_of(ci_report))


def test_every_line_is_a_command_and_the_worst_stand_first(ci_report: AuditReport) -> None:
    commands = [parse(line) for line in text_of(ci_report).splitlines()]
    # One target not audited, five findings, one thing skipped, the totals.
    assert [name for name, _, _ in commands] == [
        "error",
        "error",
        "error",
        "error",
        "warning",
        "notice",
        "warning",
        "notice",
    ]
    assert commands[0][1]["file"] == "models/broken.onnx"
    _, properties, message = commands[1]
    assert properties == {
        "file": "models/lenet_main.onnx",
        "title": "leakaudit: LA010 the equations can fix the whole input of a convolution",
    }
    assert message.splitlines()[0] == (
        "Layer conv1: |X| = 3072 <= |A| + |B| = 3972, rank bound 3072. (critical)"
    )
    assert message.splitlines()[1].startswith("confirmed end to end: MSE 6.2e-27")
    assert message.splitlines()[2].startswith("Remedy: Raise the stride")
    assert commands[-1][2].startswith("3 models, 7 layers: 2 critical, 1 high")


def test_percent_signs_colons_and_commas_survive(lenet_report: AuditReport) -> None:
    model = replace(lenet_report.models[0], target="a,b:100%25.onnx")
    line = text_of(replace(lenet_report, models=(model,))).splitlines()[0]
    assert line.startswith("::error file=a%2Cb%3A100%2525.onnx,title=")
    assert parse(line)[1]["file"] == "a,b:100%25.onnx"


def test_nothing_found_still_says_so() -> None:
    text = text_of(AuditReport("1", ()))
    assert text == "::notice title=leakaudit::0 models, 0 layers: no findings\n"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_are_inert(hostile: str, ci_report: AuditReport) -> None:
    clean = [parse(line) for line in text_of(ci_report).splitlines()]
    text = text_of(poisoned(ci_report, hostile))
    dirty = [parse(line) for line in text.split("\n")[:-1]]
    assert [name for name, _, _ in dirty] == [name for name, _, _ in clean]
    assert [list(properties) for _, properties, _ in dirty] == [
        list(properties) for _, properties, _ in clean
    ]
    assert all(character.isprintable() or character == "\n" for character in text)
    for line in text.split("\n"):
        assert "##[" not in line
        # No percent sign is left that the runner does not undo to what was there.
        assert not re.search(r"%(?!25|0A|3A|2C)", line)
    for _, _, message in dirty:
        assert not [line for line in message.splitlines() if line.startswith("::")]
    assert any(plain(f"{hostile} conv4 {hostile}") in message for _, _, message in dirty)
