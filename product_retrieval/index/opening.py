"""From the files that a manifest names to an index that answers; every file is compared with the manifest first.

FAISS loads flipped bits without a word, crashes on some truncated files, and reserves whatever memory a damaged header
asks for, so it sees only bytes whose SHA-256 is right.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.errors import ArtifactError
from product_retrieval.index.construction import check, deserialize, is_mappable, read_index_file
from product_retrieval.index.manifest import IndexManifest, Shard, StoredFile
from product_retrieval.index.searcher import ProductIndex, SearchedSide
from product_retrieval.index.shard import OpenShard, OpenSide
from product_retrieval.storage import Storage


def load(storage: Storage, manifest: IndexManifest) -> ProductIndex:
    """Load the files that a manifest names, published or not.

    Raises:
        ArtifactError: a file is missing, damaged, or not what the manifest says.
    """
    return ProductIndex(
        version=manifest.version,
        dim=manifest.dim,
        sides={
            name: SearchedSide(points=dict(side.points), is_exact=side.factory == "Flat")
            for name, side in manifest.sides.items()
        },
        shards=tuple(load_shard(storage, manifest, shard) for shard in manifest.shards),
    )


def load_shard(storage: Storage, manifest: IndexManifest, shard: Shard) -> OpenShard:
    """Load one shard of a version.

    Raises:
        ArtifactError: a file is missing, damaged, or not what the manifest says.
    """
    sides = {}
    for name, side in shard.sides.items():
        index = _load_faiss(storage, side.index, manifest.sides[name].factory)
        check(index, num_vectors=side.num_vectors, dim=manifest.dim)
        vectors = _map_array(storage, side.vectors)
        if vectors.shape != (shard.num_rows, manifest.dim):
            raise ArtifactError(f"{side.vectors.path}: holds {vectors.shape}, not {(shard.num_rows, manifest.dim)}")
        sides[name] = OpenSide(index, vectors)
    none = np.empty(0, np.int64)
    return OpenShard(
        first_row=shard.first_row,
        products=_map_products(storage, shard.products),
        rows_by_id=_map_array(storage, shard.rows_by_id),
        sides=sides,
        tombstones=none if shard.tombstones is None else _map_array(storage, shard.tombstones),
    )


def resident_bytes(storage: Storage, manifest: IndexManifest) -> int:
    """Return how much memory an opened version takes that cannot be given back: all that is not mapped from a disk."""
    if not storage.is_local:
        return sum(file.size_bytes for file in manifest.files())
    return sum(
        side.index.size_bytes
        for shard in manifest.shards
        for name, side in shard.sides.items()
        if not is_mappable(manifest.sides[name].factory)
    )


def read_verified(storage: Storage, file: StoredFile) -> bytes:
    """Return a file's bytes.

    Raises:
        ArtifactError: the file is missing, or not what the manifest says.
    """
    data = storage.read(file.path)
    if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise _is_damaged(storage, file)
    return data


def _load_faiss(storage: Storage, file: StoredFile, factory: str) -> Any:
    if not storage.is_local:
        return deserialize(read_verified(storage, file))
    _check_hash(storage, file)
    return read_index_file(storage.path(file.path), file.size_bytes, is_mapped=is_mappable(factory))


def _check_hash(storage: Storage, file: StoredFile) -> None:
    if storage.sha256(file.path) != file.sha256:
        raise _is_damaged(storage, file)


def _is_damaged(storage: Storage, file: StoredFile) -> ArtifactError:
    return ArtifactError(
        f"{storage.path(file.path)}: SHA-256 differs from the manifest: damaged or replaced", path=file.path
    )


def _map_array(storage: Storage, file: StoredFile) -> NDArray[Any]:
    if not storage.is_local:
        array: NDArray[Any] = np.load(io.BytesIO(read_verified(storage, file)), allow_pickle=False)
        return array
    _check_hash(storage, file)
    mapped: NDArray[Any] = np.load(storage.path(file.path), mmap_mode="r", allow_pickle=False)
    return mapped


def _map_products(storage: Storage, file: StoredFile) -> pa.Table:
    if not storage.is_local:
        return pa.ipc.open_file(pa.BufferReader(read_verified(storage, file))).read_all()
    _check_hash(storage, file)
    return pa.ipc.open_file(pa.memory_map(storage.path(file.path))).read_all()
