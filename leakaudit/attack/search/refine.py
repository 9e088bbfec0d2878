"""One round of the search: the input of every layer, by its gradient with the choices fixed.

Which element of a pooling window is the largest, and which outputs are active, is taken from the
present candidate. Given that, dl/dw of a layer is linear in the layer's input: the equations of
R-CONV, for a pattern that is partly wrong. The solution is less wrong, and so is its pattern.
"""

from __future__ import annotations

import torch
from torch import Tensor

from leakaudit.attack.search.least_squares import Budget, Linearised, Residual, quasi_newton
from leakaudit.attack.search.problem import Problem, Segment

_FIT = 40  # evaluations
_LAYER_STEPS, _LAYER_ITERATIONS = 4, 20


def refined(problem: Problem, slope: Tensor, x: Tensor, budget: Budget) -> Tensor:
    """x, after the input of every layer followed its gradient, the last layer first."""
    sources = [x]
    with torch.no_grad():
        for segment in problem.segments[:-1]:
            sources.append(problem.forward([segment], sources[-1]))
    y, mask = problem.value, problem.mask
    for segment, source in zip(problem.segments[:0:-1], sources[:0:-1], strict=True):
        a = _layer_refined(problem, segment, source, (y, slope, mask), budget)
        leaf = a.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(problem.forward([segment], leaf), leaf, slope)
        y, mask = a, torch.ones_like(a)
    first = problem.segments[0]
    if len(problem.segments) == 1:
        return _layer_refined(problem, first, x, (y, slope, mask), budget)
    scale = 1 / float(y.square().sum().clamp_min(1e-300))

    def objective(z: Tensor) -> Tensor:
        return scale * (problem.forward([first], z) - y.to(z)).square().sum()

    return quasi_newton(objective, x.float(), budget, _FIT).double()


def _layer_refined(
    problem: Problem,
    segment: Segment,
    source: Tensor,
    behind: tuple[Tensor, Tensor, Tensor],
    budget: Budget,
) -> Tensor:
    """The source of one segment, from value, slope and mask of its sink and its own gradients.

    Every step takes the activation pattern for right and goes a part of the way: equations and the
    wish to stay count alike.
    """
    residual, features = _segment_rows(problem, segment, behind)
    generator = torch.Generator().manual_seed(0)
    weight: Tensor | None = None
    a = source
    for _ in range(_LAYER_STEPS):
        here = Linearised(residual, a, budget, weight)
        if weight is None:
            signs = torch.randint(0, 2, a.shape, generator=generator).to(a) * 2 - 1
            image = here.mv(signs).square()
            weight = torch.ones_like(image)
            # One part per element for the gradients, a quarter for the features.
            for rows, share in ((slice(features), 0.25), (slice(features, None), 1.0)):
                if image[rows].numel():
                    weight[rows] = (share * a.numel() / image[rows].sum().clamp_min(1e-300)).sqrt()
            here = Linearised(residual, a, budget, weight)
        a = a + here.solve(-here.r, 1.0, _LAYER_ITERATIONS)
        if float(source.min()) >= 0:  # behind a ReLU
            a = a.clamp_min(0)
    return a


def _segment_rows(
    problem: Problem, segment: Segment, behind: tuple[Tensor, Tensor, Tensor]
) -> tuple[Residual, int]:
    """The residual of one segment in its source, and how many rows of it are values."""
    y, slope, mask = behind
    names = segment.parameters

    def residual(a: Tensor) -> Tensor:
        leaves = {n: problem.constants[n].detach().clone().requires_grad_(True) for n in names}
        out = problem.forward([segment], a, leaves)
        rows = [((out - y) * mask).flatten()]
        if names:
            got = torch.autograd.grad(out, list(leaves.values()), slope, create_graph=True)
            rows += [(g - problem.gradients[n]).flatten() for n, g in zip(names, got, strict=True)]
        return torch.cat(rows)

    return residual, y.numel()
