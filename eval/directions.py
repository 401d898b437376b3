"""The directions of a search that are measured, each with one exact pass over the gallery.

Queries of texts look for pictures, pictures for texts; where the catalogue has groups, texts look for the other texts
of their group and pictures for the other pictures. Q is the number of queries, P of pairs of a query and a right
product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.exact import pair_scores
from eval.exact_search import Correction, ExactSearch, Found, JudgedSet
from eval.judged import NOT_FOUND, JudgedRanks, Judgements
from eval.judgements import CatalogTruth
from eval.queries import FREE, QuerySet
from eval.results import DirectionResult, measure_queries, summarize
from product_retrieval.errors import ArtifactError
from product_retrieval.index import ProductIndex, Side
from product_retrieval.index.spec import SOURCES

PAIR_ROWS = 65_536
"""Pairs whose products' vectors are held at once."""

Search = Callable[[ExactSearch, Side], Found]
"""An exact search of a side's whole gallery."""


@dataclass(frozen=True, slots=True)
class Direction:
    """One kind of query against one side of the products."""

    queries: QuerySet
    side: Side
    right: dict[str, Judgements]
    """By what counts as right: `product`, `group`, or `judged`."""
    excluded: Judgements | None
    """What each query must not find: its own product, where that has the query's vector."""

    @property
    def name(self) -> str:
        """Such as `text -> image`."""
        return f"{self.queries.name} -> {self.side}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a direction's queries found."""

    direction: Direction
    rows: NDArray[np.int64]
    """[Q, k] exact nearest products, best first; -1 pads."""
    scores: NDArray[np.float32]
    """[Q, k]."""
    ranks: dict[str, JudgedRanks]
    """By what counts as right."""
    values: dict[str, dict[str, NDArray[np.float64]]]
    """By what counts as right and by measure, [Q]."""
    clusters: NDArray[np.int64]
    """[Q], queries of one product or group have one number."""
    results: list[DirectionResult]


def plan_directions(
    index: ProductIndex,
    query_sets: Sequence[QuerySet],
    truth: CatalogTruth,
    judged: Callable[[QuerySet], Judgements] | None = None,
) -> list[Direction]:
    """Return the directions that the index and the queries allow; queries without anything right are left out.

    Args:
        index: the version.
        query_sets: who asks.
        truth: what is right for a product's queries.
        judged: returns what is right for the queries of a file.

    Raises:
        ArtifactError: there is none.
    """
    directions = []
    for queries in query_sets:
        for side, made_of in SOURCES.items():
            if side not in index.sides:
                continue
            if len(queries.rows) and queries.rows[0] == FREE:
                if judged is not None:
                    directions.append(_asking(queries, side, {"judged": judged(queries)}))
            elif queries.name not in made_of:  # else its own vector would find itself
                right = {"product": truth.same_product(queries.rows)}
                if (group := truth.same_group(queries.rows)) is not None:
                    right["group"] = group
                directions.append(_asking(queries, side, right))
            elif queries.name == side and (others := truth.others_of_group(queries.rows)) is not None:
                directions.append(_asking(queries, side, {"group": others}, truth.same_product(queries.rows)))
    directions = [direction for direction in directions if len(direction.queries.rows)]
    directions.sort(key=_importance)
    if not directions:
        raise ArtifactError("the index has one side only and no groups, so there is nothing to look for; add --photos")
    return directions


def measure_direction(
    direction: Direction,
    index: ProductIndex,
    search: Search,
    *,
    clusters: NDArray[np.int64],
    num_products: int,
    ks: Sequence[int],
    depth: int,
    seed: int,
) -> Measured:
    """Search exactly and turn the ranks into numbers.

    Args:
        direction: what is asked.
        index: the version.
        search: of the whole gallery.
        clusters: int64 [Q], from 0; queries that are resampled together.
        num_products: products that have the side.
        ks: cut-offs.
        depth: hits to keep of each query.
        seed: of the bootstrap.
    """
    queries, side = direction.queries, direction.side
    present = {name: is_present(index, right.row, side) for name, right in direction.right.items()}
    judged = tuple(
        judged_set(queries.vectors, only(right, present[name]), index, side) for name, right in direction.right.items()
    )
    found = search(ExactSearch(queries.vectors, depth, judged, direction.excluded), side)
    ranks, values, results = {}, {}, []
    for number, (name, right) in enumerate(direction.right.items()):
        ranks[name] = _spread(right, present[name], judged[number], found.num_greater[number], found.num_equal[number])
        values[name] = measure_queries(ranks[name], ks)
        results.append(
            summarize(
                direction.name,
                name,
                ranks[name],
                np.bincount(right.query[present[name]], minlength=right.num_queries) > 0,
                clusters,
                num_products=num_products,
                ks=ks,
                seed=seed,
            )
        )
    return Measured(direction, found.rows, found.scores, ranks, values, clusters, results)


def cluster_labels(truth: CatalogTruth, queries: QuerySet) -> NDArray[np.int64]:
    """Return what is resampled together: queries of a group, else of a product, else each query by itself."""
    if len(queries.rows) and queries.rows[0] == FREE:
        return np.unique(np.array(queries.ids), return_inverse=True)[1].astype(np.int64)
    labels = truth.listing if truth.group is None else truth.group
    return np.unique(labels[queries.rows], return_inverse=True)[1].astype(np.int64)


def count_products(index: ProductIndex, side: Side) -> int:
    """Return how many products have a side."""
    return int(sum(block.any(axis=1).sum() for _, block in index.blocks(side)))


def is_present(index: ProductIndex, rows: NDArray[np.int64], side: Side) -> NDArray[np.bool_]:
    """Return which rows have a vector of a side, bool like rows; -1 has none."""
    present = rows >= 0
    for start in range(0, len(rows), PAIR_ROWS):
        part = slice(start, start + PAIR_ROWS)
        present[part] &= index.vectors_of(np.maximum(rows[part], 0), side).any(axis=1)
    return present


def _importance(direction: Direction) -> tuple[bool, bool, bool]:
    """Return a sorting key that puts what most people do first: words of their own that look for pictures."""
    queries = direction.queries
    return direction.excluded is not None, queries.kind != "text", queries.rows[0] != FREE


def _asking(
    queries: QuerySet, side: Side, right: dict[str, Judgements], excluded: Judgements | None = None
) -> Direction:
    """Return a direction of those queries that have something right."""
    asked = np.flatnonzero(np.stack([judgements.num_right > 0 for judgements in right.values()]).any(axis=0))
    kept = QuerySet(
        queries.name, queries.kind, queries.vectors[asked], queries.rows[asked], [queries.ids[i] for i in asked]
    )
    return Direction(
        kept,
        side,
        {name: judgements.of_queries(asked) for name, judgements in right.items()},
        None if excluded is None else excluded.of_queries(asked),
    )


def only(right: Judgements, kept: NDArray[np.bool_]) -> Judgements:
    """Return some of the judgements."""
    return Judgements(right.num_queries, right.query[kept], right.row[kept], right.gain[kept])


def judged_set(
    vectors: NDArray[np.float32],
    right: Judgements,
    index: ProductIndex,
    side: Side,
    correction: Correction | None = None,
) -> JudgedSet:
    """Return right products that have the side, with their scores."""
    scores = np.empty(len(right.row), np.float32)
    for start in range(0, len(scores), PAIR_ROWS):
        part = slice(start, start + PAIR_ROWS)
        pairs = Judgements(right.num_queries, right.query[part], right.row[part], right.gain[part])
        scores[part] = pair_scores(vectors, pairs, index.vectors_of(pairs.row, side), correction)
    return JudgedSet(right, scores)


def _spread(
    right: Judgements,
    present: NDArray[np.bool_],
    judged: JudgedSet,
    num_greater: NDArray[np.int64],
    num_equal: NDArray[np.int64],
) -> JudgedRanks:
    """Return the ranks of all right products; those without the searched side are never found."""
    greater = np.full(len(right.row), NOT_FOUND, np.int64)
    equal = np.zeros(len(right.row), np.int64)
    score = np.full(len(right.row), np.nan, np.float32)
    greater[present], equal[present], score[present] = num_greater, num_equal, judged.scores
    return JudgedRanks(right, greater, equal, score)
