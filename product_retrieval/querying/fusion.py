"""Two rankings made one. Scores of the two sides cannot be compared, ranks can.

A text is far closer to any text than to any picture (0.8 beside 0.3 is usual for models of this kind), so the sum or
the larger of two cosine similarities is the text side's ranking under another name.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from product_retrieval.index import Side

RANK_CONSTANT = 60
"""Of Cormack et al.; it decides how much more the first places count than the later ones."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A product in one side's ranking."""

    row: int
    score: float
    """Cosine similarity."""
    group: Hashable
    """What is ranked: the product itself, or the group that it stands for."""


@dataclass(frozen=True, slots=True)
class Fused:
    """A product in the fused ranking."""

    row: int
    score: float
    """Sum of 1 / (60 + rank) over the sides that ranked it."""
    ranks: Mapping[Side, int]
    """Place on each side that ranked it, from 1."""


def fuse(rankings: Mapping[Side, Sequence[Ranked]]) -> list[Fused]:
    """Fuse rankings by reciprocal rank.

    Args:
        rankings: each best first, no group twice in one.

    Returns:
        Every group once, best first, by the product that leads it on the side where the group is ranked higher (the
        first side of equals); equal scores are ordered by row.

    Source: Cormack, Clarke, Buettcher, Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
        Methods, SIGIR 2009.
    """
    places: dict[Hashable, dict[Side, int]] = {}
    for side, ranking in rankings.items():
        for place, ranked in enumerate(ranking, start=1):
            places.setdefault(ranked.group, {})[side] = place
    fused = []
    for ranks in places.values():
        leading = min(ranks, key=ranks.__getitem__)
        row = rankings[leading][ranks[leading] - 1].row
        fused.append(Fused(row, sum(1 / (RANK_CONSTANT + place) for place in ranks.values()), ranks))
    return sorted(fused, key=lambda hit: (-hit.score, hit.row))
