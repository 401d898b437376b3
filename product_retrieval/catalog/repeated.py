"""Product ids that occur more than once, found in memory that does not grow with the catalogue.

Each id is reduced to 128 bits of BLAKE2b, so two ids that differ are taken for equal once in 10^20 catalogues of a
thousand million products. Records beyond what memory may hold go to buckets on disk by their first byte, and a
bucket is sorted at a time.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])
DIGEST_BYTES = 16
MAX_RECORDS_IN_MEMORY = 4_000_000
"""96 MB."""
NUM_BUCKETS = 256


class RepeatedIds:
    """Collects the ids of a catalogue in the order of its rows, and tells which rows repeat an earlier one's."""

    def __init__(self, *, max_in_memory: int = MAX_RECORDS_IN_MEMORY) -> None:
        """Start with no rows.

        Args:
            max_in_memory: records, 24 bytes each, that may be held before they go to disk.
        """
        self._max_in_memory = max_in_memory
        self._held: list[NDArray[np.void]] = []
        self._num_held = 0
        self._num_rows = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, ids: pa.Array | pa.ChunkedArray) -> None:
        """Take the ids of the next rows.

        Args:
            ids: strings, or what casts to them; null and empty ids repeat nothing.
        """
        first = self._num_rows
        self._num_rows += len(ids)
        written = [(at, text) for at, text in enumerate(ids.cast(pa.string()).to_pylist(), first) if text]
        records = np.empty(len(written), RECORD)
        digests = b"".join(hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest() for _, text in written)
        words = np.frombuffer(digests, "<u8").reshape(-1, 2)
        records["high"], records["low"] = words[:, 0], words[:, 1]
        records["row"] = [at for at, _ in written]
        self._held.append(records)
        self._num_held += len(records)
        if self._num_held > self._max_in_memory:
            self._spill()

    def rows(self) -> NDArray[np.int64]:
        """Return the rows whose id an earlier row has, ascending, and let go of everything."""
        if self._folder is None:
            found = [_repeated_in(np.concatenate(self._held))] if self._held else []
        else:
            self._spill()
            found = [_repeated_in(bucket) for bucket in self._buckets(Path(self._folder.name))]
            self._folder.cleanup()
        self._held, self._num_held, self._folder = [], 0, None
        return np.sort(np.concatenate([*found, np.empty(0, np.int64)]))

    def _spill(self) -> None:
        """Append what is held to the buckets on disk."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="product-ids-")
        if not self._held:
            return
        records = np.concatenate(self._held)
        bucket_of = (records["high"] % NUM_BUCKETS).astype(np.int64)
        records = records[np.argsort(bucket_of, kind="stable")]
        bounds = np.concatenate([[0], np.cumsum(np.bincount(bucket_of, minlength=NUM_BUCKETS))])
        for bucket in np.flatnonzero(np.diff(bounds)):
            with (Path(self._folder.name) / f"{bucket:03d}").open("ab") as file:
                file.write(records[bounds[bucket] : bounds[bucket + 1]].tobytes())
        self._held, self._num_held = [], 0

    @staticmethod
    def _buckets(folder: Path) -> Iterator[NDArray[np.void]]:
        for file in sorted(folder.iterdir()):
            yield np.fromfile(file, RECORD)


def _repeated_in(records: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the rows of all but the first record of each id."""
    records = records[np.lexsort((records["row"], records["low"], records["high"]))]
    is_same = (records["high"][1:] == records["high"][:-1]) & (records["low"][1:] == records["low"][:-1])
    return np.asarray(records["row"][1:][is_same], np.int64)
