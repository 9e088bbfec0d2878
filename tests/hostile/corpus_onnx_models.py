"""ONNX files that are whole, and hold a network that cannot be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from corpus import Case, content
from corpus_onnx import FILE, good_model
from corpus_onnx_external import OUTSIDE, external, linked_folder, linked_out
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
Change = Callable[[onnx.ModelProto], object]
HUGE = 2**62


def model_cases() -> list[Case]:
    """Good models with one thing changed."""
    cases = []
    changes = {**_wiring(), **_shapes(), **_attributes(), **_versions(), **_extra_nodes()}
    for name, change in {**changes, **_recursion()}.items():
        model = good_model()
        change(model)
        cases.append(content(f"onnx: {name}", FILE, model.SerializeToString(deterministic=True)))
    for location in OUTSIDE:
        cases.append(Case(f"onnx: external data at {location!r}", FILE, external(location)))
    cases.append(Case("onnx: external data of 2^62 bytes", FILE, external("w", length=str(HUGE))))
    cases.append(Case("onnx: external data by a link out", FILE, linked_out))
    cases.append(Case("onnx: external data by a folder that leads out", FILE, linked_folder))
    return cases


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _stored(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def _without(model: onnx.ModelProto, name: str) -> None:
    model.graph.initializer.remove(_stored(model, name))


def _rewired(node: str, field: str, index: int, name: str) -> Change:
    return lambda model: getattr(_node(model, node), field).__setitem__(index, name)


def _dims(name: str, *sizes: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        _stored(model, name).dims[:] = sizes

    return change


def _input_dims(*sizes: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        shape = model.graph.input[0].type.tensor_type.shape
        shape.Clear()
        for size in sizes:
            shape.dim.add().dim_value = size

    return change


def _attribute(node: str, **values: object) -> Change:
    def change(model: onnx.ModelProto) -> None:
        found = _node(model, node)
        kept = [entry for entry in found.attribute if entry.name not in values]
        del found.attribute[:]
        found.attribute.extend(kept)
        found.attribute.extend(helper.make_attribute(key, v) for key, v in values.items())

    return change


def _wiring() -> dict[str, Change]:
    def append(name: str, *inputs: str) -> Change:
        return lambda model: model.graph.node.append(helper.make_node(name, inputs, ["extra"]))

    def reverse(model: onnx.ModelProto) -> None:
        nodes = list(model.graph.node)[::-1]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    def clear(field: str) -> Change:
        return lambda model: model.graph.ClearField(field)

    return {
        "a cycle of four nodes": _rewired("conv1", "input", 0, "a2"),
        "a node that reads itself": _rewired("relu1", "input", 0, "a1"),
        "nodes in the wrong order": reverse,
        "an input that nothing computes": _rewired("conv2", "input", 0, "nowhere"),
        "a weight that is missing": lambda model: _without(model, "w2"),
        "a bias that is missing": lambda model: _without(model, "b1"),
        "a shape that is missing": lambda model: _without(model, "shape"),
        "all weights missing": clear("initializer"),
        "no nodes": clear("node"),
        "no inputs": clear("input"),
        "no outputs": clear("output"),
        "an output that nothing computes": lambda m: m.graph.output[0].__setattr__("name", "z"),
        "two nodes with one output": _rewired("relu1", "output", 0, "h1"),
        "a node that computes the input": _rewired("relu1", "output", 0, "x"),
        "a node that computes a weight": _rewired("relu1", "output", 0, "w2"),
        "a weight stored twice": lambda m: m.graph.initializer.append(_stored(m, "w1")),
        "an input twice": lambda m: m.graph.input.append(m.graph.input[0]),
        "a node without inputs": lambda m: _node(m, "conv1").ClearField("input"),
        "a node without outputs": lambda m: _node(m, "conv1").ClearField("output"),
        "a node with 1000 inputs": lambda m: _node(m, "conv1").input.extend(["x"] * 1000),
        "a node with 1000 outputs": lambda m: _node(m, "relu1").output.extend(
            f"more{n}" for n in range(1000)
        ),
        "a node without operator": lambda m: _node(m, "relu1").ClearField("op_type"),
        "an operator of no standard": lambda m: _node(m, "relu1").__setattr__("op_type", "Rele"),
        "an operator of another domain": lambda m: _node(m, "relu1").__setattr__("domain", "evil"),
        "a weight as the first input": _rewired("conv2", "input", 0, "w1"),
        "an If without branches": append("If", "x"),
    }


def _shapes() -> dict[str, Change]:
    def typed(kind: int) -> Change:
        return lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", kind)

    def weight_type(kind: int) -> Change:
        return lambda m: _stored(m, "w2").__setattr__("data_type", kind)

    def not_a_tensor(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = FLOAT

    def reshape_to(*sizes: int) -> Change:
        new = numpy_helper.from_array(np.array(sizes, np.int64), "shape")
        return lambda model: _stored(model, "shape").CopyFrom(new)

    return {
        "input of 2^62 by 2^62": _input_dims(HUGE, HUGE, HUGE, HUGE),
        "input of 2^31 channels": _input_dims(1, 2**31, 2**31, 2**31),
        "input whose size overflows to zero": _input_dims(1, 2**32, 2**32, 1),
        "input of negative size": _input_dims(1, 2, -7, 7),
        "input of size zero": _input_dims(1, 0, 7, 7),
        "input of one axis": _input_dims(7),
        "input of no axes": _input_dims(),
        "input of 1000 axes": _input_dims(*(1,) * 1000),
        "input smaller than the kernel": _input_dims(1, 2, 1, 1),
        "input of type string": typed(TensorProto.STRING),
        "input of type integer": typed(TensorProto.INT64),
        "input of no type": typed(0),
        "input of an unknown type": typed(999),
        "input that is a sequence": not_a_tensor,
        "weight of 2^62 by 2^62": _dims("w1", HUGE, HUGE, HUGE, HUGE),
        "weight whose size overflows to its true one": _dims("w1", 2**32 + 3, 2**32 + 2, 3, 3),
        "weight of negative size": _dims("w1", -3, 2, 3, 3),
        "weight of two negative sizes": _dims("w1", -3, -2, 3, 3),
        "weight of size zero": _dims("w1", 0, 2, 3, 3),
        "weight of 10000 axes": _dims("w1", *(1,) * 10_000),
        "weight of other channels": _dims("w1", 2, 3, 3, 3),
        "weight larger than its data": _dims("w3", 5, 1800),
        "weight smaller than its data": _dims("w3", 5, 1),
        "weight of a dense layer turned": _dims("w3", 18, 5),
        "bias of two axes": _dims("b1", 3, 1),
        "bias larger than its data": _dims("b1", 300),
        "weight of type string": weight_type(TensorProto.STRING),
        "weight of no type": weight_type(0),
        "weight of an unknown type": weight_type(999),
        "weight of type double with half the data": weight_type(TensorProto.DOUBLE),
        "weight without data": lambda m: _stored(m, "w2").ClearField("raw_data"),
        "weight with a byte too few": lambda m: _stored(m, "w2").__setattr__(
            "raw_data", _stored(m, "w2").raw_data[:-1]
        ),
        "reshape to something else": reshape_to(3, 5),
        "reshape with two open sizes": reshape_to(-1, -1),
        "reshape to 2^62": reshape_to(HUGE, 4),
        "reshape to a negative size": reshape_to(1, -7),
    }


def _attributes() -> dict[str, Change]:
    names = ["strides", "dilations", "kernel_shape"]
    changes: dict[str, Change] = {}
    for name in names:
        for value in ([0, 0], [-1, -1], [HUGE, HUGE], [2**63 - 1, 1], [1, 1, 1], [], 1, 1.5, b"1"):
            if (name, value) not in (("strides", [HUGE, HUGE]), ("strides", [2**63 - 1, 1])):
                if value == []:
                    entry = helper.make_attribute(name, [1])
                    del entry.ints[:]
                    changes[f"{name} of none"] = _with_entry("conv2", entry)
                else:
                    changes[f"{name} {value}"] = _attribute("conv2", **{name: value})
    for pads in ([-9, -9, -9, -9], [HUGE] * 4, [2**63 - 1] * 4, [1, 1], [1] * 5):
        changes[f"pads {pads}"] = _attribute("conv2", pads=pads)
    for group in (0, -1, 2, 7, HUGE, -(2**63)):
        changes[f"group {group}"] = _attribute("conv2", group=group)
    changes["auto_pad of nonsense"] = _attribute("conv2", auto_pad="\x1b[31mSAME")
    changes["an attribute twice"] = lambda model: _node(model, "conv2").attribute.append(
        helper.make_attribute("strides", [3, 3])
    )
    return changes


def _with_entry(node: str, entry: onnx.AttributeProto) -> Change:
    return lambda model: _node(model, node).attribute.append(entry) or _drop_first(model, node)


def _drop_first(model: onnx.ModelProto, node: str) -> None:
    del _node(model, node).attribute[0]


def _versions() -> dict[str, Change]:
    def opset(version: int) -> Change:
        return lambda model: model.opset_import[0].__setattr__("version", version)

    return {
        **{f"opset {v}": opset(v) for v in (-(2**63), -1, 0, 1, 6)},
        "no opset": lambda model: model.ClearField("opset_import"),
        "opset of another domain only": lambda m: m.opset_import[0].__setattr__("domain", "evil"),
    }


def _extra_nodes() -> dict[str, Change]:
    """Networks whose second half follows from a number that the file makes up."""

    def between(*nodes: onnx.NodeProto, **stored: np.ndarray) -> Change:
        """Put nodes between a1 and the second convolution; the last gives `t`."""

        def change(model: onnx.ModelProto) -> None:
            graph = model.graph
            index = list(graph.node).index(_node(model, "conv2"))
            for number, node in enumerate(nodes):
                graph.node.insert(index + number, node)
            _node(model, "conv2").input[0] = "t"
            graph.initializer.extend(
                numpy_helper.from_array(array, name) for name, array in stored.items()
            )

        return change

    node = helper.make_node
    many = np.array([2**40, 2, 7, 7], np.int64)
    return {
        "expand to 2^40": between(node("Expand", ["a1", "s"], ["t"]), s=many),
        "tile 2^40 times": between(node("Tile", ["a1", "s"], ["t"]), s=many),
        "a constant of 2^40 numbers": between(
            node("ConstantOfShape", ["s"], ["c"]), node("Add", ["a1", "c"], ["t"]), s=many
        ),
        "a range of 2^62 numbers": between(
            node("Range", ["r0", "r1", "r2"], ["c"]),
            node("Add", ["a1", "c"], ["t"]),
            r0=np.array(0),
            r1=np.array(HUGE),
            r2=np.array(1),
        ),
        "padding by 2^62": between(
            node("Pad", ["a1", "s"], ["t"]), s=np.array([0, 0, HUGE, 0, 0, 0, HUGE, 0])
        ),
        "resizing by 10^30": between(
            node("Resize", ["a1", "", "s"], ["t"]), s=np.array([1, 1, 1e30, 1e30], np.float32)
        ),
        "resizing by what is not a number": between(
            node("Resize", ["a1", "", "s"], ["t"]), s=np.array([1, 1, np.nan, np.inf], np.float32)
        ),
        "a permutation with an axis twice": between(
            node("Transpose", ["a1"], ["t"], perm=[0, 1, 1, 3])
        ),
        "a permutation of axis 2^62": between(
            node("Transpose", ["a1"], ["t"], perm=[0, 1, HUGE, 3])
        ),
        "softmax over axis 2^62": between(node("Softmax", ["a1"], ["t"], axis=HUGE)),
        "concatenation over axis -2^63": between(
            node("Concat", ["a1", "a1"], ["t"], axis=-(2**63))
        ),
        "concatenation of other shapes": between(node("Concat", ["a1", "x"], ["t"], axis=2)),
        "splitting into 2^40 parts": between(
            node("Split", ["a1", "s"], ["t"], axis=1), s=np.array([2**40])
        ),
        "squeezing axis 9": between(node("Squeeze", ["a1", "s"], ["t"]), s=np.array([9])),
        "unsqueezing 40 axes": between(
            node("Unsqueeze", ["a1", "s"], ["t"]), s=np.arange(40, dtype=np.int64)
        ),
        "pooling windows of 2^62": between(
            node("MaxPool", ["a1"], ["t"], kernel_shape=[HUGE, HUGE])
        ),
        "pooling with stride 0": between(
            node("AveragePool", ["a1"], ["t"], kernel_shape=[2, 2], strides=[0, 0])
        ),
        "an equation that is none": between(
            node("Einsum", ["a1"], ["t"], equation="...ijjk->->zz" * 50)
        ),
        "one-hot of depth 2^62": between(
            node("OneHot", ["s", "d", "v"], ["c"]),
            node("Add", ["a1", "c"], ["t"]),
            s=np.array([1]),
            d=np.array([HUGE]),
            v=np.array([0.0, 1.0], np.float32),
        ),
        "a regular expression": between(
            node("RegexFullMatch", ["a1"], ["t"], pattern="(a+)+$" * 20)
        ),
        "a decoder of images": between(node("ImageDecoder", ["a1"], ["t"])),
        "division of sizes by zero": between(
            node("Div", ["s", "z"], ["d"]),
            node("Reshape", ["a1", "d"], ["t"]),
            s=np.array([1, 2, 7, 7]),
            z=np.zeros(4, np.int64),
        ),
        "gathering beyond the end": between(
            node("Shape", ["a1"], ["n"]),
            node("Gather", ["n", "s"], ["d"]),
            node("Reshape", ["a1", "d"], ["t"]),
            s=np.array([99]),
        ),
        "a loop of 2^62 rounds": between(
            node("Loop", ["n", "", "a1"], ["t"], body=_body("Identity")), n=np.array(HUGE)
        ),
    }


def _body(kind: str) -> onnx.GraphProto:
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", FLOAT, None),
    ]
    outputs = [
        helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v2", FLOAT, None),
    ]
    nodes = [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node(kind, ["v"], ["v2"])]
    return helper.make_graph(nodes, "body", inputs, outputs)


def _recursion() -> dict[str, Change]:
    def function(name: str, *calls: str) -> onnx.FunctionProto:
        nodes = [
            helper.make_node(call, ["a"], [f"o{n}"], domain="f") for n, call in enumerate(calls)
        ]
        nodes.append(helper.make_node("Identity", [f"o{len(calls) - 1}" if calls else "a"], ["b"]))
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
        return helper.make_function("f", name, ["a"], ["b"], nodes, opsets)

    def calling(first: str, *functions: onnx.FunctionProto) -> Change:
        def change(model: onnx.ModelProto) -> None:
            model.functions.extend(functions)
            model.opset_import.append(helper.make_opsetid("f", 1))
            relu = _node(model, "relu1")
            relu.op_type, relu.domain = first, "f"

        return change

    def nested(depth: int) -> Change:
        def change(model: onnx.ModelProto) -> None:
            graph = helper.make_graph([helper.make_node("Relu", ["h1"], ["r"])], "g", [], [])
            graph.output.append(helper.make_tensor_value_info("r", FLOAT, None))
            for level in range(depth):
                inner = helper.make_node("If", ["flag"], ["r"], f"if{level}")
                inner.attribute.append(helper.make_attribute("then_branch", graph))
                outer = helper.make_graph([inner], "g", [], [])
                outer.output.append(helper.make_tensor_value_info("r", FLOAT, None))
                graph = outer
            relu = _node(model, "relu1")
            relu.op_type = "If"
            relu.input[:] = ["flag"]
            relu.attribute.append(helper.make_attribute("then_branch", graph))
            flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
            model.graph.input.append(flag)

        return change

    doubling = [function(f"f{n}", f"f{n + 1}", f"f{n + 1}") for n in range(40)]
    chain = [function(f"f{n}", f"f{n + 1}") for n in range(1500)]
    return {
        "a function that calls itself": calling("f0", function("f0", "f0")),
        "functions that call each other": calling(
            "f0", function("f0", "f1"), function("f1", "f2"), function("f2", "f0")
        ),
        "functions that double forty times": calling("f0", *doubling, function("f40")),
        "a chain of 1500 functions that ends nowhere": calling("f0", *chain),
        "a function that is not there": calling("f9", function("f0")),
        "a function twice": calling("f0", function("f0", "f1"), function("f0", "f2")),
        "a function of the standard's name": lambda m: m.functions.append(
            helper.make_function("", "Relu", ["a"], ["b"], [], [helper.make_opsetid("", 17)])
        ),
        "20 nested conditions": nested(20),
        "30 nested conditions": nested(30),
    }
