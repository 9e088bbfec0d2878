"""The findings of one model in the HTML report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from leakaudit.findings import Confirmation, Finding, ModelReport, RuleText, Status
from leakaudit.report import prose, wording
from leakaudit.report.html.text import listed, name, rich, severity_badge, text
from leakaudit.report.interface import RenderOptions

_LINK = re.compile(r"https://[\w.~/%?#=&+:,@-]+", re.ASCII)


def findings(model: ModelReport, rules: Mapping[str, RuleText], options: RenderOptions) -> str:
    """Return the findings, those of one rule together, the rule of the worst first."""
    found = model.findings
    if not found:
        return f"<p>{text(wording.no_findings(model))}</p>"
    parts = [_rule(group, rules.get(rule), options) for rule, group in prose.by_rule(found)]
    if any(f.confirmation and f.confirmation.status is Status.NOT_REPRODUCED for f in found):
        parts.append(f'<p class="muted">{text(wording.NOT_REPRODUCED_NOTE)}</p>')
    return "\n".join(parts)


def _rule(group: Sequence[Finding], rule: RuleText | None, options: RenderOptions) -> str:
    first = group[0]
    items = "\n".join(_finding(finding, options) for finding in group)
    remedies = dict.fromkeys(filter(None, map(prose.remedy, group)))
    parts = [
        '<section class="rule">',
        f"<h4>{name(first.rule)} {text(first.title)}</h4>",
        f'<ul class="found">\n{items}\n</ul>',
        *(f'<p class="remedy"><b>Remedy</b> {rich(remedy)}</p>' for remedy in remedies),
    ]
    if rule is not None and rule.why:
        parts.append(_why(rule))
    if first.url:
        parts.append(f'<p class="evidence">See {_link(first.url)}</p>')
    return "\n".join([*parts, "</section>"])


def _finding(finding: Finding, options: RenderOptions) -> str:
    where = "Model" if finding.layer is None else name(finding.layer)
    parts = [f"<p><b>{where}</b> {text(finding.message.strip())}</p>"]
    if finding.downgraded_because:
        reason = text(finding.downgraded_because.strip())
        parts.append(f'<p class="evidence">Severity lowered: {reason}</p>')
    if finding.confirmation is not None:
        parts.append(_evidence(finding.confirmation, options))
    badge = severity_badge(finding.severity)
    return f'<li class="finding"><div>{badge}</div>\n<div>{"".join(parts)}</div></li>'


def _evidence(given: Confirmation, options: RenderOptions) -> str:
    claim = wording.evidence_claim(given)
    kind = given.status.value.replace(" ", "-")
    details = wording.evidence_details(given, options)
    shown = f'<span class="claim {kind}">{text(claim[:1].upper() + claim[1:])}</span>'
    if details:
        shown += f" {text(details)}"
    tried = ""
    if given.attempts:
        attempts = listed(text(attempt.strip()) for attempt in given.attempts)
        tried = f'<details class="evidence"><summary>What was tried</summary>{attempts}</details>'
    return f'<p class="evidence">{shown}</p>{tried}'


def _why(rule: RuleText) -> str:
    paragraphs = "".join(
        f"<p>{rich(paragraph.strip())}</p>"
        for paragraph in rule.why.split("\n\n")
        if paragraph.strip()
    )
    references = f"<p>References</p>{listed(map(text, rule.references))}" if rule.references else ""
    return f"<details><summary>Why</summary>{paragraphs}{references}</details>"


def _link(url: str) -> str:
    if _LINK.fullmatch(url):
        return f'<a href="{text(url)}" rel="noopener noreferrer">{text(url)}</a>'
    return name(url)
