"""Cases of operators that move, pool, interpolate or normalise elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from operator_case import EPSILON, Case, X, by_numpy, by_onnx, by_torch, number, rand, whole

from leakaudit import operators as ops


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
    seen = torch.tensor([True, False, True, True, False])
    hidden = torch.tensor([[False], [True], [False], [True]])
    choices = {
        "two activations": (seen, X, rand(2, 3, 4, 5, seed=1)),
        "broadcast to both": (hidden, rand(2, 3, 1, 5), rand(4, 5, seed=1)),
        "a number": (seen, X, number(-3.0)),
        "the number kept": (hidden, number(8.0), X),
    }
    cases += [
        Case(
            ops.Where(int(parts[0].expand(2, 3, 4, 5).sum())),
            parts,
            by_onnx("Where"),
            stored=(0, *(i for i, part in enumerate(parts) if part.dim() == 0)),
            label=label,
        )
        for label, parts in choices.items()
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
