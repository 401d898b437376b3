"""Gzip files read from places inside them: the same bytes as from the beginning, whoever compressed them."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import zlib
from pathlib import Path

import pytest

from product_retrieval.catalog import plan_catalog, read_slice
from product_retrieval.catalog.gzip_points import AccessPoint, InflatedFile, point_before

SPACING = 40_000


def some_text(num_lines: int, seed: int = 0) -> bytes:
    """Return lines of random words: compressible, with blocks that end at any bit."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(999)]
    return "".join(f"{i},{' '.join(rng.choices(words, k=20))}\n" for i in range(num_lines)).encode()


def find_points(data: bytes, spacing: int = SPACING) -> tuple[bytes, list[AccessPoint]]:
    """Return what is in a file and the places in it."""
    points: list[AccessPoint] = []
    file = InflatedFile(io.BytesIO(data), found=points, spacing_bytes=spacing)
    return file.read(1 << 30), points


def compress_with_flushes(text: bytes, flush: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31, 8, strategy)
    pieces = [compressor.compress(text[at : at + 9999]) + compressor.flush(flush) for at in range(0, len(text), 9999)]
    return b"".join(pieces) + compressor.flush()


TEXT = some_text(9000)
FILES = {
    "fast": gzip.compress(TEXT, 1),
    "usual": gzip.compress(TEXT, 6),
    "best": gzip.compress(TEXT, 9),
    "stored": gzip.compress(TEXT, 0),
    "fixed codes": compress_with_flushes(TEXT, zlib.Z_NO_FLUSH, zlib.Z_FIXED),
    "only literals": compress_with_flushes(TEXT, zlib.Z_NO_FLUSH, zlib.Z_HUFFMAN_ONLY),
    "flushed": compress_with_flushes(TEXT, zlib.Z_SYNC_FLUSH),
    "several streams": b"".join(gzip.compress(TEXT[at : at + 300_001]) for at in range(0, len(TEXT), 300_001)),
    "with padding": gzip.compress(TEXT) + bytes(1024),
    "with a name": gzip.compress(TEXT)[:3]
    + b"\x08"
    + gzip.compress(TEXT)[4:10]
    + b"a.csv\0"
    + gzip.compress(TEXT)[10:],
}


@pytest.mark.parametrize("how", FILES)
def test_any_part_is_the_same_from_the_place_before_it(how: str) -> None:
    whole, points = find_points(FILES[how])
    assert whole == TEXT
    rng = random.Random(1)
    for _ in range(6):
        start = rng.randrange(len(TEXT))
        stop = min(start + rng.randrange(100_000), len(TEXT))
        file = InflatedFile(io.BytesIO(FILES[how]), point_before(points, start))
        file.seek(start)
        assert file.read(stop - start) == TEXT[start:stop]


@pytest.mark.parametrize("how", ["fast", "usual", "best", "only literals", "flushed", "several streams"])
def test_places_are_no_farther_apart_than_a_block_allows(how: str) -> None:
    _, points = find_points(FILES[how])
    gaps = [after.start - before.start for before, after in itertools.pairwise(points)]
    assert len(gaps) >= 3
    assert max(gaps) < 400_000


def test_places_stand_at_any_bit() -> None:
    bits = {point.bit for n in range(8) for point in find_points(gzip.compress(TEXT[n * 99 :], 1), 1)[1]}
    assert bits == set(range(8))


def test_part_that_runs_into_the_next_stream_is_whole() -> None:
    data = FILES["several streams"]
    _, points = find_points(data)
    inside = next(point for point in points if point.window)
    file = InflatedFile(io.BytesIO(data), inside)
    assert file.read(500_000) == TEXT[inside.start : inside.start + 500_000]


def test_place_is_small() -> None:
    _, points = find_points(FILES["usual"])
    assert max(len(point.window) for point in points) < 32 << 10


def test_file_that_is_not_compressed_has_no_place() -> None:
    assert point_before([], 5) is None


def test_going_back_is_refused() -> None:
    file = InflatedFile(io.BytesIO(FILES["usual"]))
    assert file.read(10) == TEXT[:10]
    assert file.seek(5000) == 5000
    with pytest.raises(ValueError, match="cannot go back from byte 5000 to 4999"):
        file.seek(4999)
    assert file.seek(1 << 40) == len(TEXT)
    assert file.read(1) == b""


@pytest.mark.parametrize("cut", [11, 1000, -9, -1])
def test_cut_off_file_is_an_error(cut: int) -> None:
    with pytest.raises(EOFError, match="before its end-of-stream marker"):
        find_points(FILES["usual"][:cut])


def test_cut_off_file_is_an_error_from_a_place_too() -> None:
    _, points = find_points(FILES["usual"])
    with pytest.raises(EOFError, match="before its end-of-stream marker"):
        InflatedFile(io.BytesIO(FILES["usual"][:-1]), points[-1]).read(1 << 30)


@pytest.mark.parametrize("data", [b"not gzip", FILES["usual"] + b"garbage", FILES["usual"][:-8] + bytes(8)])
def test_damaged_file_is_an_error(data: bytes) -> None:
    with pytest.raises(zlib.error):
        find_points(data)


@pytest.mark.parametrize("name", ["shop.csv.gz", "shop.jsonl.gz"])
def test_slices_begin_near_their_rows(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("product_retrieval.catalog.gzip_points.SPACING_BYTES", SPACING)
    titles = TEXT.decode().splitlines()
    if name == "shop.csv.gz":
        lines = ["product_id,title", *titles]
    else:
        lines = [f'{{"product_id": {line.split(",")[0]}, "title": "{line.split(",")[1]}"}}' for line in titles]
    (tmp_path / name).write_bytes(gzip.compress("\n".join(lines).encode()))
    plan = plan_catalog(str(tmp_path / name), rows_per_part=900)
    rows = [row for slice_ in plan.slices for row in read_slice(plan, slice_).table.to_pylist()]
    assert [f"{row['product_id']},{row['title']}" for row in rows] == titles
    assert plan.slices[0].point == AccessPoint(0, 0)
    assert len({slice_.point for slice_ in plan.slices}) > 3
    assert all(slice_.point and slice_.point.start <= slice_.start for slice_ in plan.slices)
