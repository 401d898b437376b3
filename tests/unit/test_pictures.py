"""Pictures found again by their reference, and sheets of them that carry nothing of what the pictures may hide."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from product_retrieval.pictures import (
    CAPTION_PX,
    MARGIN_PX,
    TILE_PX,
    Tile,
    contact_sheet_html,
    contact_sheet_png,
    load_picture,
    write_sheet,
)

Maker = Callable[..., bytes]


def write_pictures(folder: Path, cells: list[object], column: str = "image") -> None:
    pq.write_table(pa.table({"product_id": [str(i) for i in range(len(cells))], column: cells}), folder / "a.parquet")


def test_picture_in_a_file_is_found(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mug.png").write_bytes(png())
    assert load_picture(str(tmp_path), "deep/mug.png") == png()


@pytest.mark.parametrize("row_group_size", [1, 2, 100])
def test_picture_in_parquet_is_found_by_its_row(tmp_path: Path, png: Maker, row_group_size: int) -> None:
    pictures = [png((i, 0, 0)) for i in range(5)]
    table = pa.table({"photo": pictures})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size)
    found = [load_picture(str(tmp_path), f"a.parquet#row={row}", image_column="photo") for row in range(5)]
    assert found == pictures


def test_struct_of_bytes_in_parquet_gives_its_bytes(tmp_path: Path, png: Maker) -> None:
    write_pictures(tmp_path, [{"bytes": png(), "path": None}, {"bytes": None, "path": "a.png"}])
    assert load_picture(str(tmp_path), "a.parquet#row=0") == png()
    assert load_picture(str(tmp_path), "a.parquet#row=1") is None


@pytest.mark.parametrize(
    "reference",
    [
        None,
        "",
        "gone.png",
        "../secret.png",
        "/etc/passwd",
        "http://127.0.0.1/a.png",
        "gone.parquet#row=0",
        "a.parquet#row=1",
        "a.parquet#row=2",
        "a.parquet#row=-1",
        "a.parquet#row=",
        "a.parquet#row=x",
        "broken.parquet#row=0",
    ],
)
def test_picture_that_cannot_be_had_is_none(tmp_path: Path, png: Maker, reference: str | None) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "root" / "broken.parquet").write_bytes(b"PAR1")
    write_pictures(tmp_path / "root", [png(), None])
    assert load_picture(str(tmp_path / "root"), reference) is None


def test_parquet_outside_the_root_is_not_read(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "root").mkdir()
    write_pictures(tmp_path, [png()])
    assert load_picture(str(tmp_path / "root"), "../a.parquet#row=0") is None


def test_file_whose_name_looks_like_a_row_is_found(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "mug#row=2.png").write_bytes(png())
    assert load_picture(str(tmp_path), "mug#row=2.png") == png()


def test_other_image_column_than_the_files_is_none(tmp_path: Path, png: Maker) -> None:
    write_pictures(tmp_path, [png()], column="photo")
    assert load_picture(str(tmp_path), "a.parquet#row=0", image_column="image") is None


@pytest.mark.parametrize(("num_tiles", "rows"), [(0, 0), (1, 1), (5, 1), (6, 2)])
def test_sheet_has_a_place_for_each_tile(png: Maker, num_tiles: int, rows: int) -> None:
    sheet = Image.open(io.BytesIO(contact_sheet_png("Hits", [Tile(png(), "mug", "1.  0.9")] * num_tiles)))
    assert sheet.format == "PNG"
    assert sheet.width == 5 * (TILE_PX + MARGIN_PX) + MARGIN_PX
    assert sheet.height == rows * (TILE_PX + CAPTION_PX + MARGIN_PX) + 4 * MARGIN_PX


def test_picture_stands_in_the_middle_of_its_place(png: Maker) -> None:
    tiles = [Tile(png((255, 0, 0), (400, 400)), "a", ""), Tile(None, "b", "")]
    sheet = Image.open(io.BytesIO(contact_sheet_png("Hits", tiles, columns=2))).convert("RGB")
    middle = 4 * MARGIN_PX + TILE_PX // 2
    assert sheet.getpixel((MARGIN_PX + TILE_PX // 2, middle)) == (255, 0, 0)
    assert sheet.getpixel((2 * MARGIN_PX + TILE_PX + 20, middle + 40)) == (255, 255, 255)


@pytest.mark.parametrize("data", [None, b"", b"<script>", b"\x89PNG\r\n\x1a\n"])
def test_tile_without_a_picture_is_drawn_without(data: bytes | None) -> None:
    assert contact_sheet_png("Hits", [Tile(data, "mug", "")]).startswith(b"\x89PNG")
    assert "no picture" in contact_sheet_html("Hits", [Tile(data, "mug", "")])


def test_titles_in_any_script_are_drawn() -> None:
    tiles = [Tile(None, title, "") for title in ("Tüte", "杯子", "كوب", "\U0001f600", "", "a\nb", "x" * 500)]
    assert contact_sheet_png("Hits for 杯子", tiles).startswith(b"\x89PNG")


def test_text_on_a_page_is_escaped() -> None:
    page = contact_sheet_html("<script>1</script>", [Tile(None, "<b>mug</b>", '"><img src=x onerror=1>')])
    assert "<script" not in page
    assert "<b>mug" not in page
    assert "<img" not in page
    assert "&lt;b&gt;mug&lt;/b&gt;" in page


def test_page_needs_nothing_else_and_holds_only_pixels(png: Maker) -> None:
    page = contact_sheet_html("Hits", [Tile(png((1, 2, 3), (8, 8)) + b"<script>hidden</script>", "mug", "")])
    sources = re.findall(r'src="([^"]*)"', page)
    assert [source.partition(",")[0] for source in sources] == ["data:image/png;base64"]
    picture = base64.b64decode(sources[0].partition(",")[2])
    assert b"hidden" not in picture
    assert Image.open(io.BytesIO(picture)).getpixel((0, 0)) == (1, 2, 3)
    assert "http" not in page


def test_suffix_decides_what_is_written(tmp_path: Path, png: Maker) -> None:
    tiles = [Tile(png(), "mug", "")]
    write_sheet(str(tmp_path / "new" / "hits.png"), "Hits", tiles)
    write_sheet(str(tmp_path / "new" / "hits.html"), "Hits", tiles)
    assert (tmp_path / "new" / "hits.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new" / "hits.html").read_text().startswith("<!doctype html>")
    with pytest.raises(ValueError, match=r"a contact sheet is a \.png or a \.html file"):
        write_sheet(str(tmp_path / "hits.jpg"), "Hits", tiles)
