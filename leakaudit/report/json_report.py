"""The JSON report, versioned and apart from internals; `schema.json` beside it describes it."""

from __future__ import annotations

import json
import math
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
from leakaudit.report.escape import without_surrogates
from leakaudit.report.interface import RenderOptions
from leakaudit.report.json_text import Json, dump
from leakaudit.report.summary import Summary, summarise

SCHEMA_VERSION = 1


class JsonReporter:
    """Writes what `as_json` gives: ASCII, two spaces of indent, keys always in the same order."""

    name = "json"

    def render(self, report: AuditReport, options: RenderOptions) -> str:
        """See `Reporter`. Strings are exact, escaped as JSON allows."""
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
    cleaned = _value(document)
    assert isinstance(cleaned, dict)  # noqa: S101 - a dict gives a dict
    return cleaned


def _model(model: ModelReport, show_seconds: bool) -> Json:
    path = model.leak_path
    return {
        "target": model.target,
        "format": model.format,
        "sha256": model.sha256,
        "inputs": [{"name": given.name, "shape": _value(given.shape)} for given in model.inputs],
        "complete": model.complete,
        "error": model.error,
        "layers": [_layer(layer) for layer in model.layers],
        "leak_path": None if path is None else _leak_path(path),
        "findings": [_finding(finding, show_seconds) for finding in model.findings],
        "known": [_finding(finding, show_seconds) for finding in model.known],
        "suppressed": [
            {"reason": it.reason, "finding": _finding(it.finding, show_seconds)}
            for it in model.suppressed
        ],
        "skipped": [{"what": entry.what, "reason": entry.reason} for entry in model.skipped],
        "notes": list(model.notes),
        "images": [
            {
                "original": image.original,
                "reconstruction": image.reconstruction,
                "difference": image.difference,
            }
            for image in model.images
        ],
    }


def _layer(layer: LayerReport) -> Json:
    return {
        "name": layer.name,
        "op": layer.op,
        "origin": layer.origin,
        "input_shape": _value(layer.input_shape),
        "output_shape": _value(layer.output_shape),
        "parameters": {key: _value(layer.parameters[key]) for key in sorted(layer.parameters)},
        "counts": None if layer.counts is None else _counts(layer.counts),
        "verdict": layer.verdict.value,
        "note": layer.note,
    }


def _counts(counts: Counts) -> Json:
    return {
        "unknowns": counts.unknowns,
        "unread": counts.unread,
        "gradient_constraints": counts.gradient_constraints,
        "weight_constraints": counts.weight_constraints,
        "redundant": counts.redundant,
        "rank_bound": counts.rank_bound,
        "gradient_rank_bound": counts.gradient_rank_bound,
        "determined_fraction": counts.determined_fraction if counts.unknowns else None,
        "symbolic": {
            "unknowns": counts.symbolic.unknowns,
            "gradient_constraints": counts.symbolic.gradient_constraints,
            "weight_constraints": counts.symbolic.weight_constraints,
            "margin": counts.symbolic.margin,
        },
    }


def _leak_path(path: LeakPathReport) -> Json:
    return {
        "reaches_input": path.reaches_input,
        "furthest": path.furthest,
        "furthest_size": path.furthest_size,
        "steps": [
            {
                "kind": step.kind,
                "derivation": step.derivation,
                "tensor": step.tensor,
                "fact": step.fact,
                "premises": list(step.premises),
                "layer": step.layer,
                "counts": {key: step.counts[key] for key in sorted(step.counts)},
            }
            for step in path.steps
        ],
        "stopped": [{"at": stop.at, "reason": stop.reason} for stop in path.stopped],
    }


def _finding(finding: Finding, show_seconds: bool) -> Json:
    confirmation = finding.confirmation
    return {
        "rule": finding.rule,
        "title": finding.title,
        "severity": finding.severity.value,
        "layer": finding.layer,
        "message": finding.message,
        "fingerprint": finding.fingerprint,
        "remedy": finding.remedy,
        "url": finding.url,
        "downgraded_because": finding.downgraded_because,
        "confirmation": None if confirmation is None else _evidence(confirmation, show_seconds),
    }


def _evidence(confirmation: Confirmation, show_seconds: bool) -> Json:
    largest, smallest = confirmation.singular_values or (None, None)
    return {
        "status": confirmation.status.value,
        "scope": confirmation.scope.value,
        "device": confirmation.device,
        "gradient_dtype": confirmation.gradient_dtype,
        "solver": confirmation.solver,
        "rank": confirmation.rank,
        "unknowns": confirmation.unknowns,
        "condition": _figure(confirmation.condition, 3),
        "largest_singular_value": _figure(largest, 3),
        "smallest_singular_value": _figure(smallest, 3),
        "residual": _figure(confirmation.residual),
        "predicted_error": _figure(confirmation.predicted_error, 3),
        "mse": _figure(confirmation.mse),
        "psnr": _figure(confirmation.psnr),
        "ssim": _figure(confirmation.ssim),
        "seconds": confirmation.seconds if show_seconds else None,
        "seed": confirmation.seed,
        "probe": confirmation.probe,
        "reason": confirmation.reason,
        "attempts": list(confirmation.attempts),
    }


def _figure(number: float | None, digits: int = 6) -> float | None:
    """Six digits, or three of an estimate: those after them depend on how many threads added up."""
    return None if number is None else float(f"{number:.{digits}g}")


def _ignore(use: IgnoreUse) -> Json:
    return {
        "rule": use.ignore.rule,
        "target": use.ignore.target,
        "layer": use.ignore.layer,
        "reason": use.ignore.reason,
        "matched": use.matched,
        "unused": use.unused,
    }


def _baseline(use: BaselineUse) -> Json:
    return {
        "file": use.file,
        "fixed": [
            {
                "target": entry.target,
                "rule": entry.rule,
                "layer": entry.layer,
                "severity": entry.severity.value,
                "fingerprint": entry.fingerprint,
            }
            for entry in use.fixed
        ],
    }


def _summary(summary: Summary) -> Json:
    return {
        "models": summary.models,
        "layers": summary.layers,
        "findings": {severity.value: count for severity, count in summary.findings.items()},
        "confirmed": summary.confirmed,
        "not_reproduced": summary.not_reproduced,
        "known": summary.known,
        "suppressed": summary.suppressed,
        "incomplete": summary.incomplete,
        "errors": summary.errors,
    }


def _value(value: object) -> Json:
    """Return `value` as JSON that every parser accepts."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list | tuple):
        return [_value(entry) for entry in value]
    if isinstance(value, dict):
        return {without_surrogates(str(key)): _value(entry) for key, entry in value.items()}
    raise TypeError(f"{type(value).__name__} is not a JSON value")
