"""PyTorch export archives (`torch.export.save`) -> Graph, without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import memory, shapes, subgraph, views
from leakaudit.frontends.aten.archive import Program, open_archive
from leakaudit.frontends.aten.arguments import read_argument
from leakaudit.frontends.aten.call import Call, Layer
from leakaudit.frontends.aten.folding.fold import fold, write
from leakaudit.frontends.aten.foreign import describe_foreign
from leakaudit.frontends.aten.inputs import UserInput, symbols as input_symbols
from leakaudit.frontends.aten.operators import registry
from leakaudit.frontends.aten.parts import Parts, live, named
from leakaudit.frontends.aten.schema import (
    EXPORT_REMEDY,
    FormatError,
    dtype_name,
    field,
    records,
    tensor_names,
)
from leakaudit.frontends.aten.values import Stored, Value
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.interface import LoadOptions, require_shape
from leakaudit.graph import Graph, Node, Parameter, Tensor
from leakaudit.sandbox.limits import Deadline

_SCHEMA_MAJOR = 8  # torch 2.11 to 2.13


def load(path: str, options: LoadOptions) -> Graph:
    """Read an export archive.

    Raises:
        AuditError: The file is missing, something else, damaged, or leaves sizes open that the
            options do not give.
    """
    foreign = describe_foreign(path, options.limits)
    if foreign is not None:
        raise AuditError(path, *foreign)
    return _read(path, options, "pt2", lambda: open_archive(path, Path(path), options.limits))


def load_bytes(data: bytes, name: str, options: LoadOptions) -> Graph:
    """Read an export archive from memory; `name` stands for it in the graph and in messages.

    Raises:
        AuditError: As for `load`.
    """
    return _read(name, options, "pt2", lambda: open_archive(name, data, options.limits))


def load_program(program: Program, options: LoadOptions) -> Graph:
    """Read the program of a live module.

    Raises:
        AuditError: As for `load`.
    """
    return _read(program.target, options, "module", lambda: program)


def _read(
    target: str, options: LoadOptions, file_format: str, opened: Callable[[], Program]
) -> Graph:
    try:
        deadline = options.limits.start(target)
        archive = opened()
        program = archive.program()
        version = field(field(program, "schema_version", dict), "major", int)
        if version != _SCHEMA_MAJOR:
            raise AuditError(
                target,
                f"its schema version is {version}, and only {_SCHEMA_MAJOR} is understood",
                "export the model with torch 2.11 to 2.13",
            )
        return _Reader(archive, program, options, deadline).graph(file_format)
    except (FormatError, RecursionError) as error:
        # Lists nested a thousand deep are the one way to exhaust the stack here.
        text = str(error) if isinstance(error, FormatError) else "it is nested too deeply"
        raise AuditError(
            target, f"this is not a readable export archive: {text}", EXPORT_REMEDY
        ) from error


class _Reader:
    """Walks the calls of one program in order; `values` maps a name to what it now stands for."""

    def __init__(
        self, archive: Program, program: dict[str, Any], options: LoadOptions, deadline: Deadline
    ) -> None:
        module = field(program, "graph_module", dict)
        self.archive = archive
        self.target = archive.target
        self.options = options
        self.deadline = deadline
        self.signature = field(module, "signature", dict)
        self.record = field(module, "graph", dict)
        self.metas = field(self.record, "tensor_values", dict)
        self.calls = records(self.record, "nodes")
        nodes = "the number of its nodes"
        options.limits.require("nodes", len(self.calls), self.target, nodes)
        self.last_read = self._last_reads()
        self.values: dict[str, Tensor | Stored] = {}
        self.parts = Parts(archive)
        self.labels: set[str] = set()
        self.stored: set[str] = set()
        self.memory = memory.SharedMemory()
        self.symbols: dict[str, int] = {}

    def graph(self, file_format: str) -> Graph:
        inputs = self._read_inputs()
        for position, call in enumerate(self.calls):
            self.deadline.check()
            self._read_call(position, call)
        outputs = [
            value.name
            for name in self._output_names()
            if isinstance(value := self._value(name), Tensor)
        ]
        if not outputs:
            raise FormatError("the program has no tensor output")
        nodes = named(live(self.parts.nodes, outputs))
        kept = {*inputs, *(name for node in nodes for name in node.outputs)}
        read = {name for node in nodes for name in (*node.inputs, *dict(node.parameters).values())}
        stored = self.parts.parameters
        return Graph(
            name=self.target,
            format=file_format,
            inputs=tuple(inputs),
            outputs=tuple(dict.fromkeys(outputs)),
            tensors={n: tensor for n, tensor in self.parts.tensors.items() if n in kept},
            parameters={n: p for n, p in stored.items() if n in read or n in self.labels},
            nodes=nodes,
            weights=self.parts.weights(),
            notes=self.options.unused_frozen(self.stored),
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
                    if kind != "parameter":
                        self.parts.fixed.add(stored[-1][1])
            if "user_input" in spec:
                argument = field(field(spec, "user_input", dict), "arg", dict)
                if "as_tensor" in argument:
                    name = field(field(argument, "as_tensor", dict), "name", str)
                    user.append(UserInput(name, field(self.metas, name, dict)))
        if not user:
            raise FormatError("the program has no tensor input")
        self._read_stored(stored)
        self.symbols = input_symbols(self.target, user, self.options)
        return [self._define(entry.name).name for entry in user]

    def _read_stored(self, specs: list[tuple[str, str]]) -> None:
        tied = self._tied(specs)
        for name, label in specs:
            if name in self.values:
                raise FormatError(f"the parameter {name[:80]!r} is stated twice")
            meta = field(self.metas, name, dict)
            shape = shapes.fixed_shape(meta)
            stored = self.archive.tensors.get(label)
            if stored is not None and (stored.shape, stored.dtype) != (shape, dtype_name(meta)):
                raise FormatError(f"the graph and the weights disagree on {label!r}")
            canonical = tied.get(label, label)
            self.labels.add(canonical)
            self.stored.add(label)
            axes = tuple(range(len(shape)))
            self.values[name] = Stored(canonical, shape, dtype_name(meta), axes)
            if canonical == label:
                names = [label, *(alias for alias, first in tied.items() if first == label)]
                frozen = any(self.options.is_frozen(alias) for alias in names)
                trainable = field(meta, "requires_grad", bool) and not frozen
                self.parts.parameters[label] = Parameter(label, shape, dtype_name(meta), trainable)

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
        groups: list[list[str]] = []
        for index, entry in enumerate(records(record, "inputs")):
            argument = field(entry, "arg", dict)
            key = field(entry, "name", str) or f"argument {index}"
            arguments[key] = self._argument(argument)
            groups.append(list(tensor_names(argument)))
        names = [name for entry in records(record, "outputs") for name in tensor_names(entry)]
        written = self._written(record, target, groups)
        if not names and not written:
            return  # sizes and assertions: they compute no tensor
        outputs = tuple(self._define(name) for name in names)
        read = tuple(name in self.last_read for name in names)
        call = Call(target, arguments, outputs, read, self.parts.parameters, self.parts)
        self.parts.calls.update((tensor.name, call) for tensor in outputs)
        self.parts.begin(target, outputs[0].name if outputs else target)
        if not written:
            self._compute(record, call, names)
        elif memory.writes_first_only(target) and write(call):
            self._rebind(written, call, names)
        else:
            layers, stale = self._layers(position, call, names, written)
            self._append(record, call, layers, stale)
        if memory.may_alias(target):
            self.memory.join([*(name for group in groups for name in group), *names])

    def _written(self, record: dict[str, Any], target: str, read: list[list[str]]) -> list[str]:
        """Names of the values whose memory this call writes into."""
        if not subgraph.writes(record, target):
            return []
        if memory.writes_first_only(target):
            return read[0] if read else []
        return [name for group in read for name in group]

    def _compute(self, record: dict[str, Any], call: Call, names: list[str]) -> None:
        """Find what the outputs of a call stand for: constants, views of parameters, or nodes."""
        view = views.view_of_stored(call)
        folded = fold(call)
        if folded is None:
            folded = subgraph.fold(record, call, self.symbols)
        constants: list[Stored] | None = None
        if folded is not None:
            with contextlib.suppress(NotUnderstoodError):
                constants = [self.parts.constant(numbers) for numbers in folded]
        if view is not None and view.plain and (constants is None or view.name in self.labels):
            found: list[Stored] = [
                replace(view, numbers=constants[0].numbers) if constants else view
            ]
        elif view is not None and constants is not None:
            (constant,) = constants
            found = [replace(view, holder=constant.operand, numbers=constant.numbers)]
        elif constants is not None:
            found = constants
        else:
            self._append(record, call, registry.build(call), ())
            if view is not None:
                self.values[names[0]] = replace(view, holder=call.outputs[0])
            return
        for name, tensor, value in zip(names, call.outputs, found, strict=True):
            del self.parts.tensors[tensor.name]
            self.values[name] = value

    def _rebind(self, written: list[str], call: Call, names: list[str]) -> None:
        """Give every value that shares the memory of a constant just written a name of its own.

        Nodes that read it before keep what they read.
        """
        target = call.numbers("self")
        for name in self.memory.others(written):
            value = self.values.get(name)
            if isinstance(value, Stored):
                numbers = self.parts.numbers(value)
                if numbers is not None and np.may_share_memory(numbers, target):
                    self.values[name] = self.parts.renamed(numbers)
        for name, tensor in zip(names, call.outputs, strict=True):
            del self.parts.tensors[tensor.name]
            self.values[name] = self.values[written[0]]

    def _layers(
        self, position: int, call: Call, names: list[str], written: list[str]
    ) -> tuple[tuple[Layer, ...], tuple[Tensor, ...]]:
        """The layers of a call that writes in place, and the new content of views read later."""
        layers = registry.build(call)
        itself = set(written[:1]) if memory.writes_first_only(call.target) else set()
        changed = sorted(
            name
            for name in self.memory.others(written) - set(names)
            if self.last_read.get(name, -1) > position and name in self.values
        )
        shared = [name for name in changed if name not in itself or not names]
        stale = tuple(self._redefine(name, position) for name in shared)
        if names:
            for name in set(changed) & itself:
                self.values[name] = self.values[names[0]]
        if stale:
            reason = f"it writes into memory that {shared[0]!r} shares, which is read later"
            layers = (registry.unsupported(call, reason),)
        return layers, stale

    def _append(
        self,
        record: dict[str, Any],
        call: Call,
        layers: tuple[Layer, ...],
        stale: tuple[Tensor, ...],
    ) -> None:
        own = record.get("name") if len(layers) == 1 else None
        for layer in layers:
            outputs = tuple(tensor.name for tensor in (*layer.outputs, *stale))
            if not outputs:
                continue  # writes into memory that nothing reads again
            name = own if isinstance(own, str) else outputs[0]
            node = Node(name, layer.op, layer.inputs, outputs, layer.parameters, call.target)
            self.parts.append(node)

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
            shape = shapes.shape(meta, self.symbols)
        except shapes.OpenSymbolError as error:
            raise AuditError(
                self.target,
                f"the shape of {name!r} depends on the data (symbol {str(error)[:80]!r})",
                "export a model whose shapes follow from the shape of its input",
            ) from error
        require_shape(self.target, name, shape, self.options.limits)
        tensor = self.parts.new_tensor(name, shape, dtype_name(meta))
        if shapes.row_major(meta, shape, self.symbols):
            self.parts.row_major.add(tensor.name)
        self.values[name] = tensor
        return tensor

    def _redefine(self, name: str, position: int) -> Tensor:
        old = self._value(name)
        tensor = self.parts.new_tensor(f"{name}@{position}", old.shape, old.dtype)
        self.values[name] = tensor
        return tensor

    def _argument(self, argument: dict[str, Any]) -> Value:
        sizes = field(self.record, "sym_int_values", dict)
        return read_argument(argument, self._value, sizes, self.symbols)


_STORED_SPECS = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}
