"""The HTML report within a page of others, a notebook's say."""

from __future__ import annotations

from html import escape

HEIGHT = 640  # pixels


def framed(page: str) -> str:
    """Return a frame that shows a whole page, neither's styles reaching the other.

    The sandbox forbids scripts, forms and access to the page around it; the report needs none.
    """
    return (
        f'<iframe title="leakaudit report" sandbox="" srcdoc="{escape(page)}" '
        f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
    )
