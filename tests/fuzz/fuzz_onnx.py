"""Fuzz target: ONNX files, mutated field by field from good ones, through the whole audit.

    python tests/fuzz/fuzz_onnx.py [-max_total_time=600] [CORPUS]

Anything that escapes is a crash; an audit that ends in an error of its own is not.
"""

from __future__ import annotations

import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
from choices import Choices
from google.protobuf.message import EncodeError
from running import audited, fuzz

SAMPLES = Path(__file__).parents[2] / "sample_models"
MUTATIONS = 6
MAX_DEPTH = 12


@cache
def _seeds() -> tuple[bytes, ...]:
    """The starting points: small networks, and the operators of onnx's own node tests."""
    names = ("tabular_mlp", "mlp_nobias", "lenet_unread", "lenet_main")
    found = [(SAMPLES / f"{name}.onnx").read_bytes() for name in names]
    cases = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(cases.glob("*/*/model.onnx"))[::7]:
        if path.stat().st_size < 20_000:
            found.append(path.read_bytes())
    return tuple(found)


@cache
def _operators() -> tuple[str, ...]:
    from leakaudit.frontends.onnx.operators.registry import OPERATORS, REFUSED

    return (*sorted(OPERATORS), *sorted(REFUSED))


def mutated(data: bytes) -> bytes:
    """The file that these decisions lead to."""
    choices = Choices(data)
    seeds = _seeds()
    # The networks come first and are drawn as often as all operators together.
    seed = seeds[choices.below(min(4, len(seeds)))] if choices.below(2) else choices.one_of(seeds)
    if choices.below(16) == 0:
        return _raw(bytearray(seed), choices)
    model = onnx.ModelProto.FromString(seed)
    for _ in range(1 + choices.below(MUTATIONS)):
        if choices.left:
            _mutate(model, choices, _names(model))
    try:
        return bytes(model.SerializeToString())
    except (EncodeError, ValueError):
        return seed


def _raw(seed: bytearray, choices: Choices) -> bytes:
    for _ in range(1 + choices.below(8)):
        place = (choices.below(65536) * len(seed)) >> 16
        match choices.below(3):
            case 0:
                seed[place : place + 1] = choices.raw(1)
            case 1:
                del seed[place : place + choices.below(64)]
            case _:
                seed[place:place] = choices.raw(choices.below(16))
    return bytes(seed)


def _names(model: onnx.ModelProto) -> list[str]:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return names + [tensor.name for tensor in model.graph.initializer]


def _mutate(message: Any, choices: Choices, names: list[str]) -> None:
    """Walk down from a message to one field, and change that."""
    for _ in range(MAX_DEPTH):
        fields = [descriptor for descriptor, _ in message.ListFields()]
        # Now and then a field that is not set yet.
        if not fields or choices.below(8) == 0:
            fields = list(message.DESCRIPTOR.fields)
        field = choices.one_of(fields)
        value = getattr(message, field.name)
        is_message = field.message_type is not None
        if field.is_repeated:
            if len(value) and choices.below(4) == 0:
                _rearrange(value, choices)
                return
            if not len(value):
                _append(value, field, choices, names)
                return
            index = choices.below(len(value))
            if not is_message:
                value[index] = _scalar(field, choices, names)
                return
            message = value[index]
        elif is_message:
            if choices.below(16) == 0:
                message.ClearField(field.name)
                return
            value.SetInParent()
            message = value
        else:
            _set(message, field, choices, names)
            return


def _rearrange(value: Any, choices: Choices) -> None:
    index, other = choices.below(len(value)), choices.below(len(value))
    if choices.below(2):
        del value[index]
    else:
        value.append(value[other])


def _append(value: Any, field: Any, choices: Choices, names: list[str]) -> None:
    if field.message_type is not None:
        value.add()
    else:
        value.extend(_scalar(field, choices, names) for _ in range(choices.below(9)))


def _set(message: Any, field: Any, choices: Choices, names: list[str]) -> None:
    if choices.below(12) == 0:
        message.ClearField(field.name)
        return
    value = _scalar(field, choices, names)
    if field.name == "op_type":
        value = choices.one_of(_operators())
    setattr(message, field.name, value)


def _scalar(field: Any, choices: Choices, names: list[str]) -> Any:
    match field.cpp_type:
        case field.CPPTYPE_INT64:
            return choices.integer()
        case field.CPPTYPE_UINT64:
            return choices.integer() % 2**64
        case field.CPPTYPE_INT32:
            return (choices.integer() + 2**31) % 2**32 - 2**31
        case field.CPPTYPE_ENUM:
            return choices.one_of([value.number for value in field.enum_type.values])
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return choices.one_of([0.0, 1.0, -1.0, 0.5, 1e30, float("nan"), float("inf")])
        case _ if field.type == field.TYPE_BYTES:
            return choices.raw(choices.below(64))
        case _:
            return choices.text(names)


def one_input(data: bytes) -> None:
    """Audit the file that the bytes stand for; whatever escapes is a crash."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(mutated(data))
        audited(path)


if __name__ == "__main__":
    import_module("leakaudit.frontends.onnx.reader")  # before it is watched
    fuzz(one_input)
