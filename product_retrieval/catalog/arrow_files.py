"""Arrow catalogues: record batches one after the other, as streams (what `datasets` saves) or as files with a footer.

A file is a stream between a magic word and a footer (Arrow columnar format, "IPC Streaming Format" and "IPC File
Format"), so both are read as a stream. A slice is the bytes of whole batches and the rows to leave out of the first.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from product_retrieval.catalog.planners import Planned, difference, identity
from product_retrieval.catalog.repeated import RepeatedIds
from product_retrieval.catalog.slices import REFERENCE, CatalogPlan, ColumnOptions, Slice
from product_retrieval.catalog.source import Source, SourceFile
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage, pyarrow_source

FILE_MAGIC = b"ARROW1\0\0"
PICTURE = pa.struct([("bytes", pa.large_binary()), ("path", pa.string()), (REFERENCE, pa.string())])


@dataclass(frozen=True, slots=True)
class _Batch:
    start: int
    """Byte of its message."""
    stop: int
    rows: pa.RecordBatch


def plan_arrow(source: Source, columns: ColumnOptions, rows_per_part: int, ids: RepeatedIds) -> Planned:
    """Cut Arrow files into runs of rows.

    On a local disk only the ids and the layout are read. From an object store the files are read through once, as
    where a batch ends is only known when it was read.

    Raises:
        CatalogError: a file is broken, cut off, has other columns than the first, or dictionary-encoded ones.
    """
    schema: pa.Schema | None = None
    slices: list[Slice] = []
    digests = []
    for file in source.files:
        path = source.root.path(file.name)
        layout = hashlib.sha256()
        try:
            with _opened(source.root, file.name) as opened:
                found = _read_schema(opened, path)
                if schema is not None and not found.equals(schema):
                    raise CatalogError(
                        f"{path}: its columns differ from those of {source.files[0].name}: {difference(found, schema)}",
                        path=path,
                    )
                schema = found
                bounds = []
                for batch in _batches(opened, found, path):
                    bounds.append((batch.start, batch.stop, len(batch.rows)))
                    if columns.product_id in found.names:
                        ids.add(batch.rows.column(columns.product_id))
        except (pa.ArrowException, OSError, EOFError) as error:
            raise _broken(path, error) from error
        slices += _cut(file, bounds, rows_per_part, len(slices))
        layout.update(repr(bounds).encode())
        digests.append([file.name, identity(source, file, layout.hexdigest)])
    return schema, slices, digests


def read_rows(plan: CatalogPlan, slice_: Slice) -> pa.Table:
    """Return the rows of a slice; a picture's cell says where its bytes are found again.

    Raises:
        CatalogError: the file is damaged or has changed.
    """
    path = posixpath.join(plan.root, slice_.file)
    batches = []
    left_out, wanted = slice_.skipped, slice_.num_rows
    try:
        with _opened(Storage(plan.root), slice_.file) as file:
            file.seek(slice_.start)
            for batch in _batches(file, plan.schema, path, stop=slice_.stop):
                rows = batch.rows.slice(left_out, wanted)
                batches.append(_referring(rows, plan.columns.image, f"{slice_.file}#byte={batch.start}&row=", left_out))
                left_out, wanted = 0, wanted - len(rows)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _broken(path, error) from error
    return pa.Table.from_batches(batches)


def read_cell(file: BinaryIO, start: int, row: int, column: str) -> Any:
    """Return the cell of a row of the batch whose message begins at a byte, or None where there is none.

    Raises:
        pyarrow.ArrowException: the file is damaged.
        OSError: the same.
    """
    native = pa.PythonFile(file, mode="r")
    _go_to_stream(native)
    schema = pa.ipc.read_schema(native)
    native.seek(start)
    batch = pa.ipc.read_record_batch(native, schema)
    return batch.column(column)[row].as_py() if column in schema.names and row < len(batch) else None


def _opened(storage: Storage, name: str) -> pa.NativeFile:
    source = pyarrow_source(storage, name)
    return pa.memory_map(source) if isinstance(source, str) else pa.PythonFile(source, mode="r")


def _go_to_stream(file: pa.NativeFile) -> None:
    is_file = file.read(len(FILE_MAGIC)) == FILE_MAGIC
    file.seek(len(FILE_MAGIC) if is_file else 0)


def _read_schema(file: pa.NativeFile, path: str) -> pa.Schema:
    """Return the schema, the file standing behind it.

    Raises:
        CatalogError: a column is dictionary-encoded: its batches are not readable one by one.
    """
    _go_to_stream(file)
    schema = pa.ipc.read_schema(file).remove_metadata()
    encoded = [column.name for column in schema if pa.types.is_dictionary(column.type)]
    if encoded:
        raise CatalogError(
            f"{path}: column {encoded[0]!r} is dictionary-encoded; save the catalogue as Parquet", path=path
        )
    return schema


def _batches(file: pa.NativeFile, schema: pa.Schema, path: str, *, stop: int | None = None) -> Iterator[_Batch]:
    """Yield the batches from where the file stands to a byte, or to the mark that ends the stream."""
    size = file.size()
    while stop is None or file.tell() < stop:
        start = file.tell()
        if start >= size:
            raise CatalogError(f"{path}: cut off at byte {start}: the mark that ends the stream is missing", path=path)
        try:
            message = pa.ipc.read_message(file)
        except EOFError:  # the mark
            return
        if message.type != "record batch":
            raise CatalogError(f"{path}: holds a {message.type} at byte {start}; save it as Parquet", path=path)
        yield _Batch(start, file.tell(), pa.ipc.read_record_batch(message, schema))


def _cut(file: SourceFile, bounds: list[tuple[int, int, int]], rows_per_part: int, first_part: int) -> Iterator[Slice]:
    """Yield slices of whole parts over the batches of a file, given as first byte, byte after the last and rows."""
    num_rows = sum(count for _, _, count in bounds)
    starts, total = [], 0
    for _, _, count in bounds:
        starts.append(total)
        total += count
    first = 0
    for part, row in enumerate(range(0, num_rows, rows_per_part), first_part):
        stop_row = min(row + rows_per_part, num_rows)
        while starts[first] + bounds[first][2] <= row:
            first += 1
        last = first
        while starts[last] + bounds[last][2] < stop_row:
            last += 1
        yield Slice(
            part=part,
            file=file.name,
            start=bounds[first][0],
            stop=bounds[last][1],
            num_rows=stop_row - row,
            first_row=row,
            skipped=row - starts[first],
        )


def _referring(batch: pa.RecordBatch, column: str, prefix: str, first: int) -> pa.RecordBatch:
    """Replace pictures that are bytes by cells that also hold the reference of each; paths stay as they are."""
    at = batch.schema.get_field_index(column)
    if at < 0:
        return batch
    is_bytes = pa.types.is_binary(batch.schema.types[at]) or pa.types.is_large_binary(batch.schema.types[at])
    if not is_bytes and not pa.types.is_struct(batch.schema.types[at]):
        return batch
    cells = []
    for row, cell in enumerate(batch.column(at).to_pylist(), first):
        pair = {"bytes": cell, "path": None} if is_bytes else (cell or {})
        cells.append({**pair, REFERENCE: f"{prefix}{row}" if pair.get("bytes") else None})
    return batch.set_column(at, column, pa.array(cells, PICTURE))


def _broken(path: str, error: Exception) -> CatalogError:
    return CatalogError(f"{path}: not a readable Arrow file: {' '.join(str(error).split())}", path=path)
