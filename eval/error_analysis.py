"""Where and why it fails: misses with causes, look-alikes, confusion pairs and suspicious texts, with examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.directions import Measured
from eval.evaluation import Evaluation
from eval.judged import JudgedRanks, judge_hits
from eval.lookalikes import choose_tau, confused_pairs, find_lookalikes, tell_apart
from eval.measures import hit_at_k, rank_of_first
from eval.misses import sort_misses
from eval.neighbourhoods import is_hub, occurrences
from eval.queries import FREE
from eval.studied import Studied
from eval.text_quality import CONTRADICTS, MIN_WORDS, WORD, normalized, suspicious_texts
from product_retrieval.hits import title_of
from product_retrieval.index import Side
from product_retrieval.index.two_stage import num_lists

K = 10
MAX_QUERIES = 5_000
"""Queries of each direction that are asked through the index, a seeded sample."""
MAX_TEXTS = 100_000
"""Products, a seeded sample of the catalogue, whose texts are looked at."""
WORST_QUERIES = 12
NOT_TELLING = ("product_id", "image_ref", "group_id", "duplicate_of", "text")


@dataclass(frozen=True, slots=True)
class Through:
    """What a direction's queries find through the index, as they would when it is served."""

    positions: NDArray[np.int64]
    """[Q], of the queries among the direction's."""
    rows: NDArray[np.int64]
    """[Q, 10] hits."""
    ranks: JudgedRanks
    """Within these hits."""
    is_miss: NDArray[np.bool_]
    """[Q], whether no right product is among them."""


def analyse_errors(evaluation: Evaluation, measured: Sequence[Measured], studied: Studied) -> dict[str, Any]:
    """Return look-alikes, misses, confusion pairs, the worst queries and the suspicious texts, for the record."""
    tau = choose_tau(_of_others(evaluation, studied))
    found = find_lookalikes(
        studied.rows, studied.image_neighbours, studied.image_scores, evaluation.truth.listing, tau=tau
    )
    crossing = [one for one in measured if one.direction.excluded is None and one.direction.queries.rows[0] != FREE]
    record: dict[str, Any] = {"misses": [_misses(evaluation, one, studied, tau) for one in crossing]}
    asking = next((one for one in crossing if one.direction.name == "text -> image"), None)
    lookalikes = {**asdict(found), "groups": [_named(evaluation, rows) for rows in found.groups]}
    if asking is not None:
        lookalikes |= _ambiguity(asking, studied, tau, evaluation)
        record["confusions"] = _confusions(evaluation, asking)
        record["worst"] = _worst(evaluation, asking)
    record["lookalikes"] = lookalikes
    record["texts"] = _texts(evaluation, studied)
    return record


def _of_others(evaluation: Evaluation, studied: Studied) -> NDArray[np.float32]:
    """Return the similarity of each product's nearest neighbour that is another product, float32 [N, 1]."""
    listing = evaluation.truth.listing
    rows = studied.image_neighbours
    is_other = (rows >= 0) & (listing[np.maximum(rows, 0)] != listing[studied.rows][:, None])
    scores = np.where(is_other, studied.image_scores, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(scores), scores, np.nan).astype(np.float32)[:, None]


def through_index(evaluation: Evaluation, one: Measured) -> Through:
    """Ask a direction's queries through the index, at its chosen operating point."""
    positions = evaluation.sample(np.arange(len(one.rows)), MAX_QUERIES)
    queries, side = one.direction.queries, one.direction.side
    hits = evaluation.index.search(queries.vectors[positions], against=side, k=K, query_kind=queries.kind)
    right = next(iter(one.direction.right.values())).of_queries(positions)
    ranks = judge_hits(right, hits.rows, hits.scores)
    return Through(positions, hits.rows, ranks, hit_at_k(ranks, K, "best") == 0)


def _misses(evaluation: Evaluation, one: Measured, studied: Studied, tau: float) -> dict[str, Any]:
    index = evaluation.index
    asked = through_index(evaluation, one)
    exact = next(iter(one.ranks.values()))
    exact_rank = rank_of_first(exact)[asked.positions]
    own = one.direction.queries.rows[asked.positions]
    first = asked.rows[:, 0]
    is_lost = asked.is_miss & (exact_rank <= K)
    in_all_lists = _in_all_lists(evaluation, one, asked, is_lost)
    counts = occurrences(one.rows[:, :K], index.num_rows)
    texts, found_texts = evaluation.texts(own), evaluation.texts(np.maximum(first, 0))
    same_text = [bool(a) and normalized(a) == normalized(b) for a, b in zip(texts, found_texts, strict=True)]
    groups = evaluation.truth.group
    same_group = np.zeros(len(own), bool) if groups is None else groups[own] == groups[np.maximum(first, 0)]
    place = np.minimum(np.searchsorted(studied.rows, own), len(studied.rows) - 1)
    percentile = np.where(studied.rows[place] == own, studied.percentiles[place], 1.0)
    has_hit = first >= 0
    by_text = one.direction.queries.kind == "text"
    kinds, _ = sort_misses(
        asked.is_miss,
        {
            "nothing to find": ~np.isfinite(exact_rank),
            "probing lost it": is_lost & in_all_lists,
            "quantisation lost it": is_lost & ~in_all_lists,
            "right, but not judged so": has_hit & (np.array(same_text) | same_group),
            "near-duplicate outranks": has_hit & (similarity(evaluation, own, first) >= tau),
            "text contradicts": percentile < CONTRADICTS,
            "text too short": np.array([by_text and len(WORD.findall(text)) < MIN_WORDS for text in texts], bool),
            "hub outranks": has_hit & is_hub(counts)[np.maximum(first, 0)],
        },
    )
    return {
        "direction": one.direction.name,
        "num_queries": len(asked.positions),
        "num_misses": int(asked.is_miss.sum()),
        "kinds": [
            {**asdict(replace(kind, queries=[])), "examples": [
                _example(evaluation, own[i], first[i], exact_rank[i]) for i in kind.queries
            ]}
            for kind in kinds
        ],
    }  # fmt: skip


def _in_all_lists(
    evaluation: Evaluation, one: Measured, asked: Through, is_lost: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which of the lost queries find a right product when all lists of the index are searched, bool [Q]."""
    index, queries, side = evaluation.index, one.direction.queries, one.direction.side
    found = np.zeros(len(is_lost), bool)
    lost = np.flatnonzero(is_lost)
    if len(lost):
        searched = index.sides[side]
        point = searched.points[searched.measured_kind(queries.kind)]
        everywhere = replace(point, num_probes=num_lists(index.shards, side))
        vectors = queries.vectors[asked.positions[lost]]
        hits = index.search(vectors, against=side, k=K, query_kind=queries.kind, point=everywhere)
        ranks = judge_hits(asked.ranks.judgements.of_queries(lost), hits.rows, hits.scores)
        found[lost] = hit_at_k(ranks, K, "best") > 0
    return found


def similarity(evaluation: Evaluation, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosine similarity of the pictures of two products, float32 [N]; NaN where one has none."""
    side: Side = "image"
    first, second = (evaluation.index.vectors_of(np.maximum(each, 0), side) for each in (rows, others))
    has_both = first.any(axis=1) & second.any(axis=1) & (rows >= 0) & (others >= 0)
    return np.where(has_both, np.einsum("nd,nd->n", first, second), np.nan).astype(np.float32)


def _ambiguity(one: Measured, studied: Studied, tau: float, evaluation: Evaluation) -> dict[str, Any]:
    """Return how products with look-alikes fare, and how many misses have one on top."""
    asked = through_index(evaluation, one)
    own, first = one.direction.queries.rows[asked.positions], asked.rows[:, 0]
    alike = similarity(evaluation, own, first) >= tau
    nearest = dict(
        zip(studied.rows.tolist(), np.nan_to_num(_of_others(evaluation, studied)[:, 0], nan=-1).tolist(), strict=True)
    )
    is_ambiguous = np.array([nearest.get(row, -1.0) >= tau for row in own.tolist()], bool)
    hits = ~asked.is_miss

    def rate(chosen: NDArray[np.bool_]) -> float | None:
        return float(hits[chosen].mean()) if chosen.any() else None

    return {
        "direction": one.direction.name,
        "hit_at_10_ambiguous": rate(is_ambiguous),
        "hit_at_10_others": rate(~is_ambiguous),
        "num_asked_ambiguous": int(is_ambiguous.sum()),
        "share_of_misses_alike": float(alike[asked.is_miss].mean()) if asked.is_miss.any() else 0.0,
    }


def _confusions(evaluation: Evaluation, one: Measured) -> list[dict[str, Any]]:
    own, first = one.direction.queries.rows, one.rows[:, 0]
    is_right = np.zeros(len(own), bool)
    judged = next(iter(one.direction.right.values()))
    is_right[judged.query[judged.row == first[judged.query]]] = True
    pairs = confused_pairs(own, np.where(is_right, -1, first), similarity(evaluation, own, first))
    described = []
    for pair in pairs:
        products = evaluation.index.describe([pair.row, pair.found])
        apart = tell_apart(*products, NOT_TELLING)
        described.append(
            {
                **asdict(pair),
                "products": _named(evaluation, [pair.row, pair.found]),
                "attributes": {name: list(values) for name, values in apart.attributes.items()},
                "own_words": apart.own_words,
                "other_words": apart.other_words,
            }
        )
    return described


def _worst(evaluation: Evaluation, one: Measured) -> list[dict[str, Any]]:
    """Return the queries whose right product ranks lowest, of several in a group the worst."""
    rank = rank_of_first(next(iter(one.ranks.values())))
    rank = np.where(np.isfinite(rank), rank, -1)
    order = np.argsort(-rank, kind="stable")
    seen: set[int] = set()
    worst = []
    for position in order.tolist():
        if rank[position] > K and one.clusters[position] not in seen:
            seen.add(int(one.clusters[position]))
            worst.append(
                _example(evaluation, one.direction.queries.rows[position], one.rows[position, 0], rank[position])
            )
        if len(worst) == WORST_QUERIES:
            break
    return worst


def _texts(evaluation: Evaluation, studied: Studied) -> dict[str, Any]:
    listed = np.flatnonzero(evaluation.index.listed)
    rows = evaluation.sample(listed, MAX_TEXTS)
    labels = evaluation.truth.listing if evaluation.truth.group is None else evaluation.truth.group
    percentiles = np.full(len(rows), np.nan)
    place = np.searchsorted(rows, studied.rows)
    inside = (place < len(rows)) & (rows[np.minimum(place, len(rows) - 1)] == studied.rows)
    percentiles[place[inside]] = studied.percentiles[inside]
    found = suspicious_texts(evaluation.texts(rows), rows, labels[rows], percentiles)
    return {
        "num_products": len(rows),
        "num_compared_with_pictures": int(inside.sum()),
        "kinds": [{**asdict(replace(kind, rows=[])), "examples": _named(evaluation, kind.rows)} for kind in found],
    }


def _example(evaluation: Evaluation, row: int, found: int, rank: float) -> dict[str, Any]:
    products = _named(evaluation, [int(row), *([int(found)] if found >= 0 else [])])
    return {
        "asked": products[0],
        "found": products[1] if len(products) > 1 else None,
        "rank": float(rank) if np.isfinite(rank) and rank > 0 else None,
    }


def _named(evaluation: Evaluation, rows: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"product_id": product["product_id"], "title": title_of(product), "text": product.get("text") or ""}
        for product in evaluation.index.describe(rows)
    ]
