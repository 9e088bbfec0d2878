"""Decisions drawn from bytes: the same bytes always give the same mutation, for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

INTERESTING = (
    *(0, 1, -1, 2, 3, 7, 32, 33, 64, 255, 1023, 65536, 2**31 - 1, 2**31, 2**32, 2**32 + 3),
    *(2**40, 2**48, 2**62, 2**63 - 1, -(2**31), -(2**63), -2, 1000, 17),
)
TEXTS = (
    "",
    "x",
    "../../etc/passwd",
    "/dev/zero",
    "a\0b",
    "\x1b[31mred",
    "<b>&amp;",
    "::error::x",
    "a\nb",
    "\u202e",
    "|`*",
    "9" * 400,
    "__import__('os')",
    "{X}",
)


class Choices:
    """Reads decisions from bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def left(self) -> int:
        """How many bytes are unread."""
        return max(0, len(self._data) - self._place)

    def below(self, count: int) -> int:
        """A number from 0 to count - 1."""
        size = 1 if count <= 256 else 2
        piece = self._data[self._place : self._place + size]
        self._place += size
        return int.from_bytes(piece, "little") % max(count, 1)

    def one_of(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.below(len(options))]

    def integer(self) -> int:
        """A number that code tends to get wrong, or a small one."""
        return self.one_of(INTERESTING) if self.below(3) else self.below(256)

    def text(self, known: Sequence[str]) -> str:
        """A text that the file holds already, or one that should not be in any."""
        return self.one_of(known) if known and self.below(4) else self.one_of(TEXTS)

    def raw(self, count: int) -> bytes:
        """Bytes as they are."""
        piece = self._data[self._place : self._place + count]
        self._place += count
        return piece
