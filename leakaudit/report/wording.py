"""How the reports for people put things: numbers, shapes, operators, evidence.

Every function returns text that is already escaped by `plain`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from leakaudit.findings import (
    Confirmation,
    Counts,
    LeakPathReport,
    ModelReport,
    PathStop,
    Scope,
    Status,
)
from leakaudit.report.escape import plain
from leakaudit.report.interface import RenderOptions
from leakaudit.report.summary import Summary

UNDERDETERMINED_NOTE = (
    "underdetermined: the linear equations alone cannot fix the whole input of the layer. "
    "That does not make it private: an attacker who knows what such data look like can fill in "
    "much of the rest."
)
NOT_REPRODUCED_NOTE = (
    "not reproduced: this reconstruction did not succeed. "
    "That does not show that none would; the counts stand."
)

_SCOPE = {
    Scope.END_TO_END: " end to end",
    Scope.LOCAL: " locally, given this layer's true output gradient",
    Scope.NONE: "",
}
_SHOWN_BY_LETTER = ("kernel", "stride", "padding", "dilation", "groups")


def count(number: int) -> str:
    """Return a count, its digits grouped from five digits on: 3072, 150,528."""
    return f"{number:,}" if abs(number) >= 10_000 else str(number)


def quantity(number: int, noun: str) -> str:
    """Return "1 layer", "5 layers", "2 equations"."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def short(number: float) -> str:
    """Return two significant digits: 0.35, 42, 1.2e3, 6e-27."""
    if not math.isfinite(number):
        return "infinite" if math.isinf(number) else "not a number"
    if number == 0:
        return "0"
    mantissa, exponent = f"{number:.1e}".split("e")
    if -2 <= int(exponent) <= 1:
        return f"{number:.2g}"
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def decibels(psnr: float) -> str:
    """Return 104.7 dB, or that it is infinite or not a number."""
    return f"{psnr:.1f} dB" if math.isfinite(psnr) else short(psnr)


def shape(sizes: tuple[int, ...]) -> str:
    """Return 1x3x32x32; a scalar's shape is "scalar"."""
    return "x".join(map(str, sizes)) or "scalar"


def counted(counts: Counts) -> tuple[str, str, str, str]:
    """Return |X|, |A|, |B| and the rank bound, as the columns of a table have them."""
    return (
        count(counts.unknowns),
        count(counts.gradient_constraints),
        count(counts.weight_constraints),
        count(counts.rank_bound),
    )


def determined(counts: Counts) -> str:
    """Return the determined percentage of the unknowns, rounded down; "! 100 %" where it is all.

    Rounded down, so that a layer whose input is not fixed never reads as 100 %.
    """
    if counts.unknowns == 0:
        return "-"
    if counts.fixes_input:
        return "! 100 %"
    tenths = counts.rank_bound * 1000 // counts.unknowns
    return f"{tenths / 10:.1f} %" if tenths % 10 else f"{tenths // 10} %"


def operator(op: str, parameters: Mapping[str, object]) -> str:
    """Return an operator with its hyperparameters: "conv k5 s2 p2 g1", "linear 192 -> 100".

    Reads `kernel`, `stride`, `padding` (or `padding_begin` and `padding_end`), `dilation`,
    `groups`, `in_features`, `out_features`; a dilation of 1 is left out.
    """
    sizes = {key: _sizes(value) for key, value in parameters.items()}
    if sizes.get("dilation") == "1":
        del sizes["dilation"]
    if "padding" not in sizes and sizes.keys() >= {"padding_begin", "padding_end"}:
        begin, end = sizes["padding_begin"], sizes["padding_end"]
        sizes["padding"] = begin if begin == end else f"{begin}/{end}"
    words = [plain(op).lower()]
    words += [key[0] + sizes[key] for key in _SHOWN_BY_LETTER if key in sizes]
    if sizes.keys() >= {"in_features", "out_features"}:
        words.append(f"{sizes['in_features']} -> {sizes['out_features']}")
    return " ".join(words)


def equations(counts: Mapping[str, int]) -> str:
    """Return what a step solves: "3072 unknowns, 900 gradient + 3072 weight equations, rank ...".

    A part that `counts` does not name, or of which there is none, is left out; names not known
    here follow as they are.
    """
    others = {key: number for key, number in counts.items() if number}
    parts = []
    if unknowns := others.pop("unknowns", 0):
        parts.append(quantity(unknowns, "unknown"))
    kinds = ((others.pop(f"{word}_constraints", 0), word) for word in ("gradient", "weight"))
    if solved := _nonzero(kinds):
        parts.append(" + ".join(solved) + " equations")
    if rank := others.pop("rank_bound", 0):
        parts.append(f"rank at most {count(rank)}")
    parts += [f"{plain(key).replace('_', ' ')} {count(it)}" for key, it in others.items()]
    return ", ".join(parts)


def evidence_claim(confirmation: Confirmation) -> str:
    """Return what the run showed: "confirmed end to end"."""
    status = confirmation.status
    claim = "confirmation not run" if status is Status.NOT_RUN else status.value
    return claim + _SCOPE[confirmation.scope]


def evidence_details(confirmation: Confirmation, options: RenderOptions) -> str:
    """Return the numbers and circumstances of the run, and its reason; empty if there are none.

    The reason stands first, except where the claim is confirmed: there the numbers speak.
    """
    given = confirmation
    total = "" if given.unknowns is None else f" of {count(given.unknowns)}"
    numbers = (
        None if given.mse is None else f"MSE {short(given.mse)}",
        None if given.psnr is None else f"PSNR {decibels(given.psnr)}",
        None if given.ssim is None else f"SSIM {given.ssim:.3f}",
        None if given.rank is None else f"rank {count(given.rank)}{total}",
        None if given.condition is None else f"condition {short(given.condition)}",
        None if given.residual is None else f"residual {short(given.residual)}",
        plain(given.solver or ""),
        plain(given.device or ""),
        f"{plain(given.gradient_dtype)} gradients" if given.gradient_dtype else None,
        f"probe {plain(given.probe)}" if given.probe else None,
        None if given.seed is None else f"seed {given.seed}",
        f"{given.seconds:.2f} s" if given.seconds is not None and options.show_seconds else None,
    )
    parts = [", ".join(filter(None, numbers)), plain(given.reason.strip())]
    if not given.status.recovered:
        parts.reverse()
    return "; ".join(filter(None, parts))


def spectrum(confirmation: Confirmation) -> str:
    """Return the singular values, and the error that they let expect; empty where none is known."""
    parts = []
    if confirmation.singular_values is not None:
        largest, smallest = confirmation.singular_values
        parts.append(f"singular values {short(largest)} to {short(smallest)}")
    if confirmation.predicted_error is not None:
        error = short(confirmation.predicted_error)
        parts.append(f"relative error predicted from the condition: {error}")
    return ", ".join(parts)


def facts(model: ModelReport) -> str:
    """Return format, inputs and completeness: "onnx, input x 1x3x32x32, complete"."""
    inputs = ", ".join(f"{plain(given.name)} {shape(given.shape)}" for given in model.inputs)
    noun = "input" if len(model.inputs) == 1 else "inputs"
    parts = (
        plain(model.format),
        f"{noun} {inputs}" if inputs else "",
        "complete" if model.complete else "INCOMPLETE",
    )
    return ", ".join(filter(None, parts))


def reach(path: LeakPathReport) -> str:
    """Return how far the equations carry: "by counting, the gradients lead to ..."."""
    if path.reaches_input:
        steps = quantity(len(path.steps), "step")
        return f"by counting, the gradients lead to the input in {steps}"
    if path.furthest is None:
        return "the gradients lead to no activation"
    reached = f"{plain(path.furthest)} ({quantity(path.furthest_size, 'value')})"
    known = f"value({path.furthest})"
    facts = [step.fact for step in path.steps if step.fact.startswith(known)]
    part = plain(facts[-1].removeprefix(known).strip()) if facts else ""
    rest = f" {part}, not to the whole input" if part else ", not to the input"
    return f"by counting, the gradients lead to {reached}{rest}"


def stop(at: PathStop) -> str:
    """Return where a path ends and why: "stops at pool (not followed): ..."."""
    return f"stops at {plain(at.at)} ({stop_kind(at)}): {plain(at.reason.strip())}"


def stop_kind(at: PathStop) -> str:
    """Return what a stop is worth: "proven", "not followed"."""
    return at.kind.value.replace("-", " ")


def left_out(known: int, suppressed: int) -> list[str]:
    """Return how many findings do not count, and why: "2 known from the baseline"."""
    return _nonzero(
        [(known, "known from the baseline"), (suppressed, "suppressed by the configuration")]
    )


def totals(summary: Summary) -> str:
    """Return the last line of a report: what was audited, found, confirmed."""
    found = ", ".join(_nonzero((number, level.value) for level, number in summary.findings.items()))
    parts = [found or ("no new findings" if summary.known else "no findings")]
    if found:
        parts.append(f"{count(summary.confirmed)} confirmed")
    parts += _nonzero([(summary.not_reproduced, "not reproduced")])
    parts += left_out(summary.known, summary.suppressed)
    parts += _nonzero([(summary.incomplete, "incomplete")])
    if summary.errors:
        parts.append(f"{quantity(summary.errors, 'target')} not audited")
    audited = f"{quantity(summary.models, 'model')}, {quantity(summary.layers, 'layer')}"
    return f"{audited}: {'; '.join(parts)}"


def no_findings(model: ModelReport) -> str:
    """Return the sentence in place of a list of findings: those left out of it are counted."""
    others = left_out(len(model.known), len(model.suppressed))
    if not others:
        return "No findings."
    return f"No {'new' if model.known else 'other'} findings: {', '.join(others)}."


def _nonzero(counted: Iterable[tuple[int, str]]) -> list[str]:
    return [f"{count(number)} {what}" for number, what in counted if number]


def _sizes(value: object) -> str:
    """Return a hyperparameter per axis: "5" where all axes agree, otherwise "5x3"."""
    if isinstance(value, list | tuple):
        texts = [plain(str(entry)) for entry in value]
        return texts[0] if texts and len(set(texts)) == 1 else "x".join(texts)
    return plain(str(value))
