"""How shards are searched: exactly on the stored vectors, or by candidates from FAISS that are scored on them.

Every shard is asked with the same parameters, candidates of all shards are ranked together by FAISS's scores, and only
the best are scored again, so hits and work do not depend on how the products were cut into shards. Q is the number of
queries, C of candidates, D the dimension; masks say for each shard which of its rows may be found, None for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from product_retrieval.index.halves import BIAS_SCALE, widen
from product_retrieval.index.ranking import Hits, RunningBest, best
from product_retrieval.index.shard import OpenShard, ivf_of, stored_vectors
from product_retrieval.index.spec import CALIBRATED_K, OperatingPoint, Side

BLOCK_ROWS = 16_384
"""Stored vectors that are compared at once in exact search: 32 MiB of 512 dimensions as float32."""
TIE_MARGIN = 8
"""Candidates asked for beyond those wanted, at least: those that tie with the last one wanted are all re-scored."""
PROBE_STEP = 8
"""How many times more lists are probed for queries whose hits do not fill k."""

Masks = Sequence[NDArray[np.bool_] | None]


def search_exactly(shards: Sequence[OpenShard], queries: NDArray[np.float32], side: Side, k: int, masks: Masks) -> Hits:
    """Compare float32 [Q, D] with every stored vector of a side that may be found."""
    running = RunningBest(len(queries), k)
    scaled = np.asarray(queries * BIAS_SCALE, np.float32)
    for shard, mask in zip(shards, masks, strict=True):
        if side not in shard.sides:
            continue
        vectors = shard.sides[side].vectors
        rows = None if mask is None else np.flatnonzero(mask)
        for start in range(0, len(vectors) if rows is None else len(rows), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(vectors))
            local = np.arange(start, stop) if rows is None else rows[start:stop]
            block = widen(vectors[start:stop] if rows is None else vectors[local])
            scores = scaled @ block.T
            scores[:, ~block.any(axis=1)] = -np.inf
            running.offer(local + shard.first_row, scores)
    return running.hits()


def search_filling(
    shards: Sequence[OpenShard], queries: NDArray[np.float32], side: Side, k: int, point: OperatingPoint, masks: Masks
) -> Hits:
    """Search float32 [Q, D] with FAISS at a point; harder, where the lists that were probed do not hold k products."""
    hits = _search_once(shards, queries, side, k, point, masks)
    probes = point.num_probes
    while (short := np.flatnonzero(hits.rows[:, -1] < 0)).size and probes < (lists := num_lists(shards, side)):
        probes = min(probes * PROBE_STEP, lists)
        harder = OperatingPoint(probes, point.rescore_factor)
        again = _search_once(shards, queries[short], side, k, harder, masks)
        hits.rows[short], hits.scores[short] = again.rows, again.scores
    return hits


def num_lists(shards: Sequence[OpenShard], side: Side) -> int:
    """Return the lists of the IVF of a side; 1 where it has none."""
    indexes = [shard.sides[side].faiss_index for shard in shards if side in shard.sides]
    ivf = ivf_of(indexes[0]) if indexes else None
    return 1 if ivf is None else int(ivf.nlist)


def _search_once(
    shards: Sequence[OpenShard], queries: NDArray[np.float32], side: Side, k: int, point: OperatingPoint, masks: Masks
) -> Hits:
    num_wanted = max(k, CALIBRATED_K) * point.rescore_factor if point.rescore_factor else k
    rows, scores = [np.empty((len(queries), 0), np.int64)], [np.empty((len(queries), 0), np.float32)]
    for shard, mask in zip(shards, masks, strict=True):
        if side in shard.sides and (mask is None or mask.any()):
            shard_scores, shard_rows = shard.candidates(
                side,
                queries,
                num_candidates=num_wanted + max(TIE_MARGIN, num_wanted // 8),
                num_probes=point.num_probes,
                allowed=mask,
            )
            rows.append(shard_rows)
            scores.append(shard_scores)
    if not point.rescore_factor:
        return best(np.hstack(rows), np.hstack(scores), k)
    candidates = _best_with_ties(np.hstack(rows), np.hstack(scores), num_wanted)
    return best(candidates, rescore(shards, queries, candidates, side), k)


def rescore(
    shards: Sequence[OpenShard], queries: NDArray[np.float32], rows: NDArray[np.int64], side: Side
) -> NDArray[np.float32]:
    """Score candidates on the stored vectors.

    Args:
        shards: all shards of a version.
        queries: float32 [Q, D].
        rows: int64 [Q, C] candidates; -1 pads.
        side: that is searched.

    Returns:
        float32 [Q, C] inner products.
    """
    scores = np.empty(rows.shape, np.float32)
    for query, (vector, candidates) in enumerate(zip(queries * BIAS_SCALE, rows, strict=True)):
        # One query at a time: its candidates fit a core's cache, a batch's do not.
        scores[query] = widen(stored_vectors(shards, np.maximum(candidates, 0), side)) @ vector
    return scores


def _best_with_ties(rows: NDArray[np.int64], scores: NDArray[np.float32], num_wanted: int) -> NDArray[np.int64]:
    """Return the rows of the best candidates and of all that tie with the last of them; -1 pads."""
    if rows.shape[1] <= num_wanted:
        return rows
    scores = np.where(rows < 0, -np.inf, scores)
    last = np.partition(scores, -num_wanted, axis=1)[:, -num_wanted, None]
    kept = np.where((scores >= last) & (rows >= 0), rows, -1)
    width = int((kept >= 0).sum(axis=1).max(initial=0))
    return -np.sort(-kept, axis=1)[:, :width]
