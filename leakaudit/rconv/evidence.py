"""Compare a reconstruction with the truth and word the result."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from leakaudit.findings import Confirmation, Scope, Status
from leakaudit.rconv.metrics import mse, psnr, ssim
from leakaudit.rconv.probes import is_image_shape
from leakaudit.rconv.solvers.interface import Solution

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
) -> Confirmation:
    """Compare a reconstruction with the truth. A mask with holes never counts as confirmed."""
    error = mse(got, truth)
    scale = max(float(truth.double().square().mean()), 1e-300)
    image = is_image_shape(tuple(truth.shape))
    holes = 0 if mask is None else int((~mask).sum())
    if holes:
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
    return replace(
        base,
        status=status,
        scope=scope,
        reason=reason,
        solver=f"{solution.solver}: {solution.reason}"
        if solution
        else "division by the bias gradient",
        rank=solution.rank if solution else None,
        unknowns=truth.numel(),
        condition=solution.condition if solution else None,
        residual=solution.residual if solution else None,
        mse=error,
        psnr=psnr(error) if image else None,
        ssim=ssim(got, truth) if image else None,
    )
