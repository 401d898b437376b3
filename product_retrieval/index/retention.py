"""Which versions and files of an index nobody needs any more.

Manifests go first, so that nobody opens a version whose files are going. A version that is served, was served or
published a short while ago, or is among the newest stays, and so does every file that a version that stays names:
versions share files. Files that no manifest names belong to a build that is under way or died; only old ones go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from product_retrieval.errors import ArtifactError
from product_retrieval.index.versions import Alias, read_alias, read_manifest, version_name, versions
from product_retrieval.storage import Storage


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may go."""

    versions: tuple[int, ...]
    files: tuple[str, ...]
    size_bytes: int
    """Of the files."""


def find_garbage(storage: Storage, *, keep: int, min_age_s: float, now_s: float) -> Garbage:
    """Find what may go.

    Args:
        storage: the index's folder.
        keep: newest versions that stay whatever their age.
        min_age_s: what was published, served or written more recently stays.
        now_s: the time, in seconds since 1970.

    Raises:
        ArtifactError: the alias or a manifest that stays cannot be read: then nothing is known to be unneeded.
    """
    alias = read_alias(storage)
    present = versions(storage)
    young = {version for version in present if now_s - _created_s(storage, version) < min_age_s}
    stay = {alias.version, *present[max(len(present) - keep, 0) :], *young}
    if now_s - _seconds(alias.moved) < min_age_s:
        stay |= set(alias.history[-1:])  # its readers may still be opening it
    gone = [version for version in present if version not in stay]
    files = _unneeded_files(storage, [version for version in present if version in stay], min_age_s, now_s)
    return Garbage(tuple(gone), tuple(name for name, _ in files), sum(size for _, size in files))


def collect(storage: Storage, garbage: Garbage, *, keep: int, min_age_s: float, now_s: float) -> Garbage:
    """Delete versions, and then the files that no version needs; return what went.

    A version that somebody promotes meanwhile is put back before any file is deleted.
    """
    manifests = {version: storage.read(version_name(version)) for version in garbage.versions}
    for version in garbage.versions:
        storage.delete(version_name(version))
    alias: Alias = read_alias(storage)
    if alias.version in manifests:
        storage.put_if_absent(version_name(alias.version), manifests.pop(alias.version))
    unneeded = find_garbage(storage, keep=keep, min_age_s=min_age_s, now_s=now_s)
    for name in unneeded.files:
        storage.delete(name)
    return Garbage(tuple(manifests), unneeded.files, unneeded.size_bytes)


def _unneeded_files(storage: Storage, stay: Sequence[int], min_age_s: float, now_s: float) -> list[tuple[str, int]]:
    needed = {file.path for version in stay for file in read_manifest(storage, version).files()}
    return [
        (name, size)
        for name, size, changed_s in storage.files_below("builds")
        if name not in needed and now_s - changed_s >= min_age_s
    ]


def _created_s(storage: Storage, version: int) -> float:
    """Return when a version was published; one that cannot be read is as old as can be."""
    try:
        return _seconds(read_manifest(storage, version).created)
    except (ArtifactError, ValueError):
        return 0.0


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
