"""Products that look alike and are not the same: where a picture alone cannot decide, and what could.

N is the number of products, k of neighbours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAU_QUANTILE = 0.95
"""Of the similarity of products with their nearest neighbour, where no threshold is given."""
MAX_GROUPS, MAX_PAIRS, MAX_MEMBERS = 10, 24, 8
WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Lookalikes:
    """Products with pictures so near to another product's that they are easily taken for it."""

    tau: float
    """Cosine similarity from which pictures count as alike."""
    num_products: int
    """Products that were looked at."""
    num_ambiguous: int
    """Of them, those with a look-alike."""
    num_groups: int
    largest: int
    groups: list[list[int]]
    """Rows of the largest groups, MAX_MEMBERS of each at most."""


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Two products of which one was found above the other by the other's own query."""

    row: int
    """The product that was asked for."""
    found: int
    """The wrong one above it."""
    similarity: float
    """Of their pictures."""
    is_mutual: bool
    """Whether the other's query finds this one first, too."""


@dataclass(frozen=True, slots=True)
class Distinction:
    """What would have told two products apart."""

    attributes: dict[str, tuple[Any, Any]]
    """Columns that differ, with both values."""
    own_words: list[str]
    other_words: list[str]
    """Words that only one of the two texts has."""


def choose_tau(scores: NDArray[np.float32]) -> float:
    """Return a similarity that few products reach with their nearest neighbour.

    Args:
        scores: float32 [N, k] of neighbours that are other products, NaN beside padding.
    """
    nearest = scores[:, 0] if scores.shape[1] else np.empty(0, np.float32)
    nearest = nearest[np.isfinite(nearest)]
    return float(np.quantile(nearest, TAU_QUANTILE)) if len(nearest) else 1.0


def find_lookalikes(
    asked: NDArray[np.int64],
    rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    listing: NDArray[np.int64],
    *,
    tau: float,
) -> Lookalikes:
    """Return the look-alikes among products.

    Args:
        asked: int64 [N], rows of the products.
        rows: int64 [N, k], their neighbours by picture; -1 pads.
        scores: float32 [N, k].
        listing: int64 [num_rows], equal for listings of one product: these are not ambiguous.
        tau: similarity from which pictures count as alike.
    """
    is_alike = (rows >= 0) & (np.nan_to_num(scores, nan=-2.0) >= tau)
    is_alike &= listing[np.maximum(rows, 0)] != listing[asked][:, None]
    query, column = np.nonzero(is_alike)
    roots = connected(zip(asked[query].tolist(), rows[query, column].tolist(), strict=True))
    members: dict[int, list[int]] = {}
    for row in sorted(roots):
        members.setdefault(roots[row], []).append(row)
    ordered = sorted(members.values(), key=lambda rows: (-len(rows), rows[0]))
    return Lookalikes(
        tau=tau,
        num_products=len(asked),
        num_ambiguous=int(is_alike.any(axis=1).sum()),
        num_groups=len(ordered),
        largest=len(ordered[0]) if ordered else 0,
        groups=[rows[:MAX_MEMBERS] for rows in ordered[:MAX_GROUPS]],
    )


def connected(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return for each number of any pair the smallest number that it is connected to.

    Source: Tarjan, Efficiency of a good but not linear set union algorithm, JACM 1975, with paths halved.
    """
    parents: dict[int, int] = {}

    def root(number: int) -> int:
        while parents.setdefault(number, number) != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parents[high] = low
    return {number: root(number) for number in list(parents)}


def confused_pairs(
    asked: NDArray[np.int64], found: NDArray[np.int64], similarity: NDArray[np.float32]
) -> list[ConfusedPair]:
    """Return pairs of a product and the wrong one above it, mutual ones and the most similar first.

    Args:
        asked: int64 [N], the products that were asked for.
        found: int64 [N], the wrong product on top of each one's hits; -1 where the right one is.
        similarity: float32 [N], of the two pictures; NaN where one has none.
    """
    wrong = {(row, other) for row, other in zip(asked.tolist(), found.tolist(), strict=True) if other >= 0}
    pairs = [
        ConfusedPair(row, other, float(alike), (other, row) in wrong)
        for row, other, alike in zip(asked.tolist(), found.tolist(), similarity.tolist(), strict=True)
        if other >= 0 and np.isfinite(alike)
    ]
    once = [pair for pair in pairs if not pair.is_mutual or pair.row < pair.found]
    return sorted(once, key=lambda pair: (not pair.is_mutual, -pair.similarity, pair.row))[:MAX_PAIRS]


def tell_apart(own: Mapping[str, Any], other: Mapping[str, Any], ignored: Sequence[str]) -> Distinction:
    """Return in what two products differ.

    Args:
        own: columns of the one, `text` among them.
        other: of the other.
        ignored: columns that differ between any two products.
    """
    attributes = {
        name: (own[name], other.get(name))
        for name in own
        if name not in ignored and name != "text" and own[name] != other.get(name)
    }
    words, others = (Counter(WORD.findall(str(product.get("text") or "").casefold())) for product in (own, other))
    return Distinction(attributes, list(words - others), list(others - words))
