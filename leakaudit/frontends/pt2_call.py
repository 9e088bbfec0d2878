"""One call of an export graph, as the builders of `pt2_ops` see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from leakaudit.graph import Parameter, Tensor
from leakaudit.graph.operators import Operator


class NotUnderstoodError(Exception):
    """A builder cannot express this call; the text is the reason that the user reads."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored parameter, buffer or constant, or a rearranged view of one.

    Decomposed graphs read `weight.t()`; such views are resolved and never become nodes.

    Attributes:
        name: Fully qualified name.
        shape: Shape of the view.
        permutation: Axis i of the view is axis `permutation[i]` of the parameter.
        reshaped: The elements were regrouped; axes no longer correspond.
    """

    name: str
    shape: tuple[int, ...]
    permutation: tuple[int, ...]
    reshaped: bool = False

    @property
    def plain(self) -> bool:
        """Whether this is the parameter as it is stored."""
        return not self.reshaped and self.permutation == tuple(range(len(self.shape)))

    @property
    def matrix_transposed(self) -> bool:
        """Whether this is a stored matrix with its two axes swapped."""
        return not self.reshaped and self.permutation == (1, 0)


@dataclass(frozen=True, slots=True)
class Opaque:
    """An argument without a known value: a subgraph, or a number computed from the data."""

    what: str


Value = Tensor | Stored | Opaque | int | float | str | None | tuple["Value", ...]


def leaves(value: Value) -> Iterator[Value]:
    """Yield the value, or the members of a list of values at any depth."""
    if isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


@dataclass(frozen=True, slots=True)
class Layer:
    """What a builder returns: the operator and what it reads."""

    op: Operator
    inputs: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One node of the export graph with its arguments resolved.

    Attributes:
        target: The operator, e.g. `aten.conv2d.default`.
        arguments: By name in the operator's schema; omitted ones take the schema's default.
        outputs: The tensors it computes.
        stored: What is known of the parameters.
    """

    target: str
    arguments: Mapping[str, Value]
    outputs: tuple[Tensor, ...]
    stored: Mapping[str, Parameter]

    @property
    def output(self) -> Tensor:
        """The only output."""
        if len(self.outputs) != 1:
            raise NotUnderstoodError(f"it has {len(self.outputs)} outputs")
        return self.outputs[0]

    def tensor(self, name: str) -> Tensor:
        """The argument, which must be an activation."""
        value = self.arguments.get(name)
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Stored):
            raise NotUnderstoodError(f"its {name} is stored, not computed from the input")
        raise NotUnderstoodError(f"its {name} is not a tensor")

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

    def optional_bias(self, name: str, length: int) -> tuple[tuple[str, str], ...]:
        """The pair ("bias", name) of a stored vector of `length`, or nothing for no bias."""
        if self.arguments.get(name) is None:
            return ()
        value = self.plain_weight(name)
        if value.shape != (length,):
            raise NotUnderstoodError(f"its {name} has shape {value.shape}, not ({length},)")
        return (("bias", value.name),)

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
        value = self.arguments.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotUnderstoodError(f"its {name} is not a constant number")
        return float(value)

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of integers; a single integer counts as a list of one."""
        value = self.arguments.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,)
        if not isinstance(value, tuple):
            raise NotUnderstoodError(f"its {name} is not a list of constant integers")
        found: list[int] = []
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int):
                raise NotUnderstoodError(f"its {name} is not a list of constant integers")
            found.append(item)
        return tuple(found)
