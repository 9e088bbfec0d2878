"""Severities that a user sets for rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leakaudit.findings import Severity
from leakaudit.rules.rule import Rule


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
