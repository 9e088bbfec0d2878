"""Which rules a run applies, and with which severities: what a user says by names of rules."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from leakaudit.errors import UsageError
from leakaudit.findings import Severity
from leakaudit.rules.rule import Rule


def find_rule(name: str, rules: Sequence[Rule]) -> Rule:
    """The rule of this id or slug, in any case.

    Raises:
        UsageError: There is none; the text suggests the nearest.
    """
    for rule in rules:
        if name.lower() in (rule.id.lower(), rule.slug):
            return rule
    names = [rule.id for rule in rules] + [rule.slug for rule in rules]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "`leakaudit rules` lists them"
    raise UsageError(f"there is no rule {name!r}; {hint}")


def select_rules(
    rules: Sequence[Rule], select: Sequence[str], ignore: Sequence[str]
) -> tuple[Rule, ...]:
    """The rules to apply. Each name may be a comma-separated list of ids or slugs.

    Raises:
        UsageError: A name is unknown, or nothing is left.
    """
    wanted = {rule.id for rule in _named(select, rules)} or {rule.id for rule in rules}
    wanted -= {rule.id for rule in _named(ignore, rules)}
    if not wanted:
        raise UsageError("--select and --ignore leave no rule to apply")
    return tuple(rule for rule in rules if rule.id in wanted)


def with_severities(rules: Sequence[Rule], severities: Mapping[str, Severity]) -> tuple[Rule, ...]:
    """The rules with the severities given by id.

    Where a rule lowers a finding's severity itself, the lower of the two holds: what it found to be
    less severe than usual stays so.
    """
    return tuple(
        _with_severity(rule, severities[rule.id]) if rule.id in severities else rule
        for rule in rules
    )


def _with_severity(rule: Rule, severity: Severity) -> Rule:
    downgrade = rule.downgrade
    if downgrade is not None and downgrade.severity.at_least(severity):
        downgrade = None  # there is nothing left to lower
    return replace(rule, severity=severity, downgrade=downgrade)


def _named(names: Sequence[str], rules: Sequence[Rule]) -> list[Rule]:
    return [
        find_rule(name.strip(), rules)
        for entry in names
        for name in entry.split(",")
        if name.strip()
    ]
