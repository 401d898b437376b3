"""A manifest with operating points: measured over a grid for a new index, measured again for an updated one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from product_retrieval.index.calibration import Calibration, Queries, calibrate, held_out, measure
from product_retrieval.index.manifest import IndexManifest, SideManifest, StoredFile, describe_file
from product_retrieval.index.plot import plot_side
from product_retrieval.index.searcher import ProductIndex
from product_retrieval.index.spec import SIDES, MeasuredPoint, OperatingPoint, Side
from product_retrieval.storage import Storage


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What is asked of operating points."""

    target_recall: float
    num_queries: int
    """Of each kind."""
    seed: int


def calibrated(
    index: ProductIndex, manifest: IndexManifest, output: Storage, options: CalibrationOptions
) -> IndexManifest:
    """Return the manifest with operating points measured for every kind of query against every side."""
    sides = {}
    for side, described in manifest.sides.items():
        found = {
            kind: calibrate(index, _queries(index, side, kind, options), target_recall=options.target_recall)
            for kind in SIDES
            if kind in manifest.sides
        }
        sides[side] = _with_points(side, described, found, manifest.build_id, output, options)
    return replace(manifest, sides=sides)


def recalibrated(
    index: ProductIndex, manifest: IndexManifest, base: IndexManifest, output: Storage, options: CalibrationOptions
) -> tuple[IndexManifest, float]:
    """Measure the operating points of an earlier version again; look for others where they miss the target now.

    Returns:
        The manifest with them, and the recall@10 lost since training at one point, of the kind of query that lost most.
    """
    sides, lost = {}, 0.0
    for side, described in manifest.sides.items():
        earlier = base.sides[side]
        found = {}
        for kind, point in earlier.points.items():
            if not earlier.measured.get(kind):
                found[kind] = Calibration(point, ())
                continue
            queries = _queries(index, side, kind, options)
            now = measure(index, queries, point)
            lost = max(lost, _trained_recall(earlier.measured[kind], point) - now.recall_at_10)
            if now.recall_at_10 >= options.target_recall:
                again = OperatingPoint(point.num_probes, point.rescore_factor, now.recall_at_10)
                found[kind] = Calibration(again, earlier.measured[kind])
            else:
                found[kind] = calibrate(index, queries, target_recall=options.target_recall)
        sides[side] = _with_points(side, described, found, manifest.build_id, output, options)
    return replace(manifest, sides=sides), lost


def _queries(index: ProductIndex, side: Side, kind: Side, options: CalibrationOptions) -> Queries:
    return held_out(index, against=side, kind=kind, num_queries=options.num_queries, seed=options.seed)


def _trained_recall(measured: tuple[MeasuredPoint, ...], point: OperatingPoint) -> float:
    """Return the recall@10 that a point was measured to reach when the grid was; 0 where it was not tried."""
    same = [p for p in measured if (p.num_probes, p.rescore_factor) == (point.num_probes, point.rescore_factor)]
    return same[0].recall_at_10 if same else 0.0


def _with_points(
    side: Side,
    described: SideManifest,
    found: dict[Side, Calibration],
    build_id: str,
    output: Storage,
    options: CalibrationOptions,
) -> SideManifest:
    points = {kind: each.point for kind, each in found.items()}
    measured = {kind: each.measured for kind, each in found.items() if each.measured}
    plot: StoredFile | None = None
    if measured:
        drawn = plot_side(side, measured, points, target_recall=options.target_recall).encode()
        name = f"builds/{build_id}/{side}.{hashlib.sha256(drawn).hexdigest()[:8]}.svg"
        output.put_if_absent(name, drawn)
        plot = describe_file(output, name)
    return replace(described, points=points, measured=measured, plot=plot)
