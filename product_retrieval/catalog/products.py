"""The rows of one slice of a catalogue as products: id, text, picture bytes, attributes, and the rows that are none."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from product_retrieval.catalog import arrow_files, parquet_rows, webdataset
from product_retrieval.catalog.contained import UnreadableImageError, read_file_below
from product_retrieval.catalog.hugging_face import below_its_folder
from product_retrieval.catalog.kinds import SIDECAR_SUFFIX
from product_retrieval.catalog.planners import parse_slice
from product_retrieval.catalog.rejections import Rejection
from product_retrieval.catalog.row_pictures import KnownKeys, with_pictures
from product_retrieval.catalog.slices import IMAGE_CELL, SOURCE, TEMPLATE_FIELD, CatalogPlan, Slice
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage, pyarrow_source

MAX_TEXT_CHARS = 16_384
"""What follows is cut off: no text tower reads as far, and one pasted book must not slow a part down."""

DANGLING = re.compile(r"(?:^[\s.,;:|/-]+)|(?:[\s,;:|/-]+$)|(?<=[.,;:|/-])(?:\s*[.,;:|/-])+")


@dataclass(frozen=True, slots=True)
class SlicedProducts:
    """The products of a slice."""

    table: pa.Table
    """Columns product_id, text, image_ref (or null), the attributes, and ours: IMAGE (bytes or null), SOURCE, and
    KNOWN_KEY, the content key of a picture that was not read."""
    rejections: tuple[Rejection, ...]
    """Records that are no product; with the table they make up all rows of the slice."""


def read_slice(plan: CatalogPlan, slice_: Slice, *, known_keys: KnownKeys | None = None) -> SlicedProducts:
    """Read the products of a slice with their picture bytes.

    Args:
        plan: from plan_catalog.
        slice_: one of its slices.
        known_keys: gives, for paths and URLs, the content keys of pictures that need not be read; None: all are.

    Returns:
        Its products and the records that are none; together `slice_.num_rows`.

    Raises:
        CatalogError: a file is broken or has changed since it was planned.
    """
    malformed: tuple[str, ...] = ()
    match plan.kind:
        case "folder":
            rows = _folder_rows(plan, slice_)
        case "parquet":
            rows = _parquet_rows(plan, slice_)
        case "arrow":
            rows = arrow_files.read_rows(plan, slice_)
        case _:
            run = (webdataset.read_samples if plan.kind == "webdataset" else parse_slice)(plan, slice_)
            rows, malformed = run.rows.select(plan.schema.names), run.malformed
    if len(rows) + len(malformed) != slice_.num_rows:
        raise CatalogError(f"{posixpath.join(plan.root, slice_.file)}: changed while it was read", path=slice_.file)
    where = f"{slice_.file}:{slice_.first_row}-{slice_.first_row + slice_.num_rows - 1}"
    rejections = [Rejection(where, "read", "malformed_record", why) for why in malformed]
    for column in {plan.columns.product_id, plan.columns.image} & set(rows.column_names):
        at = rows.column_names.index(column)
        rows = rows.set_column(at, column, below_its_folder(rows.column(column), column, slice_.file))
    table, rejections = _with_identity(plan, slice_, rows, rejections)
    table, without_picture = with_pictures(plan, table, known_keys=known_keys)
    return SlicedProducts(table, (*rejections, *without_picture))


def render_text(template: str, columns: dict[str, list[Any]], num_rows: int) -> list[str | None]:
    """Fill a text template for each row, without the punctuation that missing values would leave behind.

    Args:
        template: text with `{column}` fields.
        columns: values by column name; lists are joined by commas.
        num_rows: rows in each column.

    Returns:
        Per row the text, or None where every field is empty.
    """
    fields = TEMPLATE_FIELD.findall(template)
    literal = TEMPLATE_FIELD.split(template)[::2]
    texts: list[str | None] = []
    for row in range(num_rows):
        values = [_as_text(columns[name][row]) for name in fields]
        if not any(values):
            texts.append(None)
            continue
        words = "".join(a + b for a, b in zip(literal, [*values, ""], strict=True))
        words = " ".join(words[:MAX_TEXT_CHARS].replace("\0", " ").split())
        texts.append(words if all(values) else DANGLING.sub("", words))
    return texts


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_as_text, value)))
    return str(value).strip()


def _parquet_rows(plan: CatalogPlan, slice_: Slice) -> pa.Table:
    path = posixpath.join(plan.root, slice_.file)
    try:
        return parquet_rows.read_rows(pyarrow_source(Storage(plan.root), slice_.file), slice_.start, slice_.stop)
    except (pa.ArrowException, OSError) as error:
        raise CatalogError(f"{path}: not a readable Parquet file: {' '.join(str(error).split())}", path=path) from error


def _folder_rows(plan: CatalogPlan, slice_: Slice) -> pa.Table:
    texts = []
    for name in slice_.members:
        sidecar = posixpath.splitext(name)[0] + SIDECAR_SUFFIX
        try:
            text = read_file_below(plan.root, sidecar).decode("utf-8", errors="replace")
        except UnreadableImageError:
            text = ""
        texts.append(text or None)
    return pa.table({"product_id": list(slice_.members), "text": pa.array(texts, pa.string())})


def _with_identity(
    plan: CatalogPlan, slice_: Slice, rows: pa.Table, rejections: list[Rejection]
) -> tuple[pa.Table, list[Rejection]]:
    """Add id, text and source; drop the rows without an id of their own."""
    template = plan.text_template
    fields = TEMPLATE_FIELD.findall(template) if template else []
    columns = {name: rows.column(name).to_pylist() for name in fields}
    texts = render_text(template, columns, len(rows)) if template else [None] * len(rows)
    id_column = plan.columns.product_id if plan.kind != "folder" else "product_id"
    ids = rows.column(id_column).cast(pa.string()).to_pylist()
    sources = [f"{slice_.file or name}:{slice_.first_row + row}" for row, name in enumerate(ids)]
    repeated = set(slice_.repeated)
    kept = []
    for row, product_id in enumerate(ids):
        if not product_id:
            rejections.append(Rejection(sources[row], "read", "missing_id"))
        elif row in repeated:
            why = "an earlier row has this id"
            rejections.append(Rejection(sources[row], "read", "repeated_id", why, product_id))
        else:
            kept.append(row)
    table = rows.select(plan.attribute_names)
    table = table.append_column("product_id", pa.array(ids, pa.string()))
    table = table.append_column("text", pa.array(texts, pa.string()))
    table = table.append_column(SOURCE, pa.array(sources, pa.string()))
    if plan.has_image and plan.kind != "folder":
        table = table.append_column(IMAGE_CELL, rows.column(plan.columns.image))
    return table.take(pa.array(kept, pa.int64())), rejections
