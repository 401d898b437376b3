"""Product pictures found again by their reference, and contact sheets of them: a PNG or a page of one file.

A reference is a path below the catalogue's image root, or says where in a file a picture is kept: `FILE#row=N` in
Parquet, `FILE#byte=N` in a tar, `FILE#byte=N&row=M` in Arrow.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image, ImageDraw, ImageFont

from product_retrieval.catalog import arrow_files, parquet_rows, webdataset
from product_retrieval.catalog.contained import UnreadableImageError, open_below, read_file_below
from product_retrieval.errors import ArtifactError
from product_retrieval.images import decode

INSIDE = re.compile(r"(?P<file>.+)#(?:byte=(?P<byte>\d{1,18}))?&?(?:row=(?P<row>\d{1,18}))?", re.DOTALL)
TILE_PX, CAPTION_PX, MARGIN_PX = 160, 52, 10
FONT_PX = 13
PICTURE_BATCH_ROWS = 16
"""Rows of a Parquet file held at once while one picture is looked for."""
CAPTION_CHARS = 24
INK, MISSING_INK = (40, 40, 40), (150, 150, 150)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a sheet with its caption."""

    image: bytes | None
    title: str
    note: str


def load_picture(
    image_root: str, reference: str | None, *, image_column: str = "image", catalog_root: str | None = None
) -> bytes | None:
    """Return the bytes of a product's picture, or None where it has none or it is no longer there.

    Args:
        image_root: from the catalogue's record in the manifest.
        reference: the product's `image_ref`.
        image_column: column of pictures that are kept inside Parquet or Arrow.
        catalog_root: folder of the catalogue's own files, where it is not the image root.
    """
    if not reference:
        return None
    inside = INSIDE.fullmatch(reference)
    try:
        if inside and (inside["byte"] or inside["row"]):
            return _picture_inside(catalog_root or image_root, inside, image_column)
        return read_file_below(image_root, reference)
    except (UnreadableImageError, ArtifactError, OSError, EOFError, KeyError, pa.ArrowException):
        return None


def contact_sheet_png(heading: str, tiles: Sequence[Tile], *, columns: int = 5) -> bytes:
    """Draw tiles in rows under a heading.

    Returns:
        Bytes of a PNG.
    """
    rows = -(-len(tiles) // columns)
    step_x, step_y = TILE_PX + MARGIN_PX, TILE_PX + CAPTION_PX + MARGIN_PX
    sheet = Image.new("RGB", (columns * step_x + MARGIN_PX, rows * step_y + 4 * MARGIN_PX), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(FONT_PX)
    draw.text((MARGIN_PX, MARGIN_PX), heading, fill=INK, font=font)
    for number, tile in enumerate(tiles):
        left = MARGIN_PX + (number % columns) * step_x
        top = 4 * MARGIN_PX + (number // columns) * step_y
        _draw_picture(sheet, draw, tile.image, left, top)
        draw.text((left, top + TILE_PX + 4), _shortened(tile.title), fill=INK, font=font)
        draw.text((left, top + TILE_PX + 22), _shortened(tile.note), fill=MISSING_INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def contact_sheet_html(heading: str, tiles: Sequence[Tile]) -> str:
    """Return the same sheet as one page that needs nothing else; all text is escaped."""
    figures = []
    for tile in tiles:
        picture = "<div class=none>no picture</div>"
        if (png := _as_png(tile.image)) is not None:
            picture = f'<img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        caption = f"<b>{html.escape(tile.title)}</b><br>{html.escape(tile.note)}"
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<title>{html.escape(heading)}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(heading)}</h1><main>{''.join(figures)}</main></html>\n"
    )


STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#222;background:#fff}h1{font-size:1.2rem}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem}figure{margin:0}"
    "img,.none{width:100%;aspect-ratio:1;object-fit:contain;border:1px solid #ddd;border-radius:6px}"
    ".none{display:grid;place-items:center;color:#999}figcaption{font-size:.85rem}"
)


def write_sheet(path: str, heading: str, tiles: Sequence[Tile]) -> None:
    """Write a contact sheet; the path's suffix decides between `.png` and `.html`.

    Raises:
        ValueError: another suffix.
        OSError: the file cannot be written.
    """
    target = Path(path)
    if target.suffix == ".png":
        data = contact_sheet_png(heading, tiles)
    elif target.suffix == ".html":
        data = contact_sheet_html(heading, tiles).encode()
    else:
        raise ValueError(f"{path}: a contact sheet is a .png or a .html file")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _picture_inside(root: str, inside: re.Match[str], column: str) -> bytes | None:
    byte, row = (None if number is None else int(number) for number in (inside["byte"], inside["row"]))
    with open_below(root, inside["file"]) as file:
        if row is None:
            return webdataset.read_member(file, byte or 0)
        if byte is not None:
            cell = arrow_files.read_cell(file, byte, row, column)
        else:
            rows = parquet_rows.read_rows(file, row, row + 1, columns=[column], batch_rows=PICTURE_BATCH_ROWS)
            cell = rows.column(0)[0].as_py() if len(rows) else None
    cell = cell.get("bytes") if isinstance(cell, dict) else cell
    return cell if isinstance(cell, bytes) else None


def _draw_picture(sheet: Image.Image, draw: ImageDraw.ImageDraw, data: bytes | None, left: int, top: int) -> None:
    box = (left, top, left + TILE_PX, top + TILE_PX)
    draw.rectangle(box, outline=(225, 225, 225))
    pixels = decode(data).pixels if data else None
    if pixels is None:
        draw.text((left + 40, top + TILE_PX // 2 - 8), "no picture", fill=MISSING_INK)
        return
    picture = Image.fromarray(pixels)
    picture.thumbnail((TILE_PX - 4, TILE_PX - 4), Image.Resampling.LANCZOS)
    sheet.paste(picture, (left + (TILE_PX - picture.width) // 2, top + (TILE_PX - picture.height) // 2))


def _as_png(data: bytes | None) -> bytes | None:
    """Return a picture re-encoded, so that nothing but pixels of untrusted bytes reaches the page."""
    pixels = decode(data).pixels if data else None
    if pixels is None:
        return None
    picture = Image.fromarray(pixels)
    picture.thumbnail((2 * TILE_PX, 2 * TILE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _shortened(text: str) -> str:
    return text if len(text) <= CAPTION_CHARS else text[: CAPTION_CHARS - 1] + "\u2026"
