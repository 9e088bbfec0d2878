"""Original, reconstruction and difference, embedded in the page."""

from __future__ import annotations

import base64
from pathlib import Path

from leakaudit.findings import Confirmation, ImageReport, ModelReport
from leakaudit.report import wording
from leakaudit.report.html.text import text

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_BYTES = 8 * 1024 * 1024
_KINDS = (
    ("original", "Original", "the example that was put in"),
    ("reconstruction", "Reconstruction", "what the gradients gave back"),
    ("difference", "Difference", "black where the two agree"),
)


def pictures(model: ModelReport, evidence: Confirmation | None) -> str:
    """Return the figures of a model; empty where no picture is there any more."""
    return "\n".join(filter(None, (_row(images, evidence) for images in model.images)))


def _row(images: ImageReport, evidence: Confirmation | None) -> str:
    figures = []
    for kind, title, more in _KINDS:
        uri = _data_uri(Path(getattr(images, kind)))
        if uri:
            figures.append(
                f'<figure><img src="{uri}" alt="{title}: {more}">'
                f"<figcaption><b>{title}</b> {more}</figcaption></figure>"
            )
    if not figures:
        return ""
    told = _figures(evidence) if evidence is not None else ""
    return f'<div class="pictures">{"".join(figures)}</div>{told}'


def _figures(evidence: Confirmation) -> str:
    numbers = {
        "PSNR": None if evidence.psnr is None else wording.decibels(evidence.psnr),
        "MSE": None if evidence.mse is None else wording.short(evidence.mse),
        "SSIM": None if evidence.ssim is None else f"{evidence.ssim:.3f}",
        "Probe": evidence.probe,
    }
    pairs = "".join(
        f"<div><dt>{label}</dt><dd>{text(shown)}</dd></div>"
        for label, shown in numbers.items()
        if shown
    )
    return f'<dl class="numbers">{pairs}</dl>' if pairs else ""


def _data_uri(path: Path) -> str:
    """Return the PNG at `path`; empty where there is none, or something else, or too much."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return ""
        data = path.read_bytes()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return ""
    if not data.startswith(_PNG):
        return ""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
