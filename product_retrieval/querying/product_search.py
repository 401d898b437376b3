"""Queries answered from one version of an index, one or many at once; what the service and the command line share.

A batch is answered as each query alone would be: queries are searched for together only where index, operating point,
filter and number of hits are the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.errors import QueryError
from product_retrieval.index import IndexManifest, OperatingPoint, ProductIndex, Side, open_index
from product_retrieval.index.spec import SIDES
from product_retrieval.querying.answer import Answer, Found
from product_retrieval.querying.effort import Grid, choose_point
from product_retrieval.querying.fusion import Ranked, fuse
from product_retrieval.querying.groups import HITS_PER_GROUP, Groups, Hit
from product_retrieval.querying.masks import Masks
from product_retrieval.querying.query import Query
from product_retrieval.querying.vectors import SideVector, rows_of_products, side_vector
from product_retrieval.storage import Storage

MIN_FUSED = 50
"""Places of each side that are fused, or k where that is more."""


@dataclass(frozen=True, slots=True)
class _Lookup:
    """One query on one side."""

    asked: SideVector
    point: OperatingPoint | None
    num_asked: int


@dataclass(slots=True)
class _Plan:
    """A query that can be answered."""

    query: Query
    allowed: NDArray[np.bool_] | None
    groups: Groups | None
    left_out: Set[Hashable]
    num_wanted: int
    """Groups of each side."""
    lookups: dict[Side, _Lookup]
    hits: dict[Side, list[Hit]] = field(default_factory=dict)


class ProductSearch:
    """Answers queries from one version of an index; safe to share between threads."""

    def __init__(self, index: ProductIndex, grids: Mapping[Side, Grid] | None = None) -> None:
        """Remember the index.

        Args:
            index: answers.
            grids: by side, the operating points that were measured, for queries that name a recall.
        """
        self.index = index
        self._grids = grids or {}
        schema = pa.schema([(name, index.column(name).type) for name in index.column_names])
        self.masks = Masks(schema, index.column, index.num_rows)

    def ask(self, query: Query) -> Answer:
        """Answer one query.

        Raises:
            QueryError: it does not fit this index.
        """
        (answer,) = self.ask_all([query])
        if isinstance(answer, QueryError):
            raise answer
        return answer

    def ask_all(self, queries: Sequence[Query]) -> list[Answer | QueryError]:
        """Answer queries together.

        Args:
            queries: each with hits, filter, sides and effort of its own.

        Returns:
            For each query the answer that it would get alone, or the error.
        """
        plans = [self._plan(query) for query in queries]
        self._search([plan for plan in plans if isinstance(plan, _Plan)])
        return [self._answer(plan) if isinstance(plan, _Plan) else plan for plan in plans]

    def _plan(self, query: Query) -> _Plan | QueryError:
        try:
            own_rows = rows_of_products(self.index, query)
            groups = None if query.collapse is None else Groups(self.index, self.masks, query.collapse)
            num_wanted = max(query.k, MIN_FUSED) if query.against == "both" else query.k
            num_asked = len(own_rows) + num_wanted * (HITS_PER_GROUP if groups else 1)
            sides = self._sides(query, own_rows)
            return _Plan(
                query=query,
                allowed=None if query.filter is None else self.masks.mask(query.filter),
                groups=groups,
                left_out=set(group_names(groups, list(own_rows.values()))),
                num_wanted=num_wanted,
                lookups={side: self._lookup(query, side, own_rows, num_asked) for side in sides},
            )
        except QueryError as error:
            return error

    def _sides(self, query: Query, own_rows: Mapping[str, int]) -> list[Side]:
        """Return the sides that a query is compared with.

        Raises:
            QueryError: the index lacks one.
        """
        sides: list[Side] = list(SIDES) if query.against == "both" else [query.against]
        for side in sides:
            if side not in self.index.sides:
                has = " and ".join(self.index.sides) or "neither: it has no products"
                raise QueryError(f"this index has no {side} side; it has {has}", field="against")
        if query.against != "both":
            return sides
        # A product without a picture is still like others by its text.
        shared = [side for side in sides if all(self.index.vector(row, side) is not None for row in own_rows.values())]
        return shared or sides

    def _lookup(self, query: Query, side: Side, own_rows: dict[str, int], num_asked: int) -> _Lookup:
        asked = side_vector(self.index, query, side, own_rows)
        searched, grid = self.index.sides[side], self._grids.get(side, {})
        point = None if query.exact or searched.is_exact else query.point
        if point is None and not query.exact:
            point = choose_point(searched, grid, recall=query.recall, against=side, kind=asked.kind)
        return _Lookup(asked, point, num_asked)

    def _search(self, plans: Sequence[_Plan]) -> None:
        """Find the first hits of all plans, those that are searched for alike at once."""
        alike: dict[tuple[Side, Side, OperatingPoint | None, int, bool, int], list[_Plan]] = {}
        for plan in plans:
            for side, lookup in plan.lookups.items():
                how = (side, lookup.asked.kind, lookup.point, lookup.num_asked, plan.query.exact, id(plan.allowed))
                alike.setdefault(how, []).append(plan)
        for how, together in alike.items():
            side, first = how[0], together[0]
            found = self._find(first, side, [plan.lookups[side] for plan in together], first.allowed)
            for plan, hits in zip(together, found, strict=True):
                plan.hits[side] = hits

    def _find(
        self, plan: _Plan, side: Side, lookups: Sequence[_Lookup], allowed: NDArray[np.bool_] | None
    ) -> list[list[Hit]]:
        found = self.index.search(
            np.stack([lookup.asked.vector for lookup in lookups]),
            against=side,
            k=lookups[0].num_asked,
            query_kind=lookups[0].asked.kind,
            point=lookups[0].point,
            exact=plan.query.exact,
            allowed=allowed,
        )
        return [
            [(row, score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        ]

    def _answer(self, plan: _Plan) -> Answer:
        rankings = {side: self._ranking(plan, side) for side in plan.lookups}
        if plan.query.against == "both":
            hits = [Found(hit.row, hit.score, hit.ranks) for hit in fuse(rankings)]
        else:
            ((side, ranking),) = rankings.items()
            hits = [Found(hit.row, hit.score, {side: place}) for place, hit in enumerate(ranking, start=1)]
        return Answer(
            version=self.index.version,
            hits=tuple(hits[: plan.query.k]),
            score_kind="reciprocal rank" if plan.query.against == "both" else "cosine similarity",
            points={side: lookup.point for side, lookup in plan.lookups.items()},
            num_allowed=self._num_allowed(plan),
        )

    def _num_allowed(self, plan: _Plan) -> int:
        if plan.allowed is None:
            return self.index.num_products
        has_all = self.index.num_products == self.index.num_rows
        return int(np.count_nonzero(plan.allowed if has_all else plan.allowed & self.index.listed))

    def _ranking(self, plan: _Plan, side: Side) -> list[Ranked]:
        """Return a side's products, best first, one of each group, without the query's own."""
        hits, lookup = plan.hits[side], plan.lookups[side]
        if plan.groups is None:
            names = group_names(None, [row for row, _ in hits])
            ranked = [Ranked(row, score, name) for (row, score), name in zip(hits, names, strict=True)]
            ranked = [hit for hit in ranked if hit.group not in plan.left_out][: plan.num_wanted]
        else:
            ranked = plan.groups.best_of_each(
                hits,
                wanted=plan.num_wanted,
                num_asked=lookup.num_asked,
                left_out=plan.left_out,
                allowed=plan.allowed,
                search_more=lambda allowed: self._find(plan, side, [lookup], allowed)[0],
            )
        least = plan.query.min_score
        return [hit for hit in ranked if least is None or hit.score >= least]


def open_search(storage: Storage, version: int | None = None) -> tuple[ProductSearch, IndexManifest]:
    """Open a version of an index for queries.

    Args:
        storage: the index's folder.
        version: which; None takes the one that is served.

    Returns:
        What answers, and the version's manifest.

    Raises:
        ArtifactError: there is no such version, or a file of it is missing or damaged.
    """
    index, manifest = open_index(storage, version)
    return ProductSearch(index, {side: described.measured for side, described in manifest.sides.items()}), manifest


def group_names(groups: Groups | None, rows: Sequence[int]) -> list[Hashable]:
    """Return what each row is ranked as: its group, or itself where products are not collapsed."""
    return list(rows) if groups is None else groups.of(rows)
