"""What every frontend gives: a Graph, from a target the user named."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from leakaudit.sandbox.limits import Limits


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to read a model.

    Attributes:
        input_shapes: Shapes the user gave, by input name; the key "" means the only input.
        batch_size: Examples per shared gradient. None: what the file fixes, or 1 where it is open.
        frozen: Name patterns (fnmatch) of parameters that are not trained: they send no gradient.
        limits: What a model file may cost.
    """

    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    batch_size: int | None = None
    frozen: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def is_frozen(self, parameter: str) -> bool:
        """Whether a pattern of `frozen` matches this parameter name."""
        return any(fnmatch.fnmatchcase(parameter, pattern) for pattern in self.frozen)

    def unused_frozen(self, parameters: Iterable[str]) -> tuple[str, ...]:
        """A note on each pattern of `frozen` that matches none of a model's parameters."""
        names = tuple(parameters)
        return tuple(
            f"--frozen {pattern}: matches no parameter of this model"
            for pattern in dict.fromkeys(self.frozen)
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names)
        )


def layer_name(weight: str | None, node: str, taken: set[str]) -> str:
    """Name a layer the same way in every format, and add the name to `taken`.

    The stem of the weight's name ("features.0" of "features.0.weight") where the file keeps
    PyTorch's parameter names, otherwise the node's own name. A name already taken gets "#2", "#3".
    """
    base = weight.removesuffix(".weight") if weight and weight.endswith(".weight") else node
    name, count = base, 1
    while name in taken:
        count += 1
        name = f"{base}#{count}"
    taken.add(name)
    return name


def require_shape(path: str, name: str, shape: Sequence[int], limits: Limits) -> None:
    """Hold the shape of one tensor against the limits.

    Raises:
        AuditError: It has too many axes or elements.
    """
    limits.require("axes", len(shape), path, f"the number of axes of {name!r}")
    limits.require("elements", math.prod(shape), path, f"the number of elements of {name!r}")
