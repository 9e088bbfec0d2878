"""What the names of an export graph stand for: activations, stored numbers, plain numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.graph import Tensor

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored parameter, buffer or constant, or a rearranged view of one.

    Decomposed graphs read `weight.t()`: a layer takes the parameter behind such a view as its
    weight, and arithmetic reads the node that computes the view.

    Attributes:
        name: Fully qualified name of the parameter.
        shape: Shape of the view.
        dtype: A numpy dtype name.
        permutation: Axis i of the view is axis `permutation[i]` of the parameter.
        reshaped: The elements were regrouped; axes no longer correspond.
        holder: What a node reads to get the view; None where that is the parameter itself.
        numbers: The view's content, where it follows from the file alone.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    permutation: tuple[int, ...]
    reshaped: bool = False
    holder: Tensor | None = None
    numbers: Array | None = field(default=None, compare=False, repr=False)

    @property
    def plain(self) -> bool:
        """Whether this is the parameter as it is stored."""
        return not self.reshaped and self.permutation == tuple(range(len(self.shape)))

    @property
    def matrix_transposed(self) -> bool:
        """Whether this is a stored matrix with its two axes swapped."""
        return not self.reshaped and self.permutation == (1, 0)

    @property
    def operand(self) -> Tensor:
        """What a node reads: a tensor of the graph or, under the same fields, a parameter."""
        return self.holder or Tensor(self.name, self.shape, self.dtype)


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


def is_floating(dtype: str) -> bool:
    """Whether this dtype name is one of real numbers."""
    return dtype.startswith(("float", "bfloat"))


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of this name.

    Raises:
        NotUnderstoodError: numpy has none, and `ml_dtypes`, which adds some, is absent.
    """
    try:
        return np.dtype(name)
    except TypeError:
        pass
    try:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError) as error:
        raise NotUnderstoodError(f"numpy has no {name}") from error
    return found


def number_of(value: Value) -> float | None:
    """A plain number as such, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
