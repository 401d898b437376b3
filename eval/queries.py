"""Which products ask, what counts as a right answer, and with which vectors they ask."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from product_retrieval.encoders import Encoder
from product_retrieval.errors import CatalogError, OptionsError
from product_retrieval.images import decode
from product_retrieval.index import ProductIndex, Side

CONDITION = re.compile(r"\s*(\w+)\s*(=|!=)\s*(.*?)\s*")
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {"=": operator.eq, "!=": operator.ne}
ENCODE_ROWS = 64


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries of one kind."""

    name: str
    """What they are: `text`, `image` or `photo`."""
    vectors: NDArray[np.float32]
    """float32 [Q, D]."""
    rows: NDArray[np.int64]
    """int64 [Q], the product that each was made from."""


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which rows are right for a product's queries."""

    product: dict[int, NDArray[np.int64]]
    """The product itself and its other listings."""
    group: dict[int, NDArray[np.int64]] | None
    """Everything with its group_id; None where the catalogue has no groups."""


def select_rows(index: ProductIndex, where: str | None) -> NDArray[np.int64]:
    """Return the rows of products that a condition such as `split=heldout` names; all without one.

    Raises:
        OptionsError: it is no condition, names no column, or no product meets it.
    """
    if where is None:
        return np.flatnonzero(index.listed)
    found = CONDITION.fullmatch(where)
    if found is None:
        raise OptionsError(f"--where {where}: a condition is COLUMN=VALUE or COLUMN!=VALUE")
    column, sign, value = found.groups()
    if column not in index.column_names:
        raise OptionsError(f"--where {where}: no column {column!r}; the index has {', '.join(index.column_names)}")
    values = index.column(column).to_pylist()
    compare = COMPARISONS[sign]
    rows = np.array([row for row, v in enumerate(values) if v is not None and compare(str(v), value)], np.int64)
    rows = rows[index.listed[rows]]
    if not len(rows):
        raise OptionsError(f"--where {where}: no product meets it")
    return rows


def own_queries(index: ProductIndex, side: Side, rows: NDArray[np.int64]) -> QuerySet:
    """Return the products' own stored vectors of a side as queries; products without that side ask nothing."""
    stored = index.vectors_of(rows, side)
    present = stored.any(axis=1)
    vectors = stored[present]
    return QuerySet(side, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rows[present])


def photo_queries(path: Path, index: ProductIndex, encoder: Encoder, rows: NDArray[np.int64]) -> QuerySet:
    """Encode other photos of the products.

    Args:
        path: Parquet with `product_id` and `image` (bytes).
        index: the version that is evaluated.
        encoder: the index's own.
        rows: products that may ask; photos of others are left out.

    Raises:
        CatalogError: the file cannot be read, lacks a column, or shows none of the products.
    """
    try:
        table = pq.read_table(path, columns=["product_id", "image"])
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CatalogError(f"{path}: not a Parquet file with product_id and image: {reason}", path=str(path)) from error
    allowed = set(rows.tolist())
    asked: list[int] = []
    prepared = []
    for product_id, data in zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True):
        row = index.row_of(product_id)
        shown = decode(data or b"", min_side=encoder.min_side) if row in allowed else None
        if row is not None and shown is not None and shown.pixels is not None:
            asked.append(row)
            prepared.append(encoder.prepare_image(shown.pixels, shown.box))
    if not asked:
        raise CatalogError(f"{path}: shows none of the products that are evaluated", path=str(path))
    vectors = [
        encoder.encode_images(np.stack(prepared[start : start + ENCODE_ROWS]))
        for start in range(0, len(prepared), ENCODE_ROWS)
    ]
    return QuerySet("photo", np.concatenate(vectors), np.array(asked, np.int64))


def relevance(index: ProductIndex, rows: NDArray[np.int64]) -> Relevance:
    """Return what counts as right: other listings by `duplicate_of`, and whole groups by `group_id`."""
    ids = index.column("product_id").to_pylist()
    listings = ids
    if "duplicate_of" in index.column_names:
        originals = index.column("duplicate_of").to_pylist()
        listings = [original or own for original, own in zip(originals, ids, strict=True)]
    groups = index.column("group_id").to_pylist() if "group_id" in index.column_names else None
    listed = np.flatnonzero(index.listed)
    return Relevance(_same(listings, listed, rows), None if groups is None else _same(groups, listed, rows))


def _same(keys: list[Any], listed: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Return for each row all listed rows with its key; a missing key is equal to nothing but itself."""
    members: dict[Any, list[int]] = {}
    for row in listed.tolist():
        key = keys[row]
        members.setdefault(("row", row) if key is None else key, []).append(row)
    return {
        int(row): np.array(members[("row", int(row)) if keys[row] is None else keys[row]], np.int64) for row in rows
    }
