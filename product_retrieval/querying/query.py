"""What is asked of an index, checked as far as that can be without the index.

Texts and pictures are vectors here: encoding them is the business of an encoder, wherever it runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from product_retrieval.errors import QueryError
from product_retrieval.index import OperatingPoint, Side
from product_retrieval.index.spec import MAX_LISTS
from product_retrieval.querying.filters import Filter

Against: TypeAlias = Side | Literal["both"]

MAX_K = 1000
MAX_PARTS = 16
MAX_RESCORE_FACTOR = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorPart:
    """A text or a picture that was encoded; or a vector from elsewhere."""

    vector: NDArray[np.floating]
    """float [D], of any length but zero."""
    made_from: Side = "text"
    """Texts are the harder queries against pictures, so a vector of unknown origin is searched for as a text's."""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductPart:
    """A product of the index, compared by its own vector of the side that is asked; it is no hit of its own."""

    product_id: str
    weight: float = 1.0


Part: TypeAlias = VectorPart | ProductPart


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """What to look for, where, and how hard."""

    parts: tuple[Part, ...]
    """Summed as unit vectors by their weights; a negative weight leads away."""
    against: Against = "image"
    """Whether products are compared by their picture, by their text, by the weighted sum of the two (fused, where the
    index has that side), or by picture and text apart, ranks fused (both)."""
    k: int = 10
    """Hits wanted."""
    filter: Filter | None = None
    """Which products may be hits."""
    min_score: float | None = None
    """Least cosine similarity of a hit."""
    collapse: str | None = None
    """Column that products of one group share; of each group the best product is the hit."""
    recall: float | None = None
    """Takes the cheapest operating point whose recall@10 was measured to be at least this."""
    point: OperatingPoint | None = None
    """How hard to search; None takes what the index was calibrated to."""
    exact: bool = False
    """Compare with every product that may be a hit."""

    def __post_init__(self) -> None:
        """Check what can be checked without the index.

        Raises:
            QueryError: a value is out of its range, or two contradict each other.
        """
        if not 1 <= self.k <= MAX_K:
            raise QueryError(f"k is from 1 to {MAX_K}, not {self.k}", field="k")
        self._check_parts()
        self._check_effort()
        if self.min_score is None:
            return
        if self.against == "both":
            raise QueryError(
                "min_score is a cosine similarity, and against both sides hits have a score of ranks: name one side",
                field="min_score",
            )
        if not -1 <= self.min_score <= 1:
            raise QueryError(f"min_score is from -1 to 1, not {self.min_score}", field="min_score")

    def _check_parts(self) -> None:
        if not 1 <= len(self.parts) <= MAX_PARTS:
            raise QueryError(f"a query has from 1 to {MAX_PARTS} parts, not {len(self.parts)}", field="parts")
        for at, part in enumerate(self.parts):
            if not math.isfinite(part.weight) or part.weight == 0:
                raise QueryError(
                    f"the weight of a part is a number other than 0, not {part.weight}", field=f"parts[{at}].weight"
                )

    def _check_effort(self) -> None:
        given = [
            name
            for name, is_given in (
                ("recall", self.recall is not None),
                ("point", self.point is not None),
                ("exact", self.exact),
            )
            if is_given
        ]
        if len(given) > 1:
            raise QueryError(f"{' and '.join(given)} contradict each other: give one", field=given[1])
        if self.recall is not None and not 0 < self.recall <= 1:
            raise QueryError(f"recall is above 0 and at most 1, not {self.recall}", field="recall")
        point = self.point
        if point is not None and not (
            1 <= point.num_probes <= MAX_LISTS and 0 <= point.rescore_factor <= MAX_RESCORE_FACTOR
        ):
            raise QueryError(
                f"num_probes is from 1 to {MAX_LISTS:,} and rescore_factor from 0 to {MAX_RESCORE_FACTOR:,}, not "
                f"{point.num_probes} and {point.rescore_factor}",
                field="point",
            )
