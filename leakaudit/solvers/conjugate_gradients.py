"""Preconditioned conjugate gradients on the normal equations, with residuals taken afresh.

The recurrences of conjugate gradients on SᵀS lose digits. So a run ends after some digits; the
misfit is then computed anew from the equations themselves, and a further run corrects what it shows
(iterative refinement; Björck, Numerical Methods for Least Squares Problems, 1996, sections 2.9 and
7.4). The result is as accurate as the equations allow, and no vector as long as the right-hand side
is ever stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from leakaudit.solvers.interface import Solution
from leakaudit.solvers.normal_operator import NormalOperator

# Approximates (SᵀS)⁻¹ for a stack of vectors (m, B, N, H..), one by one.
Preconditioner = Callable[[Tensor], Tensor]
# An iteration: it yields a vector (B, N, H..), is sent that vector preconditioned, and returns T.
T = TypeVar("T")
Process = Generator[Tensor, Tensor, T]

ITERATION_LIMIT = 3000
# A run ends when the gradient of the misfit, as the preconditioner measures it, has shrunk to
# this, unless its caller asks for something else.
RUN_TOLERANCE = 1e-8
# The whole ends when the residual, relative to the right-hand side, is rounding, or the gradient,
# relative to the operator's norm and the residual, is (Paige and Saunders, LSQR, 1982).
RESIDUAL_TOLERANCE = 5e-15
GRADIENT_TOLERANCE = 1e-12
# A run that shrinks the gradient by less has met rounding.
PROGRESS = 0.2
# Iterations of a solver that forms no exact factor.
SOLVER_LIMIT = 1500
# A direction that the equations do not fix keeps its part of the random point: a standard normal
# number, however many unknowns there are. Below this in total, one such direction is missed with a
# probability of 0.8 %, and d of them with the d-th power of that.
NULL_PART = 1e-2
# How far each run from the random point shrinks the gradient of the misfit: far enough wherever the
# condition number is below 1e4, and a further run follows where it is not.
ROUGH = 1e-6
_KEPT = 3  # search directions kept at either end for estimates of the singular values
_STEPS = 4  # of Lanczos


@dataclass(frozen=True, slots=True)
class Iterate:
    """Where the iteration ended.

    Attributes:
        x: The solution.
        iterations: Done, over all runs.
        residual: ||rhs - S x|| / ||rhs||.
        converged: Whether a stopping test was met, or rounding.
        spectrum: What was seen of the singular values of S.
    """

    x: Tensor
    iterations: int
    residual: float
    converged: bool
    spectrum: Spectrum

    def solution(
        self, solver: str, reason: str, rank: int | None, extremes: tuple[float, float] | None
    ) -> Solution:
        """The same as the solution of a solver, which found these extreme singular values."""
        x, left, done = self.x, self.residual, self.iterations
        condition = extremes[0] / extremes[1] if extremes else None
        return Solution(x, solver, reason, x.numel(), rank, condition, left, done, extremes)


class Spectrum:
    """Extreme singular values of S, estimated from inside its spectrum (Rayleigh and Ritz).

    From the first search directions of a run, which lean to the largest, and the last ones, which
    lean to the smallest.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._first: list[tuple[Tensor, Tensor]] = []
        self._last: deque[tuple[Tensor, Tensor]] = deque(maxlen=_KEPT)
        self._range: tuple[Tensor, Tensor] | None = None  # of the Rayleigh quotients of all

    def see(self, direction: Tensor, image: Tensor) -> None:
        """Take in a direction p and SᵀS p."""
        norm = direction.norm()
        # Between two stopping tests a run may have arrived: its direction is then 0, and says
        # nothing. The test is left to the device.
        moved = norm > 0
        norm = torch.where(moved, norm, torch.ones_like(norm))
        kept = self._first if len(self._first) < _KEPT else self._last
        kept.append((direction / norm, image / norm))
        quotient = torch.sum(direction * image) / norm**2
        low, high = self._range or (quotient, quotient)
        quotient = torch.where(moved, quotient, low)
        self._range = torch.minimum(low, quotient), torch.maximum(high, quotient)

    def extremes(self) -> tuple[float, float]:
        """Largest and smallest singular value; the true ones lie outside, or are equal."""
        if self._range is None:
            return 0.0, 0.0
        values, _ = ritz([*self._first, *self._last])
        largest, smallest = (max(float(values[i]), 0.0) ** 0.5 for i in (-1, 0))
        low, high = (max(float(quotient), 0.0) ** 0.5 for quotient in self._range)
        return max(largest, high), min(smallest, low)


def ritz(seen: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a symmetric map H on the span of some vectors.

    Args:
        seen: m vectors v of unit length, given with H v.

    Returns:
        The Ritz values (r,), rising, and the shares (m, r) that the v have in their vectors.
    """
    gram = _products([v for v, _ in seen], [v for v, _ in seen])
    projected = _products([v for v, _ in seen], [image for _, image in seen])
    # An orthonormal basis of the span; vectors nearly dependent on others add only rounding.
    values, vectors = torch.linalg.eigh(gram)
    keep = values > 1e-6 * values[-1]
    basis = vectors[:, keep] / values[keep].sqrt()
    found, shares = torch.linalg.eigh(basis.T @ ((projected + projected.T) / 2) @ basis)
    return found, basis @ shares


def _products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner products of all pairs, without a copy of the vectors, on the CPU."""
    return torch.stack([torch.stack([torch.sum(a * b) for b in right]) for a in left]).cpu()


def drive(precondition: Preconditioner | None, *processes: Process[Any]) -> list[Any]:
    """Run iterations side by side, until the last one ends.

    A factor that no longer fits into the processor's cache is read from memory for every
    application: for several vectors together it takes little more time than for one.

    Args:
        precondition: None leaves every vector as it is.
        processes: None of them uses what another one changes.

    Returns:
        What each process returned.
    """
    results: list[Any] = [None] * len(processes)
    asked: dict[int, Tensor] = {}

    def advance(number: int, answer: Tensor | None) -> None:
        process = processes[number]
        try:
            asked[number] = next(process) if answer is None else process.send(answer)
        except StopIteration as end:
            results[number] = end.value

    for number in range(len(processes)):
        advance(number, None)
    while asked:
        numbers, vectors = zip(*asked.items(), strict=True)
        asked = {}
        # A single vector is not copied.
        together = vectors[0][None] if len(vectors) == 1 else torch.stack(vectors)
        answers = precondition(together) if precondition else together
        for number, answer in zip(numbers, answers, strict=True):
            advance(number, answer)
    return results


def extremes(operator: NormalOperator) -> Process[tuple[float, float]]:
    """Extreme singular values of S, by a few steps of Lanczos with SᵀS and with its inverse.

    Args:
        operator: The equations. The preconditioner has to be a good approximation of (SᵀS)⁻¹.

    Returns:
        Largest and smallest, both from inside the spectrum.
    """
    start = operator.random_point()
    v = u = start / start.norm()
    inverted, applied = [], []
    for _ in range(_STEPS):
        image = yield v
        inverted.append((v, image))
        v = image / image.norm()
    for _ in range(_STEPS - 1):
        applied.append((u, operator.apply(u)))
        u = applied[-1][1] / applied[-1][1].norm()
    largest = ritz(applied)[0][-1]
    # The direction that the preconditioner magnifies most, preconditioned once more: a small part
    # of others would count with their large singular values. What S does to it, S itself says.
    shares = ritz(inverted)[1][:, -1].tolist()
    v = torch.stack([a * image for a, (_, image) in zip(shares, inverted, strict=True)]).sum(dim=0)
    smallest = torch.sum(v * operator.apply(v)) / v.square().sum()
    return float(largest.clamp_min(0).sqrt()), float(smallest.clamp_min(0).sqrt())


def least_squares(
    operator: NormalOperator,
    precondition: Preconditioner | None = None,
    limit: int = ITERATION_LIMIT,
) -> Iterate:
    """`minimise`, by itself."""
    (end,) = drive(precondition, minimise(operator, limit))
    iterate: Iterate = end
    return iterate


def minimise(
    operator: NormalOperator, limit: int = ITERATION_LIMIT, enough: float = 0.0
) -> Process[Iterate]:
    """Minimise ||rhs - S x|| from x = 0.

    Without a preconditioner the solution is the one of least norm where several are best. A
    preconditioner has to be symmetric positive semidefinite.

    Args:
        operator: The equations.
        limit: Iterations at most.
        enough: Share of Sᵀ rhs that may be left of Sᵀ(rhs - S x), besides what the stopping tests
            ask for. Only a preconditioner near (SᵀS)⁻¹ keeps the error of x as small.
    """
    spectrum = Spectrum()
    x = torch.zeros(operator.shape, dtype=torch.float64, device=operator.device)
    misfit = operator.misfit(x)
    slope = start = float(misfit.gradient.norm())
    if slope == 0:
        residual = misfit.residual / misfit.rhs if misfit.rhs else 0.0
        return Iterate(x, 0, residual, True, spectrum)
    iterations = 0
    converged = False
    while not converged and iterations < limit:
        # No further than asked for; where the equations agree, no further than to rounding.
        left = RESIDUAL_TOLERANCE * misfit.rhs / misfit.residual if misfit.residual else 1.0
        tolerance = max(RUN_TOLERANCE, left / 4, enough * start / slope / 4)
        step, done = yield from run(
            operator, misfit.gradient, limit - iterations, spectrum, tolerance
        )
        iterations += done
        tried = operator.misfit(x + step)
        after = float(tried.gradient.norm())
        # No progress, or no number: rounding has been met, what was there is no worse.
        stuck = not after < PROGRESS * slope
        if after < slope:
            x, misfit, slope = x + step, tried, after
        largest, _ = spectrum.extremes()
        converged = (
            misfit.residual <= RESIDUAL_TOLERANCE * misfit.rhs
            or slope <= GRADIENT_TOLERANCE * largest * misfit.residual
            or slope <= enough * start
            or (stuck and slope <= RUN_TOLERANCE * start)
        )
        if stuck:
            break
    return Iterate(x, iterations, misfit.residual / misfit.rhs, converged, spectrum)


def _interval(device: torch.device) -> int:
    """Iterations from one stopping test to the next."""
    return 1 if device.type == "cpu" else 8


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b is not positive."""
    return torch.where(b > 0, a / b, torch.zeros_like(a))


def run(
    operator: NormalOperator,
    rhs: Tensor,
    limit: int,
    spectrum: Spectrum | None = None,
    tolerance: float = RUN_TOLERANCE,
) -> Process[tuple[Tensor, int]]:
    """Solve SᵀS step = rhs to a few digits, from step = 0.

    On a GPU the stopping test is evaluated every few iterations only, so that the host does not
    wait for every one.

    Args:
        operator: The equations.
        rhs: Of the layer's input shape.
        limit: Iterations at most.
        spectrum: Is shown every direction; it keeps copies of some.
        tolerance: How far the residual, as the preconditioner measures it, shall shrink.

    Returns:
        The step, shaped like rhs, and the iterations done.
    """
    every = _interval(rhs.device)
    step = torch.zeros_like(rhs)
    r = rhs
    z = yield r
    p = z
    gamma = torch.sum(r * z)
    target = tolerance**2 * float(gamma)
    done = 0
    last = False
    while done < limit:
        q = operator.apply(p)
        curvature = torch.sum(p * q)
        # A run that has arrived between two tests stays: from rounding alone it would drift.
        alpha = torch.where(gamma > target, _ratio(gamma, curvature), torch.zeros_like(gamma))
        done += 1
        if done % every == 0 and not float(curvature) > 0:
            break
        if spectrum is not None:
            spectrum.see(p, q)
        step = step + alpha * p
        if last:
            break
        r = r - alpha * q
        z = yield r
        gamma, previous = torch.sum(r * z), gamma
        beta = _ratio(gamma, previous)
        p = z + beta * p
        if done % every == 0:
            share, size = torch.stack([beta, gamma]).tolist()
            if not size > target:
                break
            # The step to come will do: what follows it need not be preconditioned any more.
            last = share < 1 and share * size <= target
    return step, done


def no_null_space(operator: NormalOperator, spectrum: Spectrum | None) -> Process[bool]:
    """Whether the homogeneous equations drive a random point to 0.

    Conjugate gradients alone cannot tell whether a solution is the only one. A run that starts from
    a random point, for right-hand side 0, can: what remains of the point lies in the null space; if
    nothing remains, there is none (almost surely, and down to the singular values that the run
    resolves).

    Args:
        operator: The equations. Unknowns that occur in none of them are left out.
        spectrum: Is shown what is left of the point: it leans to the smallest singular values.
    """
    point = operator.random_point()
    for _ in range(3):
        rhs = -operator.apply(point)
        step, _ = yield from run(operator, rhs, SOLVER_LIMIT, tolerance=ROUGH)
        point = point + step
        left = float(point.norm())
        if left > 0 and spectrum is not None:
            spectrum.see(point, operator.apply(point))
        if left < NULL_PART:
            return True
    return False
