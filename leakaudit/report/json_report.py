"""The JSON report, versioned and apart from internals; `schema.json` beside it describes it."""

from __future__ import annotations

import json
from importlib.resources import files

from leakaudit.findings import (
    AuditReport,
    BaselineUse,
    Confirmation,
    Counts,
    Finding,
    IgnoreUse,
    LayerReport,
    LeakPathReport,
    ModelReport,
)
from leakaudit.report.interface import RenderOptions
from leakaudit.report.json_text import Json, dump, picked, plain_value
from leakaudit.report.summary import Summary, summarise

SCHEMA_VERSION = 1


def render(report: AuditReport, options: RenderOptions) -> str:
    """Return what `as_json` gives: ASCII, two spaces of indent, keys always in the same order."""
    return dump(as_json(report, show_seconds=options.show_seconds))


def schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of the report."""
    text = files("leakaudit.report").joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, object] = json.loads(text)
    return loaded


def as_json(report: AuditReport, *, show_seconds: bool = True) -> dict[str, Json]:
    """Return the report as plain JSON values.

    NaN and infinity become null, lone surrogates visible text. Durations stand in `seconds` only.

    Raises:
        TypeError: A layer's parameter is not a JSON value.
    """
    document: dict[str, Json] = {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "leakaudit", "version": report.tool_version},
        "models": [_model(model, show_seconds) for model in report.models],
        "ignores": [_ignore(use) for use in report.ignores],
        "baseline": None if report.baseline is None else _baseline(report.baseline),
        "summary": _summary(summarise(report)),
    }
    cleaned = plain_value(document)
    assert isinstance(cleaned, dict)  # noqa: S101 - a dict gives a dict
    return cleaned


def _model(model: ModelReport, show_seconds: bool) -> Json:
    path = model.leak_path
    return {
        **picked(model, "target", "format", "sha256"),
        "inputs": [picked(given, "name", "shape") for given in model.inputs],
        **picked(model, "complete", "error"),
        "layers": [_layer(layer) for layer in model.layers],
        "leak_path": None if path is None else _leak_path(path),
        "findings": [_finding(finding, show_seconds) for finding in model.findings],
        "known": [_finding(finding, show_seconds) for finding in model.known],
        "suppressed": [
            {"reason": it.reason, "finding": _finding(it.finding, show_seconds)}
            for it in model.suppressed
        ],
        "skipped": [picked(entry, "what", "reason") for entry in model.skipped],
        "notes": list(model.notes),
        "images": [
            picked(image, "original", "reconstruction", "difference") for image in model.images
        ],
    }


def _layer(layer: LayerReport) -> Json:
    return {
        **picked(layer, "name", "op", "origin", "input_shape", "output_shape"),
        "parameters": {key: plain_value(it) for key, it in sorted(layer.parameters.items())},
        "counts": None if layer.counts is None else _counts(layer.counts),
        **picked(layer, "verdict", "note"),
    }


def _counts(counts: Counts) -> Json:
    constraints = ("gradient_constraints", "weight_constraints")
    return {
        **picked(counts, "unknowns", "unread", *constraints),
        **picked(counts, "redundant", "rank_bound", "gradient_rank_bound"),
        "determined_fraction": counts.determined_fraction if counts.unknowns else None,
        "symbolic": picked(counts.symbolic, "unknowns", *constraints, "margin"),
    }


def _leak_path(path: LeakPathReport) -> Json:
    return {
        **picked(path, "reaches_input", "furthest", "furthest_size"),
        "steps": [
            {
                **picked(step, "kind", "derivation", "tensor", "fact", "premises", "layer"),
                "counts": {key: step.counts[key] for key in sorted(step.counts)},
            }
            for step in path.steps
        ],
        "stopped": [picked(stop, "at", "reason", "kind") for stop in path.stopped],
    }


def _finding(finding: Finding, show_seconds: bool) -> Json:
    told = finding.confirmation
    return {
        **picked(finding, "rule", "title", "severity", "layer", "message", "fingerprint"),
        **picked(finding, "remedy", "url", "downgraded_because"),
        "confirmation": None if told is None else _confirmation(told, show_seconds),
    }


def _confirmation(told: Confirmation, show_seconds: bool) -> Json:
    largest, smallest = told.singular_values or (None, None)
    return {
        **picked(told, "status", "scope", "device", "gradient_dtype", "solver", "rank", "unknowns"),
        "condition": _figure(told.condition, 3),
        "largest_singular_value": _figure(largest, 3),
        "smallest_singular_value": _figure(smallest, 3),
        "residual": _figure(told.residual),
        "predicted_error": _figure(told.predicted_error, 3),
        "mse": _figure(told.mse),
        "psnr": _figure(told.psnr),
        "ssim": _figure(told.ssim),
        "seconds": told.seconds if show_seconds else None,
        **picked(told, "seed", "probe", "reason", "attempts"),
    }


def _figure(number: float | None, digits: int = 6) -> float | None:
    """Six digits, or three of an estimate: those after them depend on how many threads added up."""
    return None if number is None else float(f"{number:.{digits}g}")


def _ignore(use: IgnoreUse) -> Json:
    return {
        **picked(use.ignore, "rule", "target", "layer", "reason"),
        **picked(use, "matched", "unused"),
    }


def _baseline(use: BaselineUse) -> Json:
    entry = ("target", "rule", "layer", "severity", "fingerprint")
    return {"file": use.file, "fixed": [picked(known, *entry) for known in use.fixed]}


def _summary(summary: Summary) -> Json:
    counted = ("confirmed", "not_reproduced", "known", "suppressed", "incomplete", "errors")
    return {
        **picked(summary, "models", "layers"),
        "findings": {severity.value: count for severity, count in summary.findings.items()},
        **picked(summary, *counted),
    }
