"""Applying changed embeddings to a version of an index: compare, add what is new, keep the rest where it is."""

from __future__ import annotations

from dataclasses import replace

from product_retrieval.errors import ArtifactError
from product_retrieval.index import IndexManifest, IndexSpec
from product_retrieval.index.build_steps import Build
from product_retrieval.index.layout import plan_shards, rows_for_memory
from product_retrieval.index.update import ShardChange, changed_shard, compare_shard, kept_shards, rows_to_add
from rayjobs.index_tasks import Cluster, build_shards, count_all


def update_version(build: Build, base: IndexManifest, cluster: Cluster, *, shard_rows: int | None) -> IndexManifest:
    """Compare the embeddings with a version, and build shards of what that lacks.

    Args:
        build: of the new version.
        base: the version that is updated.
        cluster: where.
        shard_rows: products in a new shard at most; None takes as many as a step's memory holds.

    Returns:
        The manifest, not yet calibrated or published.

    Raises:
        ArtifactError: the embeddings are not comparable with the version's, or have a side that it was not trained for.
    """
    check_comparable(build, base, cluster)
    build = replace(build, image_weight=base.image_weight)
    shared = cluster.share(build)
    kept = kept_shards(base)
    comparing = [cluster.submit(compare_shard, shared, n, shard, is_large=True) for n, shard in enumerate(kept)]
    changes: list[ShardChange] = [cluster.get(reference) for reference in comparing]
    shards = []
    first_row = 0
    for number, (shard, change) in enumerate(zip(kept, changes, strict=True)):
        if len(change.tombstones) < shard.num_rows:
            shards.append(changed_shard(build, number, shard, change, first_row))
            first_row += shard.num_rows
    specs = [IndexSpec(side.factory, side.reason) for side in base.sides.values()]
    rows = shard_rows or rows_for_memory(specs, base.dim, cluster.memory_bytes)
    trained = {side: described.trained.path for side, described in base.sides.items()}
    plans = plan_shards(rows_to_add(build, changes), rows)
    shards += build_shards(cluster, build, plans, trained, first_row=first_row)
    sides = {
        side: replace(described, num_vectors=sum(s.sides[side].num_vectors for s in shards if side in s.sides))
        for side, described in base.sides.items()
    }
    manifest = build.manifest
    return replace(
        base,
        build_id=build.build_id,
        model=manifest.model,
        embeddings_uri=build.embeddings.uri,
        embeddings_run_id=manifest.run_id,
        catalog=manifest.catalog,
        num_products=sum(shard.num_rows - shard.num_tombstones for shard in shards),
        sides={side: described for side, described in sides.items() if described.num_vectors},
        shards=tuple(shards),
        peak_memory=cluster.peaks,
    )


def check_comparable(build: Build, base: IndexManifest, cluster: Cluster) -> None:
    """Check that the vectors of embeddings can be added to a version.

    Raises:
        ArtifactError: they are another model's, there are none, or they have a side that it was not trained for.
    """
    if build.manifest.fingerprint.digest != base.fingerprint.digest:
        raise ArtifactError(
            f"{build.embeddings.uri}: of another model than version {base.version} ({base.model}); build anew, without "
            "--update"
        )
    totals = count_all(cluster, build)
    if not any(totals.values()):
        raise ArtifactError(f"{build.embeddings.uri}: holds no vectors, so there is nothing to index")
    for side, num_vectors in totals.items():
        if num_vectors and side not in base.sides:
            raise ArtifactError(
                f"{build.embeddings.uri}: has the {side} side, which version {base.version} was not trained for; build "
                "anew, without --update"
            )
