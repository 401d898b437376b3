"""A published index version, opened for search.

Q is the number of queries, k of hits wanted, D the dimension; a row is a product's position in the version.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.index.halves import to_float32
from product_retrieval.index.ranking import Hits
from product_retrieval.index.shard import OpenShard, by_shard, stored_vectors
from product_retrieval.index.spec import OperatingPoint, Side
from product_retrieval.index.two_stage import Masks, search_exactly, search_filling

MAX_EXACT_ROWS = 20_000
"""A filter that leaves fewer is answered exactly: some milliseconds, and nothing can be missed."""


@dataclass(frozen=True, slots=True)
class SearchedSide:
    """How a side of a version is searched."""

    points: Mapping[Side, OperatingPoint]
    """How hard, by kind of query."""
    is_exact: bool
    """Whether FAISS compares a query with every vector as it is stored."""

    def measured_kind(self, kind: Side) -> Side:
        """Return a kind of query if it was measured, or else the hardest that was: a sum of kinds may be as hard."""
        if kind in self.points:
            return kind
        return max(self.points, key=lambda k: self.points[k].num_probes * max(self.points[k].rescore_factor, 1))


@dataclass(frozen=True)
class ProductIndex:
    """The sides of an index version with its products; safe to share between threads."""

    version: int
    dim: int
    """Dimension of the shared space."""
    sides: Mapping[Side, SearchedSide]
    shards: tuple[OpenShard, ...]
    """In the order of their rows."""

    @property
    def num_rows(self) -> int:
        """Rows, tombstones among them."""
        return sum(shard.num_rows for shard in self.shards)

    @cached_property
    def num_products(self) -> int:
        """Products of this version."""
        return self.num_rows - sum(len(shard.tombstones) for shard in self.shards)

    @cached_property
    def listed(self) -> NDArray[np.bool_]:
        """Which rows belong to this version, bool [num_rows]; the others are tombstones."""
        return np.concatenate([np.empty(0, np.bool_), *(shard.listed for shard in self.shards)])

    @cached_property
    def column_names(self) -> list[str]:
        """The products' columns."""
        return list(self._products.column_names)

    def search(
        self,
        queries: NDArray[np.float32],
        *,
        against: Side,
        k: int,
        query_kind: Side = "text",
        point: OperatingPoint | None = None,
        exact: bool = False,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Hits:
        """Return the k best products for each query.

        Args:
            queries: float32 [Q, D], unit length.
            against: whether products are compared by their picture, by their text, or by the sum of both.
            k: hits wanted, at least 1.
            query_kind: what the queries were made from; chooses the calibrated operating point.
            point: how hard to search; None takes the calibrated one (of the hardest kind, where this kind was not
                calibrated for: a catalogue may have one side only).
            exact: compare with every stored vector.
            allowed: bool [num_rows], which products may be found; None allows all. Few are compared exactly. Whatever
                it says, tombstones are never found.

        Returns:
            rows and scores [Q, k]; equal scores are ordered by row. The lists are full where k products with this
            side are allowed.

        Raises:
            ValueError: k or the shape of the queries or of `allowed` is wrong, or there is no such side.
        """
        if against not in self.sides:
            raise ValueError(f"this index has no {against} side")
        if k < 1 or queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"need queries [Q, {self.dim}] and k >= 1, got {queries.shape} and k = {k}")
        if allowed is not None and (allowed.shape != (self.num_rows,) or allowed.dtype != np.bool_):
            raise ValueError(f"need allowed bool [{self.num_rows}], got {allowed.dtype} {list(allowed.shape)}")
        queries = np.ascontiguousarray(queries, np.float32)
        masks = self._masks(allowed)
        num_allowed = self.num_products if allowed is None else sum(int(m.sum()) for m in masks if m is not None)
        side = self.sides[against]
        if exact or (allowed is not None and num_allowed <= MAX_EXACT_ROWS):
            return search_exactly(self.shards, queries, against, k, masks)
        point = point or side.points[side.measured_kind(query_kind)]
        # A filter thins out every list, so more of them hold what the calibrated number would have.
        probes = int(np.ceil(point.num_probes * (self.num_products / max(num_allowed, 1)) ** 0.5))
        harder = OperatingPoint(probes, 0 if side.is_exact else point.rescore_factor)
        return search_filling(self.shards, queries, against, k, harder, masks)

    def row_of(self, product_id: str) -> int | None:
        """Return the row of a product, or None where there is no such product."""
        rows = (shard.row_of(product_id) for shard in self.shards)
        return next((row for row in rows if row is not None), None)

    def vector(self, row: int, side: Side) -> NDArray[np.float32] | None:
        """Return the float32 [D] vector of a product's side, or None where it has none."""
        if side not in self.sides:
            return None
        (stored,) = self.vectors_of(np.array([row]), side)
        length = float(np.linalg.norm(stored))
        return stored / length if length > 0 else None

    def vectors_of(self, rows: NDArray[np.int64], side: Side) -> NDArray[np.float32]:
        """Return stored vectors, float32 [len(rows), D]: of unit length but for rounding, zeros where there is none."""
        return to_float32(stored_vectors(self.shards, np.asarray(rows, np.int64), side))

    def blocks(self, side: Side, num_rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield all stored vectors of a side, as the first row and float16 [up to num_rows, D] of each block.

        Products without this side, and tombstones, are rows of zeros.
        """
        for shard in self.shards:
            for start in range(0, shard.num_rows, num_rows):
                listed = shard.listed[start : start + num_rows]
                if side not in shard.sides:
                    yield shard.first_row + start, np.zeros((len(listed), self.dim), np.float16)
                    continue
                vectors = shard.sides[side].vectors[start : start + num_rows]
                yield shard.first_row + start, vectors if listed.all() else np.where(listed[:, None], vectors, 0)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of the products, one value a row, without copying it.

        Raises:
            KeyError: there is no such column.
        """
        return self._products.column(name)

    def describe(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return products as dictionaries.

        Args:
            rows: their rows.
            columns: which columns; None returns all.
        """
        names = self.column_names if columns is None else list(columns)
        described: list[dict[str, Any]] = [{}] * len(rows)
        for shard, places, local in by_shard(self.shards, np.array(rows, np.int64)):
            known = shard.products.select([name for name in names if name in shard.products.column_names])
            for place, product in zip(places.tolist(), known.take(pa.array(local)).to_pylist(), strict=True):
                described[place] = {name: product.get(name) for name in names}
        return described

    @cached_property
    def _products(self) -> pa.Table:
        return pa.concat_tables([shard.products for shard in self.shards], promote_options="default")

    def _masks(self, allowed: NDArray[np.bool_] | None) -> Masks:
        """Return for each shard which of its rows may be found, or None for all of them."""
        masks: list[NDArray[np.bool_] | None] = []
        for shard in self.shards:
            listed = shard.listed if len(shard.tombstones) else None
            if allowed is not None:
                own = allowed[shard.first_row : shard.first_row + shard.num_rows]
                listed = own if listed is None else own & listed
            masks.append(listed)
        return masks
