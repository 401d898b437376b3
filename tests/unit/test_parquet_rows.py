"""Rows of Parquet files, read without their row groups."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import plan_catalog, planners
from product_retrieval.catalog.parquet_rows import read_rows, rows_decoded_per_row

TABLE = pa.table(
    {
        "row": list(range(10)),
        "image": [None if i % 3 == 0 else {"bytes": b"%d" % i, "path": None} for i in range(10)],
        "tags": [["a"] * i for i in range(10)],
    }
)


@pytest.mark.parametrize("row_group_size", [1, 3, 10])
@pytest.mark.parametrize("batch_rows", [1, 4, 100])
def test_rows_are_those_of_the_table(tmp_path: Path, row_group_size: int, batch_rows: int) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=row_group_size)
    for start in range(11):
        for stop in range(start, 13):
            found = read_rows(str(tmp_path / "a.parquet"), start, stop, batch_rows=batch_rows)
            assert found.equals(TABLE.slice(start, stop - start)), (start, stop)


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    assert read_rows(str(tmp_path / "a.parquet"), 1, 2, columns=["image"]).to_pylist() == [
        {"image": {"bytes": b"1", "path": None}}
    ]


@pytest.mark.parametrize(
    ("row_group_size", "rows_per_part", "decoded"),
    [(10, 10, 1.0), (5, 10, 1.0), (10, 5, 1.5), (10, 1, 5.5), (10, 3, (3 + 6 + 9 + 10) / 10)],
)
def test_cost_of_large_row_groups_is_counted(
    tmp_path: Path, row_group_size: int, rows_per_part: int, decoded: float
) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=row_group_size)
    assert rows_decoded_per_row(pq.read_metadata(tmp_path / "a.parquet"), rows_per_part) == decoded


@pytest.mark.parametrize(
    ("row_group_size", "many_bytes", "num_warnings"), [(100, 1000, 1), (10, 1000, 0), (100, 1 << 30, 0)]
)
def test_row_groups_that_cost_much_are_told_in_one_line(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    row_group_size: int,
    many_bytes: int,
    num_warnings: int,
) -> None:
    monkeypatch.setattr(planners, "MANY_BYTES_DECODED", many_bytes)
    names = [f"p{i}" for i in range(100)]
    table = pa.table({"product_id": names, "title": names})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size)
    with caplog.at_level(logging.WARNING):
        plan_catalog(str(tmp_path / "a.parquet"), rows_per_part=5)
    assert len(caplog.messages) == num_warnings
    for message in caplog.messages:
        assert "10 rows are decoded for each row that is used; write it again with row_group_size=5" in message
