"""Everything that was tried on a layer whose equations leave its input open, with its figures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from leakaudit.attack.partial.inequalities import Inequalities
from leakaudit.attack.partial.picture import Picture, Range, smoothest_picture
from leakaudit.confirm.metrics import mse, psnr, ssim
from leakaudit.confirm.recovered import Judgement
from leakaudit.equations.system import LayerSystem
from leakaudit.solvers.interface import Solution


@dataclass(frozen=True, slots=True)
class PartialLeak:
    """What comes back all the same.

    Attributes:
        x: The picture that uses everything known, (B, N, H, W) float64.
        means: What it was found with, in words.
        mse: Of x, as `psnr` (dB) and `ssim` are.
        attempts: One line per reconstruction tried, the least informed first.
    """

    x: Tensor
    means: str
    mse: float
    psnr: float
    ssim: float
    attempts: tuple[str, ...]

    def headline(self, judged: Judgement) -> Judgement:
        """The picture that uses everything known is the headline, the others stand with it."""
        return replace(
            judged,
            mse=self.mse,
            psnr=self.psnr,
            ssim=self.ssim,
            reason=f"{judged.reason}; partial leak: a picture that fits the equations "
            f"({self.means}) has PSNR {self.psnr:.1f} dB and SSIM {self.ssim:.2f}",
            attempts=(*judged.attempts, *self.attempts),
            picture=self.x[0].cpu(),
        )


def partial_leak(
    system: LayerSystem,
    solution: Solution,
    truth: Tensor,
    value_range: Range | None,
    inequalities: Inequalities | None,
) -> PartialLeak:
    """Reconstruct by minimum norm, with the prior, and with the prior and all inequalities.

    The last one is what an attacker would take, who does not know which comes closest; the truth
    serves to measure all of them alike.

    Args:
        system: The layer's equations.
        solution: Their minimum-norm solution.
        truth: The layer's input, (B, N, H, W).
        value_range: Ends of the values' range, None where nothing is known.
        inequalities: On the layer's bias-free output, None where nothing is known.
    """
    lines = [f"minimum norm: {_figures(solution.x, truth)}"]
    means = "total-variation prior"
    found = smoothest_picture(system, solution.x, solution.residual)
    lines.append(_line(means, found, truth))
    more = []
    if value_range is not None:
        more.append(f"values in [{value_range[0]:g}, {value_range[1]:g}]")
    if inequalities is not None and inequalities.count:
        more.append(f"{inequalities.count} flat outputs as inequalities")
    if more:
        means = ", ".join([means, *more])
        found = smoothest_picture(system, found.x, solution.residual, value_range, inequalities)
        lines.append(_line(means, found, truth))
    error = mse(found.x, truth)
    return PartialLeak(found.x, means, error, psnr(error), ssim(found.x, truth), tuple(lines))


def _line(name: str, found: Picture, truth: Tensor) -> str:
    end = "settled after" if found.converged else "stopped at the limit of"
    return (
        f"{name}: {_figures(found.x, truth)}; {end} {found.iterations} iterations, "
        f"residual {found.residual:.1e}"
    )


def _figures(x: Tensor, truth: Tensor) -> str:
    error = mse(x, truth)
    return f"MSE {error:.1e}, PSNR {psnr(error):.1f} dB, SSIM {ssim(x, truth):.2f}"
