"""The files of a catalogue: which kind they are, where they lie, and what tells them from other files."""

from __future__ import annotations

import glob
import os
import posixpath
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from product_retrieval.catalog.hugging_face import saved_files
from product_retrieval.catalog.kinds import GZIP_SUFFIXES, SIDECAR_SUFFIX, SUFFIXES, Kind
from product_retrieval.catalog.sniffing import EMPTY, HEAD_BYTES, Content, recognise
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage

THREADS = 16
"""Files whose beginnings are looked at together: over a network that is waiting."""


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
    """Sorted by name; those of a saved data set in its own order."""
    sidecars: tuple[SourceFile, ...] = ()
    """Folder catalogues: the texts beside the pictures, sorted by name."""


def find_source(uri: str, kind: Kind | None = None) -> Source:
    """List the files of a catalogue and tell its kind by their suffixes and their first bytes.

    Args:
        uri: a file, a folder or a glob; local or in an object store.
        kind: what the files are; None decides by suffix and, where that says nothing, by content.

    Returns:
        The catalogue's root folder and its files.

    Raises:
        CatalogError: nothing is there, nothing is known, several kinds are mixed, or a file is not what it is called.
    """
    root, files = _list_files(uri)
    is_named = kind is not None
    saved = saved_files(root, files, uri) if kind in (None, "arrow") else None
    found = "arrow" if saved else kind or _kind_by_suffix(uri, files)
    chosen = saved or [file for file in files if found and file.name.lower().endswith(SUFFIXES[found])]
    if chosen and found:
        contents = _contents(root, chosen) if found != "folder" else []
    else:
        found, chosen, contents = _by_content(uri, root, files, kind)
        is_named = True
    for file, content in zip(chosen, contents, strict=False):  # pictures are not looked at yet
        _check_content(root.path(file.name), content, found, is_named=is_named)
    sidecars = [file for file in files if file.name.lower().endswith(SIDECAR_SUFFIX)] if found == "folder" else []
    return Source(found, root, tuple(chosen) if saved else _by_name(chosen), _by_name(sidecars))


def _by_name(files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    return tuple(sorted(files, key=lambda file: file.name))


def _kind_by_suffix(uri: str, files: list[SourceFile]) -> Kind | None:
    found: list[Kind] = [
        kind for kind, suffixes in SUFFIXES.items() if any(f.name.lower().endswith(suffixes) for f in files)
    ]
    tables = [kind for kind in found if kind != "folder"]
    several = found if "webdataset" in found else tables  # a tar names no pictures beside it
    if len(several) > 1:
        raise CatalogError(f"{uri}: holds {' and '.join(several)} files; name one kind with --kind", path=uri)
    return (tables or found or [None])[0]  # pictures beside a table are the pictures that it names


def _by_content(
    uri: str, root: Storage, files: list[SourceFile], kind: Kind | None
) -> tuple[Kind, list[SourceFile], list[Content | None]]:
    """Return kind, files and contents of a catalogue whose suffixes say nothing, or not what was named.

    Text is taken for CSV only where it is the only file: a folder may hold a README.
    """
    contents = _contents(root, files)
    if kind is not None and len(files) == 1:
        return kind, files, contents
    is_single = len(files) == 1
    fitting = [
        (file, content)
        for file, content in zip(files, contents, strict=True)
        if content and content.kind and (content.is_certain or is_single) and kind in (None, content.kind)
    ]
    kinds = sorted({content.kind for _, content in fitting if content.kind})
    if len(kinds) > 1:
        raise CatalogError(f"{uri}: holds {' and '.join(kinds)} files; name one kind with --kind", path=uri)
    if kinds:
        return kinds[0], [file for file, _ in fitting], [content for _, content in fitting]
    if kind is not None:
        raise CatalogError(f"{uri}: no {kind} files there (looked for {', '.join(SUFFIXES[kind])})", path=uri)
    if is_single and contents[0] is not None:
        raise CatalogError(f"{uri}: is {contents[0].description}; {contents[0].advice}", path=uri)
    known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    raise CatalogError(f"{uri}: no catalogue there; known files end in {known}; name another with --kind", path=uri)


def _contents(root: Storage, files: Sequence[SourceFile]) -> list[Content | None]:
    def look(file: SourceFile) -> Content | None:
        return recognise(root.read_head(file.name, HEAD_BYTES) if file.size_bytes else b"")

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(look, files))


def _check_content(path: str, content: Content | None, kind: Kind, *, is_named: bool) -> None:
    """Refuse a file that is not what it is called; who names a kind is believed where that is possible.

    Raises:
        CatalogError: it is something else.
    """
    is_gzip = content is not None and content.is_gzip
    if path.endswith(GZIP_SUFFIXES) and not is_gzip and not is_named and content is not EMPTY:
        raise CatalogError(f"{path}: cannot be read: it is not compressed with gzip, as its name says", path=path)
    if content is None or (content.kind == kind and (is_named or is_gzip == path.endswith(GZIP_SUFFIXES))):
        return
    if content.kind is None and content.is_certain:
        raise CatalogError(f"{path}: is {content.description}; {content.advice}", path=path)
    if content.kind == kind:
        raise CatalogError(f"{path}: is {content.description}; name it {path}.gz or with --kind {kind}", path=path)
    if content.is_certain and not is_named:
        raise CatalogError(f"{path}: is {content.description}; name it with --kind {content.kind}", path=path)


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
