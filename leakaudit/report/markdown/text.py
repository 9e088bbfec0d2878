"""Makes text fit for Markdown as code hosts read it: CommonMark, tables, and bare links."""

from __future__ import annotations

import html
import re

from leakaudit.report.escape import plain, shorten

_LONGEST_NAME = 120
_MARKUP = re.compile(r"[\\`*_\[\]<>~#&$]")
# Hosts make links, mentions and references of bare text, escaped or not; an empty element parts it.
_BARE = re.compile(r"(?<=:)(?=//)|(?<=[Ww]{3})(?=\.)|(?<=[@#!$%&~^])(?=\w)|(?<=[Gg][Hh]-)(?=\d)")
_PARTING = "<span></span>"
_BLOCK = re.compile(r"^(\s*)(\d{1,9}(?=[.)])|(?=[-+=]))")


def text(untrusted: str) -> str:
    """Return `untrusted` as one line of prose in which nothing is markup, fit for a table's cell.

    Ends and starts without a space, so that it can stand at the start of a line.
    """
    return _block(_inline(untrusted).strip())


def code(untrusted: str) -> str:
    """Return `untrusted` as code, in which nothing is markup, fit for a table's cell."""
    shown = shorten(plain(untrusted), _LONGEST_NAME)
    if not shown.strip():
        return "(unnamed)"
    if "|" in shown:
        # Within backticks a table's row would be split at it, and no escape for it is universal.
        return f"<code>{_inline(shown)}</code>"
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    padding = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def rich(prose: str) -> str:
    """Return prose in which backticks mark code, and nothing else is markup."""
    pieces = re.split(r"`([^`]*[^`\s][^`]*)`", plain(prose).strip())
    return _block(
        "".join(code(piece) if odd % 2 else _inline(piece) for odd, piece in enumerate(pieces))
    )


def in_html(untrusted: str) -> str:
    """Return `untrusted` as code for a line of HTML, which Markdown does not look into."""
    shown = shorten(plain(untrusted), _LONGEST_NAME)
    return f"<code>{html.escape(shown)}</code>" if shown.strip() else "(unnamed)"


def _inline(untrusted: str) -> str:
    escaped = _MARKUP.sub(lambda match: f"\\{match[0]}", plain(untrusted))
    return _BARE.sub(_PARTING, escaped).replace("|", "&#124;")


def _block(line: str) -> str:
    """Escape what would make a list or a heading of the line."""
    return _BLOCK.sub(lambda match: f"{match[1]}{match[2]}\\", line)
