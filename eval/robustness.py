"""How much of the quality is left when the texts are disturbed, by kind of noise and amount."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from eval.directions import Measured, is_present, judged_set, only
from eval.evaluation import Evaluation
from eval.exact_search import ExactSearch
from eval.judged import JudgedRanks, Judgements
from eval.measures import hit_at_k, reciprocal_rank
from eval.perturbations import DISTURBANCES, disturbed
from product_retrieval.encoders import Encoder, EncoderOptions, load_encoder
from product_retrieval.errors import EncoderError
from product_retrieval.metrics import bootstrap_intervals

MAX_QUERIES = 300
"""Texts that are disturbed, a seeded sample: each is encoded some twenty times."""
CATEGORY_COLUMNS = ("category", "product_type", "department", "class")
"""The first of these that the catalogue has gives the words of other categories."""
ENCODE_TEXTS = 256
K = 10


@dataclass(frozen=True, slots=True)
class Disturbed:
    """Quality of text queries under one kind and amount of noise."""

    kind: str
    meaning: str
    amount: float
    hit_at_10: float
    low: float
    high: float
    mrr: float
    lost: float
    """hit@10 of the same texts undisturbed, less that."""
    example: str
    """One text as it was disturbed."""


def measure_robustness(evaluation: Evaluation, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return text -> image under every disturbance, and why not where it cannot be measured."""
    found = [one for one in measured if one.direction.name == "text -> image"]
    if not found:
        return {"reason": "the index has no text -> image", "results": []}
    try:
        evaluation.encoder  # noqa: B018 - loads it
    except EncoderError as error:
        return {"reason": str(error), "results": []}
    (one,) = found
    chosen = evaluation.sample(np.arange(len(one.rows)), MAX_QUERIES)
    rows = one.direction.queries.rows[chosen]
    texts = evaluation.texts(rows)
    chosen, rows = chosen[[bool(text) for text in texts]], rows[[bool(text) for text in texts]]
    texts = [text for text in texts if text]
    if not texts:
        return {"reason": "the index does not have the texts", "results": []}
    categories = _categories(evaluation)
    variants = [("undisturbed", "as the catalogue has them", 0.0, texts)]
    for kind in DISTURBANCES:
        for amount in kind.amounts:
            changed = disturbed(texts, kind, amount, categories=categories, seed=evaluation.options.seed)
            variants.append((kind.name, kind.meaning, amount, changed))
    vectors = encode_on_cluster([text for *_, changed in variants for text in changed], evaluation)
    right = _repeated(next(iter(one.direction.right.values())).of_queries(chosen), len(variants))
    right = only(right, is_present(evaluation.index, right.row, "image"))
    judged = judged_set(vectors, right, evaluation.index, "image")
    answer = evaluation.search(ExactSearch(vectors, 0, (judged,)), "image")
    ranks = JudgedRanks(right, answer.num_greater[0], answer.num_equal[0], judged.scores)
    hits = hit_at_k(ranks, K).reshape(len(variants), -1)
    reciprocal = reciprocal_rank(ranks).reshape(len(variants), -1)
    clusters = np.unique(one.clusters[chosen], return_inverse=True)[1].astype(np.int64)
    low, high = bootstrap_intervals(hits.T, clusters, seed=evaluation.options.seed)
    return {
        "direction": one.direction.name,
        "num_queries": len(texts),
        "results": [
            asdict(
                Disturbed(
                    kind=name,
                    meaning=meaning,
                    amount=amount,
                    hit_at_10=float(hits[number].mean()),
                    low=float(low[number]),
                    high=float(high[number]),
                    mrr=float(reciprocal[number].mean()),
                    lost=float(hits[0].mean() - hits[number].mean()),
                    example=changed[0],
                )
            )
            for number, (name, meaning, amount, changed) in enumerate(variants)
        ],
    }


def encode_on_cluster(texts: Sequence[str], evaluation: Evaluation) -> NDArray[np.float32]:
    """Encode texts with the index's own model, a task for some hundreds of them; float32 [N, D].

    Texts whose vector is not finite get one that is like nothing.
    """
    options = EncoderOptions(model=evaluation.manifest.model, device=evaluation.options.device)
    task = _encode_task.options(num_gpus=1) if evaluation.workers.device == "cuda" else _encode_task
    distinct = sorted(set(texts), key=lambda text: (len(text), text))  # a batch of one length has no padding
    parts = [distinct[start : start + ENCODE_TEXTS] for start in range(0, len(distinct), ENCODE_TEXTS)]
    encoded = np.concatenate(ray.get([task.remote(options, part) for part in parts]))
    places = {text: place for place, text in enumerate(distinct)}
    vectors = encoded[[places[text] for text in texts]]
    return np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0).astype(np.float32)


@lru_cache(maxsize=1)
def _loaded(options: EncoderOptions) -> Encoder:
    return load_encoder(options)


def _encode(options: EncoderOptions, texts: Sequence[str]) -> NDArray[np.float32]:
    encoder = _loaded(options)
    encoder.limit_threads(1)
    return encoder.encode_texts(texts)


_encode_task = ray.remote(_encode)


def _categories(evaluation: Evaluation) -> list[str]:
    names = evaluation.index.column_names
    column = next((name for name in CATEGORY_COLUMNS if name in names), None)
    if column is None:
        return []
    values = evaluation.index.column(column).unique().to_pylist()
    return sorted({value for value in values if isinstance(value, str) and value.strip()})[:1000]


def _repeated(right: Judgements, times: int) -> Judgements:
    """Return the judgements of the same queries asked several times over."""
    query = np.concatenate([right.query + number * right.num_queries for number in range(times)])
    return Judgements(times * right.num_queries, query, np.tile(right.row, times), np.tile(right.gain, times))
