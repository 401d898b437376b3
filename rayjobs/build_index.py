"""Build a search index from embeddings: trained once, filled by many workers, merged, calibrated, published.

    python -m rayjobs.build_index --embeddings out/embeddings --output out/index
    python -m rayjobs.build_index --embeddings out/embeddings --output out/index --fused
    python -m rayjobs.build_index --embeddings out/tuesday --output out/index --update
    python -m rayjobs.build_index --embeddings CLIP_FOLDER --output out/index --clip-retrieval.model ID
    ray job submit --working-dir . -- python -m rayjobs.build_index --config cluster/options/build_index.yaml

Reads the parts that the embeddings' manifest names. Writes an immutable version below --output (shards, each
with a FAISS index and float16 vectors of each side and the products; a manifest) and moves the alias current.json to
it. A job that was killed is finished by running it again; one that was finished finds its version and does nothing.
A folder that clip-retrieval wrote is made into embeddings below --output first; see docs/migration.md.

Exit codes: 0 done, 2 options, 4 artefact, 5 encoder, 1 anything else.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import ray

from product_retrieval.clip_folder import ClipFolderOptions
from product_retrieval.command import LogLevel, run
from product_retrieval.embeddings import Manifest, read_manifest
from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.index import IndexManifest, IndexSpec, ProductIndex, Side, choose_spec
from product_retrieval.index.build_steps import Build
from product_retrieval.index.fused import Fusion, describe_fusion, parse_fusion
from product_retrieval.index.gates import check_gates, check_recall
from product_retrieval.index.layout import all_rows, plan_shards, rows_for_memory
from product_retrieval.index.manifest import SideManifest, describe_file
from product_retrieval.index.opening import load
from product_retrieval.index.operating_points import CalibrationOptions, calibrated, recalibrated
from product_retrieval.index.spec import SIDES, Kind
from product_retrieval.index.update import drift_of
from product_retrieval.index.versions import (
    current_version,
    find_build,
    promote,
    promote_if_never_served,
    publish,
    source_of,
)
from product_retrieval.index.versions import read_manifest as read_index_manifest
from product_retrieval.memory import machine_bytes
from product_retrieval.session import ray_session
from product_retrieval.storage import Storage
from rayjobs.clip_source import embeddings_to_index
from rayjobs.index_report import summary
from rayjobs.index_tasks import Cluster, build_shards, count_all, measure_fusion, train_sides
from rayjobs.update_index import update_version

PROGRAM = "python -m rayjobs.build_index"
MEMORY_SHARE = 0.25
"""Of the machine's memory that one step of a build may need, where --memory-gib does not say."""
DESIGN = "design.json"
CALIBRATION_OPTIONS = ("target_recall", "num_queries")
"""On these, no file of a build depends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """Which embeddings to index, how well, and where to."""

    embeddings: str
    """Folder that embed or clip-retrieval wrote; local or in an object store."""
    output: str
    """Folder of the index; local or in an object store."""
    kind: Kind | None = None
    """What kind of index; default: flat below 1,000 vectors, ivf-pq from there on."""
    factory: str | None = None
    """FAISS factory string, instead of a kind."""
    target_recall: float = 0.95
    """Recall@10 against exact search that operating points are calibrated for."""
    publish_below_target: bool = False
    """Publish a version although a kind of query does not reach the target."""
    num_queries: int = 500
    """Products sampled as queries for the calibration, for each kind of query."""
    memory_gib: float | None = None
    """Memory that one step of the build, and the codes of one side in a reader, may need; default: a quarter of the
    machine's for a step, no limit for the codes."""
    shard_rows: int | None = None
    """Products in a shard at most; default: as many as one step's memory holds."""
    fused: bool = False
    """Add a third side: the weighted sum of each product's two vectors, its weight measured on products' groups."""
    fused_weight: float | None = None
    """Share of the picture in that sum, from 0 to 1, instead of measuring it; implies --fused."""
    update: bool = False
    """Apply what changed in the embeddings to the version that is served, instead of building anew."""
    num_gpus: float = 0
    """GPUs of the training task; it uses them for the assignments of k-means."""
    seed: int = 0
    """Of samples and k-means."""
    clip_retrieval: ClipFolderOptions = field(default_factory=ClipFolderOptions)
    """What a folder of clip-retrieval does not say of itself."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        if not 0 < self.target_recall <= 1:
            raise ValueError(f"--target-recall is a share above 0, up to 1, not {self.target_recall}")
        if self.num_queries < 1:
            raise ValueError(f"--num-queries must be at least 1, not {self.num_queries}")
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise ValueError(f"--memory-gib must be more than 0, not {self.memory_gib}")
        if self.shard_rows is not None and self.shard_rows < 1:
            raise ValueError(f"--shard-rows must be at least 1, not {self.shard_rows}")
        if self.fused_weight is not None and not 0 <= self.fused_weight <= 1:
            raise ValueError(f"--fused-weight is a share from 0 to 1, not {self.fused_weight}")
        if self.kind is not None and self.factory is not None:
            raise ValueError("give --kind or --factory, not both")

    @property
    def has_fused(self) -> bool:
        """Whether a fused side is asked for."""
        return self.fused or self.fused_weight is not None

    @property
    def step_bytes(self) -> int:
        """Memory that one step may need."""
        return int(machine_bytes() * MEMORY_SHARE if self.memory_gib is None else self.memory_gib * 2**30)


@dataclass(frozen=True, slots=True)
class Design:
    """What a build makes; written once, so that a build goes on as it was begun, on whatever machine."""

    specs: dict[Side, IndexSpec]
    shard_rows: int
    fusion: Fusion | None = None
    """Of the fused side; None where there is none."""


def build_index(options: BuildOptions) -> None:
    """Build and publish a version and report; see the module's text."""
    started = time.monotonic()
    output = Storage.at(options.output)
    embeddings = embeddings_to_index(Storage.at(options.embeddings), options.clip_retrieval, output)
    manifest = read_manifest(embeddings)
    base = read_index_manifest(output, current_version(output)) if options.update else None
    if base is not None:
        check_fused(base, options)
    build = Build(embeddings, manifest, output, identify(manifest, options, base))
    published = find_build(output, build.build_id)
    if published is not None and is_calibrated_for(published, options):
        promote_if_never_served(output, published.version)
        print(f"{output.uri}: already built as version {published.version}; nothing to do")
        return
    output.check_atomic()
    with ray_session(ray):
        unpublished = build_version(build, options) if base is None else updated_version(build, base, options)
    index = load(output, unpublished)
    asked = CalibrationOptions(options.target_recall, options.num_queries, options.seed)
    if base is None:
        unpublished = calibrated(index, unpublished, output, asked)
    else:
        unpublished, lost_recall = recalibrated(index, unpublished, base, output, asked)
        unpublished = replace(unpublished, drift=drift_of(base, unpublished, lost_recall))
    unpublished = replace(unpublished, gates=gates(index, unpublished, options))
    if not options.publish_below_target:
        check_recall(unpublished, options.target_recall)
    published = publish(output, unpublished)
    promote(output, published.version)
    output.clear_staging()
    print(summary(published, output, total_s=time.monotonic() - started))


def identify(manifest: Manifest, options: BuildOptions, base: IndexManifest | None) -> str:
    """Return the build id: a hash of everything that the files of a version depend on."""
    names = ["kind", "factory", "shard_rows", "memory_gib", "seed"]
    names += ["target_recall"] if options.memory_gib is not None else []  # it decides whether codes may be small
    names += [name for name in ("fused", "fused_weight") if options.has_fused and base is None]
    record: dict[str, Any] = {
        "embeddings": source_of(manifest),
        "options": {name: getattr(options, name) for name in names},
    }
    if base is not None and base.embeddings_run_id == manifest.run_id:
        return base.build_id
    if base is not None:
        record["base"] = base.build_id
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def is_calibrated_for(published: IndexManifest, options: BuildOptions) -> bool:
    """Return whether a published version was measured as these options ask."""
    return all(published.options.get(name) == getattr(options, name) for name in CALIBRATION_OPTIONS)


def check_fused(base: IndexManifest, options: BuildOptions) -> None:
    """Check that an update asks for no other fused side than the version has.

    Raises:
        OptionsError: the version has none, or one of another weight.
    """
    if options.has_fused and "fused" not in base.sides:
        raise OptionsError(f"--fused: version {base.version} has no fused side; build anew, without --update")
    if options.fused_weight is not None and options.fused_weight != base.image_weight:
        raise OptionsError(
            f"--fused-weight {options.fused_weight:g}: version {base.version} has {base.image_weight:g}, which "
            "an update keeps; build anew, without --update"
        )


def build_version(build: Build, options: BuildOptions) -> IndexManifest:
    """Train, fill and merge each side on the cluster; return the manifest, not yet calibrated or published."""
    manifest = build.manifest
    cluster = Cluster(options.step_bytes, options.num_gpus)
    totals = count_all(cluster, build)
    if not any(totals.values()):
        raise ArtifactError(f"{build.embeddings.uri}: holds no vectors, so there is nothing to index")
    design = pinned_design(cluster, build, totals, options)
    for side, spec in design.specs.items():
        print(f"{side} side: {spec.factory}: {spec.reason}", flush=True)
    if design.fusion is not None:
        build = replace(build, image_weight=design.fusion.image_weight)
        totals = {**totals, "fused": manifest.num_products}
        print(f"fused side: {describe_fusion(design.fusion)}", flush=True)
    sources = all_rows(manifest)
    trained = train_sides(cluster, build, sources, design.specs, totals, options.seed)
    shards = build_shards(cluster, build, plan_shards(sources, design.shard_rows), trained)
    sides = {
        side: SideManifest(
            factory=spec.factory,
            reason=spec.reason,
            num_vectors=sum(shard.sides[side].num_vectors for shard in shards if side in shard.sides),
            trained=describe_file(build.output, trained[side]),
            points={},
            fusion=design.fusion if side == "fused" else None,
        )
        for side, spec in design.specs.items()
    }
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
        shards=tuple(shards),
        design=describe_file(build.output, build.path(DESIGN)),
        peak_memory=cluster.peaks,
    )


def updated_version(build: Build, base: IndexManifest, options: BuildOptions) -> IndexManifest:
    """Add to a version what the embeddings have beyond it; return the manifest, not yet calibrated or published."""
    cluster = Cluster(options.step_bytes, options.num_gpus)
    return replace(update_version(build, base, cluster, shard_rows=options.shard_rows), options=asdict(options))


def pinned_design(cluster: Cluster, build: Build, totals: dict[Side, int], options: BuildOptions) -> Design:
    """Return what an earlier run of this build decided, or decide."""
    path = build.path(DESIGN)
    if not build.output.exists(path):
        design = make_design(cluster, build, totals, options)
        build.output.put_if_absent(path, json.dumps(asdict(design)).encode())
    record: dict[str, Any] = json.loads(build.output.read(path))
    specs: dict[Side, IndexSpec] = {side: IndexSpec(**spec) for side, spec in record["specs"].items()}
    return Design(specs, record["shard_rows"], parse_fusion(record.get("fusion")))


def make_design(cluster: Cluster, build: Build, totals: dict[Side, int], options: BuildOptions) -> Design:
    """Decide what to build.

    Raises:
        OptionsError: the weight of a fused side cannot be measured, or there is nothing to fuse.
    """
    dim = build.manifest.fingerprint.dim
    code_bytes = None if options.memory_gib is None else options.step_bytes
    fusion = None
    if options.has_fused:
        fusion = decide_fusion(cluster, build, totals, options)
        totals = {**totals, "fused": build.manifest.num_products}
    specs = {
        side: choose_spec(
            totals[side],
            dim,
            kind=options.kind,
            factory=options.factory,
            target_recall=options.target_recall,
            memory_bytes=code_bytes,
        )
        for side in totals
        if totals[side]
    }
    shard_rows = options.shard_rows or rows_for_memory(list(specs.values()), dim, options.step_bytes)
    return Design(specs, shard_rows, fusion)


def decide_fusion(cluster: Cluster, build: Build, totals: dict[Side, int], options: BuildOptions) -> Fusion:
    """Return the weight that is named, or measure one.

    Raises:
        OptionsError: the embeddings have one side only, or too few groups to measure on.
    """
    missing = [side for side in SIDES if not totals[side]]
    if missing:
        raise OptionsError(f"--fused: {build.embeddings.uri} has no {missing[0]} vectors to fuse; leave it out")
    if options.fused_weight is not None:
        return Fusion(options.fused_weight)
    return measure_fusion(cluster, build, all_rows(build.manifest), options.seed)


def gates(index: ProductIndex, manifest: IndexManifest, options: BuildOptions) -> dict[str, Any]:
    """Return what was checked: opening has compared every file, its counts, its dimension and its centroids."""
    files = manifest.files()
    opened = {"files_opened": len(files), "bytes_opened": sum(file.size_bytes for file in files)}
    return {**opened, **check_gates(index, seed=options.seed), "target_recall": options.target_recall}


def main() -> int:
    """Run the command."""
    return run(build_index, BuildOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
