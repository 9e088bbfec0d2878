"""Equations are solved with all that are known, and none that follow from their solution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from build import Builder, cnn6, lenet_main, skipping

from leakaudit.facts.fact import Derivation, Quality, gradient, value
from leakaudit.facts.general import derive
from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath, derivation_tree, find_leak_path
from leakaudit.operators import AdaptiveAveragePool, Concat, LeakyRelu, Mul, Relu, Sigmoid


def densely_connected() -> Graph:
    """Every feature map is part of all that follow: the head shows the first one at once."""
    b = Builder(1, 3, 16, 16)
    b.conv("conv1", 12, 3, stride=2, padding=1)
    first = b.same("act1", LeakyRelu(0.1))
    b.conv("conv2", 12, 3, padding=1)
    second = b.same("act2", LeakyRelu(0.1))
    both = b.node("cat1", Concat(1), (1, 24, 8, 8), (first, second))
    b.conv("conv3", 12, 3, padding=1)
    third = b.same("act3", LeakyRelu(0.1))
    b.node("cat2", Concat(1), (1, 36, 8, 8), (both, third))
    b.flatten()
    b.linear("fc1", 4)
    return b.graph()


def squeeze_and_excite() -> Graph:
    """A gate computed from the features scales them; its own solves come before theirs."""
    b = Builder(1, 3, 16, 16)
    b.conv("conv1", 12, 3, stride=2, padding=1)
    features = b.same("act1", LeakyRelu(0.1))
    b.node("mean", AdaptiveAveragePool(), (1, 12, 1, 1))
    b.conv("squeeze", 4, 1)
    b.same("relu", Relu())
    b.conv("excite", 12, 1)
    gate = b.same("gate", Sigmoid())
    b.node("scaled", Mul(), b.shape(features), (features, gate))
    b.conv("conv2", 12, 3, stride=2, padding=1)
    b.same("act2", LeakyRelu(0.1))
    b.flatten()
    b.linear("fc1", 5)
    return b.graph()


def two_heads(layer: Callable[[Builder], str]) -> Graph:
    """Two readers of an activation: its value comes from one, its gradient takes both."""
    b = Builder(1, 4, 6)
    layer(b)
    features = b.same("act1", LeakyRelu(0.2))
    b.flatten("flat_a", features)
    first = b.linear("head_a", 5)
    b.flatten("flat_b", features)
    second = b.linear("head_b", 7)
    return b.graph(first, second)


def dense_over_tokens() -> Graph:
    return two_heads(lambda b: b.linear("fc1", 8))


def gated_by_its_own_input() -> Graph:
    """dl/do takes dl/dy · s, and s = sigmoid(x) is not known before x.

    One head shows o, the other passes the gradient of y = o · s only.
    """
    b = Builder(1, 4, 6, 6)
    b.conv("conv1", 4, 3, padding=1)
    b.same("s", Sigmoid(), "input")
    b.node("y", Mul(), b.shape("conv1"), ("conv1", "s"))
    b.flatten("flat_o", "conv1")
    first = b.linear("head_o", 5)
    b.flatten("flat_y", "y")
    second = b.linear("head_y", 5, trainable=False, bias_trainable=True)
    return b.graph(first, second)


def deep(layers: int) -> Graph:
    """Every solve waits: outputs of ReLU are never known everywhere."""
    b = Builder(1, 2, 4, 4)
    for i in range(layers):
        b.conv(f"conv{i}", 2, 3, padding=1)
        b.same(f"act{i}", Relu())
    b.flatten()
    b.linear("fc1", 10)
    return b.graph()


def tree(path: LeakPath, tensor: str) -> tuple[Derivation, ...]:
    return derivation_tree(path.knowledge, value(tensor))


@pytest.mark.parametrize("graph", [densely_connected(), squeeze_and_excite()])
def test_a_value_known_early_waits_for_the_gradient(graph: Graph) -> None:
    """768 of 768 by weight constraints alone is what counting hopes for; numbers fall short."""
    path = find_leak_path(graph, "cross-entropy")
    assert path.report.reaches_input
    last = path.report.steps[-1]
    assert (last.layer, last.premises) == ("conv1", ("gradient(conv1)", "value(conv1)"))
    assert (last.counts["gradient_constraints"], last.counts["weight_constraints"]) == (324, 768)


def test_a_dense_layer_waits_for_its_gradient() -> None:
    path = find_leak_path(dense_over_tokens(), "cross-entropy")
    assert path.report.steps[-1].kind == "dense-value-from-gradient"


def test_a_gradient_that_needs_the_value_is_not_used_for_it() -> None:
    path = find_leak_path(gated_by_its_own_input(), "cross-entropy")
    known = path.knowledge
    assert tree(path, "input")[-1].premises == (value("conv1"),)
    assert known.exact(gradient("conv1"))
    behind = {step.conclusion for step in derivation_tree(known, gradient("conv1"))}
    assert value("input") in behind


def test_outputs_that_are_not_read_weaken_the_gradient_constraints() -> None:
    """288 gradient constraints would do for 128 unknowns, were dl/do not mostly 0."""
    path = find_leak_path(skipping(2, 16, kernel=3), "cross-entropy")
    assert path.knowledge.quality(value("conv1")) is Quality.READ
    assert tree(path, "input")[-1].premises == (gradient("conv1"), value("conv1"))


GRAPHS = {
    "densely connected": densely_connected(),
    "squeeze and excite": squeeze_and_excite(),
    "dense over tokens": dense_over_tokens(),
    "gated by its own input": gated_by_its_own_input(),
    "skipping": skipping(2, 16, kernel=3),
    "lenet": lenet_main(),
    "cnn6": cnn6(),
    "deep": deep(6),
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_nothing_more_follows(graph: Graph) -> None:
    """Nodes are asked again only where something changed; asking all once more gives nothing."""
    known = find_leak_path(graph, "cross-entropy").knowledge
    assert not [d for node in graph.nodes for d in derive(node, known) if known.add(d)]


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_premises_were_known_before_their_conclusion(graph: Graph) -> None:
    known = find_leak_path(graph, "cross-entropy").knowledge
    steps = [entry for entries in known.history.values() for entry in entries]
    assert sorted(number for number, _ in steps) == list(range(known.found))
    for number, step in steps:
        assert all(known.history[premise][0][0] < number for premise in step.premises)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_no_convolution_misses_equations_that_do_not_follow_from_it(graph: Graph) -> None:
    known = find_leak_path(graph, "cross-entropy").knowledge
    for fact in known.history:
        solve = derivation_tree(known, fact)[-1]
        if solve.kind != "convolution-value" or solve.counts["gradient_constraints"]:
            continue
        (o,) = graph.node(solve.node).outputs
        if known.exact(gradient(o)) and known.observed(graph.node(solve.node).parameter("weight")):
            behind = {step.conclusion for step in derivation_tree(known, gradient(o))}
            assert fact in behind


def test_a_deep_network_of_waiting_solves_is_walked() -> None:
    path = find_leak_path(deep(400), "cross-entropy")
    assert path.report.reaches_input
    solves = [step for step in path.steps if step.kind == "convolution-value"]
    assert len(solves) == 400


def test_two_runs_derive_in_the_same_order() -> None:
    for graph in GRAPHS.values():
        first, second = (find_leak_path(graph, "cross-entropy") for _ in range(2))
        assert first.knowledge.history == second.knowledge.history
        assert first.report == second.report
