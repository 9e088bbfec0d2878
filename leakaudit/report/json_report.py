"""The JSON report, versioned and apart from internals; `schema.json` beside it describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files

from leakaudit import findings
from leakaudit.report.interface import RenderOptions
from leakaudit.report.json_text import Json, dump, picked, plain_value
from leakaudit.report.summary import Summary, summarise

SCHEMA_VERSION = 1

# The keys of the document, in its order. An attribute that is not named here stays out of it.
_KEYS: Mapping[type, str] = {
    findings.ModelReport: (
        "target format sha256 inputs complete error layers leak_path "
        "findings known suppressed skipped notes images"
    ),
    findings.InputReport: "name shape",
    findings.LayerReport: "name op origin input_shape output_shape parameters counts verdict note",
    findings.LeakPathReport: "reaches_input furthest furthest_size steps stopped",
    findings.PathStep: "kind derivation tensor fact premises layer counts",
    findings.PathStop: "at reason kind",
    findings.Finding: (
        "rule title severity layer message fingerprint remedy url downgraded_because confirmation"
    ),
    findings.Suppressed: "reason finding",
    findings.Skipped: "what reason",
    findings.ImageReport: "original reconstruction difference",
    findings.Ignore: "rule target layer reason",
    findings.BaselineUse: "file fixed",
    findings.BaselineEntry: "target rule layer severity fingerprint",
    Summary: ("models layers findings confirmed not_reproduced known suppressed incomplete errors"),
}


def render(report: findings.AuditReport, options: RenderOptions) -> str:
    """Return what `as_json` gives: ASCII, two spaces of indent, keys always in the same order."""
    return dump(as_json(report, show_seconds=options.show_seconds))


def schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of the report."""
    text = files("leakaudit.report").joinpath("schema.json").read_text(encoding="utf-8")
    loaded: dict[str, object] = json.loads(text)
    return loaded


def as_json(report: findings.AuditReport, *, show_seconds: bool = True) -> dict[str, Json]:
    """Return the report as plain JSON values.

    NaN and infinity become null, lone surrogates visible text. Durations stand in `seconds` only.

    Raises:
        TypeError: A layer's parameter is not a JSON value.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "leakaudit", "version": plain_value(report.tool_version)},
        "models": _value(report.models, show_seconds),
        "ignores": [_ignore(use) for use in report.ignores],
        "baseline": _value(report.baseline, show_seconds),
        "summary": picked(summarise(report), *_KEYS[Summary].split()),
    }


def _value(value: object, show_seconds: bool) -> Json:
    match value:
        case findings.Confirmation():
            return _confirmation(value, show_seconds)
        case findings.Counts():
            return _counts(value)
        case tuple():
            return [_value(entry, show_seconds) for entry in value]
        case dict():
            return plain_value(dict(sorted(value.items())))
        case _ if type(value) in _KEYS:
            keys = _KEYS[type(value)].split()
            return {key: _value(getattr(value, key), show_seconds) for key in keys}
        case _:
            return plain_value(value)


def _counts(counts: findings.Counts) -> Json:
    constraints = ("gradient_constraints", "weight_constraints")
    return {
        **picked(counts, "unknowns", "unread", *constraints),
        **picked(counts, "redundant", "rank_bound", "gradient_rank_bound"),
        "determined_fraction": counts.determined_fraction if counts.unknowns else None,
        "symbolic": picked(counts.symbolic, "unknowns", *constraints, "margin"),
    }


def _confirmation(told: findings.Confirmation, show_seconds: bool) -> Json:
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
        "seconds": plain_value(told.seconds) if show_seconds else None,
        **picked(told, "seed", "probe", "reason", "attempts"),
    }


def _figure(number: float | None, digits: int = 6) -> Json:
    """Six digits, or three of an estimate: those after them depend on how many threads added up."""
    return None if number is None else plain_value(float(f"{number:.{digits}g}"))


def _ignore(use: findings.IgnoreUse) -> Json:
    ignore = picked(use.ignore, *_KEYS[findings.Ignore].split())
    return {**ignore, **picked(use, "matched", "unused")}
