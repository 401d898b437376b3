"""Versions of an index: immutable files, a manifest put there once, and an alias that moves in one step.

A build id is a hash of what the index is made from, so building the same again finds the version that is there.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from product_retrieval.embeddings import Manifest
from product_retrieval.errors import ArtifactError
from product_retrieval.index.manifest import IndexManifest, parse_index_manifest
from product_retrieval.index.opening import load
from product_retrieval.index.searcher import ProductIndex
from product_retrieval.storage import Storage

ALIAS = "current.json"
MAX_HISTORY = 10
"""Versions that the alias remembers, to go back to."""
VERSION_FILE = re.compile(r"(\d{6,})\.json")


def version_name(version: int) -> str:
    """Return the name of a version's manifest below the index's folder."""
    return f"versions/{version:06d}.json"


def versions(storage: Storage) -> list[int]:
    """Return the versions that are there, ascending."""
    found = [VERSION_FILE.fullmatch(name) for name in storage.names("versions")]
    return [int(name.group(1)) for name in found if name]


def find_build(storage: Storage, build_id: str) -> IndexManifest | None:
    """Return the newest version of a build, or None where it was never published, or not in a way that can be read."""
    for version in reversed(versions(storage)):
        with contextlib.suppress(ArtifactError):
            manifest = read_manifest(storage, version)
            if manifest.build_id == build_id:
                return manifest
    return None


def publish(storage: Storage, manifest: IndexManifest) -> IndexManifest:
    """Publish a manifest under the next free version.

    Returns:
        The manifest with its version.
    """
    created = _now()
    version = max(versions(storage), default=0) + 1
    while True:
        published = replace(manifest, version=version, created=created)
        if storage.put_if_absent(version_name(version), published.to_bytes()):
            return published
        version += 1


@dataclass(frozen=True, slots=True)
class Alias:
    """Which version is served."""

    version: int
    generation: int
    """Moves so far."""
    moved: str
    """When it was moved last, UTC, ISO 8601."""
    history: tuple[int, ...]
    """Versions that were served before, the latest last."""
    highest: int
    """The highest that was ever served."""


def read_alias(storage: Storage) -> Alias:
    """Read the alias.

    Raises:
        ArtifactError: nothing was published there, or the alias is damaged.
    """
    if not storage.exists(ALIAS):
        raise ArtifactError(
            f"{storage.uri}: no {ALIAS}; either no index or not finished: run build_index", path=storage.uri
        )
    return _parse_alias(storage, storage.read(ALIAS))


def current_version(storage: Storage) -> int:
    """Return the version that the alias names.

    Raises:
        ArtifactError: nothing was published there, or the alias is damaged.
    """
    return read_alias(storage).version


def promote(storage: Storage, version: int) -> None:
    """Point the alias at a version.

    Raises:
        ArtifactError: there is no such version, or somebody else moved the alias at the same moment.
    """
    before = storage.read(ALIAS) if storage.exists(ALIAS) else None
    if before is None:
        _move(storage, before, Alias(version, 1, _now(), (), version))
        return
    alias = _parse_alias(storage, before)
    history = alias.history if alias.version == version else (*alias.history, alias.version)
    highest = max(version, alias.highest)
    _move(storage, before, Alias(version, alias.generation + 1, _now(), history[-MAX_HISTORY:], highest))


def promote_if_never_served(storage: Storage, version: int) -> None:
    """Point the alias at a version that a killed build published without promoting it.

    One that was served and is not any more was taken back by somebody, and stays so.
    """
    if not storage.exists(ALIAS) or version > read_alias(storage).highest:
        promote(storage, version)


def rollback(storage: Storage) -> int:
    """Point the alias at the version that was served before, and return that.

    Raises:
        ArtifactError: there was none, it was cleaned up, or somebody else moved the alias at the same moment.
    """
    before = storage.read(ALIAS) if storage.exists(ALIAS) else b""
    alias = read_alias(storage)
    if not alias.history:
        raise ArtifactError(f"{storage.uri}: no version was served before {alias.version}", path=storage.uri)
    *earlier, version = alias.history
    _move(storage, before, Alias(version, alias.generation + 1, _now(), tuple(earlier), alias.highest))
    return version


def _move(storage: Storage, before: bytes | None, alias: Alias) -> None:
    if not storage.exists(version_name(alias.version)):
        raise ArtifactError(f"{storage.uri}: no version {alias.version}; it has {versions(storage)}", path=storage.uri)
    after = json.dumps(asdict(alias)) + "\n"
    if not storage.swap(ALIAS, after.encode(), expected=before):
        raise ArtifactError(
            f"{storage.uri}: somebody else moved {ALIAS} at the same moment; version {alias.version} is published but "
            "not current",
            path=storage.uri,
        )


def _parse_alias(storage: Storage, data: bytes) -> Alias:
    try:
        record = json.loads(data)
        history = tuple(int(version) for version in record["history"])
        version, generation, highest = (int(record[name]) for name in ("version", "generation", "highest"))
        return Alias(version, generation, str(record["moved"]), history, highest)
    except (ValueError, TypeError, KeyError) as error:
        path = storage.path(ALIAS)
        remedy = f"delete it and promote a version of {versions(storage)} to mend it"
        raise ArtifactError(f"{path}: damaged: {error!r}; {remedy}", path=path) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_manifest(storage: Storage, version: int) -> IndexManifest:
    """Read the manifest of a version.

    Raises:
        ArtifactError: there is no such version, it is damaged, or of another format.
    """
    name = version_name(version)
    return parse_index_manifest(storage.read(name), storage.path(name))


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


def source_of(manifest: Manifest) -> dict[str, Any]:
    """Return what of the embeddings' manifest an index depends on."""
    return {"run_id": manifest.run_id, "parts": [part.sha256 for part in manifest.parts]}
