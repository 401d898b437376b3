"""Rows of a Parquet file, without holding the row groups that they lie in.

pyarrow cannot begin inside a row group: to read its last rows, those before them are decoded and thrown away. That
costs time, not memory: only a buffer and a batch are held. For the share of time see `rows_decoded_per_row`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 1024
LOCAL_BUFFER_BYTES, REMOTE_BUFFER_BYTES = 1 << 20, 8 << 20
"""What one read asks for: a remote one waits for its answer."""


def read_rows(
    source: Any, start: int, stop: int, *, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> pa.Table:
    """Return the rows [start, stop) of a file; fewer where it ends before.

    Args:
        source: path or open file.
        start: first row.
        stop: one past the last.
        columns: names; None takes all.
        batch_rows: rows that are decoded at once.

    Raises:
        pyarrow.ArrowException: the file is broken.
        OSError: the same, or it cannot be read.
    """
    buffer_size = LOCAL_BUFFER_BYTES if isinstance(source, str) else REMOTE_BUFFER_BYTES
    with pq.ParquetFile(source, pre_buffer=False, buffer_size=buffer_size) as parquet:
        groups: list[int] = []
        first = position = 0
        for group in range(parquet.num_row_groups):
            after = first + parquet.metadata.row_group(group).num_rows
            if first < stop and after > start:
                position = position if groups else first
                groups.append(group)
            first = after
        batches = []
        wanted = parquet.iter_batches(batch_rows, row_groups=groups, columns=columns, use_threads=False)
        for batch in wanted if groups else ():
            if position + len(batch) > start:
                batches.append(batch.slice(max(start - position, 0), stop - max(position, start)))
            position += len(batch)
            if position >= stop:
                break
        schema = parquet.schema_arrow
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches(batches, schema).replace_schema_metadata(None)


def rows_decoded_per_row(metadata: pq.FileMetaData, rows_per_part: int) -> float:
    """Return how many rows are decoded for each row of a catalogue that is read in parts.

    A part that begins in the middle of a row group decodes the half before it too: with groups of G rows and parts
    of P, that is about G / 2P for large G, and 1 where every group holds one part or less.
    """
    decoded = 0.0
    for group in range(metadata.num_row_groups):
        num_rows = metadata.row_group(group).num_rows
        decoded += sum(min(stop, num_rows) for stop in range(rows_per_part, num_rows + rows_per_part, rows_per_part))
    return decoded / max(int(metadata.num_rows), 1)
