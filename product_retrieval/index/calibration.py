"""How hard an index must be searched: the cheapest operating point that reaches a recall, measured, by kind of query.

Queries are the catalogue's own vectors. A product's text vector is a real text query for the image side; a product's
own vector of the searched side would find itself at once, so its own row does not count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from product_retrieval.index.searcher import ProductIndex
from product_retrieval.index.spec import CALIBRATED_K, EXACT, OperatingPoint, Side

NUM_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
RESCORE_FACTORS = (2, 4, 8, 16, 32)


def calibrate(
    index: ProductIndex,
    *,
    against: Side,
    query_kind: Side,
    queries: NDArray[np.float32],
    own_rows: NDArray[np.int64],
    num_lists: int,
    target_recall: float,
) -> OperatingPoint:
    """Find the cheapest operating point whose recall@10 against exact search reaches a target.

    Args:
        index: the version, open; its own operating points are not used.
        against: side that is searched.
        query_kind: what the queries are.
        queries: float32 [Q, D].
        own_rows: int64 [Q], the product each query was made from.
        num_lists: lists of the IVF; 1 for an exact index.
        target_recall: share of the exact ten nearest that must be found.

    Returns:
        The point, with the recall it reached; the best one where none reaches the target.
    """
    side = index.sides[against]
    if side.is_exact:
        return EXACT
    skip_own = against == query_kind
    depth = CALIBRATED_K + 1 if skip_own else CALIBRATED_K
    truth = exact_neighbours(queries, side.vectors, depth)
    truth = _without(truth, own_rows) if skip_own else truth
    best = OperatingPoint(1, RESCORE_FACTORS[0], 0.0)
    for num_probes in [n for n in NUM_PROBES if n <= num_lists]:
        for factor in RESCORE_FACTORS:
            point = OperatingPoint(num_probes, factor)
            found = index.search(queries, against=against, k=depth, point=point).rows
            found = _without(found, own_rows) if skip_own else found
            recall = recall_at_k(found, truth)
            if recall > (best.recall_at_10 or 0.0):
                best = OperatingPoint(num_probes, factor, recall)
            if recall >= target_recall:
                return best
    return best


def exact_neighbours(
    queries: NDArray[np.float32], vectors: NDArray[np.float16], k: int, *, block: int = 65_536
) -> NDArray[np.int64]:
    """Return the rows of the k nearest vectors by inner product, computed block by block.

    Args:
        queries: float32 [Q, D].
        vectors: float16 [N, D]; rows of zeros are products without this side and never returned.
        k: neighbours.
        block: vectors compared at once.

    Returns:
        int64 [Q, k], best first, equal scores by row; -1 pads where there are fewer.
    """
    best_scores = np.full((len(queries), k), -np.inf, np.float32)
    best_rows = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(vectors), block):
        chunk = vectors[start : start + block].astype(np.float32)
        scores = queries @ chunk.T
        scores[:, ~chunk.any(axis=1)] = -np.inf
        rows = np.broadcast_to(np.arange(start, start + len(chunk)), scores.shape)
        all_scores = np.hstack([best_scores, scores])
        all_rows = np.hstack([best_rows, rows])
        order = np.lexsort((all_rows, -all_scores), axis=1)[:, :k]
        best_scores = np.take_along_axis(all_scores, order, 1)
        best_rows = np.take_along_axis(all_rows, order, 1)
    return np.where(np.isneginf(best_scores), -1, best_rows)


def recall_at_k(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the mean share of each query's true neighbours that were found.

    Args:
        found: int64 [Q, k] rows; -1 pads.
        truth: int64 [Q, k] rows; -1 pads.
    """
    is_found = (truth[:, :, None] == found[:, None, :]).any(axis=2) & (truth >= 0)
    return float((is_found.sum(axis=1) / np.maximum((truth >= 0).sum(axis=1), 1)).mean())


def _without(rows: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drop each query's own row from its list, or the last entry where it is not in it."""
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    return np.asarray(rows[~is_own].reshape(len(rows), -1))
