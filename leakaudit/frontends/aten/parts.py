"""The graph of an export archive while it is read: tensors, parameters, constants, nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from leakaudit.errors import AuditError
from leakaudit.frontends.aten.archive import Program
from leakaudit.frontends.aten.call import Call, Layer
from leakaudit.frontends.aten.values import Array, Stored, Value
from leakaudit.frontends.build import MAX_MASK_ELEMENTS, NotUnderstoodError
from leakaudit.frontends.interface import layer_name
from leakaudit.graph import Node, Parameter, Tensor, WeightSource

# Of all the constants that a file makes the reader compute, in elements.
_MAX_TOTAL = 2**26


@dataclass(frozen=True, slots=True)
class _Weights:
    """Stored numbers from the archive, and the constants that follow from it."""

    archive: Program
    constants: Mapping[str, Array]

    def load(self, name: str) -> Array:
        """Return the numbers of a parameter; raises as `Archive.load` does."""
        found = self.constants.get(name)
        return self.archive.load(name) if found is None else found.copy()


class Parts:
    """Collects the graph; the sink of every call.

    Attributes:
        tensors: Activations by name.
        parameters: Stored numbers by name, and those constants that a node reads.
        nodes: In the order of the program.
        calls: What computed each activation, by its name.
        row_major: Activations that lie in memory without gaps, in row-major order.
        fixed: Names of the buffers and constants of the archive, which no training changes.
    """

    def __init__(self, archive: Program) -> None:
        self.archive = archive
        self.tensors: dict[str, Tensor] = {}
        self.parameters: dict[str, Parameter] = {}
        self.nodes: list[Node] = []
        self.fixed: set[str] = set()
        self.calls: dict[str, Call] = {}
        self.row_major: set[str] = set()
        self._constants: dict[str, Array] = {}
        self._read_constants: dict[str, Array] = {}
        self._buffers: dict[str, Array] = {}
        self._elements = 0
        self._origin = self._stem = ""

    def begin(self, origin: str, stem: str) -> None:
        """State which call the nodes and constants to come belong to."""
        self._origin, self._stem = origin, stem

    def weights(self) -> WeightSource:
        """What the graph loads numbers from."""
        read = self._read_constants
        return _Weights(self.archive, read) if read else self.archive

    # --- names ----------------------------------------------------------------------------------

    def new_tensor(self, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Add an activation under this name, or a similar one where it is taken."""
        tensor = Tensor(self._unused(name), shape, dtype)
        self.tensors[tensor.name] = tensor
        return tensor

    def _unused(self, name: str) -> str:
        # Tensors and parameters are named in one list of node inputs: keep them apart.
        while name in self.tensors or name in self.parameters or name in self._constants:
            name += "'"
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an activation, parameter or constant."""
        known = self.tensors.get(name) or self.parameters.get(name)
        return self._constants[name].shape if known is None else known.shape

    # --- nodes ----------------------------------------------------------------------------------

    def emit(self, layer: Layer, shape: tuple[int, ...], dtype: str) -> Tensor:
        """Add a node that a builder needs before its own."""
        self.check(layer, (shape,))
        output = self.new_tensor(f"{self._stem}/{len(self.nodes)}", shape, dtype)
        op, parameters = layer.op, layer.parameters
        names = (output.name,)
        self.append(Node(output.name, op, layer.inputs, names, parameters, self._origin))
        return output

    def check(self, layer: Layer, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Refuse a layer that does not compute these output shapes.

        Later stages trust the shapes of the graph; the file that states them is not trusted.

        Raises:
            NotUnderstoodError: It does not, or it does not fit its inputs.
        """
        inputs = [self.shape(name) for name in layer.inputs]
        roles = {role: self.shape(name) for role, name in layer.parameters}
        try:
            computed = tuple(layer.op.output_shapes(inputs, roles, shapes))
        except (ValueError, IndexError) as error:
            raise NotUnderstoodError(
                "its attributes do not fit the shapes of its inputs"
            ) from error
        if computed != shapes:
            said, gives = (str(one[0] if len(one) == 1 else one) for one in (shapes, computed))
            raise NotUnderstoodError(f"its output is stated as {said}, and it computes {gives}")

    def append(self, node: Node) -> None:
        """Add a node; the constants it reads become parameters with their present content."""
        for name in (*node.inputs, *(name for _, name in node.parameters)):
            if name in self._constants and name not in self.parameters:
                content = np.array(self._constants[name], order="C")
                self._read_constants[name] = content
                self.parameters[name] = Parameter(name, content.shape, content.dtype.name, False)
        self.nodes.append(node)

    # --- constants ------------------------------------------------------------------------------

    def affordable(self, elements: int) -> bool:
        """Whether constants of so many elements may still be computed."""
        return self._elements + elements <= _MAX_TOTAL

    def constant(self, numbers: Array) -> Stored:
        """Add a constant.

        Raises:
            NotUnderstoodError: The file holds too many of them.
        """
        if numbers.size > MAX_MASK_ELEMENTS or not self.affordable(numbers.size):
            raise NotUnderstoodError("its constants are too large")
        self._elements += numbers.size
        return self.renamed(numbers)

    def renamed(self, numbers: Array) -> Stored:
        """Add a constant whose memory is another's, under a name of its own."""
        name = self._unused(self._stem)
        self._constants[name] = numbers
        axes = tuple(range(numbers.ndim))
        return Stored(name, numbers.shape, numbers.dtype.name, axes, numbers=numbers)

    def numbers(self, value: Value) -> Array | None:
        """The content of a constant or of a small buffer; None of any other value."""
        if not isinstance(value, Stored):
            return None
        if value.numbers is not None or value.name not in self.fixed or not value.plain:
            return value.numbers
        if value.name not in self._buffers:
            stored = self.archive.tensors.get(value.name)
            if stored is None or int(np.prod(stored.shape, dtype=float)) > MAX_MASK_ELEMENTS:
                return None
            try:
                self._buffers[value.name] = self.archive.load(value.name)
            except AuditError:
                # Numbers that nothing can read are reported by whoever needs them.
                return None
        return self._buffers[value.name]


def live(nodes: list[Node], outputs: list[str]) -> list[Node]:
    """Drop the nodes on which no output depends: they change no gradient."""
    needed = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def named(nodes: list[Node]) -> tuple[Node, ...]:
    """Name the layers, after dead ones are gone: they must not use up a name.

    Layers with weights come first: a module may be called `expand`, as torch calls every call of
    that operator, and its name is the one that the user knows.
    """
    taken: set[str] = set()
    names: dict[int, str] = {}
    by_weight = [(_named_by(node) or "").endswith(".weight") for node in nodes]
    for index in sorted(range(len(nodes)), key=lambda index: not by_weight[index]):
        names[index] = layer_name(_named_by(nodes[index]), nodes[index].name, taken)
    return tuple(replace(node, name=names[index]) for index, node in enumerate(nodes))


def _named_by(node: Node) -> str | None:
    return node.parameter("weight") or node.parameter("slope") or node.parameter("scale")
