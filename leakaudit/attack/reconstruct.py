"""R-CONV: compute the input back from one shared gradient, along the leak path.

`reconstruct` is the attacker. What it may know is its argument list: graph, weights, gradients and
loss. It never receives the input, an activation or the label, and nothing here can reach the room
that holds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leakaudit.attack.loss import LOSSES, HeadSolution
from leakaudit.attack.partial.open_layer import OpenLayer, open_layers
from leakaudit.attack.replay import walk
from leakaudit.attack.replay.dense import head_solutions
from leakaudit.attack.simulate import simulate_gradients
from leakaudit.attack.state import PathBroken, State
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Derivation, Kind, Quality, gradient, value
from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath, derivation_tree, find_leak_path
from leakaudit.operators.dense import ValueFromLoss
from leakaudit.solvers.interface import DEFAULT_MEMORY, Solution


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """What the attacker computed.

    Attributes:
        target: The tensor that the path leads to, None where no path exists.
        values: Recovered values by tensor name.
        solutions: Per convolution what its solver found.
        broken: Why the replay broke off, None where it went through.
        mismatch: Relative difference between the observed gradients and those that the recovered
            input gives (for paths that reach the input), else None.
        attempts: Everything that was tried, in words.
        open_layers: Convolutions whose equations are known and leave their input open.
        slopes: Recovered dl/dt by tensor name.
    """

    target: str | None
    values: Mapping[str, Known]
    solutions: Mapping[str, Solution]
    broken: PathBroken | None
    mismatch: float | None
    attempts: tuple[str, ...]
    open_layers: Mapping[str, OpenLayer] = field(default_factory=dict)
    slopes: Mapping[str, Known] = field(default_factory=dict)


def reconstruct(
    graph: Graph,
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    loss: str,
    memory: int = DEFAULT_MEMORY,
) -> Reconstruction:
    """Compute the client's input from one shared gradient, as far as the leak path leads.

    Everything runs in float64 on the device of the weights; the arguments are left as they are.

    Args:
        graph: The architecture, with the shapes of one step of training.
        weights: Every parameter of the graph by name, of the graph's shapes, any floating type.
        gradients: dl/dp of the trainable parameters by name, of the parameters' shapes, in the
            type the client sent (float64, float32, float16 or bfloat16): its precision decides
            what counts as rounding. The loss is the mean over the batch.
        loss: `cross-entropy`, `bce` (with logits) or `mse`.
        memory: Bytes a solver may take for matrices.

    Returns:
        The recovered values by tensor name, float64, of the graph's shapes, with what is known of
        their error. A path that does not hold for these numbers is no error: `broken` says where it
        broke off and why. Where a bias-free head leaves several completions, the one that fits the
        observed gradients best, and among equal ones the one nearest to [0, 1].

    Raises:
        ValueError: The loss is none of the three, a weight is missing, or a weight or a gradient
            has another shape than the graph states.
        KeyError: A gradient that the path needs is missing.

    Example:
        >>> import leakaudit, torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> x = torch.rand(1, 3, 2, 2)  # what the client keeps to itself
        >>> torch.nn.functional.cross_entropy(model(x), torch.tensor([2])).backward()
        >>> graph = leakaudit.load(model, inputs=x)
        >>> gradients = {name: p.grad for name, p in model.named_parameters()}
        >>> found = leakaudit.reconstruct(graph, model.state_dict(), gradients, "cross-entropy")
        >>> bool(torch.allclose(found.values[found.target].tensor.float(), x, atol=1e-4))
        True
    """
    _check(graph, weights, gradients, loss)
    path = find_leak_path(graph, loss)
    precision = max(
        (torch.finfo(g.dtype).eps for g in gradients.values() if g.is_floating_point()),
        default=torch.finfo(torch.float64).eps,
    )
    exact = {name: w.double() if w.is_floating_point() else w for name, w in weights.items()}
    observed = {name: g.double() for name, g in gradients.items()}

    overflown = overflow(gradients)
    if overflown:
        end = PathBroken("the shared gradient", overflown)
        target = path.target.tensor if path.target else None
        return Reconstruction(target, {}, {}, end, None, (str(end),))

    side_paths = _side_paths(path)
    start = State(graph, exact, observed, precision, loss, memory=memory)
    head = next((step for step in path.steps if isinstance(step, ValueFromLoss)), None)
    heads: Sequence[HeadSolution | None] = (head_solutions(head, start) if head else []) or [None]
    tried: list[tuple[tuple[float, float], Reconstruction, State]] = []
    for number, completion in enumerate(heads, start=1):
        state = State(graph, exact, observed, precision, loss, completion, memory)
        broken = walk(path.steps, state)
        for steps in side_paths:
            # What breaks off beside the path takes nothing away from it.
            walk(steps, state)
        name = f"scale {number} of {len(heads)}"
        tried.append((*_judge(path, state, broken, name), state))
    _, best, state = min(tried, key=lambda entry: entry[0])
    return replace(
        best,
        attempts=tuple(attempt for _, result, _ in tried for attempt in result.attempts),
        open_layers=open_layers(path, state),
    )


def _check(
    graph: Graph, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], loss: str
) -> None:
    """Refuse arguments that do not belong together, before they end in a wrong number."""
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r}: it must be one of {', '.join(LOSSES)}")
    missing = [name for name in graph.parameters if name not in weights]
    if missing:
        raise ValueError(f"no weight {missing[0]!r}, and {len(missing) - 1} more are missing")
    for what, given in (("weight", weights), ("gradient", gradients)):
        for name, tensor in given.items():
            stated = graph.parameters[name].shape if name in graph.parameters else None
            if tuple(tensor.shape) != stated:
                got = f"{what} {name!r} has shape {tuple(tensor.shape)}"
                raise ValueError(f"{got}, the graph states {stated or 'no such parameter'}")


def overflow(gradients: Mapping[str, Tensor]) -> str:
    """Which gradients are not finite, in words: NaN, or beyond their type; empty where all are."""
    said = []
    for found, singular, verb in (
        (torch.isnan, "are no numbers (NaN)", "are"),
        (torch.isinf, "overflow", "do"),
    ):
        bad = {name: int(found(g).sum()) for name, g in gradients.items()}
        bad = {name: count for name, count in bad.items() if count}
        if bad:
            name, count = next(iter(bad.items()))
            kind = str(gradients[name].dtype).removeprefix("torch.")
            what = f"{singular} {kind}" if found is torch.isinf else singular
            more = f", and so {verb} {len(bad) - 1} more" if len(bad) > 1 else ""
            said.append(f"{count} of {gradients[name].numel()} numbers of {name} {what}{more}")
    return "; ".join(said)


def _side_paths(path: LeakPath) -> list[tuple[Derivation, ...]]:
    """The derivations of layer inputs that are known too, but not on the way to the target."""
    known = path.knowledge
    on_the_way = {step.conclusion for step in path.steps}
    facts = dict.fromkeys(
        value(node.inputs[0])
        for node in known.graph.nodes
        if node.op.is_layer and (known.quality(value(node.inputs[0])) or 0) > Quality.SCALED
    )
    end = path.target.tensor if path.target else None
    if end is not None and end not in known.graph.inputs and known.exact(gradient(end)):
        facts[gradient(end)] = None  # a search from the path's end on starts from both
    return [derivation_tree(known, fact) for fact in facts if fact not in on_the_way]


def _judge(
    path: LeakPath, state: State, broken: PathBroken | None, name: str
) -> tuple[tuple[float, float], Reconstruction]:
    """A candidate with its sort key: misfit of the gradients (in decades), distance from [0, 1]."""
    values = {f.tensor: known for f, known in state.known.items() if f.kind is Kind.VALUE}
    slopes = {f.tensor: known for f, known in state.known.items() if f.kind is Kind.GRADIENT}
    mismatch = None
    misfit, outside = float("inf"), float("inf")
    if broken is None and path.report.reaches_input and path.target is not None:
        x = values[path.target.tensor].tensor
        mismatch = simulate_gradients(state, {path.target.tensor: x})
        # Twin data fit equally well, apart from rounding: compare in coarse steps.
        if mismatch is not None:
            misfit = 0.0 if mismatch < 1e3 * state.precision else mismatch
        outside = float((x - x.clamp(0, 1)).norm())
    text = f"{name}: {broken or 'walked to the end'}"
    if mismatch is not None:
        text += f", gradients differ by {mismatch:.1e}, distance from [0, 1] {outside:.1e}"
    return (misfit, outside), Reconstruction(
        target=path.target.tensor if path.target else None,
        values=values,
        solutions=state.solutions,
        broken=broken,
        mismatch=mismatch,
        attempts=(*state.attempts, text),
        slopes=slopes,
    )
