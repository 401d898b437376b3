"""What clip-retrieval's routes are answered from: one version of our index, and the encoder of its queries."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from product_retrieval.index import Side
from product_retrieval.querying import Query, VectorPart
from serve.clip_retrieval import CandidateQuery
from serve.problems import ProblemError
from serve.schemas import MAX_K, QueryPart
from serve.searcher import QueryVectors
from serve.served_index import ServedIndex


class ServedCandidates:
    """A version of the index, as serve/clip_retrieval.py asks it."""

    def __init__(self, served: ServedIndex, vectors: QueryVectors) -> None:
        """Remember both."""
        self._served = served
        self._vectors = vectors
        self.version = served.version
        self.dim = served.index.dim
        self.sides: Collection[Side] = tuple(served.index.sides)
        self.max_k = MAX_K

    async def search(self, query: CandidateQuery, *, against: Side, k: int) -> Sequence[tuple[int, float]]:
        """Return the row and the cosine similarity of at most k products, best first."""
        if query.vector is None:
            asked = QueryPart(text=query.text, image=query.image, image_url=query.image_url)
            part = await self._vectors.encode(asked)
        else:
            part = VectorPart(vector=query.vector)
        answer = await asyncio.to_thread(self._served.search.ask, Query(parts=(part,), against=against, k=k))
        return [(hit.row, hit.score) for hit in answer.hits]

    async def products(self, rows: Sequence[int]) -> Sequence[Mapping[str, Any] | None]:
        """Return the columns of each product; None where there is no such row or it was taken out."""
        return await asyncio.to_thread(self._products, rows)

    async def vectors(self, rows: Sequence[int], *, against: Side) -> NDArray[np.float32]:
        """Return stored vectors, float32 [len(rows), D]."""
        return await asyncio.to_thread(self._served.index.vectors_of, np.asarray(rows, np.int64), against)

    async def picture(self, product_id: str) -> bytes | None:
        """Return a product's picture as JPEG, or None where it has none that can be shown."""
        try:
            return await asyncio.to_thread(self._served.picture, product_id)
        except ProblemError:
            return None

    def _products(self, rows: Sequence[int]) -> list[Mapping[str, Any] | None]:
        index = self._served.index
        known = [row for row in rows if row < index.num_rows and index.listed[row]]
        by_row = dict(zip(known, index.describe(known), strict=True))
        return [by_row.get(row) for row in rows]
