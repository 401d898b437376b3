"""From the parts of a query to the one vector that a side of the index is asked with. D is the index's dimension."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from product_retrieval.errors import QueryError
from product_retrieval.index import ProductIndex, Side
from product_retrieval.querying.query import ProductPart, Query

MIN_LENGTH = 1e-6
"""Of a sum of unit vectors whose heaviest has weight 1: below it the direction is rounding."""


@dataclass(frozen=True, slots=True)
class SideVector:
    """What a side is asked with."""

    vector: NDArray[np.float32]
    """float32 [D], unit length."""
    kind: Side
    """What it was made from, as far as that says how hard it is to answer."""


def rows_of_products(index: ProductIndex, query: Query) -> dict[str, int]:
    """Return the rows of the products that are parts of a query, by product id.

    Raises:
        QueryError: one is not in the index.
    """
    rows = {}
    for at, part in enumerate(query.parts):
        if isinstance(part, ProductPart):
            row = index.row_of(part.product_id)
            if row is None:
                raise QueryError(
                    f"no such product in this index: {part.product_id[:100]!r}", field=f"parts[{at}].product_id"
                )
            rows[part.product_id] = row
    return rows


def side_vector(index: ProductIndex, query: Query, side: Side, rows: dict[str, int]) -> SideVector:
    """Return what a side of the index is asked with.

    Args:
        index: the index.
        query: its parts are summed.
        side: product parts stand for their own vector of it.
        rows: of the products, by id.

    Returns:
        The vector, and the harder one of the kinds that it was made from: the one that is not the side's own; of the
        fused side the one kind that it was made from, or fused where there are two.

    Raises:
        QueryError: a vector does not fit the index or has no direction, a product has no such side, or the parts
            cancel each other out.
    """
    total, kinds = np.zeros(index.dim, np.float64), set()
    heaviest = max(abs(part.weight) for part in query.parts)
    for at, part in enumerate(query.parts):
        field = f"parts[{at}]"
        if isinstance(part, ProductPart):
            stored = index.vector(rows[part.product_id], side)
            if stored is None:
                raise QueryError(
                    f"product {part.product_id!r} has no {side}: ask against the other side",
                    field=f"{field}.product_id",
                )
            direction, kind = stored.astype(np.float64), side
        else:
            direction, kind = unit_vector(part.vector, index.dim, field=f"{field}.vector"), part.made_from
        total += part.weight / heaviest * direction
        kinds.add(kind if part.weight > 0 else other_side(side))
    length = float(np.linalg.norm(total))
    if length < MIN_LENGTH:
        raise QueryError("the parts cancel each other out: nothing is left to look for", field="parts")
    return SideVector((total / length).astype(np.float32), kind_of(kinds, side))


def kind_of(kinds: Set[Side], side: Side) -> Side:
    """Return as what kind of query a sum of some kinds is searched for on a side."""
    if len(kinds) == 1 and (side == "fused" or side in kinds):
        return next(iter(kinds))
    return other_side(side)


def unit_vector(vector: NDArray[np.floating], dim: int, *, field: str) -> NDArray[np.float64]:
    """Return the direction of a vector, float64 [D].

    Raises:
        QueryError: it has another dimension, a number that is not finite, or no direction.
    """
    try:
        given = np.asarray(vector, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise QueryError("the vector is not a list of numbers", field=field) from error
    if given.ndim != 1:
        raise QueryError("the vector is not one list of numbers ", field=field)
    if len(given) != dim:
        raise QueryError(f"the vector has {len(given)} numbers; those of this index have {dim}", field=field)
    if not np.isfinite(given).all():
        raise QueryError("the vector has numbers that are not finite", field=field)
    most = float(np.abs(given).max())
    if most == 0:
        raise QueryError("the vector is all zeros: it has no direction", field=field)
    scaled = given / most  # so that no square overflows or vanishes
    return np.asarray(scaled / np.linalg.norm(scaled), np.float64)


def other_side(side: Side) -> Side:
    """Return the side that a side is not; the fused one has no other."""
    others: dict[Side, Side] = {"image": "text", "text": "image"}
    return others.get(side, side)
