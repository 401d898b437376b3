"""The plan of a catalogue: its columns, its rows cut into parts, and what tells it from every other catalogue.

A part is a run of rows of one file; the same files and options always give the same parts, so that a job that was
killed knows which parts are done.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.catalog import arrow_files, planners, webdataset
from product_retrieval.catalog.fetch_options import FetchOptions
from product_retrieval.catalog.hugging_face import with_file_names
from product_retrieval.catalog.kinds import Kind
from product_retrieval.catalog.repeated import RepeatedIds
from product_retrieval.catalog.slices import TEMPLATE_FIELD, CatalogPlan, ColumnOptions, Slice
from product_retrieval.catalog.source import Source, find_source
from product_retrieval.errors import CatalogError

RESERVED = ("image_vector", "text_vector", "image_key", "text_key", "image_ref")
"""Columns that the embedding job writes itself."""
MIN_ROWS_PER_PART, MAX_ROWS_PER_PART = 64, 1024
"""Bounds of the chosen number: a batch of an encoder, and what a part may hold in memory with its pixels."""
PARTS_OF_SMALL_CATALOG = 64


def plan_catalog(
    uri: str,
    *,
    columns: ColumnOptions | None = None,
    kind: Kind | None = None,
    image_root: str | None = None,
    rows_per_part: int | None = None,
    fetch: FetchOptions | None = None,
) -> CatalogPlan:
    """Read the heads and the ids of a catalogue and cut its rows into parts.

    Args:
        uri: file, folder or glob; local or in an object store.
        columns: which columns mean what.
        kind: what the files are; None decides by suffix and content.
        image_root: folder that image paths are relative to and cannot leave; None takes the catalogue's own.
        rows_per_part: products in each part but the last of a file; None chooses by the size of the catalogue.
        fetch: hosts whose pictures are fetched, and how; None fetches none. No part of the fingerprint.

    Returns:
        The plan; equal input gives an equal plan.

    Raises:
        CatalogError: nothing is there, a file is broken, or a named column is missing.
    """
    source = find_source(uri, kind)
    columns = with_file_names(source, columns or ColumnOptions())
    num_rows = planners.count_rows(source)
    chosen = rows_per_part or (MAX_ROWS_PER_PART if num_rows is None else _choose_rows_per_part(num_rows))
    ids = RepeatedIds()
    schema, slices, digests = _plan(source, columns, chosen, ids)
    if rows_per_part is None and num_rows is None:  # only the plan tells how small the catalogue is
        fitting = _choose_rows_per_part(sum(slice_.num_rows for slice_ in slices))
        if fitting < chosen:
            chosen, ids = fitting, RepeatedIds()
            schema, slices, digests = _plan(source, columns, chosen, ids)
    template = None if source.kind == "folder" else resolve_text(schema, columns, uri)
    _check_columns(schema, columns, template, uri, kind=source.kind)
    slices = _mark_repeated(slices, ids.rows())
    if not any(slice_.num_rows for slice_ in slices):
        raise CatalogError(f"{uri}: holds no products", path=uri)
    identity = {
        "kind": source.kind,
        "files": digests,
        "columns": [columns.product_id, columns.image, template, columns.group_id],
        "rows_per_part": chosen,
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
        num_files=len(source.files),
        size_bytes=sum(file.size_bytes for file in source.files),
        fetch=fetch or FetchOptions(),
    )


def _plan(source: Source, columns: ColumnOptions, rows_per_part: int, ids: RepeatedIds) -> planners.Planned:
    match source.kind:
        case "parquet":
            return planners.plan_parquet(source, columns, rows_per_part, ids)
        case "folder":
            return planners.plan_folder(source, rows_per_part)
        case "webdataset":
            return webdataset.plan_webdataset(source, columns, rows_per_part, ids)
        case "arrow":
            return arrow_files.plan_arrow(source, columns, rows_per_part, ids)
        case _:
            return planners.plan_delimited(source, columns, rows_per_part, ids)


def _choose_rows_per_part(num_rows: int) -> int:
    """Cut a small catalogue into parts enough for many encoders; equal files always give the same number."""
    wanted = 1 << max(0, (num_rows - 1) // PARTS_OF_SMALL_CATALOG).bit_length()
    return max(MIN_ROWS_PER_PART, min(MAX_ROWS_PER_PART, wanted))


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


def _mark_repeated(slices: list[Slice], repeated: NDArray[np.int64]) -> list[Slice]:
    """Note, per slice, the rows whose id an earlier row has taken."""
    if not len(repeated):
        return slices
    marked, offset = [], 0
    for slice_ in slices:
        low, high = np.searchsorted(repeated, [offset, offset + slice_.num_rows])
        rows = tuple((repeated[low:high] - offset).tolist())
        marked.append(replace(slice_, repeated=rows) if rows else slice_)
        offset += slice_.num_rows
    return marked
