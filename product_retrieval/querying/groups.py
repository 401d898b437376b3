"""One hit for each group of products: variants of one article would otherwise fill a page with the same picture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence, Set
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.errors import QueryError
from product_retrieval.index import ProductIndex
from product_retrieval.querying.filters import OneOf
from product_retrieval.querying.fusion import Ranked
from product_retrieval.querying.masks import Masks

HITS_PER_GROUP = 3
"""Hits that are asked for at once, for each group wanted; where groups are larger it takes several rounds."""

Hit: TypeAlias = tuple[int, float]
"""Row and score."""


class Groups:
    """Which products belong together, by a column of the index."""

    def __init__(self, index: ProductIndex, masks: Masks, column: str) -> None:
        """Name the column.

        Raises:
            QueryError: there is no such column, or it does not hold one text or one whole number a product.
        """
        column_type = masks.type_of(column, asked_by="collapse")
        stored = column_type.value_type if pa.types.is_dictionary(column_type) else column_type
        if masks.fields.get(column) not in ("text", "whole numbers") or pa.types.is_nested(stored):
            raise QueryError(
                f"collapse: {column!r} holds {column_type}; groups are named by one text or one whole number",
                field="collapse",
            )
        self._index, self._masks, self._column = index, masks, column

    def of(self, rows: Sequence[int]) -> list[Hashable]:
        """Return the group of each row; a product without one is a group of its own."""
        products = self._index.describe(rows, [self._column])
        names = [product[self._column] for product in products]
        return [("row", row) if name is None else ("group", name) for row, name in zip(rows, names, strict=True)]

    def without(self, allowed: NDArray[np.bool_], groups: Set[Hashable]) -> NDArray[np.bool_]:
        """Return bool [num_rows]: what is allowed, without all products of some groups, as `of` names them."""
        kept = allowed.copy()
        named = [group[1] for group in groups if isinstance(group, tuple) and group[0] == "group"]
        if named:
            kept &= ~self._masks.evaluate(OneOf(self._column, tuple(named)))
        kept[[group[1] for group in groups if isinstance(group, tuple) and group[0] == "row"]] = False
        return kept

    def best_of_each(
        self,
        hits: Sequence[Hit],
        *,
        wanted: int,
        num_asked: int,
        left_out: Set[Hashable],
        allowed: NDArray[np.bool_] | None,
        search_more: Callable[[NDArray[np.bool_]], Sequence[Hit]],
    ) -> list[Ranked]:
        """Return the best product of each of the best groups.

        Args:
            hits: the first ones, best first.
            wanted: groups.
            num_asked: how many hits were asked for; fewer came where there were no more.
            left_out: groups that are none.
            allowed: bool [num_rows], which products may be found; None allows all.
            search_more: from the rows that may be found to `num_asked` hits; called while groups are missing.

        Returns:
            As many as are wanted where there are so many groups, by falling score, then by row.
        """
        seen: set[Hashable] = set(left_out)
        ranked: list[Ranked] = []
        while True:
            for (row, score), group in zip(hits, self.of([row for row, _ in hits]), strict=True):
                if group not in seen:
                    seen.add(group)
                    ranked.append(Ranked(row, score, group))
            if len(ranked) >= wanted or len(hits) < num_asked:
                return sorted(ranked, key=lambda hit: (-hit.score, hit.row))[:wanted]
            everything = np.ones(self._index.num_rows, np.bool_) if allowed is None else allowed
            hits = search_more(self.without(everything, seen))
