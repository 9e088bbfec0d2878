"""A case of one operator: its inputs, and who else computes what it should give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from one_node import onnx_reference

from leakaudit import operators as ops

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Case:
    """One operator on one input.

    Attributes:
        op: The operator.
        inputs: float64, or integers.
        reference: inputs, parameters -> the outputs that are right.
        parameters: By role.
        stored: Which inputs are parameters of the graph.
        label: Tells cases of one operator apart.
        tolerance: How far the reference, in float64, is to be trusted.
    """

    op: ops.Operator
    inputs: Tensors
    reference: Callable[[Tensors, Mapping[str, torch.Tensor]], Tensors]
    parameters: Mapping[str, torch.Tensor] = field(default_factory=dict)
    stored: tuple[int, ...] = ()
    label: str = ""
    tolerance: float = 1e-12

    def __str__(self) -> str:
        return f"{type(self.op).__name__} {self.label}".strip()


def rand(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> torch.Tensor:
    """Uniform in [low, high), float64."""
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def whole(*values: int) -> torch.Tensor:
    """int64, for the inputs of ONNX that are shapes, axes or indices."""
    return torch.tensor(values, dtype=torch.int64)


def by_onnx(
    kind: str, *more: Any, roles: tuple[str, ...] = (), outputs: int = 1, opset: int = 21, **a: Any
) -> Callable[[Tensors, Mapping[str, torch.Tensor]], Tensors]:
    """Ask ONNX's evaluator: inputs first, then parameters in this order of roles, then `more`."""

    def reference(inputs: Tensors, parameters: Mapping[str, torch.Tensor]) -> Tensors:
        arguments = [*inputs, *(parameters.get(role) for role in roles), *more]
        return onnx_reference(kind, arguments, outputs, opset, **a)[: 1 if outputs == 1 else None]

    return reference


def by_torch(function: Callable[..., torch.Tensor]) -> Callable[..., Tensors]:
    """Call a function of the inputs."""
    return lambda inputs, parameters: (function(*inputs),)


def by_numpy(function: Callable[..., Any]) -> Callable[..., Tensors]:
    """Call a function of the inputs as numpy arrays."""
    return lambda inputs, parameters: (torch.from_numpy(function(*(x.numpy() for x in inputs))),)


X = rand(2, 3, 4, 5)  # (B, N, H, W)
# Numbers that single precision holds exactly: ONNX stores attributes in it.
EPSILON = 2.0**-10
ERF = np.vectorize(math.erf)
number = partial(torch.tensor, dtype=torch.float64)
