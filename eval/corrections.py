"""What two known corrections would bring: closing the gap between the modalities, and taking hubs down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.directions import Measured, is_present, judged_set, only
from eval.evaluation import Evaluation
from eval.exact_pass import bias_of_gallery
from eval.exact_search import Correction, ExactSearch
from eval.judged import JudgedRanks, Judgements
from eval.measures import hit_at_k, reciprocal_rank
from eval.neighbourhoods import BIAS_SHARES
from product_retrieval.index import Side
from product_retrieval.index.calibration import sample_queries
from product_retrieval.metrics import bootstrap_intervals

MAX_QUERIES = 2_000
BANK_SIZE = 2_000
"""Queries of other products that a product's bias is measured against."""
MIN_BANK = 100
K = 10


@dataclass(frozen=True, slots=True)
class Corrected:
    """A direction's quality under a correction."""

    direction: str
    correction: str
    num_queries: int
    hit_at_10: float
    mrr: float
    gained: float
    """hit@10, less that without a correction."""
    low: float
    high: float
    """95 % interval of what is gained, of the same queries."""


def measure_corrections(evaluation: Evaluation, measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return what each correction brings to the directions from one modality to the other."""
    results: list[Corrected] = []
    for one in measured:
        crosses = {one.direction.queries.kind, one.direction.side} == {"image", "text"}
        if crosses and one.direction.excluded is None:
            results += _of_direction(evaluation, one)
    return [asdict(result) for result in results]


def _of_direction(evaluation: Evaluation, one: Measured) -> list[Corrected]:
    index, options = evaluation.index, evaluation.options
    side, kind = one.direction.side, one.direction.queries.kind
    chosen = evaluation.sample(np.arange(len(one.rows)), MAX_QUERIES)
    queries = one.direction.queries.vectors[chosen]
    right = next(iter(one.direction.right.values())).of_queries(chosen)
    right = only(right, is_present(index, right.row, side))
    asking = set(one.direction.queries.rows[chosen].tolist())
    bank, bank_rows = sample_queries(index, kind, BANK_SIZE + len(chosen), options.seed + 1)
    is_other = np.array([row not in asking for row in bank_rows.tolist()], bool)
    bank = bank[is_other][:BANK_SIZE]
    if len(bank) < MIN_BANK:
        return []
    gallery, _ = sample_queries(index, side, BANK_SIZE, options.seed + 2)
    shifted = queries - bank.mean(axis=0)
    shifted /= np.maximum(np.linalg.norm(shifted, axis=1, keepdims=True), 1e-12)
    bias = bias_of_gallery(bank, index, side, workers=evaluation.workers)
    tried = [
        ("none", queries, None),
        ("means of both modalities taken off", shifted, Correction(shift=gallery.mean(axis=0))),
        *((f"{share:.0%} of the hub bias taken off", queries, Correction(bias=bias * share)) for share in BIAS_SHARES),
    ]
    clusters = np.unique(one.clusters[chosen], return_inverse=True)[1].astype(np.int64)
    results: list[Corrected] = []
    plain = np.zeros(len(chosen))
    for name, vectors, correction in tried:
        ranks = _ranks(evaluation, np.ascontiguousarray(vectors, np.float32), right, side, correction)
        hits = hit_at_k(ranks, K)
        plain = hits if correction is None else plain
        low, high = bootstrap_intervals((hits - plain)[:, None], clusters, seed=options.seed)
        results.append(
            Corrected(
                direction=one.direction.name,
                correction=name,
                num_queries=len(chosen),
                hit_at_10=float(hits.mean()),
                mrr=float(reciprocal_rank(ranks).mean()),
                gained=float((hits - plain).mean()),
                low=float(low[0]),
                high=float(high[0]),
            )
        )
    return results


def _ranks(
    evaluation: Evaluation, queries: np.ndarray, right: Judgements, side: Side, correction: Correction | None
) -> JudgedRanks:
    judged = judged_set(queries, right, evaluation.index, side, correction)
    found = evaluation.search(ExactSearch(queries, 0, (judged,), None, correction), side)
    return JudgedRanks(right, found.num_greater[0], found.num_equal[0], judged.scores)
