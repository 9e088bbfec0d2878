"""The activation pattern that the gradients of the convolution below fit best, found by trying.

ReLU, LeakyReLU and PReLU have one slope above 0 and another below. An output that is nearer to 0
than the errors of the recovered values does not show its sign, and one wrong entry of the pattern
is one wrong entry of dl/do: with coarse gradients (bfloat16, float16) enough to spoil every layer
below. But the gradients of the convolution below speak of dl/do too. With a first guess of the
pattern its equations give an estimate of its input; an entry that is wrong then leaves in dl/dw and
dl/db a misfit of a known shape, dl/dy times the patch that the output reads. Least squares over all
uncertain entries at once, the input corrected along with them, tells which ones to flip; then the
equations are solved again, and a guess is kept only if it leaves less unexplained than the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leakaudit.attack.state import State
from leakaudit.equations.axes import per_channel, per_filter
from leakaudit.equations.known import Known
from leakaudit.equations.linear_maps import gradient_equations, weight_equations
from leakaudit.equations.system import LayerSystem
from leakaudit.graph import Node
from leakaudit.solvers.solve import solve_layer

# Patterns that are tried, each with one solution of the layer's equations.
TRIES = 12
# Of conjugate gradients for the shares by which entries flip; few, since rounding hides the rest.
_ITERATIONS = 80
# Entries that flip by at least this share of the one that flips most go with it.
_AHEAD_OF_ALL = 0.7
# A share below this, of a whole flip, is rounding.
_SMALLEST = 0.02
# How likely the entry of an output at 0 is wrong, and of one at the edge of what is uncertain.
_LIKELY_NEAR, _LIKELY_FAR = 0.2, 1e-3
# A misfit of this share of the gradients is no matter of some entries: an earlier step went wrong.
_HOPELESS = 0.5
# The misfit is rounding where it is at most this many times the gradients' precision.
_ROUNDING = 2.0


@dataclass(frozen=True, slots=True)
class PiecewiseLinear:
    """An activation with slope 1 above 0 and another one below, where its output was recovered.

    Attributes:
        y: Its recovered output (B, F, O..).
        g: dl/dy, same shape.
        below: Slope below 0, same shape; 0 where the output does not show how far below.
        radius: Outputs within this of 0 do not show their sign.
    """

    y: Tensor
    g: Tensor
    below: Tensor
    radius: float

    def output_gradient(self, on: Tensor) -> Tensor:
        """dl/do for an activation pattern: which outputs are above 0."""
        return self.g * torch.where(on, 1.0, self.below)

    def output(self, on: Tensor) -> Known:
        """o as far as it is known: not where its sign is uncertain and a negative one is hidden."""
        slope = torch.where(on, 1.0, self.below)
        shown = (slope != 0) & ((self.y.abs() > self.radius) | (self.below != 0))
        o = torch.where(shown, self.y / torch.where(shown, slope, 1.0), 0.0)
        return Known(o, None if bool(shown.all()) else shown)


def fit_pattern(
    state: State, node: Node, activation: PiecewiseLinear, on: Tensor, db: Tensor | None
) -> Tensor:
    """Flip uncertain entries of a pattern until the gradients of the convolution below fit.

    Args:
        state: What is known; what was tried is added to its attempts.
        node: The convolution below, its weight's gradient observed.
        activation: What stands behind it.
        on: First guess of the outputs above 0.
        db: Its bias's gradient (F,), where it is observed.

    Returns:
        The best guess.
    """
    first = best = on
    least = float("inf")
    uncertain = activation.y.abs() <= activation.radius
    tried: list[str] = []
    last: _Misfit | None = None
    ahead = _AHEAD_OF_ALL
    for _ in range(TRIES):
        system = state.system(node, activation.output_gradient(on), activation.output(on))
        x = solve_layer(system, state.memory).x
        misfit = _Misfit(system, db, activation, x)
        tried.append(f"{misfit.relative:.1e}")
        if misfit.relative < least:
            best, least, last = on, misfit.relative, misfit
            ahead = _AHEAD_OF_ALL
        elif ahead < 1:
            ahead = 1.0  # too many at once: from the best guess again, only the foremost
        else:
            break
        if least <= _ROUNDING * state.precision or least > _HOPELESS or last is None:
            break
        on = last.flipped(best, ahead)
        if torch.equal(on, best):
            break
    state.attempts.append(
        f"{node.name}: {int((best != first).sum())} of {int(uncertain.sum())} outputs near 0 "
        f"turned to the other side, misfit of its gradients {', then '.join(tried)}"
    )
    return best


class _Misfit:
    """What a convolution's equations leave unexplained, and which other pattern explains it."""

    def __init__(
        self, system: LayerSystem, db: Tensor | None, activation: PiecewiseLinear, x: Tensor
    ) -> None:
        gradient, weight = gradient_equations(system), weight_equations(system)
        if gradient is None or weight is None or system.G is None:
            raise ValueError("a pattern is fitted by both sets of equations")
        (self.gradient, target), (self.weight, outputs) = gradient, weight
        self.activation = activation
        self.x = x
        self.scale = self.gradient.scale
        self.of_gradient = target - self.gradient.mv(x)
        self.of_weight = outputs - self.weight.mv(x)
        # The bias's gradient as an equation more of every filter, of a patch of ones.
        ones = x.square().mean().sqrt()
        self.bias_scale = self.scale * ones if db is not None else self.scale * 0
        sums = system.G.transpose(0, 1).flatten(1).sum(1)
        self.of_bias = self.bias_scale * ((0 if db is None else db) - sums)
        size = target.square().sum()
        if db is not None:
            size = size + (self.bias_scale * db).square().sum()
        left = self.of_gradient.square().sum() + self.of_bias.square().sum()
        self.relative = float((left / size.clamp_min(1e-300)).sqrt())
        self.rounding = _ROUNDING * system.precision * target.square().mean().sqrt()

    def flipped(self, on: Tensor, ahead: float) -> Tensor:
        """Flip the entries of which that explains the misfit best, the input corrected along.

        Least squares for a change of the input and a share by which each uncertain entry of `on`
        flips. Those with at least `ahead` of the largest share are flipped; below 1, one half
        suffices: such an entry came out nearer to the other value.
        """
        activation = self.activation
        step = (1 - activation.below) * activation.g
        step = torch.where(on, -step, step)
        # A priori an entry is wrong the more likely the nearer its output is to 0.
        near = torch.exp(-4.5 * (activation.y / activation.radius).square())
        likely = torch.where(
            activation.y.abs() <= activation.radius, _LIKELY_NEAR * near + _LIKELY_FAR, 0.0
        )
        step = step * likely.sqrt()
        scale = per_filter(self.scale, self.of_gradient)
        bias_scale = per_channel(self.bias_scale, step)
        layer, unit = self.gradient.convolution, self.rounding

        # Unknowns: the change of x, and the flipped shares in units of their likely size.
        def mv(dx: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            dG = step * share
            of_gradient = self.gradient.mv(dx) + scale * layer.weight_gradient(self.x, dG)
            of_bias = (bias_scale * dG).transpose(0, 1).flatten(1).sum(1)
            return of_gradient, of_bias, self.weight.mv(dx), unit * share

        def rmv(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
            dx = self.gradient.rmv(a) + self.weight.rmv(c)
            dG = layer.output(self.x, scale * a) + bias_scale * b.view(bias_scale.shape)
            return dx, step * dG + unit * d

        rows = (self.of_gradient, self.of_bias, self.of_weight, torch.zeros_like(step))
        dx, share = torch.zeros_like(self.x), torch.zeros_like(step)
        r = rmv(*rows)
        p, square = r, _dot(r, r)
        for _ in range(_ITERATIONS):
            image = mv(*p)
            length = square / _dot(image, image).clamp_min(1e-300)
            dx, share = dx + length * p[0], share + length * p[1]
            a, b, c, d = (row - length * q for row, q in zip(rows, image, strict=True))
            rows = a, b, c, d
            r = rmv(*rows)
            previous, square = square, _dot(r, r)
            ratio = square / previous.clamp_min(1e-300)
            p = r[0] + ratio * p[0], r[1] + ratio * p[1]
        flip = likely.sqrt() * share
        least = max(ahead * float(flip.max()), _SMALLEST)
        return on ^ (flip >= (least if ahead == 1 else min(0.5, least)))


def _dot(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([torch.sum(x * y) for x, y in zip(a, b, strict=True)]).sum()
