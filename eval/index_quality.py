"""What the index loses of exact search, at each operating point, with what it costs: never mixed with task quality.

Task quality asks whether the right product is found, and is the model's; index quality asks whether exact search's
nearest products are found, and is the index's. Beside the latter stands what the loss does to the former: `lost_hit`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.directions import Measured
from eval.evaluation import Evaluation
from eval.judged import judge_hits
from eval.measures import hit_at_k
from product_retrieval.index import Side
from product_retrieval.index.calibration import recall_at_k
from product_retrieval.index.spec import OperatingPoint
from product_retrieval.metrics import bootstrap_intervals

MAX_QUERIES = 1_000
"""A seeded sample of each direction's queries: an interval of 2 points at most."""
TIMED_ALONE = 100
"""Queries that are asked one at a time for the latency."""
K = 10


@dataclass(frozen=True, slots=True)
class PointQuality:
    """An operating point."""

    direction: str
    num_probes: int
    rescore_factor: int
    is_chosen: bool
    """Whether this kind of query is searched so unless asked otherwise."""
    recall: float
    """Share of exact search's ten nearest that are found."""
    low: float
    high: float
    hit: float
    """hit@10 through the index, of the direction's first notion of what is right."""
    lost_hit: float
    """hit@10 of exact search on the same queries, less that."""
    cpu_ms: float
    """CPU time a query in a batch."""
    latency_ms: float
    """Median wall-clock time of a query asked alone, encoding not included."""


def measure_index(evaluation: Evaluation, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return the quality of each operating point for each direction that the index is searched in."""
    return [
        asdict(point)
        for one in measured
        if one.direction.excluded is None  # a search by product id drops the product itself, and measures the same
        for point in _measure(evaluation, one)
    ]


def _measure(evaluation: Evaluation, measured: Measured) -> list[PointQuality]:
    side, kind = measured.direction.side, measured.direction.queries.kind
    chosen = evaluation.sample(np.arange(len(measured.rows)), MAX_QUERIES)
    vectors, exact = measured.direction.queries.vectors[chosen], measured.rows[chosen, :K]
    ranks = next(iter(measured.ranks.values()))
    judged = ranks.judgements.of_queries(chosen)
    exact_hit = float(hit_at_k(judge_hits(judged, exact, measured.scores[chosen, :K]), K).mean())
    clusters = np.unique(measured.clusters[chosen], return_inverse=True)[1].astype(np.int64)
    results = []
    for point, is_chosen in operating_points(evaluation, side, kind):
        started = time.process_time()
        hits = evaluation.index.search(vectors, against=side, k=K, query_kind=kind, point=point)
        cpu_s = time.process_time() - started
        shares = np.array([recall_at_k(hits.rows[i : i + 1], exact[i : i + 1]) for i in range(len(exact))])
        low, high = bootstrap_intervals(shares[:, None], clusters, seed=evaluation.options.seed)
        hit = float(hit_at_k(judge_hits(judged, hits.rows, hits.scores), K).mean())
        results.append(
            PointQuality(
                direction=measured.direction.name,
                num_probes=point.num_probes,
                rescore_factor=point.rescore_factor,
                is_chosen=is_chosen,
                recall=float(shares.mean()),
                low=float(low[0]),
                high=float(high[0]),
                hit=hit,
                lost_hit=exact_hit - hit,
                cpu_ms=1000 * cpu_s / len(vectors),
                latency_ms=_latency_ms(evaluation, vectors[:TIMED_ALONE], side, kind, point),
            )
        )
    return results


def operating_points(evaluation: Evaluation, side: Side, kind: Side) -> list[tuple[OperatingPoint, bool]]:
    """Return the points on the calibrated front of recall@10 and the chosen one, cheapest first."""
    searched = evaluation.index.sides[side]
    described = evaluation.manifest.sides[side]
    own_kind = searched.measured_kind(kind)
    chosen = searched.points[own_kind]
    front = [point for point in described.measured.get(own_kind, ()) if K in point.front_of]
    points = {(point.num_probes, point.rescore_factor): point.cpu_ms for point in front}
    points.setdefault((chosen.num_probes, chosen.rescore_factor), 0.0)
    ordered = sorted(points, key=lambda point: (points[point], point))
    return [(OperatingPoint(*point), point == (chosen.num_probes, chosen.rescore_factor)) for point in ordered]


def _latency_ms(
    evaluation: Evaluation, vectors: NDArray[np.float32], side: Side, kind: Side, point: OperatingPoint
) -> float:
    spent = []
    for number in range(len(vectors)):
        started = time.perf_counter()
        evaluation.index.search(vectors[number : number + 1], against=side, k=K, query_kind=kind, point=point)
        spent.append(time.perf_counter() - started)
    return 1000 * float(np.median(spent))
