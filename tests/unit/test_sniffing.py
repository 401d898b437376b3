"""What a file is by its first bytes, and what is said of one that is not what it is called."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import plan_catalog, read_slice
from product_retrieval.catalog.sniffing import recognise
from product_retrieval.errors import CatalogError

CSV = b"product_id,title\n1,mug\n2,cup\n"
JSON_LINES = b'{"product_id": "1", "title": "mug"}\n{"product_id": "2", "title": "cup"}\n'
TABLE = pa.table({"product_id": ["1", "2"], "title": ["mug", "cup"]})


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink)
    return sink.getvalue().to_pybytes()


def arrow(*, is_file: bool) -> bytes:
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue().to_pybytes()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for key, text in (("1", b"mug"), ("2", b"cup")):
            member = tarfile.TarInfo(f"{key}.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


CATALOGS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "parquet": ("parquet", parquet),
    "arrow stream": ("arrow", lambda: arrow(is_file=False)),
    "arrow file": ("arrow", lambda: arrow(is_file=True)),
    "tar": ("webdataset", tar),
    "tar.gz": ("webdataset", lambda: gzip.compress(tar())),
    "csv": ("csv", lambda: CSV),
    "csv.gz": ("csv", lambda: gzip.compress(CSV)),
    "csv with a mark": ("csv", lambda: b"\xef\xbb\xbf" + CSV),
    "json lines": ("jsonl", lambda: JSON_LINES),
    "json lines with a mark": ("jsonl", lambda: b"\xef\xbb\xbf\n" + JSON_LINES),
    "json.gz": ("jsonl", lambda: gzip.compress(JSON_LINES)),
}


def ids_in(uri: str, **how: str) -> list[str]:
    plan = plan_catalog(uri, **how)  # type: ignore[arg-type]
    return [i for slice_ in plan.slices for i in read_slice(plan, slice_).table.column("product_id").to_pylist()]


@pytest.mark.parametrize("what", CATALOGS)
@pytest.mark.parametrize("name", ["export", "export.2024-01-01"])
def test_file_without_a_known_suffix_is_read_by_its_content(tmp_path: Path, what: str, name: str) -> None:
    kind, make = CATALOGS[what]
    (tmp_path / name).write_bytes(make())
    assert plan_catalog(str(tmp_path / name)).kind == kind
    assert ids_in(str(tmp_path / name)) == ["1", "2"]


def test_folder_of_files_without_suffixes_is_read_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "part-0").write_bytes(parquet())
    (tmp_path / "part-1").write_bytes(parquet())
    (tmp_path / "README").write_text("Two files, one shop\n")
    assert ids_in(str(tmp_path)) == ["1", "2"]


def test_folder_of_text_without_suffixes_is_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("Two files, one shop\n")
    (tmp_path / "NOTES").write_text("a, b\n")
    with pytest.raises(CatalogError, match="no catalogue there; known files end in"):
        plan_catalog(str(tmp_path))


def test_folder_of_two_contents_asks_which(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(parquet())
    (tmp_path / "b").write_bytes(JSON_LINES)
    with pytest.raises(CatalogError, match="holds jsonl and parquet files; name one kind with --kind"):
        plan_catalog(str(tmp_path))
    assert ids_in(str(tmp_path), kind="jsonl") == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("shop.csv", "parquet", r"shop\.csv: is a Parquet file; name it with --kind parquet"),
        ("shop.csv", "json lines", r"shop\.csv: is JSON lines; name it with --kind jsonl"),
        ("shop.jsonl", "parquet", r"shop\.jsonl: is a Parquet file; name it with --kind parquet"),
        ("shop.parquet", "json lines", r"shop\.parquet: is JSON lines; name it with --kind jsonl"),
        ("shop.parquet", "arrow file", r"shop\.parquet: is an Arrow file; name it with --kind arrow"),
        ("shop.tar", "arrow stream", r"shop\.tar: is an Arrow stream; name it with --kind arrow"),
        ("shop.arrow", "tar", r"shop\.arrow: is a tar archive; name it with --kind webdataset"),
        ("shop.csv", "csv.gz", r"shop\.csv: is text in columns, compressed with gzip; name it .*shop\.csv\.gz or with"),
        ("shop.tar", "tar.gz", r"shop\.tar: is a tar archive, compressed with gzip; name it .*shop\.tar\.gz or with"),
        ("shop.csv.gz", "json.gz", r"shop\.csv\.gz: is JSON lines, compressed with gzip; name it with --kind jsonl"),
        ("shop.csv.gz", "csv", r"shop\.csv\.gz: cannot be read: it is not compressed with gzip"),
    ],
)
def test_suffix_that_contradicts_the_content_is_one_clear_error(
    tmp_path: Path, name: str, what: str, message: str
) -> None:
    kind, make = CATALOGS[what]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(CatalogError, match=message) as raised:
        plan_catalog(str(tmp_path / name))
    assert "\n" not in str(raised.value)
    assert ids_in(str(tmp_path / name), kind=kind) == ["1", "2"]


@pytest.mark.parametrize("name", ["shop.csv", "shop.jsonl", "shop.parquet", "shop.tar", "shop.arrow", "shop"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; it holds no products"),
        (b"\n <!DOCTYPE HTML><title>403</title>", "is an HTML page; download the catalogue again"),
        (b"<html><body>Sign in, please</body>", "is an HTML page; download the catalogue again"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML document; export"),
        (CSV.decode().encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (CSV.decode().encode("utf-16-le"), "is UTF-16 text; save it as UTF-8"),
        (CSV.decode().encode("utf-16-be"), "is UTF-16 text; save it as UTF-8"),
        (b"PK\x03\x04rest", "is a ZIP or Excel file; unpack it"),
        (b"\x28\xb5\x2f\xfdrest", "is compressed with Zstandard; unpack it"),
        (b"%PDF-1.7", "is a PDF; export the table"),
    ],
)
def test_file_that_is_no_catalogue_is_one_clear_error(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CatalogError, match=f"{name}: {message}") as raised:
        plan_catalog(str(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_json_array_without_a_suffix_says_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "shop.json").write_text('[{"product_id": 1}]')
    with pytest.raises(CatalogError, match=r"shop\.json: is one JSON array; write one object a line"):
        plan_catalog(str(tmp_path / "shop.json"))


@pytest.mark.parametrize("head", [b"\0", b"just text", b"\x1f", b"\0" * 4096, bytes(range(256)) * 16])
def test_bytes_that_say_nothing_are_nothing(head: bytes) -> None:
    assert recognise(head) is None


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
@pytest.mark.parametrize("name", ["shop.csv", "shop.tsv", "shop"])
@pytest.mark.parametrize("rows_per_part", [1, 100])
def test_delimiter_is_found_from_the_header(tmp_path: Path, delimiter: str, name: str, rows_per_part: int) -> None:
    rows = [["product_id", '"a, b; c|d"', "title"], ["1", "x", '"two\nlines, ; |"'], ["2", "", 'say "hi"']]
    (tmp_path / name).write_text("\n".join(delimiter.join(row) for row in rows))
    plan = plan_catalog(str(tmp_path / name), rows_per_part=rows_per_part)
    found = [row for slice_ in plan.slices for row in read_slice(plan, slice_).table.to_pylist()]
    assert [(row["product_id"], row["a, b; c|d"], row["title"]) for row in found] == [
        ("1", "x", "two\nlines, ; |"),
        ("2", None, 'say "hi"'),
    ]
