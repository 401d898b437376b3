"""The embedding job as a Ray Data pipeline: read and prepare on CPU workers, encode on actors, publish parts.

A row of the data set is a whole part from its reader to its publisher, as an Arrow IPC stream: Ray Data cuts and
joins blocks of rows, and a part that keeps together is encoded in the same batches whenever it is encoded.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from product_retrieval.catalog import Slice
from product_retrieval.embedding_steps import PartPublisher, encode_table
from product_retrieval.embeddings import Part, VectorType, part_name
from product_retrieval.encoders import EncoderOptions, load_encoder
from product_retrieval.faults import fault_point
from product_retrieval.slice_reader import PART, SliceReader
from rayjobs.encoder_pool import EncoderPool

READ_CPUS = 0.5
"""Logical CPUs of a reading task: not the encoder's, so that Ray Data keeps the two apart and they overlap."""
PUBLISH_CPUS = 0.25
PARTS_AT_A_GPU = 2
"""While one is encoded, the next is fetched and the last handed on; on a CPU there are as many as threads."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What an encoder's actor is given."""

    options: EncoderOptions
    vector_type: VectorType


def run_pipeline(
    slices: Sequence[Slice], reader: SliceReader, encoding: Encoding, publisher: PartPublisher, pool: EncoderPool
) -> Iterator[Part]:
    """Embed slices on the connected cluster.

    Args:
        slices: what to embed.
        reader: of their catalogue.
        encoding: the model.
        publisher: of the output.
        pool: the encoders that the cluster carries.

    Yields:
        Parts as they are published, in any order.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told once, by the command
    sliced = ray.data.from_items([{"slice": pickle.dumps(each)} for each in slices], override_num_blocks=len(slices))
    published = (
        sliced.map_batches(ReadStep(reader), batch_size=1, batch_format="pyarrow", num_cpus=READ_CPUS)
        .map_batches(
            EncodeStep,
            fn_constructor_args=(encoding, pool.threads_per_actor is not None),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=pool.min_actors,
                max_size=pool.max_actors,
                max_concurrent_calls_per_actor=pool.threads_per_actor or PARTS_AT_A_GPU,
                enable_true_multi_threading=pool.threads_per_actor is not None,
            ),
            num_cpus=1,
            num_gpus=pool.gpus_per_actor,
        )
        .map_batches(PublishStep(publisher), batch_size=1, batch_format="pyarrow", num_cpus=PUBLISH_CPUS)
    )
    for row in published.iter_rows():
        yield pickle.loads(row["part"])


@dataclass(frozen=True, slots=True)
class ReadStep:
    """Ray Data's face of SliceReader: a slice in, the table of its rows out."""

    reader: SliceReader

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Read a slice."""
        slice_: Slice = pickle.loads(batch.column("slice")[0].as_py())
        return packed(self.reader(slice_), slice_.num_rows)


class EncodeStep:
    """An actor that holds the model; on a CPU, each of its threads encodes a part of its own.

    Threads that share a batch wait for the slowest of them at every layer, so that a reader on one of two cores halves
    the speed of both; and a vector's last bits depend on their number.
    """

    def __init__(self, encoding: Encoding, is_on_cpu: bool) -> None:
        """Load the model."""
        self._encoder = load_encoder(encoding.options)
        self._batch_size = encoding.options.batch_size
        self._vector_type = encoding.vector_type
        if is_on_cpu:
            self._encoder.limit_threads(1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode the rows of a part."""
        table, num_rows = unpacked(batch)
        fault_point(f"encode {part_name(table.column(PART)[0].as_py())}")
        encoded = encode_table(table, self._encoder, batch_size=self._batch_size, vector_type=self._vector_type)
        return packed(encoded, num_rows)


@dataclass(frozen=True, slots=True)
class PublishStep:
    """Ray Data's face of PartPublisher: an encoded part in, its record out."""

    publisher: PartPublisher

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Publish a part."""
        table, num_rows = unpacked(batch)
        return pa.table({"part": [pickle.dumps(self.publisher(table, num_rows=num_rows))]})


def packed(table: pa.Table, num_rows: int) -> pa.Table:
    """Return a part as one row of a data set: its table as an IPC stream, and how many rows it must have."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = sink.getvalue()
    bounds = pa.py_buffer(np.array([0, stream.size], np.int64))
    cell = pa.Array.from_buffers(pa.large_binary(), 1, [None, bounds, stream])  # without a copy of the pixels
    return pa.table({"table": cell, "num_rows": [num_rows]})


def unpacked(batch: pa.Table) -> tuple[pa.Table, int]:
    """Return what `packed` was given, over the same memory."""
    stream = batch.column("table")[0].as_buffer()
    return pa.ipc.open_stream(stream).read_all(), batch.column("num_rows")[0].as_py()
