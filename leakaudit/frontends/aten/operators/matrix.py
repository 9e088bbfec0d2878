"""Matrix products: dense layers, products of activations, einsum, attention."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping

import numpy as np

from leakaudit.frontends.aten.call import Call, Layer
from leakaudit.frontends.aten.operators.arithmetic import add, scaled
from leakaudit.frontends.aten.values import NotUnderstoodError, Stored, Value
from leakaudit.graph import Tensor
from leakaudit.operators import Attention, Einsum, Linear, MatMul, Transpose


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
    parameters: tuple[tuple[str, str], ...] = (("weight", stored.name),)
    if offset is not None:
        if not (isinstance(offset, Stored) and offset.plain and offset.shape == (out_features,)):
            return None
        parameters += (("bias", offset.name),)
    tensor = call.tensor(source)
    if tensor.shape[-1:] != (in_features,):
        raise NotUnderstoodError(f"its {weight} does not fit its input")
    return Layer(
        Linear(
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
            weight = call.emit(Transpose((1, 0)), (weight,), weight.shape[::-1])
        layer = Layer(MatMul(), (source.name, weight.name))
    if call.arguments.get("bias") is None:
        return layer
    return add(call, _computed(call, layer, call.output.shape), call.operand("bias"))


def _computed(call: Call, layer: Layer, shape: tuple[int, ...]) -> Tensor:
    return call.sink.emit(
        layer.op, layer.inputs, shape, call.outputs[0].dtype, parameters=layer.parameters
    )


def _matmul(call: Call) -> Layer:
    names = ("mat2", "vec", "tensor", "other")
    other = next((name for name in names if name in call.arguments), "other")
    layer = _dense(call, "self", other, None, weight_is_out_in=False)
    if layer is not None:
        return layer
    return Layer(MatMul(), (call.operand("self").name, call.operand(other).name))


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
    product = call.emit(MatMul(), (first, second), shape)
    return add(
        call,
        scaled(call, product, call.number("alpha", 1.0)),
        scaled(call, call.operand("self"), call.number("beta", 1.0)),
    )


def _einsum(call: Call) -> Layer:
    operands = [call.operand_of(value, "tensors") for value in call.members("tensors")]
    equation = call.arguments.get("equation")
    if not isinstance(equation, str) or not 1 <= len(operands) <= 2:
        raise NotUnderstoodError(f"einsum of {len(operands)} tensors is not understood")
    return Layer(Einsum(_explicit(equation, operands)), tuple(tensor.name for tensor in operands))


def _explicit(equation: str, operands: list[Tensor]) -> str:
    """The equation with its output written out and letters in place of an ellipsis."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise NotUnderstoodError("its equation does not fit its tensors")
    free = [letter for letter in string.ascii_letters if letter not in equation]
    named = [
        len(tensor.shape) - len(term.replace("...", ""))
        for term, tensor in zip(terms, operands, strict=True)
        if "..." in term
    ]
    most = max(named, default=0)
    if any(count < 0 for count in named) or most > len(free):
        raise NotUnderstoodError("its equation does not fit its tensors")
    letters = "".join(free[:most])
    if not arrow:
        singles = sorted(
            letter for letter in set(left) if letter.isalpha() and left.count(letter) == 1
        )
        right = ("..." if named else "") + "".join(singles)
    for index, (term, tensor) in enumerate(zip(terms, operands, strict=True)):
        count = len(tensor.shape) - len(term.replace("...", ""))
        terms[index] = term.replace("...", letters[most - count :])
    return f"{','.join(terms)}->{right.replace('...', letters)}"


def _attention(call: Call) -> Layer:
    if call.number("dropout_p", 0.0) != 0:
        raise NotUnderstoodError(
            "dropout is active: export the model in evaluation mode (model.eval())"
        )
    q, k, v = (call.operand(name) for name in ("query", "key", "value"))
    if min(len(q.shape), len(k.shape), len(v.shape)) < 2:
        raise NotUnderstoodError("its query, key or value has no tokens axis")
    scale = call.optional_number("scale", 1 / math.sqrt(max(q.shape[-1], 1)))
    inputs = [q.name, k.name, v.name]
    mask = next(
        (call.arguments[name] for name in ("attn_mask", "attn_bias") if name in call.arguments),
        None,
    )
    additive = None if mask is None else _additive_mask(call, mask)
    if additive is not None:
        inputs.append(additive.name)
    return Layer(
        Attention(
            scale, causal=call.flag("is_causal", False), grouped=call.flag("enable_gqa", False)
        ),
        tuple(inputs),
        outputs=(call.output,),
    )


def _additive_mask(call: Call, mask: Value) -> Tensor | None:
    """The mask as numbers to add; None for one that hides nothing."""
    operand = call.operand_of(mask, "attn_mask")
    if operand.dtype != "bool":
        return operand
    seen = call.numbers_of(mask, "boolean attn_mask")
    if seen.all():
        return None
    if not seen.any(axis=-1).all():
        raise NotUnderstoodError("its mask hides every key from a query")
    dtype = np.float32 if call.outputs[0].dtype != "float64" else np.float64
    return call.sink.constant(np.where(seen, 0.0, -np.inf).astype(dtype)).operand


_ATTENTION = (
    "aten.scaled_dot_product_attention.default",
    "aten._scaled_dot_product_attention_math.default",
    "aten._scaled_dot_product_flash_attention.default",
    "aten._scaled_dot_product_flash_attention_for_cpu.default",
    "aten._scaled_dot_product_efficient_attention.default",
    "aten._scaled_dot_product_cudnn_attention.default",
    "aten._scaled_dot_product_fused_attention_overrideable.default",
)

BUILDERS: Mapping[str, Callable[[Call], Layer]] = {
    "aten.linear.default": _linear,
    "aten.addmm.default": _add_product,
    "aten.addmv.default": _add_product,
    "aten.baddbmm.default": _add_product,
    "aten.mm.default": _matmul,
    "aten.mv.default": _matmul,
    "aten.bmm.default": _matmul,
    "aten.matmul.default": _matmul,
    "aten.dot.default": _matmul,
    "aten.einsum.default": _einsum,
    **dict.fromkeys(_ATTENTION, _attention),
}
