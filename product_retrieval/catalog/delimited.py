"""CSV and JSON-lines catalogues: cut into runs of whole records by byte offset, then parsed run by run.

A record is found without parsing it: in JSON lines a line feed ends it, in CSV a line feed outside a quoted cell
(RFC 4180), so that a quoted description may span lines. A quote opens a cell only where the cell begins: `5" screen`
is text.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv

from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage

SCAN_CHUNK_BYTES = 8 << 20
MAX_RECORD_BYTES = 64 << 20
"""A longer record is a quote that was never closed."""
CSV_TOKEN = re.compile(rb'(?:^|(?<=[,\n]))"(?:[^"]++|"")*+("?)|\n')
"""A quoted cell, with its closing quote where it has one, or the line feed that ends a record."""
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
    path = storage.path(name)
    digest = hashlib.sha256()
    try:
        with _open(storage, name) as file:
            chunks = _hashed(file, digest)
            ends = list(_csv_record_ends(chunks) if is_csv else _line_ends(chunks))
    except (OSError, EOFError, zlib.error) as error:
        raise CatalogError(f"{path}: cannot be read: {error}", path=path) from error
    except _UnclosedQuoteError as error:
        raise CatalogError(
            f"{path}: a quote is never closed; the record begins at byte {error.start}", path=path
        ) from error
    start, header = 0, b""
    if is_csv and ends:
        start = ends.pop(0)
        header = read_bytes(storage, name, 0, start).removeprefix(BYTE_ORDER_MARK)
    bounds = []
    for first in range(0, len(ends), records_per_run):
        run = ends[first : first + records_per_run]
        bounds.append((start, run[-1], len(run)))
        start = run[-1]
    if not bounds:
        raise CatalogError(f"{path}: holds no products", path=path)
    return RecordRuns(header, tuple(bounds), digest.hexdigest())


def read_bytes(storage: Storage, name: str, start: int, stop: int) -> bytes:
    """Return the (decompressed) bytes [start, stop) of a file."""
    with _open(storage, name) as file:
        file.seek(start)
        return file.read(stop - start)


def iterate_runs(storage: Storage, name: str, runs: RecordRuns) -> Iterator[bytes]:
    """Yield the (decompressed) bytes of each run, reading the file once from its beginning to its end."""
    with _open(storage, name) as file:
        for start, stop, _ in runs.bounds:
            file.seek(start)
            yield file.read(stop - start)


def parse_csv(data: bytes, header: bytes, schema: pa.Schema | None, *, as_text: Collection[str] = ()) -> ParsedRun:
    """Parse a run of CSV records.

    Args:
        data: whole records.
        header: the file's first line.
        schema: types to convert to; None infers them from this run.
        as_text: columns that are text whatever they look like, so that the id `007` stays one.

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
            column_types={name: pa.string() for name in as_text}
            if schema is None
            else {f.name: f.type for f in schema},
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
        except (ValueError, RecursionError) as error:
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
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            columns[name] = pa.array([_written(value) for value in values], pa.string())
    return pa.table(columns)


def _written(value: Any) -> str | None:
    """Return a JSON value as it was written: for columns of several types, and for what Arrow has no type for."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", errors="replace").decode()  # half a surrogate pair is no character


def _open(storage: Storage, name: str) -> BinaryIO:
    file = storage.open(name)
    return gzip.open(file) if name.endswith(".gz") else file  # type: ignore[return-value]


def _hashed(file: BinaryIO, digest: hashlib._Hash) -> Iterator[bytes]:
    """Yield a file's bytes in chunks, hashing them on the way."""
    while chunk := file.read(SCAN_CHUNK_BYTES):
        digest.update(chunk)
        yield chunk


def _line_ends(chunks: Iterable[bytes]) -> Iterator[int]:
    """Yield the offset just after each line, the last one too where no line feed ends it."""
    position, last = 0, 0
    for chunk in chunks:
        for feed in re.finditer(b"\n", chunk):
            last = position + feed.end()
            yield last
        position += len(chunk)
    if position > last:
        yield position


def _csv_record_ends(chunks: Iterable[bytes]) -> Iterator[int]:
    """Yield the offset just after each CSV record.

    Raises:
        _UnclosedQuoteError: a quoted cell has no end.
    """
    start, pending = 0, b""
    for chunk in chunks:
        pending += chunk
        ends = _ends_in(pending)
        yield from (start + end for end in ends)
        if ends:
            start, pending = start + ends[-1], pending[ends[-1] :]
        if len(pending) > MAX_RECORD_BYTES:
            raise _UnclosedQuoteError(start)
    if pending:
        if any(token.group(1) == b"" for token in CSV_TOKEN.finditer(pending)):
            raise _UnclosedQuoteError(start)
        yield start + len(pending)


def _ends_in(pending: bytes) -> list[int]:
    """Return the offsets just after each whole record at the beginning of some bytes."""
    ends = []
    for token in CSV_TOKEN.finditer(pending):
        if token.group(1) is None:
            ends.append(token.end())
        elif token.end() == len(pending):  # open, or its closing quote may turn out to be half of a doubled one
            break
    return ends


class _UnclosedQuoteError(Exception):
    """A quoted cell runs to the end of the file."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start
