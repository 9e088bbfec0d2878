"""Changing a layer of an ONNX file: a copy of the model with other weights and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from leakaudit.errors import UsageError
from leakaudit.frontends.onnx.file import PROTOBUF_LIMIT, default_opset, read_model
from leakaudit.frontends.onnx.native import NativeError, OnnxNative
from leakaudit.graph import WeightSource
from leakaudit.operators.convolution import Grouped
from leakaudit.sandbox.limits import Limits


@dataclass(frozen=True, slots=True)
class OnnxEdit:
    """What to change.

    Attributes:
        tensors: New numbers by initializer.
        convolution: New hyperparameters of the convolution with this weight.
        dropped_bias: The bias to leave out.
        pooled: Feature map and kernel of the average pooling to put behind it.
        pooled_name: What the pooling and its output are called.
        reshaped: New shapes by the value that a Reshape computes.
    """

    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    convolution: tuple[str, Grouped] | None = None
    dropped_bias: str | None = None
    pooled: tuple[str, tuple[int, ...]] | None = None
    pooled_name: str = ""
    reshaped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def edited(path: str, edit: OnnxEdit, weights: WeightSource, limits: Limits | None = None) -> bytes:
    """The model of a file with a change, as a file of its own: external data are moved into it.

    Args:
        path: The ONNX file; it is only read.
        edit: The change.
        weights: Reads the file's external data.
        limits: What the file may cost; the defaults where left out.

    Raises:
        AuditError: The file cannot be read.
        UsageError: The file states the layer in a way that cannot be edited.
    """
    limits = limits or Limits()
    model = read_model(path, limits)
    graph = model.graph
    _replace_tensors(graph, edit.tensors)
    if edit.convolution is not None:
        _set_convolution(graph, *edit.convolution)
    if edit.dropped_bias is not None:
        _drop_bias(graph, edit.dropped_bias)
    if edit.pooled is not None:
        _insert_pooling(model, *edit.pooled, edit.pooled_name)
    _set_reshapes(graph, edit.reshaped)
    del graph.value_info[:]  # the shapes it states are those before the change
    for tensor in graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            numbers = np.asarray(weights.load(tensor.name))
            tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
    if model.ByteSize() > PROTOBUF_LIMIT:
        raise UsageError("--write: the changed model is larger than 2 GB, more than one file holds")
    try:
        with OnnxNative(path, limits) as native:
            native.check(model)
    except NativeError as error:
        raise _cannot(f"the changed model would not be valid ({error})") from error
    return bytes(model.SerializeToString(deterministic=True))


def _replace_tensors(graph: onnx.GraphProto, tensors: Mapping[str, np.ndarray]) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    stated = {value.name: value for value in graph.input}
    for name, array in tensors.items():
        if name not in stored or len(stored[name].dims) != array.ndim:
            raise _cannot(f"{name!r} is not stored as an initializer of its own shape")
        stored[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if name in stated:  # before IR version 4 initializers are listed as inputs too
            kind = stored[name].data_type
            stated[name].CopyFrom(helper.make_tensor_value_info(name, kind, array.shape))


def _set_convolution(graph: onnx.GraphProto, weight: str, op: Grouped) -> None:
    node = _only_reader(graph, weight, "Conv")
    changed = {
        "kernel_shape": op.kernel,
        "strides": op.stride,
        "pads": (*op.padding_begin, *op.padding_end),
        "dilations": op.dilation,
        "group": op.groups,
    }
    kept = [entry for entry in node.attribute if entry.name not in (*changed, "auto_pad")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in changed.items())


def _drop_bias(graph: onnx.GraphProto, bias: str) -> None:
    node = _only_reader(graph, bias, "Gemm", "Add")
    if node.op_type == "Gemm":
        del node.input[2:]
    else:
        node.op_type = "Identity"
        node.input[:] = [name for name in node.input if name != bias]
    for entries in (graph.initializer, graph.input):
        for number, entry in enumerate(entries):
            if entry.name == bias:
                del entries[number]
                break


def _insert_pooling(
    model: onnx.ModelProto, tensor: str, kernel: tuple[int, ...], name: str
) -> None:
    readers = [index for index, node in enumerate(model.graph.node) if tensor in node.input]
    if not readers:
        raise _cannot(f"the file has no value {tensor!r}")
    for index in readers:
        inputs = model.graph.node[index].input
        inputs[:] = [name if entry == tensor else entry for entry in inputs]
    pool = helper.make_node(
        "AveragePool", [tensor], [name], name=name, kernel_shape=kernel, strides=kernel
    )
    if default_opset(model) >= 19:
        pool.attribute.append(helper.make_attribute("dilations", (1,) * len(kernel)))
    model.graph.node.insert(readers[0], pool)


def _set_reshapes(graph: onnx.GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Sizes that a Reshape states; 0 (as before) and -1 (what is left) stay as they are."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        shape = shapes.get(node.output[0]) if node.output else None
        if node.op_type != "Reshape" or shape is None or node.input[1] not in constants:
            continue
        stated = numpy_helper.to_array(constants[node.input[1]])
        if stated.shape != (len(shape),):
            continue
        sizes = [new if old > 0 else old for old, new in zip(stated.tolist(), shape, strict=True)]
        name = f"{node.output[0]}.shape"
        while name in constants:
            name += "_"
        graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
        node.input[1] = name


def _only_reader(graph: onnx.GraphProto, name: str, *kinds: str) -> onnx.NodeProto:
    """The one node that reads a stored tensor, which must be of these kinds."""
    readers = [node for node in graph.node if name in node.input]
    if len(readers) != 1 or readers[0].op_type not in kinds:
        raise _cannot(f"{name!r} is not read by one {' or '.join(kinds)} alone")
    return readers[0]


def _cannot(reason: str) -> UsageError:
    return UsageError(f"--write: this file cannot be changed: {reason}; change the model's source")
