"""Independent reference: the dense equations of a layer, got by differentiation, and their rank.

Nothing of leakaudit is used. The layer is applied by torch's own functions in float64; its gradient
constraints are the Jacobian of dl/dw(x; G) in x, its weight constraints the Jacobian of the output
in x. Both are linear in x, so the Jacobians are the coefficient matrices, taken at x = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

RELATIVE_TOLERANCE = 1e-9  # of the largest singular value
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@dataclass(frozen=True)
class DenseEquations:
    """Coefficient matrices of one layer, one column per element of the input.

    Attributes:
        gradient_constraints: shape (F · n · k, |X|), float64.
        weight_constraints: shape (outputs, |X|), float64.
        unread: Input elements that no output depends on.
    """

    gradient_constraints: Tensor
    weight_constraints: Tensor
    unread: int

    @property
    def unknowns(self) -> int:
        return self.weight_constraints.shape[1]

    @cached_property
    def rank(self) -> int:
        """Of both sets of equations together."""
        return numerical_rank(torch.cat([self.gradient_constraints, self.weight_constraints]))

    @cached_property
    def gradient_rank(self) -> int:
        return numerical_rank(self.gradient_constraints)

    @cached_property
    def weight_rank(self) -> int:
        return numerical_rank(self.weight_constraints)


def numerical_rank(matrix: Tensor) -> int:
    """Rank up to a relative tolerance."""
    rows = _unit_rows(matrix)
    if rows.numel() == 0:
        return 0
    singular = torch.linalg.svdvals(rows)
    return int((singular > RELATIVE_TOLERANCE * singular[0]).sum())


def clear_rank(matrix: Tensor) -> int:
    """Rank of a large matrix with a wide gap in its spectrum, ten times faster.

    The eigenvalues of the Gram matrix are squared singular values, of which float64 keeps only
    the larger half of the digits: nothing may lie between clearly zero and clearly not.

    Raises:
        ValueError: Some eigenvalue is neither.
    """
    rows = _unit_rows(matrix)
    eigenvalues = torch.linalg.eigvalsh(rows.mT @ rows)
    nonzero = eigenvalues > 1e-6 * eigenvalues[-1]
    if (eigenvalues[~nonzero] > 1e-12 * eigenvalues[-1]).any():
        raise ValueError("the spectrum has no gap: use numerical_rank")
    return int(nonzero.sum())


def _unit_rows(matrix: Tensor) -> Tensor:
    # Rank does not care for the length of rows; the tolerance does, and the many terms of a
    # gradient constraint would outweigh the few of a weight constraint.
    lengths = torch.linalg.vector_norm(matrix, dim=1)
    return matrix[lengths > 0] / lengths[lengths > 0, None]


@dataclass(frozen=True)
class DenseConvolution:
    """A convolution as torch applies it. Sizes per spatial axis; padding as (begin, end)."""

    channels: int
    sizes: tuple[int, ...]
    filters: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    batch: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.batch, self.channels, *self.sizes)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.filters, self.channels // self.groups, *self.kernel)

    def apply(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's output, without bias."""
        sides = [side for pair in reversed(self.padding) for side in pair]  # last axis first
        convolve = _CONVOLUTIONS[len(self.sizes)]
        return convolve(F.pad(x, sides), weight, None, self.stride, 0, self.dilation, self.groups)

    def equations(self, seed: int = 0, gradient: Tensor | None = None) -> DenseEquations:
        """The equations for random weights and a random (or the given) output gradient."""
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(self.weight_shape, generator=generator, dtype=torch.float64)
        return _equations(self.apply, self.input_shape, weight, generator, gradient)


@dataclass(frozen=True)
class DenseLinear:
    """A dense layer over the last axis of an input of any shape."""

    input_shape: tuple[int, ...]
    out_features: int

    def equations(self, seed: int = 0) -> DenseEquations:
        """The equations for random weights and a random output gradient."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.out_features, self.input_shape[-1])
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        return _equations(F.linear, self.input_shape, weight, generator)


def _equations(
    apply: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, ...],
    weight: Tensor,
    generator: torch.Generator,
    gradient: Tensor | None = None,
) -> DenseEquations:
    origin = torch.zeros(shape, dtype=torch.float64)
    G = gradient
    if G is None:
        G = torch.randn(apply(origin, weight).shape, generator=generator, dtype=torch.float64)

    def weight_gradient(x: Tensor) -> Tensor:
        # shape: (F, n, K_1..K_d); l is linear in the output, with the given gradient G
        variable = weight.clone().requires_grad_()
        loss = (apply(x, variable) * G).sum()
        return torch.autograd.grad(loss, variable, create_graph=True)[0]

    def jacobian(function: Callable[[Tensor], Tensor]) -> Tensor:
        rows = torch.autograd.functional.jacobian(function, origin, vectorize=True)
        return rows.reshape(-1, prod(shape))

    ones = torch.ones_like(weight)
    reach = jacobian(lambda x: apply(x, ones))
    return DenseEquations(
        gradient_constraints=jacobian(weight_gradient),
        weight_constraints=jacobian(lambda x: apply(x, weight)),
        unread=int((reach == 0).all(dim=0).sum()),
    )
