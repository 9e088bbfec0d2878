"""Normalisation and softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Builder, Call, Layer
from leakaudit.frontends.aten.values import numpy_dtype
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor


def _channels(source: Tensor) -> int:
    if len(source.shape) < 2:
        raise NotUnderstoodError("its input has no channel axis")
    return source.shape[1]


def _epsilon(call: Call) -> float:
    name = next((name for name in ("epsilon", "eps") if name in call.arguments), "eps")
    return call.number(name, 1e-5)


def _affine(call: Call, shape: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    return (*call.optional("scale", "weight", shape), *call.optional("bias", "bias", shape))


def _batch_norm(call: Call) -> Layer:
    source = call.source()
    channels = _channels(source)
    always = call.target in _EVALUATION
    training = not always and call.flag("training", "no_stats" in call.target)
    affine = _affine(call, (channels,))
    if training and source.shape[0] == 1 and "no_stats" in call.target:
        # Decomposed instance normalisation: one example whose statistics are its channels' own.
        return Layer(
            ops.GroupNorm(channels, _epsilon(call)), (source.name,), affine, (call.output,)
        )
    if not training:
        affine += call.optional("mean", "running_mean", (channels,))
        affine += call.optional("variance", "running_var", (channels,))
        if {"mean", "variance"} - {role for role, _ in affine}:
            raise NotUnderstoodError("it has no running statistics")
    return Layer(
        ops.BatchNorm(_epsilon(call), training), (source.name,), affine, outputs=(call.output,)
    )


def _instance_norm(call: Call) -> Layer:
    source = call.source()
    channels = _channels(source)
    affine = _affine(call, (channels,))
    if call.flag("use_input_stats", True):
        return Layer(ops.GroupNorm(channels, _epsilon(call)), (source.name,), affine)
    mean = call.optional("mean", "running_mean", (channels,))
    variance = call.optional("variance", "running_var", (channels,))
    if not (mean and variance):
        raise NotUnderstoodError("it has no running statistics")
    return Layer(ops.BatchNorm(_epsilon(call)), (source.name,), (*affine, *mean, *variance))


def _group_norm(call: Call) -> Layer:
    source = call.source()
    channels = _channels(source)
    groups = call.integer("group" if "group" in call.arguments else "num_groups", 1)
    if groups < 1 or channels % groups:
        raise NotUnderstoodError("its groups do not fit its channels")
    affine = _affine(call, (channels,))
    return Layer(
        ops.GroupNorm(groups, _epsilon(call)), (source.name,), affine, outputs=(call.output,)
    )


def _normalised_shape(call: Call, source: Tensor) -> tuple[int, ...]:
    shape = call.integers("normalized_shape", ())
    if not shape or source.shape[-len(shape) :] != shape:
        raise NotUnderstoodError("its normalised shape does not fit its input")
    return shape


def _layer_norm(call: Call) -> Layer:
    source = call.source()
    shape = _normalised_shape(call, source)
    return Layer(
        ops.LayerNorm(len(shape), _epsilon(call)),
        (source.name,),
        _affine(call, shape),
        outputs=(call.output,),
    )


def _rms_norm(call: Call) -> Layer:
    source = call.source()
    shape = _normalised_shape(call, source)
    if call.arguments.get("eps") is not None:
        epsilon = call.number("eps", 0.0)
    elif source.dtype in ("float16", "float32", "float64"):
        epsilon = float(np.finfo(numpy_dtype(source.dtype)).eps)
    else:
        raise NotUnderstoodError(f"its epsilon is that of {source.dtype}")
    return Layer(
        ops.RmsNorm(len(shape), epsilon),
        (source.name,),
        call.optional("scale", "weight", shape),
        outputs=(call.output,),
    )


def _softmax(log: bool) -> Callable[[Call], Layer]:
    def builder(call: Call) -> Layer:
        source = call.source()
        axis = call.axis("dim", len(source.shape), -1)
        return Layer(ops.Softmax(axis, log), (source.name,))

    return builder


_EVALUATION = (
    "aten._native_batch_norm_legit_no_training.default",
    "aten._batch_norm_no_update.default",
)


_BATCH_NORMS = (
    *_EVALUATION,
    "aten.batch_norm.default",
    "aten.native_batch_norm.default",
    "aten.cudnn_batch_norm.default",
    "aten.miopen_batch_norm.default",
    "aten._native_batch_norm_legit.default",
    "aten._native_batch_norm_legit.no_stats",
    "aten._native_batch_norm_legit_functional.default",
)


BUILDERS: Mapping[str, Builder] = {
    **dict.fromkeys(_BATCH_NORMS, _batch_norm),
    "aten.instance_norm.default": _instance_norm,
    "aten.group_norm.default": _group_norm,
    "aten.native_group_norm.default": _group_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.native_layer_norm.default": _layer_norm,
    "aten.rms_norm.default": _rms_norm,
    "aten._fused_rms_norm.default": _rms_norm,
    "aten.softmax.int": _softmax(False),
    "aten._softmax.default": _softmax(False),
    "aten.log_softmax.int": _softmax(True),
    "aten._log_softmax.default": _softmax(True),
}
