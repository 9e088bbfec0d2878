"""The scaled equations of a layer as operators with right-hand sides."""

from __future__ import annotations

from torch import Tensor

from leakaudit.rconv.operators import (
    GradientConstraints,
    LinearOperator,
    WeightConstraints,
    row_scale,
)
from leakaudit.rconv.solvers.interface import LayerSystem


def equations(
    system: LayerSystem,
) -> tuple[list[tuple[LinearOperator, Tensor]], Tensor | None, Tensor | None]:
    """The operators with their right-hand sides, and the row scales (F,) of both sets.

    Rows are scaled filter by filter to unit norm, so that neither set outweighs the other.
    """
    pairs: list[tuple[LinearOperator, Tensor]] = []
    gradient_scale = weight_scale = None
    if system.dw is not None and system.G is not None:
        gradient_scale = row_scale(system.G.transpose(0, 1))
        A = GradientConstraints(system.convolution, system.G, gradient_scale)
        pairs.append((A, A.right_hand_side(system.dw)))
    if system.o is not None and system.mask is not None:
        weight_scale = row_scale(system.w)
        B = WeightConstraints(system.convolution, system.w, system.mask, weight_scale)
        pairs.append((B, B.right_hand_side(system.o)))
    return pairs, gradient_scale, weight_scale
