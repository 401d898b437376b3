"""The plan of a catalogue: its columns, its rows cut into parts, and what tells it from every other catalogue.

A part is a run of rows of one file; the same files and options always give the same parts, so that a job that was
killed knows which parts are done.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from product_retrieval.catalog import delimited
from product_retrieval.catalog.source import Kind, Source, SourceFile, find_source
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage, pyarrow_source

RESERVED = ("image_vector", "text_vector", "image_ref")
PARQUET_FOOTER_BYTES = 8  # length of the footer, then the magic word
TEMPLATE_FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnOptions:
    """Which columns of the catalogue mean what; all others travel along as attributes."""

    product_id: str = "product_id"
    """Column with the unique id of a product."""
    image: str = "image"
    """Column with the picture: bytes, or a path below --image-root."""
    text: str | None = None
    """Column or template such as '{title}. {description}'; default: `text`, else title and description."""
    group_id: str = "group_id"
    """Column that is equal for listings and variants of one product; optional."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Rows of one file that become one part of the embeddings."""

    part: int
    file: str
    start: int
    """First row (Parquet), byte (CSV, JSON lines) or file of the sorted listing (folder)."""
    stop: int
    """One past the last."""
    num_rows: int
    """Products and unreadable records in it."""
    header: bytes = b""
    members: tuple[str, ...] = ()
    """Folder catalogues: the pictures, relative to the root."""
    repeated: tuple[int, ...] = ()
    """Rows of this slice whose product id was already taken by an earlier row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPlan:
    """A catalogue, ready to be read part by part."""

    uri: str
    kind: Kind
    root: str
    image_root: str
    columns: ColumnOptions
    text_template: str | None
    """Template over columns, or None where the catalogue has no text."""
    schema: pa.Schema
    slices: tuple[Slice, ...]
    fingerprint: str
    """SHA-256 over what the rows and parts depend on."""

    @property
    def num_products(self) -> int:
        """Rows of the catalogue."""
        return sum(slice_.num_rows for slice_ in self.slices)

    @property
    def has_image(self) -> bool:
        """Whether products have pictures."""
        return self.kind == "folder" or self.columns.image in self.schema.names

    @property
    def attribute_names(self) -> list[str]:
        """Columns that travel along with their types: all but the id, the picture and the text column itself."""
        consumed = {self.columns.product_id, self.columns.image, "product_id", "text"}
        return [name for name in self.schema.names if name not in consumed]


def plan_catalog(
    uri: str,
    *,
    columns: ColumnOptions | None = None,
    kind: Kind | None = None,
    image_root: str | None = None,
    rows_per_part: int = 1024,
) -> CatalogPlan:
    """Read the heads and the ids of a catalogue and cut its rows into parts.

    Args:
        uri: file, folder or glob; local or in an object store.
        columns: which columns mean what.
        kind: what the files are; None decides by suffix.
        image_root: folder that image paths are relative to and cannot leave; None takes the catalogue's own.
        rows_per_part: products in each part but the last of a file.

    Returns:
        The plan; equal input gives an equal plan.

    Raises:
        CatalogError: nothing is there, a file is broken, or a named column is missing.
    """
    columns = columns or ColumnOptions()
    source = find_source(uri, kind)
    match source.kind:
        case "parquet":
            schema, slices, ids, digests = _plan_parquet(source, columns, rows_per_part)
        case "folder":
            schema, slices, ids, digests = _plan_folder(source, rows_per_part)
        case _:
            schema, slices, ids, digests = _plan_delimited(source, columns, rows_per_part)
    template = None if source.kind == "folder" else resolve_text(schema, columns, uri)
    _check_columns(schema, columns, template, uri, kind=source.kind)
    slices = _mark_repeated(slices, ids)
    if not any(slice_.num_rows for slice_ in slices):
        raise CatalogError(f"{uri}: holds no products", path=uri)
    identity = {
        "kind": source.kind,
        "files": digests,
        "columns": [columns.product_id, columns.image, template, columns.group_id],
        "rows_per_part": rows_per_part,
    }
    return CatalogPlan(
        uri=uri,
        kind=source.kind,
        root=source.root.uri,
        image_root=image_root or source.root.uri,
        columns=columns,
        text_template=("{text}" if source.kind == "folder" else template),
        schema=schema,
        slices=tuple(slices),
        fingerprint=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    )


def resolve_text(schema: pa.Schema, columns: ColumnOptions, uri: str) -> str | None:
    """Return the template that makes a product's text, or None where there is nothing to make it from."""
    names = set(schema.names)
    if columns.text is None:
        if "text" in names:
            return "{text}"
        found = [f"{{{name}}}" for name in ("title", "description") if name in names]
        return ". ".join(found) or None
    template = f"{{{columns.text}}}" if columns.text in names else columns.text
    wanted = TEMPLATE_FIELD.findall(template)
    missing = [name for name in wanted if name not in names]
    if missing or not wanted:
        what = f"no column {missing[0]!r}" if missing else f"no column {columns.text!r}"
        raise CatalogError(f"{uri}: {what} for --columns.text; it has {', '.join(schema.names)}", path=uri)
    return template


def _check_columns(schema: pa.Schema, columns: ColumnOptions, template: str | None, uri: str, *, kind: Kind) -> None:
    if kind == "folder":
        return
    names = schema.names
    if columns.product_id not in names:
        raise CatalogError(
            f"{uri}: no column {columns.product_id!r}; it has {', '.join(names)}; "
            "name the id column with --columns.product-id",
            path=uri,
        )
    if columns.image not in names and columns.image != ColumnOptions().image:
        raise CatalogError(
            f"{uri}: no column {columns.image!r} for --columns.image; it has {', '.join(names)}", path=uri
        )
    if columns.image not in names and template is None:
        raise CatalogError(
            f"{uri}: nothing to encode: no column {columns.image!r} and no text; it has {', '.join(names)}; "
            "name them with --columns.image and --columns.text",
            path=uri,
        )
    taken = [name for name in RESERVED if name in names and name != columns.image]
    if taken:
        raise CatalogError(
            f"{uri}: column {taken[0]!r} has the name of a column that this job writes; rename it", path=uri
        )


def _plan_parquet(
    source: Source, columns: ColumnOptions, rows_per_part: int
) -> tuple[pa.Schema, list[Slice], pa.ChunkedArray, list[Any]]:
    schema: pa.Schema | None = None
    slices: list[Slice] = []
    chunks: list[pa.Array] = []
    digests = []
    for file in source.files:
        path = source.root.path(file.name)
        try:
            with pq.ParquetFile(pyarrow_source(source.root, file.name)) as parquet:
                found = parquet.schema_arrow.remove_metadata()
                num_rows = parquet.metadata.num_rows
                if columns.product_id in found.names:
                    ids = parquet.read(columns=[columns.product_id]).column(0)
                    chunks += [chunk.cast(pa.string()) for chunk in ids.chunks]
        except (pa.ArrowException, OSError) as error:
            raise CatalogError(
                f"{path}: not a readable Parquet file: {' '.join(str(error).split())}", path=path
            ) from error
        if schema is not None and not found.equals(schema):
            raise CatalogError(
                f"{path}: its columns differ from those of {source.files[0].name}: {_difference(found, schema)}",
                path=path,
            )
        schema = found
        digests.append([file.name, file.size_bytes, _footer_sha256(source, file)])
        for start in range(0, num_rows, rows_per_part):
            stop = min(start + rows_per_part, num_rows)
            slices.append(Slice(part=len(slices), file=file.name, start=start, stop=stop, num_rows=stop - start))
    return schema, slices, pa.chunked_array(chunks, pa.string()), digests


def _plan_delimited(
    source: Source, columns: ColumnOptions, rows_per_part: int
) -> tuple[pa.Schema, list[Slice], pa.ChunkedArray, list[Any]]:
    slices: list[Slice] = []
    digests = []
    schemas = []
    is_csv = source.kind == "csv"
    for file in source.files:
        runs = delimited.find_runs(source.root, file.name, is_csv=is_csv, records_per_run=rows_per_part)
        digests.append([file.name, runs.sha256])
        for start, stop, _ in runs.bounds:
            slice_ = Slice(part=len(slices), file=file.name, start=start, stop=stop, num_rows=0, header=runs.header)
            slices.append(slice_)
            schemas.append(parse_slice(source, slice_, None).rows.schema)
    schema = _common_schema(schemas)
    counted: list[Slice] = []
    chunks: list[pa.Array] = []
    for slice_ in slices:
        run = parse_slice(source, slice_, schema)
        counted.append(replace(slice_, num_rows=len(run.rows) + len(run.malformed)))
        if columns.product_id in schema.names:
            ids = run.rows.column(columns.product_id).cast(pa.string()).combine_chunks()
            chunks += [ids, pa.nulls(len(run.malformed), pa.string())]
    return schema, counted, pa.chunked_array(chunks, pa.string()), digests


def parse_slice(source: Source | CatalogPlan, slice_: Slice, schema: pa.Schema | None) -> delimited.ParsedRun:
    """Parse the CSV or JSON lines of a slice.

    Raises:
        CatalogError: the file is not what its suffix says.
    """
    root = Storage(source.root) if isinstance(source, CatalogPlan) else source.root
    data = delimited.read_bytes(root, slice_.file, slice_.start, slice_.stop)
    try:
        if source.kind == "csv":
            return delimited.parse_csv(data, slice_.header, schema)
        return delimited.parse_jsonl(data, schema)
    except pa.ArrowException as error:
        path = root.path(slice_.file)
        raise CatalogError(
            f"{path}: not a readable {source.kind} file: {' '.join(str(error).split())}", path=path
        ) from error


def _plan_folder(source: Source, rows_per_part: int) -> tuple[pa.Schema, list[Slice], pa.ChunkedArray, list[Any]]:
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
    digests = [[file.name, file.size_bytes, file.stamp] for file in source.files]
    return schema, slices, pa.chunked_array([pa.array(names)]), digests


def _common_schema(schemas: list[pa.Schema]) -> pa.Schema:
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


def _mark_repeated(slices: list[Slice], ids: pa.ChunkedArray) -> list[Slice]:
    """Note, per slice, the rows whose id an earlier row has taken."""
    table = pa.table({"product_id": ids, "row": pa.array(range(len(ids)), pa.int64())})
    table = table.filter(pc.is_valid(table["product_id"]))
    first = table.group_by("product_id", use_threads=False).aggregate([("row", "min"), ("row", "count")])
    first = first.filter(pc.greater(first["row_count"], 1))
    if not len(first):
        return slices
    several = table.filter(pc.is_in(table["product_id"], first["product_id"].combine_chunks()))
    repeated = sorted(set(several["row"].to_pylist()) - set(first["row_min"].to_pylist()))
    marked, offset = [], 0
    for slice_ in slices:
        rows = tuple(row - offset for row in repeated if offset <= row < offset + slice_.num_rows)
        marked.append(replace(slice_, repeated=rows) if rows else slice_)
        offset += slice_.num_rows
    return marked


def _footer_sha256(source: Source, file: SourceFile) -> str:
    """Hash a Parquet file's footer: sizes, offsets and statistics of every column, without reading the data."""
    with source.root.open(file.name) as handle:
        handle.seek(-PARQUET_FOOTER_BYTES, 2)
        length = int.from_bytes(handle.read(4), "little")
        handle.seek(-(PARQUET_FOOTER_BYTES + length), 2)
        return hashlib.sha256(handle.read(length)).hexdigest()


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    changes = [f"no {field.name}" for field in expected if field.name not in found.names]
    changes += [f"extra {field.name}" for field in found if field.name not in expected.names]
    changes += [
        f"{field.name} is {field.type}, not {expected.field(field.name).type}"
        for field in found
        if field.name in expected.names and field.type != expected.field(field.name).type
    ]
    return "; ".join(changes) or "another order"
