"""rules/README.md: a page of every rule, current, with figures that the tool gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from rules_page import PAGE, rules_page

from leakaudit.cli.main import main
from leakaudit.rules.registry import load_rules

TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (LA\d{3})\n(.*?)(?=^## |\Z)", TEXT, flags=re.M | re.S))
RULES = {rule.id: rule for rule in load_rules()}
SAMPLES = PAGE.parent.parent / "sample_models"


def test_the_page_is_current() -> None:
    """To the byte; `make docs` brings it up to date."""
    assert rules_page() == TEXT


def test_every_rule_has_its_section_and_its_link() -> None:
    assert list(SECTIONS) == list(RULES)
    assert re.findall(r"^- \[(LA\d{3})\]\(#(la\d{3})\)", TEXT, flags=re.M) == [
        (name, name.lower()) for name in RULES
    ]


@pytest.mark.parametrize("name", RULES)
def test_a_section_says_what_the_rule_says(name: str) -> None:
    section, rule = SECTIONS[name], RULES[name]
    for text in (rule.title, rule.slug, rule.condition.text, rule.why, rule.remedy):
        assert text in section
    for reference in rule.references:
        assert f"- {reference}" in section


def before(name: str) -> Iterator[tuple[Path, str, list[str]]]:
    """File, layer and cells of the flagged sample, where it is a file."""
    section = SECTIONS[name]
    if file := re.search(r"^In `sample_models/(\S+)`", section, flags=re.M):
        row = re.search(r"^\| before \| (.+) \|$", section, flags=re.M)
        assert row is not None
        layer, *cells = row.group(1).split(" | ")
        yield SAMPLES / file.group(1), layer, cells


@pytest.mark.parametrize("name", RULES)
def test_the_flagged_figures_are_those_of_check(name: str) -> None:
    for file, layer, cells in before(name):
        arguments = ["check", str(file), "--no-confirm", "--isolated", "--format", "json"]
        (model,) = json.loads(CliRunner().invoke(main, arguments).stdout)["models"]
        assert name in {finding["rule"] for finding in model["findings"]}
        (counts,) = [it["counts"] for it in model["layers"] if it["name"] == layer]
        assert cells[:4] == [
            str(counts[key])
            for key in ("unknowns", "gradient_constraints", "weight_constraints", "rank_bound")
        ]
        assert (cells[5] == "reaches the input") == model["leak_path"]["reaches_input"]


def test_samples_are_files_but_for_one() -> None:
    """The check above looks at all rules but the one on custom operators."""
    assert [name for name in RULES if not list(before(name))] == ["LA006"]


@pytest.mark.parametrize("name", RULES)
def test_after_the_change_less_leaks_or_the_text_says_why_not(name: str) -> None:
    rows = re.findall(r"^\| (before|after) \| (.+) \|$", SECTIONS[name], flags=re.M)
    assert rows[0][0] == "before"
    if len(rows) == 1:
        assert name == "LA012"  # what stops the path is told, not changed
        return
    (_, first), (_, second) = rows
    assert first != second or name == "LA003", "a change that changes nothing"
    assert "After: " in SECTIONS[name]


def test_la004_closes_the_path_in_its_example() -> None:
    rows = re.findall(r"^\| (before|after) \| .*? \| ([^|]+) \|$", SECTIONS["LA004"], flags=re.M)
    assert rows[0] == ("before", "reaches the input")
    assert rows[1][0] == "after"
    assert rows[1][1].startswith("stops at")


def test_links_in_the_page_lead_somewhere() -> None:
    for name in re.findall(r"sample_models/[\w.]+\w", TEXT):
        assert (PAGE.parent.parent / name).is_file(), name
