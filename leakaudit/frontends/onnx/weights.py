"""The stored numbers of an ONNX model, read only when something needs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from leakaudit.errors import AuditError
from leakaudit.frontends.onnx.fold import FoldError, evaluate
from leakaudit.frontends.onnx.limits import external_file

MAX_COMPUTED_ELEMENTS = 2**29  # a small file can ask for any size with ConstantOfShape or Expand


def in_order(
    name: str, sources: Callable[[str], Iterable[str]], done: Callable[[str], bool]
) -> Iterator[str]:
    """Every name that is not done and that `name` follows from, each after its sources.

    The caller makes each of them done. A stack instead of recursion: a hostile file can chain any
    number of nodes.
    """
    waiting = [name]
    while waiting:
        current = waiting[-1]
        missing = [] if done(current) else [entry for entry in sources(current) if not done(entry)]
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        if not done(current):
            yield current


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor that follows from constants alone: its node and its number of elements."""

    node: onnx.NodeProto
    elements: int


@dataclass(slots=True)
class OnnxWeights:
    """Initializers, values of Constant nodes, and what the file computes from these alone.

    Attributes:
        target: The model as the user named it, for errors.
        opset: Version of the standard operators.
        stored: Tensors as the file holds them, external data included.
        values: Small tensors that are already numbers.
        computed: Tensors evaluated on demand.
        shapes: Shapes under which `load` gives a tensor, where not the stored one.
    """

    target: str
    opset: int
    stored: dict[str, onnx.TensorProto] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    computed: dict[str, Computed] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.stored or name in self.values or name in self.computed

    def load(self, name: str) -> np.ndarray:
        """Return the tensor `name`.

        Raises:
            AuditError: It is missing or damaged, its external data are not in the model's folder,
                or it cannot be computed.
        """
        ready: dict[str, np.ndarray] = {}
        for current in in_order(name, self._sources, ready.__contains__):
            ready.update(self._numbers(current, ready))
        array = ready[name]
        shape = self.shapes.get(name)
        return array if shape is None else array.reshape(shape)

    def _sources(self, name: str) -> list[str]:
        if name in self.values or name in self.stored or name not in self.computed:
            return []
        return [entry for entry in self.computed[name].node.input if entry]

    def _numbers(self, name: str, ready: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if name in self.values:
            return {name: self.values[name]}
        if name in self.stored:
            return {name: self._read(self.stored[name])}
        if name in self.computed:
            return self._evaluate(name, ready)
        raise AuditError(self.target, f"the file holds no numbers for {name!r}", "export it again")

    def _evaluate(self, name: str, ready: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        computed = self.computed[name]
        if computed.elements > MAX_COMPUTED_ELEMENTS:
            raise AuditError(
                self.target,
                f"computing {name!r} would take {computed.elements} elements",
                "store the weight in the file instead",
            )
        try:
            return evaluate(computed.node, ready, self.opset)
        except FoldError as error:
            raise AuditError(
                self.target, f"{name!r} cannot be computed: {error}", "export the model again"
            ) from error

    def _read(self, tensor: onnx.TensorProto) -> np.ndarray:
        try:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                return self._read_external(tensor)
            return np.asarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError) as error:
            raise AuditError(
                self.target,
                f"the data of {tensor.name!r} do not match its type and shape",
                "export the model again, or copy or download the whole file",
            ) from error

    def _read_external(self, tensor: onnx.TensorProto) -> np.ndarray:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = external_file(self.target, tensor.name, location)
        if not file.is_file():
            raise AuditError(
                self.target,
                f"the external data file {location!r} of {tensor.name!r} is missing",
                "put it beside the model",
            )
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        offset = int(entries.get("offset", "0"))
        length = math.prod(tensor.dims) * dtype.itemsize
        if offset < 0 or int(entries.get("length", length)) != length:
            raise ValueError(entries)
        try:
            with file.open("rb") as handle:
                if handle.seek(0, 2) < offset + length:
                    raise AuditError(
                        self.target,
                        f"the external data file {file.name!r} is too short for {tensor.name!r}",
                        "copy or download the whole file (`git lfs pull` for an LFS pointer)",
                    )
                handle.seek(offset)
                data = handle.read(length)
        except OSError as error:
            raise AuditError(
                self.target,
                f"the external data file {file.name!r} cannot be read ({error.strerror})",
                "check its permissions",
            ) from error
        return np.frombuffer(data, dtype=dtype).reshape(tuple(tensor.dims))
