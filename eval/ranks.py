"""Exact ranks by counting: how many wrong products score higher than a query's best right one, and how many equal.

The gallery is cut into blocks; each block returns two counts a query, and counts add up. No list of hits is made, so
memory is bounded by queries x block and the answer does not depend on how the gallery was cut. Q is the number of
queries, N of products, D the dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

BLOCK_ROWS = 65_536
QUERY_ROWS = 4_096
"""A tile of scores is at most QUERY_ROWS x BLOCK_ROWS x 4 bytes = 1 GiB."""
TIE = 1e-6
"""Scores closer than this are equal: single precision rounds a cosine by about as much."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How the best right product of each query ranks."""

    num_greater: NDArray[np.int64]
    """[Q] wrong products that score higher."""
    num_equal: NDArray[np.int64]
    """[Q] wrong products that score the same."""


def best_right_scores(
    queries: NDArray[np.float32],
    vectors_of: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    relevant: list[NDArray[np.int64]],
) -> NDArray[np.float32]:
    """Return the score of each query's best right product, float32 [Q].

    Args:
        queries: float32 [Q, D].
        vectors_of: returns the gallery's vectors of some rows, float32 [len(rows), D].
        relevant: Q non-empty arrays of rows.
    """
    return np.array(
        [(vectors_of(rows) @ query).max() for query, rows in zip(queries, relevant, strict=True)], np.float32
    )


def count_block(
    queries: NDArray[np.float32],
    best: NDArray[np.float32],
    relevant: list[NDArray[np.int64]],
    block: NDArray[np.float16],
    first_row: int,
    exclude: list[NDArray[np.int64]],
) -> Counts:
    """Count within one block of the gallery.

    Args:
        queries: float32 [Q, D].
        best: float32 [Q] from best_right_scores.
        relevant: Q arrays of right rows; they are not counted.
        block: float16 [B, D]; rows of zeros are products without this side and not counted.
        first_row: row of the block's first vector.
        exclude: Q arrays of rows that count neither as right nor as wrong.
    """
    vectors = block.astype(np.float32)
    is_present = vectors.any(axis=1)
    greater = np.zeros(len(queries), np.int64)
    equal = np.zeros(len(queries), np.int64)
    for start in range(0, len(queries), QUERY_ROWS):
        rows = slice(start, start + QUERY_ROWS)
        difference = queries[rows] @ vectors.T - best[rows, None]
        difference[:, ~is_present] = -np.inf
        for local, query in enumerate(range(start, min(start + QUERY_ROWS, len(queries)))):
            skipped = np.concatenate([relevant[query], exclude[query]]) - first_row
            skipped = skipped[(skipped >= 0) & (skipped < len(block))]
            difference[local, skipped] = -np.inf
        greater[rows] = (difference > TIE).sum(axis=1)
        equal[rows] = (np.abs(difference) <= TIE).sum(axis=1)
    return Counts(greater, equal)


def count_on_cluster(
    queries: NDArray[np.float32],
    best: NDArray[np.float32],
    relevant: list[NDArray[np.int64]],
    blocks: Iterable[tuple[int, NDArray[np.float16]]],
    exclude: list[NDArray[np.int64]] | None = None,
) -> Counts:
    """Count over the whole gallery, one Ray task a block.

    Args:
        queries: float32 [Q, D], unit length.
        best: float32 [Q] from best_right_scores.
        relevant: Q non-empty arrays of right rows.
        blocks: the gallery, as the first row and the vectors float16 [up to BLOCK_ROWS, D] of each block.
        exclude: Q arrays of rows that do not count, such as the query's own product; None excludes nothing.
    """
    exclude = exclude or [np.empty(0, np.int64)] * len(queries)
    shared = [ray.put(value) for value in (queries, best, relevant)]
    excluded = ray.put(exclude)
    tasks = [_count_task.remote(*shared, np.asarray(block), first, excluded) for first, block in blocks]
    counts = ray.get(tasks)
    return Counts(sum(c.num_greater for c in counts), sum(c.num_equal for c in counts))


_count_task = ray.remote(count_block)
