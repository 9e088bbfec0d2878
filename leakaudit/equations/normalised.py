"""The equations of a convolution whose output is normalised by its own statistics, as a matrix.

With the normalised output x̂ known, o = σ · x̂ + μ, and with g = scale · dl/dy (means per group)

    σ · dl/do = g - mean(g) - x̂ · mean(g · x̂),

whatever epsilon is: σ is the root of variance and epsilon together. So both sets of equations,
P·w - σ·x̂ - μ = -b and (σ·dl/do)·P - σ·dl/dw = 0, are linear in the input, in σ and in μ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from leakaudit.equations.convolution import Convolution, add_channel_bias


@dataclass(frozen=True, slots=True)
class NormalisedLayer:
    """A convolution of one example, float64, and what is known of its normalised output.

    Attributes:
        convolution: The layer's maps and shapes.
        w: Weights (F, n, K..).
        bias: (F,), or None.
        normalised: x̂ (1, F, O..).
        mask: Where it is known, same shape.
        groups: Into how many parts, in the order of the elements, statistics divide the output.
        centred: Whether a mean is subtracted.
    """

    convolution: Convolution
    w: Tensor
    bias: Tensor | None
    normalised: Tensor
    mask: Tensor
    groups: int
    centred: bool

    def scaled_output_gradient(self, g: Tensor) -> Tensor:
        """σ · dl/do (1, F, O..) from g = scale · dl/dy; x̂ must be known throughout."""
        x, flow = self.normalised.reshape(self.groups, -1), g.reshape(self.groups, -1)
        result = flow - x * (flow * x).mean(1, keepdim=True)
        if self.centred:
            result = result - flow.mean(1, keepdim=True)
        return result.reshape(g.shape)

    def weight_rows(self) -> tuple[Tensor, Tensor]:
        """The weight constraints where x̂ is known: (rows, unknowns + statistics), right (rows,)."""
        size = self.normalised.numel()
        group = torch.arange(size, device=self.w.device) // (size // self.groups)
        seen = self.mask.flatten()
        basis = self._basis(prod(self.convolution.input_shape))
        images = basis.reshape(-1, *self.convolution.input_shape[1:])
        taps = self.convolution.output(images, self.w).flatten(1).T[seen]
        rows = [taps, _at(group[seen], -self.normalised.flatten()[seen], self.groups)]
        if self.centred:
            rows.append(_at(group[seen], -torch.ones_like(taps[:, 0]), self.groups))
        zero = torch.zeros_like(self.normalised)
        right = add_channel_bias(zero, self.bias, -1).flatten()[seen]
        return torch.cat(rows, 1), right

    def gradient_rows(self, scaled: Tensor, dw: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient constraints: matrix and right-hand side, shapes as above.

        Args:
            scaled: σ · dl/do (1, F, O..).
            dw: dl/dw (F, n, K..); one σ belongs to all outputs of a filter.
        """
        filters, per_group, *kernel = dw.shape
        channels, *sizes = self.convolution.input_shape[1:]
        taps = prod(kernel)
        # The pixels that each tap of a kernel reads, weighted by the gradient of each output: the
        # same for every channel.
        one_channel = Convolution(
            replace(self.convolution.op, groups=1),
            (filters, taps, *sizes),
            (1, taps, *kernel),
        )
        unit = self._basis(taps).reshape(1, taps, *kernel)
        reads = one_channel.input_gradient(scaled.transpose(0, 1), unit)
        filter_ = torch.arange(filters, device=dw.device)[:, None]
        local = torch.arange(per_group, device=dw.device)[None]
        channel = filter_ // (filters // self.convolution.op.groups) * per_group + local
        matrix = dw.new_zeros(filters, per_group, taps, channels, prod(sizes))
        matrix[filter_, local, :, channel] = reads.flatten(2)[:, None]
        group = torch.arange(filters, device=dw.device) // (filters // self.groups)
        owner = group[:, None].expand(-1, per_group * taps).flatten()
        rows = [matrix.reshape(dw.numel(), -1), _at(owner, -dw.flatten(), self.groups)]
        if self.centred:
            rows.append(torch.zeros_like(rows[1]))
        return torch.cat(rows, 1), torch.zeros_like(owner, dtype=dw.dtype)

    def _basis(self, size: int) -> Tensor:
        return torch.eye(size, dtype=self.w.dtype, device=self.w.device)


def unit_scaled(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Equations with rows of norm 1, those below 1e-3 of the largest less."""
    norms = matrix.norm(dim=1)
    scale = 1 / norms.clamp_min(float(norms.max()) * 1e-3 or 1.0)
    return matrix * scale[:, None], right * scale


def _at(column: Tensor, values: Tensor, columns: int) -> Tensor:
    """(rows, columns) with one entry in each row."""
    result = values.new_zeros(values.numel(), columns)
    return result.scatter_(1, column[:, None], values[:, None])
