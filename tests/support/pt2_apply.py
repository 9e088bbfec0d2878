"""Modules made of one function, with numbers in every parameter that show a wrong place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from leakaudit import operators as ops

nn = torch.nn


class Apply(nn.Module):
    """A function of the inputs and of named parameters and buffers."""

    def __init__(self, function: Callable[..., Any], **stored: Any) -> None:
        super().__init__()
        self.function = function
        self.names = list(stored)
        for name, value in stored.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs, **{name: getattr(self, name) for name in self.names})


def weights(*shape: int) -> Any:
    return nn.Parameter(torch.randn(*shape))


def lively(module: Any) -> Any:
    """Give every parameter and buffer numbers that show a wrong role or a wrong place."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def normal(*shape: int) -> Any:
    return torch.randn(*shape)


def positive(*shape: int) -> Any:
    return torch.rand(*shape) * 0.8 + 0.1


# Name: (what makes the module, what makes its inputs, the operators it must come out as).
Case = tuple[Callable[[], Any], Callable[[], Sequence[Any]], set[type[ops.Operator]]]


def of(
    function: Any,
    *shapes: tuple[int, ...],
    gives: Sequence[type[ops.Operator]] = (),
    make: Callable[..., Any] = normal,
    **stored: Any,
) -> Case:
    """A case from a function, or from a module, and the shapes of its inputs."""

    def module() -> Any:
        if isinstance(function, nn.Module):
            return lively(function)
        return Apply(
            function,
            **{k: weights(*v) if isinstance(v, tuple) else v.clone() for k, v in stored.items()},
        ).eval()

    return module, lambda: [make(*shape) for shape in shapes], set(gives)
