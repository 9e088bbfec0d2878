"""Export archives whose zip is broken, or set as a trap."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from corpus import Case, content
from corpus_pt2 import BASE, CONFIG, FILE, MODEL, archive, members

TRUNCATIONS = 25
FLIPS = 30


def zip_cases() -> list[Case]:
    """Truncations, bit flips, names that lead out, bombs."""
    good = members()
    found = {**_names(good), **_bombs(good), **_layouts(good)}
    cases = [content(f"pt2: {name}", FILE, data) for name, data in [*_damaged(), *found.items()]]
    return cases + [_large(good, *bomb) for bomb in _LARGE]


# Packed when they are needed: that takes a moment.
_LARGE = (
    ("a program of 100 MB of blanks", MODEL, zipfile.ZIP_DEFLATED),
    ("a configuration of 100 MB of blanks", CONFIG, zipfile.ZIP_DEFLATED),
    ("a weight of 100 MB of blanks", "data/weights/weight_9", zipfile.ZIP_DEFLATED),
    ("a bzip2 bomb", MODEL, zipfile.ZIP_BZIP2),
)


def _large(good: dict[str, bytes], name: str, member: str, compression: int) -> Case:
    def make(path: Path) -> None:
        blank = b" " * 100_000_000 + good.get(member, b"")
        path.write_bytes(archive({**good, member: blank}, compression))

    return Case(f"pt2: {name}", FILE, make)


def _damaged() -> Iterator[tuple[str, bytes]]:
    data = BASE.read_bytes()
    for number in range(1, TRUNCATIONS + 1):
        length = len(data) * number // (TRUNCATIONS + 1)
        yield f"truncated to {length} bytes", data[:length]
    rng = random.Random(7)
    found = 0
    while found < FLIPS:
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        if is_refused(bytes(changed)):
            found += 1
            yield f"{found}: bit {bit} of byte {place} flipped", bytes(changed)


def is_refused(data: bytes) -> bool:
    """Whether Python's zipfile finds the archive or one of its documents damaged.

    The numbers of the weights are left out: a static audit reads none of them.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            names = {name.partition("/")[2]: name for name in opened.namelist()}
            for needed in (MODEL, CONFIG, "archive_format", "byteorder"):
                opened.read(names[needed])
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, NotImplementedError, RuntimeError):
        return True
    return False


def _names(good: dict[str, bytes]) -> dict[str, bytes]:
    found = {}
    for name in ("../evil", "/etc/evil", "..\\evil", "C:\\evil", "a/../../evil", "\\\\host\\evil"):
        stream = io.BytesIO(archive(good))
        with zipfile.ZipFile(stream, "a") as opened:
            opened.writestr(zipfile.ZipInfo(name), b"evil")
        found[f"a member called {name!r}"] = stream.getvalue()
    whole = archive({**good, "data/nulXname": b""})
    found["a member with a NUL in its name"] = whole.replace(b"nulXname", b"nul\0name")
    stream = io.BytesIO(archive({**good, "models/modem.json": good[MODEL]}))
    found["a member twice"] = stream.getvalue().replace(b"modem.json", b"model.json")
    encrypted = bytearray(archive(good))
    for place in _directory(encrypted):
        encrypted[place + 8] |= 1
    found["encrypted members"] = bytes(encrypted)
    method = bytearray(archive(good))
    for place in _directory(method):
        method[place + 10] = 99
    found["members packed by an unknown method"] = bytes(method)
    return found


def _directory(data: bytes) -> Iterator[int]:
    place = data.find(b"PK\1\2")
    while place >= 0:
        yield place
        place = data.find(b"PK\1\2", place + 1)


def _bombs(good: dict[str, bytes]) -> dict[str, bytes]:
    deflated = zipfile.ZIP_DEFLATED
    lying = bytearray(archive(good, deflated))
    for place in _directory(lying):
        lying[place + 24 : place + 28] = struct.pack("<L", 2**32 - 2)
    overlapping = bytearray(archive(good))
    for place in _directory(overlapping):
        overlapping[place + 42 : place + 46] = struct.pack("<L", 0)
    long = bytearray(archive(good))
    end = long.rfind(b"PK\5\6")
    long[end + 12 : end + 16] = struct.pack("<L", 2**32 - 2)
    return {
        "members that claim 4 GB": bytes(lying),
        "members that lie on each other": bytes(overlapping),
        "a directory that claims 4 GB": bytes(long),
        "a directory of 600000 members": _empty_members(600_000),
    }


def _empty_members(count: int) -> bytes:
    """A zip with nothing but a directory, every entry of it the first member."""
    local = b"PK\3\4" + bytes(26)
    entry = b"PK\1\2" + bytes(42)
    directory = entry * count
    number = min(count, 65535)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, number, number, len(directory), len(local), 0)
    return local + directory + end


def _layouts(good: dict[str, bytes]) -> dict[str, bytes]:
    def without(name: str) -> bytes:
        return archive({key: data for key, data in good.items() if key != name})

    second = io.BytesIO(archive(good))
    with zipfile.ZipFile(second, "a") as opened:
        opened.writestr("other/archive_format", "pt2")
    return {
        "an archive in an archive": archive({"model.pt2": archive(good)}),
        "an archive in the place of the program": archive({**good, MODEL: archive(good)}),
        "no program": without(MODEL),
        "no format": without("archive_format"),
        "another format": archive({**good, "archive_format": b"pt3"}),
        "a format of noise": archive({**good, "archive_format": bytes(range(256))}),
        "an impossible byte order": archive({**good, "byteorder": b"middle"}),
        "two folders with a format": second.getvalue(),
        "two programs of other names": archive(
            {**{k: v for k, v in good.items() if k != MODEL}, "models/a.json": b"{}"}
            | {"models/b.json": b"{}"}
        ),
        "something before the zip": b"PK\3\4 something" + archive(good),
    }
