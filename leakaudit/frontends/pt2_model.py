"""PyTorch export archives (`torch.export.save`) -> Graph, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from leakaudit.errors import AuditError
from leakaudit.frontends import pt2_inputs, pt2_memory, pt2_ops, pt2_shapes, pt2_views
from leakaudit.frontends.interface import LoadOptions, layer_name
from leakaudit.frontends.pt2_archive import Archive, open_archive
from leakaudit.frontends.pt2_call import Call, Layer, Opaque, Stored, Value
from leakaudit.frontends.pt2_foreign import describe_foreign
from leakaudit.frontends.pt2_inputs import UserInput
from leakaudit.frontends.pt2_schema import (
    DTYPES,
    EXPORT_REMEDY,
    TENSOR_KINDS,
    FormatError,
    dtype_name,
    field,
    records,
    tensor_names,
)
from leakaudit.graph import Graph, Node, Parameter, Tensor

_SCHEMA_MAJOR = 8  # torch 2.11 to 2.13


def load(path: str, options: LoadOptions) -> Graph:
    """Read an export archive.

    Raises:
        AuditError: The file is missing, something else, damaged, or leaves sizes open that the
            options do not give.
    """
    foreign = describe_foreign(path)
    if foreign is not None:
        raise AuditError(path, *foreign)
    return _read(path, Path(path), options, "pt2")


def load_bytes(data: bytes, name: str, options: LoadOptions, file_format: str = "pt2") -> Graph:
    """Read an export archive from memory; `name` stands for it in the graph and in messages.

    Raises:
        AuditError: As for `load`.
    """
    return _read(name, data, options, file_format)


def _read(target: str, source: Path | bytes, options: LoadOptions, file_format: str) -> Graph:
    try:
        archive = open_archive(target, source)
        program = archive.program()
        version = field(field(program, "schema_version", dict), "major", int)
        if version != _SCHEMA_MAJOR:
            raise AuditError(
                target,
                f"its schema version is {version}, and only {_SCHEMA_MAJOR} is understood",
                "export the model with torch 2.11 to 2.13",
            )
        return _Reader(archive, program, options).graph(file_format)
    except (FormatError, RecursionError) as error:
        # Lists nested a thousand deep are the one way to exhaust the stack here.
        text = str(error) if isinstance(error, FormatError) else "it is nested too deeply"
        raise AuditError(
            target, f"this is not a readable export archive: {text}", EXPORT_REMEDY
        ) from error


class _Reader:
    """Walks the calls of one program in order; `values` maps a name to what it now stands for."""

    def __init__(self, archive: Archive, program: dict[str, Any], options: LoadOptions) -> None:
        module = field(program, "graph_module", dict)
        self.archive = archive
        self.target = archive.target
        self.options = options
        self.signature = field(module, "signature", dict)
        self.record = field(module, "graph", dict)
        self.metas = field(self.record, "tensor_values", dict)
        self.calls = records(self.record, "nodes")
        self.last_read = self._last_reads()
        self.values: dict[str, Tensor | Stored] = {}
        self.tensors: dict[str, Tensor] = {}
        self.parameters: dict[str, Parameter] = {}
        self.memory = pt2_memory.SharedMemory()
        self.nodes: list[Node] = []
        self.symbols: dict[str, int] = {}

    def graph(self, file_format: str) -> Graph:
        inputs = self._read_inputs()
        for position, call in enumerate(self.calls):
            self._read_call(position, call)
        outputs = [
            value.name
            for name in self._output_names()
            if isinstance(value := self._value(name), Tensor)
        ]
        if not outputs:
            raise FormatError("the program has no tensor output")
        nodes = _named(_live(self.nodes, outputs))
        kept = {*inputs, *(name for node in nodes for name in node.outputs)}
        return Graph(
            name=self.target,
            format=file_format,
            inputs=tuple(inputs),
            outputs=tuple(dict.fromkeys(outputs)),
            tensors={name: tensor for name, tensor in self.tensors.items() if name in kept},
            parameters=self.parameters,
            nodes=nodes,
            weights=self.archive,
        )

    # --- signature ------------------------------------------------------------------------------

    def _read_inputs(self) -> list[str]:
        user: list[UserInput] = []
        stored: list[tuple[str, str]] = []
        for spec in records(self.signature, "input_specs"):
            for kind, label in _STORED_SPECS.items():
                if kind in spec:
                    entry = field(spec, kind, dict)
                    name = field(field(entry, "arg", dict), "name", str)
                    stored.append((name, field(entry, label, str)))
            if "user_input" in spec:
                argument = field(field(spec, "user_input", dict), "arg", dict)
                if "as_tensor" in argument:
                    name = field(field(argument, "as_tensor", dict), "name", str)
                    user.append(UserInput(name, field(self.metas, name, dict)))
        if not user:
            raise FormatError("the program has no tensor input")
        self._read_stored(stored)
        self.symbols = pt2_inputs.symbols(self.target, user, self.options)
        return [self._define(entry.name).name for entry in user]

    def _read_stored(self, specs: list[tuple[str, str]]) -> None:
        tied = self._tied(specs)
        for name, label in specs:
            meta = field(self.metas, name, dict)
            shape = pt2_shapes.fixed_shape(meta)
            stored = self.archive.tensors.get(label)
            if stored is not None and (stored.shape, stored.dtype) != (shape, dtype_name(meta)):
                raise FormatError(f"the graph and the weights disagree on {label!r}")
            canonical = tied.get(label, label)
            self.values[name] = Stored(canonical, shape, tuple(range(len(shape))))
            if canonical == label:
                names = [label, *(alias for alias, first in tied.items() if first == label)]
                frozen = any(self.options.is_frozen(alias) for alias in names)
                trainable = field(meta, "requires_grad", bool) and not frozen
                self.parameters[label] = Parameter(label, shape, dtype_name(meta), trainable)

    def _tied(self, specs: list[tuple[str, str]]) -> dict[str, str]:
        """Map the further names of a tied parameter to its first.

        The state dict lists a tied parameter under each of its names, and the graph reads one of
        them. Where several are read, they are parameters of their own that share memory.
        """
        first: dict[object, list[tuple[str, str]]] = {}
        for name, label in specs:
            stored = self.archive.tensors.get(label)
            if stored is not None and not stored.pickled:
                first.setdefault(stored, []).append((name, label))
        return {
            label: group[0][1]
            for group in first.values()
            if sum(name in self.last_read for name, _ in group) <= 1
            for _, label in group[1:]
        }

    def _output_names(self) -> Iterator[str]:
        for spec in records(self.signature, "output_specs"):
            for kind in ("user_output", "loss_output"):
                if kind in spec:
                    argument = field(field(spec, kind, dict), "arg", dict)
                    tensor = argument if "name" in argument else argument.get("as_tensor")
                    if tensor is not None:
                        yield field(tensor, "name", str)

    def _last_reads(self) -> dict[str, int]:
        last: dict[str, int] = {}
        for position, call in enumerate(self.calls):
            for entry in records(call, "inputs"):
                for name in tensor_names(field(entry, "arg", dict)):
                    last[name] = position
        return last | dict.fromkeys(self._output_names(), len(self.calls))

    # --- calls ----------------------------------------------------------------------------------

    def _read_call(self, position: int, record: dict[str, Any]) -> None:
        target = field(record, "target", str).removeprefix("torch.ops.")
        arguments: dict[str, Value] = {}
        read: list[list[str]] = []
        for index, entry in enumerate(records(record, "inputs")):
            argument = field(entry, "arg", dict)
            key = field(entry, "name", str) or f"argument {index}"
            arguments[key] = self._argument(argument)
            read.append(list(tensor_names(argument)))
        names = [name for entry in records(record, "outputs") for name in tensor_names(entry)]
        written = self._written(record, target, read)
        if not names and not written:
            return  # sizes and assertions: they compute no tensor
        outputs = tuple(self._define(name) for name in names)
        call = Call(target, arguments, outputs, self.parameters)
        view = pt2_views.view_of_stored(call)
        if view is not None and not written:
            del self.tensors[outputs[0].name]
            self.values[names[0]] = view
        else:
            layer, stale = self._layer(position, call, names, written)
            self._append(record, call, layer, (*outputs, *stale))
        every_read = [name for group in read for name in group]
        if pt2_memory.may_alias(target):
            self.memory.join([*every_read, *names])

    def _written(self, record: dict[str, Any], target: str, read: list[list[str]]) -> list[str]:
        """Names of the values whose memory this call writes into."""
        if not _writes(record, target):
            return []
        if pt2_memory.writes_first_only(target):
            return read[0] if read else []
        return [name for group in read for name in group]

    def _layer(
        self, position: int, call: Call, names: list[str], written: list[str]
    ) -> tuple[Layer, tuple[Tensor, ...]]:
        """Build the layer of a call that may write in place.

        Returns:
            The layer, and further outputs of it: the new content of views that are read later.
        """
        layer = pt2_ops.build(call)
        if not written:
            return layer, ()
        itself = set(written[:1]) if pt2_memory.writes_first_only(call.target) else set()
        changed = sorted(
            name
            for name in self.memory.others(written) - set(names)
            if self.last_read.get(name, -1) > position and name in self.values
        )
        views = [name for name in changed if name not in itself or not names]
        stale = tuple(self._redefine(name, position) for name in views)
        if names:
            for name in set(changed) & itself:
                self.values[name] = self.values[names[0]]
        if stale:
            layer = pt2_ops.unsupported(
                call, f"it writes into memory that {views[0]!r} shares, which is read later"
            )
        return layer, stale

    def _append(
        self, record: dict[str, Any], call: Call, layer: Layer, outputs: tuple[Tensor, ...]
    ) -> None:
        if not outputs:
            return  # writes into memory that nothing reads again
        own = record.get("name")
        self.nodes.append(
            Node(
                name=own if isinstance(own, str) else outputs[0].name,
                op=layer.op,
                inputs=layer.inputs,
                outputs=tuple(tensor.name for tensor in outputs),
                parameters=layer.parameters,
                origin=call.target,
            )
        )

    # --- values ---------------------------------------------------------------------------------

    def _value(self, name: str) -> Tensor | Stored:
        if name not in self.values:
            raise FormatError(f"the value {name[:80]!r} is read before it is computed")
        return self.values[name]

    def _define(self, name: str) -> Tensor:
        if name in self.values:
            raise FormatError(f"the value {name[:80]!r} is computed twice")
        meta = field(self.metas, name, dict)
        try:
            shape = pt2_shapes.shape(meta, self.symbols)
        except pt2_shapes.OpenSymbolError as error:
            raise AuditError(
                self.target,
                f"the shape of {name!r} depends on the data (symbol {str(error)[:80]!r})",
                "export a model whose shapes follow from the shape of its input",
            ) from error
        return self._new_tensor(name, name, shape, dtype_name(meta))

    def _redefine(self, name: str, position: int) -> Tensor:
        old = self._value(name)
        dtype = old.dtype if isinstance(old, Tensor) else self.parameters[old.name].dtype
        return self._new_tensor(name, f"{name}@{position}", old.shape, dtype)

    def _new_tensor(self, name: str, unique: str, shape: tuple[int, ...], dtype: str) -> Tensor:
        # Tensors and parameters are named in one list of node inputs: keep them apart.
        while unique in self.tensors or unique in self.parameters:
            unique += "'"
        tensor = Tensor(unique, shape, dtype)
        self.values[name] = self.tensors[unique] = tensor
        return tensor

    def _argument(self, argument: dict[str, Any]) -> Value:
        for kind, content in argument.items():
            if kind in TENSOR_KINDS:
                found = tuple(self._value(name) for name in tensor_names(argument))
                single = kind in ("as_tensor", "as_optional_tensor")
                return (found[0] if found else None) if single else found
            if kind == "as_none":
                return None
            if kind == "as_scalar_type" and isinstance(content, int):
                return DTYPES.get(content, "unknown")
            if kind in _PLAIN_KINDS:
                return _plain(content)
            if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
                return self._symbolic(content)
            if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
                return tuple(self._symbolic(item) for item in field(argument, kind, list))
        return Opaque(next(iter(argument), "nothing").removeprefix("as_"))

    def _symbolic(self, argument: object) -> Value:
        if isinstance(argument, dict) and "as_name" in argument:
            name = field(argument, "as_name", str)
            record = field(self.record, "sym_int_values", dict).get(name)
            try:
                return Opaque(name) if record is None else pt2_shapes.integer(record, self.symbols)
            except pt2_shapes.OpenSymbolError:
                return Opaque(name)
        if isinstance(argument, dict) and len(argument) == 1:
            return _plain(next(iter(argument.values())))
        return Opaque("symbol")


_PLAIN_KINDS = (
    *("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools"),
    *("as_string", "as_strings", "as_int_lists", "as_float_lists"),
)
_FLOAT_WORDS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
_STORED_SPECS = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


def _plain(content: object) -> Value:
    """A number, text or list of these; torch writes non-finite numbers as words."""
    if isinstance(content, list):
        return tuple(_plain(item) for item in content)
    if isinstance(content, str):
        return _FLOAT_WORDS.get(content, content)
    return content if isinstance(content, int | float) else Opaque("unknown")


def _writes(record: Mapping[str, Any], target: str) -> bool:
    """Whether a call writes into an argument; of a call with a subgraph, whether that does."""
    subgraphs = [
        field(field(argument, "as_graph", dict), "graph", dict)
        for entry in records(record, "inputs")
        if "as_graph" in (argument := field(entry, "arg", dict))
    ]
    if not subgraphs:
        return pt2_memory.writes(target)
    return any(
        _writes(inner, field(inner, "target", str).removeprefix("torch.ops."))
        for subgraph in subgraphs
        for inner in records(subgraph, "nodes")
    )


def _live(nodes: list[Node], outputs: list[str]) -> tuple[Node, ...]:
    """Drop the nodes on which no output depends: they change no gradient."""
    needed = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def _named(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Name the layers, after dead ones are gone: they must not use up a name."""
    taken: set[str] = set()
    return tuple(
        replace(
            node,
            name=layer_name(node.parameter("weight") or node.parameter("slope"), node.name, taken),
        )
        for node in nodes
    )
