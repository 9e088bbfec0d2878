"""Rules for the sample audits, and text that tries to be more than text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from leakaudit.findings import (
    AuditReport,
    Confirmation,
    Finding,
    ModelReport,
    RuleText,
    Scope,
    Severity,
    Status,
)

HOSTILE = (
    "\x1b[31mred\x1b]8;;http://evil.example\x07",
    "two\nlines\r\nthree",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\"><svg/onload=alert(1)>' onmouseover='x",
    "::error file=a,line=1::pwned",
    "\n::error file=a::pwned\n##[group]x",
    "%0A::error::pwned",
    "../../../etc/passwd",
    "]]>&lt;!-- <![CDATA[",
    "a|b\\|c|",
    "`code` ``` ~~~",
    "[x](javascript:alert(1)) ![y](http://evil.example/a.png)",
    "https://evil.example www.evil.example @team #12 GH-3",
    "{0} {{1}} %s ${x}",
    "\u202egpj.xnno\u200b",
    "lone\udcff nul\x00 \ufffe",
    "- item\n# heading\n1. one",
)
# Set by the tool from fixed choices, never by a model file.
_OURS = {"format", "kind", "precision", "url"}


def rule_text(rule: str, slug: str, severity: Severity, **more: Any) -> RuleText:
    return RuleText(
        id=rule,
        slug=slug,
        title=f"title of {slug}",
        severity=severity,
        precision="high",
        why="Each weight gradient is an equation, |A| = F·n·k.\n\nThere is `one` per weight.",
        remedy="Fewer filters; `leakaudit advise` lists the smallest change.",
        references=("A. Author: A paper. 2024",),
        url=f"rules/{rule}.toml",
        **more,
    )


RULES = (
    rule_text("LA010", "equations-suffice", Severity.HIGH),
    rule_text("LA020", "gradients-suffice", Severity.MEDIUM),
    rule_text("LA030", "audit-incomplete", Severity.NOTE),
    rule_text("LA040", "input-reachable", Severity.CRITICAL, about_path=True),
    rule_text("LA050", "never-met", Severity.LOW),
)


def with_rules(models: tuple[ModelReport, ...]) -> AuditReport:
    """The sample models with rules, and a finding on the leak path for the first of them."""
    first, *others = models
    on_path = Finding(
        rule="LA040",
        title="The input can be computed back",
        severity=Severity.CRITICAL,
        layer=None,
        message="a chain of steps leads to the input x",
        fingerprint="0123456789abcdef",
        remedy="Break one step of the path.",
        url="rules/LA040.toml",
        confirmation=Confirmation(
            Status.CONFIRMED, Scope.END_TO_END, "", mse=3.4e-11, psnr=104.7, ssim=1.0
        ),
    )
    first = replace(first, findings=(*first.findings, on_path))
    return AuditReport("1.2.3", (first, *others), RULES)


def poisoned(value: Any, text: str) -> Any:
    """Return the frozen data with `text` before and behind every string a model could set."""
    if isinstance(value, tuple):
        return tuple(poisoned(entry, text) for entry in value)
    if isinstance(value, dict):
        return {poisoned(key, text): poisoned(entry, text) for key, entry in value.items()}
    if type(value) is str:
        return f"{text} {value} {text}" if value else value
    if hasattr(value, "__dataclass_fields__"):
        names = [name for name in value.__dataclass_fields__ if name not in _OURS]
        return replace(value, **{name: poisoned(getattr(value, name), text) for name in names})
    return value
