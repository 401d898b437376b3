"""What changed between a version of an index and newer embeddings, and the files that say so.

A product is known by its id. Where the keys of its picture and text are what they were, its vectors are kept where they
are, and at most its columns are written anew; otherwise its row becomes a tombstone and it is added again. The trained
index stays: nothing is removed from FAISS's lists (FAISS 1.15.1 mixes up codes that are added after a removal).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from product_retrieval.embeddings import KEY_COLUMNS, VECTOR_COLUMNS
from product_retrieval.errors import ArtifactError
from product_retrieval.index.build_steps import Build
from product_retrieval.index.layout import PartRows, all_rows
from product_retrieval.index.manifest import Drift, IndexManifest, Shard, describe_file
from product_retrieval.index.shard_files import content_keys, part_columns, read_products, to_npy, write_products
from product_retrieval.storage import Storage

MAX_DRIFT = 0.2
"""Share of rows added and tombstoned since training above which a rebuild is advised."""
MAX_RECALL_LOSS = 0.01
"""Recall@10 lost since training above which a rebuild is advised."""


@dataclass(frozen=True)
class ShardChange:
    """What newer embeddings make of a shard."""

    tombstones: NDArray[np.int64]
    """Local rows that are gone or must be added again, earlier ones among them, ascending."""
    products: str | None
    """Name of a new file of products, where a kept product's columns changed."""
    kept: dict[int, NDArray[np.int64]]
    """By part of the embeddings, the rows that the shard keeps."""


def kept_shards(base: IndexManifest) -> list[Shard]:
    """Return the shards that were trained on; what was added since is added again, so that shards do not pile up."""
    trained = base.build_id if base.drift is None else base.drift.trained_build
    return [shard for shard in base.shards if shard.keys.path.startswith(f"builds/{trained}/")]


def compare_shard(build: Build, number: int, shard: Shard) -> ShardChange:
    """Compare a shard with the embeddings of a build.

    Args:
        build: of the new version.
        number: the shard's number in the earlier version; names the new files.
        shard: its record.

    Raises:
        ArtifactError: the embeddings have no keys.
    """
    base = read_products(build.output, shard.products.path)
    keys = read_array(build.output, shard.keys.path)
    is_kept = np.zeros(shard.num_rows, np.bool_)
    ids = base.column("product_id").combine_chunks()
    kept: dict[int, NDArray[np.int64]] = {}
    changed: list[tuple[NDArray[np.int64], pa.Table]] = []
    for source in all_rows(build.manifest):
        names = [name for name in part_columns(build, source.part) if name not in VECTOR_COLUMNS]
        if not set(KEY_COLUMNS) <= set(names):
            name = build.manifest.parts[source.part].name
            raise ArtifactError(f"{name}: has no {' and '.join(KEY_COLUMNS)}, so changes cannot be told; build anew")
        table = build.read(source, names)
        local = pc.index_in(table.column("product_id").cast(ids.type), value_set=ids)
        places = pc.fill_null(local, -1).to_numpy().astype(np.int64)
        is_same = places >= 0
        is_same[is_same] = (keys[places[is_same]] == content_keys(table)[is_same]).all(axis=1)
        rows = np.flatnonzero(is_same)
        kept[source.part] = rows
        is_kept[places[rows]] = True
        newer = table.take(pa.array(rows)).drop_columns(list(KEY_COLUMNS)).replace_schema_metadata(None)
        if not have_same_columns(newer, base, places[rows]):
            changed.append((places[rows], newer))
    products = None
    if changed:
        products = build.path(f"kept-{number:05d}/products.arrow")
        if not build.output.exists(products):
            with build.output.new_file(products) as path:
                write_products(refreshed(base, changed), str(path))
    return ShardChange(np.flatnonzero(~is_kept), products, kept)


def have_same_columns(newer: pa.Table, base: pa.Table, rows: NDArray[np.int64]) -> bool:
    """Return whether products have the columns and values that they had in some rows of a shard."""
    if newer.schema != base.schema:
        return False
    return bool(newer.combine_chunks().equals(base.take(pa.array(rows)).combine_chunks()))


def refreshed(base: pa.Table, changed: Sequence[tuple[NDArray[np.int64], pa.Table]]) -> pa.Table:
    """Return a shard's products with newer columns in some rows; the others keep what they have of those columns."""
    newer = pa.concat_tables([table for _, table in changed], promote_options="default")
    order = np.arange(len(base))
    order[np.concatenate([rows for rows, _ in changed])] = np.arange(len(newer)) + len(base)
    common = base.select([name for name in newer.column_names if name in base.column_names])
    both = pa.concat_tables([common, newer], promote_options="permissive").select(newer.column_names)
    return both.take(pa.array(order)).combine_chunks()


def changed_shard(build: Build, number: int, shard: Shard, change: ShardChange, first_row: int) -> Shard:
    """Publish the tombstones of a shard and return its record in the new version."""
    tombstones = None
    if len(change.tombstones):
        name = build.path(f"kept-{number:05d}/tombstones.npy")
        build.output.put_if_absent(name, to_npy(change.tombstones))
        tombstones = describe_file(build.output, name)
    products = shard.products if change.products is None else describe_file(build.output, change.products)
    return replace(
        shard,
        first_row=first_row,
        products=products,
        tombstones=tombstones,
        num_tombstones=len(change.tombstones),
    )


def rows_to_add(build: Build, changes: Sequence[ShardChange]) -> list[PartRows]:
    """Return the rows of the embeddings that no shard keeps."""
    sources = []
    for source in all_rows(build.manifest):
        is_new = np.ones(source.num_rows, np.bool_)
        for change in changes:
            is_new[change.kept[source.part]] = False
        rows = np.flatnonzero(is_new)
        if len(rows):
            sources.append(PartRows(source.part, len(rows), rows))
    return sources


def drift_of(base: IndexManifest, updated: IndexManifest, lost_recall: float) -> Drift:
    """Return how far an updated version is from what its index was trained on.

    Args:
        base: the version that was updated.
        updated: the new version.
        lost_recall: recall@10 lost since training, of the kind of query that lost most.
    """
    trained_build = base.build_id if base.drift is None else base.drift.trained_build
    num_trained = base.num_products if base.drift is None else base.drift.num_trained
    own = [shard for shard in updated.shards if shard.keys.path.startswith(f"builds/{trained_build}/")]
    num_kept = sum(shard.num_rows - shard.num_tombstones for shard in own)
    num_added, num_gone = updated.num_products - num_kept, num_trained - num_kept
    share = (num_added + num_gone) / max(num_trained, 1)
    reasons = []
    if share > MAX_DRIFT:
        reasons.append(f"added and gone products are {share:.0%} of those trained on")
    if lost_recall > MAX_RECALL_LOSS:
        reasons.append(f"recall@10 fell by {lost_recall:.3f} since training")
    return Drift(trained_build, num_trained, num_added, num_gone, share, lost_recall, " and ".join(reasons) or None)


def read_array(storage: Storage, name: str) -> NDArray[np.uint8]:
    """Return the array in a .npy file, memory-mapped where it lies on this machine."""
    if storage.is_local:
        mapped: NDArray[np.uint8] = np.load(storage.path(name), mmap_mode="r", allow_pickle=False)
        return mapped
    with storage.open(name) as file:
        array: NDArray[np.uint8] = np.load(file, allow_pickle=False)
        return array
