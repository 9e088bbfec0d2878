"""One call of an export graph, as the builders of operators see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from leakaudit.frontends.aten.values import Array, Stored, Value, is_floating, number_of
from leakaudit.frontends.build import NotUnderstoodError, axis_of
from leakaudit.graph import Parameter, Tensor
from leakaudit.operators import Identity, Operator, Scale

if TYPE_CHECKING:
    from leakaudit.frontends.aten.parts import Parts

Roles = tuple[tuple[str, str], ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layer:
    """What a builder returns: the operator and what it reads.

    Attributes:
        op: The operator.
        inputs: Names of tensors, for arithmetic and rearrangements also of parameters.
        parameters: Pairs (role, parameter name).
        outputs: What it computes; none stated is the first output of the call, if no other is read.
    """

    op: Operator
    inputs: tuple[str, ...]
    parameters: Roles = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One node of the export graph with its arguments resolved.

    Attributes:
        target: The operator, e.g. `aten.conv2d.default`.
        arguments: By name in the operator's schema; omitted ones take the schema's default.
        outputs: The tensors it computes.
        read: Whether each output is read by anything.
        stored: What is known of the parameters.
        sink: The graph in making, which takes further nodes and constants.
    """

    target: str
    arguments: Mapping[str, Value]
    outputs: tuple[Tensor, ...]
    read: tuple[bool, ...]
    stored: Mapping[str, Parameter]
    sink: Parts

    def floating(self) -> str:
        """The dtype of the output, which must be floating: gradients flow through nothing else."""
        dtype = self.output.dtype
        if not is_floating(dtype):
            raise NotUnderstoodError(f"it computes with data of type {dtype}")
        return dtype

    @property
    def output(self) -> Tensor:
        """The first output; nothing may read the others."""
        if not self.outputs or any(self.read[1:]):
            raise NotUnderstoodError("more than the first of its outputs is read")
        return self.outputs[0]

    # --- tensors --------------------------------------------------------------------------------

    def source_name(self) -> str:
        """The name of the first argument, which torch calls `self` or `input`."""
        return "input" if "input" in self.arguments else "self"

    def source(self) -> Tensor:
        """The first argument as an activation."""
        return self.tensor(self.source_name())

    def operand(self, name: str) -> Tensor:
        """The argument as a node reads it: an activation, a parameter, or a view of one."""
        return self.operand_of(self.arguments.get(name), name)

    def operand_of(self, value: Value, name: str) -> Tensor:
        """As `operand`, of one member of a list argument."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Stored):
            return value.operand
        raise NotUnderstoodError(f"its {name} is not a tensor")

    def tensor(self, name: str) -> Tensor:
        """The argument as an activation; a parameter is passed through a node of its own."""
        found = self.operand(name)
        if found.name in self.sink.tensors:
            return found
        return self.sink.emit(same(found), found.shape, found.dtype)

    def numbers(self, name: str) -> Array:
        """The content of the argument, which must follow from the file alone."""
        return self.numbers_of(self.arguments.get(name), name)

    def numbers_or_none(self, name: str) -> Array | None:
        """As `numbers`, None where the argument is computed or a plain number."""
        return self.sink.numbers(self.arguments.get(name))

    def numbers_of(self, value: Value, name: str) -> Array:
        """As `numbers`, of one member of a list argument."""
        found = self.sink.numbers(value)
        if found is None:
            raise NotUnderstoodError(f"its {name} is computed, not constant")
        return found

    def scaled(self, x: Tensor, factor: float, offset: float = 0.0) -> Tensor:
        """factor · x + offset before this call's own node, which is x itself for 1 and 0."""
        if (factor, offset) == (1, 0):
            return x
        return self.computed(affine(x, factor, offset), x.shape)

    def computed(self, layer: Layer, shape: tuple[int, ...]) -> Tensor:
        """What a layer gives that stands before this call's own node, of the call's dtype."""
        return self.sink.emit(layer, shape, self.outputs[0].dtype)

    # --- stored numbers -------------------------------------------------------------------------

    def weight(self, name: str) -> Stored:
        """The argument, which must be stored."""
        value = self.arguments.get(name)
        if isinstance(value, Stored):
            return value
        raise NotUnderstoodError(f"its {name} is computed, not stored")

    def plain_weight(self, name: str) -> Stored:
        """The argument, which must be stored and read as it is stored."""
        value = self.weight(name)
        if not value.plain:
            raise NotUnderstoodError(f"its {name} is a rearranged view of {value.name!r}")
        return value

    def optional(self, role: str, name: str, shape: tuple[int, ...]) -> Roles:
        """The pair (role, name) of stored numbers of this shape, or nothing for None."""
        if self.arguments.get(name) is None:
            return ()
        value = self.plain_weight(name)
        if value.shape != shape:
            raise NotUnderstoodError(f"its {name} has shape {value.shape}, not {shape}")
        return ((role, value.name),)

    # --- plain numbers --------------------------------------------------------------------------

    def flag(self, name: str, default: bool) -> bool:
        """A boolean argument."""
        value = self.arguments.get(name, default)
        if not isinstance(value, bool):
            raise NotUnderstoodError(f"its {name} is not a constant")
        return value

    def integer(self, name: str, default: int) -> int:
        """An integer argument."""
        value = self.arguments.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise NotUnderstoodError(f"its {name} is not a constant integer")
        return value

    def number(self, name: str, default: float) -> float:
        """A real argument."""
        value = number_of(self.arguments.get(name, default))
        if value is None:
            raise NotUnderstoodError(f"its {name} is not a constant number")
        return value

    def optional_number(self, name: str, default: float) -> float:
        """A real argument, `default` where it is left out or None."""
        return default if self.arguments.get(name) is None else self.number(name, default)

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of integers; a single integer counts as a list of one."""
        value = self.arguments.get(name, default)
        items = value if isinstance(value, tuple) else (value,)
        found = tuple(n for n in items if isinstance(n, int) and not isinstance(n, bool))
        if len(found) != len(items):
            raise NotUnderstoodError(f"its {name} is not a list of constant integers")
        return found

    def bounds(self) -> slice:
        """The arguments `start`, `end` and `step`, as a Python slice."""
        start, end = (
            None if self.arguments.get(name) is None else self.integer(name, 0)
            for name in ("start", "end")
        )
        return slice(start, end, self.integer("step", 1))

    def axis(self, name: str, axes: int, default: int = 0) -> int:
        """An axis of a tensor with `axes` axes, counted from the first."""
        return normal_axis(self.integer(name, default), axes)

    def members(self, name: str) -> tuple[Value, ...]:
        """A list argument."""
        value = self.arguments.get(name)
        if not isinstance(value, tuple):
            raise NotUnderstoodError(f"its {name} is not a list")
        return value


Builder = Callable[[Call], Layer | tuple[Layer, ...]]


def targets(names: str) -> tuple[str, ...]:
    """ATen operators by name, or by name and variant where that is not `default`: "t mean.dim"."""
    return tuple(
        f"aten.{name}" if "." in name else f"aten.{name}.default" for name in names.split()
    )


def by_target(table: Mapping[str, T]) -> dict[str, T]:
    """A table of operators, from one that has a line for all `targets` of the same value."""
    return {target: value for names, value in table.items() for target in targets(names)}


def same(x: Tensor) -> Layer:
    """x itself."""
    return Layer(Identity(), (x.name,))


def affine(x: Tensor, factor: float, offset: float = 0.0) -> Layer:
    """factor · x + offset."""
    return Layer(Scale(factor, offset), (x.name,))


def normal_axis(axis: int, axes: int) -> int:
    """Count an axis from the first, as torch does: a number has one axis of its own.

    Raises:
        NotUnderstoodError: There is no such axis.
    """
    return axis_of(axis, max(axes, 1))


def spread(values: tuple[int, ...], axes: int, name: str) -> tuple[int, ...]:
    """One value per spatial axis; torch lets a single one stand for all.

    Raises:
        NotUnderstoodError: There are more or fewer.
    """
    if len(values) == 1:
        return values * axes
    if len(values) != axes:
        raise NotUnderstoodError(f"its {name} has {len(values)} entries for {axes} axes")
    return values
