"""Graphs built by hand, layer by layer. Their weights cannot be loaded: a leak path needs none."""

from __future__ import annotations

from math import prod
from typing import Any

from leakaudit.graph import Graph, Node, Parameter, Tensor
from leakaudit.operators import Conv, LeakyRelu, Linear, Operator, Relu, Reshape


class NoWeights:
    """A weight source that a static analysis must never ask."""

    def load(self, name: str) -> Any:
        raise AssertionError(f"the leak path asked for the numbers of {name}")


class Builder:
    """Adds nodes one by one; every method returns the name of the tensor it makes, the node's own.

    The next node reads the newest tensor unless it is told otherwise.
    """

    def __init__(self, *shape: int) -> None:
        self.tensors = {"input": Tensor("input", shape, "float32")}
        self.parameters: dict[str, Parameter] = {}
        self.nodes: list[Node] = []
        self.newest = "input"

    def shape(self, tensor: str | None = None) -> tuple[int, ...]:
        return self.tensors[tensor or self.newest].shape

    def parameter(self, name: str, shape: tuple[int, ...], trainable: bool = True) -> str:
        self.parameters.setdefault(name, Parameter(name, shape, "float32", trainable))
        return name

    def node(
        self,
        name: str,
        op: Operator,
        shape: tuple[int, ...],
        inputs: tuple[str, ...] | None = None,
        parameters: tuple[tuple[str, str], ...] = (),
    ) -> str:
        """Any operator, its output shape stated."""
        read = inputs or (self.newest,)
        self.nodes.append(Node(name, op, read, (name,), parameters, type(op).__name__))
        self.tensors[name] = Tensor(name, shape, "float32")
        self.newest = name
        return name

    def same(self, name: str, op: Operator, source: str | None = None) -> str:
        """An operator that keeps the shape: an activation, say."""
        source = source or self.newest
        return self.node(name, op, self.shape(source), (source,))

    def conv(
        self,
        name: str,
        filters: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        source: str | None = None,
        bias: bool = True,
        trainable: bool = True,
        weight: str | None = None,
    ) -> str:
        """A convolution over all spatial axes, square."""
        source = source or self.newest
        batch, channels, *sizes = self.shape(source)
        d = len(sizes)
        op = Conv((kernel,) * d, (stride,) * d, (padding,) * d, (padding,) * d, (1,) * d)
        weight_name = weight or f"{name}.weight"
        roles = [
            ("weight", self.parameter(weight_name, (filters, channels, *op.kernel), trainable))
        ]
        if bias:
            roles.append(("bias", self.parameter(f"{name}.bias", (filters,), trainable)))
        out = [(size + 2 * padding - kernel) // stride + 1 for size in sizes]
        return self.node(name, op, (batch, filters, *out), (source,), tuple(roles))

    def linear(
        self,
        name: str,
        out_features: int,
        source: str | None = None,
        bias: bool = True,
        trainable: bool = True,
        bias_trainable: bool | None = None,
        weight: str | None = None,
    ) -> str:
        """A dense layer over the last axis."""
        source = source or self.newest
        *leading, in_features = self.shape(source)
        weight_name = weight or f"{name}.weight"
        roles = [("weight", self.parameter(weight_name, (out_features, in_features), trainable))]
        if bias:
            learned = trainable if bias_trainable is None else bias_trainable
            roles.append(("bias", self.parameter(f"{name}.bias", (out_features,), learned)))
        op = Linear(in_features, out_features)
        return self.node(name, op, (*leading, out_features), (source,), tuple(roles))

    def flatten(self, name: str = "flatten", source: str | None = None) -> str:
        source = source or self.newest
        batch, *rest = self.shape(source)
        return self.node(name, Reshape(), (batch, prod(rest)), (source,))

    def graph(self, *outputs: str) -> Graph:
        """The graph, with the newest tensor as its output unless others are named."""
        return Graph(
            name="built",
            format="test",
            inputs=("input",),
            outputs=outputs or (self.newest,),
            tensors=self.tensors,
            parameters=self.parameters,
            nodes=tuple(self.nodes),
            weights=NoWeights(),
        )


def skipping(channels: int, filters: int, kernel: int) -> Graph:
    """A convolution that keeps 8x8 pixels, then one of kernel 1 that skips three of four."""
    b = Builder(1, channels, 8, 8)
    b.conv("conv1", filters, kernel, padding=kernel // 2)
    b.same("act1", LeakyRelu(0.2))
    b.conv("conv2", 24, 1, stride=2)
    b.same("act2", LeakyRelu(0.2))
    b.flatten()
    b.linear("fc1", 10)
    return b.graph()


def lenet_main(batch: int = 1, head: dict[str, Any] | None = None) -> Graph:
    """R-CONV's LeNet: four convolutions of kernel 5, ReLU after the last two."""
    b = Builder(batch, 3, 32, 32)
    stages = [(12, 2, LeakyRelu(0.2)), (16, 2, LeakyRelu(0.2)), (12, 1, Relu()), (3, 1, Relu())]
    for i, (filters, stride, activation) in enumerate(stages, 1):
        b.conv(f"conv{i}", filters, 5, stride, 2)
        b.same(f"act{i}", activation)
    b.flatten()
    b.linear("fc1", 100, **(head or {}))
    return b.graph()


def cnn6(second: int = 36) -> Graph:
    """R-GAP's CNN6, without biases; CNN6-d has 20 filters in its second convolution."""
    b = Builder(1, 3, 32, 32)
    stages = [(12, 4, 2, 2), (second, 3, 2, 1), (36, 3, 1, 1), (36, 3, 1, 1), (64, 3, 2, 1)]
    for i, (filters, kernel, stride, padding) in enumerate([*stages, (128, 3, 1, 1)], 1):
        b.conv(f"conv{i}", filters, kernel, stride, padding, bias=False)
        b.same(f"act{i}", LeakyRelu(0.2))
    b.flatten()
    b.linear("fc1", 1, bias=False)
    return b.graph()
