"""ATen operators -> operators of the model graph: an explicit table, one builder each.

A target that is not in the table becomes `Unsupported`. To add one, write a builder
(Call -> Layer, raising `NotUnderstoodError` for what it cannot express) and a line in `BUILDERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from leakaudit.frontends.pt2_call import Call, Layer, NotUnderstoodError, Stored, leaves
from leakaudit.frontends.pt2_views import COPIES, DETACH, RESHAPES, TRANSPOSES, permutation
from leakaudit.graph import Tensor
from leakaudit.graph.operators import (
    Activation,
    ArcTan,
    Conv,
    Elu,
    Identity,
    LeakyRelu,
    Linear,
    PRelu,
    Relu,
    Reshape,
    Sigmoid,
    Softplus,
    Tanh,
    Transpose,
    Unsupported,
)

Builder = Callable[[Call], Layer]


def build(call: Call) -> Layer:
    """Translate one call; what is not understood comes back as `Unsupported`, still connected."""
    builder = BUILDERS.get(call.target)
    reason = REFUSED.get(call.target, "leakaudit has no rule for this operator")
    if builder is not None:
        try:
            layer = builder(call)
            _require_shape(call, layer)
            return layer
        except NotUnderstoodError as error:
            reason = str(error)
    return unsupported(call, reason)


def _require_shape(call: Call, layer: Layer) -> None:
    """Refuse a call whose stated output shape is not the one its operator computes.

    Later stages trust the shapes of the graph; the file that states them is not trusted.
    """
    source = next(
        value.shape
        for value in call.arguments.values()
        if isinstance(value, Tensor) and value.name == layer.inputs[0]
    )
    expected = call.output.shape
    match layer.op:
        case Activation():
            expected = source
        case Linear(out_features=out_features):
            expected = (*source[:-1], out_features)
        case Transpose(permutation=order):
            expected = tuple(source[axis] for axis in order)
        case Conv() as conv:
            weight = call.weight("weight").shape
            sizes = (
                (size + begin + end - dilation * (kernel - 1) - 1) // stride + 1
                for size, begin, end, dilation, kernel, stride in zip(
                    source[2:],
                    conv.padding_begin,
                    conv.padding_end,
                    conv.dilation,
                    conv.kernel,
                    conv.stride,
                    strict=True,
                )
            )
            expected = (source[0], weight[0], *sizes)
    if call.output.shape != expected:
        raise NotUnderstoodError(
            f"its output is stated as {call.output.shape}, and it computes {expected}"
        )


def unsupported(call: Call, reason: str) -> Layer:
    """The layer that stops every path but keeps the graph connected."""
    inputs: list[str] = []
    parameters: list[tuple[str, str]] = []
    for name, value in call.arguments.items():
        for item in leaves(value):
            if isinstance(item, Tensor):
                inputs.append(item.name)
            elif isinstance(item, Stored):
                parameters.append((name, item.name))
    return Layer(Unsupported(call.target, reason), tuple(inputs), tuple(parameters))


# --- layers with weights ------------------------------------------------------------------------


def _spread(values: tuple[int, ...], axes: int, name: str) -> tuple[int, ...]:
    """One value per spatial axis; torch lets a single one stand for all."""
    if len(values) == 1:
        return values * axes
    if len(values) != axes:
        raise NotUnderstoodError(f"its {name} has {len(values)} entries for {axes} axes")
    return values


def _convolution(call: Call) -> Layer:
    source, weight = call.tensor("input"), call.plain_weight("weight")
    axes = len(weight.shape) - 2
    if not 1 <= axes <= 3:
        raise NotUnderstoodError(f"it has {axes} spatial axes")
    if len(source.shape) != axes + 2:
        raise NotUnderstoodError("its input has no batch axis")
    if call.flag("transposed", False):
        raise NotUnderstoodError("transposed convolution is not understood")
    kernel = weight.shape[2:]
    stride = _spread(call.integers("stride", (1,)), axes, "stride")
    dilation = _spread(call.integers("dilation", (1,)), axes, "dilation")
    groups = call.integer("groups", 1)
    if groups < 1 or min(stride) < 1 or min(dilation) < 1:
        raise NotUnderstoodError("its groups, stride or dilation is below 1")
    if source.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise NotUnderstoodError("its groups do not fit its channels")
    mode = call.arguments.get("padding")
    if mode == "valid":
        begin = end = (0,) * axes
    elif mode == "same":
        # torch puts the odd pixel of an even extent at the end.
        total = tuple(d * (k - 1) for k, d in zip(kernel, dilation, strict=True))
        begin = tuple(t // 2 for t in total)
        end = tuple(t - b for t, b in zip(total, begin, strict=True))
    else:
        begin = end = _spread(call.integers("padding", (0,)), axes, "padding")
    return Layer(
        Conv(kernel, stride, begin, end, dilation, groups),
        (source.name,),
        (("weight", weight.name), *call.optional_bias("bias", weight.shape[0])),
    )


def _dense(
    call: Call,
    source: str,
    weight: str,
    bias: str | None,
    *,
    weight_is_out_in: bool,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Layer:
    """y = alpha·x·Wᵀ + beta·b, where argument `weight` is W or, as in matmul, Wᵀ."""
    tensor, stored = call.tensor(source), call.weight(weight)
    if len(stored.shape) != 2:
        raise NotUnderstoodError(f"its {weight} has {len(stored.shape)} axes, not 2")
    if not (stored.plain or stored.matrix_transposed):
        raise NotUnderstoodError(f"its {weight} is a rearranged view of {stored.name!r}")
    in_axis = 1 if weight_is_out_in else 0
    in_features, out_features = stored.shape[in_axis], stored.shape[1 - in_axis]
    if tensor.shape[-1:] != (in_features,):
        raise NotUnderstoodError(f"its {weight} does not fit its input")
    return Layer(
        Linear(
            in_features,
            out_features,
            transposed=stored.plain is not weight_is_out_in,
            alpha=alpha,
            beta=beta,
        ),
        (tensor.name,),
        (
            ("weight", stored.name),
            *(call.optional_bias(bias, out_features) if bias is not None else ()),
        ),
    )


def _linear(call: Call) -> Layer:
    return _dense(call, "input", "weight", "bias", weight_is_out_in=True)


def _addmm(call: Call) -> Layer:
    return _dense(
        call,
        "mat1",
        "mat2",
        "self",
        weight_is_out_in=False,
        alpha=call.number("alpha", 1.0),
        beta=call.number("beta", 1.0),
    )


def _matmul(call: Call) -> Layer:
    other = "mat2" if "mat2" in call.arguments else "other"
    return _dense(call, "self", other, None, weight_is_out_in=False)


# --- activations --------------------------------------------------------------------------------


def _fixed(op: Activation) -> Builder:
    def builder(call: Call) -> Layer:
        name = "input" if "input" in call.arguments else "self"
        return Layer(op, (call.tensor(name).name,))

    return builder


def _leaky_relu(call: Call) -> Layer:
    slope = call.number("negative_slope", 0.01)
    return Layer(LeakyRelu(slope), (call.tensor("self").name,))


def _elu(call: Call) -> Layer:
    if call.number("scale", 1.0) != 1 or call.number("input_scale", 1.0) != 1:
        raise NotUnderstoodError("it scales its input or output")
    return Layer(Elu(call.number("alpha", 1.0)), (call.tensor("self").name,))


def _softplus(call: Call) -> Layer:
    if call.number("beta", 1.0) != 1 or call.number("threshold", 20.0) != 20:
        raise NotUnderstoodError("only softplus with beta 1 and threshold 20 is understood")
    return Layer(Softplus(), (call.tensor("self").name,))


def _prelu(call: Call) -> Layer:
    source, slope = call.tensor("self"), call.weight("weight")
    count = math.prod(slope.shape)
    channels = source.shape[1] if len(source.shape) > 1 else 1
    if count not in (1, channels):
        raise NotUnderstoodError(f"it has {count} slopes for {channels} channels")
    if call.target == "aten.prelu.default":
        on_channels = slope.plain
    else:
        # Decomposed graphs broadcast: the slopes stand in a view (1, C, 1, 1).
        leading = (1,) * (len(source.shape) - len(slope.shape))
        aligned = (*leading, *slope.shape)
        on_channels = all(size == 1 for axis, size in enumerate(aligned) if axis != 1)
    if count > 1 and not on_channels:
        raise NotUnderstoodError("its slopes do not lie along the channels")
    return Layer(PRelu(), (source.name,), (("slope", slope.name),))


def _dropout(call: Call) -> Layer:
    if call.flag("train", True) and call.number("p", 0.5) != 0:
        raise NotUnderstoodError(
            "dropout is active: export the model in evaluation mode (model.eval())"
        )
    return Layer(Identity(), (call.tensor("input").name,))


# --- rearrangements -----------------------------------------------------------------------------


def _reshape(call: Call) -> Layer:
    source = call.tensor("self")
    if math.prod(source.shape) != math.prod(call.output.shape):
        raise NotUnderstoodError("its output has another number of elements than its input")
    return Layer(Reshape(), (source.name,))


def _transpose(call: Call) -> Layer:
    source = call.tensor("self")
    return Layer(Transpose(permutation(call, len(source.shape))), (source.name,))


_DROPOUTS = (
    "aten.dropout.default",
    "aten.dropout_.default",
    "aten.feature_dropout.default",
    "aten.feature_dropout_.default",
    "aten.alpha_dropout.default",
    "aten.alpha_dropout_.default",
)

BUILDERS: Mapping[str, Builder] = {
    "aten.conv1d.default": _convolution,
    "aten.conv1d.padding": _convolution,
    "aten.conv2d.default": _convolution,
    "aten.conv2d.padding": _convolution,
    "aten.conv3d.default": _convolution,
    "aten.conv3d.padding": _convolution,
    "aten.convolution.default": _convolution,
    "aten.linear.default": _linear,
    "aten.addmm.default": _addmm,
    "aten.mm.default": _matmul,
    "aten.matmul.default": _matmul,
    "aten.relu.default": _fixed(Relu()),
    "aten.relu_.default": _fixed(Relu()),
    "aten.leaky_relu.default": _leaky_relu,
    "aten.leaky_relu_.default": _leaky_relu,
    "aten.prelu.default": _prelu,
    "aten._prelu_kernel.default": _prelu,
    "aten.elu.default": _elu,
    "aten.elu_.default": _elu,
    "aten.sigmoid.default": _fixed(Sigmoid()),
    "aten.sigmoid_.default": _fixed(Sigmoid()),
    "aten.tanh.default": _fixed(Tanh()),
    "aten.tanh_.default": _fixed(Tanh()),
    "aten.atan.default": _fixed(ArcTan()),
    "aten.atan_.default": _fixed(ArcTan()),
    "aten.arctan.default": _fixed(ArcTan()),
    "aten.arctan_.default": _fixed(ArcTan()),
    "aten.softplus.default": _softplus,
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(COPIES, _fixed(Identity())),
    **dict.fromkeys(RESHAPES, _reshape),
    **dict.fromkeys(TRANSPOSES, _transpose),
}

# Operators that are refused for a reason worth more than "no rule".
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(DETACH, "detach cuts the gradient: nothing below it sends one"),
}
