"""Things on disk that are no model, under a model's name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import zipfile
from pathlib import Path

from corpus import Case, content

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 123456\n" % (b"0" * 64)
PICKLE = b"\x80\x02cposix\nsystem\nX\x0e\x00\x00\x00touch executed\x85R."
OLD_PICKLE = b"cposix\nsystem\n(S'touch executed'\ntR."


def file_cases() -> list[Case]:
    """Each kind of thing once as .onnx and once as .pt2."""
    return [case for suffix in ("onnx", "pt2") for case in _cases(suffix)]


def _cases(suffix: str) -> list[Case]:
    file = f"model.{suffix}"
    contents: dict[str, bytes] = {
        "empty": b"",
        "one zero": b"\0",
        "zeros": bytes(10_000),
        "newline": b"\n",
        "lfs pointer": LFS,
        "text": b"this is not a model\n" * 50,
        "html": b"<!doctype html><title>404</title>",
        "json": b'{"graph": {"node": []}}',
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "elf": b"\x7fELF\x02\x01\x01" + bytes(100),
        "gzip": gzip.compress(b"model" * 100, mtime=0),
        "bzip2": bz2.compress(b"model" * 100),
        "xz": lzma.compress(b"model" * 100),
        "tar": _tar(),
        "pickle": PICKLE,
        "pickle of protocol 0": OLD_PICKLE,
        "torch.save of a module": _torch_zip(PICKLE),
        "torch.save of a dictionary": _torch_zip(b"\x80\x02}q\x00."),
        "torch.jit.save": _torch_zip(PICKLE, "code/m.py", "constants.pkl"),
        "zip of nothing": _zip({}),
        "zip of zips of zips": _zip({"a.zip": _zip({"b.zip": _zip({"model.onnx": b"x"})})}),
        "end of a zip": _zip({"a": b"b"})[-22:],
    }
    for seed in range(6):
        contents[f"noise {seed}"] = random.Random(seed).randbytes(200 * seed + 37)
    cases = [content(f"{suffix}: {name}", file, data) for name, data in contents.items()]
    for name, make in {
        "folder": Path.mkdir,
        "folder that holds nothing but itself": _folder_of_itself,
        "fifo": os.mkfifo,
        "link to nothing": lambda path: path.symlink_to("nothing"),
        "link to itself": lambda path: path.symlink_to(path.name),
        "link to a device": lambda path: path.symlink_to("/dev/zero"),
        "link to a file that is no model": lambda path: path.symlink_to("/etc/hostname"),
        "no such file": lambda path: None,
    }.items():
        cases.append(Case(f"{suffix}: {name}", file, make))
    return cases


def _folder_of_itself(path: Path) -> None:
    path.mkdir()
    (path / f"again{path.suffix}").symlink_to(path, target_is_directory=True)


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../model.onnx"), io.BytesIO())
    return stream.getvalue()


def _torch_zip(pickle: bytes, *others: str) -> bytes:
    return _zip({"m/data.pkl": pickle, "m/version": b"3\n"} | {f"m/{name}": b"" for name in others})


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()
