"""Activations: derivative in the output and inverse, by sympy and by autograd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import sympy

torch = pytest.importorskip("torch")

from torch.nn import functional as F

from leakaudit import operators
from leakaudit.execute import activation as activations
from leakaudit.operators import (
    Activation,
    ArcTan,
    Celu,
    Clip,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mish,
    PRelu,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softplus,
    Softsign,
    Tanh,
)
from leakaudit.operators.activation import Increasing

O = sympy.Symbol("O", real=True)  # noqa: E741 - the pre-activation's name in the equations
X = sympy.Symbol("X", real=True)
SLOPE, ALPHA = sympy.Rational(1, 5), sympy.Rational(3, 2)
SELU_ALPHA, SELU_GAMMA = Selu().alpha, Selu().gamma
ZERO, ONE = sympy.Integer(0), sympy.Integer(1)


@dataclass(frozen=True)
class Branch:
    """One smooth piece of an activation.

    Attributes:
        op: The operator, `slope` PReLU's parameter.
        act: act(O).
        stated: The derivative in terms of the output X, as R-CONV's table (corrected) states it.
        inverse: O in terms of X; None where there is none.
        positive: The piece is O > 0 (True), O < 0 (False) or all of the line (None).
        domain: The piece lies between these pre-activations.
    """

    op: Activation
    act: sympy.Expr
    stated: sympy.Expr
    inverse: sympy.Expr | None
    positive: bool | None = None
    slope: Any = None
    domain: tuple[float, float] = (-4.0, 4.0)


A = float(SLOPE)
SIXTH = sympy.Rational(1, 6)
GAMMA_ALPHA = sympy.Float(SELU_GAMMA, 40) * sympy.Float(SELU_ALPHA, 40)
GAMMA = sympy.Float(SELU_GAMMA, 40)
TABLE = [
    Branch(Sigmoid(), 1 / (1 + sympy.exp(-O)), X * (1 - X), sympy.log(X / (1 - X))),
    Branch(Tanh(), sympy.tanh(O), 1 - X**2, sympy.log((1 + X) / (1 - X)) / 2),
    Branch(ArcTan(), sympy.atan(O), 1 / (1 + sympy.tan(X) ** 2), sympy.tan(X)),
    Branch(Softplus(), sympy.log(1 + sympy.exp(O)), 1 - sympy.exp(-X), sympy.log(sympy.exp(X) - 1)),
    Branch(Relu(), O, ONE, X, True),
    Branch(Relu(), ZERO, ZERO, None, False),
    Branch(LeakyRelu(A), O, ONE, X, True),
    Branch(LeakyRelu(A), SLOPE * O, SLOPE, X / SLOPE, False),
    Branch(PRelu(), O, ONE, X, True, torch.tensor([A], dtype=torch.float64)),
    Branch(PRelu(), SLOPE * O, SLOPE, X / SLOPE, False, torch.tensor([A], dtype=torch.float64)),
    Branch(Elu(float(ALPHA)), O, ONE, X, True),
    Branch(
        Elu(float(ALPHA)),
        ALPHA * (sympy.exp(O) - 1),
        X + ALPHA,
        sympy.log(1 + X / ALPHA),
        False,
    ),
    Branch(Celu(float(ALPHA)), O, ONE, X, True),
    Branch(
        Celu(float(ALPHA)),
        ALPHA * (sympy.exp(O / ALPHA) - 1),
        1 + X / ALPHA,
        ALPHA * sympy.log(1 + X / ALPHA),
        False,
    ),
    Branch(Selu(float(ALPHA), 2.0), 2 * O, 2 * ONE, X / 2, True),
    Branch(
        Selu(float(ALPHA), 2.0),
        2 * ALPHA * (sympy.exp(O) - 1),
        X + 2 * ALPHA,
        sympy.log(1 + X / (2 * ALPHA)),
        False,
    ),
    Branch(Softsign(), O / (1 + O), (1 - X) ** 2, X / (1 - X), True),
    Branch(Softsign(), O / (1 - O), (1 + X) ** 2, X / (1 + X), False),
    Branch(Clip(0.0, 6.0), O, ONE, X, True),
    Branch(Clip(0.0, 6.0), sympy.Integer(0), sympy.Integer(0), None, False),
    Branch(HardSigmoid(A, 0.0), SLOPE * O, SLOPE, X / SLOPE, True),
    Branch(HardSigmoid(A, 0.0), sympy.Integer(0), sympy.Integer(0), None, False),
    Branch(Identity(), O, ONE, X),
    Branch(Celu(float(ALPHA)), O, ONE, X, True),
    Branch(
        Celu(float(ALPHA)),
        ALPHA * (sympy.exp(O / ALPHA) - 1),
        X / ALPHA + 1,
        ALPHA * sympy.log(1 + X / ALPHA),
        False,
    ),
    Branch(Selu(), GAMMA * O, GAMMA, X / GAMMA, True),
    Branch(
        Selu(),
        GAMMA_ALPHA * (sympy.exp(O) - 1),
        X + GAMMA_ALPHA,
        sympy.log(1 + X / GAMMA_ALPHA),
        False,
    ),
    Branch(Softsign(), O / (1 + O), (1 - X) ** 2, X / (1 - X), True),
    Branch(Softsign(), O / (1 - O), (1 + X) ** 2, X / (1 + X), False),
    Branch(Clip(-1.0, 2.0), O, ONE, X, domain=(-0.95, 1.95)),
    Branch(Clip(-1.0, 2.0), -ONE, ZERO, None, domain=(-4.0, -1.05)),
    Branch(Clip(-1.0, 2.0), 2 * ONE, ZERO, None, domain=(2.05, 4.0)),
    Branch(
        HardSigmoid(1 / 6, 0.5),
        SIXTH * O + sympy.Rational(1, 2),
        SIXTH,
        6 * X - 3,
        domain=(-2.9, 2.9),
    ),
    Branch(HardSigmoid(1 / 6, 0.5), ZERO, ZERO, None, domain=(-4.0, -3.1)),
    Branch(HardSigmoid(1 / 6, 0.5), ONE, ZERO, None, domain=(3.1, 4.0)),
]


def name(branch: Branch) -> str:
    side = {None: "", True: " on", False: " off"}[branch.positive]
    flat = " flat" if branch.stated == 0 else ""
    return type(branch.op).__name__ + side + flat


every_branch = pytest.mark.parametrize("branch", TABLE, ids=name)


def points(branch: Branch) -> Any:
    o = torch.linspace(*branch.domain, 81, dtype=torch.float64)
    o = o[o != 0]
    if branch.positive is not None:
        o = o[(o > 0) == branch.positive]
    return o


def number(expression: sympy.Expr, symbol: sympy.Symbol, at: Any) -> Any:
    """The expression at every point, in 40 digits before rounding."""
    values = [float(expression.subs(symbol, sympy.Float(v, 40)).evalf(40)) for v in at.tolist()]
    return torch.tensor(values, dtype=torch.float64)


NOT_MONOTONE = [
    (Silu(), F.silu),
    (Silu(1.7), lambda o: o * torch.sigmoid(1.7 * o)),
    (Gelu(), F.gelu),
    (Gelu(approximate=True), lambda o: F.gelu(o, approximate="tanh")),
    (Mish(), F.mish),
    (HardSwish(), F.hardswish),
]


def test_the_table_covers_every_activation_of_the_graph() -> None:
    known = {
        c
        for c in vars(operators).values()
        if isinstance(c, type) and issubclass(c, Activation) and c is not Activation
    }
    in_table = {type(branch.op) for branch in TABLE}
    not_monotone = {type(op) for op, _ in NOT_MONOTONE}
    assert in_table | not_monotone == known
    registered = {
        name: {c for c, curve in activations.CURVES.items() if getattr(curve, name) is not None}
        for name in ("apply", "derivative", "inverse")
    }
    # A curve that is not monotone is inverted on its positive side.
    assert registered == {"apply": known, "derivative": in_table, "inverse": known}


@pytest.mark.parametrize("op", [op for op, _ in NOT_MONOTONE], ids=lambda op: type(op).__name__)
def test_what_is_not_monotone_has_no_derivative_in_the_output(op: Activation) -> None:
    o = torch.linspace(-6, 3, 5001, dtype=torch.float64, requires_grad=True)
    y = activations.apply(op, o, None)
    (slope,) = torch.autograd.grad(y.sum(), o)
    assert float(slope.min()) < -0.01 < 0.01 < float(slope.max())
    assert not op.monotone
    with pytest.raises(NotImplementedError, match=type(op).__name__):
        activations.derivative(op, y.detach(), None)


@every_branch
def test_the_static_half_agrees_on_what_can_be_undone(branch: Branch) -> None:
    assert branch.op.monotone
    flat = any(b.inverse is None for b in TABLE if type(b.op) is type(branch.op))
    assert branch.op.invertible is not flat


@every_branch
def test_stated_derivative_is_that_of_the_activation_symbolically(branch: Branch) -> None:
    difference = sympy.diff(branch.act, O) - branch.stated.subs(X, branch.act)
    assert sympy.simplify(difference.rewrite(sympy.exp)) == 0


@every_branch
def test_stated_inverse_undoes_the_activation_symbolically(branch: Branch) -> None:
    if branch.inverse is None:
        # Every pre-activation of this piece gives the same output: nothing can be inverted.
        assert sympy.diff(branch.act, O) == 0
        return
    if branch.act == sympy.atan(O):
        # sympy keeps atan(tan(X)), whose branch it cannot know: tan is one-to-one on (-pi/2, pi/2).
        assert branch.inverse.subs(X, branch.act) == O
        return
    back = branch.act.subs(O, branch.inverse)
    assert sympy.simplify((back - X).rewrite(sympy.exp)) == 0


@every_branch
def test_code_computes_what_is_stated(branch: Branch) -> None:
    o = points(branch)
    y = number(branch.act, O, o)
    torch.testing.assert_close(activations.apply(branch.op, o, branch.slope), y)
    derivative = activations.derivative(branch.op, y, branch.slope)
    torch.testing.assert_close(derivative, number(branch.stated, X, y), rtol=1e-9, atol=1e-12)
    inverse = activations.inverse(branch.op, y, branch.slope)
    if branch.inverse is None:
        assert bool(inverse.isnan().all())
    else:
        torch.testing.assert_close(inverse, o, rtol=1e-9, atol=1e-9)


@every_branch
def test_derivative_in_the_output_equals_autograd(branch: Branch) -> None:
    o = points(branch).requires_grad_(True)
    y = activations.apply(branch.op, o, branch.slope)
    (expected,) = torch.autograd.grad(y.sum(), o)
    got = activations.derivative(branch.op, y.detach(), branch.slope)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


MODULES = [
    (Relu(), torch.nn.ReLU()),
    (LeakyRelu(0.2), torch.nn.LeakyReLU(0.2)),
    (Elu(1.5), torch.nn.ELU(1.5)),
    (Sigmoid(), torch.nn.Sigmoid()),
    (Tanh(), torch.nn.Tanh()),
    (Softplus(), torch.nn.Softplus()),
    (ArcTan(), torch.atan),
    (Identity(), torch.nn.Identity()),
    (Celu(1.5), torch.nn.CELU(1.5)),
    (Selu(), torch.nn.SELU()),
    (Softsign(), torch.nn.Softsign()),
    (Clip(-1.0, 2.0), torch.nn.Hardtanh(-1.0, 2.0)),
    (Clip(0.0, 6.0), torch.nn.ReLU6()),
    (HardSigmoid(1 / 6, 0.5), torch.nn.Hardsigmoid()),
    *NOT_MONOTONE,
]


@pytest.mark.parametrize(("op", "module"), MODULES, ids=lambda v: type(v).__name__)
def test_forward_is_that_of_torch(op: Activation, module: Any) -> None:
    o = torch.linspace(-30, 30, 301, dtype=torch.float64)
    torch.testing.assert_close(activations.apply(op, o, None), module(o))


def test_prelu_takes_one_slope_per_channel() -> None:
    slope = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    o = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    o.requires_grad_(True)
    y = F.prelu(o, slope)
    (expected,) = torch.autograd.grad(y.sum(), o)
    torch.testing.assert_close(activations.apply(PRelu(), o, slope), y)
    torch.testing.assert_close(activations.derivative(PRelu(), y.detach(), slope), expected)
    torch.testing.assert_close(activations.inverse(PRelu(), y.detach(), slope), o.detach())
    with pytest.raises(ValueError, match="slope"):
        activations.apply(PRelu(), o, None)


def test_softplus_of_the_slides_is_wrong_and_ours_is_not() -> None:
    o = torch.linspace(-3, 1, 9, dtype=torch.float64, requires_grad=True)
    y = F.softplus(o)
    (truth,) = torch.autograd.grad(y.sum(), o)
    slides = 1 / (1 + torch.exp(-y.detach()))
    assert float((slides - truth).abs().min()) > 0.05
    ours = activations.derivative(Softplus(), y.detach(), None)
    torch.testing.assert_close(ours, truth)
    # What the slides state is the derivative in the pre-activation.
    torch.testing.assert_close(1 / (1 + torch.exp(-o.detach())), truth)


@pytest.mark.parametrize(
    ("op", "outside"),
    [
        (Relu(), [0.0, -1.0]),
        (Sigmoid(), [0.0, 1.0, -0.1, 1.1]),
        (Tanh(), [1.0, -1.0, 1.5]),
        (ArcTan(), [1.6, -1.6]),
        (Softplus(), [0.0, -0.5]),
        (Elu(1.0), [-1.0, -1.5]),
        (Celu(2.0), [-2.0, -2.5]),
        (Selu(), [-SELU_ALPHA * SELU_GAMMA - 1e-9, -3.0]),
        (Softsign(), [1.0, -1.0, 1.5]),
        (Clip(-1.0, 2.0), [-1.0, 2.0, 3.0]),
        (HardSigmoid(), [0.0, 1.0, -0.5]),
    ],
    ids=lambda v: type(v).__name__,
)
def test_outputs_without_a_pre_image_invert_to_nothing_finite(
    op: Activation, outside: list[float]
) -> None:
    y = torch.tensor(outside, dtype=torch.float64)
    assert not bool(torch.isfinite(activations.inverse(op, y, None)).any())
    assert bool((activations.derivative(op, y, None) >= 0).all())


class _Unlisted(Increasing):
    pass


def test_an_activation_outside_the_table_is_never_passed_through() -> None:
    y = torch.zeros(1)
    for function in (activations.apply, activations.derivative, activations.inverse):
        with pytest.raises(NotImplementedError, match="_Unlisted"):
            function(_Unlisted(), y, None)
