"""What the attacker holds while a leak path is replayed, and how a replay can break off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from leakaudit.attack.loss import HeadSolution
from leakaudit.equations.known import Known
from leakaudit.equations.system import LayerSystem, layer_system
from leakaudit.facts.fact import Fact
from leakaudit.graph import Graph, Node
from leakaudit.solvers.interface import DEFAULT_MEMORY, Solution


class PathBroken(Exception):
    """A step whose claim, true in general, does not hold for these numbers.

    Attributes:
        node: Where.
        reason: Why, with the figures.
        solution: What the solver found there, if it came to solving.
    """

    def __init__(self, node: str, reason: str, solution: Solution | None = None) -> None:
        super().__init__(f"{node}: {reason}")
        self.node = node
        self.reason = reason
        self.solution = solution


@dataclass(slots=True)
class State:
    """Everything the attacker knows. There is no way from here to the client's input.

    Attributes:
        graph: The architecture.
        weights: Parameters by name, float64.
        gradients: Observed parameter gradients by name, float64.
        precision: Machine epsilon of the type the gradients came in.
        loss: One of the losses of the threat model.
        head: The chosen completion of a bias-free head, where the path has one.
        memory: Bytes a solver may take for matrices.
        known: Facts replayed so far.
        solutions: Per convolution what its solver found.
        decided: Per activation its output, its activation pattern decided.
        outputs: Per convolution's output tensor what such a decision shows of it.
        attempts: What was tried to decide them, in words.
    """

    graph: Graph
    weights: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    precision: float
    loss: str
    head: HeadSolution | None = None
    memory: int = DEFAULT_MEMORY
    known: dict[Fact, Known] = field(default_factory=dict)
    solutions: dict[str, Solution] = field(default_factory=dict)
    decided: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Known] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)

    def shaped(self, tensor: str, numbers: Tensor, error: float = 0.0) -> Known:
        """Numbers in the shape that a tensor of the graph has."""
        return Known(numbers.reshape(self.graph.tensors[tensor].shape), error=error)

    def rounding(self, x: Tensor) -> float:
        """The largest absolute error to expect in x, and in differences that start from it.

        Every step before rounded a little: an estimate from above. A product with 0 is 0 exactly,
        but a difference of two recovered numbers is not: where an output of ReLU is computed so,
        what is off comes back as this much.
        """
        return 100 * self.precision * float(x.abs().max()) if x.numel() else 0.0

    def system(self, node: Node, G: Tensor | None, o: Known | None) -> LayerSystem:
        """The equations of a convolution: gradient constraints where dl/do (B, F, O..) is given,
        weight constraints where its output is."""
        gradients = {} if G is None else self.gradients
        return layer_system(
            self.graph, node, self.weights, gradients, G=G, o=o, precision=self.precision
        )
