"""On which side of an activation's kink an output lies, decided by trying.

ReLU, LeakyReLU and PReLU have one slope above 0 and another below. An output that is nearer to 0
than the errors of the recovered values does not show its side, and one wrong side is one wrong
entry of dl/do: with coarse gradients (bfloat16, float16) enough to spoil every layer below. But the
gradients of the convolution below speak of dl/do too. With a first guess of the sides its equations
give an estimate of its input; a side that is wrong then leaves in dl/dw and dl/db a misfit of a
known shape, dl/dy times the patch that the output reads. The sides whose turning explains most of
the misfit are turned, the equations solved again, and the whole is kept only where less is left
unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leakaudit.graph import Node
from leakaudit.graph.operators import Conv
from leakaudit.rconv.layer import convolution_of, layer_system
from leakaudit.rconv.solvers.solve import solve_layer
from leakaudit.rconv.state import Known, State

# Guesses of all sides together that are tried, each with one solution of the layer's equations.
TRIES = 6
# Sides of one filter that are turned between two solutions.
_TURNS = 12
# A side is turned if that explains this share of the filter's misfit (squared): by chance the best
# of some hundred candidates explains less.
_SHARE = 0.05
# The misfit is rounding where it is at most this many times the gradients' precision.
_ROUNDING = 2.0


@dataclass(frozen=True, slots=True)
class Kink:
    """An activation that is linear on both sides of 0.

    Attributes:
        y: Its recovered output (B, F, O..).
        g: dl/dy, same shape.
        above: Slope above 0, broadcastable to y.
        below: Slope below 0, likewise; 0 where the output does not show how far below.
        radius: Outputs within this of 0 are in doubt.
    """

    y: Tensor
    g: Tensor
    above: Tensor
    below: Tensor
    radius: float

    def output_gradient(self, on: Tensor) -> Tensor:
        """dl/do for a guess of which outputs are above 0."""
        return self.g * torch.where(on, self.above, self.below)

    def output(self, on: Tensor) -> Known:
        """o as far as it is known: not where it is in doubt and one of the sides does not show."""
        slope = torch.where(on, self.above, self.below)
        shown = slope != 0
        shown &= (self.y.abs() > self.radius) | (self.below != 0).expand_as(shown)
        o = torch.where(shown, self.y / torch.where(shown, slope, 1.0), 0.0)
        return Known(o, None if bool(shown.all()) else shown)


def settle_sides(state: State, node: Node, kink: Kink, on: Tensor) -> Tensor:
    """Turn the sides of doubtful outputs until the gradients of the convolution below fit.

    Args:
        state: What is known; what was tried is added to its attempts.
        node: The convolution below, its weight's gradient observed.
        kink: The activation.
        on: First guess of the outputs above 0.

    Returns:
        The best guess.
    """
    best, least = on, float("inf")
    tried: list[str] = []
    for _ in range(TRIES):
        G, o = kink.output_gradient(on), kink.output(on)
        system = layer_system(
            state.graph, node, state.weights, state.gradients, G=G, o=o, precision=state.precision
        )
        x = solve_layer(system, state.memory).x
        misfit = _Misfit(state, node, kink, x, G)
        tried.append(f"{misfit.relative:.1e}")
        if misfit.relative >= least:
            break
        best, least = on, misfit.relative
        if least <= _ROUNDING * state.precision:
            break
        turned = misfit.turned(on)
        if torch.equal(turned, on):
            break
        on = turned
    turns = int((best != on).sum()) if len(tried) < 2 else 0
    del turns
    state.attempts.append(
        f"{node.name}: sides of its outputs near 0, misfit of its gradients "
        f"{', then '.join(tried)}"
    )
    return best


class _Misfit:
    """What the gradients of a convolution leave unexplained, filter by filter."""

    def __init__(self, state: State, node: Node, kink: Kink, x: Tensor, G: Tensor) -> None:
        op = node.op
        if not isinstance(op, Conv):
            raise TypeError(f"{node.name} is not a convolution")
        self.kink = kink
        self.doubtful = kink.y.abs() <= kink.radius
        weight = state.gradients[node.parameter("weight") or ""]
        bias = state.gradients.get(node.parameter("bias") or "")
        layer = convolution_of(state.graph, node)
        left = (weight - layer.weight_gradient(x, G)).flatten(1)  # (F, n·k)
        total = weight.square().sum()
        self.patches = _patches(x, op)  # (g, B, n·k, L)
        if bias is not None:
            # One equation more, of a patch of ones: scaled to the size of the others.
            scale = weight.square().mean().sqrt() / bias.square().mean().sqrt().clamp_min(1e-300)
            left = torch.cat([left, scale * (bias - G.transpose(0, 1).flatten(1).sum(1))[:, None]], 1)
            ones = self.patches.new_full((*self.patches.shape[:2], 1, self.patches.shape[3]), 1.0)
            self.patches = torch.cat([self.patches, scale * ones], 2)
            total = total + (scale * bias).square().sum()
        self.left = left
        self.relative = float((left.square().sum() / total.clamp_min(1e-300)).sqrt())

    def turned(self, on: Tensor) -> Tensor:
        """Turn the sides that explain most, one per filter at a time."""
        batch, filters = on.shape[:2]
        groups = self.patches.shape[0]
        per_group = filters // groups

        def by_filter(t: Tensor) -> Tensor:
            """(B, F, O..) to (g, f, B·L)."""
            flat = t.reshape(batch, groups, per_group, -1)
            return flat.permute(1, 2, 0, 3).reshape(groups, per_group, -1)

        P = self.patches.permute(0, 2, 1, 3).reshape(groups, self.patches.shape[2], -1)
        sizes = P.square().sum(1, keepdim=True)  # (g, 1, B·L)
        left = self.left.reshape(groups, per_group, -1).clone()
        change = by_filter((self.kink.above - self.kink.below) * self.kink.g)
        sides = by_filter(on).clone()
        free = by_filter(self.doubtful).clone()
        for _ in range(_TURNS):
            step = torch.where(sides, -change, change)
            gain = 2 * step * torch.bmm(left, P) - step.square() * sizes
            gain = torch.where(free, gain, -torch.inf)
            most, where = gain.max(dim=2, keepdim=True)
            accept = most > _SHARE * left.square().sum(2, keepdim=True)
            if not bool(accept.any()):
                break
            chosen = torch.zeros_like(sides).scatter_(2, where, accept)
            left = left - torch.bmm(torch.where(chosen, step, 0.0), P.transpose(1, 2))
            sides ^= chosen
            free &= ~chosen
        sides = sides.reshape(groups, per_group, batch, -1).permute(2, 0, 1, 3)
        return sides.reshape(on.shape)


def _patches(x: Tensor, op: Conv) -> Tensor:
    """What every output position reads, (g, B, n·k, L)."""
    ends = zip(reversed(op.padding_begin), reversed(op.padding_end), strict=True)
    padded = F.pad(x, [end for pair in ends for end in pair])
    for axis, (kernel, stride, dilation) in enumerate(
        zip(op.kernel, op.stride, op.dilation, strict=True), start=2
    ):
        span = dilation * (kernel - 1) + 1
        padded = padded.unfold(axis, span, stride)[..., ::dilation]
    # (B, N, O_1..O_d, K_1..K_d)
    d = len(op.kernel)
    batch, channels = padded.shape[:2]
    order = [0, 1, *range(2 + d, 2 + 2 * d), *range(2, 2 + d)]
    rows = padded.permute(order).reshape(batch, op.groups, channels // op.groups, -1)
    positions = 1
    for size in padded.shape[2 : 2 + d]:
        positions *= size
    return rows.reshape(batch, op.groups, -1, positions).transpose(0, 1)
