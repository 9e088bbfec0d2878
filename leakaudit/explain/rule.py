"""What the rules say of themselves: all of them in a table, or one in full."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from leakaudit.rules.rule import Rule
from leakaudit.rules.select import find_rule

WIDTH = 100


def list_rules(rules: Sequence[Rule]) -> str:
    """A table of the rules."""
    rows = [[rule.id, rule.severity.value, rule.level.value, rule.title] for rule in rules]
    return str(tabulate(rows, headers=["rule", "severity", "about", "title"], tablefmt="simple"))


def explain_rule(name: str, rules: Sequence[Rule]) -> str:
    """Everything a rule says of itself.

    Raises:
        UsageError: There is no such rule.
    """
    rule = find_rule(name, rules)
    parts = [
        f"{rule.id} {rule.slug}: {rule.title}",
        f"severity {rule.severity.value}, precision {rule.precision}, about one {rule.level.value}",
        f"condition: {rule.condition.text}",
        "Why",
        _paragraphs(rule.why),
        "What to do",
        _paragraphs(rule.remedy),
        "References",
        "\n".join(
            textwrap.fill(r, WIDTH, initial_indent="- ", subsequent_indent="  ")
            for r in rule.references
        ),
    ]
    return "\n\n".join(parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(
        textwrap.fill(" ".join(p.split()), WIDTH) for p in text.strip().split("\n\n")
    )
