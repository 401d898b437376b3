"""Metrics of a ranking, one value a query, over any number of right products and any ties.

Every function takes JudgedRanks and returns float64 [Q]; a query without a right product, or whose right products
were not found, has 0. The names are those of information retrieval: hit@k is what papers on CLIP call R@K.
Source of the expected values under ties: McSherry and Najork, Computing information retrieval performance measures
efficiently in the presence of tied scores, ECIR 2008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.judged import NOT_FOUND, JudgedRanks, Ties

EULER = 0.5772156649015329
LARGE = 100
"""From here on four terms of the harmonic numbers' asymptotic series are exact in double precision."""


def hit_at_k(ranks: JudgedRanks, k: int, ties: Ties = "expected") -> NDArray[np.float64]:
    """Whether a right product is among the first k hits."""
    _check(k)
    places = ranks.places(ties)
    query, first = places.first
    hits = np.zeros(ranks.num_queries)
    hits[query] = places.start[first] < k
    is_open = (places.num_wrong[first] > 0) & (places.start[first] < k)
    query, first = query[is_open], first[is_open]
    num_wrong, num_products = places.num_wrong[first], places.num_products[first]
    shown = np.minimum(k - places.start[first], num_products)
    chance_of_none = np.ones(len(query))
    for draw in range(int(shown.max(initial=0))):  # of `shown` products drawn from the place, none is right
        left = np.maximum(num_wrong - draw, 0) / np.maximum(num_products - draw, 1)
        chance_of_none *= np.where(draw < shown, left, 1.0)
    hits[query] = 1.0 - chance_of_none
    return hits


def recall_at_k(ranks: JudgedRanks, k: int, ties: Ties = "expected") -> NDArray[np.float64]:
    """Share of a query's right products that are among the first k hits.

    Source: Manning, Raghavan and Schuetze, Introduction to Information Retrieval, 2008, section 8.4.
    """
    return _found_at_k(ranks, k, ties) / np.maximum(ranks.judgements.num_right, 1)


def capped_recall_at_k(ranks: JudgedRanks, k: int, ties: Ties = "expected") -> NDArray[np.float64]:
    """Right products among the first k hits, as a share of how many could be there: 1 can always be reached.

    Source: Thakur et al., BEIR, NeurIPS 2021, section 3.3.
    """
    return _found_at_k(ranks, k, ties) / np.clip(ranks.judgements.num_right, 1, k)


def ndcg_at_k(ranks: JudgedRanks, k: int, ties: Ties = "expected") -> NDArray[np.float64]:
    """Discounted gain of the first k hits, as a share of the best order's; gains count as they are.

    Source: Jarvelin and Kekalainen, Cumulated gain-based evaluation of IR techniques, TOIS 2002; the gain is not
        exponentiated, as in trec_eval.
    """
    _check(k)
    discounts = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(k) + 2)))  # of the first 0 ... k ranks
    places = ranks.places(ties)
    start, end = np.minimum(places.start, k), np.minimum(places.start + places.num_products, k)
    gained = places.gain / places.num_products * (discounts[end] - discounts[start])
    judgements = ranks.judgements
    order = np.lexsort((-judgements.gain, judgements.query))
    rank = np.arange(len(order)) - np.searchsorted(judgements.query, judgements.query[order])
    best = np.where(rank < k, judgements.gain[order] / np.log2(np.minimum(rank, k) + 2), 0.0)
    total = np.bincount(places.query, gained, ranks.num_queries)
    ideal = np.bincount(judgements.query[order], best, ranks.num_queries)
    return np.divide(total, ideal, out=np.zeros(ranks.num_queries), where=ideal > 0)


def reciprocal_rank(ranks: JudgedRanks, ties: Ties = "expected") -> NDArray[np.float64]:
    """One over the rank of the first right product.

    Source: Voorhees, The TREC-8 Question Answering Track Report, 1999.
    """
    places = ranks.places(ties)
    query, first = places.first
    start, num_right, num_wrong = places.start[first], places.num_right[first], places.num_wrong[first]
    values = np.zeros(len(query))
    alone = num_right == 1
    values[alone] = _mean_reciprocal(start[alone], num_wrong[alone])
    together = np.flatnonzero(~alone)
    kinds, which = np.unique(
        np.stack([start[together], num_right[together], num_wrong[together]]), axis=1, return_inverse=True
    )
    several = np.array([_first_of_several(*map(int, kind)) for kind in kinds.T])
    if len(together):
        values[together] = several[which]
    result = np.zeros(ranks.num_queries)
    result[query] = values
    return result


def rank_of_first(ranks: JudgedRanks, ties: Ties = "expected") -> NDArray[np.float64]:
    """Rank of the first right product, from 1; infinite where there is none or it was not found."""
    places = ranks.places(ties)
    result = np.full(ranks.num_queries, np.inf)
    query, first = places.first
    expected = places.start[first] + (places.num_products[first] + 1) / (places.num_right[first] + 1)
    result[query] = np.where(places.start[first] >= NOT_FOUND, np.inf, expected)
    return result


def _found_at_k(ranks: JudgedRanks, k: int, ties: Ties) -> NDArray[np.float64]:
    """Return the expected number of right products among the first k hits, float64 [Q]."""
    _check(k)
    places = ranks.places(ties)
    shown = np.clip(k - places.start, 0, places.num_products)
    return np.bincount(places.query, shown * places.num_right / places.num_products, ranks.num_queries)


def _mean_reciprocal(start: NDArray[np.int64], num_wrong: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of 1 / rank over the ranks start + 1 ... start + num_wrong + 1."""
    span = num_wrong + 1.0
    mean = (_harmonic(start + span) - _harmonic(start.astype(np.float64))) / span
    return np.where(num_wrong == 0, 1.0 / (start + 1.0), mean)


def _harmonic(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 + 1/2 + ... + 1/n."""
    table = np.append(0.0, np.cumsum(1.0 / np.arange(1, LARGE + 1)))
    large = np.maximum(n, LARGE)
    series = np.log(large) + EULER + 1 / (2 * large) - 1 / (12 * large**2) + 1 / (120 * large**4)
    return np.where(n <= LARGE, table[np.minimum(n, LARGE).astype(np.int64)], series)


def _first_of_several(start: int, num_right: int, num_wrong: int) -> float:
    """Return the mean of 1 / rank of the first right product, over all orders of a place with several of them."""
    total = num_right + num_wrong
    position = np.arange(1, num_wrong + 2, dtype=np.float64)
    still_wrong = np.append(1.0, np.cumprod((num_wrong - position[:-1] + 1) / (total - position[:-1] + 1)))
    chance = still_wrong * num_right / (total - position + 1)
    return float((chance / (start + position)).sum())


def _check(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is at least 1, not {k}")
