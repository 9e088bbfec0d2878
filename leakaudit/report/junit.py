"""JUnit XML, as Jenkins, GitLab and others read it.

A test suite per model; in it a test case per layer and one for the model, and one per thing that
was skipped. A case fails where it has a finding above `note`; all its findings stand in one
failure, since readers show only the first. Notes go to the case's output: no gate fails on them by
default.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from leakaudit.findings import (
    AuditReport,
    Finding,
    LayerReport,
    ModelReport,
    Severity,
    Skipped,
    Verdict,
)
from leakaudit.report import prose, wording
from leakaudit.report.escape import plain
from leakaudit.report.interface import RenderOptions

MODEL_CASE = "(model)"
_OUTCOMES = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return one document over all models. `plain` leaves no character that XML forbids."""
    root = ET.Element("testsuites", {"name": "leakaudit"})
    for model in report.models:
        root.append(_suite(model, options))
    for count in ("tests", "failures", "errors"):  # the schema knows no `skipped` up here
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(model: ModelReport, options: RenderOptions) -> ET.Element:
    target = plain(model.target)
    suite = ET.Element("testsuite", {"name": target})
    cases = [_model_case(model, options)]
    for layer in model.layers:
        found = [finding for finding in model.findings if finding.layer == layer.name]
        reasons = [entry.reason for entry in model.skipped if entry.what == layer.name]
        cases.append(_layer_case(layer, found, reasons, options))
    layers = {layer.name for layer in model.layers}
    cases += [_skipped_case(entry) for entry in model.skipped if entry.what not in layers]
    for case in cases:
        case.set("classname", target)
    suite.set("tests", str(len(cases)))
    for count, tag in _OUTCOMES.items():
        suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
    if options.show_seconds:
        suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")
    suite.extend(cases)
    return suite


def _model_case(model: ModelReport, options: RenderOptions) -> ET.Element:
    case = ET.Element("testcase", {"name": MODEL_CASE})
    if model.error is not None:
        text = prose.error(model)
        ET.SubElement(case, "error", {"message": text, "type": "not-audited"}).text = text
        return case
    layers = {layer.name for layer in model.layers}
    # A finding on a layer that is not listed must not get lost.
    found = [finding for finding in model.findings if finding.layer not in layers]
    output = [wording.facts(model)]
    if model.leak_path is not None:
        output.append(f"leak path: {wording.reach(model.leak_path)}")
        output += map(wording.stop, model.leak_path.stopped)
    output += wording.left_out(len(model.known), len(model.suppressed))
    output += [f"note: {plain(note.strip())}" for note in model.notes]
    _finish(case, found, output, options)
    return case


def _layer_case(
    layer: LayerReport, found: Sequence[Finding], reasons: list[str], options: RenderOptions
) -> ET.Element:
    case = ET.Element("testcase", {"name": plain(layer.name) or "(unnamed)"})
    output = [prose.layer_counts(layer)]
    if not reasons and layer.verdict is Verdict.UNDETERMINED:
        reasons = [layer.note or "not understood"]
    output += [f"skipped: {plain(reason.strip())}" for reason in reasons]
    _finish(case, found, output, options)
    if reasons and case.find("failure") is None:
        message = plain("; ".join(reason.strip() for reason in reasons))
        case.insert(0, ET.Element("skipped", {"message": message}))
    return case


def _skipped_case(entry: Skipped) -> ET.Element:
    case = ET.Element("testcase", {"name": plain(entry.what) or "(unnamed)"})
    ET.SubElement(case, "skipped", {"message": plain(entry.reason.strip())})
    return case


def _finish(
    case: ET.Element, found: Sequence[Finding], output: list[str], options: RenderOptions
) -> None:
    """Add failure, output and time to a case."""
    failing = [f for f in prose.worst_first(found) if f.severity is not Severity.NOTE]
    if failing:
        worst = failing[0]
        title = plain(worst.title)
        more = f" (and {len(failing) - 1} more)" if len(failing) > 1 else ""
        failure = ET.SubElement(
            case,
            "failure",
            {"message": f"{plain(worst.rule)}: {title}{more}", "type": worst.severity.value},
        )
        failure.text = "\n\n".join(_told(finding, options) for finding in failing)
    notes = [_told(finding, options) for finding in found if finding.severity is Severity.NOTE]
    ET.SubElement(case, "system-out").text = "\n".join([*output, *notes])
    if options.show_seconds:
        # Findings of one layer share one confirmation.
        seconds = [f.confirmation.seconds or 0.0 for f in found if f.confirmation]
        case.set("time", f"{max(seconds, default=0.0):.3f}")


def _told(finding: Finding, options: RenderOptions) -> str:
    opening = f"{finding.severity.value} {plain(finding.rule)}: {prose.statement(finding)}"
    return prose.told(opening, finding, options)
