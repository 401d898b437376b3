"""How hard a side is searched for a query: what its user names, or the cheapest point that was measured to suffice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from product_retrieval.errors import QueryError
from product_retrieval.index import OperatingPoint, Side
from product_retrieval.index.searcher import SearchedSide
from product_retrieval.index.spec import MeasuredPoint

Grid: TypeAlias = Mapping[Side, Sequence[MeasuredPoint]]
"""By kind of query, all points that were tried when a side was trained."""


def choose_point(
    side: SearchedSide, grid: Grid, *, recall: float | None, against: Side, kind: Side
) -> OperatingPoint | None:
    """Return how hard a side is searched.

    Args:
        side: with the points that its build chose.
        grid: of the same side; without one, the chosen points are all there is.
        recall: least recall@10; None takes the chosen point.
        against: name of the side, for the error.
        kind: what the query was made from.

    Returns:
        The cheapest point that reaches the recall; None where the side is always searched exactly.

    Raises:
        QueryError: no point that was measured reaches the recall.
    """
    if side.is_exact:
        return None
    measured_kind = side.measured_kind(kind)
    chosen = side.points[measured_kind]
    if recall is None:
        return chosen
    tried = grid.get(measured_kind, ())
    # An update measures only the chosen point again: what that one lost, the others are taken to have lost.
    same = [p for p in tried if (p.num_probes, p.rescore_factor) == (chosen.num_probes, chosen.rescore_factor)]
    lost = max(0.0, same[0].recall_at_10 - (chosen.recall_at_10 or 0)) if same else 0.0
    points = [OperatingPoint(p.num_probes, p.rescore_factor, p.recall_at_10 - lost) for p in _cheapest_first(tried)]
    points = points or [chosen]
    for point in points:
        if (point.recall_at_10 or 0) >= recall:
            return point
    best = max(point.recall_at_10 or 0 for point in points)
    raise QueryError(
        f"no point measured for {measured_kind} queries against {against} reaches a recall@10 of {recall:g}; the best "
        f"has {best:.3f}: ask for no more than that, or for an exact answer",
        field="recall",
    )


def _cheapest_first(tried: Sequence[MeasuredPoint]) -> list[MeasuredPoint]:
    return sorted(tried, key=lambda p: (p.cpu_ms, p.num_probes, p.rescore_factor))
