"""Files of an artefact, on a local disk or in an object store, and the two atomic steps that publish them.

`put_if_absent` and `swap` are the only ways in which anything becomes visible under its final name. On a local
disk they rest on link(2) and rename(2); on an object store on conditional writes (If-None-Match, If-Match).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import posixpath
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.faults import fault_point

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

HASH_CHUNK_BYTES = 1 << 20
STAGING = ".staging"
"""Folder of half-written files at the root of an artefact; nothing in it was ever visible under another name."""
ABANDONED_AFTER_S = 3600.0
"""Age at which a staged file can only belong to a writer that died."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A folder, local or in an object store, that artefacts are written to and read from.

    Pickles as its URI, so that tasks and actors can be given one.
    """

    uri: str
    """Local path or URL such as `s3://bucket/prefix`, without a trailing slash."""

    @classmethod
    def at(cls, uri: str | Path) -> Storage:
        """Return the folder at a local path or URL.

        Args:
            uri: local path (made absolute) or `scheme://...` URL that fsspec knows.

        Raises:
            OptionsError: the scheme is unknown or its driver is not installed.
        """
        text = str(uri)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)))
        storage = cls(text.rstrip("/"))
        storage._file_system()
        return storage

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine's file system."""
        return "://" not in self.uri

    def sub(self, name: str) -> Storage:
        """Return a folder below this one."""
        return Storage(posixpath.join(self.uri, name))

    def path(self, name: str) -> str:
        """Return the full path or URL of a file in this folder."""
        return posixpath.join(self.uri, name)

    def exists(self, name: str) -> bool:
        """Return whether a file or folder of that name is there."""
        return bool(self._file_system().exists(self.path(name)))

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files directly in a folder; empty when there is no such folder."""
        file_system = self._file_system()
        at = self.path(folder) if folder else self.uri
        with contextlib.suppress(FileNotFoundError):
            entries = file_system.ls(at, detail=True)
            return sorted(posixpath.basename(e["name"]) for e in entries if e["type"] == "file")
        return []

    def files_below(self, folder: str) -> list[tuple[str, int, float]]:
        """Return name, size in bytes and time of last change, in seconds since 1970, of all files below a folder."""
        file_system = self._file_system()
        root = file_system._strip_protocol(self.uri).rstrip("/")
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path, entry in file_system.find(self.path(folder), detail=True).items():
                changed = entry.get("mtime") or entry["LastModified"].timestamp()
                found.append((path.removeprefix(f"{root}/"), int(entry["size"]), float(changed)))
        return sorted(found)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            ArtifactError: there is no such file, or it cannot be read.
        """
        try:
            data = self._file_system().cat_file(self.path(name))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.path(name)}: {_reason(error)}", path=self.path(name)) from error
        return bytes(data)

    def read_head(self, name: str, size: int) -> bytes:
        """Return the first bytes of a file that is not empty, in one request.

        Raises:
            ArtifactError: there is no such file, or it cannot be read.
        """
        try:
            return bytes(self._file_system().cat_file(self.path(name), start=0, end=size))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.path(name)}: {_reason(error)}", path=self.path(name)) from error

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading, seekable.

        Raises:
            ArtifactError: there is no such file, or it cannot be read.
        """
        try:
            return self._file_system().open(self.path(name), "rb")  # type: ignore[no-any-return]
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.path(name)}: {_reason(error)}", path=self.path(name)) from error

    def size_bytes(self, name: str) -> int:
        """Return the size of a file in bytes."""
        return int(self._file_system().size(self.path(name)))

    def sha256(self, name: str) -> str:
        """Return the hex SHA-256 of a file's bytes."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def delete(self, name: str) -> None:
        """Delete a file; one that is already gone is fine."""
        with contextlib.suppress(FileNotFoundError):
            self._file_system().rm_file(self.path(name))

    def put_if_absent(self, name: str, data: bytes) -> bool:
        """Publish a whole file under a name that nobody has taken, in one atomic step.

        Args:
            name: file name below this folder; missing folders are made.
            data: the bytes; durable when this returns.

        Returns:
            True when this call created the file, False when it was already there.

        Raises:
            ArtifactError: the file system refuses (rights, no such bucket).
            OSError: the disk is full.
        """
        if not self.is_local:
            fault_point(f"staged {name}")
            is_ours = self._put_object_if_absent(name, data)
            fault_point(f"published {name}")
            return is_ours
        with self._temporary(name, data) as temporary:
            return self._link(name, temporary)

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """Yield a local path to write a file at that is too large for memory; published as by put_if_absent at the end.

        Nothing is published when the block raises, or when somebody else has taken the name.

        Raises:
            ArtifactError: the file system refuses (rights, no such bucket).
            OSError: the disk is full.
        """
        if self.is_local:
            with self._temporary(name, b"") as temporary:
                yield Path(temporary)
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
                self._link(name, temporary)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / posixpath.basename(name)
            yield path
            fault_point(f"staged {name}")
            self._put_object_if_absent(name, path)
            fault_point(f"published {name}")

    def check_atomic(self) -> None:
        """Check that the store refuses a name that is taken; without that, two writers would overwrite one another.

        Raises:
            ArtifactError: it does not, or cannot be written to.
        """
        if self.is_local:
            return  # link(2)
        probe = f"{STAGING}/probe-{uuid.uuid4().hex}"
        try:
            is_refused = self.put_if_absent(probe, b"") and not self.put_if_absent(probe, b"")
        except (NotImplementedError, TypeError, ValueError):
            is_refused = False
        with contextlib.suppress(OSError, NotImplementedError):
            self.delete(probe)
        if not is_refused:
            raise ArtifactError(
                f"{self.uri}: this store has no conditional writes, so results could be lost or mixed; "
                "write to a local or shared folder or to an object store that has them",
                path=self.uri,
            )

    def swap(self, name: str, data: bytes, *, expected: bytes | None) -> bool:
        """Replace a small file only if its bytes are still the expected ones (compare and swap).

        Args:
            name: file name below this folder.
            data: the new bytes.
            expected: the bytes last read; None when the file was absent.

        Returns:
            True when the file now holds `data`, False when somebody else changed it first.
        """
        if expected is None:
            return self.put_if_absent(name, data)
        if not self.is_local:
            return self._swap_object(name, data, expected)
        with _locked(self.path(name) + ".lock"):
            if self.read(name) != expected:
                return False
            with self._temporary(name, data) as temporary:
                os.replace(temporary, self.path(name))
            _sync_folder(os.path.dirname(self.path(name)))
        return True

    def clear_staging(self) -> None:
        """Delete what dead writers left half-written; files young enough to be in progress stay."""
        staging = Path(self.uri) / STAGING
        if not self.is_local or not staging.is_dir():
            return
        for file in staging.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > ABANDONED_AFTER_S:
                    file.unlink()
        with contextlib.suppress(OSError):  # not empty: somebody is writing
            staging.rmdir()

    @contextlib.contextmanager
    def _temporary(self, name: str, data: bytes) -> Iterator[str]:
        """Write bytes, durably, to a hidden file outside every published folder of this one; delete it after."""
        final = Path(self.path(name))
        temporary = Path(self.uri) / STAGING / f"{final.name}.{uuid.uuid4().hex}"
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            file = _create(temporary)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise ArtifactError(f"{final}: cannot write there: {_reason(error)}", path=str(final)) from error
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield str(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def _link(self, name: str, temporary: str) -> bool:
        fault_point(f"staged {name}")
        try:
            os.link(temporary, self.path(name))
        except FileExistsError:
            return False
        fault_point(f"published {name}")
        _sync_folder(os.path.dirname(self.path(name)))
        return True

    def _file_system(self) -> AbstractFileSystem:
        import fsspec

        try:
            # Listings must not be cached: other processes write here.
            return fsspec.core.url_to_fs(self.uri, use_listings_cache=False)[0]
        except (ValueError, ImportError) as error:
            raise OptionsError(f"{self.uri}: {_reason(error)}") from error

    def _put_object_if_absent(self, name: str, data: bytes | Path) -> bool:
        path = self.path(name)
        try:
            if isinstance(data, Path):
                self._file_system().put_file(str(data), path, mode="create")
            else:
                self._file_system().pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if _is_precondition_failure(error):
                return False
            raise ArtifactError(f"{path}: cannot write: {_reason(error)}", path=path) from error
        return True

    def _swap_object(self, name: str, data: bytes, expected: bytes) -> bool:
        file_system, path = self._file_system(), self.path(name)
        etag = file_system.info(path).get("ETag")
        if self.read(name) != expected:
            return False
        if etag is None:
            raise ArtifactError(
                f"{path}: this object store offers no ETag, so an alias cannot be moved safely", path=path
            )
        try:
            file_system.pipe_file(path, data, IfMatch=etag)
        except OSError as error:
            if _is_precondition_failure(error):
                return False
            raise ArtifactError(f"{path}: cannot write: {_reason(error)}", path=path) from error
        return True


def pyarrow_source(storage: Storage, name: str) -> Any:
    """Return what pyarrow's readers take for a file: a memory-mappable path, or an open remote file."""
    return storage.path(name) if storage.is_local else storage.open(name)


def to_buffer(write: Any) -> bytes:
    """Return what `write(file)` wrote to an in-memory file."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _create(path: Path) -> BinaryIO:
    """Create a file; its folder may be cleared away by a finishing job between the two steps, hence the retry."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return path.open("xb")


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    import fcntl

    with Path(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_precondition_failure(error: OSError) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    return code in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
