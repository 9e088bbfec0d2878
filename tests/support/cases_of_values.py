"""Cases of operators that compute: activations, layers with weights, arithmetic."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from one_node import onnx_reference
from operator_case import ERF, Case, X, by_numpy, by_onnx, by_torch, number, rand

from leakaudit import operators as ops


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
