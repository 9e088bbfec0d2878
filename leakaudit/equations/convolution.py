"""The three bilinear maps of one convolution: output, weight gradient, input gradient.

All are the kernels that torch uses for training, so they cost one forward or backward pass and need
no patch matrix. Shapes: x (B, N, H..), w (F, N/g, K..), o (B, F, O..), any floating dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.equations.axes import per_channel, torch_padding, without_padding
from leakaudit.graph import Graph, Node
from leakaudit.operators import Conv


@dataclass(frozen=True, slots=True)
class Convolution:
    """A Conv operator at fixed shapes.

    Attributes:
        op: The hyperparameters.
        input_shape: (B, N, H_1..H_d).
        weight_shape: (F, N/g, K_1..K_d).
    """

    op: Conv
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]

    @property
    def _symmetric(self) -> bool:
        return self.op.padding_begin == self.op.padding_end

    def _padding(self) -> list[int]:
        return list(self.op.padding_begin) if self._symmetric else [0] * len(self.op.kernel)

    def _padded(self, x: Tensor) -> Tensor:
        if self._symmetric:
            return x
        return F.pad(x, torch_padding(self.op.padding_begin, self.op.padding_end))

    def output(self, x: Tensor, w: Tensor) -> Tensor:
        """o = w * x without bias."""
        op = self.op
        return convolve(self._padded(x), w, op.stride, self._padding(), op.dilation, op.groups)

    def weight_gradient(self, x: Tensor, G: Tensor) -> Tensor:
        """dl/dw = G · P(x), linear in x and in G = dl/do."""
        w = x.new_empty(()).expand(self.weight_shape)  # only its shape is read
        return self._backward(G, self._padded(x), w, weight=True)

    def input_gradient(self, G: Tensor, w: Tensor) -> Tensor:
        """dl/dx: the transposed convolution, the adjoint of `output` in x."""
        x = self._padded(G.new_empty(()).expand(self.input_shape))  # only its shape is read
        padded = self._backward(G, x, w, weight=False)
        if self._symmetric:
            return padded
        return without_padding(padded, self.op.padding_begin, self.input_shape[2:])

    def read_pixels(self, w: Tensor) -> Tensor:
        """Mask (B, N, H..) of the unknowns that some output depends on; w is not read."""
        ones = torch.ones_like(w)
        o = self.output(ones.new_ones(self.input_shape), ones)
        return self.input_gradient(torch.ones_like(o), ones) > 0.5

    def _backward(self, G: Tensor, x: Tensor, w: Tensor, *, weight: bool) -> Tensor:
        op, free, padding = self.op, [0] * len(self.op.kernel), self._padding()
        wanted = [not weight, weight, False]
        gradients = torch.ops.aten.convolution_backward.default(
            G, x, w, None, op.stride, padding, op.dilation, False, free, op.groups, wanted
        )
        result: Tensor = gradients[1 if weight else 0]
        return result


def convolution_of(graph: Graph, node: Node) -> Convolution:
    """The maps of a convolution at the graph's shapes."""
    if not isinstance(node.op, Conv):
        raise TypeError(f"{node.name} is not a convolution")
    weight = graph.parameters[node.parameter("weight") or ""]
    return Convolution(node.op, graph.tensors[node.inputs[0]].shape, weight.shape)


def convolve(
    x: Tensor,
    w: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    *,
    transposed: bool = False,
) -> Tensor:
    """torch's convolution without bias, of any number of spatial axes; `padding` on both sides."""
    o: Tensor = torch.ops.aten.convolution.default(
        x, w, None, stride, padding, dilation, transposed, [0] * len(stride), groups
    )
    return o


def add_channel_bias(o: Tensor, bias: Tensor | None, sign: int = 1) -> Tensor:
    """o plus (or minus) a bias of one value per channel; o is (B, F, ..)."""
    if bias is None:
        return o
    return o + sign * per_channel(bias, o)
