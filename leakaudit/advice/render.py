"""Advice as a table for a reader and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tabulate import tabulate

from leakaudit import __version__
from leakaudit.advice.search import Advice, Candidate, LayerAdvice
from leakaudit.counting.bound import LayerBound
from leakaudit.findings import Confirmation, Status
from leakaudit.report.escape import not_a_command, plain
from leakaudit.report.json_text import Json, dump, picked, plain_value

SCHEMA_VERSION = 1
NOTE = (
    "Underdetermined is not private: rho is the share of the layer's input that the equations can "
    "still fix, and with a prior a recognisable input can come back from much less than all of "
    "it; check goes on to report a layer with a large rho as nearly determined. Ask for less with "
    "--max-rho, and measure what a change costs in accuracy."
)
_HEADERS = ("change", "|X|", "|A|", "|B|", "bound", "rho", "parameters", "path to the input")


def as_table(target: str, advice: Advice, width: int) -> str:
    """The advice for a terminal of this width."""
    lines = [plain(target), "=" * len(plain(target))]
    if advice.reaches_input:
        lines.append("The model's input can be computed from the shared gradient as it is.")
    if not advice.layers:
        lines.append("No layer is flagged: nothing to advise.")
    for layer in advice.layers:
        lines += ["", *_layer(layer, width)]
    if advice.layers:
        lines += ["", textwrap.fill(NOTE, width)]
    if not advice.complete:
        lines += ["", "The audit is incomplete: a part of the model was not understood."]
    return "\n".join(not_a_command(line) for line in "\n".join(lines).splitlines()) + "\n"


def as_json(target: str, advice: Advice) -> str:
    """The advice as a JSON document."""
    return dump(
        {
            "schema_version": SCHEMA_VERSION,
            "tool": {"name": "leakaudit", "version": __version__},
            "target": plain_value(target),
            **picked(advice, "complete", "reaches_input"),
            "layers": [_layer_json(layer) for layer in advice.layers],
            "note": NOTE,
        }
    )


def describe(layer: str, candidate: Candidate) -> str:
    """A change in one line."""
    return plain(f"{layer}: {candidate.change.text}")


def _layer(layer: LayerAdvice, width: int) -> list[str]:
    bound = layer.bound
    lines = [
        f"{plain(layer.layer)}: {bound.unknowns} unknowns, {bound.gradient_constraints} gradient "
        f"and {bound.weight_constraints} weight constraints, rank bound {bound.rank} "
        f"(rho {_share(bound)})"
    ]
    if layer.candidates:
        table = tabulate(
            [_row(candidate) for candidate in layer.candidates],
            headers=_HEADERS,
            tablefmt="simple",
            disable_numparse=True,
            colalign=("left", *["right"] * 5, "left", "left"),
        )
        lines += textwrap.indent(str(table), "  ").splitlines()
    else:
        lines.append("  no single change removes the flag")
    for candidate in layer.candidates:
        for remark in _remarks(candidate):
            text = f"{candidate.change.text}: {remark}"
            lines += _wrapped(text, width)
    if layer.without:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in layer.without)
        lines += _wrapped(f"no change of {reasons}", width)
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(plain(text), width, initial_indent="  ", subsequent_indent="    ")


def _row(candidate: Candidate) -> tuple[str, ...]:
    bound = candidate.bound
    return (
        plain(candidate.change.text),
        str(bound.unknowns),
        str(bound.gradient_constraints),
        str(bound.weight_constraints),
        str(bound.rank),
        _share(bound),
        _numbers(candidate),
        plain(_path(candidate)),
    )


def _share(bound: LayerBound) -> str:
    """rho, never rounded up to all where it is not all."""
    share = bound.rank / bound.unknowns
    if share > 0.999 and bound.rank < bound.unknowns:
        return "> 0.999"
    return f"{share:.3f}"


def _numbers(candidate: Candidate) -> str:
    (before, after), (trained, now) = candidate.parameters, candidate.trained
    if before == after and candidate.change.freeze:
        return f"{before}, trained {trained} -> {now}"
    share = (after - before) / max(before, 1)
    percent = f"{share:+.1%}" if abs(share) >= 0.001 or before == after else "less than 0.1%"
    text = f"{before} -> {after} ({percent})"
    return f"{text}, trained {now}" if candidate.change.freeze else text


def _path(candidate: Candidate) -> str:
    if candidate.reaches_input:
        return "still open"
    where = ", ".join(stop.at for stop in candidate.stops)
    state = "closed" if candidate.closes_path else "was closed"
    return f"{state}, stops at {where}" if where else state


def _remarks(candidate: Candidate) -> Sequence[str]:
    remarks = []
    if candidate.still_flagged:
        remarks.append(
            "closes the path to the model's input, and leaves this layer's own input to be "
            "recovered: it stays flagged"
        )
    if candidate.newly_flagged:
        remarks.append(f"flags {', '.join(candidate.newly_flagged)}, which was not flagged before")
    if candidate.confirmation is not None:
        remarks.append(_evidence(candidate.confirmation))
    return remarks


def _evidence(evidence: Confirmation) -> str:
    if evidence.status is Status.NOT_RUN:
        return f"the reconstruction was not run: {evidence.reason}"
    text = f"{evidence.status.value} ({evidence.scope.value})"
    if evidence.mse is not None:
        text += f", mean squared error {evidence.mse:.1e}"
    return f"{text}: {evidence.reason}"


def _layer_json(layer: LayerAdvice) -> dict[str, Json]:
    return {
        "layer": plain_value(layer.layer),
        "counts": _counts(layer.bound),
        "changes": [_candidate_json(candidate) for candidate in layer.candidates],
        "without": [
            {"parameter": name, "reason": plain_value(reason)} for name, reason in layer.without
        ],
    }


def _candidate_json(candidate: Candidate) -> dict[str, Json]:
    (before, after), (trained, now) = candidate.parameters, candidate.trained
    told = candidate.confirmation
    keys = ("status", "scope", "reason", "rank", "unknowns", "mse", "psnr", "seed")
    return {
        "parameter": candidate.change.parameter,
        "change": plain_value(candidate.change.text),
        "counts": _counts(candidate.bound),
        "flagged": candidate.still_flagged,
        "parameters": {"before": before, "after": after},
        "trained_parameters": {"before": trained, "after": now},
        **picked(candidate, "relative_change", "closes_path", "reaches_input"),
        "stopped": [picked(stop, "at", "reason") for stop in candidate.stops],
        **picked(candidate, "newly_flagged"),
        "confirmation": None if told is None else picked(told, *keys),
    }


def _counts(bound: LayerBound) -> dict[str, Json]:
    return {
        **picked(bound, "unknowns", "unread", "gradient_constraints", "weight_constraints"),
        "rank_bound": bound.rank,
        "determined_fraction": bound.rank / bound.unknowns,
    }
