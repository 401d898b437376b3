"""CSV and JSON-lines catalogues: cut into runs of whole records by byte offset, then parsed run by run.

A record is found without parsing it: in JSON lines a line feed ends it, in CSV a line feed outside a quoted cell
(RFC 4180), so that a quoted description may span lines. A quote opens a cell only where the cell begins: `5" screen`
is text. The header tells which of `,` `;` `|` and tab stands between cells.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import csv

from product_retrieval.catalog.gzip_points import AccessPoint, InflatedFile, Readable, is_gzip, open_at, point_before
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage

SCAN_CHUNK_BYTES = 8 << 20
MAX_RECORD_BYTES = 64 << 20
"""A longer record is a quote that was never closed."""
DELIMITERS = b",;\t|"
CSV_TOKENS = {
    delimiter: re.compile(rb'(?:^|(?<=[%s\n]))"(?:[^"]++|"")*+("?)|\n' % re.escape(bytes([delimiter])))
    for delimiter in DELIMITERS
}
"""By delimiter: a quoted cell, with its closing quote where it has one, or the line feed that ends a record."""
LINE_FEED = re.compile(rb"\n")
QUOTED = re.compile(rb'"(?:[^"]|"")*"')
HEADER_PEEK_BYTES = 64 << 10
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class RecordRuns:
    """Where the records of one file lie."""

    header: bytes
    """The CSV line with the column names; empty for JSON lines."""
    bounds: tuple[tuple[int, int, int], ...]
    """Per run: first byte, byte after the last, records in it; bytes as they are when decompressed."""
    sha256: str
    """Of the decompressed bytes."""
    points: tuple[AccessPoint, ...] = ()
    """Where decompression can begin; empty where the file is not compressed."""

    def point_before(self, start: int) -> AccessPoint | None:
        """Return where to begin for the run that starts at a byte."""
        return point_before(self.points, start)


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
    points: list[AccessPoint] = []
    try:
        with storage.open(name) as file:
            chunks = _hashed(InflatedFile(file, found=points) if is_gzip(file) else file, digest)
            ends = _csv_record_ends(chunks) if is_csv else _line_ends(chunks)
            header_stop = next(ends, 0) if is_csv else 0
            bounds = tuple(_runs_of(ends, header_stop, records_per_run))
    except (OSError, EOFError, zlib.error) as error:
        raise CatalogError(f"{path}: cannot be read: {error}", path=path) from error
    except _UnclosedQuoteError as error:
        raise CatalogError(
            f"{path}: a quote is never closed; the record begins at byte {error.start}", path=path
        ) from error
    if not bounds:
        raise CatalogError(f"{path}: holds no products", path=path)
    header = read_bytes(storage, name, 0, header_stop, point_before(points, 0)).removeprefix(BYTE_ORDER_MARK)
    return RecordRuns(header, bounds, digest.hexdigest(), tuple(points))


def read_bytes(storage: Storage, name: str, start: int, stop: int, point: AccessPoint | None = None) -> bytes:
    """Return the bytes [start, stop) of a file, or of what is compressed in it if a place before them is given."""
    with open_at(storage, name, point) as file:
        file.seek(start)
        return file.read(stop - start)


def iterate_runs(storage: Storage, name: str, runs: RecordRuns) -> Iterator[bytes]:
    """Yield the (decompressed) bytes of each run, reading the file once from its beginning to its end."""
    with open_at(storage, name, runs.point_before(0)) as file:
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

    names, delimiter = column_names(header), chr(delimiter_of(header))
    table = csv.read_csv(
        io.BytesIO(data.decode("utf-8", errors="replace").encode()),
        read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=max(len(data) * 3, 1 << 16)),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
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
    return ParsedRun(table_of_objects(rows, schema), tuple(malformed))


def table_of_objects(rows: list[dict[str, Any]], schema: pa.Schema | None) -> pa.Table:
    """Return JSON objects as rows; a column whose values have no type in common is text."""
    names = list(dict.fromkeys(name for row in rows for name in row)) if schema is None else schema.names
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        wanted = None if schema is None else schema.field(name).type
        try:
            columns[name] = pa.array(values, wanted)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            columns[name] = pa.array([as_written(value) for value in values], pa.string())
    return pa.table(columns)


def as_written(value: Any) -> str | None:
    """Return a JSON value as it was written: for columns of several types, and for what Arrow has no type for."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", errors="replace").decode()  # half a surrogate pair is no character


def column_names(header: bytes) -> list[str]:
    """Return the names in a CSV header."""
    delimiter = chr(delimiter_of(header))
    return list(csv.read_csv(io.BytesIO(header), parse_options=csv.ParseOptions(delimiter=delimiter)).column_names)


def delimiter_of(header: bytes) -> int:
    """Return the byte between the cells of a CSV header: the most frequent one outside quotes, else a comma."""
    line = QUOTED.sub(b"", header[:HEADER_PEEK_BYTES]).partition(b"\n")[0]
    return max(DELIMITERS, key=line.count)


def _hashed(file: Readable, digest: hashlib._Hash) -> Iterator[bytes]:
    """Yield a file's bytes in chunks, hashing them on the way."""
    while chunk := file.read(SCAN_CHUNK_BYTES):
        digest.update(chunk)
        yield chunk


def _runs_of(ends: Iterator[int], start: int, records_per_run: int) -> Iterator[tuple[int, int, int]]:
    """Yield first byte, byte after the last and number of the records of each run."""
    while run := list(itertools.islice(ends, records_per_run)):
        yield start, run[-1], len(run)
        start = run[-1]


def _line_ends(chunks: Iterable[bytes]) -> Iterator[int]:
    """Yield the offset just after each line, the last one too where no line feed ends it."""
    position, last = 0, 0
    for chunk in chunks:
        for feed in LINE_FEED.finditer(chunk):
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
    token: re.Pattern[bytes] | None = None
    for chunk in chunks:
        pending += chunk
        token = token or CSV_TOKENS[delimiter_of(pending)]
        ends = _ends_in(pending, token)
        yield from (start + end for end in ends)
        if ends:
            start, pending = start + ends[-1], pending[ends[-1] :]
        if len(pending) > MAX_RECORD_BYTES:
            raise _UnclosedQuoteError(start)
    if pending and token:
        if any(found.group(1) == b"" for found in token.finditer(pending)):
            raise _UnclosedQuoteError(start)
        yield start + len(pending)


def _ends_in(pending: bytes, token: re.Pattern[bytes]) -> list[int]:
    """Return the offsets just after each whole record at the beginning of some bytes."""
    if b'"' not in pending:
        return [feed.end() for feed in LINE_FEED.finditer(pending)]
    ends = []
    for found in token.finditer(pending):
        if found.group(1) is None:
            ends.append(found.end())
        elif found.end() == len(pending):  # open, or its closing quote may turn out to be half of a doubled one
            break
    return ends


class _UnclosedQuoteError(Exception):
    """A quoted cell runs to the end of the file."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start
