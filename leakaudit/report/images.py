"""Pictures of what an attacker would get back: original, reconstruction, difference."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leakaudit.errors import UsageError
from leakaudit.findings import ImageReport

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

SMALLEST_SIDE = 256
_MARK = ("Software", "leakaudit")
_NOT_A_NUMBER = (255, 0, 255)  # magenta, rare in photographs
_ONE_GREY_LEVEL = 1 / 255
_LONGEST_STEM = 100

Pixels = NDArray[np.float64]


def write_images(
    folder: Path, stem: str, original: NDArray[np.floating], reconstruction: NDArray[np.floating]
) -> ImageReport:
    """Write `<stem>-original.png`, `<stem>-reconstruction.png` and `<stem>-difference.png`.

    Values outside [0, 1] are clipped. The difference is |original - reconstruction|, scaled so that
    its largest value is white, unless that is below one grey level: then it is left as it is, which
    is black. A value that is not finite becomes a magenta pixel. Small pictures are enlarged by a
    whole factor, each pixel a square, until the longer side has at least 256 pixels.

    Args:
        folder: Made where it does not exist.
        stem: Untrusted; all but letters, digits, `.`, `_` and `-` become `_`. Two stems that
            differ only in such characters give the same files.
        original: (N, H, W) with N 1 or 3, or (H, W); values in [0, 1].
        reconstruction: The same shape.

    Returns:
        The paths written, `folder` included.

    Raises:
        UsageError: Pillow is missing, the folder cannot be written to, or a file of that name
            exists that leakaudit did not write. In the last case nothing is written.
        ValueError: The arrays are not pictures of one shape.
    """
    first, second = _pixels(original), _pixels(reconstruction)
    if first.shape != second.shape:
        raise ValueError(f"pictures of different shapes: {original.shape}, {reconstruction.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(first - second)
    largest = np.max(difference, initial=0.0, where=np.isfinite(difference))
    if largest >= _ONE_GREY_LEVEL:
        difference = difference / largest

    base = safe_stem(stem)
    pictures = {
        folder / f"{base}-original.png": first,
        folder / f"{base}-reconstruction.png": second,
        folder / f"{base}-difference.png": difference,
    }
    encoded = {path: _png(pixels) for path, pixels in pictures.items()}
    for path in encoded:
        _refuse_foreign(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in encoded.items():
            path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot write pictures to {folder}: {error.strerror}") from error
    return ImageReport(*map(str, encoded))


def safe_stem(stem: str) -> str:
    """Return `stem` as a harmless file name: no separator, no leading dot, never empty."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip(".")
    return cleaned[:_LONGEST_STEM] or "model"


def _pixels(array: NDArray[np.floating]) -> Pixels:
    """Return the picture as (H, W, N) with N 1 or 3."""
    pixels = np.asarray(array, dtype=np.float64)
    if pixels.ndim == 2:
        pixels = pixels[np.newaxis]
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"not a picture of 1 or 3 channels: shape {np.shape(array)}")
    return np.moveaxis(pixels, 0, -1)


def _png(pixels: Pixels) -> bytes:
    """Encode (H, W, N) in [0, 1], enlarged and marked as ours."""
    image_module, info_class = _pillow()
    broken = ~np.isfinite(pixels).all(axis=-1)  # (H, W)
    levels = np.rint(np.clip(np.nan_to_num(pixels), 0, 1) * 255).astype(np.uint8)
    if broken.any():
        levels = np.broadcast_to(levels, (*levels.shape[:2], 3)).copy()
        levels[broken] = _NOT_A_NUMBER
    factor = max(1, -(-SMALLEST_SIDE // max(levels.shape[:2])))
    levels = levels.repeat(factor, axis=0).repeat(factor, axis=1)
    picture = image_module.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    info = info_class()
    info.add_text(*_MARK)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def _refuse_foreign(path: Path) -> None:
    """Raise UsageError if a file stands there that leakaudit did not write."""
    if not path.is_symlink() and not path.exists():
        return
    # A link could lead out of the folder, so it is never followed.
    if path.is_symlink() or not path.is_file() or not _is_ours(path):
        raise UsageError(
            f"{path} exists and was not written by leakaudit; remove it or name another folder"
        )


def _is_ours(path: Path) -> bool:
    image_module, _ = _pillow()
    try:
        with image_module.open(path, formats=("PNG",)) as picture:
            return bool(picture.info.get(_MARK[0]) == _MARK[1])
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError):
        return False  # not a PNG, or a damaged one


def _pillow() -> tuple[ModuleType, type[PngInfo]]:
    """Return the module PIL.Image and the class PngInfo; Pillow comes with an extra."""
    try:
        from PIL import Image, PngImagePlugin
    except ImportError as error:
        raise UsageError(
            "pictures need Pillow; install it with: pip install 'leakaudit[confirm]'"
        ) from error
    return Image, PngImagePlugin.PngInfo
