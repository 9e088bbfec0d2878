"""Matrix products: dense layers, products of activations, einsum."""

from __future__ import annotations

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, Roles, by_target
from leakaudit.frontends.aten.operators.arithmetic import add
from leakaudit.frontends.aten.operators.shape import reordered
from leakaudit.frontends.aten.values import Stored
from leakaudit.frontends.build import NotUnderstoodError, explicit_equation


def _dense(
    call: Call, source: str, weight: str, bias: str | None, *, weight_is_out_in: bool
) -> Layer | None:
    """y = alpha·x·Wᵀ + beta·b, where argument `weight` is W or, as in matmul, Wᵀ.

    Returns:
        None where the weight is not a stored matrix or the bias not a stored vector.
    """
    stored, offset = call.arguments.get(weight), call.arguments.get(bias) if bias else None
    if not isinstance(stored, Stored) or len(stored.shape) != 2:
        return None
    if not (stored.plain or stored.matrix_transposed):
        return None
    in_axis = 1 if weight_is_out_in else 0
    in_features, out_features = stored.shape[in_axis], stored.shape[1 - in_axis]
    parameters: Roles = (("weight", stored.name),)
    if offset is not None:
        if not (isinstance(offset, Stored) and offset.plain and offset.shape == (out_features,)):
            return None
        parameters += (("bias", offset.name),)
    tensor = call.tensor(source)
    if tensor.shape[-1:] != (in_features,):
        raise NotUnderstoodError(f"its {weight} does not fit its input")
    return Layer(
        ops.Linear(
            in_features,
            out_features,
            transposed=stored.plain is not weight_is_out_in,
            alpha=call.number("alpha", 1.0),
            beta=call.number("beta", 1.0),
        ),
        (tensor.name,),
        parameters,
    )


def _linear(call: Call) -> Layer:
    layer = _dense(call, "input", "weight", "bias", weight_is_out_in=True)
    if layer is not None:
        return layer
    layer = _dense(call, "input", "weight", None, weight_is_out_in=True)
    if layer is None:
        source, weight = call.operand("input"), call.operand("weight")
        if len(weight.shape) == 2:
            weight = call.computed(reordered(weight, (1, 0)), weight.shape[::-1])
        layer = Layer(ops.MatMul(), (source.name, weight.name))
    if call.arguments.get("bias") is None:
        return layer
    return add(call.computed(layer, call.output.shape), call.operand("bias"))


def _matmul(call: Call) -> Layer:
    names = ("mat2", "vec", "tensor", "other")
    other = next((name for name in names if name in call.arguments), "other")
    layer = _dense(call, "self", other, None, weight_is_out_in=False)
    if layer is not None:
        return layer
    return Layer(ops.MatMul(), (call.operand("self").name, call.operand(other).name))


def _add_product(call: Call) -> Layer:
    """addmm, baddbmm, addmv: beta · self + alpha · (left @ right)."""
    pairs = (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec"))
    left, right = next((pair for pair in pairs if pair[0] in call.arguments), pairs[0])
    layer = _dense(call, left, right, "self", weight_is_out_in=False)
    if layer is not None:
        return layer
    first, second = call.operand(left), call.operand(right)
    shape = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    shape += first.shape[-2:-1] + second.shape[-1:] if right != "vec" else first.shape[:1]
    product = call.computed(Layer(ops.MatMul(), (first.name, second.name)), shape)
    return add(
        call.scaled(product, call.number("alpha", 1.0)),
        call.scaled(call.operand("self"), call.number("beta", 1.0)),
    )


def _einsum(call: Call) -> Layer:
    operands = [call.operand_of(value, "tensors") for value in call.members("tensors")]
    equation = call.arguments.get("equation")
    if not isinstance(equation, str) or not 1 <= len(operands) <= 2:
        raise NotUnderstoodError(f"einsum of {len(operands)} tensors is not understood")
    ranks = [len(tensor.shape) for tensor in operands]
    op = ops.Einsum(explicit_equation(equation, ranks))
    return Layer(op, tuple(tensor.name for tensor in operands))


BUILDERS = by_target(
    {
        "linear": _linear,
        "addmm addmv baddbmm": _add_product,
        "mm mv bmm matmul dot": _matmul,
        "einsum": _einsum,
    }
)
