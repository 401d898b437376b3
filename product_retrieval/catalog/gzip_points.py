"""Places inside a gzip file at which decompression can begin, so that a part costs its own bytes, not all before it.

Deflate is a chain of blocks (RFC 1951). Whoever knows at which bit a block begins and the 32 KiB of text before it
can begin there. Python's zlib does not say where blocks begin, so a place is guessed from what the header of a block
must look like and then proven: the decompressor, given a final empty block and the checksum at that bit, must agree
that the file ends there. See docs/decisions/0005.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np

from product_retrieval.storage import Storage

SPACING_BYTES = 32 << 20
"""Decompressed bytes between two places: at most a tenth of a second of decompressing that a part did not ask for."""
WINDOW_BYTES = 32 << 10
"""How far deflate refers back (RFC 1951, section 2)."""
CHUNK_BYTES = 64 << 10
GZIP_MAGIC = b"\x1f\x8b"
GZIP = 31
RAW_DEFLATE = -15
"""zlib's `wbits`: with the gzip header and checksum, or without either."""
TRAILER_BYTES = 8
"""Checksum and length after a gzip stream (RFC 1952)."""

HEADER_BITS = 3 + 5 + 5 + 4
MAX_CODE_LENGTHS = 19
NOT_FINAL_OWN_CODES = 0b100
"""A block with codes of its own: final, type, three counts, then 4 to 19 lengths of 3 bits (RFC 1951, 3.2.7)."""
FINAL_EMPTY_BLOCK, EMPTY_BLOCK, EMPTY_BLOCK_BITS = 0b011, 0b010, 10
"""Blocks with fixed codes that hold nothing but their end: three bits, then the seven zeros of the end."""
ODD_EMPTY_BLOCK, ODD_EMPTY_BLOCK_BITS = 0x5AFFF90000000000901C004, 93
"""One more block that holds nothing but its end, with codes of its own; it is here for its odd length."""


@dataclass(frozen=True, slots=True)
class AccessPoint:
    """A place at which decompression can begin."""

    start: int
    """Decompressed bytes before it."""
    byte: int
    bit: int = 0
    """Where it lies in the file; a bit only inside of a deflate stream."""
    window: bytes = b""
    """The text before it, compressed; empty where a gzip header begins."""


class Readable(Protocol):
    """A file that is read forwards: plain, or decompressed on the way."""

    def __enter__(self) -> Readable:
        """Return it."""

    def __exit__(self, *_: Any) -> None:
        """Close it."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""

    def seek(self, position: int, /) -> int:
        """Go to a position, not before the one reached."""


def open_at(storage: Storage, name: str, point: AccessPoint | None) -> Readable:
    """Open a file for reading forwards: as it is, or decompressed from a place on if one is given."""
    file = storage.open(name)
    return file if point is None else InflatedFile(file, point)


def is_gzip(file: BinaryIO) -> bool:
    """Return whether a file is compressed, and leave it at its beginning."""
    file.seek(0)
    head = file.read(len(GZIP_MAGIC))
    file.seek(0)
    return head == GZIP_MAGIC


def point_before(points: Sequence[AccessPoint], start: int) -> AccessPoint | None:
    """Return the last place at or before a decompressed byte; None where the file is not compressed."""
    return points[bisect_right(points, start, key=lambda point: point.start) - 1] if points else None


class InflatedFile:
    """The decompressed bytes of a gzip file from some place on, read forwards in bounded memory."""

    def __init__(
        self,
        file: BinaryIO,
        begin: AccessPoint | None = None,
        *,
        found: list[AccessPoint] | None = None,
        spacing_bytes: int | None = None,
    ) -> None:
        """Begin at a place; without one begin at the beginning, and note places on the way in `found` when given.

        Places are SPACING_BYTES apart unless stated.
        """
        self._file = file
        self._begin = begin or AccessPoint(0, 0)
        self._search = _Search(found, spacing_bytes or SPACING_BYTES) if found is not None else None
        self._chunks = self._inflate()
        self._pending = memoryview(b"")
        self._position = self._begin.start

    def __enter__(self) -> InflatedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tell(self) -> int:
        """Return the position in the decompressed bytes."""
        return self._position

    def seek(self, position: int) -> int:
        """Go forwards to a position, at most to the end, and return where that is.

        Raises:
            ValueError: the position is behind this one.
        """
        if position < self._position:
            raise ValueError(f"cannot go back from byte {self._position} to {position}")
        while self._position < position and self._take(position - self._position):
            pass
        return self._position

    def read(self, size: int) -> bytes:
        """Return the next bytes: as many as asked for, but for the end of the file.

        Raises:
            EOFError: the file ends inside a compressed stream.
            zlib.error: it is damaged or no gzip file.
        """
        pieces = []
        while size and (piece := self._take(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _take(self, size: int) -> memoryview:
        if not self._pending:
            self._pending = memoryview(next(self._chunks, b""))
        piece, self._pending = self._pending[:size], self._pending[size:]
        self._position += len(piece)
        return piece

    def _inflate(self) -> Iterator[bytes]:
        """Yield what the file's streams hold, one after the other; never an empty piece."""
        start, byte = self._begin.start, self._begin.byte
        self._file.seek(byte)
        inflater = self._entered() if self._begin.window else None
        byte += self._begin.bit > 0
        trailer_bytes = TRAILER_BYTES if inflater else 0
        while data := self._file.read(CHUNK_BYTES):
            while data:
                if inflater is None:
                    skipped = min(trailer_bytes, len(data)) or len(data) - len(data.lstrip(b"\0"))  # or padding
                    trailer_bytes -= min(trailer_bytes, skipped)
                    data, byte = data[skipped:], byte + skipped
                    if skipped or not data:
                        continue
                    inflater = zlib.decompressobj(GZIP)
                    if self._search:
                        self._search.begin_stream(AccessPoint(start, byte))
                if self._search:
                    self._search.look_for_block(inflater, data, start, byte)
                plain = inflater.decompress(data)
                byte, data = byte + len(data) - len(inflater.unused_data), inflater.unused_data
                start += len(plain)
                if self._search:
                    self._search.pass_over(plain)
                if inflater.eof:
                    inflater = None
                if plain:
                    yield plain
        if inflater is not None or trailer_bytes:
            raise EOFError("the compressed file ends before its end-of-stream marker")

    def _entered(self) -> zlib._Decompress:
        """Return a decompressor that stands where to begin, the file just behind what it has been given."""
        inflater = zlib.decompressobj(RAW_DEFLATE, zdict=zlib.decompress(self._begin.window))
        if self._begin.bit:
            inflater.decompress(_filled_up(self._file.read(1)[0], self._begin.bit))
        return inflater


class _Search:
    """Looks for places while a file is decompressed from its beginning."""

    def __init__(self, found: list[AccessPoint], spacing_bytes: int) -> None:
        self._found, self._spacing_bytes = found, spacing_bytes
        self._window, self._crc, self._num_bytes = b"", 0, 0

    def begin_stream(self, point: AccessPoint) -> None:
        """Note the place of a gzip header, unless the last place is near."""
        self._window, self._crc, self._num_bytes = b"", 0, 0
        if self._is_due(point.start):
            self._found.append(point)

    def pass_over(self, plain: bytes) -> None:
        """Remember what came out, as far as the next place may depend on it."""
        self._window = (self._window + plain[-WINDOW_BYTES:])[-WINDOW_BYTES:]
        self._crc = zlib.crc32(plain, self._crc)
        self._num_bytes += len(plain)

    def look_for_block(self, inflater: zlib._Decompress, data: bytes, start: int, byte: int) -> None:
        """Note the first block that begins in some compressed bytes, unless the last place is near.

        Args:
            inflater: stands before the bytes; stays there.
            data: the compressed bytes.
            start: decompressed bytes before them.
            byte: position of the first one in the file.
        """
        if not self._is_due(start):
            return
        ahead, taken, plain = inflater.copy(), 0, b""
        for at in _likely_blocks(data):
            index, bit = divmod(at, 8)
            plain += ahead.decompress(data[taken:index])
            taken = index
            if ahead.eof:
                return
            last = self._text_if_ended_here(ahead.copy(), data[index], bit, plain)
            if last is None:
                continue
            window = (self._window + plain + last)[-WINDOW_BYTES:]
            point = AccessPoint(start + len(plain) + len(last), byte + index, bit, zlib.compress(window))
            if window and _goes_on_alike(point, data[index:], ahead, skip=len(last)):
                self._found.append(point)
                return

    def _text_if_ended_here(self, probe: zlib._Decompress, byte: int, bit: int, plain: bytes) -> bytes | None:
        """Return what the bits of a byte before a block add, or None where no block begins."""
        mended = byte & ((1 << bit) - 1) | FINAL_EMPTY_BLOCK << bit
        try:
            last = probe.decompress(mended.to_bytes(-(-(bit + EMPTY_BLOCK_BITS) // 8), "little"))
            crc = zlib.crc32(last, zlib.crc32(plain, self._crc))
            num_bytes = self._num_bytes + len(plain) + len(last)
            probe.decompress(struct.pack("<II", crc, num_bytes & 0xFFFF_FFFF))
        except zlib.error:
            return None
        return last if probe.eof and not probe.unused_data else None

    def _is_due(self, start: int) -> bool:
        return not self._found or start >= self._found[-1].start + self._spacing_bytes


def _likely_blocks(data: bytes) -> list[int]:
    """Return the bits at which the header of a block with codes of its own could stand (RFC 1951, section 3.2.7)."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    num = len(bits) - HEADER_BITS - 3 * MAX_CODE_LENGTHS - 3
    if num <= 0:
        return []
    threes = bits[:-2] | bits[1:-1] << 1 | bits[2:] << 2
    at = np.flatnonzero(threes[:num] == NOT_FINAL_OWN_CODES)
    num_literals, num_distances = (threes[at + k] | (threes[at + k + 3] & 3) << 3 for k in (3, 8))
    at = at[(num_literals < 30) & (num_distances < 30)]
    num_lengths = 4 + (threes[at + 13] | bits[at + 16] << 3)
    share = np.zeros(len(at), np.int64)
    for k in range(MAX_CODE_LENGTHS):
        length = threes[at + HEADER_BITS + 3 * k]
        share += np.where((length > 0) & (k < num_lengths), 128 >> length.astype(np.int64), 0)
    return at[share == 128].tolist()  # type: ignore[no-any-return]


def _goes_on_alike(point: AccessPoint, data: bytes, ahead: zlib._Decompress, *, skip: int) -> bool:
    """Return whether decompression from a place gives what it gives from the beginning."""
    entered = zlib.decompressobj(RAW_DEFLATE, zdict=zlib.decompress(point.window))
    first = _filled_up(data[0], point.bit) if point.bit else data[:1]
    try:
        return entered.decompress(first + data[1:]) == ahead.copy().decompress(data)[skip:]
    except zlib.error:
        return False


def _filled_up(byte: int, bit: int) -> bytes:
    """Return bytes whose last holds the upper bits of a byte, from `bit` on, and before them blocks of nothing."""
    filled, num_bits = (ODD_EMPTY_BLOCK, ODD_EMPTY_BLOCK_BITS) if bit % 2 else (0, 0)
    while num_bits % 8 != bit:
        filled, num_bits = filled | EMPTY_BLOCK << num_bits, num_bits + EMPTY_BLOCK_BITS
    return (filled | byte >> bit << num_bits).to_bytes(num_bits // 8 + 1, "little")
