"""What the losses of the threat model say about the scale of a bias-free head."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

LOSSES = ("cross-entropy", "bce", "mse")


@dataclass(frozen=True, slots=True)
class HeadSolution:
    """One way to complete a bias-free head: its input and output gradient."""

    x: Tensor  # (in,)
    g: Tensor  # (out,), dl/dz


def solve_head(
    loss: str, dW: Tensor, W: Tensor, offset: Tensor | None = None
) -> Iterator[HeadSolution]:
    """All (x, g) with dW = g xᵀ and g = dl/dz(W x) for some label, one example.

    dW has rank one, dW = u vᵀ with |v| = 1, so x = s·v and g = u/s with one unknown s. The loss
    equation fixes it: for cross-entropy g = softmax(s·W v) - e_label, for the logistic loss
    g = σ(s·W v) - t. A correctly classified example has two such s (the twin data of R-GAP, ICLR
    2021), and without bias -x under the other label of a logistic loss gives the gradient of x:
    all are returned.

    Args:
        loss: `cross-entropy` or `bce`.
        dW: (out, in) float64.
        W: (out, in) float64.
        offset: A known bias whose gradient is not observed (out,), or None.
    """
    v, size = row_space(dW)
    if size == 0:
        return
    u = dW @ v
    logits = (W @ v).tolist()
    offsets = [0.0] * len(logits) if offset is None else offset.tolist()
    found = []
    for s in _scales(loss, logits, offsets, u.tolist()):
        z = W @ (s * v) if offset is None else W @ (s * v) + offset
        found.append((_misfit(loss, z, u / s), HeadSolution(s * v, u / s)))
    # The equation of one output fixed s; roots that the other outputs contradict are none. How well
    # the true one fits them depends on how far the gradient was rounded.
    best = min((misfit for misfit, _ in found), default=0.0)
    for misfit, solution in found:
        if misfit <= max(1e-6, 100 * best):
            yield solution


def row_space(dW: Tensor) -> tuple[Tensor, float]:
    """The unit vector v of dW = u vᵀ, (in,), and the norm of u; both 0 where dW is.

    Where x is 0 the column of dW is exactly 0, and so is v. The right singular vector has rounding
    there, and an output of ReLU that is off would look like one that is on.
    """
    U, singular, _ = torch.linalg.svd(dW, full_matrices=False)
    size = float(singular[0])
    v = U[:, 0] @ dW
    return (v / v.norm() if size else v), size


def _misfit(loss: str, z: Tensor, g: Tensor) -> float:
    """How far g is from dl/dz at z for the label that fits best, relative to g."""
    if loss == "bce":
        p = z.sigmoid() / z.numel()
        difference = torch.minimum((p - g).abs(), (p - 1 / z.numel() - g).abs())
    else:
        difference = z.softmax(dim=0) - g
        difference[g.argmin()] -= 1
    return float(difference.norm() / g.norm())


def _scales(
    loss: str, logits: list[float], offsets: list[float], u: list[float]
) -> Iterator[float]:
    """The s for which the loss equation holds, one residual function per label."""
    if loss == "bce":
        # torch means over the outputs: g = (σ(z) - t) / outputs, for both labels of one output.
        i = max(range(len(u)), key=lambda i: abs(u[i]))

        def logistic(target: float, s: float) -> float:
            return (_sigmoid(s * logits[i] + offsets[i]) - target) / len(u) - u[i] / s

        for target in (0.0, 1.0):
            yield from _roots(partial(logistic, target), (1.0, -1.0))
        return

    def softmax(label: int, s: float) -> float:
        z = [s * logit + offset for logit, offset in zip(logits, offsets, strict=True)]
        return 1 / sum(math.exp(min(700.0, x - z[label])) for x in z) - 1 - u[label] / s

    # Only the label's entry of g = softmax - e_label is negative, which fixes the sign of s; for
    # two classes both signs are possible.
    for sign in (1.0, -1.0):
        label = min(range(len(u)), key=lambda i: u[i] * sign)
        others = [abs(x) for i, x in enumerate(u) if x * sign < 0 and i != label]
        # Rounding may turn the sign of entries that are nearly zero.
        if u[label] * sign < 0 and max(others, default=0.0) <= 1e-5 * abs(u[label]):
            yield from _roots(partial(softmax, label), (sign,))


def _roots(residual: Callable[[float], float], signs: tuple[float, ...]) -> Iterator[float]:
    """All roots of a function: sign changes on a logarithmic grid, and where it touches zero."""
    grid = [10 ** (-8 + 16 * i / 1600) for i in range(1601)]
    for sign in signs:

        def at(s: float, sign: float = sign) -> float:
            return residual(sign * s)

        values = [at(s) for s in grid]
        for i in range(len(grid) - 1):
            if values[i] == 0:
                yield sign * grid[i]
            elif values[i] * values[i + 1] < 0:
                yield sign * _bisect(at, grid[i], grid[i + 1])
            elif i and _dips(*values[i - 1 : i + 2]):
                # Twins lie close together: both crossings may hide between two points of the grid.
                lowest = _nearest_to_zero(at, grid[i - 1], grid[i + 1])
                value = at(lowest)
                if value * values[i] < 0:
                    yield sign * _bisect(at, grid[i - 1], lowest)
                    yield sign * _bisect(at, lowest, grid[i + 1])
                elif abs(value) < 1e-2 * min(abs(values[i - 1]), abs(values[i + 1])):
                    yield sign * lowest  # they coincide, or rounding has lifted the touch off zero


def _dips(left: float, middle: float, right: float) -> bool:
    """Whether a function stays on one side of zero and comes nearest to it in the middle."""
    one_side = left * middle > 0 and middle * right > 0
    return one_side and abs(middle) <= abs(left) and abs(middle) < abs(right)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """The root between two points of opposite sign, to rounding."""
    start = function(low)
    for _ in range(200):
        middle = math.sqrt(low * high)
        if not low < middle < high:
            break
        if function(middle) * start > 0:
            low = middle
        else:
            high = middle
    return low


def _nearest_to_zero(function: Callable[[float], float], low: float, high: float) -> float:
    """Where |function| is least, by ternary search; stops early at a point beyond zero."""
    start = function(low)
    for _ in range(80):
        third = math.cbrt(high / low)
        left, right = low * third, high / third
        at_left, at_right = function(left) * start, function(right) * start
        if min(at_left, at_right) < 0:
            return left if at_left < at_right else right
        if at_left < at_right:
            high = right
        else:
            low = left
    return math.sqrt(low * high)


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
