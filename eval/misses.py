"""Why the right product was not found: every miss under exactly one heading, in a stated order.

A miss is a query whose right product is not among the first ten hits of the search as it is served. What the index
lost is told from what the model got wrong: exact search finds the former.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_EXAMPLES = 6

HEADINGS: dict[str, str] = {
    "nothing to find": "no right product has the searched side",
    "probing lost it": "exact search finds it, and so does the index when it looks into all its lists",
    "quantisation lost it": "exact search finds it, the index does not even in all its lists",
    "right, but not judged so": "the first hit has the same text as a right product, or is of its group",
    "near-duplicate outranks": "the first hit looks like the right product",
    "text contradicts": "the right product's picture is less similar to its own text than to 99 % of others",
    "text too short": "the query's text has fewer than three words",
    "hub outranks": "the first hit is among the hits of far more queries than others are",
    "model": "none of these: the model puts others nearer",
}
"""In the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class MissKind:
    """Misses under one heading."""

    heading: str
    meaning: str
    num_misses: int
    share: float
    """Of all misses."""
    queries: list[int]
    """Positions of the first MAX_EXAMPLES."""


def sort_misses(
    is_miss: NDArray[np.bool_], conditions: Mapping[str, NDArray[np.bool_]]
) -> tuple[list[MissKind], NDArray[np.int64]]:
    """Put every miss under the first heading that fits.

    Args:
        is_miss: bool [Q].
        conditions: by heading but the last, bool [Q]; one that is not given fits nothing.

    Returns:
        Every heading with its misses, whose numbers add up to all misses, and the heading of each query as a position
        in HEADINGS, int64 [Q], -1 of those that are none.

    Raises:
        ValueError: a condition is no heading.
    """
    if unknown := set(conditions) - set(HEADINGS):
        raise ValueError(f"no such headings: {', '.join(sorted(unknown))}")
    kinds = np.full(len(is_miss), -1, np.int64)
    left = is_miss.copy()
    for number, heading in enumerate(HEADINGS):
        fits = left & conditions.get(heading, np.zeros(len(left), bool))
        if number == len(HEADINGS) - 1:
            fits = left
        kinds[fits] = number
        left = left & ~fits
    total = int(is_miss.sum())
    return [
        MissKind(heading, meaning, int((kinds == number).sum()), float((kinds == number).sum() / max(total, 1)),
                 np.flatnonzero(kinds == number)[:MAX_EXAMPLES].tolist())
        for number, (heading, meaning) in enumerate(HEADINGS.items())
    ], kinds  # fmt: skip


def heading_names(kinds: NDArray[np.int64]) -> Sequence[str | None]:
    """Return the headings of queries by their positions; None of those that are no misses."""
    names = list(HEADINGS)
    return [names[kind] if kind >= 0 else None for kind in kinds.tolist()]
