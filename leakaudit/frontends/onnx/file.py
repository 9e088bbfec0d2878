"""Reading an ONNX file into a protobuf, with a sentence for everything that is not one."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from leakaudit.errors import AuditError
from leakaudit.sandbox.limits import Limits

OLDEST_OPSET = 7  # before it broadcasting, Dropout and BatchNormalization meant something else
PROTOBUF_LIMIT = 2**31 - 1
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_ZIP = b"PK\x03\x04"
_DEFAULT_DOMAINS = ("", "ai.onnx")


def read_model(path: str, limits: Limits) -> onnx.ModelProto:
    """Read the file without its external data.

    Raises:
        AuditError: The file is missing, is not a whole ONNX model, is older than opset 7, or is
            above a limit.
    """
    _check_file(path, limits)
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    # ValueError: the protobuf of some versions for what is not UTF-8.
    except (DecodeError, ValueError) as error:
        raise AuditError(
            path,
            "it is not an ONNX model, or it is truncated",
            "export the model again, or copy or download the whole file",
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    require_network(path, model)
    return model


def require_network(target: str, model: onnx.ModelProto) -> None:
    """Refuse a model without nodes, and one of an opset that meant something else.

    Raises:
        AuditError: It is one.
    """
    if not model.HasField("graph") or not model.graph.node:
        raise AuditError(target, "it holds no network", "export the model again")
    version = default_opset(model)
    if version < OLDEST_OPSET:
        raise AuditError(
            target,
            f"it uses opset {version}, and leakaudit reads {OLDEST_OPSET} and later",
            "convert it with onnx.version_converter.convert_version(model, 13)",
        )


def default_opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators; 1 where the file declares none, as ONNX defines."""
    versions = [entry.version for entry in model.opset_import if is_default(entry.domain)]
    return max(versions, default=1)


def is_default(domain: str) -> bool:
    """Whether the domain is that of the standard operators."""
    return domain in _DEFAULT_DOMAINS


def _check_file(path: str, limits: Limits) -> None:
    file = Path(path)
    try:
        if file.is_dir():
            raise AuditError(path, "it is a folder", "name the .onnx file in it")
        size = file.stat().st_size
        if not file.is_file():
            raise AuditError(path, "it is not a regular file", "name an .onnx file")
        with file.open("rb") as handle:
            head = handle.read(len(_LFS_POINTER))
    except FileNotFoundError as error:
        raise AuditError(path, "there is no such file", "check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error) from error
    if size == 0:
        raise AuditError(path, "the file is empty", "export the model again")
    if head.startswith(_LFS_POINTER):
        raise AuditError(
            path, "it is a Git LFS pointer, the model itself was not fetched", "run `git lfs pull`"
        )
    if head.startswith(_ZIP):
        raise AuditError(
            path,
            "it is a zip archive, not an ONNX model",
            "unpack it, or name it .pt2 if torch.export wrote it",
        )
    limits.require("file_bytes", size, path, "its size in bytes")
    if size > PROTOBUF_LIMIT:
        raise AuditError(
            path,
            "it is larger than 2 GB, more than a protobuf can hold",
            "store the weights beside it with onnx.save_model(..., save_as_external_data=True)",
        )


def _unreadable(path: str, error: Exception) -> AuditError:
    why = getattr(error, "strerror", None) or type(error).__name__
    return AuditError(path, f"it cannot be read ({why})", "check the path and its permissions")
