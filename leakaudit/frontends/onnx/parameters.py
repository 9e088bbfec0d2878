"""What stands behind a constant of an ONNX model: stored numbers, and whether they are trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from leakaudit.errors import AuditError
from leakaudit.frontends.build import MAX_MASK_ELEMENTS, NotUnderstoodError
from leakaudit.frontends.interface import LoadOptions
from leakaudit.frontends.onnx.inputs import FLOATS
from leakaudit.frontends.onnx.shapes import ShapeInference
from leakaudit.frontends.onnx.weights import OnnxWeights, in_order
from leakaudit.graph import Parameter

# Operators whose output holds elements of their first input, each once: the gradient of the one
# is the gradient of the other, rearranged.
REARRANGING = frozenset(
    {
        *("Cast", "Flatten", "Identity", "Reshape", "Slice", "Split"),
        *("Squeeze", "Transpose", "Unsqueeze"),
    }
)
HIDING = 1e8  # exp(-1e8) is 0 in every precision, and training brings no parameter there
# A weight stored as one number and a shape, or as integers and their scale, is still a weight.
COMPRESSED = frozenset({"ConstantOfShape", "DequantizeLinear"})


class Origins:
    """Follows constants back to the numbers that the file stores."""

    def __init__(
        self,
        initializers: Iterable[str],
        weights: OnnxWeights,
        shapes: ShapeInference,
        options: LoadOptions,
    ) -> None:
        self._initializers = frozenset(initializers)
        self._weights = weights
        self._shapes = shapes
        self._options = options
        self._trained: dict[str, bool] = {}

    def lineage(self, name: str) -> tuple[str, ...] | None:
        """From a constant back to where its numbers stand; None where they are calculated."""
        found = [name]
        while (computed := self._weights.computed.get(found[-1])) is not None:
            if computed.node.op_type in COMPRESSED:
                break
            if computed.node.op_type not in REARRANGING:
                return None
            found.append(computed.node.input[0])
        return tuple(found)

    def rearranges(self, name: str) -> str:
        """The operator that made a constant; empty where its numbers stand in the file."""
        computed = self._weights.computed.get(name)
        return "" if computed is None else str(computed.node.op_type)

    def is_source(self, name: str) -> bool:
        """Whether the numbers of a constant stand in the file, compressed or not."""
        return self.rearranges(name) in COMPRESSED | {""}

    def as_weight(self, name: str, role: str) -> tuple[Parameter, tuple[str, ...]]:
        """A constant in the role of a weight, which training changes, and its lineage.

        Raises:
            NotUnderstoodError: It is not of floating type, or computed from other parameters.
        """
        dtype = self._shapes.dtype(name)
        if dtype not in FLOATS:
            raise NotUnderstoodError(f"its {role} is of type {dtype}")
        lineage = self.lineage(name)
        if lineage is None or any(self._shapes.dtype(entry) not in FLOATS for entry in lineage):
            raise NotUnderstoodError(f"its {role} is computed from other parameters")
        frozen = any(self._options.is_frozen(entry) for entry in lineage)
        return Parameter(name, self._shapes.required(name), dtype, not frozen, not frozen), lineage

    def as_operand(self, name: str) -> Parameter:
        """A constant in any other role. Of these, numbers of Constant nodes are not trained."""
        trained = self.is_trained(name) and self.lineage(name) is not None
        return Parameter(
            name, self._shapes.required(name), self._shapes.dtype(name), trained, trained
        )

    def is_trained(self, name: str) -> bool:
        """Whether training changes this constant: it stores floating-point numbers, or follows
        from some that are trained.
        """
        for current in in_order(name, self._sources, self._trained.__contains__):
            self._trained[current] = self._is_stored_weight(current) or any(
                self._trained[source] for source in self._sources(current)
            )
        return self._trained[name]

    def roots(self, name: str) -> tuple[str, ...]:
        """The stored parameters that are trained and that a constant follows from."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        pending = [name]
        while pending:
            current = pending.pop()
            if current in seen or not self.is_trained(current):
                continue
            seen.add(current)
            if self._is_stored_weight(current):
                found[current] = None
            pending.extend(reversed(self._sources(current)))
        return tuple(found)

    def _sources(self, name: str) -> list[str]:
        """What a constant is calculated from, as far as gradients flow."""
        computed = self._weights.computed.get(name)
        if computed is None or computed.node.op_type in COMPRESSED:
            return []
        if self._shapes.dtype(name) not in FLOATS:
            return []
        return [entry for entry in computed.node.input if entry]

    def _is_stored_weight(self, name: str) -> bool:
        if self._shapes.dtype(name) not in FLOATS or self._options.is_frozen(name):
            return False
        if name in self._weights.stored:
            return name in self._initializers and not self._is_mask(name)
        computed = self._weights.computed.get(name)
        if computed is None or computed.node.op_type != "DequantizeLinear":
            return False
        return computed.node.input[0] in self._initializers

    def _is_mask(self, name: str) -> bool:
        """Whether stored numbers are so large that they can only hide scores from a softmax.

        Exporters store attention masks as initializers, as they do weights.
        """
        if math.prod(self._shapes.shape(name) or ()) > MAX_MASK_ELEMENTS:
            return False
        try:
            array = self._weights.load(name).astype(np.float64)
        except AuditError:
            return False  # whoever needs the numbers says what is wrong with them
        return bool((np.abs(array) >= HIDING).any() or np.isnan(array).any())


def reshaped(parameter: Parameter, shape: tuple[int, ...]) -> Parameter:
    """The parameter under a shape of the same number of elements."""
    return replace(parameter, shape=shape)
