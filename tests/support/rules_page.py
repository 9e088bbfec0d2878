"""`rules/README.md`: a page of every rule, with a sample that it flags and a change that helps.

Nothing on the page is written by hand: texts come from the rule files, figures from audits of the
sample models, and the change is searched for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper
from places import ROOT, SAMPLES
from rule_samples import CUSTOM, PAIRS, RULES, custom_operator

from leakaudit.advice import advise
from leakaudit.advice.change import families
from leakaudit.advice.propagate import RefusedChange
from leakaudit.advice.rebuild import rebuild, trained_numbers
from leakaudit.findings import Finding, LayerReport
from leakaudit.frontends import registry
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath, find_leak_path
from leakaudit.operators import Conv, Linear, Unsupported
from leakaudit.pipeline.audit import choose_loss
from leakaudit.pipeline.rule_facts import layer_facts, layer_report, model_facts
from leakaudit.rules.engine import apply
from leakaudit.rules.rule import Rule

PAGE = ROOT / "rules" / "README.md"

# Where the change that helps is another network rather than another layer: what differs.
COUNTERPARTS = {
    "LA006": "the same with the standard operator AveragePool in its place",
    "LA009": "fixed sinusoidal positions in a buffer send no gradient",
    "LA010": "global average pooling in front of the head ends the path above the sum",
}


@dataclass(frozen=True, slots=True)
class Audited:
    """A network as the rules see it, apart from any file."""

    graph: Graph
    path: LeakPath
    layers: dict[str, LayerReport]
    findings: tuple[Finding, ...]

    def of(self, rule: Rule, layer: str | None) -> Finding | None:
        """What this rule finds there."""
        found = (f for f in self.findings if (f.rule, f.layer) == (rule.id, layer))
        return next(found, None)


def audited(graph: Graph) -> Audited:
    """Audit a graph statically."""
    path = find_leak_path(graph, choose_loss(graph, "auto"))
    nodes = [node for node in graph.nodes if isinstance(node.op, Conv | Linear)]
    layers = [layer_report(graph, node, path) for node in nodes]
    unsupported = [node for node in graph.nodes if isinstance(node.op, Unsupported)]
    findings = apply(
        tuple(RULES.values()),
        [layer_facts(graph, graph.node(layer.name), layer, path) for layer in layers],
        model_facts(graph, layers, unsupported, path),
    )
    return Audited(graph, path, {layer.name: layer for layer in layers}, findings)


def loaded(target: str) -> Audited:
    """Audit a sample."""
    if target != CUSTOM:
        return audited(registry.load(str(SAMPLES / target), LoadOptions()))
    with tempfile.TemporaryDirectory() as folder:
        return audited(registry.load(str(custom_operator(Path(folder))), LoadOptions()))


def standard_operator() -> Audited:
    """The sample with the custom operator, made of standard ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = custom_operator(Path(folder))
        model = onnx.load(path)
        pool = helper.make_node(
            "AveragePool", ["features"], ["output"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        )
        model.graph.node[1].CopyFrom(pool)
        onnx.save(model, path)
        return audited(registry.load(str(path), LoadOptions()))


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of one layer after which the rule is quiet."""

    text: str
    layer: str
    after: Audited
    share: float  # of the trained numbers


def remedies(rule: Rule, before: Audited, layer: str | None) -> Iterator[Remedy]:
    """Changes that make the rule quiet and call up no finding that is as bad or worse."""
    finding = before.of(rule, layer)
    assert finding is not None
    known = {(found.rule, found.layer) for found in before.findings}
    trained = trained_numbers(before.graph)
    for text, changed, graph in changes(rule, before, layer):
        after = audited(graph)
        new = [f for f in after.findings if (f.rule, f.layer) not in known]
        if after.of(rule, layer) is None and not any(
            found.severity.at_least(finding.severity) for found in new
        ):
            yield Remedy(text, changed, after, abs(trained_numbers(graph) - trained) / trained)


def changes(rule: Rule, before: Audited, layer: str | None) -> Iterator[tuple[str, str, Graph]]:
    """Changed networks: text, layer, graph. For a layer all that `advise` tries, else its best."""
    if layer is None:
        for advice in advise(before.graph, choose_loss(before.graph, "auto")).layers:
            for candidate in advice.candidates:
                yield candidate.change.text, advice.layer, candidate.graph
        return
    for _, family in families(before.graph, before.graph.node(layer)):
        for change in family:
            try:
                graph = rebuild(before.graph, change)
            except RefusedChange:
                continue
            yield change.text, layer, graph


def rules_page() -> str:
    """The whole page."""
    head = """# Rules

<!-- Generated by `make docs` from the rule files and from audits of the sample models. -->

One file per rule in this folder; `leakaudit explain RULE` prints one. In conditions, X counts the
unknowns of a layer's input, A its gradient constraints, B its weight constraints (see "The
mathematics on one page" in the main README); rho = bound / X is the share of the input that the
equations can fix at most. A finding disappears after the change that is shown, without a new one
that is as bad or worse. That removes the exact solution, and is no proof of privacy.

"""
    index = "\n".join(
        f"- [{rule.id}](#{rule.id.lower()}) {rule.title} ({rule.severity.value})"
        for rule in RULES.values()
    )
    return head + index + "\n" + "".join(map(section, RULES.values()))


def section(rule: Rule) -> str:
    """One rule."""
    parts = [
        f"\n## {rule.id}",
        f"**{rule.title}**",
        f"`{rule.slug}` · severity {rule.severity.value} · precision {rule.precision} · about one "
        f"{rule.level.value}" + (f" ({', '.join(rule.applies_to)})" * bool(rule.applies_to)),
        f"Condition: `{rule.condition.text}`",
    ]
    if rule.downgrade is not None:
        parts.append(
            f"Only {rule.downgrade.severity.value} where also `{rule.downgrade.condition.text}`"
        )
    parts += [
        "### Why",
        rule.why,
        "### What it looks like",
        example(rule),
        f"It is quiet on `sample_models/{PAIRS[rule.id].quiet}`"
        + (f", layer {PAIRS[rule.id].quiet_at}." if PAIRS[rule.id].quiet_at else "."),
        "### What to do",
        rule.remedy,
        "### References",
        "\n".join(f"- {reference}" for reference in rule.references),
    ]
    return "\n\n".join(parts) + "\n"


def example(rule: Rule) -> str:
    """Before and after."""
    pair = PAIRS[rule.id]
    before = loaded(pair.fires)
    finding = before.of(rule, pair.fires_at)
    assert finding is not None
    where = f"`sample_models/{pair.fires}`" if pair.fires != CUSTOM else f"a model with a {CUSTOM}"
    found = f"In {where}{f', layer {pair.fires_at}' if pair.fires_at else ''}:"
    told = f"> {finding.severity.value}: {escaped(finding.message)}"
    if rule.id in COUNTERPARTS:
        after = standard_operator() if pair.fires == CUSTOM else loaded(pair.quiet)
        name = f"`sample_models/{pair.quiet}`, " if pair.fires != CUSTOM else ""
        table = rows(before, after, next(iter(after.layers)))
        assert after.of(rule, pair.quiet_at) is None
        return "\n\n".join((found, told, f"After: {name}{COUNTERPARTS[rule.id]}.", table))
    options = list(remedies(rule, before, pair.fires_at)) if severe(rule) else []
    if not options:
        layer = pair.fires_at or last_reached(before)
        none = (
            "No change of a single layer silences this rule without a finding that is as bad."
            if severe(rule)
            else "A stop is no fault, so there is nothing to change."
        )
        return "\n\n".join((found, told, none, rows(before, None, layer)))
    best = min(options, key=lambda remedy: remedy.share)
    return "\n\n".join(
        (
            found,
            told,
            f"After: {best.layer}, {escaped(best.text)} ({best.share:.1%} of the trained numbers "
            "change).",
            rows(before, best.after, best.layer),
        )
    )


def severe(rule: Rule) -> bool:
    """Whether its finding is something to get rid of."""
    return rule.severity.value != "note"


def last_reached(network: Audited) -> str:
    """The layer at which the leak path stops, or the first one."""
    stops = [stop.at for stop in network.path.report.stopped if stop.at in network.layers]
    return (stops or list(network.layers))[0]


def rows(before: Audited, after: Audited | None, layer: str) -> str:
    """The counts of a layer, and how far the leak path goes."""
    lines = [
        r"| | layer | \|X\| | \|A\| | \|B\| | rank bound | determined | leak path |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, network in (("before", before), ("after", after)):
        if network is None:
            continue
        counts = network.layers[layer].counts
        assert counts is not None
        cells = (
            title,
            layer,
            counts.unknowns,
            counts.gradient_constraints,
            counts.weight_constraints,
            counts.rank_bound,
            f"{counts.determined_fraction:.0%}",
            reach(network),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def reach(network: Audited) -> str:
    report = network.path.report
    if report.reaches_input:
        return "reaches the input"
    stops = ", ".join(stop.at for stop in report.stopped)
    return f"stops at {stops}" if stops else "does not begin"


def escaped(text: str) -> str:
    """Markdown would read a pair of these as emphasis or a cell's end."""
    for character in "*_|<":
        text = text.replace(character, f"\\{character}")
    return text
