"""What the index job says at its end."""

from __future__ import annotations

from product_retrieval.index import IndexManifest, OperatingPoint
from product_retrieval.index.fused import describe_fusion
from product_retrieval.progress import format_duration, format_size, format_table
from product_retrieval.storage import Storage


def summary(manifest: IndexManifest, output: Storage, *, total_s: float) -> str:
    """Return the closing table of the job."""
    shards = f"{len(manifest.shards)} shard{'s' if len(manifest.shards) > 1 else ''}"
    rows = [
        ("version", f"{manifest.version}, {manifest.num_products:,} products of {manifest.dim} dimensions, {shards}")
    ]
    for name, side in manifest.sides.items():
        size = sum(s.sides[name].index.size_bytes for s in manifest.shards if name in s.sides) / side.num_vectors
        rows.append((f"{name} side", f"{side.factory}, {size:,.0f} bytes a vector"))
        rows.append(("", side.reason))
        if side.fusion is not None:
            rows.append(("", describe_fusion(side.fusion)))
        for kind, point in side.points.items():
            rows.append((f"  {kind} queries", describe_point(point, manifest.options["target_recall"])))
        if side.plot is not None:
            rows.append(("  measured", output.path(side.plot.path)))
    if manifest.drift is not None:
        drift = manifest.drift
        rows.append(
            ("drift", f"{drift.num_added:,} added, {drift.num_gone:,} gone of {drift.num_trained:,} trained on")
        )
        rows.append(("", f"build anew: {drift.rebuild_because}" if drift.rebuild_because else "no need to build anew"))
    peak = max(manifest.peak_memory.values(), default=0)
    rows.append(("memory", f"{format_size(peak)} at most in one process"))
    return format_table([*rows, ("time", format_duration(total_s)), ("written to", output.uri)])


def describe_point(point: OperatingPoint, target: float) -> str:
    """Return an operating point with the recall it was measured to reach."""
    recall = point.recall_at_10 or 0.0
    missed = "" if recall >= target else f", short of the target {target:g}: nothing tried reaches it"
    if not point.rescore_factor:
        return f"recall@10 {recall:.3f} of exact search{missed}"
    return (
        f"recall@10 {recall:.3f} of exact search, {point.num_probes} lists probed, "
        f"{point.rescore_factor} k re-scored{missed}"
    )
