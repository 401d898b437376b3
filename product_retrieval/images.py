"""Untrusted picture bytes to RGB, within limits: a bad picture is a reason, never an exception or a crash."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

Box = tuple[float, float, float, float]
"""Left, top, right and bottom edge in pixels."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What shops publish. Other decoders of Pillow stay closed: each is more code that untrusted bytes can reach."""
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
BACKGROUND = (255, 255, 255)
"""Transparent pictures are shown on white, as in a shop."""
# EXIF orientations that bring the stored right edge to the left, the stored bottom edge to the top, and those that
# swap the axes. Source: EXIF 2.32, section 4.6.4, tag 0x0112.
MIRRORED_ACROSS, MIRRORED_DOWN, TRANSPOSED = (2, 3, 6, 7), (3, 4, 7, 8), (5, 6, 7, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """How large a picture may be before it is refused."""

    max_pixels: int = 64_000_000
    """Width times height, checked before any pixel is decoded."""
    min_side: int = 2
    """Shorter side in pixels; one-pixel pictures are trackers, not products."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, or the reason why there is none."""

    pixels: NDArray[np.uint8] | None
    """uint8 [H, W, 3], RGB."""
    reason: str | None = None
    """Code: image_empty, image_not_decodable, image_too_large or image_too_small."""
    detail: str = ""
    box: Box | None = None
    """Of a JPEG decoded at reduced size: the part of the pixels that it fills, whose edges may lie within a pixel."""


def decode(data: bytes, limits: ImageLimits | None = None, *, min_side: int | None = None) -> Decoded:
    """Decode a picture to RGB, upright, on white.

    Args:
        data: bytes of a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF file.
        limits: sizes beyond which it is refused.
        min_side: a JPEG is decoded at a half, a quarter or an eighth of its size where its shorter side keeps at least
            so many pixels, which takes a fraction of the time; None decodes every pixel.

    Returns:
        uint8 [H, W, 3], or the reason why not.
    """
    limits = limits or ImageLimits()
    if not data:
        return Decoded(None, "image_empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata; limits decide here
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > limits.max_pixels:
                    return Decoded(None, "image_too_large", f"{width} x {height} pixels")
                if min(width, height) < limits.min_side:
                    return Decoded(None, "image_too_small", f"{width} x {height} pixels")
                box = _reduce(image, min_side)
                ImageOps.exif_transpose(image, in_place=True)
                return Decoded(np.asarray(_to_rgb(image)), box=box)
    except (
        Image.DecompressionBombError
    ) as error:  # Pillow's own limit, well above ours, speaks before the size is known
        return Decoded(None, "image_too_large", str(error)[:200])
    except Exception as error:  # noqa: BLE001 - decoders of untrusted bytes raise many types; each means the same to the caller
        return Decoded(None, "image_not_decodable", _detail(error))


def _reduce(image: Image.Image, min_side: int | None) -> Box | None:
    """Have a JPEG that was not read yet decoded at reduced size; return what its upright picture will fill of it."""
    width, height = image.size
    drafted = image.draft(None, (min_side, min_side)) if min_side else None
    if drafted is None or image.size == (width, height):
        return None
    # A reduced JPEG is rounded up to whole pixels on its right and its bottom, before it is turned upright.
    _, (_, _, filled_across, filled_down) = drafted
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    across, down = (0.0, filled_across), (0.0, filled_down)
    if orientation in TRANSPOSED:
        across, down = down, across
    upright = image.size[::-1] if orientation in TRANSPOSED else image.size
    if orientation in MIRRORED_ACROSS:
        across = (upright[0] - across[1], float(upright[0]))
    if orientation in MIRRORED_DOWN:
        down = (upright[1] - down[1], float(upright[1]))
    return across[0], down[0], across[1], down[1]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16-bit grey to 255 instead of scaling it.
        return Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        on_white = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        return Image.alpha_composite(on_white, layered).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _detail(error: Exception) -> str:
    """Return an error's text without the addresses of objects, which would differ from run to run."""
    return MEMORY_ADDRESS.sub("", f"{type(error).__name__}: {error}")[:200]
