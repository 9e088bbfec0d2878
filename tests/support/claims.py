"""Every claim of a leak path, computed by its replay and held against the true activation."""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

from leakaudit.attack.loss import HeadSolution, solve_head
from leakaudit.attack.replay import replay
from leakaudit.attack.state import PathBroken, State
from leakaudit.confirm.client import SharedGradient, share_gradient
from leakaudit.confirm.confirm import load_weights
from leakaudit.confirm.probes import make_probe
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Derivation, Fact, Kind, Quality
from leakaudit.frontends.aten.reader import load_bytes
from leakaudit.frontends.interface import LoadOptions
from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath, derivation_tree, find_leak_path
from leakaudit.operators import Linear
from leakaudit.operators.dense import ValueFromLoss

EPSILON = torch.finfo(torch.float64).eps
# Rounding of a forward and a backward pass, in units of EPSILON, before a system magnifies it.
ROUNDING = 1e5
# Products of condition numbers beyond this leave no digits to compare.
HOPELESS = 1e9


@dataclass
class Checked:
    """What was compared.

    Attributes:
        compared: Facts by kind and quality whose numbers are right.
        steps: Kinds of the derivations replayed on the way to them.
        broken: Why a replay broke off, without the figures.
        reached: Whether a graph input was among the exact values.
    """

    compared: Counter[tuple[Kind, Quality]] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    reached: bool = False


def graph_of(module: nn.Module, *shapes: tuple[int, ...]) -> Graph:
    """The graph of a module, exported and read back, with float64 weights."""
    examples = tuple(torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module.double().eval(), examples), buffer)
    return load_bytes(buffer.getvalue(), "exported", LoadOptions())


def check_claims(graph: Graph, seed: int, loss: str = "cross-entropy") -> Checked:
    """Replay the derivation of every fact and compare with the truth.

    Raises:
        AssertionError: A claim is contradicted: wrong numbers, or equations that contradict each
            other although their rank is full.
    """
    weights = load_weights(graph, torch.device("cpu"))
    inputs = {
        name: make_probe(graph.tensors[name].shape, seed + i).values
        for i, name in enumerate(graph.inputs)
    }
    truth = share_gradient(graph, weights, inputs, loss, torch.float64, seed)
    path = find_leak_path(graph, loss)
    head = _head(path, weights, truth)
    done = Checked()
    for fact, history in path.knowledge.history.items():
        state = State(graph, weights, truth.gradients, EPSILON, loss, head)
        steps = derivation_tree(path.knowledge, fact)
        try:
            for step in steps:
                state.known[step.conclusion] = replay(step, state)
        except PathBroken as broken:
            _assert_said_with_reason(broken)
            done.broken[type(step).kind] += 1
            continue
        quality = history[-1][1].quality
        if _compare(fact, quality, state, truth, _scale(fact, steps, truth)):
            done.compared[fact.kind, quality] += 1
            done.steps.update({type(step).kind for step in steps})
            exact = quality is Quality.EXACT and fact.kind is Kind.VALUE
            done.reached |= exact and fact.tensor in graph.inputs
    return done


def _head(
    path: LeakPath, weights: dict[str, torch.Tensor], truth: SharedGradient
) -> HeadSolution | None:
    """Of the scales that solve the loss equation of a head without bias, the true one.

    Which of them the attacker takes is decided in `reconstruct`, and tested there.
    """
    graph = path.knowledge.graph
    for history in path.knowledge.history.values():
        for _, step in history:
            if isinstance(step, ValueFromLoss):
                node = graph.node(step.node)
                assert isinstance(node.op, Linear)
                name = node.parameter("weight") or ""
                W, dW = weights[name], truth.gradients[name]
                if node.op.transposed:
                    W, dW = W.T, dW.T
                x = truth.values[node.inputs[0]].flatten()
                found = list(solve_head(path.knowledge.loss, dW, W, None))
                return min(found, key=lambda s: float((s.x - x).norm()), default=None)
    return None


def _assert_said_with_reason(broken: PathBroken) -> None:
    """A replay may end where a rank is short or a layer dead; full ranks oblige."""
    assert broken.reason
    solution = broken.solution
    if solution is not None and solution.rank is not None:
        assert "rank" in broken.reason, f"{broken}: the rank {solution.rank} is full"


def _scale(fact: Fact, steps: tuple[Derivation, ...], truth: SharedGradient) -> float:
    """The largest number that went into a fact: differences keep the rounding of their operands."""
    used = [step.conclusion for step in steps if step.conclusion.kind is fact.kind]
    sizes = [float(x.abs().max()) for f in used if (x := _true(f, truth)) is not None]
    return max(sizes, default=1.0)


def _compare(
    fact: Fact, quality: Quality, state: State, truth: SharedGradient, scale: float
) -> bool:
    """Compare one fact with the truth; False where there is nothing to compare."""
    known = state.known[fact]
    expected = _true(fact, truth)
    magnified = math.prod(s.condition or 1e4 for s in state.solutions.values())
    if expected is None or magnified > HOPELESS:
        return False
    got = known.tensor
    assert got.shape == expected.shape, str(fact)
    if quality is Quality.SCALED:
        return _is_proportional(fact, got, expected)
    mask = _mask(known, got)
    assert quality is not Quality.EXACT or bool(mask.all()), f"{fact}: not all of it is known"
    if not bool(mask.any()):
        return False
    error = float((got - expected)[mask].abs().max()) / max(scale, 1e-30)
    assert error <= ROUNDING * EPSILON * magnified, f"{fact} {quality.name}: error {error:.1e}"
    return True


def _true(fact: Fact, truth: SharedGradient) -> torch.Tensor | None:
    if fact.kind is Kind.VALUE:
        return truth.values.get(fact.tensor)
    # What flows back through one use is compared in the sum over all uses.
    return truth.activation_gradients.get(fact.tensor) if fact.kind is Kind.GRADIENT else None


def _mask(known: Known, got: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(got, dtype=torch.bool) if known.mask is None else known.mask


def _is_proportional(fact: Fact, got: torch.Tensor, expected: torch.Tensor) -> bool:
    size = float(got.norm() * expected.norm())
    if size == 0:
        return False
    cosine = float((got * expected).sum()) / size
    assert abs(abs(cosine) - 1) <= 1e-9, f"{fact}: not the truth times a factor ({cosine})"
    return True
