"""The layers whose input a leak path leaves open, with what the attacker holds of their equations.

The path ends above such a layer: its equations are fewer than its unknowns. They are known all the
same, and so is what they give away.
"""

from __future__ import annotations

from dataclasses import dataclass

from leakaudit.attack.partial.inequalities import Inequalities, saturation_inequalities
from leakaudit.attack.replay import walk
from leakaudit.attack.state import State
from leakaudit.counting.count import bound_of
from leakaudit.equations.system import LayerSystem
from leakaudit.facts.fact import Kind, Quality, gradient, value
from leakaudit.leakpath.path import LeakPath, derivation_tree


@dataclass(frozen=True, slots=True)
class OpenLayer:
    """What the shared gradients alone say of a layer.

    Attributes:
        system: Its equations, as far as they are known.
        inequalities: On its bias-free output; None where nothing is known.
    """

    system: LayerSystem
    inequalities: Inequalities | None


def open_layers(path: LeakPath, state: State) -> dict[str, OpenLayer]:
    """The convolutions with fewer equations than unknowns whose equations are known, by name.

    Args:
        path: What follows from the gradients.
        state: The numbers so far; those that are missing for these layers are computed.
    """
    known, graph = path.knowledge, path.knowledge.graph
    result = {}
    for node in graph.nodes:
        if not node.op.is_convolution or value(node.inputs[0]) in state.known:
            continue
        bound, (o,) = bound_of(graph, node), node.outputs
        if bound.rank >= bound.unknowns:
            continue
        facts = [f for f in (gradient(o), value(o)) if (known.quality(f) or 0) > Quality.SCALED]
        for fact in facts:
            walk(derivation_tree(known, fact), state)  # as far as the numbers allow
        G = state.known.get(gradient(o))
        output = state.known.get(value(o)) or state.outputs.get(o)
        system = state.system(node, None if G is None else G.tensor, output)
        if system.has_gradient or system.has_weight:
            values = {f.tensor: y.tensor for f, y in state.known.items() if f.kind is Kind.VALUE}
            bounds = saturation_inequalities(graph, node, state.weights, values | state.decided)
            if bounds is not None:
                bounds = bounds.without_bias(state.weights.get(node.parameter("bias") or ""))
            result[node.name] = OpenLayer(system, bounds)
    return result
