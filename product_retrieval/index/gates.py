"""What must hold before a version is published: its files are whole and open again, and products find themselves."""

from __future__ import annotations

from typing import Any

from product_retrieval.errors import ArtifactError
from product_retrieval.index.calibration import sample_queries
from product_retrieval.index.manifest import IndexManifest
from product_retrieval.index.searcher import ProductIndex
from product_retrieval.index.spec import MAX_LISTS, OperatingPoint, Side
from product_retrieval.index.two_stage import rescore

NUM_GATE_PRODUCTS = 100
"""Products that must find themselves before a version is published."""
MIN_SELF_FOUND = 0.99
"""Of an exhaustive search; what it misses, the codes have confused with other products."""
MIN_OWN_SCORE = 0.999
EVERYTHING = OperatingPoint(num_probes=MAX_LISTS, rescore_factor=32)


def check_gates(index: ProductIndex, *, seed: int) -> dict[str, Any]:
    """Check that products find themselves; return what was found, for the manifest.

    Raises:
        ArtifactError: too many do not; the version must not be published.
    """
    found: dict[str, Any] = {}
    for side in index.sides:
        queries, rows = sample_queries(index, side, NUM_GATE_PRODUCTS, seed)
        found_rows = index.search(queries, against=side, k=1, point=EVERYTHING).rows
        # On the stored vectors, not by FAISS's word; and by score, not by row: a duplicate is as good an answer.
        scores = rescore(index.shards, queries, found_rows, side)[:, 0]
        share = float(((found_rows[:, 0] >= 0) & (scores > MIN_OWN_SCORE)).mean()) if len(rows) else 1.0
        if share < MIN_SELF_FOUND:
            raise ArtifactError(f"{side} side: only {share:.0%} of sampled products find themselves; not published")
        found[f"{side}_self_found"] = share
    return found


def check_recall(manifest: IndexManifest, target_recall: float) -> None:
    """Check that every kind of query has an operating point that reaches the target.

    Raises:
        ArtifactError: one has none; says how close it came and what would help.
    """
    for side, kind, point in all_points(manifest):
        if (point.recall_at_10 or 0.0) < target_recall:
            raise ArtifactError(
                f"{kind} queries on the {side} side reach recall@10 {point.recall_at_10:.4f} of --target-recall "
                f"{target_recall:g} at best ({point.num_probes} lists probed, {point.rescore_factor} k re-scored); "
                "lower the target, take --kind ivf-sq8 or flat, or publish what there is with --publish-below-target"
            )


def all_points(manifest: IndexManifest) -> list[tuple[Side, Side, OperatingPoint]]:
    """Return each operating point with its side and its kind of query."""
    return [(side, kind, point) for side, s in manifest.sides.items() for kind, point in s.points.items()]
