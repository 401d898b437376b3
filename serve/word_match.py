"""A small re-ranker: products whose text holds the query's own words move up.

    serve run serve.app:build index=out/index reranker=serve.word_match:build

Vectors know what things look like and mean; they are weak at names, sizes and model numbers, which a word match finds.
Places of retrieval count as in reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009), so that the scale of
its scores does not matter; a product with all the words gains what a first place has.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from ray import serve
from ray.serve import Application

from serve.ranking import RankingTask

COLUMN = "title"
RRF_CONSTANT = 60
WORD = re.compile(r"\w+")


def words_of(text: str) -> set[str]:
    """Return the words of a text, whatever their case."""
    return set(WORD.findall(text.casefold()))


def matched_shares(wanted: set[str], texts: Iterable[str]) -> list[float]:
    """Return how much of what is wanted each text holds, from 0 to 1.

    A word weighs log(1 + N / n), n of the N texts holding it: one that all have says little about any.
    """
    found = [wanted & words_of(text) for text in texts]
    num_with = Counter(word for words in found for word in words)
    weights = {word: math.log1p(len(found) / num_with[word]) for word in num_with}
    total = sum(weights.values())
    return [sum(weights[word] for word in words) / total if total else 0.0 for words in found]


def fused_order(shares: Sequence[float]) -> list[int]:
    """Return the places of candidates, best first: each has 1 / (60 + place), and its share of what a first place has.

    Args:
        shares: from 0 to 1, of each candidate, in the order of retrieval.
    """
    scores = [1 / (RRF_CONSTANT + at) + share / (RRF_CONSTANT + 1) for at, share in enumerate(shares, start=1)]
    return sorted(range(len(shares)), key=lambda at: -scores[at])


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.1})
class WordMatch:
    """Orders candidates by retrieval and by the words of the query."""

    async def rerank(self, task: RankingTask) -> list[int]:
        """Return places among the candidates, best first."""
        wanted = {word for text in task.texts if text.weight > 0 for word in words_of(text.text)}
        titles = [str(candidate.product.get(COLUMN) or "") for candidate in task.candidates]
        return fused_order(matched_shares(wanted, titles))


def build() -> Application:
    """Return the application that `reranker=serve.word_match:build` names."""
    return WordMatch.bind()
