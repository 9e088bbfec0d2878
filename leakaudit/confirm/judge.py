"""Compare a reconstruction with the truth and word the result."""

from __future__ import annotations

import math
from dataclasses import replace

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


def judge(
    base: Confirmation,
    scope: Scope,
    got: Tensor,
    truth: Tensor,
    solution: Solution | None,
    mask: Tensor | None = None,
    *,
    scaled: bool = False,
) -> Confirmation:
    """Compare a reconstruction with the truth. A mask with holes never counts as confirmed.

    Where what is to be judged is known up to one factor only (`scaled`), that factor is fitted to
    the truth first, and the reason says so: no attacker has it.
    """
    factor = fit_factor(got, truth) if scaled else 1.0
    got = factor * got
    error = mse(got, truth)
    scale = max(float(truth.double().square().mean()), 1e-300)
    image = is_image_shape(tuple(truth.shape))
    holes = 0 if mask is None else int((~mask).sum())
    predicted = None
    if solution is not None and base.gradient_dtype is not None:
        precision = torch.finfo(GRADIENT_DTYPES[base.gradient_dtype]).eps
        predicted = predicted_error(solution, precision)
    if holes:
        status = Status.NOT_REPRODUCED
        reason = f"{holes} of {truth.numel()} values cannot be recovered"
    elif scaled and truth.numel() == 1:
        status = Status.INCONCLUSIVE
        reason = "a single number up to one factor is no number at all"
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
    if scaled and truth.numel() > 1:
        reason += f", up to one factor: {factor:.3g}, fitted to the true value by least squares"
    if solution is not None:
        solver = f"{solution.solver}: {solution.reason}"
    elif scaled:
        solver = "row space of the weight gradient"
    else:
        solver = "division by the bias gradient"
    return replace(
        base,
        status=status,
        scope=scope,
        reason=reason,
        solver=solver,
        rank=solution.rank if solution else None,
        unknowns=truth.numel(),
        condition=solution.condition if solution else None,
        singular_values=solution.singular_values if solution else None,
        residual=solution.residual if solution else None,
        predicted_error=predicted,
        mse=error,
        psnr=psnr(error) if image else None,
        ssim=ssim(got, truth) if image else None,
    )


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
