"""Recognises what a user hands over in place of an export archive, and says what to do instead."""

from __future__ import annotations

import contextlib
import pickletools
import zipfile
from pathlib import Path

from leakaudit.frontends.aten.schema import EXPORT_REMEDY, FormatError
from leakaudit.frontends.aten.zip import open_zip
from leakaudit.sandbox.limits import Limits

_LFS_POINTER = b"version https://git-lfs"
_SAVED_PROGRAM = "load the model in Python and save it as an export archive: "
_PICKLE_REMEDY = f"{_SAVED_PROGRAM}torch.export.save(torch.export.export(model, args), 'model.pt2')"
_MAX_PICKLE_BYTES = 16 * 2**20


def describe_foreign(path: str | Path, limits: Limits | None = None) -> tuple[str, str] | None:
    """Say why a `.pt2`, `.pt` or `.pth` file cannot be an export archive.

    Nothing is unpickled; a pickle's opcodes are looked at without being run.

    Returns:
        Reason and remedy, one sentence each, or None where the file looks like an archive of
        `torch.export.save`.

    Raises:
        AuditError: It has more members than the limits allow.
    """
    file = Path(path)
    try:
        if not file.exists():
            return "there is no such file", "check the path"
        if file.is_dir():
            return "this is a folder", "name the model file inside it"
        if not file.is_file():
            return "this is not a regular file", "name a model file"
        with file.open("rb") as stream:
            head = stream.read(64)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or "the path is not valid"
        return f"the file cannot be read ({text})", "check the path and its permissions"
    if not head:
        return "the file is empty", EXPORT_REMEDY
    if head.startswith(_LFS_POINTER):
        return "this is a Git LFS pointer, not the model itself", "run git lfs pull"
    if head.startswith(b"\x80"):
        return (
            "this is a pickle (torch.save in its legacy format), which is never unpickled",
            _PICKLE_REMEDY,
        )
    if not head.startswith(b"PK"):
        return "this is not an export archive (not a zip)", EXPORT_REMEDY
    try:
        with open_zip(file, str(path), limits or Limits()) as archive:
            return _describe_zip(archive)
    except FormatError as error:
        return str(error), "fetch or export the file again"


def _describe_zip(archive: zipfile.ZipFile) -> tuple[str, str] | None:
    names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    programs = any(name.startswith("models/") and name.endswith(".json") for name in inner)
    if "archive_format" in inner:
        if programs:
            return None
        if any(name.startswith("data/aotinductor/") for name in inner):
            return "this is a compiled AOTInductor package without an exported graph", EXPORT_REMEDY
        return "the archive holds no exported program (models/*.json)", EXPORT_REMEDY
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return (
            "this is a TorchScript archive (torch.jit.save), which is not read",
            _PICKLE_REMEDY,
        )
    if "data.pkl" in inner:
        member = next(name for name in names if name.partition("/")[2] == "data.pkl")
        return _describe_pickle(archive, member)
    if "serialized_exported_program.json" in (*names, *inner):
        return (
            "this is an export archive in the layout of an older PyTorch",
            "export the model again with torch 2.11 or newer",
        )
    return "this is a zip, but not an export archive", EXPORT_REMEDY


def _describe_pickle(archive: zipfile.ZipFile, member: str) -> tuple[str, str]:
    """Tell a dictionary of tensors from a whole module by the first object the pickle builds."""
    with contextlib.suppress(ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile):
        with archive.open(member) as stream:
            data = stream.read(_MAX_PICKLE_BYTES)
        made = (one for one in pickletools.genops(data) if one[0].name != "PROTO")
        opcode, argument, _ = next(made)
        if opcode.name == "EMPTY_DICT" or argument == "collections OrderedDict":
            return (
                "this is a pickle (torch.save) of a state_dict, which holds weights but no graph",
                "build the model in Python, load the state_dict into it, then "
                "torch.export.save(torch.export.export(model, args), 'model.pt2')",
            )
    return (
        "this is a pickle (torch.save) of a Python object, which is never unpickled",
        _PICKLE_REMEDY,
    )
