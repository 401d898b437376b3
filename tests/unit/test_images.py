"""Untrusted picture bytes become RGB pixels or a reason, and never an exception."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from product_retrieval.images import ImageLimits, decode

Maker = Callable[..., bytes]
RED, WHITE = [255, 0, 0], [255, 255, 255]


def saved(image: Image.Image, image_format: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **how)
    return buffer.getvalue()


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    decoded = decode(data)
    assert decoded.pixels is not None, decoded
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.ndim == 3
    return decoded.pixels


def one_bit_png(side: int) -> bytes:
    """Return a black PNG of one bit a pixel: some ten kilobytes for 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + -(-side // 8))
    packed = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_no_bytes_are_an_empty_image() -> None:
    assert decode(b"").reason == "image_empty"


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"<!doctype html><html><body>404 Not Found</body></html>",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
    ],
)
def test_bytes_that_are_no_picture_are_not_decodable(data: bytes) -> None:
    decoded = decode(data)
    assert (decoded.pixels, decoded.reason) == (None, "image_not_decodable")
    assert decoded.detail


def test_detail_is_the_same_every_time() -> None:
    first, second = decode(b"<html>"), decode(b"<html>")
    assert first.detail == second.detail


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_jpeg_is_not_decodable(jpeg: Maker, share: float) -> None:
    data = jpeg()
    assert decode(data[: int(len(data) * share)]).reason == "image_not_decodable"


def test_damaged_png_is_not_decodable(png: Maker) -> None:
    data = bytearray(png((1, 2, 3), (64, 64)))
    data[data.index(b"IDAT") + 8] ^= 0xFF
    assert decode(bytes(data)).reason == "image_not_decodable"


@pytest.mark.parametrize("image_format", ["PDF", "EPS", "PCX", "TGA", "PPM", "ICO"])
def test_formats_that_shops_do_not_publish_stay_closed(image_format: str) -> None:
    assert decode(saved(Image.new("RGB", (16, 16)), image_format)).reason == "image_not_decodable"


def test_decompression_bomb_is_too_large_and_not_unpacked() -> None:
    bomb = one_bit_png(30_000)
    assert len(bomb) < 1_000_000
    decoded = decode(bomb)
    assert (decoded.pixels, decoded.reason) == (None, "image_too_large")
    assert "900000000 pixels" in decoded.detail


def test_limit_of_pixels_is_inclusive(png: Maker) -> None:
    data = png(size=(10, 5))
    assert decode(data, ImageLimits(max_pixels=50)).reason is None
    assert decode(data, ImageLimits(max_pixels=49)).reason == "image_too_large"


@pytest.mark.parametrize(
    ("size", "reason"), [((1, 1), "image_too_small"), ((500, 1), "image_too_small"), ((2, 2), None)]
)
def test_picture_of_one_pixel_is_too_small(png: Maker, size: tuple[int, int], reason: str | None) -> None:
    assert decode(png(size=size)).reason == reason


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_formats_of_shops_give_their_pixels_as_rgb(image_format: str) -> None:
    how = {"lossless": True} if image_format == "WEBP" else {}
    image = Image.new("RGB", (3, 2), (255, 0, 0))
    image.putpixel((2, 1), (0, 0, 255))
    pixels = pixels_of(saved(image, image_format, **how))
    assert pixels.tolist() == [[RED, RED, RED], [RED, RED, [0, 0, 255]]]


def test_jpeg_is_decoded_to_about_its_colour() -> None:
    pixels = pixels_of(saved(Image.new("RGB", (16, 8), (200, 40, 90)), "JPEG"))
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels.astype(int) - [200, 40, 90]).max() <= 3


def test_cmyk_jpeg_becomes_rgb() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow ink: red
    pixels = pixels_of(saved(image, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - RED).max() <= 8


def test_grey_becomes_three_equal_channels() -> None:
    assert pixels_of(saved(Image.new("L", (2, 2), 77), "PNG")).tolist() == [[[77] * 3] * 2] * 2


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled_not_clipped(image_format: str) -> None:
    values = np.array([[0, 256, 32_768], [65_535, 51_400, 255]], np.uint16)
    pixels = pixels_of(saved(Image.fromarray(values), image_format))
    assert pixels[:, :, 0].tolist() == [[0, 1, 128], [255, 200, 0]]
    assert (pixels == pixels[:, :, :1]).all()


def test_transparent_pixels_are_shown_on_white() -> None:
    image = Image.new("RGBA", (2, 2), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((1, 1), (255, 0, 0, 128))
    pixels = pixels_of(saved(image, "PNG"))
    assert pixels[:, 0].tolist() == [RED, RED]
    assert pixels[0, 1].tolist() == WHITE
    assert pixels[1, 1].tolist() == [255, 127, 127]


def test_palette_with_a_transparent_colour_is_shown_on_white() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 1), 1)
    pixels = pixels_of(saved(image, "PNG", transparency=0))
    assert pixels.tolist() == [[WHITE, WHITE], [WHITE, RED]]


def test_palette_without_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert pixels_of(saved(image, "PNG")).tolist() == [[RED, RED], [RED, RED]]


def test_grey_with_alpha_is_shown_on_white() -> None:
    image = Image.new("LA", (2, 2), (0, 0))
    image.putpixel((0, 0), (0, 255))
    assert pixels_of(saved(image, "PNG")).tolist() == [[[0] * 3, WHITE], [WHITE, WHITE]]


def test_one_bit_picture_is_black_and_white() -> None:
    image = Image.new("1", (2, 2), 1)
    image.putpixel((0, 0), 0)
    assert pixels_of(saved(image, "PNG")).tolist() == [[[0] * 3, WHITE], [WHITE, WHITE]]


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 2)), (6, (0, 1)), (8, (2, 0))])
def test_exif_rotation_is_applied(orientation: int, corner: tuple[int, int]) -> None:
    image = Image.new("RGB", (3, 2), (0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = pixels_of(saved(image, "PNG", exif=exif))
    assert pixels.shape[:2] == ((2, 3) if orientation in (1, 3) else (3, 2))
    assert pixels[corner].tolist() == RED
    assert int(pixels.sum()) == 255


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ((255, 0, 0), (0, 255, 0))]
    for image_format in ("GIF", "WEBP"):
        how = {"lossless": True} if image_format == "WEBP" else {}
        data = saved(frames[0], image_format, save_all=True, append_images=frames[1:], **how)
        assert pixels_of(data)[0, 0].tolist() == RED


def test_suffix_or_claim_does_not_matter_only_the_bytes(png: Maker) -> None:
    assert pixels_of(png((255, 0, 0)) + b"trailing rubbish")[0, 0].tolist() == RED


def test_pixels_can_be_used_after_decoding(png: Maker) -> None:
    pixels = pixels_of(png((1, 2, 3)))
    assert Image.fromarray(pixels).getpixel((0, 0)) == (1, 2, 3)


# JPEGs decoded at reduced size


def gradient(width: int, height: int) -> Image.Image:
    """Return a picture that is smooth and different in each corner."""
    down, across = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    return Image.fromarray((np.stack([across, down, across * down], axis=-1) * 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
    [
        ((640, 480), None, (640, 480)),
        ((640, 480), 481, (640, 480)),
        ((640, 480), 480, (640, 480)),
        ((640, 480), 241, (640, 480)),
        ((640, 480), 240, (320, 240)),
        ((640, 480), 121, (320, 240)),
        ((640, 480), 120, (160, 120)),
        ((640, 480), 60, (80, 60)),
        ((640, 480), 1, (80, 60)),  # an eighth is the smallest
        ((641, 485), 60, (81, 61)),  # rounded up
        ((485, 641), 60, (61, 81)),
        ((17, 2), 1, (9, 1)),
    ],
)
def test_jpeg_is_reduced_as_far_as_its_shorter_side_allows(
    size: tuple[int, int], min_side: int | None, expected: tuple[int, int]
) -> None:
    decoded = decode(saved(gradient(*size), "JPEG"), min_side=min_side)
    assert decoded.pixels is not None
    assert decoded.pixels.shape == (expected[1], expected[0], 3)
    assert (decoded.box is None) == (size == expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_jpeg_is_upright_and_its_box_leaves_out_what_was_rounded_up(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(gradient(403, 254), "JPEG", exif=exif, quality=95)  # an eighth: 50.375 x 31.75
    whole, reduced = decode(data), decode(data, min_side=31)
    assert whole.pixels is not None
    assert reduced.pixels is not None
    assert reduced.box is not None
    left, top, right, bottom = reduced.box
    across, down = (31.75, 50.375) if orientation >= 5 else (50.375, 31.75)
    assert (right - left, bottom - top) == (across, down)
    expected = np.asarray(Image.fromarray(whole.pixels).resize((16, 16)), int)
    found = np.asarray(Image.fromarray(reduced.pixels).resize((16, 16), box=reduced.box), int)
    assert np.abs(found - expected).max() <= 4


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
def test_every_kind_of_jpeg_looks_the_same_when_reduced(mode: str, how: dict[str, Any]) -> None:
    data = saved(gradient(256, 192).convert(mode), "JPEG", quality=90, **how)
    whole, reduced = decode(data), decode(data, min_side=24)
    assert whole.pixels is not None
    assert reduced.pixels is not None
    assert reduced.pixels.shape == (24, 32, 3)
    expected = np.asarray(Image.fromarray(whole.pixels).resize((32, 24), Image.Resampling.BOX), int)
    assert np.abs(reduced.pixels - expected).max() <= 8


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_only_jpeg_is_reduced(image_format: str) -> None:
    decoded = decode(saved(gradient(64, 48), image_format), min_side=6)
    assert decoded.pixels is not None
    assert decoded.pixels.shape == (48, 64, 3)
    assert decoded.box is None


def test_limits_are_those_of_the_picture_as_it_was_sent() -> None:
    data = saved(gradient(200, 100), "JPEG")
    assert decode(data, ImageLimits(max_pixels=20_000), min_side=12).reason is None
    assert decode(data, ImageLimits(max_pixels=19_999), min_side=12).reason == "image_too_large"
    assert decode(data, ImageLimits(min_side=100), min_side=12).reason is None


@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_not_decodable_at_reduced_size_either(share: float, progressive: bool) -> None:
    data = saved(gradient(256, 256), "JPEG", progressive=progressive)
    assert decode(data[: int(len(data) * share)], min_side=32).reason == "image_not_decodable"


def test_reduced_jpeg_has_the_same_bytes_every_time(jpeg: Maker) -> None:
    first, second = (decode(jpeg((300, 200)), min_side=32).pixels for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.shape == (50, 75, 3)
    assert (first == second).all()
