"""The numbers of one direction: each measure with its interval, its bounds under ties, and chance beside it.

Q is the number of queries, M of measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from eval.gallery_size import hit_at_k_of_size
from eval.judged import JudgedRanks, Ties
from eval.measures import (
    capped_recall_at_k,
    hit_at_k,
    ndcg_at_k,
    rank_of_first,
    recall_at_k,
    reciprocal_rank,
)
from product_retrieval.metrics import bootstrap_intervals, chance_hit_at_k

CURVE_LARGEST_K = 100
NDCG_K = 10
GALLERY_K = 10
GALLERY_SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its 95 % interval."""

    mean: float
    """With ties in random order."""
    low: float
    high: float
    worst: float
    """With every tie against the right product."""
    best: float
    """With every tie in its favour."""
    chance: float | None
    """What a random order would get; None where that is not worked out."""


@dataclass(frozen=True, slots=True)
class GalleryPoint:
    """hit@10 in a random gallery of another size."""

    size: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DirectionResult:
    """How good one kind of query is at finding one side of the products."""

    name: str
    """Such as `text -> image`."""
    relevant: str
    """Which hits count as right: `product`, `group`, or `judged` by a file."""
    num_queries: int
    num_products: int
    """Size of the gallery."""
    num_right: float
    """Right products of a query, on average."""
    num_unanswerable: int
    """Queries whose right products lack the searched side or are not in the index: they count as misses."""
    num_tied: int
    """Queries whose first right product shares its score with wrong ones."""
    measures: dict[str, Estimate]
    """By `hit@1`, `recall@10`, `capped_recall@10`, `mrr`, `ndcg@10` and so on."""
    median_rank: float | None
    """Of the first right product, unanswerable queries last; None where that is most of them."""
    mean_rank: float | None
    """Of the first right product of the queries that can be answered; None without any."""
    curve: list[float]
    """Mean hit@k for k = 1 ... 100."""
    gallery: list[GalleryPoint]
    """hit@10 by the size of the gallery."""


def measure_queries(ranks: JudgedRanks, ks: Sequence[int], ties: Ties = "expected") -> dict[str, NDArray[np.float64]]:
    """Return every measure, a value a query, float64 [Q] each."""
    measured = {}
    for name, function in (("hit", hit_at_k), ("recall", recall_at_k), ("capped_recall", capped_recall_at_k)):
        measured |= {f"{name}@{k}": function(ranks, k, ties) for k in ks}
    return measured | {"mrr": reciprocal_rank(ranks, ties), f"ndcg@{NDCG_K}": ndcg_at_k(ranks, NDCG_K, ties)}


def summarize(
    name: str,
    relevant: str,
    ranks: JudgedRanks,
    is_answerable: NDArray[np.bool_],
    clusters: NDArray[np.int64],
    *,
    num_products: int,
    ks: Sequence[int],
    seed: int,
) -> DirectionResult:
    """Turn ranks into a direction's numbers.

    Args:
        name: of the direction.
        relevant: what counts as right.
        ranks: of the right products of Q queries, at least one query.
        is_answerable: bool [Q], whether a right product can be found at all.
        clusters: int64 [Q], from 0; queries of one cluster are resampled together.
        num_products: size of the gallery.
        ks: cut-offs.
        seed: of the bootstrap.
    """
    expected = measure_queries(ranks, ks)
    low, high = bootstrap_intervals(np.stack(list(expected.values()), axis=1), clusters, seed=seed)
    worst, best = (measure_queries(ranks, ks, ties) for ties in ("worst", "best"))
    chance = {f"hit@{k}": partial(_chance, ranks, num_products, k) for k in ks}
    measures = {
        key: Estimate(
            mean=float(values.mean()),
            low=float(low[number]),
            high=float(high[number]),
            worst=float(worst[key].mean()),
            best=float(best[key].mean()),
            chance=chance[key]() if key in chance else None,
        )
        for number, (key, values) in enumerate(expected.items())
    }
    rank = rank_of_first(ranks)
    median = float(np.median(rank))
    found = rank[is_answerable]
    return DirectionResult(
        name=name,
        relevant=relevant,
        num_queries=ranks.num_queries,
        num_products=num_products,
        num_right=float(ranks.judgements.num_right.mean()),
        num_unanswerable=int((~is_answerable).sum()),
        num_tied=int((hit_places(ranks)[1] > 0).sum()),
        measures=measures,
        median_rank=median if np.isfinite(median) else None,
        mean_rank=float(found.mean()) if len(found) else None,
        curve=[float(hit_at_k(ranks, k).mean()) for k in range(1, min(CURVE_LARGEST_K, num_products) + 1)],
        gallery=gallery_curve(ranks, clusters, num_products=num_products, seed=seed),
    )


def gallery_curve(
    ranks: JudgedRanks, clusters: NDArray[np.int64], *, num_products: int, seed: int
) -> list[GalleryPoint]:
    """Return hit@10 for random galleries of rising sizes up to the whole."""
    sizes = [size for size in GALLERY_SIZES if size < num_products] + [num_products]
    values = [hit_at_k_of_size(ranks, GALLERY_K, num_products=num_products, size=size) for size in sizes]
    low, high = bootstrap_intervals(np.stack(values, axis=1), clusters, seed=seed)
    return [
        GalleryPoint(size, float(hits.mean()), float(low[number]), float(high[number]))
        for number, (size, hits) in enumerate(zip(sizes, values, strict=True))
    ]


def hit_places(ranks: JudgedRanks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each query the wrong products above its first right one and beside it, int64 [Q]; 0 without one."""
    places = ranks.places()
    greater, equal = np.zeros(ranks.num_queries, np.int64), np.zeros(ranks.num_queries, np.int64)
    query, first = places.first
    greater[query], equal[query] = places.start[first], places.num_wrong[first]
    return greater, equal


def _chance(ranks: JudgedRanks, num_products: int, k: int) -> float:
    return float(chance_hit_at_k(ranks.judgements.num_right, num_products, k).mean())
