"""What comes back for a query: rows of the index, what their scores mean, and how hard was searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from product_retrieval.index import OperatingPoint, Side

ScoreKind: TypeAlias = Literal["cosine similarity", "reciprocal rank"]


@dataclass(frozen=True, slots=True)
class Found:
    """One product found."""

    row: int
    score: float
    """Of the answer's kind."""
    ranks: Mapping[Side, int]
    """Place on each side that was compared and ranked it, from 1."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of one query, best first."""

    version: int
    """Of the index."""
    hits: tuple[Found, ...]
    score_kind: ScoreKind
    points: Mapping[Side, OperatingPoint | None]
    """Sides that were compared, and how hard they were searched; None is exactly."""
    num_allowed: int
    """Products that might have been hits."""
