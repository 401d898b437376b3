"""What counts as right: by the catalogue's own columns, or by a file of judgements."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.judged import Judgements
from product_retrieval.errors import CatalogError
from product_retrieval.index import ProductIndex

DUPLICATE_COLUMN, GROUP_COLUMN = "duplicate_of", "group_id"


class CatalogTruth:
    """Which products are right for queries made from a product, by the catalogue's columns."""

    def __init__(self, index: ProductIndex) -> None:
        """Read the columns that say so."""
        ids = index.column("product_id").to_pylist()
        self._listed = np.flatnonzero(index.listed)
        listings: Sequence[Any] = ids
        if DUPLICATE_COLUMN in index.column_names:
            originals = index.column(DUPLICATE_COLUMN).to_pylist()
            listings = [original or own for original, own in zip(originals, ids, strict=True)]
        self.listing = _labels(listings)
        """int64 [num_rows]; equal for a product and its other listings (`duplicate_of`)."""
        groups = index.column(GROUP_COLUMN).to_pylist() if GROUP_COLUMN in index.column_names else None
        self.group = None if groups is None else _labels(groups)
        """int64 [num_rows]; equal for products of one `group_id`; None where the catalogue has none."""

    def same_product(self, rows: NDArray[np.int64]) -> Judgements:
        """Return as right the product that each query was made from, and its other listings."""
        return self._same(self.listing, rows)

    def same_group(self, rows: NDArray[np.int64]) -> Judgements | None:
        """Return as right all products of the group; None where the catalogue has no groups."""
        return None if self.group is None else self._same(self.group, rows)

    def others_of_group(self, rows: NDArray[np.int64]) -> Judgements | None:
        """Return as right the group without the query's own product and its other listings."""
        if self.group is None:
            return None
        group = self._same(self.group, rows)
        is_other = self.listing[group.row] != self.listing[rows][group.query]
        return Judgements(len(rows), group.query[is_other], group.row[is_other], group.gain[is_other])

    def _same(self, labels: NDArray[np.int64], rows: NDArray[np.int64]) -> Judgements:
        listed = self._listed[np.argsort(labels[self._listed], kind="stable")]
        ordered = labels[listed]
        first = np.searchsorted(ordered, labels[rows], "left")
        counts = np.searchsorted(ordered, labels[rows], "right") - first
        query = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        right = listed[np.repeat(first, counts) + within]
        return Judgements(len(rows), query, right, np.ones(len(query)))


def read_judgements(path: Path, query_ids: Sequence[str], index: ProductIndex) -> tuple[Judgements, int]:
    """Read a file of judgements: TREC qrels, or Parquet or JSON lines with query_id, product_id and relevance.

    Judgements of queries that are not asked are left out. A product that the index does not have stays a right one
    that cannot be found, with row -1.

    Args:
        path: the file; `.parquet`, `.jsonl` or `.json`, and anything else is read as TREC qrels.
        query_ids: Q ids.
        index: the version.

    Returns:
        The judgements with a relevance above 0, and how many of them name products that the index does not have.

    Raises:
        CatalogError: the file cannot be read, or is wrong.
    """
    places = {name: position for position, name in enumerate(query_ids)}
    pairs: dict[tuple[int, str], float] = {}
    for number, (query_id, product_id, relevance) in enumerate(_judged(path), start=1):
        if query_id not in places:
            continue
        pair = (places[query_id], product_id)
        if pairs.setdefault(pair, relevance) != relevance:
            raise CatalogError(f"{path}: judgement {number}: {query_id}, {product_id} is judged twice, differently")
    right = sorted((query, -1 if (row := index.row_of(name)) is None else row, gain)
                   for (query, name), gain in pairs.items() if gain > 0)  # fmt: skip
    if not right:
        raise CatalogError(f"{path}: judges nothing right for any of the queries that are asked", path=str(path))
    query, row, gain = (np.array(column) for column in zip(*right, strict=True))
    judged = Judgements(len(query_ids), query.astype(np.int64), row.astype(np.int64), gain.astype(np.float64))
    return judged, int((row < 0).sum())


def _judged(path: Path) -> Iterator[tuple[str, str, float]]:
    try:
        if path.suffix == ".parquet":
            yield from _from_records(pq.read_table(path, columns=["query_id", "product_id", "relevance"]).to_pylist())
        elif path.suffix in (".jsonl", ".json"):
            with path.open(encoding="utf-8") as lines:
                yield from _from_records(json.loads(line) for line in lines if line.strip())
        else:
            with path.open(encoding="utf-8") as lines:
                yield from (_trec(line) for line in lines if line.strip())
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CatalogError(f"{path}: not a file of judgements: {reason}", path=str(path)) from error


def _from_records(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, float]]:
    for record in records:
        yield str(record["query_id"]), str(record["product_id"]), _finite(record["relevance"])


def _trec(line: str) -> tuple[str, str, float]:
    words = line.split()
    if len(words) != 4:
        raise ValueError(f"a line of qrels is QUERY 0 PRODUCT RELEVANCE, not {line.strip()[:80]!r}")
    return words[0], words[2], _finite(words[3])


def _finite(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]  # what is no number raises what is caught above
    if not np.isfinite(number):
        raise ValueError(f"a relevance is a number, not {value}")
    return number


def _labels(keys: Sequence[Any]) -> NDArray[np.int64]:
    """Return a number for each key, equal for equal keys; a missing key is equal to nothing but itself."""
    numbers: dict[Any, int] = {}
    return np.array(
        [
            numbers.setdefault(("row", row) if key is None else ("key", key), len(numbers))
            for row, key in enumerate(keys)
        ],
        np.int64,
    )
