"""Search from known facts: what input gives exactly these features, and these gradients?

Where the linear leak path stops at exactly known features, as in front of a dense head behind max
poolings, nonlinear least squares may still give the input. What is found counts only where it
reproduces the features to their own precision and where nothing else near it does. A search that
fails says nothing: it is no reason to call a network safe.

How: L-BFGS on the features, with a little total variation, finds the rough picture. Max pooling
has many local minima there: the features do not tell which element of a window they come from. The
gradients do. With that choice fixed, dl/dw of the layer behind a pooling is linear in the layer's
input, and overdetermined; so each round refines the input of every layer by its gradient, moves
the choice along, and fits the network's input to what was refined. Gauss and Newton give the
last digits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakaudit.attack.reconstruct import Reconstruction
from leakaudit.attack.search.least_squares import (
    Budget,
    Linearised,
    Residual,
    TimeUp,
    gauss_newton,
    quasi_newton,
)
from leakaudit.attack.search.problem import Problem, pose
from leakaudit.attack.search.refine import refined
from leakaudit.equations.known import Known
from leakaudit.facts.fact import Quality, value
from leakaudit.graph import Graph
from leakaudit.leakpath.path import LeakPath

Range = tuple[float, float]

STARTS = 2
ROUNDS = 10
# Features carry the rounding of the gradients that they were read off, and of the steps before.
ROUNDING_STEPS = 100
# However coarse the gradients are: what fits worse than this is a local minimum.
WORST_FIT = 1e-4
# The share of the observed gradients by which those of the found input may differ: an element that
# ties with another one may fall to either side.
GRADIENT_MISFIT = 1e-2
# The relative error that a found input may be expected to have: 40 dB.
UNCERTAINTY = 1e-2
# From here on Gauss and Newton do better than another round.
_NEAR = 3e-3
_SMOOTHNESS = 1e-4
_ROUGH, _SETTLE = 60, 30  # evaluations
_LAST_STEPS, _LAST_ITERATIONS = 25, 60
_CHECK_ITERATIONS = 400


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to.

    Attributes:
        target: The graph input that was searched for.
        features: The known tensor that it had to reproduce.
        x: The best candidate, float64, of the input's shape.
        recovered: Whether it fits to the features' precision, and is the only one near it.
        reason: Why, in words.
        residual: Of the features, relative to their norm.
        tolerance: What the residual may be.
        uncertainty: Relative error of x to expect from the features' precision and from directions
            that they leave open; None where it was not asked for.
        misfit: Relative difference of the gradients below the features; None without a slope.
        evaluations: Of the network and its linearisation.
        seconds: Wall time.
        attempts: Each start with its figures.
    """

    target: str
    features: str
    x: Tensor
    recovered: bool
    reason: str
    residual: float
    tolerance: float
    uncertainty: float | None
    misfit: float | None
    evaluations: int
    seconds: float
    attempts: tuple[str, ...]


def exactly_known(path: LeakPath, values: Mapping[str, Known]) -> dict[str, Known]:
    """Of the values that a replay recovered, those known outright, not up to one factor."""
    quality = path.knowledge.quality
    return {t: k for t, k in values.items() if (quality(value(t)) or 0) > Quality.SCALED}


def search_after(
    path: LeakPath,
    weights: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    result: Reconstruction,
    *,
    seconds: float,
    seed: int = 0,
    value_range: Range | None = None,
) -> SearchResult:
    """Search for the input with what a replay of the leak path recovered.

    Raises:
        NotTried: It cannot succeed, or is too large.
    """
    known = exactly_known(path, result.values)
    return search(
        path.knowledge.graph,
        weights,
        known,
        slopes=result.slopes,
        gradients=gradients,
        seconds=seconds,
        seed=seed,
        value_range=value_range,
    )


def search(
    graph: Graph,
    weights: Mapping[str, Tensor],
    known: Mapping[str, Known],
    *,
    slopes: Mapping[str, Known] | None = None,
    gradients: Mapping[str, Tensor] | None = None,
    seconds: float,
    seed: int = 0,
    value_range: Range | None = None,
) -> SearchResult:
    """Search for the input of a network whose features are known.

    Args:
        graph: The network.
        weights: Every parameter by name.
        known: Exactly known values by tensor name; the one nearest to the input is used.
        slopes: Exactly known dl/dt by tensor name, where there are any.
        gradients: dl/dp by parameter name in the type in which they were sent, which states their
            precision; without any, float64 is assumed and the features alone are used.
        seconds: It ends within one evaluation of the network after these.
        seed: Of the starts after the first. With one thread, equal arguments give equal results,
            unless the time runs out.
        value_range: Between which ends the input's values lie, where that is known.

    Raises:
        NotTried: It cannot succeed, or is too large.
    """
    started = time.perf_counter()
    budget = Budget(started + seconds)
    sent = gradients or {}
    epsilon = max(
        (torch.finfo(g.dtype).eps for g in sent.values() if g.is_floating_point()),
        default=torch.finfo(torch.float64).eps,
    )
    exact = {name: w.double() if w.is_floating_point() else w for name, w in weights.items()}
    problem = pose(graph, exact, known, slopes or {}, sent)
    tolerance = min(ROUNDING_STEPS * epsilon, WORST_FIT)
    judged: list[SearchResult] = []
    for number in range(STARTS):
        best = _Best(problem, _start(problem, number, seed, value_range))
        try:
            _approach(problem, best, budget)
            judged.append(_judge(problem, best, tolerance, budget))
        except TimeUp:
            judged.append(_result(problem, best, tolerance, f"the time of {seconds:g} s was over"))
        if judged[-1].recovered or time.perf_counter() > budget.deadline:
            break
    return replace(
        min(judged, key=lambda result: (not result.recovered, result.residual)),
        evaluations=budget.evaluations,
        seconds=time.perf_counter() - started,
        attempts=tuple(
            f"start {number}: {result.reason}, residual {result.residual:.1e}"
            for number, result in enumerate(judged, start=1)
        ),
    )


class _Best:
    """The candidate with the smallest residual so far."""

    def __init__(self, problem: Problem, x: Tensor) -> None:
        self._problem = problem
        self.x = x
        self.residual = float("inf")

    def offer(self, x: Tensor) -> None:
        with torch.no_grad():
            residual = self._problem.residual(self._problem.forward(self._problem.segments, x))
        if residual < self.residual:
            self.x, self.residual = x, residual


def _start(problem: Problem, number: int, seed: int, value_range: Range | None) -> Tensor:
    """A flat input first, then random ones."""
    low, high = value_range or (0.0, 1.0)
    generator = torch.Generator().manual_seed(seed + number)
    drawn = torch.rand(problem.shape, generator=generator, dtype=torch.float64)
    return (low + (high - low) * (drawn if number else 0.5 + 0 * drawn)).to(problem.value.device)


def _approach(problem: Problem, best: _Best, budget: Budget) -> None:
    """From a start to where the last digits are."""
    x = quasi_newton(_rough(problem, _SMOOTHNESS), best.x.float(), budget, _ROUGH).double()
    best.offer(x)
    for _ in range(ROUNDS if problem.slope is not None else 1):
        if best.residual < _NEAR:
            break
        if problem.slope is not None:
            x = refined(problem, problem.slope, x, budget)
        x = quasi_newton(_rough(problem, 0.0), x.float(), budget, _SETTLE).double()
        best.offer(x)
    few = int(problem.mask.sum()) < x.numel()
    for gradients in (False, True) if few and problem.gradients else (False,):
        residual = _rows(problem, gradients)
        x = gauss_newton(residual, best.x, budget, steps=_LAST_STEPS, iterations=_LAST_ITERATIONS)
        best.offer(x)


def _rough(problem: Problem, smoothness: float) -> Residual:
    """The squared relative residual of the features, plus total variation."""
    scale = 1 / float((problem.value * problem.mask).square().sum())

    def objective(x: Tensor) -> Tensor:
        y = problem.forward(problem.segments, x)
        off = (y - problem.value.to(y)) * problem.mask.to(y)
        fit = scale * off.square().sum()
        return fit + smoothness * _variation(x) if smoothness else fit

    return objective


def _variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbours along every spatial axis, rounded off at 0."""
    total = x.new_zeros(())
    for axis in range(2, x.dim()):
        if x.shape[axis] > 1:
            total = total + (x.diff(dim=axis).square() + 1e-4).sqrt().mean()
    return total


def _rows(problem: Problem, gradients: bool) -> Residual:
    """The relative residual of the features, and of every gradient below them."""
    names = list(problem.gradients) if gradients else []
    size = (problem.value * problem.mask).norm().clamp_min(1e-300)

    def residual(x: Tensor) -> Tensor:
        leaves = {n: problem.constants[n].detach().clone().requires_grad_(True) for n in names}
        y = problem.forward(problem.segments, x, leaves)
        rows = [((y - problem.value) * problem.mask / size).flatten()]
        if names:
            got = torch.autograd.grad(y, list(leaves.values()), problem.slope, create_graph=True)
            for name, g in zip(names, got, strict=True):
                observed = problem.gradients[name]
                rows.append(((g - observed) / observed.norm().clamp_min(1e-300)).flatten())
        return torch.cat(rows)

    return residual


def _judge(problem: Problem, best: _Best, tolerance: float, budget: Budget) -> SearchResult:
    """Whether the candidate fits, and is the only one near it."""
    if not best.residual <= tolerance:
        return _result(problem, best, tolerance, "a local minimum: the features do not come out")
    misfit = _misfit(problem, best.x)
    uncertainty = _uncertainty(problem, best, budget)
    found = replace(_result(problem, best, tolerance, ""), misfit=misfit, uncertainty=uncertainty)
    if misfit is not None and misfit > GRADIENT_MISFIT:
        return replace(found, reason="it gives the features, but other gradients")
    if uncertainty > min(UNCERTAINTY, 0.1 * best.x.numel() ** -0.5):
        return replace(found, reason="it gives the features, as other inputs near it do")
    return replace(found, recovered=True, reason="recovered by search")


def _result(problem: Problem, best: _Best, tolerance: float, reason: str) -> SearchResult:
    return SearchResult(
        problem.target,
        problem.features,
        best.x,
        False,
        reason,
        best.residual,
        tolerance,
        None,
        None,
        0,
        0.0,
        (),
    )


def _misfit(problem: Problem, x: Tensor) -> float | None:
    if not problem.gradients:
        return None
    names = list(problem.gradients)
    leaves = {n: problem.constants[n].detach().clone().requires_grad_(True) for n in names}
    y = problem.forward(problem.segments, x, leaves)
    got = torch.autograd.grad(y, list(leaves.values()), problem.slope)
    observed = torch.cat([problem.gradients[n].flatten() for n in names])
    off = torch.cat([g.flatten() for g in got]) - observed
    return float(off.norm() / observed.norm().clamp_min(1e-300))


def _uncertainty(problem: Problem, best: _Best, budget: Budget) -> float:
    """How far a known move of the input, seen through rounded features, comes back off itself.

    What the features leave open is missing from the move that comes back; what they see badly is
    drowned in the rounding.
    """
    few = int(problem.mask.sum()) < best.x.numel()
    here = Linearised(_rows(problem, few), best.x, budget)
    worst = 0.0
    for number in range(2):
        generator = torch.Generator().manual_seed(number)
        move, noise = (
            torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
            for like in (best.x, here.r)
        )
        move = move * (best.x.norm().clamp_min(1e-300) / move.norm())
        seen = here.mv(move) + noise * (best.residual / noise.norm())
        off = here.solve(seen, 0.0, _CHECK_ITERATIONS) - move
        worst = max(worst, float(off.norm() / move.norm()))
    return worst
