"""At least one case for every operator: its inputs, and who else computes what it should give.

Where ONNX has the operator its reference evaluator is asked, else torch or numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from one_node import onnx_reference

from leakaudit.graph import operators as ops

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


def activation_cases() -> list[Case]:
    """The activation functions; 3.0 · X so that flat ends are met."""
    x = 3.0 * X
    table = [
        (ops.Relu(), by_onnx("Relu")),
        (ops.LeakyRelu(0.25), by_onnx("LeakyRelu", alpha=0.25)),
        (ops.Elu(1.5), by_onnx("Elu", alpha=1.5)),
        (ops.Celu(1.5), by_onnx("Celu", alpha=1.5)),
        (ops.Selu(), by_torch(F.selu)),
        (ops.Selu(1.5, 2.0), by_onnx("Selu", alpha=1.5, gamma=2.0)),
        (ops.Sigmoid(), by_onnx("Sigmoid")),
        (ops.Tanh(), by_onnx("Tanh")),
        (ops.ArcTan(), by_onnx("Atan")),
        (ops.Softplus(), by_onnx("Softplus")),
        (ops.Softsign(), by_onnx("Softsign")),
        (ops.Clip(-1.0, 2.0), by_onnx("Clip", number(-1.0), number(2.0))),
        (ops.Clip(-math.inf, 2.0), by_onnx("Clip", None, number(2.0))),
        (ops.Clip(0.0, math.inf), by_torch(F.relu)),
        (ops.HardSigmoid(0.25, 0.375), by_onnx("HardSigmoid", alpha=0.25, beta=0.375)),
        (ops.Silu(), by_torch(F.silu)),
        (ops.Silu(1.7), by_numpy(lambda o: o / (1 + np.exp(-1.7 * o)))),
        (ops.Gelu(), by_numpy(lambda o: o * (1 + ERF(o / math.sqrt(2))) / 2)),
        (
            ops.Gelu(approximate=True),
            by_numpy(
                lambda o: o * (1 + np.tanh(math.sqrt(2 / math.pi) * (o + 0.044715 * o**3))) / 2
            ),
        ),
        (ops.Mish(), by_onnx("Mish")),
        (ops.HardSwish(), by_numpy(lambda o: o * np.clip(o / 6 + 0.5, 0, 1))),
        (ops.Identity(), by_onnx("Identity")),
    ]
    cases = [Case(op, (x,), reference, label=str(i)) for i, (op, reference) in enumerate(table)]
    slope = rand(3, seed=1)
    prelu = by_onnx("PRelu", slope.view(3, 1, 1))
    return [*cases, Case(ops.PRelu(), (x,), prelu, {"slope": slope})]


def elementwise_cases() -> list[Case]:
    """Every function of `Elementwise`, where it is defined."""
    ranges = {
        **dict.fromkeys(["acos", "asin", "atanh"], (-0.9, 0.9)),
        **dict.fromkeys(["log", "sqrt", "rsqrt", "reciprocal"], (0.2, 3.0)),
        "acosh": (1.1, 3.0),
        "tan": (-1.4, 1.4),
    }
    onnx_names = [
        *("abs", "acos", "acosh", "asin", "asinh", "atanh", "ceil", "cos", "cosh", "exp"),
        *("floor", "log", "reciprocal", "round", "sign", "sin", "sinh", "sqrt", "tan"),
    ]
    references = {name: by_onnx(name.capitalize()) for name in onnx_names}
    references["erf"] = by_numpy(ERF)
    references["rsqrt"] = by_numpy(lambda x: 1 / np.sqrt(x))
    references["square"] = by_numpy(np.square)
    return [
        Case(
            ops.Elementwise(name),
            (rand(3, 7, low=ranges.get(name, (-3, 3))[0], high=ranges.get(name, (-3, 3))[1]),),
            reference,
            label=name,
        )
        for name, reference in references.items()
    ]


def layer_cases() -> list[Case]:
    """Convolutions, the dense layer and the table."""
    weight, bias = rand(6, 2, 3, 2, seed=1), rand(6, seed=2)
    conv = {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2], "group": 2}
    x = rand(2, 4, 6, 7)
    upward = rand(4, 3, 3, 2, seed=3)
    transposed = {"strides": [2, 3], "pads": [1, 0, 0, 1], "dilations": [1, 2]}
    dense = {"weight": rand(3, 5, seed=4), "bias": rand(3, seed=5)}
    return [
        Case(
            ops.Conv((3, 2), (2, 1), (1, 0), (2, 1), (1, 2), 2),
            (x,),
            by_onnx("Conv", roles=("weight", "bias"), **conv),
            {"weight": weight, "bias": bias},
        ),
        Case(
            ops.ConvTranspose((3, 2), (2, 3), (1, 0), (0, -1), (1, 2)),
            (x,),
            by_onnx("ConvTranspose", roles=("weight", "bias"), output_padding=[0, 2], **transposed),
            {"weight": upward, "bias": bias[:3]},
        ),
        Case(
            ops.ConvTranspose((3, 2), (2, 3), (1, 0), (0, -2), (1, 2), 2),
            (x,),
            # ONNX's evaluator takes no groups here.
            lambda inputs, parameters: (
                F.conv_transpose2d(
                    inputs[0], upward, bias, (2, 3), (1, 0), (1, 2), groups=2, dilation=(1, 2)
                ),
            ),
            {"weight": upward, "bias": bias},
            label="grouped, with appended zeros",
        ),
        Case(
            ops.Linear(5, 3, alpha=0.5, beta=2.0),
            (rand(4, 5),),
            by_onnx("Gemm", roles=("weight", "bias"), transB=1, alpha=0.5, beta=2.0),
            dense,
        ),
        Case(
            ops.Linear(5, 3, transposed=True),
            (rand(2, 4, 5),),
            by_onnx("MatMul", roles=("weight",)),
            {"weight": rand(5, 3)},
            label="over tokens",
        ),
        Case(
            ops.Embedding(),
            (torch.tensor([[0, 3, -1], [6, 2, 2]]),),
            lambda inputs, parameters: onnx_reference("Gather", (parameters["weight"], *inputs)),
            {"weight": rand(7, 4)},
        ),
    ]


def arithmetic_cases() -> list[Case]:
    """Broadcasting on either side, parameters as operands, and attention."""
    row, base = rand(4, 1, seed=1), rand(2, 3, 4, 5, low=0.5)
    pairs = [(ops.Add(), "Add"), (ops.Sub(), "Sub"), (ops.Mul(), "Mul"), (ops.Div(), "Div")]
    cases = [
        Case(op, operands, by_onnx(kind), stored=stored, label=label)
        for op, kind in pairs
        for operands, stored, label in [
            ((X, row), (), "broadcast right"),
            ((row, X), (0,), "parameter left"),
        ]
    ]
    q, k, v = rand(2, 4, 3, 6), rand(2, 2, 5, 6, seed=1), rand(2, 2, 5, 7, seed=2)
    mask = rand(2, 1, 3, 5, seed=3)
    attend = partial(by_onnx, "Attention", opset=23, scale=0.25)
    keep = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    return [
        *cases,
        Case(ops.Pow(), (base, row), by_onnx("Pow"), stored=(1,)),
        Case(ops.Scale(-2.5, 0.5), (X,), by_numpy(lambda x: 0.5 - 2.5 * x)),
        Case(ops.MatMul(), (X, rand(3, 5, 2, seed=1)), by_onnx("MatMul"), stored=(1,)),
        Case(ops.MatMul(), (X, rand(5, seed=1)), by_onnx("MatMul"), label="with a vector"),
        Case(
            ops.Einsum("bchw,dc->bdwh"),
            (X, rand(2, 3, seed=1)),
            by_onnx("Einsum", equation="bchw,dc->bdwh"),
        ),
        Case(ops.Einsum("bcii->bi"), (rand(2, 3, 4, 4),), by_onnx("Einsum", equation="bcii->bi")),
        Case(ops.Attention(0.25, grouped=True), (q, k, v, mask), attend(), label="mask, grouped"),
        Case(
            ops.Attention(0.25, causal=True, grouped=True),
            (q, k, v),
            attend(is_causal=1),
            label="causal, grouped",
        ),
        Case(
            ops.Attention(0.25, causal=True),
            (rand(3, 4, 6), rand(3, 5, 6, seed=1), rand(3, 5, 2, seed=2), rand(4, 5, seed=3)),
            by_torch(
                lambda q, k, v, mask: F.scaled_dot_product_attention(
                    q,
                    k,
                    v,
                    mask.masked_fill(torch.ones(4, 5).triu(1).bool(), -math.inf),
                    scale=0.25,
                )
            ),
            label="mask, causal, one leading axis",
        ),
        Case(
            ops.Attention(0.25),
            (rand(2, 3, 6), rand(2, 3, 6, seed=1), rand(2, 3, 2, seed=2), keep),
            by_torch(lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, scale=0.25)),
            label="boolean mask",
        ),
    ]


def shape_cases() -> list[Case]:
    """Operators that move, copy, drop or reduce."""
    indices = torch.tensor([[2, 0], [0, 3]])
    parts = (1, 2, 1)
    cases = [
        Case(ops.Reshape(), (X,), by_onnx("Reshape", whole(2, 12, -1))),
        Case(ops.Transpose((0, 2, 3, 1)), (X,), by_onnx("Transpose", perm=[0, 2, 3, 1])),
        Case(ops.Expand(), (rand(3, 1, 5),), by_onnx("Expand", whole(2, 1, 4, 1))),
        Case(
            ops.Concat(2), (X, rand(2, 3, 1, 5, seed=1), X), by_onnx("Concat", axis=2), stored=(1,)
        ),
        Case(
            ops.Split(2, parts),
            (X,),
            by_onnx("Split", whole(*parts), axis=2, outputs=3),
        ),
        Case(
            ops.Slice((0, 2, 3, 1), (2, 3, -1, 5), (1, 1, -2, 3)),
            (X,),
            # ONNX counts a negative end from the back: "past element 0" is far below.
            by_onnx("Slice", whole(2, 3, 1), whole(3, -9, 5), whole(1, 2, 3), whole(1, -2, 3)),
        ),
        Case(ops.Gather(2, (2, 0, 0, 3), (2, 2)), (X,), by_onnx("Gather", indices, axis=2)),
        Case(
            ops.Gather(1, (1,), ()), (X,), by_onnx("Gather", torch.tensor(1), axis=1), label="one"
        ),
    ]
    pads = (0, 1, 2, 0, 1, 0, 3, 2)
    cases += [
        Case(
            ops.Pad(pads[:4], pads[4:], mode, 1.5),
            (X,),
            by_onnx("Pad", whole(*pads), number(1.5), mode=mode),
            label=mode,
        )
        for mode in ("constant", "reflect", "edge", "wrap")
    ]
    kinds = {
        "sum": "ReduceSum",
        "mean": "ReduceMean",
        "max": "ReduceMax",
        "min": "ReduceMin",
        "prod": "ReduceProd",
        "l1": "ReduceL1",
        "l2": "ReduceL2",
        "log_sum_exp": "ReduceLogSumExp",
    }
    cases += [
        Case(
            ops.Reduce(function, axes, keepdims),
            (X,),
            by_onnx(kind, whole(*axes), keepdims=int(keepdims)),
            label=f"{function} {axes}",
        )
        for function, kind in kinds.items()
        for axes, keepdims in [((1, 3), False), ((2,), True)]
    ]
    sizes = whole(2, 3, 7, 3)
    cases += [
        Case(
            ops.Resize(mode, coordinates, nearest),
            (X,),
            by_onnx(
                "Resize",
                None,
                None,
                sizes,
                mode=mode,
                coordinate_transformation_mode=coordinates,
                nearest_mode=nearest,
            ),
            label=f"{mode} {coordinates} {nearest}",
            # ONNX's evaluator rounds cubic weights; exact ones are compared in test_execute_resize.
            tolerance=1e-5 if mode == "cubic" else 1e-12,
        )
        for mode in ("nearest", "linear", "cubic")
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        for nearest in (("floor", "round_prefer_floor") if mode == "nearest" else ("floor",))
    ]
    return cases


def adaptive_average(x: Any) -> Any:
    """The definition, window by window, to 3 x 2 positions."""
    height, width = x.shape[2:]
    y = np.empty((*x.shape[:2], 3, 2))
    for i in range(3):
        for j in range(2):
            rows = slice(i * height // 3, -(-(i + 1) * height // 3))
            columns = slice(j * width // 2, -(-(j + 1) * width // 2))
            y[..., i, j] = x[..., rows, columns].mean((2, 3))
    return y


def pooling_cases() -> list[Case]:
    """One of each; their geometry is drawn elsewhere."""
    geometry = ((3, 2), (2, 1), (1, 0), (1, 1), (1, 1))
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
    return [
        Case(ops.MaxPool(*geometry), (X,), by_onnx("MaxPool", **attributes)),
        Case(
            ops.AveragePool(*geometry),
            (X,),
            by_onnx("AveragePool", count_include_pad=1, **attributes),
        ),
        Case(
            ops.AveragePool(*geometry, include_padding=False),
            (X,),
            by_onnx("AveragePool", **attributes),
            label="without padding",
        ),
        Case(
            ops.LpPool((3, 2), (2, 1), (0, 0), (0, 0), (1, 1), 3.0),
            (X,),
            by_onnx("LpPool", kernel_shape=[3, 2], strides=[2, 1], p=3),
        ),
        Case(ops.AdaptiveAveragePool(), (X,), by_numpy(adaptive_average)),
    ]


def group_norm(
    x: torch.Tensor, groups: int, scale: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """Example by example, group by group. ONNX's evaluator works in single precision here."""
    y = torch.empty_like(x)
    size = x.shape[1] // groups
    for b in range(x.shape[0]):
        for start in range(0, x.shape[1], size):
            part = x[b, start : start + size].numpy()
            normal = (part - part.mean()) / np.sqrt(part.var() + EPSILON)
            y[b, start : start + size] = torch.from_numpy(normal)
    return y * scale[:, None] + bias[:, None]


def normalisation_cases() -> list[Case]:
    """With and without their affine parameters."""
    scale, bias, mean = rand(3, seed=1), rand(3, seed=2), rand(3, seed=3)
    variance = rand(3, seed=4, low=0.5)
    affine = {"scale": scale, "bias": bias}
    stored = {**affine, "mean": mean, "variance": variance}
    roles = ("scale", "bias", "mean", "variance")
    trained = by_onnx(
        "BatchNormalization",
        mean,
        variance,
        roles=roles[:2],
        outputs=3,
        epsilon=EPSILON,
        training_mode=1,
    )
    last = {"scale": rand(4, 5, seed=5), "bias": rand(4, 5, seed=6)}
    groups = rand(2, 6, 4, seed=7)
    six = {"scale": rand(6, seed=8), "bias": rand(6, seed=9)}
    return [
        Case(
            ops.BatchNorm(EPSILON),
            (X,),
            by_onnx("BatchNormalization", roles=roles, epsilon=EPSILON),
            stored,
            label="evaluation",
        ),
        Case(
            ops.BatchNorm(EPSILON, training=True),
            (X,),
            lambda inputs, parameters: trained(inputs, parameters)[:1],
            affine,
            label="training",
        ),
        Case(
            ops.BatchNorm(),
            (rand(4, 3),),
            by_torch(lambda x: F.batch_norm(x, mean, variance)),
            {"mean": mean, "variance": variance},
            label="without affine, no spatial axes",
        ),
        Case(
            ops.LayerNorm(2, EPSILON),
            (X,),
            by_onnx("LayerNormalization", roles=("scale", "bias"), axis=2, epsilon=EPSILON),
            last,
        ),
        Case(ops.LayerNorm(1), (X,), by_torch(lambda x: F.layer_norm(x, (5,))), label="plain"),
        Case(
            ops.RmsNorm(2, EPSILON),
            (X,),
            by_onnx("RMSNormalization", roles=("scale",), axis=2, epsilon=EPSILON, opset=23),
            {"scale": last["scale"]},
        ),
        Case(
            ops.GroupNorm(2, EPSILON),
            (groups,),
            lambda inputs, parameters: (group_norm(inputs[0], 2, **parameters),),
            six,
        ),
        Case(
            ops.GroupNorm(6, EPSILON),
            (groups,),
            by_onnx("InstanceNormalization", roles=("scale", "bias"), epsilon=EPSILON),
            six,
            label="instance",
        ),
        Case(
            ops.LocalResponseNorm(3, 0.5, 0.625, 2.0),
            (rand(2, 7, 2, 2),),
            by_torch(lambda x: F.local_response_norm(x, 3, 0.5, 0.625, 2.0)),
            label="odd size",
        ),
        Case(
            ops.LocalResponseNorm(4, 0.5, 0.625, 2.0),
            # ONNX's evaluator normalises as many channels as there are examples.
            (rand(7, 7, 2, 2),),
            by_onnx("LRN", size=4, alpha=0.5, beta=0.625, bias=2.0),
            label="even size",
        ),
        *(
            Case(
                ops.LpNormalization(2, p),
                (rand(2, 3, 4, low=0.1),),
                by_onnx("LpNormalization", axis=2, p=p),
                label=f"p={p}",
            )
            for p in (1, 2)
        ),
        Case(ops.Softmax(1), (X,), by_onnx("Softmax", axis=1)),
        Case(ops.Softmax(3, log=True), (X,), by_onnx("LogSoftmax", axis=3), label="log"),
    ]


CASES = [
    *activation_cases(),
    *elementwise_cases(),
    *layer_cases(),
    *arithmetic_cases(),
    *shape_cases(),
    *pooling_cases(),
    *normalisation_cases(),
]
