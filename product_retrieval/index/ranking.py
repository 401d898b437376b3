"""The k best of many scored rows, in an order that does not depend on how the rows were cut or asked for.

Q is the number of queries, C of candidates, k of hits wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Hits:
    """The best products for each query, best first."""

    rows: NDArray[np.int64]
    """int64 [Q, k]; -1 pads a short list."""
    scores: NDArray[np.float32]
    """float32 [Q, k], cosine similarity; NaN where there is no hit."""


def best(rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Hits:
    """Order candidates by falling score, then by row; padding last; cut or pad to k.

    Args:
        rows: int64 [Q, C]; -1 pads.
        scores: float32 [Q, C]; whatever is beside padding is ignored.
        k: hits wanted.
    """
    missing = rows < 0
    order = np.lexsort((rows, np.where(missing, np.inf, -scores)), axis=1)[:, :k]
    best_rows = np.take_along_axis(rows, order, 1)
    best_scores = np.where(best_rows < 0, np.nan, np.take_along_axis(scores, order, 1)).astype(np.float32)
    short = k - best_rows.shape[1]
    if short > 0:
        best_rows = np.pad(best_rows, ((0, 0), (0, short)), constant_values=-1)
        best_scores = np.pad(best_scores, ((0, 0), (0, short)), constant_values=np.nan)
    return Hits(best_rows.astype(np.int64), best_scores)


class RunningBest:
    """The k best of rows that arrive in blocks, in ascending order of their rows."""

    def __init__(self, num_queries: int, k: int) -> None:
        """Start with none."""
        self._scores = np.full((num_queries, k), -np.inf, np.float32)
        self._rows = np.full((num_queries, k), -1, np.int64)

    def offer(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Take what is better than what is held.

        Args:
            rows: int64 [B], ascending and above all that were offered before.
            scores: float32 [Q, B]; -inf is never taken.
        """
        k = self._scores.shape[1]
        floor = self._scores[:, -1]  # of equal scores the lower row is kept, and it is held already
        if scores.shape[1] > k:
            kth = np.partition(scores, -k, axis=1)[:, -k] if np.isneginf(floor).any() else floor
            is_candidate = (scores >= kth[:, None]) & (scores > floor[:, None])
        else:
            is_candidate = scores > floor[:, None]
        for query in np.flatnonzero(is_candidate.any(axis=1)):
            columns = np.flatnonzero(is_candidate[query])
            all_scores = np.concatenate([self._scores[query], scores[query, columns]])
            all_rows = np.concatenate([self._rows[query], rows[columns]])
            order = np.argsort(-all_scores, kind="stable")[:k]
            self._scores[query], self._rows[query] = all_scores[order], all_rows[order]

    def hits(self) -> Hits:
        """Return what is held."""
        missing = self._rows < 0
        return Hits(np.where(missing, -1, self._rows), np.where(missing, np.nan, self._scores).astype(np.float32))
