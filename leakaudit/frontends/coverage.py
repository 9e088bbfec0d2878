"""Which operators of ONNX and ATen each operator of the graph comes from, read off the tables.

No list is kept beside the builders: what a builder can make is what its code, and the helpers of
the frontends that its code names, refer to. Needs neither torch nor a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from leakaudit import operators as ops
from leakaudit.frontends.aten.operators import registry as pt2_ops
from leakaudit.frontends.onnx.operators import registry as onnx_ops

_BASES = (ops.Operator, ops.Activation, ops.Unsupported)


@dataclass(frozen=True, slots=True)
class Coverage:
    """One line of the table.

    Attributes:
        operator: Operator of the graph.
        onnx: Names of ONNX operators that become it, or become nodes with it among them.
        aten: The same for ATen operators, without the name of the overload.
    """

    operator: type[ops.Operator]
    onnx: tuple[str, ...]
    aten: tuple[str, ...]


def coverage() -> tuple[Coverage, ...]:
    """One line for each operator of the graph but `Unsupported`, in alphabetical order."""
    onnx = {name: operators_of(build) for name, build in onnx_ops.OPERATORS.items()}
    aten = {name: operators_of(build) for name, build in pt2_ops.BUILDERS.items()}
    kinds: list[type[ops.Operator]] = [
        vars(ops)[name] for name in sorted(ops.__all__) if _is_operator(vars(ops)[name])
    ]
    return tuple(
        Coverage(
            kind,
            tuple(sorted(name for name, made in onnx.items() if kind in made)),
            tuple(sorted({_plain(name) for name, made in aten.items() if kind in made})),
        )
        for kind in kinds
    )


def operators_of(build: Callable[..., object]) -> frozenset[type[ops.Operator]]:
    """The operators that a builder can make."""
    found: set[type[ops.Operator]] = set()
    seen: set[int] = set()
    pending: list[Any] = [build]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, ops.Operator):
            value = type(value)
        if _is_operator(value):
            found.add(value)
        elif isinstance(value, FunctionType) and value.__module__.startswith(__package__):
            pending.extend(_named(value))
        elif isinstance(value, dict):
            pending.extend(value.values())
    return frozenset(found)


def _is_operator(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, ops.Operator) and value not in _BASES


def _named(function: FunctionType) -> Iterator[object]:
    """What a function's code refers to: globals, attributes of modules, what it closes over."""
    for cell in function.__closure__ or ():
        yield cell.cell_contents
    names = list(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if isinstance(value, ModuleType):
            yield from (vars(value)[other] for other in names if other in vars(value))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _plain(target: str) -> str:
    """`conv2d` for `aten.conv2d.padding`."""
    return target.removeprefix("aten.").split(".")[0].rstrip("_")
