"""The equations of one convolution as linear operators on its input, matrix-free.

`mv` takes x of the layer's input shape (B, N, H..), `rmv` gives that shape, and the two are
adjoint: <mv(x), y> = <x, rmv(y)>.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.equations.axes import per_channel, per_filter
from leakaudit.equations.convolution import Convolution
from leakaudit.equations.system import LayerSystem


@dataclass(frozen=True, slots=True)
class GradientConstraints:
    """A x = dl/dw(x; G): one row per weight. `scale` (F,) multiplies the rows of each filter."""

    convolution: Convolution
    G: Tensor  # (B, F, O..)
    scale: Tensor

    def _scaled(self, y: Tensor) -> Tensor:
        return y * per_filter(self.scale, y)

    def mv(self, x: Tensor) -> Tensor:
        """(F, n, K..)."""
        return self._scaled(self.convolution.weight_gradient(x, self.G))

    def rmv(self, y: Tensor) -> Tensor:
        """dl/dw is bilinear in G and x, so its adjoint in x is the input gradient of a kernel y."""
        return self.convolution.input_gradient(self.G, self._scaled(y))

    def right_hand_side(self, observed: Tensor) -> Tensor:
        """The observed dl/dw (F, n, K..) as this operator scales it."""
        return self._scaled(observed)


@dataclass(frozen=True, slots=True)
class WeightConstraints:
    """B x = w * x on the known outputs. `mask` (B, F, O..) is 1 where o is known, else 0."""

    convolution: Convolution
    w: Tensor  # (F, n, K..)
    mask: Tensor
    scale: Tensor  # (F,)

    def _weights(self) -> Tensor:
        return self.w * per_filter(self.scale, self.w)

    def mv(self, x: Tensor) -> Tensor:
        """(B, F, O..), zero where the output is not known."""
        return self.convolution.output(x, self._weights()) * self.mask

    def rmv(self, y: Tensor) -> Tensor:
        """The transposed convolution of the known outputs."""
        return self.convolution.input_gradient(y * self.mask, self._weights())

    def right_hand_side(self, o: Tensor) -> Tensor:
        """The known o - b (B, F, O..) as this operator scales it."""
        return torch.where(self.mask > 0, o * per_channel(self.scale, o), 0.0)


Constraints = GradientConstraints | WeightConstraints


def gradient_equations(system: LayerSystem) -> tuple[GradientConstraints, Tensor] | None:
    """The scaled gradient constraints of a layer and their right-hand side, where there are any."""
    if system.dw is None or system.G is None:
        return None
    scale = row_scale(system.G.transpose(0, 1))
    operator = GradientConstraints(system.convolution, system.G, scale)
    return operator, operator.right_hand_side(system.dw)


def weight_equations(system: LayerSystem) -> tuple[WeightConstraints, Tensor] | None:
    """The scaled weight constraints of a layer and their right-hand side, where there are any."""
    if system.o is None or system.mask is None:
        return None
    scale = row_scale(system.w)
    operator = WeightConstraints(system.convolution, system.w, system.mask, scale)
    return operator, operator.right_hand_side(system.o)


def row_scale(rows: Tensor) -> Tensor:
    """Scale that gives each filter's rows unit norm, those below 1e-3 of the largest less.

    Args:
        rows: (F, anything), the numbers that make up the rows of one filter.

    Returns:
        (F,). A filter of zeros (a dead one) is left as it is.
    """
    norms = rows.flatten(1).norm(dim=1)
    floor = norms.max() * 1e-3
    return torch.where(norms > 0, 1 / norms.clamp_min(floor), torch.ones_like(norms))
