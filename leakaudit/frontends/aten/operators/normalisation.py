"""Normalisation and softmax."""

from __future__ import annotations

from functools import partial

import numpy as np

from leakaudit import operators as ops
from leakaudit.frontends.aten.call import Call, Layer, Roles, by_target, targets
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


def _affine(call: Call, shape: tuple[int, ...]) -> Roles:
    return (*call.optional("scale", "weight", shape), *call.optional("bias", "bias", shape))


def _batch_norm(call: Call) -> Layer:
    source = call.source()
    channels = _channels(source)
    always = call.target in targets(_EVALUATION)
    training = not always and call.flag("training", "no_stats" in call.target)
    affine = _affine(call, (channels,))
    if training and source.shape[0] == 1 and "no_stats" in call.target:
        # Decomposed instance normalisation: one example whose statistics are its channels' own.
        return Layer(ops.GroupNorm(channels, _epsilon(call)), (source.name,), affine)
    statistics = () if training else _statistics(call, (channels,))
    return Layer(ops.BatchNorm(_epsilon(call), training), (source.name,), affine + statistics)


def _statistics(call: Call, shape: tuple[int, ...]) -> Roles:
    mean = call.optional("mean", "running_mean", shape)
    variance = call.optional("variance", "running_var", shape)
    if not (mean and variance):
        raise NotUnderstoodError("it has no running statistics")
    return mean + variance


def _instance_norm(call: Call) -> Layer:
    source = call.source()
    channels = _channels(source)
    affine = _affine(call, (channels,))
    if call.flag("use_input_stats", True):
        return Layer(ops.GroupNorm(channels, _epsilon(call)), (source.name,), affine)
    statistics = _statistics(call, (channels,))
    return Layer(ops.BatchNorm(_epsilon(call)), (source.name,), affine + statistics)


def _group_norm(call: Call) -> Layer:
    source = call.source()
    channels = _channels(source)
    groups = call.integer("group" if "group" in call.arguments else "num_groups", 1)
    if groups < 1 or channels % groups:
        raise NotUnderstoodError("its groups do not fit its channels")
    op = ops.GroupNorm(groups, _epsilon(call))
    return Layer(op, (source.name,), _affine(call, (channels,)))


def _normalised_shape(call: Call, source: Tensor) -> tuple[int, ...]:
    shape = call.integers("normalized_shape", ())
    if not shape or source.shape[-len(shape) :] != shape:
        raise NotUnderstoodError("its normalised shape does not fit its input")
    return shape


def _layer_norm(call: Call) -> Layer:
    source = call.source()
    shape = _normalised_shape(call, source)
    op = ops.LayerNorm(len(shape), _epsilon(call))
    return Layer(op, (source.name,), _affine(call, shape))


def _rms_norm(call: Call) -> Layer:
    source = call.source()
    shape = _normalised_shape(call, source)
    if call.arguments.get("eps") is not None:
        epsilon = call.number("eps", 0.0)
    elif source.dtype in ("float16", "float32", "float64"):
        epsilon = float(np.finfo(numpy_dtype(source.dtype)).eps)
    else:
        raise NotUnderstoodError(f"its epsilon is that of {source.dtype}")
    scale = call.optional("scale", "weight", shape)
    return Layer(ops.RmsNorm(len(shape), epsilon), (source.name,), scale)


def _softmax(call: Call, log: bool) -> Layer:
    source = call.source()
    axis = call.axis("dim", len(source.shape), -1)
    return Layer(ops.Softmax(axis, log), (source.name,))


_EVALUATION = "_native_batch_norm_legit_no_training _batch_norm_no_update"

BUILDERS = by_target(
    {
        _EVALUATION: _batch_norm,
        "batch_norm native_batch_norm cudnn_batch_norm miopen_batch_norm": _batch_norm,
        "_native_batch_norm_legit _native_batch_norm_legit.no_stats": _batch_norm,
        "_native_batch_norm_legit_functional": _batch_norm,
        "instance_norm": _instance_norm,
        "group_norm native_group_norm": _group_norm,
        "layer_norm native_layer_norm": _layer_norm,
        "rms_norm _fused_rms_norm": _rms_norm,
        "softmax.int _softmax": partial(_softmax, log=False),
        "log_softmax.int _log_softmax": partial(_softmax, log=True),
    }
)
