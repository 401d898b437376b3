"""Versions of an index: immutable files, a manifest put there once, and an alias that moves in one step.

    builds/<build id>/...          files of one build; nobody reads them before a manifest names them
    versions/000001.json           a manifest: names every file with its size and SHA-256
    current.json                   the alias: which version is served

A build id is a hash of what the index is made from, so building the same again finds the version that is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from product_retrieval.embeddings import Manifest
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.index.construction import check, deserialize
from product_retrieval.index.searcher import ProductIndex, SideIndex
from product_retrieval.index.spec import SIDES, OperatingPoint, Side
from product_retrieval.storage import Storage

FORMAT = 1
ALIAS = "current.json"
VERSION_FILE = re.compile(r"(\d{6,})\.json")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a version."""

    path: str
    """Below the index's folder."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SideManifest:
    """One side of a version."""

    factory: str
    reason: str
    num_vectors: int
    index: StoredFile
    vectors: StoredFile
    points: dict[str, OperatingPoint]
    """By kind of query."""


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """A complete version of an index."""

    build_id: str
    fingerprint: Fingerprint
    model: str
    embeddings_uri: str
    embeddings_run_id: str
    catalog: dict[str, Any]
    num_products: int
    dim: int
    options: dict[str, Any]
    sides: dict[Side, SideManifest]
    products: StoredFile
    rows_by_id: StoredFile
    version: int = 0
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON text."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def version_name(version: int) -> str:
    """Return the name of a version's manifest below the index's folder."""
    return f"versions/{version:06d}.json"


def versions(storage: Storage) -> list[int]:
    """Return the versions that are there, ascending."""
    found = [VERSION_FILE.fullmatch(name) for name in storage.names("versions")]
    return [int(name.group(1)) for name in found if name]


def find_build(storage: Storage, build_id: str) -> IndexManifest | None:
    """Return the newest version of a build, or None where it was never published."""
    for version in reversed(versions(storage)):
        manifest = read_manifest(storage, version)
        if manifest.build_id == build_id:
            return manifest
    return None


def publish(storage: Storage, manifest: IndexManifest) -> IndexManifest:
    """Publish a manifest under the next free version.

    Returns:
        The manifest with its version.
    """
    from dataclasses import replace

    version = max(versions(storage), default=0) + 1
    while not storage.put_if_absent(version_name(version), replace(manifest, version=version).to_bytes()):
        version += 1
    return replace(manifest, version=version)


def current_version(storage: Storage) -> int:
    """Return the version that the alias names.

    Raises:
        ArtifactError: nothing was published there.
    """
    if not storage.exists(ALIAS):
        raise ArtifactError(
            f"{storage.uri}: no {ALIAS}; either no index or not finished: run build_index", path=storage.uri
        )
    return _read_alias(storage)["version"]


def _read_alias(storage: Storage) -> dict[str, int]:
    """Return the alias's version and generation.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        record = json.loads(storage.read(ALIAS))
        return {name: int(record[name]) for name in ("version", "generation")}
    except (ValueError, TypeError, KeyError) as error:
        path = storage.path(ALIAS)
        raise ArtifactError(f"{path}: damaged: {error!r}; promote a version to mend it", path=path) from error


def promote(storage: Storage, version: int) -> None:
    """Point the alias at a version.

    Raises:
        ArtifactError: there is no such version, or somebody else moved the alias at the same moment.
    """
    if not storage.exists(version_name(version)):
        raise ArtifactError(f"{storage.uri}: no version {version}; it has {versions(storage)}", path=storage.uri)
    before = storage.read(ALIAS) if storage.exists(ALIAS) else None
    generation = 0 if before is None else _read_alias(storage)["generation"]
    alias = json.dumps({"generation": generation + 1, "version": version}) + "\n"
    if not storage.swap(ALIAS, alias.encode(), expected=before):
        raise ArtifactError(
            f"{storage.uri}: somebody else moved {ALIAS} at the same moment; version {version} is published but not "
            "current",
            path=storage.uri,
        )


def read_manifest(storage: Storage, version: int) -> IndexManifest:
    """Read the manifest of a version.

    Raises:
        ArtifactError: there is no such version, it is damaged, or of a newer format.
    """
    path = storage.path(version_name(version))
    record: Mapping[str, Any] = {}
    try:
        record = json.loads(storage.read(version_name(version)))
        if record["format"] > FORMAT:
            raise ArtifactError(f"{path}: written by a newer version (format {record['format']})", path=path)
        return IndexManifest(
            **{
                **record,
                "fingerprint": Fingerprint(**record["fingerprint"]),
                "sides": {name: _side(side) for name, side in record["sides"].items()},
                "products": StoredFile(**record["products"]),
                "rows_by_id": StoredFile(**record["rows_by_id"]),
            }
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path}: not a manifest of an index: {error}", path=path) from error


def open_index(storage: Storage, version: int | None = None) -> tuple[ProductIndex, IndexManifest]:
    """Open a version for search, after checking every file against its manifest.

    Args:
        storage: the index's folder.
        version: which; None takes the alias's.

    Returns:
        The index, and its manifest.

    Raises:
        ArtifactError: there is no such version, or a file of it is missing or damaged.
    """
    manifest = read_manifest(storage, current_version(storage) if version is None else version)
    return load(storage, manifest), manifest


def load(storage: Storage, manifest: IndexManifest) -> ProductIndex:
    """Load the files that a manifest names, published or not.

    Raises:
        ArtifactError: a file is missing, damaged, or not what the manifest says.
    """
    sides = {}
    for name in SIDES:
        if name not in manifest.sides:
            continue
        side = manifest.sides[name]
        index = deserialize(_verified(storage, side.index))
        check(index, num_vectors=side.num_vectors, dim=manifest.dim)
        sides[name] = SideIndex(
            faiss_index=index,
            vectors=_map_array(storage, side.vectors),
            points=dict(side.points),  # type: ignore[arg-type]
            is_exact=side.factory == "Flat",
        )
    return ProductIndex(
        version=manifest.version,
        sides=sides,
        products=_map_products(storage, manifest.products),
        rows_by_id=_map_array(storage, manifest.rows_by_id),
    )


def describe_file(storage: Storage, path: str) -> StoredFile:
    """Return a file's record for a manifest."""
    return StoredFile(path, storage.size_bytes(path), storage.sha256(path))


def source_of(manifest: Manifest) -> dict[str, Any]:
    """Return what of the embeddings' manifest an index depends on."""
    return {"run_id": manifest.run_id, "parts": [part.sha256 for part in manifest.parts]}


def _side(record: Mapping[str, Any]) -> SideManifest:
    return SideManifest(
        **{
            **record,
            "index": StoredFile(**record["index"]),
            "vectors": StoredFile(**record["vectors"]),
            "points": {kind: OperatingPoint(**point) for kind, point in record["points"].items()},
        }
    )


def _verified(storage: Storage, file: StoredFile) -> bytes:
    """Return a file's bytes; FAISS itself would load flipped bits without a word."""
    import hashlib

    data = storage.read(file.path)
    if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise ArtifactError(
            f"{storage.path(file.path)}: SHA-256 differs from the manifest: damaged or replaced", path=file.path
        )
    return data


def _check_hash(storage: Storage, file: StoredFile) -> None:
    if storage.sha256(file.path) != file.sha256:
        raise ArtifactError(
            f"{storage.path(file.path)}: SHA-256 differs from the manifest: damaged or replaced", path=file.path
        )


def _map_array(storage: Storage, file: StoredFile) -> Any:
    import io

    if not storage.is_local:
        return np.load(io.BytesIO(_verified(storage, file)), allow_pickle=False)
    _check_hash(storage, file)
    return np.load(storage.path(file.path), mmap_mode="r", allow_pickle=False)


def _map_products(storage: Storage, file: StoredFile) -> pa.Table:
    if not storage.is_local:
        return pa.ipc.open_file(pa.BufferReader(_verified(storage, file))).read_all()
    _check_hash(storage, file)
    return pa.ipc.open_file(pa.memory_map(storage.path(file.path))).read_all()
