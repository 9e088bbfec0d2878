"""Moving, dropping and reducing elements on any axes, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings, strategies as st
from one_node import execute_one

from leakaudit.execute import NotExecutable
from leakaudit.operators import (
    Clip,
    Concat,
    Expand,
    Gather,
    Pad,
    Reduce,
    Reshape,
    Scale,
    Slice,
    Split,
    Transpose,
)

SUITE = settings(max_examples=80, deadline=None, derandomize=True)
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
DTYPES = st.sampled_from([torch.float64, torch.float32, torch.int64])


def numbered(shape: tuple[int, ...], dtype: Any = torch.float64) -> Any:
    """Every element another number."""
    return torch.arange(1, 1 + int(np.prod(shape))).reshape(shape).to(dtype)


def equal(got: Any, expected: Any) -> None:
    assert got.numpy().dtype == expected.dtype
    np.testing.assert_array_equal(got.numpy(), expected)


@st.composite
def slices(draw: st.DrawFn, size: int) -> tuple[int, int, int]:
    """Start, stop, step as the operator states them."""
    step = draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
    start = draw(st.integers(0, size))
    return start, draw(st.integers(-1 if step < 0 else 0, size)), step


@SUITE
@given(SHAPES, DTYPES, st.data())
def test_slice(shape: tuple[int, ...], dtype: Any, data: st.DataObject) -> None:
    x = numbered(shape, dtype)
    starts, stops, steps = zip(*(data.draw(slices(size)) for size in shape), strict=True)
    python = tuple(
        slice(start, None if step < 0 and stop == -1 else stop, step)
        for start, stop, step in zip(starts, stops, steps, strict=True)
    )
    expected = x.numpy()[python]
    (y,) = execute_one(Slice(starts, stops, steps), [x], [expected.shape])
    equal(y, expected)


@SUITE
@given(SHAPES, DTYPES, st.data())
def test_gather(shape: tuple[int, ...], dtype: Any, data: st.DataObject) -> None:
    x = numbered(shape, dtype)
    axis = data.draw(st.integers(0, len(shape) - 1))
    target = tuple(data.draw(st.lists(st.integers(1, 3), max_size=2)))
    count = int(np.prod(target))
    index = st.integers(0, shape[axis] - 1)
    indices = data.draw(st.lists(index, min_size=count, max_size=count))
    expected = np.take(x.numpy(), np.array(indices).reshape(target), axis)
    (y,) = execute_one(Gather(axis, tuple(indices), target), [x], [expected.shape])
    equal(y, expected)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_its_axis_is_refused(index: int) -> None:
    with pytest.raises(NotExecutable, match=r"layer .*size 4"):
        execute_one(Gather(0, (index,), ()), [numbered((4,))], [()])


@SUITE
@given(SHAPES, DTYPES, st.sampled_from(["constant", "reflect", "edge", "wrap"]), st.data())
def test_pad(shape: tuple[int, ...], dtype: Any, mode: str, data: st.DataObject) -> None:
    # Padding longer than the axis is meant: numpy goes on reflecting and wrapping.
    x = numbered(shape, dtype)
    widths = [(data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))) for _ in shape]
    begin, end = zip(*widths, strict=True)
    fill = {"constant_values": 3} if mode == "constant" else {}
    expected = np.pad(x.numpy(), widths, mode, **fill)
    (y,) = execute_one(Pad(begin, end, mode, 3.0), [x], [expected.shape])
    equal(y, expected)


NUMPY_REDUCTIONS = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "l1": lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims),
    "l2": lambda x, axis, keepdims: np.sqrt((x * x).sum(axis, keepdims=keepdims)),
    "log_sum_exp": lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
}


@SUITE
@given(SHAPES, st.sampled_from(sorted(NUMPY_REDUCTIONS)), st.booleans(), st.data())
def test_reduce(shape: tuple[int, ...], function: str, keepdims: bool, data: st.DataObject) -> None:
    x = numbered(shape) / 50 - 1
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)))))
    expected = np.asarray(NUMPY_REDUCTIONS[function](x.numpy(), axis=axes, keepdims=keepdims))
    (y,) = execute_one(Reduce(function, axes, keepdims), [x], [expected.shape])
    torch.testing.assert_close(y, torch.from_numpy(expected))


@pytest.mark.parametrize("function", ["sum", "prod", "max", "min"])
def test_reductions_of_small_integers_keep_their_dtype(function: str) -> None:
    x = torch.tensor([[1, -2, 3]], dtype=torch.int32)
    (y,) = execute_one(Reduce(function, (1,), False), [x], [(1,)])
    assert y.dtype == torch.int32
    assert y.tolist() == [{"sum": 2, "prod": -6, "max": 3, "min": -2}[function]]


def test_the_norm_of_zeros_has_a_finite_gradient() -> None:
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (y,) = execute_one(Reduce("l2", (0,), False), [x], [()])
    (gradient,) = torch.autograd.grad(y, x)
    assert gradient.tolist() == [0.0, 0.0, 0.0]


@SUITE
@given(SHAPES, DTYPES, st.data())
def test_rearrangements(shape: tuple[int, ...], dtype: Any, data: st.DataObject) -> None:
    x = numbered(shape, dtype)
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    moved = x.numpy().transpose(order)
    (y,) = execute_one(Transpose(order), [x], [moved.shape])
    equal(y, moved)
    # Row-major order of what a transposition left non-contiguous.
    (flat,) = execute_one(Reshape(), [y], [(moved.size,)])
    equal(flat, moved.reshape(-1))
    wide = (2, *shape)
    (copies,) = execute_one(Expand(), [x], [wide])
    equal(copies, np.broadcast_to(x.numpy(), wide))


@SUITE
@given(SHAPES, DTYPES, st.data())
def test_split_and_concat_undo_each_other(
    shape: tuple[int, ...], dtype: Any, data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    sizes = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)))
    x = numbered((*shape[:axis], sum(sizes), *shape[axis + 1 :]), dtype)
    expected = np.split(x.numpy(), np.cumsum(sizes)[:-1], axis)
    parts = execute_one(Split(axis, sizes), [x], [part.shape for part in expected])
    for part, other in zip(parts, expected, strict=True):
        equal(part, other)
    (whole,) = execute_one(Concat(axis), parts, [x.shape])
    equal(whole, x.numpy())


def test_integer_arithmetic_stays_integer() -> None:
    x = torch.tensor([-3, 0, 4])
    (y,) = execute_one(Scale(-2.0, 1.0), [x], [(3,)])
    assert (y.dtype, y.tolist()) == (torch.int64, [7, 1, -7])
    (half,) = execute_one(Scale(0.5), [x], [(3,)])
    assert half.tolist() == [-1.5, 0.0, 2.0]
    (clipped,) = execute_one(Clip(-1.0, float("inf")), [x], [(3,)])
    assert (clipped.dtype, clipped.tolist()) == (torch.int64, [-1, 0, 4])
