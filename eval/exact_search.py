"""What is looked for in a gallery, and what a part of it holds: the question and the answer of exact search.

Q is the number of queries, N of products, D the dimension, P of pairs of a query and a right product, k of hits kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.judged import Judgements
from product_retrieval.index.ranking import best


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """One notion of what is right, and how the right products score."""

    judgements: Judgements
    scores: NDArray[np.float32]
    """[P], of the pairs."""


@dataclass(frozen=True, slots=True)
class Correction:
    """Another way to compare: with the products' mean taken off their vectors, or a bias taken off their scores."""

    shift: NDArray[np.float32] | None = None
    """[D], taken off every product before it is scaled to unit length again."""
    bias: NDArray[np.float32] | None = None
    """[num_rows], by row, taken off every score of the product."""

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return products as they are compared, float32 [N, D]; rows of zeros stay so."""
        if self.shift is None:
            return vectors
        moved = np.where(vectors.any(axis=1, keepdims=True), vectors - self.shift, 0)
        return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True, slots=True)
class ExactSearch:
    """What is looked for in a gallery."""

    queries: NDArray[np.float32]
    """[Q, D]."""
    k: int
    """Nearest products to keep; 0 keeps none."""
    judged: tuple[JudgedSet, ...] = ()
    excluded: Judgements | None = None
    """Pairs that are neither right nor wrong, nor found: such as a query's own product."""
    correction: Correction | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a part of the gallery holds."""

    rows: NDArray[np.int64]
    """[Q, k] nearest products, best first, of equal ones the lower row first; -1 pads."""
    scores: NDArray[np.float32]
    """[Q, k]; NaN beside padding."""
    num_greater: tuple[NDArray[np.int64], ...]
    """For each judged set [P], wrong products that score higher than the pair's right one."""
    num_equal: tuple[NDArray[np.int64], ...]
    """For each judged set [P], wrong products that score the same."""


def nothing_found(search: ExactSearch) -> Found:
    """Return what an empty gallery holds."""
    shape = (len(search.queries), search.k)
    greater, equal = (tuple(np.zeros(len(judged.scores), np.int64) for judged in search.judged) for _ in range(2))
    return Found(np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32), greater, equal)


def merge(one: Found, other: Found) -> Found:
    """Return what two parts of a gallery hold together; the order of the parts does not matter."""
    k = one.rows.shape[1]
    hits = best(np.hstack([one.rows, other.rows]), np.hstack([one.scores, other.scores]), k)
    greater = tuple(a + b for a, b in zip(one.num_greater, other.num_greater, strict=True))
    equal = tuple(a + b for a, b in zip(one.num_equal, other.num_equal, strict=True))
    return Found(hits.rows, hits.scores, greater, equal)
