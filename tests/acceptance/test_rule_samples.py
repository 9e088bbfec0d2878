"""Every rule finds something in one sample model, and nothing in another."""

from __future__ import annotations

from pathlib import Path

import pytest
from places import SAMPLES
from rule_samples import CUSTOM, PAIRS, RULES, custom_operator

from leakaudit.findings import Finding
from leakaudit.pipeline.audit import AuditOptions, audit


def findings_of(target: str, folder: Path) -> list[Finding]:
    path = custom_operator(folder) if target == CUSTOM else SAMPLES / target
    report = audit(str(path), AuditOptions(tuple(RULES.values())))
    assert report.error is None
    assert report.layers
    return list(report.findings)


@pytest.mark.parametrize("rule", RULES)
def test_it_fires_where_it_should(rule: str, tmp_path: Path) -> None:
    pair = PAIRS[rule]
    (finding,) = [
        found
        for found in findings_of(pair.fires, tmp_path)
        if (found.rule, found.layer) == (rule, pair.fires_at)
    ]
    assert pair.shown in finding.message
    assert finding.severity is RULES[rule].severity


@pytest.mark.parametrize("rule", RULES)
def test_it_is_quiet_where_it_should_be(rule: str, tmp_path: Path) -> None:
    pair = PAIRS[rule]
    report = findings_of(pair.quiet, tmp_path)
    assert report, "the model has findings, only not this one"
    assert rule not in {found.rule for found in report if found.layer == pair.quiet_at}
