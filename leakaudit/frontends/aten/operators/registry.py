"""ATen operators -> operators of the model graph: one explicit table, by family.

A target that is not in the table becomes `Unsupported`. To add one, write a builder in the file of
its family (Call -> Layer or Layers, raising `NotUnderstoodError` for what it cannot express) and a
line in that file's `BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from leakaudit.frontends.aten.call import Builder, Call, Layer
from leakaudit.frontends.aten.operators import (
    activation,
    arithmetic,
    attention,
    convolution,
    dense,
    embedding,
    normalisation,
    pooling,
    reduction,
    resize,
    selection,
    shape,
)
from leakaudit.frontends.aten.values import Stored, leaves
from leakaudit.frontends.aten.views import DETACH
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor
from leakaudit.operators import Unsupported

_FILES = (
    *(activation, arithmetic, attention, convolution, dense, embedding),
    *(normalisation, pooling, reduction, resize, selection, shape),
)
FAMILIES: Mapping[str, Mapping[str, Builder]] = {
    file.__name__.rpartition(".")[2]: file.BUILDERS for file in _FILES
}
BUILDERS: Mapping[str, Builder] = {
    target: build for family in FAMILIES.values() for target, build in family.items()
}

# Operators that are refused for a reason worth more than "no rule".
REFUSED = dict.fromkeys(DETACH, "detach cuts the gradient: nothing below it sends one")


def build(call: Call) -> tuple[Layer, ...]:
    """Translate one call; what is not understood comes back as `Unsupported`, still connected."""
    builder = BUILDERS.get(call.target) or BUILDERS.get(_without_writing(call.target))
    reason = REFUSED.get(call.target, "leakaudit has no rule for this operator")
    if builder is not None:
        try:
            # A constant too large for its dtype is infinite, without a warning on stderr.
            with np.errstate(all="ignore"):
                found = builder(call)
            return tuple(
                _checked(call, layer) for layer in (found if isinstance(found, tuple) else (found,))
            )
        except NotUnderstoodError as error:
            reason = str(error)
        # What numpy and Python raise for shapes and numbers that do not go together.
        except (ValueError, IndexError, ArithmeticError):
            reason = "its arguments do not fit each other"
    return (unsupported(call, reason),)


def _checked(call: Call, layer: Layer) -> Layer:
    """The layer with its outputs, whose shapes are what it computes."""
    outputs = layer.outputs or (call.output,)
    call.sink.check(layer, tuple(output.shape for output in outputs))
    return replace(layer, outputs=outputs)


def _without_writing(target: str) -> str:
    """`aten.relu.default` for `aten.relu_.default`, which writes its result into its argument."""
    library, _, rest = target.partition(".")
    name, _, variant = rest.partition(".")
    return f"{library}.{name.removesuffix('_')}.{variant}"


def unsupported(call: Call, reason: str) -> Layer:
    """The layer that stops every path but keeps the graph connected."""
    inputs: list[str] = []
    parameters: list[tuple[str, str]] = []
    for name, value in call.arguments.items():
        for item in leaves(value):
            if isinstance(item, Tensor):
                inputs.append(item.name)
            elif isinstance(item, Stored) and item.name in call.stored:
                parameters.append((name, item.name))
    op = Unsupported(call.target, reason)
    return Layer(op, tuple(inputs), tuple(parameters), call.outputs)
