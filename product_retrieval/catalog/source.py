"""The files of a catalogue: which kind they are, where they lie, and what tells them from other files."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage

Kind = Literal["parquet", "csv", "jsonl", "folder"]
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
    "folder": (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
}

SIDECAR_SUFFIX = ".txt"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a catalogue."""

    name: str
    """Path relative to the catalogue's root, with `/` between folders."""
    size_bytes: int
    stamp: str
    """ETag of an object, or the time of the last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Source:
    """A catalogue as it lies on disk or in an object store."""

    kind: Kind
    root: Storage
    files: tuple[SourceFile, ...]
    """Sorted by name."""
    sidecars: tuple[SourceFile, ...] = ()
    """Folder catalogues: the texts beside the pictures, sorted by name."""


def find_source(uri: str, kind: Kind | None = None) -> Source:
    """List the files of a catalogue and tell its kind by their suffixes.

    Args:
        uri: a file, a folder or a glob; local or in an object store.
        kind: what the files are; None decides by suffix.

    Returns:
        The catalogue's root folder and its files.

    Raises:
        CatalogError: nothing is there, nothing has a known suffix, or several kinds are mixed.
    """
    root, files = _list_files(uri)
    if kind is None:
        kind = _kind_of(uri, files)
    chosen = tuple(file for file in files if file.name.lower().endswith(SUFFIXES[kind])) or (
        tuple(files) if len(files) == 1 else ()
    )
    if not chosen:
        raise CatalogError(f"{uri}: no {kind} files there (looked for {', '.join(SUFFIXES[kind])})", path=uri)
    sidecars = [file for file in files if file.name.lower().endswith(SIDECAR_SUFFIX)] if kind == "folder" else []
    return Source(kind, root, _by_name(chosen), _by_name(sidecars))


def _by_name(files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    return tuple(sorted(files, key=lambda file: file.name))


def _kind_of(uri: str, files: list[SourceFile]) -> Kind:
    found: list[Kind] = [
        kind for kind, suffixes in SUFFIXES.items() if any(f.name.lower().endswith(suffixes) for f in files)
    ]
    tables = [kind for kind in found if kind != "folder"]
    if len(tables) == 1:  # pictures beside a table are the pictures that it names
        return tables[0]
    if not found:
        known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
        raise CatalogError(f"{uri}: no catalogue there; known files end in {known}; name another with --kind", path=uri)
    if len(tables) > 1:
        raise CatalogError(f"{uri}: holds {' and '.join(tables)} files; name one kind with --kind", path=uri)
    return "folder"


def _list_files(uri: str) -> tuple[Storage, list[SourceFile]]:
    return _list_objects(uri) if "://" in uri.removeprefix("file://") else _list_local(uri.removeprefix("file://"))


def _list_local(path: str) -> tuple[Storage, list[SourceFile]]:
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isdir(path):
        root = path
        found = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
        found = [name for name in found if not _is_hidden(os.path.relpath(name, root))]
    elif os.path.isfile(path):
        root, found = os.path.dirname(path), [path]
    elif matches := [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]:
        root = os.path.commonpath([os.path.dirname(name) for name in matches])
        found = matches
    else:
        raise CatalogError(f"{path}: no such file or folder", path=path)
    files = []
    for name in found:
        status = os.stat(name)
        relative = os.path.relpath(name, root).replace(os.sep, "/")
        files.append(SourceFile(relative, status.st_size, str(status.st_mtime_ns)))
    return Storage.at(root), files


def _list_objects(uri: str) -> tuple[Storage, list[SourceFile]]:
    import fsspec

    storage = Storage.at(uri)
    file_system, path = fsspec.core.url_to_fs(storage.uri)
    try:
        if "*" in path:
            details = file_system.glob(path, detail=True)
        elif file_system.isfile(path):
            details = {path: file_system.info(path)}
        else:
            details = file_system.find(path, detail=True)
    except OSError as error:
        raise CatalogError(f"{uri}: {error}", path=uri) from error
    entries = {name: detail for name, detail in details.items() if detail["type"] == "file"}
    if not entries:
        raise CatalogError(f"{uri}: no such file or folder", path=uri)
    is_single = list(entries) == [path]
    root = posixpath.dirname(path) if is_single or "*" in path else path
    root = (
        posixpath.commonpath([root, *map(posixpath.dirname, entries)])
        if "*" not in root
        else posixpath.commonpath([posixpath.dirname(name) for name in entries])
    )
    files = [
        SourceFile(posixpath.relpath(name, root), int(detail["size"]), str(detail.get("ETag") or detail.get("mtime")))
        for name, detail in entries.items()
        if not _is_hidden(posixpath.relpath(name, root))
    ]
    return Storage.at(file_system.unstrip_protocol(root)), files


def _is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.replace(os.sep, "/").split("/"))
