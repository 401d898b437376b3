"""See the versions of an index, serve another one, and clean up.

    python -m product_retrieval.versions list     out/index
    python -m product_retrieval.versions show     out/index 3
    python -m product_retrieval.versions promote  out/index 3
    python -m product_retrieval.versions rollback out/index
    python -m product_retrieval.versions gc       out/index --keep 2 --dry-run

`rollback` goes back to what was served before. `gc` deletes versions, and files that no version needs any more; it
leaves what is served, the newest --keep versions, and whatever is younger than --min-age-hours, as a reader may be
opening it or a build be writing it.

Exit codes: 0 done, 2 options, 4 artefact, 1 anything else.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from product_retrieval.command import LogLevel, run
from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.index.fused import Fusion, describe_fusion
from product_retrieval.index.gates import all_points
from product_retrieval.index.manifest import IndexManifest
from product_retrieval.index.retention import collect, find_garbage
from product_retrieval.index.versions import current_version, promote, read_manifest, rollback, versions
from product_retrieval.progress import format_size, format_table
from product_retrieval.storage import Storage

PROGRAM = "python -m product_retrieval.versions"

Action = Literal["list", "show", "promote", "rollback", "gc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionsOptions:
    """What to do, and with which index."""

    action: Annotated[Action, tyro.conf.Positional]
    """What to do."""
    index: Annotated[str, tyro.conf.Positional]
    """Folder of the index; local or in an object store."""
    version: Annotated[int | None, tyro.conf.Positional] = None
    """Version to show (default: the one that is served) or to promote."""
    keep: int = 2
    """Newest versions that gc leaves, whatever their age."""
    min_age_hours: float = 24.0
    """What is younger gc leaves, whatever it is."""
    dry_run: bool = False
    """Only say what gc would delete."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"--keep must be at least 1, not {self.keep}")
        if self.min_age_hours < 0:
            raise ValueError(f"--min-age-hours must not be negative, not {self.min_age_hours}")


def manage(options: VersionsOptions) -> None:
    """Do what the options say; see the module's text."""
    storage = Storage.at(options.index)
    if options.version is not None and options.action not in ("show", "promote"):
        raise OptionsError(f"{options.action} takes no version")
    if options.action == "list":
        print(listing(storage))
    elif options.action == "show":
        version = current_version(storage) if options.version is None else options.version
        print(description(read_manifest(storage, version)))
    elif options.action == "promote":
        if options.version is None:
            raise OptionsError("promote which version? name it after the index")
        promote(storage, options.version)
        print(f"{storage.uri}: version {options.version} is served")
    elif options.action == "rollback":
        print(f"{storage.uri}: back to version {rollback(storage)}")
    else:
        clean_up(storage, options)


def listing(storage: Storage) -> str:
    """Return one line a version, the one that is served marked by a star."""
    served = current_version(storage)
    lines = [f"  {'version':>7}  {'published':<25}  {'products':>11}  {'shards':>6}  {'recall@10':>9}  {'size':>8}"]
    for version in versions(storage):
        star = "*" if version == served else " "
        try:
            manifest = read_manifest(storage, version)
        except ArtifactError as error:
            lines.append(f"{star} {version:>7}  {error}")
            continue
        recalls = [point.recall_at_10 for _, _, point in all_points(manifest) if point.recall_at_10 is not None]
        size = format_size(sum(file.size_bytes for file in manifest.files()))
        lowest = f"{min(recalls):.3f}" if recalls else ""
        lines.append(
            f"{star} {version:>7}  {manifest.created:<25}  {manifest.num_products:>11,}  {len(manifest.shards):>6}  "
            f"{lowest:>9}  {size:>8}"
        )
    return "\n".join(lines)


def description(manifest: IndexManifest) -> str:
    """Return what a version says of itself."""
    rows = [
        ("version", f"{manifest.version}, published {manifest.created}, build {manifest.build_id}"),
        ("products", f"{manifest.num_products:,} of {manifest.dim} dimensions in {len(manifest.shards)} shards"),
        ("model", f"{manifest.model} ({manifest.fingerprint.digest[:12]})"),
        ("embeddings", f"{manifest.embeddings_uri} (run {manifest.embeddings_run_id})"),
    ]
    for name, side in manifest.sides.items():
        rows.append((f"{name} side", f"{side.factory}, {side.num_vectors:,} vectors"))
        rows.append(("", side.reason))
        rows += [] if side.fusion is None else fusion_rows(side.fusion)
        for kind, point in side.points.items():
            words = f"recall@10 {point.recall_at_10}, {point.num_probes} lists, {point.rescore_factor} k re-scored"
            rows.append((f"  {kind} queries", words))
    rows += [(f"gate {name}", f"{found}") for name, found in manifest.gates.items()]
    rows += [(f"memory {step}", format_size(held)) for step, held in manifest.peak_memory.items()]
    if manifest.drift is not None:
        drift = manifest.drift
        rows.append(("drift", f"{drift.share:.1%} of {drift.num_trained:,} products added or gone since training"))
        rows.append(("", f"rebuild: {drift.rebuild_because}" if drift.rebuild_because else "no rebuild needed"))
    size = sum(file.size_bytes for file in manifest.files())
    return format_table([*rows, ("files", f"{len(manifest.files())}, {format_size(size)}")])


def fusion_rows(fusion: Fusion) -> list[tuple[str, str]]:
    """Return the weight of a fused side and all that was measured for it."""
    rows = [("", describe_fusion(fusion))]
    for tried in fusion.measured:
        found = ", ".join(
            f"{kind} queries {rank:.3f} (hit@10 {tried.hit_at_10[kind]:.3f})"
            for kind, rank in tried.reciprocal_rank.items()
        )
        rows.append((f"  picture {tried.image_weight:g}", f"MRR {tried.mean_reciprocal_rank:.3f}: {found}"))
    return rows


def clean_up(storage: Storage, options: VersionsOptions) -> None:
    """Delete what nobody needs any more, or say what that is."""
    now_s, min_age_s = time.time(), options.min_age_hours * 3600
    garbage = find_garbage(storage, keep=options.keep, min_age_s=min_age_s, now_s=now_s)
    if not options.dry_run:
        garbage = collect(storage, garbage, keep=options.keep, min_age_s=min_age_s, now_s=now_s)
    verb = "would delete" if options.dry_run else "deleted"
    gone = ", ".join(str(version) for version in garbage.versions) or "none"
    print(f"{storage.uri}: {verb} versions: {gone}; {len(garbage.files)} files, {format_size(garbage.size_bytes)}")


def main() -> int:
    """Run the command."""
    return run(manage, VersionsOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
