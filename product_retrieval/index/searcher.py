"""A published index version, opened for search: candidates from FAISS, scores from the stored vectors.

Q is the number of queries, k of hits wanted, D the dimension; a row is a product's position in the version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.index.spec import CALIBRATED_K, OperatingPoint, Side

RESCORE_BLOCK = 256
"""Queries whose candidates are gathered at once: bounds memory at about 256 x candidates x D x 4 bytes."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The best products for each query, best first."""

    rows: NDArray[np.int64]
    """int64 [Q, k]; -1 pads a short list."""
    scores: NDArray[np.float32]
    """float32 [Q, k], cosine similarity; NaN where there is no hit."""


@dataclass(frozen=True, slots=True)
class SideIndex:
    """One side of an index version."""

    faiss_index: Any
    vectors: NDArray[np.float16]
    """float16 [N, D] by row, memory-mapped; zeros where the product has no such side."""
    points: Mapping[Side, OperatingPoint]
    """How hard to search, by kind of query."""
    is_exact: bool


@dataclass(frozen=True, slots=True)
class ProductIndex:
    """Both sides of an index version with its products; safe to share between threads."""

    version: int
    sides: Mapping[Side, SideIndex]
    products: pa.Table
    """One row a product: product_id, text, image_ref and the attributes; memory-mapped."""
    rows_by_id: NDArray[np.int64]
    """Rows in the order of their product ids."""

    @property
    def dim(self) -> int:
        """Dimension of the shared space."""
        return int(next(iter(self.sides.values())).vectors.shape[1])

    def search(
        self,
        queries: NDArray[np.float32],
        *,
        against: Side,
        k: int,
        query_kind: Side = "text",
        point: OperatingPoint | None = None,
    ) -> Hits:
        """Return the k best products for each query.

        Args:
            queries: float32 [Q, D], unit length.
            against: whether products are compared by their picture or by their text.
            k: hits wanted, at least 1.
            query_kind: what the queries were made from; chooses the calibrated operating point.
            point: how hard to search; None takes the calibrated one (of the other kind, where a catalogue that has
                only one side could not be calibrated for both).

        Returns:
            rows and scores [Q, k]; equal scores are ordered by row. Which of several products that tie for the last
            place is in the list is FAISS's choice.

        Raises:
            ValueError: k or the shape of the queries is wrong, or there is no such side.
        """
        if against not in self.sides:
            raise ValueError(f"this index has no {against} side")
        if k < 1 or queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"need queries [Q, {self.dim}] and k >= 1, got {queries.shape} and k = {k}")
        side = self.sides[against]
        point = point or side.points.get(query_kind) or next(iter(side.points.values()))
        queries = np.ascontiguousarray(queries, np.float32)
        wanted = k if side.is_exact else max(k, max(k, CALIBRATED_K) * point.rescore_factor)
        scores, rows = side.faiss_index.search(
            queries, min(wanted, side.faiss_index.ntotal), params=_search_parameters(side.faiss_index, point)
        )
        if point.rescore_factor and not side.is_exact:
            scores = rescore(queries, rows, side.vectors)
        return _best(rows, scores, k)

    def row_of(self, product_id: str) -> int | None:
        """Return the row of a product, or None where there is no such product."""
        ids = self.products.column("product_id")
        low, high = 0, len(self.rows_by_id)
        while low < high:
            middle = (low + high) // 2
            found = ids[int(self.rows_by_id[middle])].as_py()
            if found == product_id:
                return int(self.rows_by_id[middle])
            low, high = (middle + 1, high) if found < product_id else (low, middle)
        return None

    def vector(self, row: int, side: Side) -> NDArray[np.float32] | None:
        """Return the float32 [D] vector of a product's side, or None where it has none."""
        if side not in self.sides:
            return None
        stored = self.sides[side].vectors[row].astype(np.float32)
        length = float(np.linalg.norm(stored))
        return stored / length if length > 0 else None

    def describe(self, rows: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return products as dictionaries.

        Args:
            rows: their rows.
            columns: which columns; None returns all.
        """
        table = self.products if columns is None else self.products.select(list(columns))
        return [dict(row) for row in table.take(pa.array(rows, pa.int64())).to_pylist()]


def rescore(queries: NDArray[np.float32], rows: NDArray[np.int64], vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """Score candidates exactly on the stored vectors.

    Args:
        queries: float32 [Q, D].
        rows: int64 [Q, C] candidates; -1 pads.
        vectors: float16 [N, D].

    Returns:
        float32 [Q, C] inner products.
    """
    scores = np.empty(rows.shape, np.float32)
    for start in range(0, len(queries), RESCORE_BLOCK):
        block = slice(start, start + RESCORE_BLOCK)
        candidates = vectors[np.maximum(rows[block], 0)].astype(np.float32)
        scores[block] = np.einsum("qcd,qd->qc", candidates, queries[block])
    return scores


def _best(rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Hits:
    """Order by falling score, then by row; padding last; cut or pad to k."""
    missing = rows < 0
    order = np.lexsort((rows, np.where(missing, np.inf, -scores)), axis=1)[:, :k]
    best_rows = np.take_along_axis(rows, order, 1)
    best_scores = np.where(best_rows < 0, np.nan, np.take_along_axis(scores, order, 1)).astype(np.float32)
    short = k - best_rows.shape[1]
    if short > 0:
        best_rows = np.pad(best_rows, ((0, 0), (0, short)), constant_values=-1)
        best_scores = np.pad(best_scores, ((0, 0), (0, short)), constant_values=np.nan)
    return Hits(best_rows.astype(np.int64), best_scores)


def _search_parameters(index: Any, point: OperatingPoint) -> Any | None:
    """Return per-call parameters, so that searches with different ones can share an index."""
    import faiss

    try:
        ivf = faiss.extract_index_ivf(index)
    except RuntimeError:  # no IVF inside: nothing to choose
        return None
    # A FastScan index of FAISS 1.15.1 answers nonsense when it is told to probe more lists than it has.
    parameters = faiss.SearchParametersIVF(nprobe=min(point.num_probes, ivf.nlist))
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=parameters)
    return parameters
