"""The training set as every tool writes it: one Parquet row per picture, a few thousand rows per part."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE_PX = 72
ROWS_PER_PART = 4_000

SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("view", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("category", pa.string()),
        ("color", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("names", pa.list_(pa.struct([("language", pa.string()), ("name", pa.string())]))),
        ("group_id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("image", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPicture:
    """One picture with the words that belong to it; the fields are the columns of the training set."""

    product_id: str
    title: str
    group_id: str
    source: str
    image: bytes
    view: str = "drawing"
    description: str = ""
    category: str = ""
    color: str | None = None
    tags: list[str] = field(default_factory=list)
    names: list[dict[str, str]] = field(default_factory=list)
    split: str = "train"


def square_on_background(picture: Image.Image, side_px: int, background: tuple[int, int, int]) -> Image.Image:
    """Fit a picture, transparent or not, into the middle of a plain square.

    Args:
        picture: any mode and size; it is reduced to fit and never enlarged.
        side_px: width and height of the result.
        background: red, green and blue of the plain colour, each 0 to 255.

    Returns:
        An opaque RGB picture of `side_px` by `side_px`.
    """
    fitted = picture.convert("RGBA")
    fitted.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side_px, side_px), background)
    square.paste(fitted, ((side_px - fitted.width) // 2, (side_px - fitted.height) // 2), fitted)
    return square


def webp_bytes(picture: Image.Image, quality: int) -> bytes:
    """Compress an RGB picture as WebP; `quality` runs from 0 to 100."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def write_parts(pictures: Iterable[TrainingPicture], folder: Path, prefix: str) -> int:
    """Write pictures as `prefix-00000.parquet` and so on, in the order given.

    Args:
        pictures: read once, so a generator keeps memory bounded.
        folder: made if missing; older parts with the same prefix are removed.
        prefix: first half of the file names, for example "icons".

    Returns:
        Number of pictures written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"{prefix}-*.parquet"):
        stale.unlink()
    source = iter(pictures)
    num_pictures = 0
    while batch := list(islice(source, ROWS_PER_PART)):
        rows = [{name: getattr(picture, name) for name in SCHEMA.names} for picture in batch]
        part = folder / f"{prefix}-{num_pictures // ROWS_PER_PART:05d}.parquet"
        write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part)
        num_pictures += len(rows)
    return num_pictures


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table with zstd, leaving an already compressed `image` column as it is."""
    columns = [leaf for field in table.schema if field.name != "image" for leaf in _leaf_paths(field.name, field.type)]
    compression = dict.fromkeys(columns, "zstd") | {"image": "none"}
    pq.write_table(table, path, compression=compression, use_dictionary=columns, write_statistics=columns)


def _leaf_paths(path: str, kind: pa.DataType) -> list[str]:
    """Return what Parquet calls a column's parts: options given for `tags` do not reach `tags.list.element`."""
    if pa.types.is_list(kind):
        return _leaf_paths(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for part in kind for leaf in _leaf_paths(f"{path}.{part.name}", part.type)]
    return [path]
