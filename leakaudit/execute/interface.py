"""What the execution of one operator reads and gives, and the outcome where it cannot run.

An executor is a function (op, call) -> outputs. It is differentiable by autograd wherever the
mathematics is, leaves the dtype of its inputs as it is, and makes every tensor on the device of its
inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from leakaudit.graph import Operator

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One application of an operator.

    Attributes:
        x: The inputs, activations or parameters, in the node's order.
        parameters: By role.
        shape: Of the first output, as the graph states it.
        name: Of the layer.
    """

    x: Sequence[Tensor]
    parameters: Mapping[str, Tensor]
    shape: tuple[int, ...]
    name: str


Executor = Callable[[Any, Call], Outputs]
# A family's operators and what runs them.
Executors = Mapping[type[Operator], Executor]


def of_inputs(function: Callable[..., Tensor]) -> Executor:
    """Runs an operator without hyperparameters: one function of its inputs."""
    return lambda _op, call: (function(*call.x),)


class NotExecutable(Exception):
    """The graph holds an operator that is not understood, or that contradicts its own shapes.

    The text names the layer.
    """
