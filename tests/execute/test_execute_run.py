"""Running a whole graph: the order of nodes, shared parameters, and every refusal by name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

from one_node import NoWeights, execute_one
from operator_case import rand

from leakaudit import operators as ops
from leakaudit.execute import NotExecutable, activation as activations, run
from leakaudit.graph import Graph, Node, Tensor
from leakaudit.operators.arithmetic import Additive


def residual_block() -> Graph:
    """y = relu(x W + b) + x · s, the parameter s read as an operand and W twice."""
    names = ("x", "o", "h", "o2", "branch", "y")
    return Graph(
        name="residual",
        format="test",
        inputs=("x",),
        outputs=("y",),
        tensors={name: Tensor(name, (2, 4), "float64") for name in names},
        parameters={},
        nodes=(
            Node("dense", ops.Linear(4, 4), ("x",), ("o",), (("weight", "W"), ("bias", "b"))),
            Node("relu", ops.Relu(), ("o",), ("h",)),
            Node("again", ops.Linear(4, 4), ("h",), ("o2",), (("weight", "W"),)),
            Node("scale", ops.Mul(), ("x", "s"), ("branch",)),
            Node("sum", ops.Add(), ("o2", "branch"), ("y",)),
        ),
        weights=NoWeights(),
    )


def test_a_graph_runs_node_after_node_and_gives_every_tensor() -> None:
    x, W, b, s = rand(2, 4), rand(4, 4, seed=1), rand(4, seed=2), rand(4, seed=3)
    values = run(residual_block(), {"W": W, "b": b, "s": s}, {"x": x})
    hidden = (x @ W.T + b).relu()
    assert set(values) == {"x", "o", "h", "o2", "branch", "y"}
    torch.testing.assert_close(values["h"], hidden)
    torch.testing.assert_close(values["y"], hidden @ W.T + x * s)


def test_gradients_reach_every_parameter_and_the_input() -> None:
    leaves = [rand(2, 4), rand(4, 4, seed=1), rand(4, seed=2), rand(4, seed=3)]
    leaves = [leaf.requires_grad_(True) for leaf in leaves]
    x, W, b, s = leaves
    y = run(residual_block(), {"W": W, "b": b, "s": s}, {"x": x})["y"]
    expected = (x @ W.T + b).relu() @ W.T + x * s
    ours = torch.autograd.grad(y.square().sum(), leaves)
    theirs = torch.autograd.grad(expected.square().sum(), leaves)
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, want)


def test_an_unsupported_operator_is_named_with_its_reason() -> None:
    op = ops.Unsupported("com.acme::Fused", "leakaudit has no rule for this operator")
    with pytest.raises(NotExecutable, match=r"layer \(com.acme::Fused: leakaudit has no rule"):
        execute_one(op, [rand(2, 2)], [(2, 2)])


@dataclass(frozen=True, slots=True)
class Unheard(Additive):
    """An operator that no registry holds."""


def test_an_operator_without_executor_is_refused_not_passed_through() -> None:
    with pytest.raises(NotExecutable, match=r"layer \(Unheard\)"):
        execute_one(Unheard(), [rand(2, 2)], [(2, 2)])


@pytest.mark.parametrize(
    ("op", "named"),
    [
        (ops.Elementwise("gamma"), "gamma"),
        (ops.Reduce("median", (0,), True), "median"),
        (ops.Pad((1, 1), (1, 1), "mirror"), "mirror"),
    ],
)
def test_a_function_that_is_not_known_is_refused(op: ops.Operator, named: str) -> None:
    with pytest.raises(NotExecutable, match=f"layer .*{named}"):
        execute_one(op, [rand(3, 3)], [(3, 3)])


def test_a_shape_that_the_file_states_wrongly_is_refused() -> None:
    with pytest.raises(NotExecutable, match=r"layer \(Relu gives \(2, 3\), .* states \(3, 2\)\)"):
        execute_one(ops.Relu(), [rand(2, 3)], [(3, 2)])


@pytest.mark.parametrize(
    "op",
    [
        *(ops.Silu(), ops.Silu(beta=0.3), ops.Silu(beta=7.0)),
        *(ops.Gelu(), ops.Gelu(approximate=True), ops.Mish(), ops.HardSwish()),
    ],
    ids=repr,
)
def test_what_is_not_monotone_is_inverted_on_its_positive_side(op: ops.Activation) -> None:
    o = torch.cat([torch.linspace(-8, 8, 4001), torch.logspace(-12, 3, 200)]).double()
    y = activations.apply(op, o, None)
    assert bool((y[:4001].diff() < 0).any())
    assert bool((y[:4001].diff() > 0).any())
    with pytest.raises(NotImplementedError):
        activations.derivative(op, y, None)
    inverse = activations.inverse(op, y, None)
    # An output is positive exactly where its input is: no negative one is taken for an equation.
    assert torch.equal(inverse.isnan(), o <= 0)
    torch.testing.assert_close(inverse[o > 0], o[o > 0], rtol=1e-14, atol=0)


def test_a_curve_that_falls_where_it_is_positive_is_not_inverted() -> None:
    with pytest.raises(NotImplementedError):
        activations.inverse(ops.Silu(beta=-1.0), torch.ones(3), None)


@pytest.mark.parametrize("op", [ops.Clip(-1.0, 2.0), ops.Clip(0.0, 6.0), ops.HardSigmoid()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_saturation_levels_are_not_inverted(op: ops.Activation, dtype: torch.dtype) -> None:
    o = torch.linspace(-9, 9, 37, dtype=dtype).requires_grad_(True)
    y = activations.apply(op, o, None)
    (gradient,) = torch.autograd.grad(y.sum(), o)
    flat = (y == y.max()) | (y == y.min())
    assert bool(flat.any())
    assert not bool(flat.all())
    assert torch.equal(activations.derivative(op, y.detach(), None), gradient)
    inverse = activations.inverse(op, y.detach(), None)
    assert torch.equal(inverse.isnan(), flat)
    torch.testing.assert_close(inverse[~flat], o.detach()[~flat])
