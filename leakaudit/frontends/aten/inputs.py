"""Gives the open dimensions of an exported program their sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import shapes as pt2_shapes
from leakaudit.frontends.aten.schema import FormatError, field
from leakaudit.frontends.interface import LoadOptions

_DYNAMIC_BATCH = (
    "export with a dynamic batch dimension: "
    "torch.export.export(model, args, dynamic_shapes=({0: torch.export.Dim('batch')},))"
)


@dataclass(frozen=True, slots=True)
class UserInput:
    """One input tensor of the program, with its `TensorMeta` record."""

    name: str
    meta: Mapping[str, object]

    @property
    def sizes(self) -> list[object]:
        """The `SymInt` records of its axes."""
        return list(field(self.meta, "sizes", list))


def symbols(target: str, inputs: Sequence[UserInput], options: LoadOptions) -> dict[str, int]:
    """Solve for the symbols in the shapes of the inputs.

    Axis 0 is the batch: `options.batch_size`, or the given shape's, or 1. Every other open axis
    must follow from `options.input_shapes`.

    Raises:
        AuditError: An axis stays open, or a size was asked that the file does not allow.
        FormatError: The records are malformed.
    """
    given = _given_shapes(target, inputs, options)
    wanted: list[tuple[str, int]] = []
    batches: list[tuple[str, int]] = []
    for index, entry in enumerate(inputs):
        shape = given.get(entry.name)
        for axis, record in enumerate(entry.sizes):
            text = pt2_shapes.expression(record)
            asked = shape[axis] if shape is not None else None
            if axis == 0 and options.batch_size is not None:
                # A second input may fix its first axis, e.g. a mask shared by the batch.
                asked = options.batch_size if text is not None or index == 0 else None
            if asked is None:
                if axis == 0 and text is not None:
                    batches.append((text, 1))
            elif text is not None:
                wanted.append((text, asked))
            elif asked != field(record, "as_int", int):
                raise _fixed(target, entry, axis, asked)
    try:
        found = pt2_shapes.solve(wanted, {})
        # A batch that no one asked for is 1 unless a given shape already decided it.
        for text, size in batches:
            try:
                pt2_shapes.evaluate(text, found)
            except pt2_shapes.OpenSymbolError:
                found = pt2_shapes.solve([(text, size)], found)
    except FormatError as error:
        raise AuditError(
            target,
            f"the input sizes do not fit the exported program ({error})",
            f"try {_example(inputs)}",
        ) from error
    _require_closed(target, inputs, found)
    return found


def _given_shapes(
    target: str, inputs: Sequence[UserInput], options: LoadOptions
) -> dict[str, tuple[int, ...]]:
    names = [entry.name for entry in inputs]
    given: dict[str, tuple[int, ...]] = {}
    for key, shape in options.input_shapes.items():
        name = names[0] if key == "" and len(names) == 1 else key
        if name not in names:
            listed = ", ".join(repr(known) for known in names)
            raise AuditError(
                target,
                f"it has no input {key!r}, its inputs are {listed}"
                if key
                else f"it has {len(names)} inputs: {listed}",
                f"try {_example(inputs)}",
            )
        given[name] = shape
        axes = len(inputs[names.index(name)].sizes)
        if len(shape) != axes:
            raise AuditError(
                target,
                f"input {name!r} has {axes} axes, and {len(shape)} sizes were given",
                f"try {_example(inputs)}",
            )
    return given


def _fixed(target: str, entry: UserInput, axis: int, asked: int) -> AuditError:
    what, remedy = f"axis {axis}", "leave out --input-shape, or export with that dimension dynamic"
    if axis == 0:
        what, remedy = "the batch", _DYNAMIC_BATCH
    stored = field(entry.sizes[axis], "as_int", int)
    reason = f"the file fixes {what} of input {entry.name!r} at {stored}, and {asked} was asked"
    return AuditError(target, reason, remedy)


def _require_closed(
    target: str, inputs: Sequence[UserInput], symbols_found: Mapping[str, int]
) -> None:
    for entry in inputs:
        unknown: list[str] = []
        for axis, record in enumerate(entry.sizes):
            try:
                pt2_shapes.size(record, symbols_found)
            except pt2_shapes.OpenSymbolError:
                unknown.append(str(axis))
        if unknown:
            raise AuditError(
                target,
                f"the file leaves axis {', '.join(unknown)} of input {entry.name!r} open",
                f"give its sizes, e.g. {_example(inputs)}",
            )


def _example(inputs: Sequence[UserInput]) -> str:
    """The command line option for the sizes that the model was exported with."""
    options = []
    for entry in inputs:
        sizes = ",".join(str(size) for size in pt2_shapes.hinted(entry.meta))
        options.append(f"--input-shape {sizes if len(inputs) == 1 else f'{entry.name}={sizes}'}")
    return " ".join(options)
