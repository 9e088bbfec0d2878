"""Nonlinear least squares, matrix-free: a residual linearised by autograd, Gauss and Newton on it.

Networks of ReLU and max pooling are linear between the kinks of their activation pattern: there one
step of Gauss and Newton is exact, whatever the condition (Nocedal and Wright, Numerical
Optimization, 2006, chapter 10).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Residual = Callable[[Tensor], Tensor]


class TimeUp(Exception):
    """The time that a search may take is over."""


@dataclass(slots=True)
class Budget:
    """When to stop, and how much was done.

    Attributes:
        deadline: On the clock of `time.perf_counter`.
        evaluations: Of the network or of its linearisation.
    """

    deadline: float
    evaluations: int = 0

    def spend(self) -> None:
        """Count one evaluation.

        Raises:
            TimeUp: The deadline has passed.
        """
        self.evaluations += 1
        if time.perf_counter() > self.deadline:
            raise TimeUp


class Linearised:
    """A residual r(x) and its Jacobian J at one point, by products only."""

    def __init__(
        self, residual: Residual, x: Tensor, budget: Budget, weight: Tensor | None = None
    ) -> None:
        """Evaluate at x, whose shape and dtype all arguments of `mv` share; weigh the rows."""
        self._budget = budget
        budget.spend()
        self._x = x.detach().clone().requires_grad_(True)
        rows = residual(self._x)
        self._r = rows if weight is None else rows * weight
        self.r = self._r.detach()
        # The vector-Jacobian product is linear in u: its derivative by u is the Jacobian's product.
        self._u = torch.zeros_like(self._r, requires_grad=True)
        (self._vjp,) = torch.autograd.grad(self._r, self._x, self._u, create_graph=True)

    def mv(self, d: Tensor) -> Tensor:
        """J d."""
        self._budget.spend()
        (image,) = torch.autograd.grad(self._vjp, self._u, d, retain_graph=True)
        return image

    def rmv(self, r: Tensor) -> Tensor:
        """Jᵀ r."""
        (image,) = torch.autograd.grad(self._r, self._x, r, retain_graph=True)
        return image

    def solve(self, rhs: Tensor, damping: float, iterations: int) -> Tensor:
        """The d that minimises |J d - rhs|² + damping |d|², by conjugate gradients from 0."""
        r = self.rmv(rhs)
        d, p = torch.zeros_like(r), r
        gamma = float(r.square().sum())
        enough = 1e-26 * gamma
        for _ in range(iterations):
            if gamma <= enough:
                break
            image = self.rmv(self.mv(p)) + damping * p
            curvature = float(torch.sum(p * image))
            if curvature <= 0:
                break
            step = gamma / curvature
            d, r = d + step * p, r - step * image
            gamma, before = float(r.square().sum()), gamma
            p = r + gamma / before * p
        return d

    def mean_diagonal(self, generator: torch.Generator, probes: int = 3) -> float:
        """Mean of the diagonal of JᵀJ, estimated by random signs (Hutchinson 1990)."""
        total = 0.0
        for _ in range(probes):
            signs = torch.randint(0, 2, self._x.shape, generator=generator) * 2.0 - 1.0
            total += float(self.mv(signs.to(self._x)).square().sum())
        return total / probes / max(self._x.numel(), 1)


def gauss_newton(
    residual: Residual, x: Tensor, budget: Budget, *, steps: int, iterations: int
) -> Tensor:
    """Minimise |r(x)|² by damped steps of Gauss and Newton (Levenberg and Marquardt).

    It ends where the linearisation promises no further gain.

    Args:
        residual: Maps (B, N, ..) to (m,), float64.
        x: Where to start.
        budget: When to stop.
        steps: At most so many.
        iterations: Of conjugate gradients a step, at most.
    """
    here = Linearised(residual, x, budget)
    size = float(here.r.square().sum())
    generator = torch.Generator().manual_seed(0)
    scale = here.mean_diagonal(generator)
    damping = 1e-3
    for _ in range(steps):
        d = here.solve(-here.r, damping * scale, iterations)
        promised = float((here.r + here.mv(d)).square().sum())
        if not promised < (1 - 1e-3) * size:
            break
        there = Linearised(residual, x + d, budget)
        reached = float(there.r.square().sum())
        gain = (size - reached) / (size - promised)
        if reached < size:
            x, here, size = x + d, there, reached
        if gain > 0.75:
            damping /= 10
        elif not gain > 0.25:
            damping *= 4
    return x


def quasi_newton(
    objective: Callable[[Tensor], Tensor], x: Tensor, budget: Budget, evaluations: int
) -> Tensor:
    """Lower an objective by L-BFGS with a strong Wolfe line search; the best x that was seen."""
    z = x.detach().clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [z],
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=50,
        line_search_fn="strong_wolfe",
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )
    best, lowest = x.detach(), float("inf")

    def closure() -> Tensor:
        nonlocal best, lowest
        budget.spend()
        value = objective(z)
        (z.grad,) = torch.autograd.grad(value, z)
        if float(value.detach()) < lowest:
            best, lowest = z.detach().clone(), float(value.detach())
        return value

    step: Callable[[Callable[[], Tensor]], Tensor] = optimiser.step
    step(closure)
    return best
