"""The output shapes of every operator, to compare with what the file states.

Later stages trust the shapes of the graph; the file that states them is not trusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.operators import (
    Activation,
    AdaptiveAveragePool,
    Add,
    Attention,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Div,
    Einsum,
    Elementwise,
    Embedding,
    Expand,
    Gather,
    GroupNorm,
    LayerNorm,
    Linear,
    MatMul,
    MaxPool,
    Mul,
    Operator,
    Pad,
    Pow,
    Reduce,
    Reshape,
    Resize,
    RmsNorm,
    Scale,
    Slice,
    Softmax,
    Split,
    Sub,
    Transpose,
    Where,
)

Shape = tuple[int, ...]


def require_shapes(
    op: Operator, inputs: Sequence[Shape], parameters: Mapping[str, Shape], stated: Sequence[Shape]
) -> None:
    """Refuse a node whose stated output shapes are not those that its operator computes.

    Args:
        op: The operator.
        inputs: Shapes of what it reads.
        parameters: Shapes of its parameters by role.
        stated: Shapes of its outputs as the file states them.

    Raises:
        NotUnderstoodError: They differ, or the operator does not fit its inputs.
    """
    try:
        computed = _shapes(op, inputs, parameters, stated)
    except (ValueError, IndexError) as error:
        raise NotUnderstoodError("its attributes do not fit the shapes of its inputs") from error
    if tuple(computed) != tuple(stated):
        shown = [
            str(shapes[0] if len(shapes) == 1 else tuple(shapes)) for shapes in (stated, computed)
        ]
        raise NotUnderstoodError(f"its output is stated as {shown[0]}, and it computes {shown[1]}")


def _shapes(
    op: Operator, inputs: Sequence[Shape], parameters: Mapping[str, Shape], stated: Sequence[Shape]
) -> Sequence[Shape]:
    source = inputs[0]
    match op:
        case Split(axis=axis, sizes=sizes):
            _require(sum(sizes) == source[axis] and min(sizes, default=0) >= 0)
            return [(*source[:axis], size, *source[axis + 1 :]) for size in sizes]
        case Add() | Sub() | Mul() | Div() | Pow() | Where():
            return [np.broadcast_shapes(*inputs)]
        case MatMul():
            return [_matmul(*inputs)]
        case Einsum(equation=equation):
            return [_einsum(equation, inputs)]
        case Attention():
            return [_attention(op, *inputs)]
        case Concat(axis=axis):
            rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
            _require(len(rest) == 1 and all(len(shape) > axis for shape in inputs))
            size = sum(shape[axis] for shape in inputs)
            return [(*source[:axis], size, *source[axis + 1 :])]
    (target,) = stated
    return [_single(op, source, parameters, target)]


def _single(op: Operator, source: Shape, parameters: Mapping[str, Shape], stated: Shape) -> Shape:
    """The output shape of an operator with one input and one output."""
    match op:
        case Activation() | Elementwise() | Scale() | Softmax():
            return source
        case BatchNorm() | GroupNorm() | LayerNorm() | RmsNorm():
            return source
        case Linear(out_features=out_features):
            return (*source[:-1], out_features)
        case Embedding():
            return (*source, parameters["weight"][1])
        case Conv() | ConvTranspose():
            return _convolved(op, source, parameters["weight"])
        case MaxPool() | AveragePool():
            return _pooled(op, source)
        case AdaptiveAveragePool() | Resize():
            _require(len(stated) == len(source) and min(stated[2:], default=1) > 0)
            return (*source[:2], *stated[2:])
        case Reshape():
            _require(math.prod(source) == math.prod(stated))
            return stated
        case Expand():
            return np.broadcast_shapes(source, stated)
        case Transpose(permutation=order):
            return tuple(source[axis] for axis in order)
        case Gather(axis=axis, shape=shape):
            return (*source[:axis], *shape, *source[axis + 1 :])
        case Slice(starts=starts, stops=stops, steps=steps):
            return tuple(len(range(*bounds)) for bounds in zip(starts, stops, steps, strict=True))
        case Pad(begin=begin, end=end, mode=mode):
            for size, first, last in zip(source, begin, end, strict=True):
                widest = max(first, last)
                _require(mode not in ("reflect", "wrap") or widest <= size - (mode == "reflect"))
                _require(mode == "constant" or size > 0 or widest == 0)
            return tuple(sum(sizes) for sizes in zip(source, begin, end, strict=True))
        case Reduce(axes=axes, keepdims=keep):
            return tuple(
                1 if axis in axes else size
                for axis, size in enumerate(source)
                if keep or axis not in axes
            )
    raise NotUnderstoodError("its output shape cannot be checked")


def _require(fits: bool) -> None:
    if not fits:
        raise ValueError


def _matmul(left: Shape, right: Shape) -> Shape:
    _require(bool(left) and bool(right))
    inner = right[-2] if len(right) > 1 else right[0]
    _require(left[-1] == inner)
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    return (*batch, *left[:-1][-1:], *(right[-1:] if len(right) > 1 else ()))


def _einsum(equation: str, inputs: Sequence[Shape]) -> Shape:
    left, _, right = equation.partition("->")
    sizes: dict[str, int] = {}
    for term, shape in zip(left.split(","), inputs, strict=True):
        for letter, size in zip(term, shape, strict=True):
            # numpy and torch differ on an axis of size 1 under the letter of a longer one.
            _require(letter.isascii() and letter.isalpha())
            _require(sizes.setdefault(letter, size) == size)
    _require(set(right) <= set(sizes) and len(set(right)) == len(right))
    return tuple(sizes[letter] for letter in right)


def _attention(op: Attention, q: Shape, k: Shape, v: Shape, mask: Shape | None = None) -> Shape:
    _require(q[-1] == k[-1] and k[-2] == v[-2])
    if op.grouped:
        _require(len(q) > 2 and k[:-2] == v[:-2] and q[:-3] == k[:-3] and q[-3] % k[-3] == 0)
        batch = q[:-2]
    else:
        batch = np.broadcast_shapes(q[:-2], k[:-2], v[:-2])
    if mask is not None:
        scores = (*batch, q[-2], k[-2])
        _require(np.broadcast_shapes(mask, scores) == scores)
    return (*batch, q[-2], v[-1])


def _convolved(op: Conv | ConvTranspose, source: Shape, weight: Shape) -> Shape:
    axes = zip(
        source[2:],
        op.padding_begin,
        op.padding_end,
        op.dilation,
        op.kernel,
        op.stride,
        strict=True,
    )
    if isinstance(op, ConvTranspose):
        sizes = tuple(
            (size - 1) * stride + dilation * (kernel - 1) + 1 - begin - end
            for size, begin, end, dilation, kernel, stride in axes
        )
        return (source[0], weight[1] * op.groups, *sizes)
    sizes = tuple(
        (size + begin + end - dilation * (kernel - 1) - 1) // stride + 1
        for size, begin, end, dilation, kernel, stride in axes
    )
    return (source[0], weight[0], *sizes)


def _pooled(op: MaxPool | AveragePool, source: Shape) -> Shape:
    sizes: list[int] = []
    for size, begin, end, dilation, kernel, stride in zip(
        source[2:],
        op.padding_begin,
        op.padding_end,
        op.dilation,
        op.kernel,
        op.stride,
        strict=True,
    ):
        room = size + begin + end - dilation * (kernel - 1) - 1
        _require(room >= 0 and 2 * max(begin, end) <= dilation * (kernel - 1) + 1)
        count = room // stride + 1
        if op.ceil:
            count = -(-room // stride) + 1
            # The last window must start inside the input or its left padding.
            count -= (count - 1) * stride >= size + begin
        sizes.append(count)
    return (*source[:2], *sizes)
