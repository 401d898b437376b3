"""How hard an index must be searched: recall against exact search and cost, measured over a grid, by kind of query.

Queries are the catalogue's own vectors. A product's text vector is a real text query for the image side; where it is
what the searched side is made of, it would find itself at once, so its own row does not count. Q is the number of
queries, D the dimension.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from product_retrieval.index.searcher import ProductIndex
from product_retrieval.index.spec import EXACT, SOURCES, MeasuredPoint, OperatingPoint, Side
from product_retrieval.index.two_stage import num_lists

NUM_PROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Tried first; more only where none of these reaches the target."""
RESCORE_FACTORS = (2, 4, 8, 16, 32, 64)
KS = (1, 10, 100)
NO_GAIN = 0.0005
"""Recall that a deeper re-score must gain for a still deeper one to be tried."""
SAMPLED_ROWS = 8_192
"""Products looked at together for queries."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured for one kind of query against one side."""

    point: OperatingPoint
    """The cheapest that reaches the target, or the one with the highest recall@10."""
    measured: tuple[MeasuredPoint, ...]


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of one kind and what they should find."""

    against: Side
    kind: Side
    vectors: NDArray[np.float32]
    """float32 [Q, D]."""
    own_rows: NDArray[np.int64]
    """int64 [Q], the product that each was made from."""
    truth: dict[int, NDArray[np.int64]]
    """By k, the rows of the k nearest, int64 [Q, k], by exact search."""


def calibrate(index: ProductIndex, queries: Queries, *, target_recall: float) -> Calibration:
    """Find the cheapest operating point whose recall@10 against exact search reaches a target.

    Args:
        index: the version, open; its own operating points are not used.
        queries: from held_out.
        target_recall: share of the exact ten nearest that must be found.
    """
    if index.sides[queries.against].is_exact:
        return Calibration(EXACT, ())
    lists = num_lists(index.shards, queries.against)
    measured: list[MeasuredPoint] = []
    num_probes = [n for n in NUM_PROBES if n <= lists]
    while num_probes:
        for probes in num_probes:
            measured += _deeper_and_deeper(index, queries, probes)
            if all(_recall(measured[-1], k) > 1 - NO_GAIN for k in KS):
                break
        is_reached = max(p.recall_at_10 for p in measured) >= target_recall
        last = num_probes[-1]
        num_probes = [] if is_reached or last >= lists else [min(2 * last, lists)]
    enough = [p for p in measured if p.recall_at_10 >= target_recall]
    chosen = min(enough, key=lambda p: p.cpu_ms) if enough else max(measured, key=lambda p: p.recall_at_10)
    return Calibration(
        OperatingPoint(chosen.num_probes, chosen.rescore_factor, chosen.recall_at_10), tuple(with_fronts(measured))
    )


def held_out(index: ProductIndex, *, against: Side, kind: Side, num_queries: int, seed: int) -> Queries:
    """Return queries made from random products, with the nearest products by exact search."""
    vectors, own_rows = sample_queries(index, kind, num_queries, seed)
    finds_itself = kind in SOURCES[against]
    deepest = max(KS) + finds_itself
    nearest = index.search(vectors, against=against, k=deepest, exact=True).rows
    if finds_itself:
        nearest = without(nearest, own_rows)
    return Queries(against, kind, vectors, own_rows, {k: nearest[:, :k] for k in KS})


def measure(index: ProductIndex, queries: Queries, point: OperatingPoint) -> MeasuredPoint:
    """Return the recalls and the cost of an operating point."""
    skipped = int(queries.kind in SOURCES[queries.against])
    found = {}
    spent_s = 0.0
    for k in (10, 100):
        started = time.process_time()
        rows = index.search(queries.vectors, against=queries.against, k=k + skipped, point=point).rows
        spent_s = time.process_time() - started if k == 10 else spent_s
        found[k] = without(rows, queries.own_rows) if skipped else rows
    recalls = {k: recall_at_k(found[max(k, 10)][:, :k], queries.truth[k]) for k in KS}
    return MeasuredPoint(
        num_probes=point.num_probes,
        rescore_factor=point.rescore_factor,
        recall_at_1=recalls[1],
        recall_at_10=recalls[10],
        recall_at_100=recalls[100],
        cpu_ms=round(1000 * spent_s / max(len(queries.vectors), 1), 6),
    )


def sample_queries(
    index: ProductIndex, side: Side, num_queries: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return random products' vectors of a side, float32 [Q, D], and their rows, int64 [Q]; fewer where there are."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(index.listed))
    found: list[NDArray[np.int64]] = []
    for start in range(0, len(order), SAMPLED_ROWS):
        rows = order[start : start + SAMPLED_ROWS]
        found.append(rows[index.vectors_of(rows, side).any(axis=1)])
        if sum(len(each) for each in found) >= num_queries:
            break
    chosen = np.sort(np.concatenate([np.empty(0, np.int64), *found])[:num_queries])
    vectors = index.vectors_of(chosen, side)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), chosen


def recall_at_k(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the mean share of each query's true neighbours that were found; 1 where there are none to find.

    Args:
        found: int64 [Q, k] rows; -1 pads.
        truth: int64 [Q, k] rows; -1 pads.
    """
    num_true = (truth >= 0).sum(axis=1)
    is_found = (truth[:, :, None] == found[:, None, :]).any(axis=2) & (truth >= 0)
    shares = np.where(num_true > 0, is_found.sum(axis=1) / np.maximum(num_true, 1), 1.0)
    return float(shares.mean()) if len(shares) else 1.0


def with_fronts(measured: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    """Return the points, each with the k at which no other has as much recall for less time."""
    fronts: list[set[int]] = [set() for _ in measured]
    for k in KS:
        best = -1.0
        for number in sorted(range(len(measured)), key=lambda i: (measured[i].cpu_ms, -_recall(measured[i], k))):
            if _recall(measured[number], k) > best:
                best = _recall(measured[number], k)
                fronts[number].add(k)
    return [replace(p, front_of=tuple(sorted(front))) for p, front in zip(measured, fronts, strict=True)]


def without(rows: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drop each query's own row from its list, or the last entry where it is not in it."""
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    return np.asarray(rows[~is_own].reshape(len(rows), -1))


def _deeper_and_deeper(index: ProductIndex, queries: Queries, num_probes: int) -> list[MeasuredPoint]:
    """Measure deeper re-scores as long as they gain."""
    measured: list[MeasuredPoint] = []
    for factor in RESCORE_FACTORS:
        measured.append(measure(index, queries, OperatingPoint(num_probes, factor)))
        if len(measured) > 1 and all(_recall(measured[-1], k) - _recall(measured[-2], k) < NO_GAIN for k in KS):
            break
    return measured


def _recall(point: MeasuredPoint, k: int) -> float:
    return {1: point.recall_at_1, 10: point.recall_at_10, 100: point.recall_at_100}[k]
