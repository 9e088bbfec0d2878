"""R-GAP: recursive gradient attack on privacy (Zhu and Blaschko, ICLR 2021, arXiv 2010.07733).

For networks without biases and with one output under the logistic loss l = log(1 + e^-m), m = y·z.
The head's equation gives the margin m, then the input of every layer solves one dense least-squares
system of weight constraints W x = o, gradient constraints K x = dl/dW and zeros for the padding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.bench.baselines.dense_rows import convolution_input, convolution_rows, linear_rows
from leakaudit.bench.baselines.interface import AttackResult
from leakaudit.bench.baselines.rgap_network import (
    BiasFreeNetwork,
    HiddenLayer,
    NotApplicable,
    read_network,
)
from leakaudit.graph import Graph
from leakaudit.operators.base import Window

# Where -m/(1 + e^m) is smallest: the margins of two examples with the same gradient ("twin data")
# lie on either side.
_TURN = 1.2784645427610738


@dataclass(frozen=True, slots=True)
class Rgap:
    """R-GAP on networks of Conv or Linear with LeakyReLU; anything else is refused by name.

    Attributes:
        dtype: float32 as published, or float64.
        padding_constraints: Solve for the padding too, with a row x = 0 for each padded pixel, as
            published; else padded pixels are left out of the system.
    """

    dtype: torch.dtype = torch.float32
    padding_constraints: bool = True
    name: str = "R-GAP"

    def attack(
        self,
        graph: Graph,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        loss: str,
    ) -> AttackResult:
        """Recurse from the head to the input."""
        started = time.perf_counter()
        notes: list[str] = []
        x, failure = None, None
        try:
            network = read_network(graph, gradients, loss)
            x = self._recurse(graph, network, weights, gradients, notes)
        except NotApplicable as reason:
            failure = str(reason)
        return AttackResult(x, time.perf_counter() - started, 0, tuple(notes), failure)

    def _recurse(
        self,
        graph: Graph,
        network: BiasFreeNetwork,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        notes: list[str],
    ) -> Tensor:
        def numbers(layer: HiddenLayer | None) -> tuple[Tensor, Tensor]:
            node = network.head if layer is None else layer.node
            name = node.parameter("weight") or ""
            w, dw = weights[name].double(), gradients[name].double()
            transposed = getattr(node.op, "transposed", False)
            return (w.T, dw.T) if transposed else (w, dw)

        W, dW = numbers(None)
        value = float((W * dW).sum())
        margins = list(_margins(value))
        if not margins or not bool(dW.any()):
            raise NotApplicable("the head's gradient is zero")
        # Without biases the twin is the same example at another scale: one recursion serves both.
        margin = margins[0]
        candidates = []
        for y in (1.0, -1.0):
            k = -y / (1 + math.exp(min(margin, 700.0)))
            # shapes: dl/dx and x of the head, both (1, in)
            candidates.append((k * W, dW / k))
        for layer in reversed(network.hidden):
            shape = graph.tensors[layer.node.outputs[0]].shape
            w, dw = numbers(layer)
            candidates = _consistent(
                layer, w, dw, [(g.reshape(shape), a.reshape(shape)) for g, a in candidates]
            )
            candidates = [self._layer(graph, layer, w, dw, g, a, notes) for g, a in candidates]
        if len(candidates) == 2:
            notes.append("both labels give this gradient: the input nearer to [0, 1] is kept")
        shape = graph.tensors[graph.inputs[0]].shape
        scales = [m / margin for m in margins] if margin else [1.0]
        found = [a.reshape(shape) * scale for _, a in candidates for scale in scales]
        if len(scales) == 2:
            notes.append(
                "two margins give this gradient (twin data): the one nearer to [0, 1] is kept"
            )
        return min(found, key=lambda t: float((t - t.clamp(0, 1)).norm()))

    def _layer(
        self,
        graph: Graph,
        layer: HiddenLayer,
        w: Tensor,
        dw: Tensor,
        g: Tensor,
        a: Tensor,
        notes: list[str],
    ) -> tuple[Tensor, Tensor]:
        """From (dl/da, a) behind the activation to (dl/dx, x) at the layer's input."""
        shape = graph.tensors[layer.node.inputs[0]].shape
        G, o = _through_activation(layer, g, a)
        op = layer.node.op
        if isinstance(op, Window):
            S = convolution_rows(
                op,
                shape,
                w.to(self.dtype),
                G.to(self.dtype),
                padding_constraints=self.padding_constraints,
            )
        else:
            S = linear_rows(w.to(self.dtype), G.reshape(-1).to(self.dtype))
        rhs = torch.cat([o.reshape(-1), dw.reshape(-1)]).to(self.dtype)
        rhs = F.pad(rhs, (0, S.shape[0] - rhs.numel()))  # the padding's zeros
        # gelsd: rank-revealing, minimum-norm, the driver of numpy.linalg.lstsq. The cutoff is the
        # precision itself: torch's own, times the number of rows, discards weight constraints. In
        # the first layers their rows are a thousand times smaller than the gradient constraints'.
        solved = torch.linalg.lstsq(
            S,
            rhs[:, None],
            rcond=torch.finfo(self.dtype).eps,
            driver="gelsd" if S.device.type == "cpu" else None,
        )
        x = solved.solution[:, 0].double()
        notes.append(
            f"{layer.node.name}: {S.shape[0]} x {S.shape[1]}, rank {int(solved.rank)}"
            if solved.rank.numel()
            else f"{layer.node.name}: {S.shape[0]} x {S.shape[1]}"
        )
        if isinstance(op, Window):
            x = convolution_input(op, shape, x, padding_constraints=self.padding_constraints)
            return _input_gradient(op, shape, w, G), x
        return (G.reshape(1, -1) @ w), x.reshape(1, -1)


def _through_activation(layer: HiddenLayer, g: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """dl/do and o from dl/da and a = LeakyReLU(o)."""
    positive = a > 0
    return torch.where(positive, g, g * layer.slope), torch.where(positive, a, a / layer.slope)


def _input_gradient(op: Window, shape: tuple[int, ...], w: Tensor, G: Tensor) -> Tensor:
    """dl/dx of a convolution, by differentiating it."""
    x = torch.zeros(shape, dtype=w.dtype, device=w.device, requires_grad=True)
    (gradient,) = torch.autograd.grad(_convolve(op, x, w), x, G)
    return gradient


def _convolve(op: Window, x: Tensor, w: Tensor) -> Tensor:
    (top, left), (bottom, right) = op.padding_begin, op.padding_end
    padded = F.pad(x, (left, right, top, bottom))
    return F.conv2d(padded, w, stride=op.stride, dilation=op.dilation)


def _consistent(
    layer: HiddenLayer, w: Tensor, dw: Tensor, candidates: list[tuple[Tensor, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """The candidates (dl/da, a) that a layer's weight gradient does not contradict.

    For filters f, f': sum over taps w[f']·dl/dw[f] = sum over positions dl/do[f]·o[f']. The
    diagonal holds for either label; the rest tells them apart wherever the signs of a are mixed,
    because the slopes then differ.
    """
    filters = w.shape[0]
    expected = dw.reshape(filters, -1) @ w.reshape(filters, -1).T
    misfits = []
    for g, a in candidates:
        G, o = _through_activation(layer, g, a)
        got = G.reshape(filters, -1) @ o.reshape(filters, -1).T
        misfits.append(float((got - expected).norm() / expected.norm().clamp_min(1e-300)))
    allowed = max(100 * min(misfits), 1e-5)
    return [c for c, misfit in zip(candidates, misfits, strict=True) if misfit <= allowed]


def _margins(value: float) -> Iterator[float]:
    """All m with -m/(1 + e^m) = value, by bisection; nearly touching counts as the one at _TURN."""

    def residual(m: float) -> float:
        return -m / (1 + math.exp(min(m, 700.0))) - value

    if value > 0:
        yield _bisect(residual, -2 * value - 2, 0.0)
    elif residual(_TURN) >= 0:
        if residual(_TURN) <= 1e-3 * abs(value):
            yield _TURN
    elif value < 0:
        yield _bisect(residual, 0.0, _TURN)
        yield _bisect(residual, 700.0, _TURN)


def _bisect(function: Callable[[float], float], high: float, low: float) -> float:
    """The root between a point where the function is positive and one where it is not."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if function(middle) > 0:
            high = middle
        else:
            low = middle
    return (low + high) / 2
