"""CSV and JSON lines: cut into runs of whole records, parsed run by run, with one schema for all."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from product_retrieval.catalog import CatalogPlan, plan_catalog, read_slice
from product_retrieval.catalog.delimited import find_runs
from product_retrieval.catalog.slices import SOURCE
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage


def plan_bytes(tmp_path: Path, name: str, data: bytes, *, rows_per_part: int = 1024) -> CatalogPlan:
    (tmp_path / name).write_bytes(data)
    return plan_catalog(str(tmp_path / name), rows_per_part=rows_per_part)


def products_of(plan: CatalogPlan) -> list[dict[str, Any]]:
    return [row for slice_ in plan.slices for row in read_slice(plan, slice_).table.to_pylist()]


def reasons_of(plan: CatalogPlan) -> list[str]:
    return [r.reason for slice_ in plan.slices for r in read_slice(plan, slice_).rejections]


def pairs_of(plan: CatalogPlan) -> list[tuple[str, str | None]]:
    return [(row["product_id"], row["text"]) for row in products_of(plan)]


# Runs


@pytest.mark.parametrize("records_per_run", [1, 2, 3, 9])
def test_runs_cover_the_file_without_gap_or_overlap(tmp_path: Path, records_per_run: int) -> None:
    data = b'id,t\n1,"a\nb"\n2,"""x""\n"\n3,c\n4,\n5,"d"'
    (tmp_path / "a.csv").write_bytes(data)
    runs = find_runs(Storage.at(tmp_path), "a.csv", is_csv=True, records_per_run=records_per_run)
    assert runs.header == b"id,t\n"
    assert b"".join(data[start:stop] for start, stop, _ in runs.bounds) == data[5:]
    assert [count for _, _, count in runs.bounds] == {1: [1] * 5, 2: [2, 2, 1], 3: [3, 2], 9: [5]}[records_per_run]


def test_quotes_are_no_matter_in_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "\\""}\n{"a": 1}\n')
    runs = find_runs(Storage.at(tmp_path), "a.jsonl", is_csv=False, records_per_run=1)
    assert [(start, stop) for start, stop, _ in runs.bounds] == [(0, 12), (12, 21)]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_empty_file_holds_no_products(tmp_path: Path, name: str) -> None:
    with pytest.raises(CatalogError, match="holds no products"):
        plan_bytes(tmp_path, name, b"")


@pytest.mark.parametrize("data", [b"product_id,title", b"product_id,title\n", b"product_id,title\r\n"])
def test_header_alone_holds_no_products(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CatalogError, match="holds no products"):
        plan_bytes(tmp_path, "a.csv", data)


# CSV


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_quoted_newlines_commas_and_quotes_stay_in_their_cell(tmp_path: Path, rows_per_part: int) -> None:
    data = b'product_id,title\n1,"a, b"\n2,"say ""hi"""\n3,"two\nlines"\n'
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=rows_per_part)
    assert pairs_of(plan) == [("1", "a, b"), ("2", 'say "hi"'), ("3", "two lines")]


@pytest.mark.parametrize("rows_per_part", [1, 100])
def test_carriage_returns_are_no_part_of_a_cell(tmp_path: Path, rows_per_part: int) -> None:
    plan = plan_bytes(tmp_path, "a.csv", b"product_id,title\r\n1,a\r\n2,b\r\n", rows_per_part=rows_per_part)
    assert pairs_of(plan) == [("1", "a"), ("2", "b")]


def test_gzip_is_read_through(tmp_path: Path) -> None:
    plan = plan_bytes(tmp_path, "a.csv.gz", gzip.compress(b"product_id,title\n1,a\n2,b\n"), rows_per_part=1)
    assert pairs_of(plan) == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("data", [b"not gzip at all", gzip.compress(b"product_id,title\n1,a\n" * 99)[:-20]])
def test_broken_gzip_is_a_catalogue_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CatalogError, match=r"a\.csv\.gz: cannot be read"):
        plan_bytes(tmp_path, "a.csv.gz", data)


def test_gzip_with_a_damaged_body_is_a_catalogue_error(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(b"".join(b"%d,row\n" % i for i in range(2000))))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(CatalogError, match=r"a\.csv\.gz: cannot be read"):
        plan_bytes(tmp_path, "a.csv.gz", bytes(data))


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert pairs_of(plan_bytes(tmp_path, "a.csv", b"\xef\xbb\xbfproduct_id,title\n1,a\n")) == [("1", "a")]


def test_bytes_that_are_not_utf8_become_replacement_characters(tmp_path: Path) -> None:
    assert pairs_of(plan_bytes(tmp_path, "a.csv", b"product_id,title\n1,caf\xe9\n")) == [("1", "caf\ufffd")]


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_rows_with_too_many_or_few_cells_are_rejected_not_fatal(tmp_path: Path, rows_per_part: int) -> None:
    data = b"product_id,title\n1,a\n2,b,c\n3\n4,d\n"
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=rows_per_part)
    assert plan.num_products == 4
    assert pairs_of(plan) == [("1", "a"), ("4", "d")]
    assert reasons_of(plan) == ["malformed_record", "malformed_record"]


def test_malformed_rejection_says_what_is_wrong(tmp_path: Path) -> None:
    plan = plan_bytes(tmp_path, "a.csv", b"product_id,title\n1,a\n2,b,c\n")
    (rejection,) = read_slice(plan, plan.slices[0]).rejections
    assert rejection.detail == "3 cells instead of 2: 2,b,c"


def test_empty_cells_are_null_and_quoted_ones_empty_text(tmp_path: Path) -> None:
    plan = plan_bytes(tmp_path, "a.csv", b'product_id,title,brand,price\n1,,"",\n2,mug,,3\n')
    rows = products_of(plan)
    assert [(row["title"], row["brand"], row["price"]) for row in rows] == [(None, "", None), ("mug", None, 3)]


def test_word_null_is_text(tmp_path: Path) -> None:
    assert pairs_of(plan_bytes(tmp_path, "a.csv", b"product_id,title\n1,NULL\n2,NaN\n3,N/A\n")) == [
        ("1", "NULL"),
        ("2", "NaN"),
        ("3", "N/A"),
    ]


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_blank_lines_are_no_products(tmp_path: Path, rows_per_part: int) -> None:
    data = b"product_id,title\n1,a\n\n\n\n2,b\n\n\n\n"
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=rows_per_part)
    assert pairs_of(plan) == [("1", "a"), ("2", "b")]


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_types_are_unified_over_all_runs(tmp_path: Path, rows_per_part: int) -> None:
    data = b"product_id,title,stock,price,code,empty\n1,a,1,1,5,\n2,b,,2.5,x,\n3,c,7,3,6,\n"
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=rows_per_part)
    types = {name: plan.schema.field(name).type for name in ("stock", "price", "code")}
    assert types == {"stock": pa.int64(), "price": pa.float64(), "code": pa.string()}
    rows = products_of(plan)
    assert [row["stock"] for row in rows] == [1, None, 7]
    assert [row["price"] for row in rows] == [1.0, 2.5, 3.0]
    assert [row["code"] for row in rows] == ["5", "x", "6"]


@pytest.mark.parametrize("rows_per_part", [1, 100])
def test_ids_are_kept_as_written(tmp_path: Path, rows_per_part: int) -> None:
    ids = ["007", "7", "1.10", "1.1", "1e3", "+5", "2024-01-01"]
    data = "product_id,title\n" + "".join(f"{i},x\n" for i in ids)
    for kept in ([i for i in ids if i.strip("0123456789") == ""], [i for i in ids if "." in i], ids):
        data = "product_id,title\n" + "".join(f"{i},x\n" for i in kept)
        plan = plan_bytes(tmp_path, "a.csv", data.encode(), rows_per_part=rows_per_part)
        assert [row["product_id"] for row in products_of(plan)] == kept


def test_titles_and_groups_that_look_like_numbers_are_kept_as_written(tmp_path: Path) -> None:
    plan = plan_bytes(tmp_path, "a.csv", b"product_id,title,group_id\na,007,01\nb,1.50,1\n")
    rows = products_of(plan)
    assert [row["text"] for row in rows] == ["007", "1.50"]
    assert [row["group_id"] for row in rows] == ["01", "1"]


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_files_with_columns_in_another_order_are_one_catalogue(tmp_path: Path, rows_per_part: int) -> None:
    (tmp_path / "a.csv").write_text("product_id,title\n1,a\n2,b\n")
    (tmp_path / "b.csv").write_text("title,product_id\nc,3\n")
    plan = plan_catalog(str(tmp_path), rows_per_part=rows_per_part)
    assert pairs_of(plan) == [("1", "a"), ("2", "b"), ("3", "c")]


def test_csv_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("product_id,title\n1,a\n")
    (tmp_path / "b.csv").write_text("product_id,name\n2,b\n")
    with pytest.raises(CatalogError, match=r"b\.csv"):
        plan_catalog(str(tmp_path))


def test_source_is_the_file_and_the_row(tmp_path: Path) -> None:
    data = b"product_id,title\n1,a\n2,b\n,c\n"
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=2)
    assert [row[SOURCE] for row in products_of(plan)] == ["a.csv:0", "a.csv:1"]
    assert [r.source for slice_ in plan.slices for r in read_slice(plan, slice_).rejections] == ["a.csv:2"]


def test_repeated_id_in_another_run_is_rejected(tmp_path: Path) -> None:
    data = b"product_id,title\n1,a\n2,b,c\n2,d\n1,e\n"
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=2)
    assert pairs_of(plan) == [("1", "a"), ("2", "d")]
    assert sorted(reasons_of(plan)) == ["malformed_record", "repeated_id"]


def test_repeated_column_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="title"):
        plan_bytes(tmp_path, "a.csv", b"product_id,title,title\n1,a,b\n")


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_unclosed_quote_loses_no_products_unseen(tmp_path: Path, rows_per_part: int) -> None:
    data = b'product_id,title\n1,a\n2,"b\n3,c\n4,d\n'
    with pytest.raises(CatalogError, match=r"a\.csv.*quote"):
        plan_bytes(tmp_path, "a.csv", data, rows_per_part=rows_per_part)


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_single_inch_mark_loses_no_product(tmp_path: Path, rows_per_part: int) -> None:
    data = b'product_id,title\n1,a\n2,screen 5" flat\n3,c\n'
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=rows_per_part)
    assert pairs_of(plan) == [("1", "a"), ("2", 'screen 5" flat'), ("3", "c")]


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_inch_mark_before_a_quoted_newline_is_text(tmp_path: Path, rows_per_part: int) -> None:
    data = b'product_id,title\n1,screen 5" flat\n2,"two\nlines"\n3,c\n'
    plan = plan_bytes(tmp_path, "a.csv", data, rows_per_part=rows_per_part)
    assert pairs_of(plan) == [("1", 'screen 5" flat'), ("2", "two lines"), ("3", "c")]


# JSON lines


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_broken_lines_are_rejected_not_fatal(tmp_path: Path, rows_per_part: int) -> None:
    data = (
        b'{"product_id": "1", "title": "a"}\n{"product_id": "2", "tit\n[1, 2]\n\n5\n{"product_id": "3", "title": "b"}'
    )
    plan = plan_bytes(tmp_path, "a.jsonl", data, rows_per_part=rows_per_part)
    assert pairs_of(plan) == [("1", "a"), ("3", "b")]
    assert reasons_of(plan) == ["malformed_record"] * 3
    assert plan.num_products == 5


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("[" * 100_000, id="nested too deep"),
        pytest.param('{"product_id": "2", "title": "\\ud800"}', id="half a surrogate pair"),
        pytest.param('{"product_id": "2", "title": "b", "stock": 1180591620717411303424}', id="integer beyond 64 bits"),
        pytest.param('{"product_id": "2", "title": "b", "stock": ' + "9" * 5000 + "}", id="integer of 5000 digits"),
    ],
)
def test_hostile_line_does_not_end_the_job(tmp_path: Path, line: str) -> None:
    data = f'{{"product_id": "1", "title": "a", "stock": 1}}\n{line}\n{{"product_id": "3", "title": "c", "stock": 3}}\n'
    pairs = pairs_of(plan_bytes(tmp_path, "a.jsonl", data.encode()))
    assert [pair for pair in pairs if pair[0] != "2"] == [("1", "a"), ("3", "c")]


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_mixed_types_become_what_was_written(tmp_path: Path, rows_per_part: int) -> None:
    lines = [
        {"product_id": 1, "title": "a", "size": 5, "price": 1, "tags": ["x"], "is_new": True},
        {"product_id": "two", "title": "b", "size": "XL", "price": 2.5, "tags": "y"},
        {"product_id": 3, "title": "c", "size": None, "price": None, "tags": None, "is_new": 1},
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    plan = plan_bytes(tmp_path, "a.jsonl", data, rows_per_part=rows_per_part)
    rows = products_of(plan)
    assert [row["product_id"] for row in rows] == ["1", "two", "3"]
    assert [row["size"] for row in rows] == ["5", "XL", None]
    assert [row["price"] for row in rows] == [1.0, 2.5, None]
    assert [row["tags"] for row in rows] == ['["x"]', "y", None]
    assert [row["is_new"] for row in rows] == ["true", None, "1"]


@pytest.mark.parametrize("rows_per_part", [1, 100])
def test_keys_that_some_lines_lack_are_null(tmp_path: Path, rows_per_part: int) -> None:
    data = b'{"product_id": "1", "title": "a"}\n{"product_id": "2", "title": "b", "price": 3}\n'
    rows = products_of(plan_bytes(tmp_path, "a.jsonl", data, rows_per_part=rows_per_part))
    assert [row["price"] for row in rows] == [None, 3]


def test_json_lines_through_gzip_with_byte_order_mark_and_carriage_returns(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"product_id": "1", "title": "a"}\r\n{"product_id": "2", "title": "b"}\r\n'
    plan = plan_bytes(tmp_path, "a.jsonl.gz", gzip.compress(data), rows_per_part=1)
    assert pairs_of(plan) == [("1", "a"), ("2", "b")]


def test_line_separators_of_unicode_end_no_line(tmp_path: Path) -> None:
    data = '{"product_id": "1", "title": "a\u2028b\x0bc"}\n'.replace("\x0b", "\\u000b").encode()
    assert pairs_of(plan_bytes(tmp_path, "a.jsonl", data)) == [("1", "a b c")]


def test_last_of_repeated_keys_counts(tmp_path: Path) -> None:
    assert pairs_of(plan_bytes(tmp_path, "a.jsonl", b'{"product_id": "1", "title": "a", "title": "b"}\n')) == [
        ("1", "b")
    ]


@pytest.mark.parametrize("rows_per_part", [1, 2, 5, 100])
def test_cuts_do_not_change_the_products(tmp_path: Path, rows_per_part: int) -> None:
    lines = [{"product_id": f"p{i}", "title": f"t{i}", "price": i if i % 3 else i + 0.5} for i in range(11)]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    whole = products_of(plan_bytes(tmp_path, "a.jsonl", data))
    cut = products_of(plan_bytes(tmp_path, "a.jsonl", data, rows_per_part=rows_per_part))
    assert [{**row, SOURCE: ""} for row in cut] == [{**row, SOURCE: ""} for row in whole]
