"""ATen operators that no public function of torch leads to here: called by their own names."""

from __future__ import annotations

from typing import Any

import torch
from pt2_apply import Case, of, positive
from pt2_cases import IMAGE, MASK, SEQUENCE, VOLUME


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def aten(name: str, *shapes: tuple[int, ...], after: tuple[Any, ...] = (), **options: Any) -> Case:
    """A case that calls an operator with inputs of these shapes and the arguments `after` them."""
    packet, variant = name.split(".")
    operator = getattr(getattr(torch.ops.aten, packet), variant)
    stored = {name: options.pop(name) for name in ("make",) if name in options}
    stored |= options.pop("stored", {})

    def function(*inputs: Any, **weights: Any) -> Any:
        # A view of an input is no node: the sum makes one.
        return _first(operator(*inputs, *weights.values(), *after, **options)) + 0

    return of(function, *shapes, **stored)


_AFFINE = {"a": torch.rand(4), "b": torch.rand(4)}
_RUNNING = {**_AFFINE, "c": torch.rand(4), "d": torch.rand(4) + 0.5}
_QKV = [(2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 4)]

DIRECT: dict[str, Case] = {
    "_batch_norm_no_update.default": aten(
        "_batch_norm_no_update.default", IMAGE, stored=_RUNNING, after=(0.1, 0.1)
    ),
    "native_batch_norm.default": aten(
        "native_batch_norm.default", IMAGE, stored=_RUNNING, after=(False, 0.1, 0.1)
    ),
    "_native_batch_norm_legit.default": aten(
        "_native_batch_norm_legit.default", IMAGE, stored=_RUNNING, after=(False, 0.1, 0.1)
    ),
    "_fused_rms_norm.default": of(
        lambda x, w: torch.ops.aten._fused_rms_norm.default(x, [4], w, 0.1)[0], (2, 4), w=(4,)
    ),
    "_convolution.default": of(
        lambda x, w: torch.ops.aten._convolution.default(
            *(x, w, None, [2, 1], [1, 0], [1, 1], False, [0, 0], 1, False, False, True, True)
        ),
        IMAGE,
        w=(3, 4, 3, 2),
    ),
    "convolution.default": of(
        lambda x, w: torch.ops.aten.convolution.default(
            x, w, None, [2, 1], [1, 0], [1, 1], True, [1, 0], 2
        ),
        IMAGE,
        w=(4, 3, 3, 2),
    ),
    "_scaled_dot_product_attention_math.default": aten(
        "_scaled_dot_product_attention_math.default", *_QKV
    ),
    "_scaled_dot_product_flash_attention_for_cpu.default": aten(
        "_scaled_dot_product_flash_attention_for_cpu.default", *_QKV, after=(0.0, False), scale=0.3
    ),
    **{
        f"_upsample_nearest_exact{d}d.{variant}": aten(
            f"_upsample_nearest_exact{d}d.{variant}", shape, after=after
        )
        for d, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
        for variant, after in (("vec", (None, [1.6] * d)), ("default", ([3] * d,)))
    },
    **{
        f"upsample_{name}.default": aten(f"upsample_{name}.default", shape, after=(sizes, *corners))
        for name, shape, sizes, corners in (
            ("nearest1d", SEQUENCE, [7], ()),
            ("nearest2d", IMAGE, [7, 11], ()),
            ("nearest3d", VOLUME, [3, 4, 9], ()),
            ("linear1d", SEQUENCE, [7], (False,)),
            ("bilinear2d", IMAGE, [7, 11], (True,)),
            ("bicubic2d", IMAGE, [7, 11], (False,)),
            ("trilinear3d", VOLUME, [3, 4, 9], (False,)),
        )
    },
    "max_pool1d_with_indices.default": aten(
        "max_pool1d_with_indices.default", SEQUENCE, after=([3],)
    ),
    "adaptive_max_pool3d.default": aten("adaptive_max_pool3d.default", VOLUME, after=([1, 2, 7],)),
    **{
        f"{name}{d}d.default": aten(
            f"{name}{d}d.default", shape, after=(list(range(1, 1 + 2 * d)),)
        )
        for name in ("reflection_pad", "replication_pad")
        for d, shape in ((1, SEQUENCE), (2, IMAGE), (3, (2, 3, 8, 9, 9)))
    },
    "_pad_circular.default": aten("_pad_circular.default", SEQUENCE, after=([1, 2],)),
    "native_channel_shuffle.default": aten("native_channel_shuffle.default", IMAGE, after=(2,)),
    "addmv.default": aten("addmv.default", (3,), (3, 4), (4,), beta=2, alpha=3),
    "dot.default": aten("dot.default", (3,), (3,)),
    "native_dropout.default": aten("native_dropout.default", SEQUENCE, after=(0.5, False)),
    **{
        f"{name}.default": aten(f"{name}.default", SEQUENCE, after=(0.5, False))
        for name in ("alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    },
    "log_sigmoid_forward.default": aten("log_sigmoid_forward.default", SEQUENCE),
    "clamp_max.default": aten("clamp_max.default", SEQUENCE, after=(0.3,)),
    "clip.default": aten("clip.default", SEQUENCE, after=(None, 0.3)),
    **{
        f"{name}.other": of(
            lambda x, name=name: getattr(torch.ops.aten, name).other(x, torch.tensor(0.3)), SEQUENCE
        )
        for name in ("max", "min")
    },
    **{
        f"{name}.default": aten(f"{name}.default", SEQUENCE)
        for name in (
            *("special_erf", "special_expit", "negative", "atan", "arctan", "positive"),
            *("resolve_conj", "resolve_neg", "prod", "mT", "mH", "adjoint", "numpy_T"),
            *("std", "var", "tril", "triu", "leaky_relu"),
        )
    },
    "_unsafe_view.default": aten("_unsafe_view.default", (2, 6), after=([3, 4],)),
    "t.default": aten("t.default", (2, 3)),
    "norm.Scalar": aten("norm.Scalar", SEQUENCE, after=(1,)),
    "norm.ScalarOpt_dim": aten("norm.ScalarOpt_dim", SEQUENCE, after=(2, [1])),
    "std.correction": aten("std.correction", SEQUENCE, after=([1],), correction=0),
    "flatten.using_ints": aten("flatten.using_ints", IMAGE, after=(1, 2)),
    "movedim.intlist": aten("movedim.intlist", IMAGE, after=([0, 1], [3, 0])),
    "moveaxis.int": aten("moveaxis.int", IMAGE, after=(0, 2)),
    "swapdims.default": aten("swapdims.default", IMAGE, after=(0, 2)),
    **{
        f"{name}.{variant}": aten(
            f"{name}.{variant}", *([(2, 3)] * (2 if variant == "Tensor" else 1)), **further
        )
        for name, variant, further in (
            *(("divide", "Tensor", {}), ("true_divide", "Tensor", {})),
            *(("subtract", "Tensor", {}), ("multiply", "Tensor", {}), ("rsub", "Tensor", {})),
            *(("divide", "Scalar", {"after": (3,)}), ("true_divide", "Scalar", {"after": (3,)})),
            *(("div", "Scalar", {"after": (3,)}), ("multiply", "Scalar", {"after": (3,)})),
            *(("subtract", "Scalar", {"after": (3,)}), ("sub", "Scalar", {"after": (3,)})),
        )
    },
    "div.Tensor_mode": aten("div.Tensor_mode", (2, 3), (2, 3), rounding_mode=None),
    "div.Scalar_mode": aten("div.Scalar_mode", (2, 3), after=(3,), rounding_mode=None),
    "masked_fill.Tensor": of(lambda x: x.masked_fill(MASK, torch.tensor(3.0)), (2, 3)),
    "where.ScalarOther": of(lambda x: torch.ops.aten.where.ScalarOther(MASK, x, 3.0), (2, 3)),
    "split.sizes": of(lambda x: torch.ops.aten.split.sizes(x, [1, 2], 1), (2, 3)),
    "unsafe_split.Tensor": of(lambda x: torch.ops.aten.unsafe_split.Tensor(x, 2, 1), (2, 3)),
    **{
        f"{name}.default": of(
            lambda x, name=name: getattr(torch.ops.aten, name).default([x, 2 * x], 1), (2, 3)
        )
        for name in ("concat", "concatenate")
    },
    **{
        f"{name}stack.default": of(
            lambda x, y, name=name: (
                getattr(torch.ops.aten, f"{name}stack").default([x, x + 1]),
                getattr(torch.ops.aten, f"{name}stack").default([y, y + 1]),
            ),
            *((2, 3), (4,)),
        )
        for name in ("h", "v")
    },
    "tile.default": aten("tile.default", IMAGE, after=([2, 1, 3],)),
    "meshgrid.indexing": of(
        lambda x: x * torch.meshgrid(torch.arange(2), torch.arange(3), indexing="xy")[1], (3, 2)
    ),
    "as_strided.default": aten("as_strided.default", (2, 6), after=([3, 4], [4, 1])),
    "select_scatter.default": aten("select_scatter.default", (2, 3), (2,), after=(1, -2)),
    "slice_scatter.default": aten("slice_scatter.default", (2, 5), (2, 2), after=(1, 1, 3)),
    "prelu.default": of(lambda x, w: torch.ops.aten.prelu.default(x, w), IMAGE, w=(4,)),
    "pow.Tensor_Scalar": aten("pow.Tensor_Scalar", (2, 3), after=(1.7,), make=positive),
}
