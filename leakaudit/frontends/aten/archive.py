"""The container of a PyTorch export archive (.pt2): a zip of JSON and raw tensors.

Written by `torch.export.save`; read here without torch and without unpickling anything. Nothing in
the archive is trusted: names, sizes, offsets and strides are checked before they are used.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from leakaudit.errors import AuditError
from leakaudit.frontends.aten import values
from leakaudit.frontends.aten.schema import DTYPES, EXPORT_REMEDY, FormatError, dtype_name, field
from leakaudit.frontends.aten.zip import ZIP_ERRORS, open_zip
from leakaudit.frontends.build import NotUnderstoodError
from leakaudit.frontends.interface import require_shape
from leakaudit.sandbox.limits import Limits

_ITEM_BYTES = {"complex32": 4, "bfloat16": 2}
_ITEM_BYTES |= {name: 1 for name in DTYPES.values() if name.startswith("float8")}

_MAX_SIZE = 2**48
_MAX_VIEW_BYTES = 2**30  # how far a stride-0 view may grow beyond what is stored


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies: a strided view of the raw bytes of an archive member.

    `strides` and `offset` count elements. `pickled` entries are never read.
    """

    member: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    pickled: bool


class Program(Protocol):
    """What the reader walks: an exported program in the words of torch's export schema.

    Attributes:
        target: The program as the user named it, for messages.
        tensors: Stored weights and constants by fully qualified name.
    """

    @property
    def target(self) -> str: ...

    @property
    def tensors(self) -> Mapping[str, StoredTensor]: ...

    def program(self) -> dict[str, Any]:
        """The `ExportedProgram` record, which a file holds as `models/<model>.json`.

        Raises:
            FormatError: It is damaged or not a JSON object.
            AuditError: It is larger than the limit.
        """
        ...

    def load(self, name: str) -> npt.NDArray[Any]:
        """A stored tensor with its present numbers, as a new C-contiguous array of its own dtype.

        Raises:
            AuditError: It is missing, pickled, damaged, without numbers, or of a dtype that numpy
                cannot hold.
        """
        ...


@dataclass(frozen=True, slots=True)
class Archive:
    """An opened and verified archive: a `Program`.

    Attributes:
        source: The file, or its content.
        root: The folder inside the zip that holds everything.
        model: Name of the exported program ("model" in `models/model.json`).
        big_endian: Byte order of the raw tensors.
        limits: What reading it may cost.
    """

    target: str
    source: Path | bytes
    root: str
    model: str
    big_endian: bool
    tensors: Mapping[str, StoredTensor]
    limits: Limits

    def program(self) -> dict[str, Any]:
        member = f"{self.root}/models/{self.model}.json"
        with open_zip(self.source, self.target, self.limits) as archive:
            return _read_json(archive, member, self.target, self.limits)

    def load(self, name: str) -> npt.NDArray[Any]:
        stored = readable(self.target, self.tensors, name)
        dtype = numpy_dtype(self.target, name, stored.dtype)
        try:
            with open_zip(self.source, self.target, self.limits) as archive:
                data = _read(archive, stored.member)
            return _strided(data, dtype, stored, self.big_endian)
        except FormatError as error:
            raise AuditError(self.target, f"tensor {name!r}: {error}", EXPORT_REMEDY) from error


def readable(target: str, tensors: Mapping[str, StoredTensor], name: str) -> StoredTensor:
    """Where a tensor lies whose numbers can be read.

    Raises:
        AuditError: It is missing, or pickled.
    """
    stored = tensors.get(name)
    if stored is None:
        raise AuditError(target, f"the archive holds no numbers for {name!r}", EXPORT_REMEDY)
    if stored.pickled:
        raise AuditError(
            target,
            f"the tensor {name!r} is stored as a pickle (a tensor subclass), "
            "which is never unpickled",
            "replace it by a plain torch.nn.Parameter before torch.export.save",
        )
    return stored


def numpy_dtype(target: str, name: str, dtype: str) -> np.dtype[Any]:
    """The numpy dtype that holds a stored tensor.

    Raises:
        AuditError: There is none, or a package that adds it is missing.
    """
    if dtype == "complex32":
        raise AuditError(target, f"the tensor {name!r} is complex32", "store it as complex64")
    try:
        return values.numpy_dtype(dtype)
    except NotUnderstoodError as error:
        raise AuditError(
            target,
            f"the tensor {name!r} is {dtype}, which numpy alone cannot hold",
            "pip install ml_dtypes",
        ) from error


def open_archive(target: str, source: Path | bytes, limits: Limits) -> Archive:
    """Open an export archive and verify everything that can be verified without reading numbers.

    Raises:
        FormatError: Unsafe names or sizes, missing members, inconsistent tensor records.
        AuditError: It is above a limit.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    limits.require("file_bytes", size, target, "its size in bytes")
    with open_zip(source, target, limits) as archive:
        members = _verified_members(archive, target, limits)
        if sum(info.compress_size for info in members.values()) > size:
            raise FormatError("members of the archive overlap")
        root = _root(members)
        if _read(archive, f"{root}/archive_format").strip() != b"pt2":
            raise FormatError("the archive format is not 'pt2'")
        big_endian = False
        if f"{root}/byteorder" in members:
            stated = _read(archive, f"{root}/byteorder").strip()
            if stated not in (b"little", b"big"):
                raise FormatError("the byte order is neither 'little' nor 'big'")
            big_endian = stated == b"big"
        model = _model_name(root, members)
        tensors: dict[str, StoredTensor] = {}
        for folder in ("weights", "constants"):
            config = f"{root}/data/{folder}/{model}_{folder}_config.json"
            # Archives that keep their weights in one pickle have no config: the graph can be
            # read, and `load` reports every tensor as absent.
            if config in members:
                records = _read_json(archive, config, target, limits)
                place = f"{root}/data/{folder}"
                tensors |= _stored_tensors(records, place, members, target, limits)
    return Archive(target, source, root, model, big_endian, tensors, limits)


def _verified_members(
    archive: zipfile.ZipFile, target: str, limits: Limits
) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    limits.require("members", len(infos), target, "the number of files in the archive")
    unpacked = sum(info.file_size for info in infos)
    limits.require("unpacked_bytes", unpacked, target, "its size in bytes when unpacked")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        # `orig_filename` too: zipfile cuts a name at NUL and rewrites the separators.
        for text in (name, info.orig_filename):
            parts = re.split(r"[/\\]", text)
            if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in text:
                raise FormatError(f"the member name {text[:80]!r} is unsafe")
        if name in members:
            raise FormatError(f"the member {name[:80]!r} occurs twice")
        if info.flag_bits & 1:
            raise FormatError(f"the member {name[:80]!r} is encrypted")
        # torch stores members uncompressed; a repacked archive stays far below the limit.
        if info.file_size > 2**20:
            ratio = info.file_size // max(info.compress_size, 1)
            limits.require("ratio", ratio, target, f"the compression ratio of {name[:80]!r}")
        members[name] = info
    return members


def _root(members: Mapping[str, zipfile.ZipInfo]) -> str:
    roots = [
        name.split("/")[0]
        for name in members
        if name.count("/") == 1 and name.endswith("/archive_format")
    ]
    if len(roots) != 1:
        raise FormatError("the archive has no single 'archive_format' member")
    return roots[0]


def _model_name(root: str, members: Mapping[str, zipfile.ZipInfo]) -> str:
    prefix = f"{root}/models/"
    found = [
        name.removeprefix(prefix).removesuffix(".json")
        for name in members
        if name.startswith(prefix) and name.endswith(".json")
    ]
    if "model" in found:
        return "model"
    if len(found) != 1:
        raise FormatError(f"the archive holds {len(found)} exported programs, none named 'model'")
    return found[0]


def _read(archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        return archive.read(member)
    except KeyError as error:
        raise FormatError(f"the member {member[:80]!r} is missing") from error
    except ZIP_ERRORS as error:
        raise FormatError(f"the member {member[:80]!r} is damaged") from error


def _read_json(
    archive: zipfile.ZipFile, member: str, target: str, limits: Limits
) -> dict[str, Any]:
    try:
        size = archive.getinfo(member).file_size
    except KeyError as error:
        raise FormatError(f"the member {member[:80]!r} is missing") from error
    limits.require("json_bytes", size, target, f"the size in bytes of {member[:80]!r}")
    try:
        content = json.loads(_read(archive, member).decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the member {member[:80]!r} is not valid JSON") from error
    if not isinstance(content, dict):
        raise FormatError(f"the member {member[:80]!r} is not a JSON object")
    return content


def _stored_tensors(
    config: dict[str, Any],
    folder: str,
    members: Mapping[str, zipfile.ZipInfo],
    target: str,
    limits: Limits,
) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for name, record in field(config, "config", dict).items():
        member = f"{folder}/{field(record, 'path_name', str)}"
        if member not in members:
            raise FormatError(f"the tensor {name!r} names a member that is missing")
        # Custom objects among the constants carry no tensor metadata; nothing reads them.
        if record.get("tensor_meta") is None:
            continue
        meta = field(record, "tensor_meta", dict)
        stored = StoredTensor(
            member=member,
            dtype=dtype_name(meta),
            shape=tuple(_static(size) for size in field(meta, "sizes", list)),
            strides=tuple(_static(stride) for stride in field(meta, "strides", list)),
            offset=_static(field(meta, "storage_offset", dict)),
            pickled=field(record, "use_pickle", bool),
        )
        require_shape(target, name, stored.shape, limits)
        if not stored.pickled:
            _check_bounds(name, stored, members[member].file_size)
        found[name] = stored
    return found


def _static(size: object) -> int:
    value = field(size, "as_int", int)
    if not 0 <= value <= _MAX_SIZE:
        raise FormatError(f"{value} is not a size, stride or offset")
    return value


def _check_bounds(name: str, stored: StoredTensor, stored_bytes: int) -> None:
    item = _ITEM_BYTES.get(stored.dtype) or np.dtype(stored.dtype).itemsize
    if len(stored.strides) != len(stored.shape):
        raise FormatError(f"the tensor {name!r} has mismatched sizes and strides")
    # torch writes no bytes at all for a fake or meta tensor; `load` reports it as absent.
    if 0 in stored.shape or stored_bytes == 0:
        return
    count, last = 1, stored.offset
    for size, stride in zip(stored.shape, stored.strides, strict=True):
        count *= size
        last += (size - 1) * stride
    if (last + 1) * item > stored_bytes:
        raise FormatError(
            f"the tensor {name!r} needs {(last + 1) * item} bytes of storage "
            f"and the archive holds {stored_bytes}"
        )
    if count * item > max(stored_bytes, _MAX_VIEW_BYTES):
        raise FormatError(f"the tensor {name!r} expands to {count * item} bytes")


def _strided(
    data: bytes, dtype: np.dtype[Any], stored: StoredTensor, big_endian: bool
) -> npt.NDArray[Any]:
    if 0 in stored.shape:
        return np.zeros(stored.shape, dtype)
    if not data:
        raise FormatError("the archive was exported without numbers (fake or meta tensors)")
    item = dtype.itemsize
    # numpy cannot swap the bytes of the ml_dtypes types: read them as words first.
    words = np.dtype(f"u{item}") if stored.dtype in _ITEM_BYTES else dtype
    order: Literal["<", ">"] = ">" if big_endian else "<"
    raw = np.frombuffer(data[: len(data) - len(data) % item], words.newbyteorder(order))
    flat = raw.astype(words, copy=False).view(dtype)
    view = np.lib.stride_tricks.as_strided(
        flat[stored.offset :],
        stored.shape,
        tuple(stride * item for stride in stored.strides),
        writeable=False,
    )
    return np.array(view, order="C")
