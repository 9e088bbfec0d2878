"""onnx's C++ code (shape inference, inliner, checker), run in a helper process.

It was not written for hostile files: some of its inference reads beyond its memory, and a chain of
functions can exhaust its stack. A crash there ends the helper, and the audit of that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from leakaudit.errors import AuditError
from leakaudit.frontends.onnx.limits import REPAIR
from leakaudit.sandbox.helper import Helper, HelperDied, HelperFailed
from leakaudit.sandbox.inside import Parts
from leakaudit.sandbox.limits import Limits

IR_VERSION = 8  # from 4 on initializers need not be inputs; nothing else matters to inference
Types = Mapping[str, onnx.TypeProto]
Numbers = Mapping[str, np.ndarray]
_WORKER = "leakaudit.frontends.onnx.worker"


class NativeError(Exception):
    """onnx's code refuses what it was given; the text is the name of its error."""


class OnnxNative:
    """onnx's C++ code for one file.

    Args:
        target: The file as the user named it, for errors.
        limits: Memory and time of the helper.

    Raises:
        AuditError: The helper cannot be started. The methods raise it where it dies, and
            NativeError where onnx refuses its input.
    """

    def __init__(self, target: str, limits: Limits) -> None:
        self._target = target
        self._answers: dict[tuple[bytes, ...], dict[str, onnx.TypeProto] | NativeError] = {}
        try:
            self._helper = Helper(_WORKER, ("onnx",), limits)
        except HelperDied as error:
            raise AuditError(
                target, f"the helper process that reads it {error}", "check this installation"
            ) from error

    def __enter__(self) -> OnnxNative:
        return self

    def __exit__(self, *_: object) -> None:
        self._helper.close()

    def infer_node(
        self,
        node: onnx.NodeProto,
        domain: str,
        types: Types,
        data: Numbers,
        opsets: Mapping[str, int],
    ) -> dict[str, onnx.TypeProto]:
        """The types of a node's outputs from those of its inputs and the numbers among them.

        Networks repeat themselves: nodes that differ in nothing but names are asked about once.
        """
        inputs = {name: f"i{index}" for index, name in enumerate(dict.fromkeys(node.input)) if name}
        outputs = {name: f"o{index}" for index, name in enumerate(node.output) if name}
        plain = onnx.NodeProto(
            op_type=node.op_type,
            domain=node.domain,
            input=[inputs.get(name, "") for name in node.input],
            output=[outputs.get(name, "") for name in node.output],
            attribute=node.attribute,
        )
        question = (
            *(b"infer node", node.op_type.encode(), domain.encode()),
            *(_number(opsets.get(domain, 1)), _number(IR_VERSION), plain.SerializeToString()),
            *_table({new: types[name].SerializeToString() for name, new in inputs.items()}),
            *_table({inputs[name]: _stored(data[name], inputs[name]) for name in data}),
            *_table({name: _number(version) for name, version in opsets.items()}),
        )
        if question not in self._answers:
            self._answers[question] = self._types_of_outputs(question, node.op_type)
        answer = self._answers[question]
        if isinstance(answer, NativeError):
            raise NativeError(str(answer))
        return {name: answer[plain] for name, plain in outputs.items() if plain in answer}

    def _types_of_outputs(
        self, question: tuple[bytes, ...], op_type: str
    ) -> dict[str, onnx.TypeProto] | NativeError:
        try:
            reply = self._ask(list(question), f"onnx's shape inference of {op_type!r}")
            return {
                name.decode(): onnx.TypeProto.FromString(value)
                for name, value in zip(reply[::2], reply[1::2], strict=True)
            }
        except NativeError as error:
            return error
        except (DecodeError, ValueError) as error:
            return NativeError(type(error).__name__)

    def infer_model(self, model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
        """The types of the values that a model computes."""
        reply = self._ask(
            [b"infer model", model.SerializeToString()], "onnx's shape inference of control flow"
        )
        return {value.name: value.type for value in _model(reply).graph.value_info}

    def inlined(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model with calls of its own functions replaced by their bodies."""
        return _model(self._ask([b"inline", model.SerializeToString()], "onnx's inliner"))

    def check(self, model: onnx.ModelProto) -> None:
        """Hold a model against the standard, its shapes included."""
        self._ask([b"check", model.SerializeToString()], "onnx's checker")

    def _ask(self, parts: Parts, what: str) -> Parts:
        try:
            return self._helper.ask(parts)
        except HelperFailed as error:
            raise NativeError(str(error)) from error
        except HelperDied as error:
            raise AuditError(
                self._target,
                f"it could not be audited: {what} {error}",
                f"{REPAIR}, or give it more with --limit memory_bytes=N or --limit seconds=N",
            ) from error


def _number(value: int) -> bytes:
    return str(value).encode()


def _stored(array: np.ndarray, name: str) -> bytes:
    return bytes(numpy_helper.from_array(array, name).SerializeToString())


def _table(entries: Mapping[str, bytes]) -> list[bytes]:
    """Their number, then name and value of each."""
    pairs = ((name.encode(), value) for name, value in entries.items())
    return [_number(len(entries)), *chain.from_iterable(pairs)]


def _model(reply: Parts) -> onnx.ModelProto:
    try:
        return onnx.ModelProto.FromString(reply[0])
    except (DecodeError, IndexError) as error:
        raise NativeError(type(error).__name__) from error
