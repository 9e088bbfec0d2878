"""One small module for each mapped ATen operator, with its inputs and what it must become."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from pt2_apply import normal, of, positive

from leakaudit import operators as ops

nn = torch.nn
F = torch.nn.functional


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
    "masked_fill": of(lambda x: x.masked_fill(MASK, -1e4), (4, 2, 3), gives=[ops.Where]),
    "masked_fill with infinity": of(
        lambda x: F.softmax(x.masked_fill(~MASK, float("-inf")), -1), (4, 2, 3)
    ),
    "masked_fill of nothing": of(lambda x: x.masked_fill(MASK & ~MASK, 3).relu(), (2, 3)),
    "where": of(lambda x, y: torch.where(MASK, x, y), (2, 3), (2, 3), gives=[ops.Where]),
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


def together(family: str, without: Collection[str] = ()) -> tuple[Any, list[Any]]:
    """One module of all cases of a family, and its inputs."""
    made = [
        (make(), make_inputs())
        for name, (make, make_inputs, _) in FAMILIES[family].items()
        if f"{family}: {name}" not in without
    ]
    model = Together([model for model, _ in made], [len(own) for _, own in made]).eval()
    return model, [x for _, own in made for x in own]
