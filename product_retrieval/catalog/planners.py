"""How each kind of catalogue is cut into slices, and what tells its files from other ones.

Every planner returns the schema, the slices in order and a digest of the files, and hands on the ids by row.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from product_retrieval.catalog import delimited, parquet_rows
from product_retrieval.catalog.hugging_face import below_its_folder
from product_retrieval.catalog.repeated import RepeatedIds
from product_retrieval.catalog.slices import TEMPLATE_FIELD, CatalogPlan, ColumnOptions, Slice
from product_retrieval.catalog.source import Source, SourceFile
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage, pyarrow_source

PARQUET_FOOTER_BYTES = 8
"""Length of the footer, then the magic word (Apache Parquet format, "File format")."""
MANY_ROWS_DECODED, MANY_BYTES_DECODED = 8.0, 8 << 30
"""For each row that is used, and in all: beyond both, a file's row groups are worth a word to its user."""
HASHED_WHOLE_BYTES = 4 << 30
"""Some seconds of reading."""

logger = logging.getLogger(__name__)

Planned = tuple[pa.Schema, list[Slice], list[Any]]


def count_rows(source: Source) -> int | None:
    """Return the rows of a catalogue where that takes no reading, else None; a broken file is left to its planner."""
    if source.kind == "folder":
        return len(source.files)
    if source.kind != "parquet":
        return None
    try:
        return sum(int(pq.read_metadata(pyarrow_source(source.root, file.name)).num_rows) for file in source.files)
    except (pa.ArrowException, OSError):
        return 0


def plan_parquet(source: Source, columns: ColumnOptions, rows_per_part: int, ids: RepeatedIds) -> Planned:
    """Cut Parquet files into runs of rows."""
    schema: pa.Schema | None = None
    slices: list[Slice] = []
    digests = []
    for file in source.files:
        path = source.root.path(file.name)
        try:
            with pq.ParquetFile(pyarrow_source(source.root, file.name)) as parquet:
                found = parquet.schema_arrow.remove_metadata()
                num_rows = parquet.metadata.num_rows
                decoded = parquet_rows.rows_decoded_per_row(parquet.metadata, rows_per_part)
                if columns.product_id in found.names:
                    for batch in parquet.iter_batches(columns=[columns.product_id]):
                        ids.add(below_its_folder(batch.column(0), columns.product_id, file.name))
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(
                f"{path}: not a readable Parquet file: {' '.join(str(error).split())}", path=path
            ) from error
        if schema is not None and not found.equals(schema):
            raise CatalogError(
                f"{path}: its columns differ from those of {source.files[0].name}: {difference(found, schema)}",
                path=path,
            )
        schema = found
        if decoded > MANY_ROWS_DECODED and decoded * file.size_bytes > MANY_BYTES_DECODED:
            logger.warning(
                "%s: its row groups are larger than parts: %.0f rows are decoded for each row that is used; "
                "write it again with row_group_size=%d, or raise --rows-per-part",
                path,
                decoded,
                rows_per_part,
            )
        digests.append([file.name, identity(source, file, lambda file=file: _footer_sha256(source, file))])  # type: ignore[misc]
        for start in range(0, num_rows, rows_per_part):
            stop = min(start + rows_per_part, num_rows)
            slices.append(
                Slice(
                    part=len(slices),
                    file=file.name,
                    start=start,
                    stop=stop,
                    num_rows=stop - start,
                    first_row=start,
                )
            )
    return schema, slices, digests


def plan_delimited(source: Source, columns: ColumnOptions, rows_per_part: int, ids: RepeatedIds) -> Planned:
    """Cut CSV or JSON-lines files into runs of records, parsing each once for its types and once for its ids."""
    digests = []
    schemas: list[pa.Schema] = []
    found: list[tuple[SourceFile, delimited.RecordRuns]] = []
    for file in source.files:
        runs = delimited.find_runs(source.root, file.name, is_csv=source.kind == "csv", records_per_run=rows_per_part)
        found.append((file, runs))
        digests.append([file.name, runs.sha256])
        for data in delimited.iterate_runs(source.root, file.name, runs):
            schemas.append(_parse(source, file.name, data, runs.header, None, columns).rows.schema)
            _check_names(source, file, schemas)
    schema = common_schema(schemas)
    slices: list[Slice] = []
    for file, runs in found:
        first_row = 0
        every_run = delimited.iterate_runs(source.root, file.name, runs)
        for (start, stop, _), data in zip(runs.bounds, every_run, strict=True):
            run = _parse(source, file.name, data, runs.header, schema, columns)
            num_rows = len(run.rows) + len(run.malformed)
            if not num_rows:  # blank lines
                continue
            slices.append(
                Slice(
                    part=len(slices),
                    file=file.name,
                    start=start,
                    stop=stop,
                    num_rows=num_rows,
                    first_row=first_row,
                    point=runs.point_before(start),
                    header=runs.header,
                )
            )
            first_row += num_rows
            if columns.product_id in schema.names:
                ids.add(below_its_folder(run.rows.column(columns.product_id), columns.product_id, file.name))
                ids.add(pa.nulls(len(run.malformed), pa.string()))
    return schema, slices, digests


def _check_names(source: Source, file: SourceFile, schemas: list[pa.Schema]) -> None:
    """Refuse a CSV file with repeated column names, or with other columns than the files before it."""
    path, names = source.root.path(file.name), schemas[-1].names
    repeated = sorted(name for name in set(names) if names.count(name) > 1)
    if repeated:
        raise CatalogError(f"{path}: more than one column {repeated[0]!r}", path=path)
    if source.kind == "csv" and set(names) != set(schemas[0].names):
        raise CatalogError(
            f"{path}: its columns differ from those of {source.files[0].name}: {difference(schemas[-1], schemas[0])}",
            path=path,
        )


def parse_slice(plan: CatalogPlan, slice_: Slice) -> delimited.ParsedRun:
    """Parse the CSV or JSON lines of a slice.

    Raises:
        CatalogError: the file is not what its suffix says.
    """
    source = Source(plan.kind, Storage(plan.root), ())
    data = delimited.read_bytes(source.root, slice_.file, slice_.start, slice_.stop, slice_.point)
    return _parse(source, slice_.file, data, slice_.header, plan.schema, plan.columns)


def _parse(
    source: Source, name: str, data: bytes, header: bytes, schema: pa.Schema | None, columns: ColumnOptions
) -> delimited.ParsedRun:
    """Parse whole records of a file; a schema of None infers the types."""
    try:
        if source.kind == "csv":
            return delimited.parse_csv(data, header, schema, as_text=_written_columns(columns))
        return delimited.parse_jsonl(data, schema)
    except pa.ArrowException as error:
        path, reason = source.root.path(name), " ".join(str(error).split())
        raise CatalogError(f"{path}: not a readable {source.kind} file: {reason}", path=path) from error


def _written_columns(columns: ColumnOptions) -> list[str]:
    """Return the columns of a CSV file whose values are kept letter by letter: the id `007` is not the number 7."""
    text = [columns.text] if columns.text and not TEMPLATE_FIELD.search(columns.text) else []
    return [columns.product_id, columns.image, columns.group_id, "title", "description", "text", *text]


def plan_folder(source: Source, rows_per_part: int) -> Planned:
    """Cut a folder of pictures into runs of its sorted listing."""
    names = [file.name for file in source.files]
    slices = [
        Slice(
            part=part,
            file="",
            start=start,
            stop=min(start + rows_per_part, len(names)),
            num_rows=len(names[start : start + rows_per_part]),
            members=tuple(names[start : start + rows_per_part]),
        )
        for part, start in enumerate(range(0, len(names), rows_per_part))
    ]
    schema = pa.schema([("product_id", pa.string()), ("text", pa.string())])
    digests = [[file.name, file.size_bytes, file.stamp] for file in (*source.files, *source.sidecars)]
    return schema, slices, digests


def common_schema(schemas: list[pa.Schema]) -> pa.Schema:
    """Return one type a column: the widest that was inferred, text where they disagree."""
    seen: dict[str, list[pa.DataType]] = defaultdict(list)
    for schema in schemas:
        for field in schema:
            seen[field.name].append(field.type)
    return pa.schema([(name, _common_type(types)) for name, types in seen.items()])


def _common_type(types: list[pa.DataType]) -> pa.DataType:
    distinct = list(dict.fromkeys(t for t in types if not pa.types.is_null(t)))
    if len(distinct) == 1:
        return distinct[0]
    if distinct and all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in distinct):
        return pa.float64()
    return pa.string()


def identity(source: Source, file: SourceFile, summarize: Callable[[], str]) -> list[str | int]:
    """Return what tells a file from another version of it.

    That is its ETag in an object store and its hash on disk; of a large file on disk, which would take minutes to
    hash, what `summarize` returns (a digest of where its rows lie) and the time of the last change.
    """
    if not source.root.is_local:
        return [file.size_bytes, file.stamp]
    if file.size_bytes <= HASHED_WHOLE_BYTES:
        return [source.root.sha256(file.name)]
    return [file.size_bytes, file.stamp, summarize()]


def _footer_sha256(source: Source, file: SourceFile) -> str:
    """Return the hash of a Parquet file's footer: sizes, offsets and statistics of every column."""
    with source.root.open(file.name) as handle:
        handle.seek(-PARQUET_FOOTER_BYTES, 2)
        length = int.from_bytes(handle.read(4), "little")
        handle.seek(-(PARQUET_FOOTER_BYTES + length), 2)
        return hashlib.sha256(handle.read(length)).hexdigest()


def difference(found: pa.Schema, expected: pa.Schema) -> str:
    """Say in which columns a file differs from the first one."""
    changes = [f"no {field.name}" for field in expected if field.name not in found.names]
    changes += [f"extra {field.name}" for field in found if field.name not in expected.names]
    changes += [
        f"{field.name} is {field.type}, not {expected.field(field.name).type}"
        for field in found
        if field.name in expected.names and field.type != expected.field(field.name).type
    ]
    return "; ".join(changes) or "another order"
