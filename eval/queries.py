"""Which products ask, and with which vectors: the catalogue's own sides, other photos, or a file of queries."""

from __future__ import annotations

import base64
import binascii
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
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
FREE = -1
"""Row of a query that was made from no product."""


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries of one kind."""

    name: str
    """What they are: `text`, `image`, `photo`; of a file `query text` and `query image`."""
    kind: Side
    """What they were made from."""
    vectors: NDArray[np.float32]
    """float32 [Q, D], unit length."""
    rows: NDArray[np.int64]
    """int64 [Q], the product that each was made from; FREE of those in a file."""
    ids: list[str]
    """Q ids, of the product or of the query in the file; several photos of a product share one."""


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
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return QuerySet(
        side, side, vectors, rows[present], index.column("product_id").take(pa.array(rows[present])).to_pylist()
    )


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
        raise CatalogError(
            f"{path}: not a Parquet file with product_id and image: {_line(error)}", path=str(path)
        ) from error
    allowed = set(rows.tolist())
    asked: list[int] = []
    prepared = []
    for product_id, data in zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True):
        row = index.row_of(product_id)
        shown = _prepared(encoder, data) if row in allowed else None
        if row is not None and shown is not None:
            asked.append(row)
            prepared.append(shown)
    if not asked:
        raise CatalogError(f"{path}: shows none of the products that are evaluated", path=str(path))
    ids = index.column("product_id").take(pa.array(asked)).to_pylist()
    return QuerySet("photo", "image", _encode_images(encoder, prepared), np.array(asked, np.int64), ids)


def file_queries(path: Path, encoder: Encoder) -> tuple[list[QuerySet], int]:
    """Encode the queries of a file: Parquet or JSON lines with query_id and text, image (base64 in JSON), or both.

    Returns:
        The queries with a text, those with a picture, and how many rows have neither or a picture that cannot be read.

    Raises:
        CatalogError: the file cannot be read, lacks query_id, names an id twice, or asks nothing.
    """
    texts: dict[str, str] = {}
    pictures: dict[str, NDArray[np.uint8]] = {}
    seen: set[str] = set()
    num_unread = 0
    for record in _records(path):
        name = str(record["query_id"])
        if name in seen:
            raise CatalogError(f"{path}: query_id {name!r} is there twice", path=str(path))
        seen.add(name)
        text, image = record.get("text"), record.get("image")
        if isinstance(text, str) and text.strip():
            texts[name] = text
        if image is not None and (shown := _prepared(encoder, image)) is not None:
            pictures[name] = shown
        num_unread += name not in texts and name not in pictures
    sets = []
    if texts:
        free = np.full(len(texts), FREE, np.int64)
        sets.append(QuerySet("query text", "text", encoder.encode_texts(list(texts.values())), free, list(texts)))
    if pictures:
        free = np.full(len(pictures), FREE, np.int64)
        vectors = _encode_images(encoder, list(pictures.values()))
        sets.append(QuerySet("query image", "image", vectors, free, list(pictures)))
    if not sets:
        raise CatalogError(f"{path}: asks nothing: no text, and no picture that can be read", path=str(path))
    return sets, num_unread


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            records = table.select([n for n in ("query_id", "text", "image") if n in table.column_names]).to_pylist()
        else:
            with path.open(encoding="utf-8") as lines:
                records = [json.loads(line) for line in lines if line.strip()]
            for record in records:
                if record.get("image") is not None:
                    record["image"] = base64.b64decode(record["image"], validate=True)
        for record in records:
            record["query_id"]
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise CatalogError(
            f"{path}: not Parquet or JSON lines with query_id and text or image: {_line(error)}", path=str(path)
        ) from error
    yield from records


def _prepared(encoder: Encoder, data: object) -> NDArray[np.uint8] | None:
    shown = decode(data if isinstance(data, bytes) else b"", min_side=encoder.min_side)
    return None if shown.pixels is None else encoder.prepare_image(shown.pixels, shown.box)


def _encode_images(encoder: Encoder, prepared: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.concatenate(
        [
            encoder.encode_images(np.stack(prepared[start : start + ENCODE_ROWS]))
            for start in range(0, len(prepared), ENCODE_ROWS)
        ]
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
