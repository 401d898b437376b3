"""What becomes of hit@k as the catalogue grows or shrinks, in closed form from ranks that are known already.

With a right product that g of W wrong ones outrank, a random smaller gallery holds a hypergeometric number of those g:
no gallery has to be drawn, and one exact search gives hit@k for every size. Q is the number of queries.
"""

from __future__ import annotations

from math import lgamma

import numpy as np
from numpy.typing import NDArray

from eval.judged import JudgedRanks

MAX_TIED = 256
"""Wrong products that tie with the right one up to which each of their places is computed; more are sampled evenly."""


def hit_at_k_of_size(ranks: JudgedRanks, k: int, *, num_products: int, size: int) -> NDArray[np.float64]:
    """Return hit@k in a random gallery of another size that has each query's right products, float64 [Q].

    Args:
        ranks: in the whole gallery.
        k: cut-off, at least 1.
        num_products: size of the whole gallery.
        size: of the smaller gallery; at least 1 and at most num_products.

    Raises:
        ValueError: the size is out of range.
    Source: the hypergeometric distribution; Feller, An Introduction to Probability Theory, volume 1, section II.6.
    """
    if not 1 <= size <= num_products:
        raise ValueError(f"a gallery has from 1 to {num_products:,} products, not {size:,}")
    places = ranks.places()
    query, first = places.first
    num_right = ranks.judgements.num_right[query]
    keys = np.stack([places.start[first], places.num_wrong[first], places.num_right[first], num_right])
    kinds, which = np.unique(keys, axis=1, return_inverse=True)
    values = np.array([_hit(*map(int, kind), k, num_products, size) for kind in kinds.T])
    result = np.zeros(ranks.num_queries)
    if len(query):
        result[query] = values[which]
    return result


def _hit(start: int, num_tied: int, num_right_tied: int, num_right: int, k: int, num_products: int, size: int) -> float:
    """Return the chance that the first right product is a hit, over all orders of what ties with it."""
    num_wrong = max(num_products - num_right, 0)
    drawn = max(size - num_right, 0)
    if num_tied <= MAX_TIED:
        ahead = np.arange(num_tied + 1, dtype=np.float64)
    else:
        ahead = np.round(np.linspace(0, num_tied, MAX_TIED + 1))
    total = num_tied + num_right_tied
    # Chance that so many wrong ones stand before the first right one of the place, up to a factor.
    chance = np.exp(
        [_log_choose(total - int(j) - 1, num_right_tied - 1) - _log_choose(total, num_right_tied) for j in ahead]
    )
    found = [at_most(k - 1, num_wrong, start + int(j), drawn) for j in ahead]
    return float(np.average(found, weights=chance))


def at_most(limit: int, population: int, num_marked: int, num_drawn: int) -> float:
    """Return the chance that a sample without replacement holds at most so many marked ones.

    Args:
        limit: marked ones at most.
        population: what is drawn from.
        num_marked: of the population; more than there are count as never found.
        num_drawn: size of the sample.
    """
    if num_marked > population:
        return 0.0
    least, most = max(0, num_drawn - (population - num_marked)), min(num_marked, num_drawn)
    if limit >= most:
        return 1.0
    all_samples = _log_choose(population, num_drawn)
    logs = [
        _log_choose(num_marked, held) + _log_choose(population - num_marked, num_drawn - held) - all_samples
        for held in range(least, limit + 1)
    ]
    return min(float(np.exp(logs).sum()), 1.0)


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
