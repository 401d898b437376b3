"""The picture of each row: bytes in the catalogue, a file below its root, or fetched by URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from product_retrieval.catalog.contained import MAX_IMAGE_BYTES, UnreadableImageError, read_file_below
from product_retrieval.catalog.picture_urls import is_url
from product_retrieval.catalog.rejections import Rejection
from product_retrieval.catalog.slices import IMAGE, IMAGE_CELL, KNOWN_KEY, REFERENCE, SOURCE, CatalogPlan

KnownKeys = Callable[[Sequence[str]], Sequence[bytes | None]]
KEY_BYTES = 16
"""Length of a content key; see earlier.py."""


def with_pictures(
    plan: CatalogPlan, table: pa.Table, *, known_keys: KnownKeys | None
) -> tuple[pa.Table, list[Rejection]]:
    """Add its picture to each product.

    Args:
        plan: of the catalogue.
        table: products with SOURCE and, where the catalogue has pictures, IMAGE_CELL.
        known_keys: gives, for paths and URLs, the content keys of pictures that need not be read; None: all are.

    Returns:
        The products with IMAGE, `image_ref` and KNOWN_KEY instead of IMAGE_CELL, and the rejections of those whose
        picture cannot be had.
    """
    rejections: list[Rejection] = []
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
    return table, rejections


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
