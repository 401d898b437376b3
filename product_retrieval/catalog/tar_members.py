"""The members of a tar archive, by the bytes where they lie; names are text here, never paths.

Read forwards and in bounded memory whatever the archive claims. Data between headers are not read, so that a local
archive is walked at the speed of its headers. Formats: ustar with the GNU and pax extensions for long names and sizes
(IEEE Std 1003.1, pax, "ustar Interchange Format" and "pax Extended Header"); tarfile decodes the header itself.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from product_retrieval.catalog.gzip_points import Readable

BLOCK_BYTES = tarfile.BLOCKSIZE
MAX_EXTENSION_BYTES = 1 << 20
"""A longer name or pax header is an attack."""
PAX_RECORD = re.compile(rb"\d+ (path|size)=(.*)", re.DOTALL)
NO_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
"""Types after whose header no data follow, whatever size it states."""


class BrokenTarError(Exception):
    """An archive ends too early or holds something that is no member."""


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file in an archive."""

    name: str
    start: int
    """Byte of its first header."""
    data: int
    """Byte of its data."""
    size_bytes: int

    @property
    def stop(self) -> int:
        """Byte at which the next header begins."""
        return self.data + _padded(self.size_bytes)


def iterate_members(file: Readable, start: int, stop: int | None) -> Iterator[Member]:
    """Yield the regular files of an archive in order; links, folders and devices are passed over.

    The file stands at a member's data when it is yielded; it may be read before the next one is asked for.

    Args:
        file: the archive, standing anywhere at or before `start`.
        start: byte of the first header.
        stop: byte after the last member; None reads to the end and makes sure that it is one.

    Raises:
        BrokenTarError: the archive is cut off or damaged.
    """
    position, is_closed = start, False
    while stop is None or position < stop:
        first, name, size_bytes = position, None, None
        while True:
            header = _read(file, position, BLOCK_BYTES)
            position += len(header)
            if len(header) < BLOCK_BYTES:
                if is_closed and not header:
                    return
                raise BrokenTarError(f"cut off at byte {position}: the two empty blocks that end a tar are missing")
            if is_closed := not any(header):  # also between archives that were joined
                break
            info = _parsed(header, position - BLOCK_BYTES)
            if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                extension = _extension(file, position, info.size)
                position += _padded(info.size)
                if info.type == tarfile.GNUTYPE_LONGNAME:
                    name = _text(extension.rstrip(b"\0"))
                else:
                    name, size_bytes = _pax(extension, name, size_bytes)
                continue
            if info.type in (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
                position += _padded(info.size)
                continue
            data = position
            size_bytes = info.size if size_bytes is None else size_bytes
            position += 0 if info.type in NO_DATA else _padded(size_bytes)
            if info.type in tarfile.REGULAR_TYPES:
                _go_to(file, data)
                yield Member(info.name if name is None else name, first, data, size_bytes)
            break


def _read(file: Readable, position: int, size: int) -> bytes:
    return file.read(size) if _go_to(file, position) else b""


def _go_to(file: Readable, position: int) -> bool:
    return file.seek(position) == position


def _parsed(header: bytes, position: int) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
    except (tarfile.HeaderError, ValueError, UnicodeError) as error:
        raise BrokenTarError(f"byte {position} holds no tar header ({error})") from error
    if info.size < 0:
        raise BrokenTarError(f"byte {position} holds a header with a negative size")
    if info.type == tarfile.GNUTYPE_SPARSE:
        raise BrokenTarError(f"byte {position} holds a sparse file, {info.name[:80]!r}; pack it without --sparse")
    return info


def _extension(file: Readable, position: int, size: int) -> bytes:
    if size > MAX_EXTENSION_BYTES:
        raise BrokenTarError(f"byte {position} holds a name of {size} bytes")
    extension = _read(file, position, size)
    if len(extension) < size:
        raise BrokenTarError(f"cut off at byte {position + len(extension)}, within a name")
    return extension


def _pax(extension: bytes, name: str | None, size_bytes: int | None) -> tuple[str | None, int | None]:
    """Return name and size from pax records, `LENGTH KEY=VALUE` each, where they state any."""
    while extension:
        digits = extension.partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 9 else 0
        record = PAX_RECORD.fullmatch(extension[: max(length - 1, 0)])
        if record and record[1] == b"path":
            name = _text(record[2])
        elif record and record[2].isdigit() and len(record[2]) < 19:
            size_bytes = int(record[2])
        extension = extension[length:] if length else b""
    return name, size_bytes


def _text(name: bytes) -> str:
    return name.decode("utf-8", errors="replace")


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
