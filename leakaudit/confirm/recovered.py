"""What an attack recovers, each kind with its own judge. Nothing beside them assumes a picture.

A kind knows what it means that it came back: a tensor is compared number by number, a tensor up to
one factor after that factor was fitted. Another kind is another class with a `judge` of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leakaudit.confirm.client import GRADIENT_DTYPES
from leakaudit.confirm.metrics import mse, psnr, ssim
from leakaudit.confirm.probes import is_image_shape
from leakaudit.findings import Confirmation, Scope, Status
from leakaudit.solvers.interface import Solution

# A reconstruction counts as one when its mean squared error is at most this share of the mean
# square of what was to be recovered: 40 dB below it.
SUCCESS = 1e-4


@dataclass(frozen=True, slots=True)
class Judgement:
    """How what was recovered compares with the truth. Figures are None where they do not apply.

    Attributes:
        status: Confirmed, not reproduced or inconclusive.
        reason: Why, for a reader.
        solver: What it was computed with.
        unknowns: How many numbers were to be recovered.
        solution: Of the system that decides, None where none was solved.
        mse, psnr, ssim: Distances from the truth, as `Confirmation` has them.
        attempts: What was tried to get closer, a line each.
        picture: What came back where it can be looked at, (N, H, W).
    """

    status: Status
    reason: str
    solver: str
    unknowns: int
    solution: Solution | None = None
    mse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    attempts: tuple[str, ...] = ()
    picture: Tensor | None = None

    def given(self, what: str, unread: int = 0) -> Judgement:
        """The judgement of an attack that was given more than an attacker has: `what`, in words.

        Where its equations leave unknowns open nothing counts as reproduced, whatever the error;
        `unread` unknowns of them no tap reads.
        """
        if self.solution is None or self.solution.full_rank:
            return replace(self, reason=f"{self.reason}, {what}")
        rank = f"rank {self.solution.rank} of {self.solution.unknowns} unknowns"
        if unread:
            rank += f" ({unread} are read by no tap)"
        return replace(self, status=Status.NOT_REPRODUCED, reason=f"{rank}, {what}")

    def confirmation(self, base: Confirmation, scope: Scope) -> Confirmation:
        """The judgement as a report has it, with what is common to a run in `base`."""
        solution, predicted = self.solution, None
        if solution is not None and base.gradient_dtype is not None:
            precision = torch.finfo(GRADIENT_DTYPES[base.gradient_dtype]).eps
            predicted = predicted_error(solution, precision)
        return replace(
            base,
            status=self.status,
            scope=scope,
            reason=self.reason,
            solver=self.solver,
            rank=solution.rank if solution else None,
            unknowns=self.unknowns,
            condition=solution.condition if solution else None,
            singular_values=solution.singular_values if solution else None,
            residual=solution.residual if solution else None,
            predicted_error=predicted,
            mse=self.mse,
            psnr=self.psnr,
            ssim=self.ssim,
            attempts=(*base.attempts, *self.attempts),
        )


class Recovered(ABC):
    """A value that an attack claims to have found."""

    @abstractmethod
    def judge(self, truth: Tensor) -> Judgement:
        """Compare it with the truth, of the same shape."""


@dataclass(frozen=True, slots=True)
class RecoveredTensor(Recovered):
    """A tensor, float64.

    Attributes:
        x: The values.
        solution: Of the system that gave them, None where they were read off a gradient.
        mask: False where a value could not be recovered, None where all could. One with holes
            never counts as confirmed.
    """

    x: Tensor
    solution: Solution | None = None
    mask: Tensor | None = None

    def judge(self, truth: Tensor) -> Judgement:
        """By mean squared error; by PSNR and SSIM too where it is a picture."""
        how = "division by the bias gradient"
        if self.solution is not None:
            how = f"{self.solution.solver}: {self.solution.reason}"
        return _compared(self.x, truth, self.mask, self.solution, how)


@dataclass(frozen=True, slots=True)
class RecoveredUpToFactor(Recovered):
    """A tensor, float64, of which one common factor is unknown.

    Attributes:
        x: The values.
        mask: As above.
        solution: Of the system that gave them, None where they were read off a gradient.
    """

    x: Tensor
    mask: Tensor | None = None
    solution: Solution | None = None

    def judge(self, truth: Tensor) -> Judgement:
        """As a tensor, after the factor was fitted to the truth; the reason says that it was.

        No attacker has the factor. A single number up to a factor is nothing at all.
        """
        factor = fit_factor(self.x, truth)
        how = "row space of the weight gradient"
        if self.solution is not None:
            how = f"{self.solution.solver}: {self.solution.reason}"
        judged = _compared(factor * self.x, truth, self.mask, self.solution, how)
        if truth.numel() > 1:
            fitted = f"up to one factor: {factor:.3g}, fitted to the true value by least squares"
            return replace(judged, reason=f"{judged.reason}, {fitted}")
        if _holes(self.mask):
            return judged
        return replace(
            judged,
            status=Status.INCONCLUSIVE,
            reason="a single number up to one factor is no number at all",
        )


def is_picture(truth: Tensor) -> bool:
    """Whether a tensor can be looked at: (B, N, H, W) of 1 or 3 channels, not too small."""
    return is_image_shape(tuple(truth.shape))


def _compared(
    got: Tensor, truth: Tensor, mask: Tensor | None, solution: Solution | None, how: str
) -> Judgement:
    error = mse(got, truth)
    scale = max(float(truth.double().square().mean()), 1e-300)
    if holes := _holes(mask):
        status = Status.NOT_REPRODUCED
        reason = f"{holes} of {truth.numel()} values cannot be recovered"
    elif error <= SUCCESS * scale:
        status, reason = Status.CONFIRMED, "reconstructed"
    elif solution is not None and solution.rank is None:
        status = Status.INCONCLUSIVE
        reason = f"off by {error / scale:.1e} of the signal; this solver cannot tell the rank"
    else:
        status = Status.NOT_REPRODUCED
        reason = f"the reconstruction is off by {error / scale:.1e} of the signal"
        if solution is not None and solution.condition is not None:
            reason += f" (condition number {solution.condition:.1e})"
    judged = Judgement(status, reason, how, truth.numel(), solution, error)
    if not is_picture(truth):
        return judged
    return replace(judged, psnr=psnr(error), ssim=ssim(got, truth), picture=got[0].cpu())


def _holes(mask: Tensor | None) -> int:
    return 0 if mask is None else int((~mask).sum())


def fit_factor(got: Tensor, truth: Tensor) -> float:
    """The factor c that makes c * got nearest to the truth: <got, truth> / <got, got>."""
    a, b = got.double().flatten(), truth.double().flatten()
    energy = float(a @ a)
    return float(a @ b) / energy if energy else 0.0


def predicted_error(solution: Solution, precision: float) -> float | None:
    """The relative error to expect of a solution, ||x - truth|| / ||truth||, to first order.

    Rounding moves both the right-hand side and, through dl/do, the matrix by the gradients'
    precision at most, relative to their norms; solving magnifies that by the condition number
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 7.1). Errors of earlier
    steps of a leak path contradict the equations: they show in the residual.

    Args:
        solution: What a solver found.
        precision: Machine epsilon of the observed gradients.

    Returns:
        None where the condition is not known, or the equations leave unknowns open: what the
        solution is off by there no condition number tells.
    """
    if solution.rank != solution.unknowns or solution.condition is None:
        return None
    error = solution.condition * max(precision, solution.residual)
    return error if math.isfinite(error) else None
