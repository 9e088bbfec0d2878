"""Every ATen operator that is mapped, against torch's own output."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pt2_reading import (  # noqa: E402
    assert_computes,
    export,
    program,
    read,
    unsupported,
    with_program,
)

from leakaudit.errors import AuditError  # noqa: E402
from leakaudit.frontends import pt2_model, pt2_ops  # noqa: E402
from leakaudit.frontends.interface import LoadOptions  # noqa: E402
from leakaudit.graph import operators as ops  # noqa: E402

nn = torch.nn
F = torch.nn.functional


class Apply(nn.Module):
    """A function of the inputs and of named parameters and buffers."""

    def __init__(self, function: Callable[..., Any], **stored: Any) -> None:
        super().__init__()
        self.function = function
        self.names = list(stored)
        for name, value in stored.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs, **{name: getattr(self, name) for name in self.names})


def weights(*shape: int) -> Any:
    return nn.Parameter(torch.randn(*shape))


def lively(module: Any) -> Any:
    """Give every parameter and buffer numbers that show a wrong role or a wrong place."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return module.eval()


def normal(*shape: int) -> Any:
    return torch.randn(*shape)


def positive(*shape: int) -> Any:
    return torch.rand(*shape) * 0.8 + 0.1


# Name: (what makes the module, what makes its inputs, the operators it must come out as).
Case = tuple[Callable[[], Any], Callable[[], Sequence[Any]], set[type[ops.Operator]]]


def of(
    function: Any,
    *shapes: tuple[int, ...],
    gives: Sequence[type[ops.Operator]] = (),
    make: Callable[..., Any] = normal,
    **stored: Any,
) -> Case:
    """A case from a function, or from a module, and the shapes of its inputs."""

    def module() -> Any:
        if isinstance(function, nn.Module):
            return lively(function)
        return Apply(
            function,
            **{k: weights(*v) if isinstance(v, tuple) else v.clone() for k, v in stored.items()},
        ).eval()

    return module, lambda: [make(*shape) for shape in shapes], set(gives)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.attention(x, x, x, need_weights=False)[0]


SEQUENCE, IMAGE, VOLUME = (2, 4, 9), (2, 4, 9, 8), (2, 4, 5, 6, 7)
MASK = torch.tensor([[True, False, True], [True, True, False]])

LAYERS = {
    "conv_transpose1d": of(
        nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        SEQUENCE,
        gives=[ops.ConvTranspose],
    ),
    "conv_transpose2d": of(
        nn.ConvTranspose2d(4, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=2, bias=False),
        IMAGE,
        gives=[ops.ConvTranspose],
    ),
    "conv_transpose3d": of(
        nn.ConvTranspose3d(4, 2, 2, stride=2), VOLUME, gives=[ops.ConvTranspose]
    ),
    "embedding": of(
        lambda x, w: x + F.embedding(torch.tensor([[2, 0, 1]]), w, padding_idx=0),
        (2, 3, 5),
        w=(4, 5),
        gives=[ops.Embedding, ops.Add],
    ),
    "linear of a computed weight": of(
        lambda x, w, b: F.linear(x, w[1:4], b[1:4]),
        (2, 5),
        w=(6, 5),
        b=(6,),
        gives=[ops.Slice, ops.Transpose, ops.MatMul, ops.Add],
    ),
    "linear of a computed bias": of(
        lambda x, w, b: F.linear(x, w, 2 * b),
        (2, 5),
        w=(3, 5),
        b=(3,),
        gives=[ops.Linear, ops.Scale, ops.Add],
    ),
    "matmul of activations": of(torch.matmul, (2, 3, 4), (4, 5), gives=[ops.MatMul]),
    "matmul, weight first": of(lambda x, w: w @ x, (4, 4), w=(4, 4), gives=[ops.MatMul]),
    "matmul of a regrouped weight": of(
        lambda x, w: x @ w.reshape(2, 8).view(4, 4), (4, 4), w=(4, 4), gives=[ops.MatMul]
    ),
    "matmul of a computed weight": of(
        lambda x, w: x @ (w + 1), (4, 4), w=(4, 4), gives=[ops.MatMul, ops.Scale]
    ),
    "matmul with a vector": of(lambda x, w: x @ w, (3, 4), w=(4,), gives=[ops.MatMul]),
    "mv": of(torch.mv, (3, 4), (4,), gives=[ops.MatMul]),
    "mm": of(torch.mm, (3, 4), (4, 2), gives=[ops.MatMul]),
    "bmm": of(torch.bmm, (2, 3, 4), (2, 4, 5), gives=[ops.MatMul]),
    "baddbmm": of(
        lambda a, x, y: torch.baddbmm(a, x, y, beta=0.5, alpha=2),
        *((2, 3, 5), (2, 3, 4), (2, 4, 5)),
        gives=[ops.MatMul, ops.Scale, ops.Add],
    ),
    "addmm of activations": of(
        lambda x, y, b: torch.addmm(b, x, y, beta=2, alpha=3),
        *((3, 4), (4, 5)),
        b=(5,),
        gives=[ops.MatMul, ops.Scale, ops.Add],
    ),
    "addmm with a view as bias": of(
        lambda x, w: torch.addmm(w[0], x, w), (3, 4), w=(4, 4), gives=[ops.MatMul, ops.Gather]
    ),
    "einsum": of(
        lambda x, w: torch.einsum("bnc,cd->bdn", x, w), (2, 3, 4), w=(4, 5), gives=[ops.Einsum]
    ),
    "einsum, ellipsis": of(
        lambda x, y: torch.einsum("...ij, ...kj -> ...ki", x, y),
        *((2, 3, 4, 5), (2, 3, 6, 5)),
        gives=[ops.Einsum],
    ),
    "einsum, implicit": of(lambda x, y: torch.einsum("zb,bA", x, y), (2, 3), (3, 4)),
    "einsum of one": of(lambda x: torch.einsum("abb->ba", x), (2, 3, 3), gives=[ops.Einsum]),
    "attention": of(
        F.scaled_dot_product_attention,
        *((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7)),
        gives=[ops.Attention],
    ),
    "attention, causal and scaled": of(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
        *((2, 3, 5, 4),) * 3,
        gives=[ops.Attention],
    ),
    "attention, boolean mask": of(
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, torch.ones(5, 6, dtype=torch.bool).tril(1)
        ),
        *((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4)),
        gives=[ops.Attention],
    ),
    "attention, additive mask": of(
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m),
        *((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4)),
        m=(3, 5, 6),
        gives=[ops.Attention],
    ),
    "attention, grouped queries": of(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        *((2, 4, 5, 3), (2, 2, 6, 3), (2, 2, 6, 3)),
        gives=[ops.Attention],
    ),
    "multi-head attention": of(SelfAttention(), (2, 5, 8), gives=[ops.Attention]),
}
NORMALISATION = {
    "batch_norm": of(nn.BatchNorm2d(4, eps=0.1), IMAGE, gives=[ops.BatchNorm]),
    "batch_norm without affine": of(nn.BatchNorm1d(4, affine=False), (3, 4)),
    "instance_norm": of(nn.InstanceNorm2d(4, affine=True, eps=0.1), IMAGE),
    "instance_norm of one": of(nn.InstanceNorm1d(4), (1, 4, 9), gives=[ops.GroupNorm]),
    "instance_norm, tracked": of(nn.InstanceNorm1d(4, track_running_stats=True), SEQUENCE),
    "group_norm": of(nn.GroupNorm(2, 4, eps=0.1), IMAGE, gives=[ops.GroupNorm]),
    "layer_norm": of(nn.LayerNorm((9, 8), eps=0.1), IMAGE, gives=[ops.LayerNorm]),
    "layer_norm without bias": of(nn.LayerNorm(8, bias=False), IMAGE, gives=[ops.LayerNorm]),
    "rms_norm": of(nn.RMSNorm(8, eps=0.1), IMAGE),
    "rms_norm, epsilon left out": of(nn.RMSNorm((9, 8)), IMAGE),
    "softmax": of(lambda x: F.softmax(x, 1), IMAGE, gives=[ops.Softmax]),
    "log_softmax": of(lambda x: F.log_softmax(x, -1), IMAGE, gives=[ops.Softmax]),
}
POOLING = {
    "max_pool1d": of(lambda x: F.max_pool1d(x, 3, 2, 1), SEQUENCE),
    "max_pool2d": of(
        lambda x: F.max_pool2d(x, (3, 2), padding=(1, 0), dilation=(1, 2), ceil_mode=True),
        IMAGE,
        gives=[ops.MaxPool],
    ),
    "max_pool3d": of(lambda x: F.max_pool3d(x, 2), VOLUME, gives=[ops.MaxPool]),
    "max_pool2d with unread indices": of(
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0], IMAGE, gives=[ops.MaxPool]
    ),
    "avg_pool1d": of(lambda x: F.avg_pool1d(x, 3, 2, 1), SEQUENCE),
    "avg_pool2d": of(
        lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0), ceil_mode=True, count_include_pad=False),
        IMAGE,
        gives=[ops.AveragePool],
    ),
    "avg_pool3d": of(lambda x: F.avg_pool3d(x, 2), VOLUME, gives=[ops.AveragePool]),
    "adaptive_avg_pool1d": of(lambda x: F.adaptive_avg_pool1d(x, 4), SEQUENCE),
    "adaptive_avg_pool2d": of(
        lambda x: F.adaptive_avg_pool2d(x, (4, 3)), IMAGE, gives=[ops.AdaptiveAveragePool]
    ),
    "adaptive_avg_pool2d to one": of(lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE),
    "adaptive_avg_pool3d": of(lambda x: F.adaptive_avg_pool3d(x, (2, 3, 7)), VOLUME),
    "adaptive_max_pool1d to one": of(lambda x: F.adaptive_max_pool1d(x, 1), SEQUENCE),
    "adaptive_max_pool2d to one": of(
        lambda x: F.adaptive_max_pool2d(x, 1), IMAGE, gives=[ops.Reduce]
    ),
    "adaptive_max_pool2d": of(lambda x: F.adaptive_max_pool2d(x, (3, 4)), IMAGE),
    "nearest": of(lambda x: F.interpolate(x, scale_factor=2.6), IMAGE),
    "nearest, size": of(lambda x: F.interpolate(x, size=(5, 11)), IMAGE, gives=[ops.Resize]),
    "nearest-exact": of(lambda x: F.interpolate(x, size=(3, 16), mode="nearest-exact"), IMAGE),
    "nearest 1d": of(lambda x: F.interpolate(x, size=13), SEQUENCE),
    "nearest 3d": of(lambda x: F.interpolate(x, scale_factor=(2, 1, 0.5)), VOLUME),
    "linear": of(lambda x: F.interpolate(x, size=20, mode="linear"), SEQUENCE),
    "bilinear": of(lambda x: F.interpolate(x, scale_factor=(1.7, 0.6), mode="bilinear"), IMAGE),
    "bilinear, corners": of(
        lambda x: F.interpolate(x, size=(4, 17), mode="bilinear", align_corners=True), IMAGE
    ),
    "bicubic": of(lambda x: F.interpolate(x, size=(7, 13), mode="bicubic"), IMAGE),
    "bicubic, corners": of(
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=True), IMAGE
    ),
    "trilinear": of(lambda x: F.interpolate(x, size=(3, 9, 10), mode="trilinear"), VOLUME),
}
ACTIVATIONS = {
    name: of(function, SEQUENCE, gives=[gives], make=lambda *shape: 4 * normal(*shape))
    for name, function, gives in [
        ("selu", F.selu, ops.Selu),
        ("celu", lambda x: F.celu(x, 0.7), ops.Celu),
        ("hardtanh", lambda x: F.hardtanh(x, -0.5, 2), ops.Clip),
        ("hardtanh, plain", F.hardtanh, ops.Clip),
        ("relu6", F.relu6, ops.Clip),
        ("clamp", lambda x: x.clamp(-1, 0.5), ops.Clip),
        ("clamp_min", lambda x: torch.clamp_min(x, 0.3), ops.Clip),
        ("clamp, one end", lambda x: x.clamp(max=0.3), ops.Clip),
        ("maximum", lambda x: torch.maximum(x, torch.tensor(0.5)), ops.Clip),
        ("minimum", lambda x: torch.minimum(torch.tensor(0.5), x), ops.Clip),
        ("hardsigmoid", F.hardsigmoid, ops.HardSigmoid),
        ("silu", F.silu, ops.Silu),
        ("gelu", F.gelu, ops.Gelu),
        ("gelu, tanh", lambda x: F.gelu(x, approximate="tanh"), ops.Gelu),
        ("mish", F.mish, ops.Mish),
        ("hardswish", F.hardswish, ops.HardSwish),
        ("softplus", lambda x: F.softplus(x, 0.5, 30), ops.Softplus),
        ("softsign", F.softsign, ops.Div),
        ("logsigmoid", F.logsigmoid, ops.Softplus),
        ("rrelu", lambda x: F.rrelu(x), ops.LeakyRelu),
        ("in place", lambda x: F.silu(x + 0, inplace=True), ops.Silu),
        ("dropout", lambda x: F.dropout(x, 0.5, training=False).tanh(), ops.Tanh),
    ]
}
ACTIVATIONS["glu"] = of(lambda x: F.glu(x, 1), IMAGE)
ELEMENTWISE = {
    name: of(getattr(torch, name), SEQUENCE, make=positive, gives=[ops.Elementwise])
    for name in (
        *("abs", "ceil", "cos", "cosh", "erf", "exp", "floor", "log", "reciprocal", "round"),
        *("rsqrt", "sign", "sin", "sinh", "sqrt", "square", "tan", "log2", "log10", "exp2"),
        *("acos", "asin", "asinh", "atanh"),
    )
} | {"acosh": of(torch.acosh, SEQUENCE, make=lambda *shape: 1 + positive(*shape))}
ARITHMETIC = {
    "add": of(lambda x, y: torch.add(x, y, alpha=3), (2, 3), (3,), gives=[ops.Scale, ops.Add]),
    "add a number": of(lambda x: torch.add(x, 2, alpha=3) + 1, (2, 3), gives=[ops.Scale]),
    "sub": of(lambda x, w: torch.sub(x, w, alpha=3) - (w - x), (2, 3), w=(3,), gives=[ops.Sub]),
    "rsub": of(lambda x: torch.rsub(x, 2, alpha=3) + (1 - x), (2, 3)),
    "mul": of(lambda x, w: x * w * 3, (2, 3), w=(1, 3), gives=[ops.Mul, ops.Scale]),
    "mul by a single constant": of(lambda x: x * torch.tensor([0.5]), (2, 3), gives=[ops.Scale]),
    "div": of(lambda x, y: x / (y * y + 1) / 3, (2, 3), (3,), gives=[ops.Div, ops.Scale]),
    "number over": of(lambda x: 1 / x + 3 / x, (2, 3), make=positive),
    "neg": of(lambda x: -x, (2, 3), gives=[ops.Scale]),
    "pow": of(
        lambda x, y: x**2 + x**0.5 + x**-1 + x**-0.5 + x**3.5 + x**y + 2**x,
        *((2, 3), (2, 3)),
        make=positive,
        gives=[ops.Pow, ops.Elementwise],
    ),
    "addcmul": of(lambda x, y, z: torch.addcmul(x, y, z, value=2), *[(2, 3)] * 3),
    "addcdiv": of(lambda x, y, z: torch.addcdiv(x, y, z, value=2), *[(2, 3)] * 3, make=positive),
    "in place": of(lambda x, y: (x * 2).add_(y).mul_(3), (2, 3), (2, 3)),
    "integer constant": of(lambda x: x + torch.arange(3) * x, (2, 3)),
    "masked_fill": of(lambda x: x.masked_fill(MASK, -1e4), (4, 2, 3), gives=[ops.Mul, ops.Add]),
    "masked_fill with infinity": of(
        lambda x: F.softmax(x.masked_fill(~MASK, float("-inf")), -1), (4, 2, 3)
    ),
    "masked_fill of nothing": of(lambda x: x.masked_fill(MASK & ~MASK, 3).relu(), (2, 3)),
    "where": of(lambda x, y: torch.where(MASK, x, y), (2, 3), (2, 3), gives=[ops.Mul, ops.Add]),
    "where, a number": of(lambda x: torch.where(MASK, 3.0, x), (2, 3)),
    "two parameters": of(lambda x, u, v: x + (u * v), (2, 3), u=(3,), v=(3,), gives=[ops.Mul]),
}
SHAPE = {
    "cat": of(lambda x, w: torch.cat([x, w.expand(2, 1, 3)], 1), (2, 4, 3), w=(1, 1, 3)),
    "cat with an empty vector": of(lambda x: torch.cat([torch.zeros(0), x.relu()], 1), (2, 3)),
    "stack": of(lambda x, y: torch.stack([x, y], -1), (2, 3), (2, 3), gives=[ops.Concat]),
    "split": of(lambda x: x.split(3, 1)[1:], (2, 8), gives=[ops.Split]),
    "split by sizes": of(lambda x: x.split([1, 5, 2], -1), (2, 8), gives=[ops.Split]),
    "chunk": of(lambda x: x.chunk(3, 1), (2, 8)),
    "tensor_split": of(lambda x: x.tensor_split(3, 1), (2, 8)),
    "tensor_split at": of(lambda x: x.tensor_split([2, -1], 1), (2, 8)),
    "unbind": of(lambda x: x.unbind(1), (2, 3, 4), gives=[ops.Gather]),
    "slice": of(lambda x: x[:, 1:-1:2, -3:] + 1, (2, 8, 5), gives=[ops.Slice]),
    "slice of everything": of(lambda x: x[:, :].relu(), (2, 3)),
    "select": of(lambda x: x[:, -1] + x[:, 0], (2, 3, 4), gives=[ops.Gather]),
    "narrow": of(lambda x: x.narrow(1, 1, 2) + 0, (2, 4), gives=[ops.Slice]),
    "index_select": of(lambda x: x.index_select(1, torch.tensor([2, 0, 0])), (2, 3, 4)),
    "index": of(lambda x: x[:, [2, -1, 0]], (2, 3, 4), gives=[ops.Gather]),
    "index by a table": of(lambda x, w: x + w[torch.tensor([[0, 3], [1, 1]])], (2, 2), w=(4,)),
    "index two axes": of(lambda x: x[:, [[0], [2]], [1, 3]], (2, 3, 4), gives=[ops.Gather]),
    "expand": of(lambda x: x.expand(4, 2, -1) + 0, (2, 3), gives=[ops.Expand]),
    "expand_as": of(lambda x, y: x.expand_as(y) + 0, (1, 3), (2, 3)),
    "broadcast_to": of(lambda x: x.broadcast_to((2, 3)) + 0, (3,)),
    "repeat one": of(lambda x: x.repeat(4, 3, 1), (1, 3), gives=[ops.Expand]),
    "repeat": of(lambda x: x.repeat(2, 3, 2), (2, 3)),
    "repeat_interleave": of(lambda x: x.repeat_interleave(3, 1), (2, 4, 3)),
    "pad": of(lambda x: F.pad(x, (1, 2, 3, 0), value=0.5), IMAGE, gives=[ops.Pad]),
    "pad and cut": of(lambda x: F.pad(x, (1, -2)), SEQUENCE, gives=[ops.Slice, ops.Pad]),
    "reflection_pad": of(lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"), IMAGE),
    "replication_pad": of(lambda x: F.pad(x, (1, 2), mode="replicate"), SEQUENCE),
    "circular pad": of(lambda x: F.pad(x, (1, 2, 3, 0), mode="circular"), IMAGE),
    "roll": of(lambda x: x.roll((2, -1), (1, 2)), IMAGE, gives=[ops.Slice, ops.Concat]),
    "roll everything": of(lambda x: x.roll(5), (2, 4)),
    "flip": of(lambda x: x.flip(1, -1), IMAGE, gives=[ops.Slice]),
    "unflatten": of(lambda x: x.unflatten(1, (2, 2)) + 0, (3, 4, 2), gives=[ops.Reshape]),
    "pixel_shuffle": of(lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel_unshuffle": of(lambda x: F.pixel_unshuffle(x, 2), (2, 3, 4, 6)),
    "channel_shuffle": of(lambda x: F.channel_shuffle(x, 2), IMAGE),
    "permutations": of(
        lambda x: x.movedim(1, -1).swapaxes(0, 1).moveaxis((0, 1), (2, 0)).mT.transpose(0, 2) + 0,
        (2, 3, 4, 5),
        gives=[ops.Transpose],
    ),
    "squeezes": of(
        lambda x: x.squeeze(1).unsqueeze(-1).squeeze().squeeze((0, 1)).contiguous().clone() + 0,
        (2, 1, 3, 1, 4),
    ),
    "casts": of(lambda x: x.double().to(torch.float32).type_as(x) + 0, (2, 3)),
    "views": of(lambda x, y: x.view_as(y).reshape_as(x).ravel() + 0, (2, 6), (3, 4)),
}
REDUCTIONS = {
    "mean": of(lambda x: x.mean((1, -1)) + x.mean(), IMAGE, gives=[ops.Reduce]),
    "sum": of(lambda x: x.sum(-1, keepdim=True) * x.sum(), SEQUENCE, gives=[ops.Reduce]),
    "amax, amin": of(lambda x: x.amax((1, 2)) - x.amin((1, 2)), SEQUENCE),
    "max, min": of(lambda x: x.max(1)[0] - x.min(1).values + x.max() - x.min(), SEQUENCE),
    "prod": of(lambda x: x.prod(1), SEQUENCE, gives=[ops.Reduce]),
    "logsumexp": of(lambda x: x.logsumexp((1, 2)), SEQUENCE),
    "norms": of(lambda x: x.norm(dim=1) + torch.linalg.vector_norm(x, 1, dim=1), SEQUENCE),
    "var": of(lambda x: x.var(1) + x.var(1, correction=0), SEQUENCE),
    "std": of(lambda x: x.std((1, 2), keepdim=True), SEQUENCE),
}
FAMILIES = {
    "layers": LAYERS,
    "normalisation": NORMALISATION,
    "pooling": POOLING,
    "activations": ACTIVATIONS,
    "elementwise": ELEMENTWISE,
    "arithmetic": ARITHMETIC,
    "shape": SHAPE,
    "reductions": REDUCTIONS,
}
CASES = {
    f"{family}: {name}": case for family, cases in FAMILIES.items() for name, case in cases.items()
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CASES)
def test_computes_what_torch_computes(name):
    make, make_inputs, gives = CASES[name]
    model, inputs = make(), make_inputs()
    graph = read(model, inputs)
    assert_computes(graph, model, inputs)
    assert gives <= {type(node.op) for node in graph.nodes}


class Together(nn.Module):
    """Several modules with inputs of their own; all their outputs in one tuple."""

    def __init__(self, modules: Sequence[Any], counts: Sequence[int]) -> None:
        super().__init__()
        self.parts, self.counts = nn.ModuleList(modules), counts

    def forward(self, *inputs: Any) -> Any:
        rest, found = list(inputs), []
        for module, count in zip(self.parts, self.counts, strict=True):
            result = module(*rest[:count])
            found += list(result) if isinstance(result, tuple | list) else [result]
            rest = rest[count:]
        return tuple(found)


# What torch's own decompositions turn into steps that depend on the data, and the step.
REFUSED_DECOMPOSED = {
    "layers: einsum of one": "aten.diagonal.default",
    "normalisation: instance_norm": "its weight is computed",
    "activations: celu": "aten.gt.Scalar",
    "activations: mish": "aten.gt.Scalar",
    "activations: softplus": "aten.gt.Scalar",
    "activations: rrelu": "aten.rrelu_with_noise_functional.default",
    "reductions: logsumexp": "aten.eq.Scalar",
}


def together(family: str, without: Collection[str] = ()) -> tuple[Any, list[Any]]:
    """One module of all cases of a family, and its inputs."""
    made = [
        (make(), make_inputs())
        for name, (make, make_inputs, _) in FAMILIES[family].items()
        if f"{family}: {name}" not in without
    ]
    model = Together([model for model, _ in made], [len(own) for _, own in made]).eval()
    return model, [x for _, own in made for x in own]


@pytest.mark.parametrize("family", FAMILIES)
def test_decomposed_program_computes_the_same(family):
    model, inputs = together(family, REFUSED_DECOMPOSED)
    assert_computes(read(model, inputs, decompose=True), model, inputs)


@pytest.mark.parametrize("name", REFUSED_DECOMPOSED)
def test_what_decomposed_programs_do_by_data_is_refused_by_name(name):
    make, make_inputs, _ = CASES[name]
    found = unsupported(read(make(), make_inputs(), decompose=True))
    assert REFUSED_DECOMPOSED[name] in found[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stated_shape_that_is_not_computed_is_refused(family):
    """Each output of the file in turn is said to be one longer than it is."""
    model, inputs = together(family)
    data = export(model, inputs)
    sizes = program(data)["graph_module"]["graph"]["tensor_values"]
    good = pt2_model.load_bytes(data, "model.pt2", LoadOptions())
    assert not unsupported(good)
    produced = [name for name in sizes if name in good.producers and sizes[name]["sizes"]]
    assert len(produced) >= len(FAMILIES[family])
    for name in produced:
        changed = program(data)
        meta = changed["graph_module"]["graph"]["tensor_values"][name]
        meta["sizes"][-1] = {"as_int": meta["sizes"][-1]["as_int"] + 1}
        try:
            graph = pt2_model.load_bytes(with_program(data, changed), "model.pt2", LoadOptions())
        except AuditError:
            continue
        assert unsupported(graph), name


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_arguments_never_crash_the_reader(family):
    model, inputs = together(family)
    data = export(model, inputs)
    original = program(data)
    draw = random.Random(0)
    for _ in range(60):
        changed = copy.deepcopy(original)
        for _ in range(3):
            call = draw.choice(changed["graph_module"]["graph"]["nodes"])
            if call["inputs"]:
                entry = draw.choice(call["inputs"])
                entry["arg"] = draw.choice(DAMAGE) if draw.random() < 0.7 else entry["arg"]
                entry["name"] = draw.choice([entry["name"], "dim", "self", "size"])
        # Nothing but these two outcomes: a graph, or an error for the user.
        with contextlib.suppress(AuditError):
            pt2_model.load_bytes(with_program(data, changed), "model.pt2", LoadOptions())


DAMAGE: list[dict[str, Any]] = [
    {"as_none": True},
    {"as_int": -1},
    {"as_int": 0},
    {"as_int": 2**62},
    {"as_float": "NaN"},
    {"as_float": 1e300},
    {"as_bool": True},
    {"as_string": "...,->"},
    {"as_ints": []},
    {"as_ints": [-7, 2**40]},
    {"as_ints": [0, 0]},
    {"as_tensors": []},
    {"as_optional_tensors": [{"as_none": True}]},
    {"as_scalar_type": 99},
]


class TestConstants:
    def test_a_mask_from_nothing_is_a_parameter_that_is_not_trained(self):
        def forward(x):
            mask = torch.full((4, 4), float("-inf")).triu(1)
            return F.softmax(x + mask, -1)

        model, x = Apply(forward), torch.randn(2, 4, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        assert [type(node.op) for node in graph.nodes] == [ops.Add, ops.Softmax]
        (parameter,) = graph.parameters.values()
        assert not parameter.trainable
        expected = torch.full((4, 4), float("-inf")).triu(1).numpy()
        np.testing.assert_array_equal(graph.weights.load(parameter.name), expected)

    def test_what_is_written_into_a_constant_reaches_its_views_and_no_earlier_reader(self):
        def forward(x):
            table = torch.zeros(3, 4)
            column = table[:, 1]
            before = x + table
            table[0] = 2
            column.add_(torch.arange(3))
            table[1:, 2:] = torch.tensor([[5.0, 6.0], [7.0, 8.0]])
            return before, x * table, x[:, 0] + column

        model, x = Apply(forward), torch.randn(3, 4)
        assert_computes(read(model, (x,)), model, (x,))
        assert_computes(read(model, (x,), decompose=True), model, (x,))

    def test_position_encodings_under_no_grad(self):
        def forward(x, frequencies):
            with torch.no_grad():
                angles = torch.arange(5)[:, None].float() * frequencies
                table = torch.cat([angles.sin(), angles.cos()], -1)
            return x + table

        model, x = Apply(forward, frequencies=torch.rand(3)), torch.randn(2, 5, 6)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        assert [type(node.op) for node in graph.nodes] == [ops.Add]

    def test_a_slice_of_a_buffer_is_an_index(self):
        def forward(x, w, positions):
            return x + F.embedding(positions[:, :3], w)

        model = Apply(forward, w=weights(7, 4), positions=torch.arange(7)[None])
        x = torch.randn(2, 3, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        embedding, _ = graph.nodes
        assert embedding.op == ops.Embedding()
        assert graph.weights.load(embedding.inputs[0]).tolist() == [[0, 1, 2]]

    def test_a_frozen_parameter_is_no_constant(self):
        """It stays readable under its own name, whether it sends a gradient or not."""
        model = Apply(lambda x, w: x + w[1:], w=weights(4, 5))
        data = export(model, (torch.randn(3, 5),))
        graph = pt2_model.load_bytes(data, "model.pt2", LoadOptions(frozen=("w",)))
        assert graph.nodes[0].inputs == ("w",)
        assert not graph.parameters["w"].trainable

    def test_constants_that_are_too_large_are_not_computed(self):
        model = Apply(lambda x: x + torch.zeros(2**12, 2**12)[0, 0])
        graph = read(model, (torch.randn(2, 2),))
        assert "aten.zeros.default" in unsupported(graph)[0]

    def test_integers_computed_from_data_are_refused(self):
        class Positions(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(9, 4)

            def forward(self, ids):
                return self.table((ids != 1).int().cumsum(1))

        graph = read(Positions(), (torch.tensor([[3, 4, 1]]),))
        assert any("aten.cumsum.default" in reason for reason in unsupported(graph))
        assert graph.tensors[graph.inputs[0]].dtype == "int64"


class TestTraceability:
    """From every use of a trainable parameter there is a way back to its name."""

    def test_class_token_and_position_embedding(self):
        def forward(x, token, positions):
            return torch.cat([token.expand(x.shape[0], -1, -1), x], 1) + positions

        model = Apply(forward, token=weights(1, 1, 4), positions=weights(1, 4, 4))
        x = torch.randn(2, 3, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        expand, concat, add = graph.nodes
        assert expand.inputs == ("token",)
        assert concat.inputs == (expand.outputs[0], graph.inputs[0])
        assert add.inputs == (concat.outputs[0], "positions")

    def test_a_rearranged_parameter_is_read_through_nodes(self):
        model = Apply(lambda x, w: x * w.view(2, 3).t()[None, 1:].permute(0, 2, 1), w=weights(6))
        x = torch.randn(4, 2, 2)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        assert [type(node.op) for node in graph.nodes][:2] == [ops.Reshape, ops.Transpose]
        assert graph.nodes[0].inputs == ("w",)
        assert graph.parameter_uses["w"] == 1

    def test_the_view_that_a_layer_takes_as_its_weight_leaves_no_node(self):
        model = Apply(lambda x, w: F.linear(x, w.t()), w=weights(4, 3))
        graph = read(model, (torch.randn(2, 4),))
        assert [type(node.op) for node in graph.nodes] == [ops.Linear]
        assert graph.parameter_uses["w"] == 1

    def test_a_layer_that_starts_from_a_parameter(self):
        model = Apply(lambda x, q, w: x + F.linear(q, w), q=weights(1, 3), w=weights(4, 3))
        x = torch.randn(2, 4)
        graph = read(model, (x,))
        assert_computes(graph, model, (x,))
        # What later stages look up as a layer's input is a tensor, not a parameter.
        linear = next(node for node in graph.nodes if isinstance(node.op, ops.Linear))
        assert linear.inputs[0] in graph.tensors


def test_batch_normalisation_in_training_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.1))
    for decompose in (False, True):
        graph = read(model.train(), (torch.randn(2, 3, 5, 5),), decompose)
        assert [type(node.op) for node in graph.nodes] == [ops.Conv, ops.BatchNorm]
        assert graph.nodes[1].op == ops.BatchNorm(0.1, training=True)
        assert dict(graph.nodes[1].parameters) == {"scale": "1.weight", "bias": "1.bias"}
        assert [node.name for node in graph.nodes] == ["0", "1"]


@pytest.mark.parametrize(
    ("function", "shapes", "reason"),
    [
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), [IMAGE], "divisor_override"),
        (lambda x: F.adaptive_max_pool2d(x, 5), [IMAGE], "unequal size"),
        (lambda x: F.max_pool2d(x, 2, return_indices=True), [IMAGE], "more than the first"),
        (lambda x: F.max_pool2d(x, 2), [(4, 9, 8)], "no batch axis"),
        (lambda x: F.softplus(x, 1, 5), [IMAGE], "threshold is below 20"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), [IMAGE], "rounds"),
        (lambda x: torch.where(x > 0, x, 0.0), [IMAGE], "aten.gt.Scalar"),
        (lambda x, i: x[:, i.long()], [IMAGE, (2,)], "it turns float32 data into int64"),
        (lambda x: x.int().float(), [IMAGE], "it turns float32 data into int32"),
        (lambda x: x[[0, 1], :, [0, 1]], [IMAGE], "apart from each other"),
        (lambda x: F.hardshrink(x), [IMAGE], "no rule"),
        (lambda x: x.norm(3, 1), [IMAGE], "3-norm"),
        (lambda x, y: torch.maximum(x, y), [IMAGE, IMAGE], "is computed, not constant"),
        (lambda x: F.interpolate(x, 4, mode="bilinear", antialias=True), [IMAGE], "_aa"),
        (lambda x: F.conv2d(x, x[:, :, :3, :3].mul(2)), [IMAGE], "weight is computed"),
        (lambda x: F.dropout(x, 0.5, training=True), [IMAGE], "model.eval()"),
        (lambda x, y, z: torch.einsum("ab,bc,cd->ad", x, y, z), [(2, 2)] * 3, "of 3 tensors"),
        (
            lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5),
            [(2, 3, 4)],
            "model.eval()",
        ),
        (
            lambda q, m: F.scaled_dot_product_attention(q, q, q, m > 0),
            [(2, 3, 4), (3, 3)],
            "aten.gt.Scalar",
        ),
        (
            lambda q: F.scaled_dot_product_attention(q, q, q, torch.zeros(3, 3, dtype=torch.bool)),
            [(2, 3, 4)],
            "hides every key",
        ),
    ],
)
def test_refused_with_its_reason(function, shapes, reason):
    found = unsupported(read(Apply(function), [torch.randn(shape) for shape in shapes]))
    assert any(reason in text for text in found), found


def test_the_table_holds_every_family_once():
    """A target in two families would silently be that of the later one."""
    families = [
        module.BUILDERS for name, module in vars(pt2_ops).items() if name.startswith("pt2_ops_")
    ]
    folder = Path(pt2_ops.__file__).parent
    assert len(families) == len(list(folder.glob("pt2_ops_*.py")))
    assert sum(map(len, families)) == len(pt2_ops.BUILDERS)


@pytest.mark.parametrize("target", [*pt2_ops.BUILDERS, *pt2_ops.REFUSED])
def test_every_target_names_an_operator_of_torch(target):
    """A misspelt target would never be found missing: it would be Unsupported for ever."""
    library, name, variant = target.split(".")
    assert variant in getattr(getattr(torch.ops, library), name).overloads()
