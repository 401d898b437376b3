"""CSV and JSON-lines catalogues: cut into runs of whole records by byte offset, then parsed run by run.

A record is found without parsing it: in JSON lines a line feed ends it, in CSV a line feed outside quotes
(RFC 4180), so that a quoted description may span lines.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage

SCAN_CHUNK_BYTES = 8 << 20
LINE_FEED, QUOTE = 0x0A, 0x22
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RecordRuns:
    """Where the records of one file lie."""

    header: bytes
    """The CSV line with the column names; empty for JSON lines."""
    bounds: tuple[tuple[int, int, int], ...]
    """Per run: first byte, byte after the last, records in it."""
    sha256: str


@dataclass(frozen=True, slots=True)
class ParsedRun:
    """The rows of a run, and the records that could not be parsed."""

    rows: pa.Table
    malformed: tuple[str, ...]
    """One reason a record that is no row."""


def find_runs(storage: Storage, name: str, *, is_csv: bool, records_per_run: int) -> RecordRuns:
    """Cut a file into runs of whole records.

    Args:
        storage: the catalogue's root.
        name: file below it; `.gz` is read through.
        is_csv: CSV with a header line, else JSON lines.
        records_per_run: records in each run but the last.

    Returns:
        The runs in file order, without blank lines at the end.

    Raises:
        CatalogError: the file is empty or cannot be decompressed.
    """
    digest = hashlib.sha256()
    ends: list[NDArray[np.int64]] = []
    position, quotes_seen, last = 0, 0, b""
    try:
        with _open(storage, name) as file:
            while chunk := file.read(SCAN_CHUNK_BYTES):
                digest.update(chunk)
                found, quotes_seen = _record_ends(chunk, quotes_seen, is_csv=is_csv)
                ends.append(found + position)
                position, last = position + len(chunk), chunk[-1:]
    except (OSError, EOFError) as error:
        raise CatalogError(f"{storage.path(name)}: cannot be read: {error}", path=storage.path(name)) from error
    stops = np.concatenate([*ends, np.array([position] if last not in (b"", b"\n") else [], np.int64)])
    start = 0
    header = b""
    if is_csv and len(stops):
        start = int(stops[0])
        header = read_bytes(storage, name, 0, start).removeprefix(BYTE_ORDER_MARK)
        stops = stops[1:]
    bounds = []
    for first in range(0, len(stops), records_per_run):
        run = stops[first : first + records_per_run]
        bounds.append((start, int(run[-1]), len(run)))
        start = int(run[-1])
    if not bounds:
        raise CatalogError(f"{storage.path(name)}: holds no products", path=storage.path(name))
    return RecordRuns(header, tuple(bounds), digest.hexdigest())


def read_bytes(storage: Storage, name: str, start: int, stop: int) -> bytes:
    """Return the (decompressed) bytes [start, stop) of a file."""
    with _open(storage, name) as file:
        file.seek(start)
        return file.read(stop - start)


def parse_csv(data: bytes, header: bytes, schema: pa.Schema | None) -> ParsedRun:
    """Parse a run of CSV records.

    Args:
        data: whole records.
        header: the file's first line.
        schema: types to convert to; None infers them from this run.

    Returns:
        The rows, and a reason for each record with the wrong number of cells. Bytes that are not UTF-8 become U+FFFD.
    """
    malformed: list[str] = []

    def note(row: Any) -> str:
        malformed.append(f"{row.actual_columns} cells instead of {row.expected_columns}: {row.text[:80]}")
        return "skip"

    names = csv.read_csv(io.BytesIO(header)).column_names
    table = csv.read_csv(
        io.BytesIO(data.decode("utf-8", errors="replace").encode()),
        read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(data) * 3, 1 << 16)),
        parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        convert_options=csv.ConvertOptions(
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            column_types=None if schema is None else {f.name: f.type for f in schema},
        ),
    )
    return ParsedRun(table, tuple(malformed))


def parse_jsonl(data: bytes, schema: pa.Schema | None) -> ParsedRun:
    """Parse a run of JSON lines.

    Args:
        data: whole lines.
        schema: types to convert to; None infers them from this run.

    Returns:
        The rows, and a reason for each line that is not a JSON object. Bytes that are not UTF-8 become U+FFFD.
    """
    rows: list[dict[str, Any]] = []
    malformed: list[str] = []
    for line in data.decode("utf-8", errors="replace").removeprefix("\ufeff").split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            malformed.append(f"not JSON ({error}): {line[:80]}")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            malformed.append(f"not a JSON object: {line[:80]}")
    return ParsedRun(_table(rows, schema), tuple(malformed))


def _table(rows: list[dict[str, Any]], schema: pa.Schema | None) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row)) if schema is None else schema.names
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        wanted = None if schema is None else schema.field(name).type
        try:
            columns[name] = pa.array(values, wanted)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # one column, several types: keep what was written
            columns[name] = pa.array(
                [None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
            )
    return pa.table(columns)


def _open(storage: Storage, name: str) -> BinaryIO:
    file = storage.open(name)
    return gzip.open(file) if name.endswith(".gz") else file  # type: ignore[return-value]


def _record_ends(chunk: bytes, quotes_seen: int, *, is_csv: bool) -> tuple[NDArray[np.int64], int]:
    """Return the offsets just after each record's line feed, and the quotes seen so far."""
    view = np.frombuffer(chunk, np.uint8)
    feeds = np.flatnonzero(view == LINE_FEED)
    if not is_csv:
        return feeds + 1, 0
    quotes = np.flatnonzero(view == QUOTE)
    before = quotes_seen + np.searchsorted(quotes, feeds)
    return feeds[before % 2 == 0] + 1, quotes_seen + len(quotes)
