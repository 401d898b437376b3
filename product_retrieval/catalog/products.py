"""The rows of one slice of a catalogue as products: id, text, picture bytes, attributes, and the rows that are none."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from product_retrieval.catalog import arrow_files, parquet_rows, webdataset
from product_retrieval.catalog.contained import MAX_IMAGE_BYTES, UnreadableImageError, read_file_below
from product_retrieval.catalog.hugging_face import below_its_folder
from product_retrieval.catalog.kinds import SIDECAR_SUFFIX
from product_retrieval.catalog.picture_urls import is_url
from product_retrieval.catalog.planners import parse_slice
from product_retrieval.catalog.slices import REFERENCE, TEMPLATE_FIELD, CatalogPlan, Slice
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage, pyarrow_source

SOURCE, IMAGE, IMAGE_CELL, KNOWN_KEY = "__source", "__image", "__image_cell", "__known_key"
"""Our columns beside the catalogue's own."""

Stage = Literal["read", "fetch", "decode", "encode"]
KnownKeys = Callable[[Sequence[str]], Sequence[bytes | None]]
KEY_BYTES = 16
"""Length of a content key; see earlier.py."""

REJECTION_SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("source", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""One row a rejected product: its id where it has one, `file:row`, the stage, a reason code, and what was found."""

MAX_TEXT_CHARS = 16_384
"""What follows is cut off: no text tower reads as far, and one pasted book must not slow a part down."""

DANGLING = re.compile(r"(?:^[\s.,;:|/-]+)|(?:[\s,;:|/-]+$)|(?<=[.,;:|/-])(?:\s*[.,;:|/-])+")


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a product has no vectors."""

    source: str
    stage: Stage
    reason: str
    detail: str = ""
    product_id: str | None = None

    def row(self) -> dict[str, str | None]:
        """Return the row of the rejected table."""
        return {name: getattr(self, name) for name in REJECTION_SCHEMA.names}


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
    return _with_images(plan, *_with_identity(plan, slice_, rows, rejections), known_keys)


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


def _with_images(
    plan: CatalogPlan, table: pa.Table, rejections: list[Rejection], known_keys: KnownKeys | None
) -> SlicedProducts:
    """Add picture bytes and a reference to each; reject the rows whose picture cannot be had."""
    sources, ids = table.column(SOURCE).to_pylist(), table.column("product_id").to_pylist()
    if plan.kind == "folder":
        cells: Sequence[Any] = ids
    elif IMAGE_CELL in table.column_names:
        cells = [_picture(cell) for cell in table.column(IMAGE_CELL).to_pylist()]
        table = table.drop_columns(IMAGE_CELL)
    else:
        cells = [None] * len(table)
    images: list[bytes | None] = []
    references: list[str | None] = []
    good = []
    known = _known(cells, known_keys)
    fetched = _fetch(plan, [cell for cell in cells if not isinstance(cell, str) or cell not in known])
    for row, cell in enumerate(cells):
        try:
            is_known = isinstance(cell, str) and cell in known
            data, reference = (None, cell) if is_known else _image(plan, cell, sources[row], fetched)
        except UnreadableImageError as why:
            rejections.append(Rejection(sources[row], "fetch", why.reason, why.detail, ids[row]))
            continue
        images.append(data)
        references.append(reference)
        good.append(row)
    table = table.take(pa.array(good, pa.int64()))
    table = table.append_column(IMAGE, pa.array(images, pa.large_binary()))
    table = table.append_column("image_ref", pa.array(references, pa.string()))
    table = table.append_column(KNOWN_KEY, pa.array([known.get(r) for r in references], pa.binary(KEY_BYTES)))
    return SlicedProducts(table, tuple(rejections))


def _known(cells: Sequence[Any], known_keys: KnownKeys | None) -> dict[str | None, bytes]:
    """Return the content keys of the paths and URLs that need not be read."""
    references = sorted({cell for cell in cells if isinstance(cell, str) and cell}) if known_keys else []
    keys = known_keys(references) if known_keys else []
    return {reference: key for reference, key in zip(references, keys, strict=True) if key is not None}


def _picture(cell: Any) -> Any:
    """Return what a cell gives for a picture: of the struct that Hugging Face data sets use, its bytes or path."""
    is_struct = isinstance(cell, dict) and not cell.get(REFERENCE)
    return (cell.get("bytes") or cell.get("path")) if is_struct else cell


def _fetch(plan: CatalogPlan, cells: Sequence[Any]) -> dict[str, bytes | UnreadableImageError]:
    """Fetch the pictures that are URLs all at once; none where no host is allowed."""
    urls = [cell for cell in cells if isinstance(cell, str) and is_url(cell)] if plan.fetch.is_on else []
    if plan.kind == "folder" or not urls:
        return {}
    from product_retrieval.catalog.fetched import ImageFetcher

    with ImageFetcher(plan.fetch) as fetcher:
        return dict(zip(urls, fetcher.fetch(urls), strict=True))


def _image(
    plan: CatalogPlan, cell: Any, source: str, fetched: Mapping[str, bytes | UnreadableImageError]
) -> tuple[bytes | None, str | None]:
    """Return the bytes of a picture and where they can be found again."""
    if isinstance(cell, dict):  # read together with the row
        if cell["bytes"] is None:
            raise UnreadableImageError("image_too_large", f"more than {MAX_IMAGE_BYTES} bytes")
        return cell["bytes"], cell[REFERENCE]
    if cell is None or cell == "" or cell == b"":
        return None, None
    if isinstance(cell, bytes):
        file, _, row = source.rpartition(":")
        return cell, f"{file}#row={row}"
    if not isinstance(cell, str):
        raise UnreadableImageError("image_not_readable", f"a picture is bytes or a path, not {type(cell).__name__}")
    if is_url(cell) and not plan.fetch.is_on:
        raise UnreadableImageError("image_url_not_allowed", "no URL is fetched without --fetch.allowed-hosts")
    data = fetched[cell] if cell in fetched else read_file_below(plan.image_root, cell)
    if isinstance(data, UnreadableImageError):
        raise data
    return data, cell
