"""Evaluation of single ONNX nodes whose inputs are all constants."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

# Only what shape arithmetic and the preparation of weights use: no control flow, no random numbers,
# no decoders of images or regular expressions, which a hostile file could turn against us.
FOLDABLE = frozenset(
    {
        *("Abs", "Ceil", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Round", "Sign", "Sqrt"),
        *("Add", "Div", "Max", "Min", "Mod", "Mul", "Pow", "Sub", "Sum"),
        *("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"),
        *("Cast", "CastLike", "DequantizeLinear", "Identity"),
        *("ConstantOfShape", "Range", "Trilu"),
        *("CumSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("Concat", "Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
        *("Gather", "ScatterND", "Slice", "Split", "Where"),
    }
)

# The reference evaluator leaves out older versions, which mean the same for what they allow.
_EARLIEST = {"DequantizeLinear": 19}

# The reference evaluator documents no errors; wrong attributes and values raise these.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    onnx.checker.ValidationError,
)


class FoldError(Exception):
    """A node of constants that cannot be evaluated."""


def evaluate(
    node: onnx.NodeProto, values: Mapping[str, np.ndarray], opset: int
) -> dict[str, np.ndarray]:
    """Compute the outputs of a node of the standard domain, by name.

    Raises:
        FoldError: The operator or its values are wrong.
    """
    names = list(dict.fromkeys(name for name in node.input if name))
    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "fold",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(values[name].dtype), None
            )
            for name in names
        ],
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
    )
    divisors = node.input[1:2] if node.op_type in ("Div", "Mod") else []
    if any(values[n].dtype.kind in "iu" and not values[n].all() for n in divisors):
        raise FoldError(f"{node.op_type} divides by zero")  # numpy would make it 0
    opset = max(opset, _EARLIEST.get(node.op_type, 0))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            arrays = ReferenceEvaluator(model).run(None, {name: values[name] for name in names})
    except _FAILURES as error:
        raise FoldError(f"{node.op_type} fails on its values") from error
    return {name: np.asarray(array) for name, array in zip(outputs, arrays, strict=True)}
