"""The numbers of a report: hit@k by direction with intervals, chance beside them, and the queries behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from product_retrieval.metrics import (
    bootstrap_interval,
    chance_hit_at_k,
    expected_hit_at_k,
    expected_reciprocal_rank,
)

CURVE_LARGEST_K = 100


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries with its 95 % interval, and what a random order would get."""

    mean: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True, slots=True)
class DirectionResult:
    """How good one kind of query is at finding one side of the products."""

    name: str
    """Such as `text -> image`."""
    relevant: str
    """Which hits count as right: `product` or `group`."""
    num_queries: int
    num_products: int
    """Size of the gallery."""
    hits: dict[str, Estimate]
    """hit@k by `hit@1` and so on."""
    mean_reciprocal_rank: float
    median_rank: float
    num_tied: int
    """Queries whose right product shares its score with wrong ones; ties count by their expected value."""
    curve: list[float]
    """Mean hit@k for k = 1 ... 100."""


def summarize(
    name: str,
    relevant: str,
    num_greater: NDArray[np.int64],
    num_equal: NDArray[np.int64],
    num_relevant: NDArray[np.int64],
    clusters: list[str],
    *,
    num_products: int,
    ks: tuple[int, ...],
    seed: int,
) -> DirectionResult:
    """Turn counts into a direction's numbers.

    Args:
        name: of the direction.
        relevant: what counts as right.
        num_greater: int64 [Q] wrong products that score higher than the best right one.
        num_equal: int64 [Q] wrong products that score the same.
        num_relevant: int64 [Q] right products of each query.
        clusters: Q names; queries of one cluster are resampled together.
        num_products: size of the gallery.
        ks: cut-offs.
        seed: of the bootstrap.
    """
    hits = {}
    for k in ks:
        values = expected_hit_at_k(num_greater, num_equal, k)
        low, high = bootstrap_interval(values, clusters, seed=seed)
        chance = float(chance_hit_at_k(num_relevant, num_products, k).mean())
        hits[f"hit@{k}"] = Estimate(float(values.mean()), low, high, chance)
    largest = min(CURVE_LARGEST_K, num_products)
    return DirectionResult(
        name=name,
        relevant=relevant,
        num_queries=len(num_greater),
        num_products=num_products,
        hits=hits,
        mean_reciprocal_rank=float(expected_reciprocal_rank(num_greater, num_equal).mean()),
        median_rank=float(np.median(num_greater + 1 + num_equal / 2)),
        num_tied=int((num_equal > 0).sum()),
        curve=[float(expected_hit_at_k(num_greater, num_equal, k).mean()) for k in range(1, largest + 1)],
    )
