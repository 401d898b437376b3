"""Where the right products of each query rank: the one table from which every metric of a ranking follows.

A query's right products may tie with wrong ones and with one another. What ties is kept together as one place of the
ranking, so that a metric can say what it would be with the ties in the worst order, in the best, and on average over
all orders. Q is the number of queries, P of pairs of a query and a right product, T of places.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Ties = Literal["expected", "worst", "best"]
"""How products of one score are ordered: at random, the wrong ones first, or the right ones first."""
TIE = 1e-6
"""Scores closer than this are equal: single precision rounds a cosine by about as much."""
NOT_FOUND = int(np.iinfo(np.int64).max // 2)
"""Wrong products above one that is not in the list, or not in the gallery."""


@dataclass(frozen=True, slots=True)
class Judgements:
    """Which products are right for which query; pairs are ordered by query, then by row."""

    num_queries: int
    query: NDArray[np.int64]
    """[P], position of the query, ascending."""
    row: NDArray[np.int64]
    """[P], row of the product; -1 where the index does not have it."""
    gain: NDArray[np.float64]
    """[P], how right it is: above 0; 1 where it is simply right."""

    def __post_init__(self) -> None:
        if not len(self.query) == len(self.row) == len(self.gain):
            raise ValueError(f"pairs differ: {len(self.query)}, {len(self.row)}, {len(self.gain)}")
        if len(self.query) and (np.diff(self.query) < 0).any():
            raise ValueError("pairs are not ordered by query")

    @property
    def num_right(self) -> NDArray[np.int64]:
        """Right products of each query, int64 [Q]."""
        return np.bincount(self.query, minlength=self.num_queries)

    def of_queries(self, positions: NDArray[np.int64]) -> Judgements:
        """Return the judgements of some queries, ascending, numbered anew."""
        numbers = np.full(self.num_queries, -1, np.int64)
        numbers[positions] = np.arange(len(positions))
        kept = numbers[self.query] >= 0
        return Judgements(len(positions), numbers[self.query[kept]], self.row[kept], self.gain[kept])


@dataclass(frozen=True)
class Places:
    """Places of a ranking that hold right products, ordered by query, then from the top."""

    query: NDArray[np.int64]
    """[T]."""
    start: NDArray[np.int64]
    """[T], products above the place."""
    num_right: NDArray[np.int64]
    """[T], right products at the place, at least 1."""
    num_wrong: NDArray[np.int64]
    """[T], wrong products that tie with them."""
    gain: NDArray[np.float64]
    """[T], sum over the right ones."""

    @cached_property
    def num_products(self) -> NDArray[np.int64]:
        """Products at the place, int64 [T]."""
        return self.num_right + self.num_wrong

    @cached_property
    def first(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The queries that have a place, and the number of the best one of each, int64 each."""
        return np.unique(self.query, return_index=True)


@dataclass(frozen=True)
class JudgedRanks:
    """How many wrong products each right one has above and beside it."""

    judgements: Judgements
    num_greater: NDArray[np.int64]
    """[P], wrong products that score higher."""
    num_equal: NDArray[np.int64]
    """[P], wrong products that score the same."""
    score: NDArray[np.float32]
    """[P]; NaN of products that were not found at all."""

    @property
    def num_queries(self) -> int:
        """Q."""
        return self.judgements.num_queries

    def places(self, ties: Ties = "expected") -> Places:
        """Return the places of the right products.

        Args:
            ties: what becomes of those that tie.
        """
        return self._expected_places if ties == "expected" else self._places(ties)

    @cached_property
    def _expected_places(self) -> Places:
        return self._places("expected")

    def _places(self, ties: Ties) -> Places:
        greater, equal = self.num_greater, self.num_equal
        if ties == "worst":
            greater, equal = greater + equal, np.zeros_like(equal)
        elif ties == "best":
            equal = np.zeros_like(equal)
        query, gain = self.judgements.query, self.judgements.gain
        falling = -np.nan_to_num(self.score, nan=-np.inf)
        # A worst or best order of graded products is one of their gains too.
        by_gain = {"expected": np.zeros_like(gain), "worst": gain, "best": -gain}[ties]
        near = np.round(falling / TIE) if ties != "expected" else falling
        order = np.lexsort((by_gain, near, equal, greater, query))
        query, greater, equal = query[order], greater[order], equal[order]
        is_new = np.ones(len(order), bool)
        same = (np.diff(query) == 0) & (np.diff(greater) == 0) & (np.diff(equal) == 0)
        if ties == "expected":
            apart = np.diff(np.where(np.isfinite(falling[order]), falling[order], 0.0)) > TIE
            is_new[1:] = ~(same & ((equal[1:] > 0) | ~apart))
        starts = np.flatnonzero(is_new)
        num_right = np.diff(np.append(starts, len(order)))
        before = starts - np.searchsorted(query, query[starts])  # right products at better places of the same query
        gains = np.add.reduceat(gain[order], starts) if len(starts) else np.empty(0)
        return Places(query[starts], greater[starts] + before, num_right, equal[starts], gains)


def judge_hits(judgements: Judgements, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> JudgedRanks:
    """Return the ranks of right products within lists of hits; one that is not in its list ranks below everything.

    Args:
        judgements: of Q queries.
        rows: int64 [Q, K] hits, best first; -1 pads.
        scores: float32 [Q, K]; equal ones tie.
    """
    query, row = judgements.query, judgements.row
    num_queries, depth = rows.shape
    width = int(max(rows.max(initial=0), row.max(initial=0))) + 1
    keys = (np.arange(num_queries)[:, None] * width + rows)[rows >= 0]
    at = np.flatnonzero(rows.ravel() >= 0)
    order = np.argsort(keys, kind="stable")
    wanted = query * width + row
    place = np.searchsorted(keys, wanted, sorter=order)
    is_found = np.zeros(len(wanted), bool)
    inside = np.flatnonzero(place < len(keys))
    is_found[inside] = keys[order[place[inside]]] == wanted[inside]
    column = np.zeros(len(wanted), np.int64)
    column[is_found] = at[order[place[is_found]]] % max(depth, 1)
    is_wrong = rows >= 0
    is_wrong[query[is_found], column[is_found]] = False
    wrong_until = np.concatenate([np.zeros((num_queries, 1), np.int64), is_wrong.cumsum(axis=1)], axis=1)
    first, last = _tied_spans(scores)
    found_query, found_column = query[is_found], column[is_found]
    num_greater = np.full(len(wanted), NOT_FOUND, np.int64)
    num_equal = np.zeros(len(wanted), np.int64)
    score = np.full(len(wanted), np.nan, np.float32)
    above = wrong_until[found_query, first[found_query, found_column]]
    num_greater[is_found] = above
    num_equal[is_found] = wrong_until[found_query, last[found_query, found_column] + 1] - above
    score[is_found] = scores[found_query, found_column]
    return JudgedRanks(judgements, num_greater, num_equal, score)


def _tied_spans(scores: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each hit the first and the last column of those that tie with it, int64 [Q, K] twice."""
    columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    with np.errstate(invalid="ignore"):
        is_new = np.ones(scores.shape, bool)
        is_new[:, 1:] = ~(np.abs(np.diff(scores, axis=1)) <= TIE)
    first = np.maximum.accumulate(np.where(is_new, columns, 0), axis=1)
    is_last = np.ones(scores.shape, bool)
    is_last[:, :-1] = is_new[:, 1:]
    reversed_last = np.where(is_last, columns, scores.shape[1] - 1)[:, ::-1]
    last = np.minimum.accumulate(reversed_last, axis=1)[:, ::-1]
    return first, last
