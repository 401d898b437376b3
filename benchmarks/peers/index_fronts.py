"""What a curve of recall and speed says: its front, and the speed at a recall that lies between two settings."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of one index for one kind of query."""

    knobs: str
    recall: float
    qps: float
    """Queries in a CPU-second, all asked at once; median over the rounds."""
    slowest_qps: float
    fastest_qps: float
    single_qps: float
    """The same, asked one by one."""


def points_of(rounds: Sequence[Mapping[str, Any]], kind: str) -> list[Point]:
    """Return the settings of an index with the medians over its rounds.

    Args:
        rounds: measurements, each with `points`.
        kind: of query.
    """
    by_knobs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for measured in rounds:
        for point in measured["points"]:
            if point["kind"] == kind:
                by_knobs[describe(point["knobs"])].append(point)
    return [
        Point(
            knobs=knobs,
            recall=points[0]["recall"],
            qps=statistics.median(p["batch_qps"] for p in points),
            slowest_qps=min(p["batch_qps"] for p in points),
            fastest_qps=max(p["batch_qps"] for p in points),
            single_qps=statistics.median(p["single_qps"] for p in points),
        )
        for knobs, points in by_knobs.items()
    ]


def describe(knobs: Mapping[str, int]) -> str:
    """Return a setting in words; the empty one is the default."""
    return ", ".join(f"{name} {value}" for name, value in knobs.items()) or "default"


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both recall and speed, by rising recall."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.recall, -p.qps)):
        if not best or point.qps > best[-1].qps:
            best.append(point)
    return best[::-1]


def qps_at(points: Sequence[Point], recall: float) -> float | None:
    """Return the speed at exactly this recall, interpolated on the front; None above its highest recall.

    The logarithm of the speed is taken as linear in recall between two neighbours. Below the lowest recall measured,
    the speed of that point: a lower bound, as is_lower_bound says.
    """
    line = front(points)
    for slow in range(len(line)):
        if line[slow].recall >= recall:
            if slow == 0:
                return line[0].qps
            low, high = line[slow - 1], line[slow]
            share = (recall - low.recall) / (high.recall - low.recall)
            return math.exp((1 - share) * math.log(low.qps) + share * math.log(high.qps))
    return None


def is_lower_bound(points: Sequence[Point], recall: float) -> bool:
    """Return whether even the fastest setting finds more than this."""
    line = front(points)
    return bool(line) and line[0].recall > recall
