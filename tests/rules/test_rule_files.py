"""Reading rules: what a valid file gives, and what a faulty one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sympy_formula import sympy_formula

from leakaudit.errors import UsageError
from leakaudit.findings import Severity
from leakaudit.rules.message import template
from leakaudit.rules.registry import BUILTIN_IDS, builtin_folder, load_rules
from leakaudit.rules.rule import parse_rule, read_rule
from leakaudit.rules.symbols import Level, symbols_of

VALID: dict[str, Any] = {
    "id": "XY001",
    "slug": "many-filters",
    "title": "Many filters",
    "level": "layer",
    "severity": "medium",
    "precision": "low",
    "applies_to": ["conv"],
    "condition": "F > 64",
    "message": "{layer} has {F} filters",
    "why": "First\nparagraph.\n\n  Second.",
    "remedy": "Take\nfewer.",
    "references": ["Nobody"],
    "downgrade": {"condition": "rho < 0.1", "severity": "note", "because": "rho is {rho}"},
}


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in VALID.items() if name != key}


def test_a_valid_rule() -> None:
    rule = parse_rule(VALID, "XY001.toml", "mine/XY001.toml")
    assert (rule.id, rule.level, rule.severity) == ("XY001", Level.LAYER, Severity.MEDIUM)
    assert rule.why == "First paragraph.\n\nSecond."
    assert rule.remedy == "Take fewer."
    assert rule.condition.evaluate({"F": 65}) is True
    assert rule.downgrade is not None
    assert rule.downgrade.severity is Severity.NOTE
    assert rule.url == "mine/XY001.toml"


@pytest.mark.parametrize(
    ("data", "mistake"),
    [
        (VALID | {"mesage": "x"}, "unknown key mesage; did you mean message?"),
        (_without("why"), "the key why is missing"),
        ({"id": "XY001"}, "the keys slug, title, .* are missing"),
        (_without("applies_to"), "the key applies_to is missing"),
        (VALID | {"id": "xy1"}, "id: 'xy1' is not of the form"),
        (VALID | {"slug": "Many Filters"}, "slug: 'Many Filters' is not of the form"),
        (VALID | {"level": "modle"}, "level: 'modle' is none of layer, model; did you mean model?"),
        (VALID | {"severity": "hihg"}, "severity: 'hihg' is none of .*; did you mean high?"),
        (VALID | {"severity": 3}, "severity: must be a text"),
        (VALID | {"title": "  "}, "title: must be a text, and not empty"),
        (VALID | {"title": "a\n\nb"}, "title: must be one paragraph"),
        (VALID | {"title": "a\x1b[31mb"}, "title: control characters"),
        (VALID | {"precision": "certain"}, "precision: 'certain' is none of"),
        (VALID | {"applies_to": ["convolution"]}, "applies_to: 'convolution' is none of"),
        (VALID | {"applies_to": []}, "applies_to: must be a list"),
        (VALID | {"applies_to": ["conv", "conv"]}, "twice"),
        (VALID | {"references": "Nobody"}, "references: must be a list"),
        (VALID | {"condition": "F + 1"}, "condition: a number, where a condition"),
        (VALID | {"condition": "F > reached"}, "condition: the name reached is not known"),
        (VALID | {"condition": "layer > 1"}, "condition: the name layer is not known"),
        (VALID | {"condition": "trainable > 1"}, "trainable is a flag, used as a number"),
        (VALID | {"condition": "F and X > 1"}, "F is a number, used as a flag"),
        (VALID | {"condition": "__import__('os')"}, "condition: .* is not allowed at column 12"),
        (VALID | {"message": "{bond}"}, "message: {bond} is no symbol; did you mean bound?"),
        (VALID | {"message": "{layer.__class__}"}, "message: braces enclose the plain name"),
        (VALID | {"message": "{F:>99999999}"}, "message: braces enclose the plain name"),
        (VALID | {"message": "{input} leaks"}, "message: {input} is no symbol"),
        (VALID | {"downgrade": "note"}, "downgrade: must be a table"),
        (
            VALID | {"downgrade": {"condition": "F > 1"}},
            "downgrade.severity, downgrade.because are",
        ),
        (
            VALID | {"downgrade": VALID["downgrade"] | {"severity": "high"}},
            "downgrade.severity: high is not lower than medium",
        ),
        (VALID | {"level": "model", "condition": "complete"}, "applies to no single operator"),
    ],
)
def test_mistakes_are_named_with_the_file(data: dict[str, Any], mistake: str) -> None:
    with pytest.raises(UsageError, match=f"^some/XY001.toml: .*{mistake}"):
        parse_rule(data, "some/XY001.toml", "")


def _write(folder: Path, name: str, rule: str, slug: str) -> None:
    text = (
        f'id = "{rule}"\nslug = "{slug}"\ntitle = "t"\nlevel = "layer"\nseverity = "low"\n'
        'precision = "low"\napplies_to = ["linear"]\ncondition = "X > 0"\nmessage = "m"\n'
        'why = "w"\nremedy = "r"\nreferences = ["n"]\n'
    )
    (folder / name).write_text(text, encoding="utf-8")


def test_own_rules_join_the_built_in_ones(tmp_path: Path) -> None:
    _write(tmp_path, "AB001.toml", "AB001", "mine")
    rules = load_rules([tmp_path])
    assert [rule.id for rule in rules] == ["AB001", *BUILTIN_IDS]
    assert rules[0].url == (tmp_path / "AB001.toml").as_posix()


def test_no_two_rules_of_one_id_or_slug(tmp_path: Path) -> None:
    _write(tmp_path, "LA001.toml", "LA001", "mine")
    with pytest.raises(UsageError, match=r"LA001 is taken already by rules/LA001\.toml"):
        load_rules([tmp_path])
    (tmp_path / "LA001.toml").unlink()
    _write(tmp_path, "AB001.toml", "AB001", "input-reachable")
    with pytest.raises(UsageError, match=r"input-reachable is taken already by rules/LA004\.toml"):
        load_rules([tmp_path])


def test_a_file_is_named_after_its_rule(tmp_path: Path) -> None:
    _write(tmp_path, "AB002.toml", "AB001", "mine")
    with pytest.raises(UsageError, match=r"belongs in a file named AB001\.toml"):
        load_rules([tmp_path])


@pytest.mark.parametrize(
    "content", [b"id = ", b"\xff\xfe", b"a = " + b"[" * 20_000], ids=["syntax", "bytes", "nesting"]
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "AB001.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"AB001\.toml: not valid TOML"):
        load_rules([tmp_path])


def test_unreadable_places(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rules in it"):
        load_rules([tmp_path])
    with pytest.raises(UsageError, match="no such folder"):
        load_rules([tmp_path / "absent"])
    (tmp_path / "AB001.toml").mkdir()
    with pytest.raises(UsageError, match=r"AB001\.toml: cannot be read"):
        load_rules([tmp_path])
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * 70_000)
    with pytest.raises(UsageError, match="this is no rule"):
        read_rule(big, "")


def test_the_registry_lists_the_files_on_disk() -> None:
    on_disk = sorted(path.stem for path in builtin_folder().glob("*.toml"))
    assert on_disk == list(BUILTIN_IDS)
    assert [rule.id for rule in load_rules()] == on_disk


@pytest.mark.parametrize("rule", load_rules(), ids=lambda rule: rule.id)
def test_a_built_in_rule_is_complete(rule: Any) -> None:
    symbols = symbols_of(rule.level).keys()
    texts = [rule.message, *([rule.downgrade.because] if rule.downgrade else [])]
    assert rule.condition.names <= symbols
    assert all(text.fields <= symbols for text in texts)
    assert texts[0].fields, "a message says what was counted"
    # Layer rules name the layer; the reader of a table row needs no other column.
    assert ("layer" in texts[0].fields) == (rule.level is Level.LAYER)
    assert all("{" not in text for text in (rule.title, rule.why, rule.remedy))
    assert len(rule.why.split()) >= 60
    assert any("arXiv:" in reference for reference in rule.references)
    assert sympy_formula(rule.condition).free_symbols, "a condition that decides something"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3188, "3188"),
        (3188 / 3468, "0.919"),
        (0.99996, "0.999"),  # rounded down: not "1", which would read as all of it
        (0.7, "0.7"),
        (1.0, "1"),
        (True, "yes"),
        ("", "(none)"),
        ("conv{F}", "conv{F}"),
    ],
)
def test_values_in_messages(value: object, shown: str) -> None:
    assert template("<{layer}>").render({"layer": value, "F": 1}) == f"<{shown}>"
