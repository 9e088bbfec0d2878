"""Activation functions and the other functions of each element."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from leakaudit.execute import activations
from leakaudit.execute.interface import Inputs, NotExecutable, Outputs, Parameters
from leakaudit.graph import Graph, Node
from leakaudit.operators import Activation, Elementwise

FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "acosh": torch.acosh,
    "asin": torch.asin,
    "asinh": torch.asinh,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "log": torch.log,
    "reciprocal": torch.reciprocal,
    "round": torch.round,  # halves to even, as ONNX and numpy do
    "rsqrt": torch.rsqrt,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
}


def activation(
    op: Activation, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """y = act(o), by the table of activations that reconstruction inverts."""
    return (activations.apply(op, x[0], parameters.get("slope")),)


def elementwise(
    op: Elementwise, x: Inputs, parameters: Parameters, graph: Graph, node: Node
) -> Outputs:
    """One function of each element.

    Raises:
        NotExecutable: The function has no entry in `FUNCTIONS`.
    """
    function = FUNCTIONS.get(op.function)
    if function is None:
        raise NotExecutable(f"{node.name} (elementwise function {op.function})")
    return (function(x[0]),)
