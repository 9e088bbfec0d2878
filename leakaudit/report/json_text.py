"""JSON values, and how every format made of them is written."""

from __future__ import annotations

import json
import math

from leakaudit.report.escape import without_surrogates

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def dump(document: Json) -> str:
    r"""Return `document` as ASCII with two spaces of indent, ending in one newline.

    `<` is escaped so that the text may stand in a script element of a page, `##[` so that a CI log
    takes no command from it.
    """
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=True)
    # Outside strings JSON has neither character, so this cannot change the structure.
    return text.replace("<", "\\u003c").replace("##", "#\\u0023") + "\n"


def picked(source: object, *names: str) -> dict[str, Json]:
    """Return these attributes by their names, which are the keys of the document, in this order.

    A document names what it holds, so that an attribute that is added stays out of it.

    Raises:
        TypeError: One is not a JSON value.
    """
    return {name: plain_value(getattr(source, name)) for name in names}


def plain_value(value: object) -> Json:
    """Return `value` as JSON that every parser accepts.

    NaN and infinity become null, lone surrogates visible text.

    Raises:
        TypeError: It is not a JSON value.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list | tuple):
        return [plain_value(entry) for entry in value]
    if isinstance(value, dict):
        return {without_surrogates(str(key)): plain_value(entry) for key, entry in value.items()}
    raise TypeError(f"{type(value).__name__} is not a JSON value")
