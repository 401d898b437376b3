"""Build a search index from embeddings: trained once, filled by many workers, merged, calibrated, published.

    python -m rayjobs.build_index --embeddings out/embeddings --output out/index
    ray job submit --working-dir . -- python -m rayjobs.build_index --config cluster/options/build_index.yaml

Reads the parts that the embeddings' manifest names. Writes an immutable version below --output (a FAISS index and the
float16 vectors of each side, the products, a manifest) and moves the alias current.json to it. A job that was killed
is finished by running it again; one that was finished finds its version and does nothing.

Exit codes: 0 done, 2 options, 4 artefact, 1 anything else.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
import ray
from numpy.typing import NDArray

from product_retrieval.command import LogLevel, run
from product_retrieval.embeddings import Manifest, read_manifest
from product_retrieval.errors import ArtifactError
from product_retrieval.index import IndexSpec, OperatingPoint, ProductIndex, Side, choose_spec
from product_retrieval.index.build_steps import (
    Build,
    calibrate_side,
    check_gates,
    count_vectors,
    fill_piece,
    gather_products,
    gather_vectors,
    merge_pieces,
    sample_vectors,
)
from product_retrieval.index.construction import num_training_points, train
from product_retrieval.index.spec import SIDES, num_lists
from product_retrieval.index.versions import (
    IndexManifest,
    SideManifest,
    current_version,
    describe_file,
    find_build,
    load,
    promote,
    publish,
    source_of,
)
from product_retrieval.progress import Progress, format_duration, format_table
from product_retrieval.session import ray_session
from product_retrieval.storage import Storage

PROGRAM = "python -m rayjobs.build_index"
PARTS_PER_PIECE = 64
"""Parts that one worker adds at a time: what a killed build loses at most, per worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Which embeddings to index, how well, and where to."""

    embeddings: str
    """Folder that embed wrote; local or in an object store."""
    output: str
    """Folder of the index; local or in an object store."""
    factory: str | None = None
    """FAISS factory string; default: chosen from the number of vectors."""
    target_recall: float = 0.95
    """Recall@10 against exact search that operating points are calibrated for."""
    num_queries: int = 500
    """Products sampled as queries for the calibration, for each kind of query."""
    num_gpus: float = 0
    """GPUs of the training task; it uses them for the assignments of k-means."""
    seed: int = 0
    """Of samples and k-means."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        if not 0 < self.target_recall <= 1:
            raise ValueError(f"--target-recall is a share above 0, up to 1, not {self.target_recall}")
        if self.num_queries < 1:
            raise ValueError(f"--num-queries must be at least 1, not {self.num_queries}")


def build_index(options: BuildOptions) -> None:
    """Build and publish a version and report; see the module's text."""
    started = time.monotonic()
    embeddings, output = Storage.at(options.embeddings), Storage.at(options.output)
    manifest = read_manifest(embeddings)
    build = Build(embeddings, manifest, output, identify(manifest, options))
    published = find_build(output, build.build_id)
    if published is not None:
        promote_if_none(output, published.version)
        print(f"{output.uri}: already built as version {published.version}; nothing to do")
        return
    with ray_session(ray):
        unpublished = build_version(build, options)
    index = load(output, unpublished)
    unpublished = calibrated(index, unpublished, options)
    check_gates(index, seed=options.seed)
    published = publish(output, unpublished)
    promote(output, published.version)
    print(summary(published, output, total_s=time.monotonic() - started))


def identify(manifest: Manifest, options: BuildOptions) -> str:
    """Return the build id: a hash of everything that the files of a version depend on."""
    record = {
        "embeddings": source_of(manifest),
        "options": {name: getattr(options, name) for name in ("factory", "target_recall", "num_queries", "seed")},
    }
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def build_version(build: Build, options: BuildOptions) -> IndexManifest:
    """Train, fill and merge each side on the cluster; return the manifest, not yet calibrated or published."""
    manifest = build.manifest
    shared = ray.put(build)
    counted = ray.get([count_task.remote(shared, part) for part in range(len(manifest.parts))])
    totals = {side: sum(counts[side] for counts in counted) for side in SIDES}
    products = gather_products_task.remote(shared)
    specs = {
        side: choose_spec(totals[side], manifest.fingerprint.dim, options.factory) for side in SIDES if totals[side]
    }
    if not specs:
        raise ArtifactError(f"{build.embeddings.uri}: holds no vectors")
    groups = [
        list(range(first, min(first + PARTS_PER_PIECE, len(manifest.parts))))
        for first in range(0, len(manifest.parts), PARTS_PER_PIECE)
    ]
    with Progress("build_index", sum(totals[side] for side in specs), unit="vectors") as progress:
        merged = {}
        for side, spec in specs.items():
            share = min(1.0, num_training_points(totals[side], spec) / totals[side])
            samples = [
                sample_task.remote(shared, part, side, share, options.seed) for part in range(len(manifest.parts))
            ]
            trained = train_task.options(num_gpus=options.num_gpus).remote(spec, options.seed, *samples)
            pieces = [fill_task.remote(shared, trained, group, side, i) for i, group in enumerate(groups)]
            for piece, group in zip(pieces, groups, strict=True):
                ray.get(piece)
                progress.advance(sum(counted[part][side] for part in group))
            merged[side] = (merge_task.remote(shared, side, *pieces), gather_vectors_task.remote(shared, side))
        sides = {
            side: SideManifest(
                factory=specs[side].factory,
                reason=specs[side].reason,
                num_vectors=totals[side],
                index=describe_file(build.output, ray.get(index)),
                vectors=describe_file(build.output, ray.get(vectors)),
                points={},
            )
            for side, (index, vectors) in merged.items()
        }
    products_name, order_name = ray.get(products)
    return IndexManifest(
        build_id=build.build_id,
        fingerprint=manifest.fingerprint,
        model=manifest.model,
        embeddings_uri=build.embeddings.uri,
        embeddings_run_id=manifest.run_id,
        catalog=manifest.catalog,
        num_products=manifest.num_products,
        dim=manifest.fingerprint.dim,
        options=asdict(options),
        sides=sides,
        products=describe_file(build.output, products_name),
        rows_by_id=describe_file(build.output, order_name),
    )


def calibrated(index: ProductIndex, manifest: IndexManifest, options: BuildOptions) -> IndexManifest:
    """Return the manifest with measured operating points."""
    sides = {
        side: replace(
            manifest.sides[side],
            points=calibrate_side(
                index,
                side,
                num_lists=num_lists(manifest.sides[side].factory),
                target_recall=options.target_recall,
                num_queries=options.num_queries,
                seed=options.seed,
            ),
        )
        for side in manifest.sides
    }
    return replace(manifest, sides=sides)


def promote_if_none(output: Storage, version: int) -> None:
    """Promote a version where a killed build published it without promoting it."""
    try:
        current_version(output)
    except ArtifactError:
        promote(output, version)


def summary(manifest: IndexManifest, output: Storage, *, total_s: float) -> str:
    """Return the closing table of the job."""
    rows = [("version", f"{manifest.version}, {manifest.num_products:,} products of {manifest.dim} dimensions")]
    for name, side in manifest.sides.items():
        size = side.index.size_bytes / max(side.num_vectors, 1)
        rows.append((f"{name} side", f"{side.factory}, {size:,.0f} bytes a vector"))
        rows.append(("", side.reason))
        for kind, point in side.points.items():
            rows.append((f"  {kind} queries", describe_point(point, manifest.options["target_recall"])))
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


@ray.remote
def count_task(build: Build, part: int) -> dict[Side, int]:
    """Count the vectors of a part."""
    return count_vectors(build, part)


@ray.remote
def sample_task(build: Build, part: int, side: Side, share: float, seed: int) -> NDArray[np.float32]:
    """Sample the vectors of a part."""
    return sample_vectors(build, part, side, share=share, seed=seed)


@ray.remote
def train_task(spec: IndexSpec, seed: int, *samples: NDArray[np.float32]) -> bytes:
    """Train an empty index on the samples."""
    return train(np.concatenate(samples), spec, seed=seed)


@ray.remote
def fill_task(build: Build, trained: bytes, parts: list[int], side: Side, piece: int) -> str:
    """Fill one piece."""
    return fill_piece(build, trained, parts, side, piece)


@ray.remote
def merge_task(build: Build, side: Side, *pieces: str) -> str:
    """Merge the pieces of a side."""
    return merge_pieces(build, pieces, side)


@ray.remote
def gather_vectors_task(build: Build, side: Side) -> str:
    """Gather the stored vectors of a side."""
    return gather_vectors(build, side)


@ray.remote
def gather_products_task(build: Build) -> tuple[str, str]:
    """Gather the products."""
    return gather_products(build)


def main() -> int:
    """Run the command."""
    return run(build_index, BuildOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
