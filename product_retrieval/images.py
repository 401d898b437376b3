"""Untrusted picture bytes to RGB, within limits: a bad picture is a reason, never an exception or a crash."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What shops publish. Other decoders of Pillow stay closed: each is more code that untrusted bytes can reach."""
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
BACKGROUND = (255, 255, 255)
"""Transparent pictures are shown on white, as in a shop."""


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


def decode(data: bytes, limits: ImageLimits | None = None) -> Decoded:
    """Decode a picture to RGB, upright, on white.

    Args:
        data: bytes of a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF file.
        limits: sizes beyond which it is refused.

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
                return Decoded(np.asarray(_to_rgb(ImageOps.exif_transpose(image))))
    except (
        Image.DecompressionBombError
    ) as error:  # Pillow's own limit, well above ours, speaks before the size is known
        return Decoded(None, "image_too_large", str(error)[:200])
    except Exception as error:  # noqa: BLE001 - decoders of untrusted bytes raise many types; each means the same to the caller
        return Decoded(None, "image_not_decodable", _detail(error))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16-bit grey to 255 instead of scaling it.
        return Image.fromarray((np.asarray(image, np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        on_white = Image.new("RGBA", layered.size, (*BACKGROUND, 255))
        return Image.alpha_composite(on_white, layered).convert("RGB")
    return image.convert("RGB")


def _detail(error: Exception) -> str:
    """Return an error's text without the addresses of objects, which would differ from run to run."""
    return MEMORY_ADDRESS.sub("", f"{type(error).__name__}: {error}")[:200]
