"""JSON values, and how every format made of them is written."""

from __future__ import annotations

import json

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def dump(document: Json) -> str:
    r"""Return `document` as ASCII with two spaces of indent, ending in one newline.

    `<` is escaped so that the text may stand in a script element of a page, `##[` so that a CI log
    takes no command from it.
    """
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=True)
    # Outside strings JSON has neither character, so this cannot change the structure.
    return text.replace("<", "\\u003c").replace("##", "#\\u0023") + "\n"
