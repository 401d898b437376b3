"""Retrieval metrics from counts: how many products score higher than the right one, and how many score the same.

Counts give every metric at every cut-off at once, and what ties do to it. Q is the number of queries, N of products
in the gallery. Each function returns per-query values, so that the caller can average, slice and resample them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def expected_hit_at_k(num_greater: NDArray[np.int64], num_equal: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Chance that the right product is among the first k hits when ties are broken at random.

    The R@K of CLIP papers is this hit@k, not the recall@k of information retrieval.

    Args:
        num_greater: int64 [Q], wrong products that score higher than the best right one.
        num_equal: int64 [Q], wrong products that score the same.
        k: cut-off, at least 1.

    Returns:
        float64 [Q] in [0, 1].

    Raises:
        ValueError: k is below 1 or the shapes differ.
    Source: McSherry and Najork, Computing information retrieval performance measures efficiently in the presence of
        tied scores, ECIR 2008, for one relevant item.
    """
    if k < 1 or num_greater.shape != num_equal.shape:
        raise ValueError(f"need k >= 1 and equal shapes, got k = {k}, {num_greater.shape}, {num_equal.shape}")
    return np.clip((k - num_greater) / (num_equal + 1.0), 0.0, 1.0)


def expected_reciprocal_rank(num_greater: NDArray[np.int64], num_equal: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of 1 / rank of the right product over all orders of its ties.

    Args:
        num_greater: int64 [Q], wrong products that score higher than the best right one.
        num_equal: int64 [Q], wrong products that score the same.

    Returns:
        float64 [Q] in (0, 1].
    Source: Voorhees, The TREC-8 Question Answering Track Report, 1999; ties as in expected_hit_at_k.
    """
    longest = int(num_equal.max(initial=0)) + 1
    ranks = num_greater[:, None] + 1 + np.arange(longest)[None, :]
    is_possible = np.arange(longest)[None, :] <= num_equal[:, None]
    return np.asarray(np.where(is_possible, 1.0 / ranks, 0.0).sum(axis=1) / (num_equal + 1.0))


def chance_hit_at_k(num_relevant: NDArray[np.int64], num_products: int, k: int) -> NDArray[np.float64]:
    """hit@k of a random order: what a number has to be compared with.

    Args:
        num_relevant: int64 [Q], right products of each query.
        num_products: N, size of the gallery.
        k: cut-off, 1 <= k <= N.

    Returns:
        float64 [Q]: 1 - C(N - relevant, k) / C(N, k).
    """
    missed = np.ones(len(num_relevant))
    for draw in range(min(k, num_products)):
        missed *= np.maximum(num_products - num_relevant - draw, 0) / (num_products - draw)
    return 1.0 - missed


def bootstrap_interval(
    values: NDArray[np.float64], clusters: Sequence[str], *, seed: int, num_resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of a mean whose values come in clusters, such as several queries for one product.

    Args:
        values: float64 [Q].
        clusters: Q names; values of one cluster are drawn together.
        seed: of the resamples.
        num_resamples: bootstrap samples.
        level: share of the resampled means inside the interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: no values, or as many clusters as values are not given.
    Source: see bootstrap_intervals.
    """
    _, members = np.unique(np.asarray(clusters), return_inverse=True)
    low, high = bootstrap_intervals(values[:, None], members, seed=seed, num_resamples=num_resamples, level=level)
    return float(low[0]), float(high[0])


def bootstrap_intervals(
    values: NDArray[np.float64],
    clusters: NDArray[np.int64],
    *,
    seed: int,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Confidence intervals of the means of several measures of the same queries, from the same resamples.

    Args:
        values: float64 [Q, M], a column a measure.
        clusters: int64 [Q], from 0 without gaps; values of one cluster are drawn together.
        seed: of the resamples.
        num_resamples: bootstrap samples.
        level: share of the resampled means inside an interval.

    Returns:
        Lower and upper ends, float64 [M] each.

    Raises:
        ValueError: no values, or as many clusters as values are not given.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; clusters as in Field and Welsh,
        Bootstrapping clustered data, 2007.
    """
    if len(values) == 0 or len(values) != len(clusters):
        raise ValueError(f"need one cluster a value and at least one, got {len(values)} and {len(clusters)}")
    sizes = np.bincount(clusters)
    order = np.argsort(clusters, kind="stable")
    sums = np.add.reduceat(values[order], np.cumsum(sizes) - sizes, axis=0)
    generator = np.random.default_rng(seed)
    means = np.empty((num_resamples, values.shape[1]))
    for number in range(num_resamples):
        drawn = np.bincount(generator.integers(len(sizes), size=len(sizes)), minlength=len(sizes)).astype(np.float64)
        means[number] = drawn @ sums / (drawn @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
