"""How facts accumulate: improvement, sums over uses, and the order of the tree."""

from __future__ import annotations

from dataclasses import replace

from build import Builder

from leakaudit.facts.fact import Derivation, Fact, Kind, Quality, gradient, value
from leakaudit.facts.knowledge import Knowledge
from leakaudit.graph import Graph
from leakaudit.leakpath.path import derivation_tree, find_leak_path
from leakaudit.operators import LeakyRelu, Unsupported


def nothing_known() -> Knowledge:
    b = Builder(1, 4)
    b.linear("fc1", 4)
    return Knowledge(b.graph(), "cross-entropy")


def test_a_fact_improved_by_its_own_consequence_does_not_go_round() -> None:
    known = nothing_known()
    rough = Derivation("fc1", value("a"), quality=Quality.SCALED)
    consequence = Derivation("fc1", value("b"), (value("a"),), Quality.SCALED)
    improved = Derivation("fc1", value("a"), (value("b"),), Quality.EXACT)
    best = Derivation("fc1", value("b"), (value("a"),), Quality.EXACT)
    for derivation in (rough, consequence, improved, best):
        assert known.add(derivation)
    assert derivation_tree(known, value("b")) == (rough, consequence, improved, best)
    assert derivation_tree(known, value("a")) == (rough, consequence, improved)


def test_only_improvements_are_recorded() -> None:
    known = nothing_known()
    exact = Derivation("fc1", value("a"))
    assert known.add(exact)
    assert not known.add(replace(exact, premises=(value("b"),)))
    assert not known.add(replace(exact, quality=Quality.READ))
    assert known.quality(value("a")) is Quality.EXACT
    assert derivation_tree(known, value("a")) == (exact,)


def test_a_long_chain_needs_no_recursion() -> None:
    known = nothing_known()
    known.add(Derivation("fc1", value("t0")))
    for i in range(5000):
        known.add(Derivation("fc1", value(f"t{i + 1}"), (value(f"t{i}"),)))
    assert len(derivation_tree(known, value("t5000"))) == 5001


def test_a_deep_network_is_walked() -> None:
    b = Builder(1, 2, 4, 4)
    for i in range(400):
        b.conv(f"conv{i}", 2, 3, padding=1)
        b.same(f"act{i}", LeakyRelu(0.2))
    b.flatten()
    b.linear("fc1", 10)
    found = find_leak_path(b.graph(), "cross-entropy").report
    assert found.reaches_input
    assert sum(step.kind == "convolution-value" for step in found.steps) == 400


def two_heads(second_understood: bool) -> Graph:
    """One feature map read by two heads; the convolution needs its whole gradient."""
    b = Builder(1, 2, 6, 6)
    b.conv("conv1", 1, 3, padding=1)
    features = b.same("act1", LeakyRelu(0.2))
    b.flatten("flat_a", features)
    a = b.linear("head_a", 5)
    b.flatten("flat_b", features)
    if not second_understood:
        b.same("mystery", Unsupported("Mystery", "not known"))
    c = b.linear("head_b", 7)
    return b.graph(a, c)


def test_a_gradient_is_the_sum_over_all_uses() -> None:
    path = find_leak_path(two_heads(second_understood=True), "cross-entropy")
    assert path.knowledge.exact(gradient("act1"))
    tree = derivation_tree(path.knowledge, gradient("act1"))
    assert tree[-1].kind == "sum-over-uses"
    assert {str(premise) for premise in tree[-1].premises} == {
        "gradient(act1 through flat_a)",
        "gradient(act1 through flat_b)",
    }


def test_a_sum_with_an_unknown_part_is_not_known() -> None:
    path = find_leak_path(two_heads(second_understood=False), "cross-entropy")
    part = Fact(Kind.CONTRIBUTION, "act1", "flat_a", 0)
    assert path.knowledge.exact(part, value("act1"))
    assert path.knowledge.quality(gradient("act1")) is None
    # Half a gradient makes no gradient constraints: 36 weight constraints for 72 unknowns remain.
    assert not path.report.reaches_input
    stops = {stop.at: stop.reason for stop in path.report.stopped}
    assert "gradient of its output is not known" in stops["conv1"]


def test_a_tensor_read_twice_by_one_node_has_two_parts() -> None:
    from leakaudit.operators import Add

    b = Builder(1, 2, 6, 6)
    b.conv("conv1", 4, 3, padding=1)
    b.node("double", Add(), b.shape(), ("conv1", "conv1"))
    b.flatten()
    b.linear("fc1", 10)
    path = find_leak_path(b.graph(), "cross-entropy")
    tree = derivation_tree(path.knowledge, gradient("conv1"))
    assert tree[-1].premises == (
        Fact(Kind.CONTRIBUTION, "conv1", "double", 0),
        Fact(Kind.CONTRIBUTION, "conv1", "double", 1),
    )


def test_a_graph_output_has_a_gradient_of_its_own() -> None:
    """The loss reads an output directly: the parts that come back through its uses are not all."""
    b = Builder(1, 6)
    hidden = b.linear("fc1", 8, bias=False)
    head = b.linear("fc2", 3)
    path = find_leak_path(b.graph(hidden, head), "cross-entropy")
    assert path.knowledge.quality(gradient("fc1")) is None
    assert path.knowledge.exact(value("fc1"))
