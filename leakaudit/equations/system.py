"""The linear equations of one convolution: what a solver is given."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from leakaudit.counting.geometry import ConvolutionGeometry
from leakaudit.equations.convolution import Convolution


@dataclass(frozen=True, slots=True)
class LayerSystem:
    """The linear equations of one convolution, in float64 on one device.

    Attributes:
        convolution: The layer's maps and shapes.
        geometry: The same layer as counting sees it.
        w: Weights (F, n, K..).
        dw: Observed dl/dw (F, n, K..), or None where it is not observed.
        G: Output gradient dl/do (B, F, O..), or None where it is not known.
        o: o - b on the known outputs (B, F, O..), or None where none are known.
        mask: 1 where o is known, 0 elsewhere, or None with o.
        precision: Relative precision (machine epsilon) of the observed gradients.
    """

    convolution: Convolution
    geometry: ConvolutionGeometry
    w: Tensor
    dw: Tensor | None
    G: Tensor | None
    o: Tensor | None
    mask: Tensor | None
    precision: float

    @property
    def has_gradient(self) -> bool:
        """Whether gradient constraints can be set up."""
        return self.dw is not None and self.G is not None

    @property
    def has_weight(self) -> bool:
        """Whether weight constraints can be set up."""
        return self.o is not None
