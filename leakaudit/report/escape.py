"""Makes text from a model file fit to be shown: nothing in it can steer a terminal or a CI log."""

from __future__ import annotations

import re
import unicodedata

# Control (C0, C1, DEL), format (bidi overrides and isolates, zero-width, tags), lone surrogates,
# line and paragraph separators, private use, unassigned.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})
# Letters by category, yet drawn as nothing: Hangul fillers, braille blank, variation selectors.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0") | {chr(c) for c in range(0xFE00, 0xFE10)}
# GitHub reads `::error ...::` at the start of a line, `##[error]` anywhere; Azure and TeamCity
# `##vso[...]`, `##teamcity[...]`. `torch::nn` in the middle of a word stays as it is.
_COMMAND = re.compile(r"(?<![\w.>)]):(?=:)|#(?=#[\w-]*\[)")
_LINE_COMMAND = re.compile(r"^(\s*):(?=:)")


def plain(text: str) -> str:
    r"""Return `text` on one line with everything invisible written out, e.g. `\x1b`.

    Also breaks what a CI system would take for a command. Printable text of any script stays. The
    result may be cut anywhere: no piece of it is a control sequence.
    """
    return _COMMAND.sub(lambda match: _written_out(match[0]), "".join(map(_visible, text)))


def not_a_command(line: str) -> str:
    r"""Return a finished line of output that no CI system reads as a command.

    Wrapping can bring a `::` that `plain` left within a word to the start of a line.
    """
    return _LINE_COMMAND.sub(lambda match: match[1] + _written_out(":"), line)


def shorten(text: str, limit: int = 60) -> str:
    """Return `text` with its middle replaced by an ellipsis where it is longer than `limit`.

    The middle, because both ends of a layer's name tell it from its neighbours.
    """
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"


def without_surrogates(text: str) -> str:
    r"""Return `text` with lone surrogates written out (`\udc80`), so that it can be encoded.

    They come from file names that are not UTF-8, and no JSON parser has to accept them.
    """
    return "".join(_written_out(c) if unicodedata.category(c) == "Cs" else c for c in text)


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in _INVISIBLE or character in _BLANK
    return _written_out(character) if hidden else character


def _written_out(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
