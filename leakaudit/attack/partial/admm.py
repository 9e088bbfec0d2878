"""Minimise a sum of simple functions of linear maps of x: alternating directions of multipliers.

The problem is  min over x of  sum of f_i(K_i x).  Each f_i is given by its proximal map; for a
condition such as "in [0, 1]" that is the nearest point which fulfils it. Every iteration solves one
well-conditioned linear system approximately, by conjugate gradients started at the last solution
(Boyd et al., Distributed Optimization and Statistical Learning via ADMM, 2011, sections 3.4, 4.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ITERATION_LIMIT = 300
# The iteration ends when x moves by less than this, relative to its norm, ...
CHANGE = 1e-5
# ... which is looked at every so often: on a GPU each look waits for the device.
LOOK_EVERY = 10
_INNER_ITERATIONS = 5
_OVER_RELAXATION = 1.7


@dataclass(frozen=True, slots=True)
class Term:
    """One f(K x).

    Attributes:
        mv: K, from x to whatever shape.
        rmv: Its adjoint.
        proximal: v -> argmin over z of f(z) + weight/2 |z - v|².
        weight: How stiffly z is coupled to K x; changes the speed, not the minimum.
    """

    mv: Callable[[Tensor], Tensor]
    rmv: Callable[[Tensor], Tensor]
    proximal: Callable[[Tensor], Tensor]
    weight: float


@dataclass(frozen=True, slots=True)
class Minimum:
    """Where the iteration ended: x, after how many iterations, and whether x had stopped moving."""

    x: Tensor
    iterations: int
    converged: bool


def minimise(terms: Sequence[Term], start: Tensor, limit: int = ITERATION_LIMIT) -> Minimum:
    """Minimise the sum of the terms.

    Args:
        terms: At least one; together their maps must leave no direction of x out, or x stays as
            it started there.
        start: Where to start, of the shape of x.
        limit: Iterations at most.
    """
    x = start.clone()
    images = [term.mv(x) for term in terms]
    split = [term.proximal(image) for term, image in zip(terms, images, strict=True)]
    duals = [torch.zeros_like(z) for z in split]
    for iteration in range(1, limit + 1):
        before = x
        targets = [z - u for z, u in zip(split, duals, strict=True)]
        x = _fit(terms, targets, x)
        for i, term in enumerate(terms):
            relaxed = _OVER_RELAXATION * term.mv(x) + (1 - _OVER_RELAXATION) * split[i]
            split[i] = term.proximal(relaxed + duals[i])
            duals[i] = duals[i] + relaxed - split[i]
        if iteration % LOOK_EVERY == 0 and float((x - before).norm()) <= CHANGE * float(x.norm()):
            return Minimum(x, iteration, True)
    return Minimum(x, limit, False)


def _fit(terms: Sequence[Term], targets: Sequence[Tensor], x: Tensor) -> Tensor:
    """Lower sum of weight |K x - target|² from x on, by a few steps of conjugate gradients."""
    r = torch.zeros_like(x)
    for term, target in zip(terms, targets, strict=True):
        r = r + term.weight * term.rmv(target - term.mv(x))
    p, square = r, r.square().sum()
    for _ in range(_INNER_ITERATIONS):
        image = torch.zeros_like(p)
        for term in terms:
            image = image + term.weight * term.rmv(term.mv(p))
        # At the minimum p is 0, and so must the step be, without asking the device.
        step = square / torch.sum(p * image).clamp_min(torch.finfo(p.dtype).tiny)
        x = x + step * p
        r = r - step * image
        previous, square = square, r.square().sum()
        p = r + square / previous.clamp_min(torch.finfo(p.dtype).tiny) * p
    return x
