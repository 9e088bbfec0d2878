"""Upsample and Resize."""

from __future__ import annotations

import onnx

from leakaudit import operators as ops
from leakaudit.frontends.build import NotUnderstoodError, axis_of
from leakaudit.frontends.onnx.context import Builders, Context
from leakaudit.frontends.onnx.node import integer, integer_list, real, text

COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("floor", "round_prefer_floor")
MODES = ("nearest", "linear", "cubic")


def upsample(context: Context, node: onnx.NodeProto) -> None:
    """Upsample (until opset 9): nearest or linear by scales, asymmetric coordinates."""
    x = context.real(node, 0)
    scales = _float_list(node, "scales") if context.opset < 9 else _numbers(context, node, 1)
    mode = text(node, "mode", "nearest").replace("bilinear", "linear")
    _resize(context, node, ops.Resize(mode, "asymmetric", "floor", scales), x)


def resize(context: Context, node: onnx.NodeProto) -> None:
    """Resize by scales or to sizes."""
    x = context.real(node, 0)
    rank = len(context.shape(x))
    mode = text(node, "mode", "nearest")
    if context.opset < 11:
        op = ops.Resize(mode, "asymmetric", "floor", _numbers(context, node, 1))
        _resize(context, node, op, x)
        return
    if integer(node, "antialias", 0) or integer(node, "exclude_outside", 0):
        raise NotUnderstoodError("it smooths or leaves out what lies outside")
    policy = text(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise NotUnderstoodError(f"its keep_aspect_ratio_policy is {policy!r}")
    scales = _numbers(context, node, 2)
    axes = integer_list(node, "axes")
    if scales and axes is not None:
        if len(axes) != len(scales):
            raise NotUnderstoodError("its scales do not fit its axes")
        chosen = {axis_of(axis, rank): scale for axis, scale in zip(axes, scales, strict=True)}
        scales = tuple(chosen.get(axis, 1.0) for axis in range(rank))
    coordinates = text(node, "coordinate_transformation_mode", "half_pixel")
    nearest = text(node, "nearest_mode", "round_prefer_floor")
    coefficient = real(node, "cubic_coeff_a", -0.75)
    _resize(context, node, ops.Resize(mode, coordinates, nearest, scales, coefficient), x)


def _resize(context: Context, node: onnx.NodeProto, op: ops.Resize, x: str) -> None:
    if op.mode not in MODES:
        raise NotUnderstoodError(f"its mode is {op.mode!r}")
    if op.coordinates not in COORDINATES:
        raise NotUnderstoodError(f"its coordinates are {op.coordinates!r}")
    if op.mode == "nearest" and op.nearest not in ROUNDINGS:
        raise NotUnderstoodError(f"it rounds by {op.nearest!r}")
    if op.scales and (len(op.scales) != len(context.shape(x)) or min(op.scales) <= 0):
        raise NotUnderstoodError("its scales do not fit its input")
    sizes = zip(context.shape(x), op.scales, context.shape(node.output[0]), strict=False)
    exact = all(size * scale == resized for size, scale, resized in sizes)
    if op.coordinates == "align_corners" and not exact:
        raise NotUnderstoodError("tools disagree on what align_corners means for these scales")
    if 0 in context.shape(x):
        raise NotUnderstoodError("its input is empty")
    context.layer(node, op, (x,))


def _numbers(context: Context, node: onnx.NodeProto, index: int) -> tuple[float, ...]:
    array = context.constant(node, index)
    return () if array is None else tuple(float(number) for number in array.reshape(-1))


def _float_list(node: onnx.NodeProto, name: str) -> tuple[float, ...]:
    return next((tuple(entry.floats) for entry in node.attribute if entry.name == name), ())


BUILDERS: Builders = {
    "Resize": resize,
    "Upsample": upsample,
}
