"""The report for people: golden files, width, colour, hostile names, honest wording."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import click
import pytest

from leakaudit.findings import AuditReport, Confirmation, Scope, Severity, Status, Verdict
from leakaudit.report import RenderOptions
from leakaudit.report.terminal import table

HOSTILE = (
    "\x1b[31mred",
    "two\nlines",
    "::error file=a,line=1::pwned",
    "##[stop-commands]x",
    "\u202egpj.xnno",
    "zero\u200bwidth",
    "bell\x07",
    "lone\udcff",
    "c1\x9b2J",
)


def render(report: AuditReport, **options: object) -> str:
    return table.render(report, RenderOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_golden_table(
    width: int, mixed_report: AuditReport, golden: Callable[[str, str], None]
) -> None:
    golden(f"table-{width}.txt", render(mixed_report, width=width))


def test_golden_verbose_and_quiet(
    mixed_report: AuditReport, golden: Callable[[str, str], None]
) -> None:
    golden("table-verbose.txt", render(mixed_report, verbosity=1))
    golden("table-quiet.txt", render(mixed_report, verbosity=-1))


def test_quietest_is_the_summary_alone(mixed_report: AuditReport) -> None:
    text = render(mixed_report, verbosity=-2, width=140)
    assert text.count("\n") == 1
    assert text.startswith("3 models, 7 layers: 1 critical, 1 high, 1 medium, 1 note; 1 confirmed")


@pytest.mark.parametrize("width", [80, 90, 100, 110, 120, 140])
def test_lines_fit_the_width(width: int, lenet_report: AuditReport) -> None:
    assert max(map(len, render(lenet_report, width=width).splitlines())) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_long_layer_names_are_shortened_in_the_table_only(
    width: int, lenet_report: AuditReport
) -> None:
    model = lenet_report.models[0]
    name = "encoder." + "block." * 12 + "query"
    layers = (replace(model.layers[0], name=name), *model.layers[1:])
    findings = (replace(model.findings[1], layer=name),)
    renamed = AuditReport("1", (replace(model, layers=layers, findings=findings),))
    text = render(renamed, width=width)
    table, rest = text.split("Leak path", 1)
    assert name not in table
    assert re.search(r"^enc\S*\.\.\.\S*query", table, re.M)
    assert name in re.sub(r"\s+", "", rest)
    assert max(map(len, text.splitlines())) <= width


def test_colour_changes_nothing_but_colour(mixed_report: AuditReport) -> None:
    coloured = render(mixed_report, color=True)
    bare = render(mixed_report, color=False)
    assert "\x1b[" in coloured
    assert "\x1b" not in bare
    assert click.unstyle(coloured) == bare


def test_severities_differ_in_colour(mixed_report: AuditReport) -> None:
    text = render(mixed_report, color=True)
    codes = {
        severity: re.search(rf"\x1b\[([\d;]+)m(\x1b\[1m)?{severity.value}\b", text)
        for severity in (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.NOTE)
    }
    assert None not in codes.values()
    assert len({match[1] for match in codes.values() if match}) == 4


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_steer_nothing(hostile: str, color: bool, mixed_report: AuditReport) -> None:
    """Put the text into every string of the report."""
    text = render(_poisoned(mixed_report, hostile), color=color, verbosity=1)
    bare = click.unstyle(text) if color else text
    assert hostile not in text
    allowed = {"\n"}
    assert all(character.isprintable() or character in allowed for character in bare)
    if color:  # only styling codes are left, none of which moves the cursor
        assert set(re.findall(r"\x1b\[[\d;]*(.)", text)) == {"m"}
    for line in bare.splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


@pytest.mark.parametrize("padding", range(8))
def test_wrapping_makes_no_command(padding: int, lenet_report: AuditReport) -> None:
    """A name without spaces is broken anywhere, also just before its colons."""
    model = lenet_report.models[0]
    note = "x" * (98 + padding - 4) + "::error::pwned"
    text = render(AuditReport("1", (replace(model, notes=(note,)),)), width=100)
    assert "pwned" in text.replace("\n    ", "")
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]


def test_no_report_says_safe(mixed_report: AuditReport) -> None:
    models = []
    for model in mixed_report.models:
        findings = tuple(
            replace(finding, confirmation=Confirmation(status, scope, "rank 1 of 2"))
            for finding in model.findings
            for status in Status
            for scope in Scope
        )
        layers = tuple(
            replace(layer, verdict=verdict) for layer in model.layers for verdict in Verdict
        )
        models.append(replace(model, findings=findings, layers=layers))
    for width in (80, 140):
        text = render(AuditReport("1", tuple(models)), width=width, verbosity=1)
        assert not re.search(r"\bsafe\b", text, re.I)


def test_a_shared_remedy_stands_once(lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    first = model.findings[1]
    findings = tuple(replace(first, layer=f"layer{n}") for n in range(9))
    text = render(AuditReport("1", (replace(model, findings=findings),)))
    assert text.count("remedy  ") == 1
    assert text.count(first.url) == 1
    assert all(f"layer{n}: " in text for n in range(9))


def test_different_remedies_of_a_rule_all_stand(lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    findings = tuple(
        replace(model.findings[1], layer=f"layer{n}", remedy=f"at most {n} filters") for n in (3, 4)
    )
    text = render(AuditReport("1", (replace(model, findings=findings),)))
    assert re.search(r"layer3: .*at most 3 filters.*layer4: .*at most 4 filters", text, re.S)


def test_the_worst_rule_stands_first(lenet_report: AuditReport) -> None:
    text = render(lenet_report)
    assert text.index("  critical  ") < text.index("  high      ") < text.index("  medium    ")


def test_almost_all_does_not_read_as_all(lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    layer = model.layers[0]
    assert layer.counts is not None
    nearly = replace(
        layer,
        counts=replace(layer.counts, unknowns=1_000_000, rank_bound=999_999),
        verdict=Verdict.UNDERDETERMINED,
    )
    text = render(AuditReport("1", (replace(model, layers=(nearly,)),)), width=120)
    assert "99.9 %" in text
    assert "100 %" not in text
    assert "does not make it private" in " ".join(text.split())


def test_times_can_be_left_out(lenet_report: AuditReport) -> None:
    assert ", 0.41 s;" in render(lenet_report)
    assert "0.41" not in render(lenet_report, show_seconds=False)


def test_a_model_with_an_error_is_one_line(mixed_report: AuditReport) -> None:
    text = render(AuditReport("1", mixed_report.models[2:]))
    assert text.splitlines() == [
        "models/broken.onnx: not audited: "
        "the file ends in the middle of a tensor; export the model again",
        "",
        "1 model, 0 layers: no findings; 1 target not audited",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_numbers_without_a_magnitude_are_named(value: float, lenet_report: AuditReport) -> None:
    model = lenet_report.models[0]
    given = model.findings[1].confirmation
    assert given is not None
    given = replace(given, mse=value, psnr=float("inf"), condition=value)
    finding = replace(model.findings[1], confirmation=given)
    text = render(AuditReport("1", (replace(model, findings=(finding,)),)), width=140)
    word = {"nan": "not a number", "inf": "infinite", "0.0": "0"}[str(value)]
    assert f"MSE {word}, PSNR infinite," in text


def _poisoned(value: object, text: str) -> object:
    """Return the frozen data with `text` appended and prepended to every free string."""
    if isinstance(value, AuditReport):
        return replace(value, models=tuple(_poisoned(model, text) for model in value.models))
    if isinstance(value, tuple):
        return tuple(_poisoned(entry, text) for entry in value)
    if isinstance(value, dict):
        return {_poisoned(key, text): _poisoned(entry, text) for key, entry in value.items()}
    if type(value) is str:
        return f"{text} {value} {text}"
    if hasattr(value, "__dataclass_fields__"):
        changed = {
            name: _poisoned(getattr(value, name), text) for name in value.__dataclass_fields__
        }
        return replace(value, **changed)  # type: ignore[type-var]
    return value
