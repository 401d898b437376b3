"""The table of bad products: what becomes of each, all in one catalogue, none at the cost of another."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from product_retrieval.catalog import plan_catalog
from product_retrieval.catalog.products import MAX_TEXT_CHARS
from product_retrieval.embedding_steps import PartPublisher, embed_serially
from product_retrieval.embeddings import read_part
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.images import ImageLimits
from product_retrieval.slice_reader import SliceReader
from product_retrieval.storage import Storage


def saved(image: Image.Image, image_format: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png_of_claimed_size(side: int) -> bytes:
    """Return a PNG of a few bytes whose header claims a picture of side x side."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def pictures() -> dict[str, tuple[bytes | None, str | None]]:
    """Return by name the bytes of a picture, and why it is rejected; None: it is not."""
    jpeg = saved(noise(), "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [noise(), noise().rotate(90)]
    return {
        "fine": (jpeg, None),
        "none": (None, None),
        "empty": (b"", None),  # as none: the text is embedded
        "corrupt": (jpeg[:100] + b"\0" * 200 + jpeg[300:], "image_not_decodable"),
        "truncated": (jpeg[: len(jpeg) // 2], "image_not_decodable"),
        "header only": (jpeg[:20], "image_not_decodable"),
        "junk": (bytes(range(256)), "image_not_decodable"),
        "page": (b"<!doctype html><title>404</title>", "image_not_decodable"),
        "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image_not_decodable"),
        "bomb": (png_of_claimed_size(60_000), "image_too_large"),
        "large bomb": (png_of_claimed_size(2**31 - 1), "image_too_large"),
        "one pixel": (saved(noise(size=(1, 1)), "PNG"), "image_too_small"),
        "animated": (saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), None),
        "CMYK": (saved(noise("CMYK"), "JPEG"), None),
        "16 bits": (saved(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG"), None),
        "palette": (saved(noise("P"), "PNG"), None),
        "transparent": (saved(noise("RGBA"), "WEBP"), None),
        "grey": (saved(noise("L"), "JPEG"), None),
        "black and white": (saved(noise("1"), "TIFF"), None),
        "turned": (saved(noise(), "JPEG", exif=turned), None),
    }


TEXTS = {
    "long": "word " * 2_000_000,
    "one long word": "w" * 10_000_000,
    "NUL": "red\0mug",
    "control": "red\x07\x1b[31m mug",
    "Arabic": "كوب أحمر",
    "Chinese": "红色马克杯",
    "Hindi": "लाल मग",
    "emoji": "🏺🔴",
    "combining": "e\u0301" * 50,
    "right to left": "\u202emug der",
}
IDS = ["../x", "/etc/passwd", "a/b", "größe-π-😀", " padded ", "x" * 5000, "<script>", "'; drop", "-1", "null"]


def embed(catalog: Path, output: Path) -> tuple[pa.Table, dict[str | None, str]]:
    """Return the embedded products, and the reasons of the others by id."""
    plan = plan_catalog(str(catalog))
    encoder = HashEncoder()
    storage = Storage.at(output)
    reader, publisher = SliceReader(plan, encoder, ImageLimits()), PartPublisher(storage, "run")
    parts = embed_serially(reader, encoder, publisher, slices=plan.slices, batch_size=8, vector_type="float16")
    rows = pa.concat_tables([read_part(storage, part) for part in parts])
    rejected = [row for p in parts if p.rejected_name for row in pq.read_table(output / p.rejected_name).to_pylist()]
    return rows, {row["product_id"]: row["reason"] for row in rejected}


def test_each_picture_is_embedded_or_rejected_with_its_reason(tmp_path: Path) -> None:
    table = pictures()
    columns = {
        "product_id": list(table),
        "title": ["thing"] * len(table),
        "image": [data for data, _ in table.values()],
    }
    pq.write_table(pa.table(columns), tmp_path / "shop.parquet")
    rows, rejected = embed(tmp_path / "shop.parquet", tmp_path / "out")
    assert rejected == {name: reason for name, (_, reason) in table.items() if reason}
    assert rows.column("product_id").to_pylist() == [name for name, (_, reason) in table.items() if not reason]
    pictured = rows.filter(pc.is_valid(rows.column("image_vector"))).column("product_id").to_pylist()
    assert set(rows.column("product_id").to_pylist()) - set(pictured) == {"none", "empty"}


def test_texts_of_every_kind_are_embedded(tmp_path: Path) -> None:
    pq.write_table(pa.table({"product_id": list(TEXTS), "title": list(TEXTS.values())}), tmp_path / "shop.parquet")
    rows, rejected = embed(tmp_path / "shop.parquet", tmp_path / "out")
    assert rejected == {}
    assert rows.column("text_vector").null_count == 0
    texts = dict(zip(rows.column("product_id").to_pylist(), rows.column("text").to_pylist(), strict=True))
    assert max(map(len, texts.values())) == MAX_TEXT_CHARS
    assert texts["NUL"] == "red mug"
    assert texts["Chinese"] == TEXTS["Chinese"]


def test_ids_are_never_anything_but_names(tmp_path: Path) -> None:
    repeated = [*IDS, None, "", "../x"]
    pq.write_table(pa.table({"product_id": repeated, "title": ["thing"] * len(repeated)}), tmp_path / "shop.parquet")
    rows, rejected = embed(tmp_path / "shop.parquet", tmp_path / "out")
    assert rows.column("product_id").to_pylist() == IDS
    assert rejected == {None: "missing_id", "../x": "repeated_id"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "shop.parquet"]


@pytest.mark.parametrize("columns", [{"product_id": [1], "title": [2.5]}, {"product_id": [True], "title": [None]}])
def test_values_that_are_no_text_become_text_or_a_rejection(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "shop.parquet")
    rows, rejected = embed(tmp_path / "shop.parquet", tmp_path / "out")
    found = rows.select(["product_id", "text"]).to_pylist()
    assert (found, rejected) in (
        ([{"product_id": "1", "text": "2.5"}], {}),
        ([], {"true": "nothing_to_encode"}),
    )
