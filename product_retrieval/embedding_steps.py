"""The steps from a slice of a catalogue to a published part; the serial loop and the Ray job call the same ones.

Between the steps travels one Arrow table a slice with a row for each record, rejected ones too, so that a part is
complete when its rows are as many as its slice's. Columns that start with `__` are ours, the rest are the product's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from product_retrieval.catalog import CatalogPlan, Slice, read_slice
from product_retrieval.catalog.products import IMAGE, SOURCE, Rejection
from product_retrieval.embeddings import EncodedProducts, Part, VectorType, publish_part, vector_array
from product_retrieval.encoders.protocol import Encoder, Preparer
from product_retrieval.images import ImageLimits, decode
from product_retrieval.storage import Storage

PART, SIDE, PIXELS, REJECTION = "__part", "__side", "__pixels", "__rejection"


@dataclass(frozen=True, slots=True)
class SliceReader:
    """Reads a slice and prepares its pictures: the step for CPU workers."""

    plan: CatalogPlan
    preparer: Preparer
    limits: ImageLimits

    def __call__(self, slice_: Slice) -> pa.Table:
        """Return a row for each record of the slice, with prepared pixels or a rejection."""
        sliced = read_slice(self.plan, slice_)
        table = sliced.table
        sources, ids = table.column(SOURCE).to_pylist(), table.column("product_id").to_pylist()
        texts = table.column("text").to_pylist()
        rejections: list[Rejection | None] = [None] * len(table)
        pixels: list[bytes | None] = [None] * len(table)
        sides: list[int | None] = [None] * len(table)
        for row, data in enumerate(table.column(IMAGE).to_pylist()):
            if data is None:
                if texts[row] is None:
                    rejections[row] = Rejection(sources[row], "read", "nothing_to_encode", "", ids[row])
                continue
            decoded = decode(data, self.limits, min_side=self.preparer.min_side)
            if decoded.pixels is None:
                reason = decoded.reason or "image_not_decodable"
                rejections[row] = Rejection(sources[row], "decode", reason, decoded.detail, ids[row])
                continue
            prepared = self.preparer.prepare_image(decoded.pixels, decoded.box)
            pixels[row], sides[row] = prepared.tobytes(), len(prepared)
        return self._table(slice_, table, list(sliced.rejections), rejections, pixels, sides)

    def _table(
        self,
        slice_: Slice,
        table: pa.Table,
        unread: list[Rejection],
        rejections: list[Rejection | None],
        pixels: list[bytes | None],
        sides: list[int | None],
    ) -> pa.Table:
        """Join the readable rows with the unread ones, under a schema that is the same for every slice."""
        schema = self.schema()
        columns = {
            **{name: table.column(name) for name in [*self._product_columns()]},
            PART: pa.array([slice_.part] * len(table), pa.int32()),
            SOURCE: table.column(SOURCE),
            SIDE: pa.array(sides, pa.int32()),
            PIXELS: pa.array(pixels, pa.large_binary()),
            REJECTION: pa.array([None if r is None else json.dumps(r.row()) for r in rejections], pa.string()),
        }
        good = pa.table(columns).select(schema.names).cast(schema)
        bad = pa.Table.from_pylist(
            [{PART: slice_.part, SOURCE: r.source, REJECTION: json.dumps(r.row())} for r in unread], schema
        )
        return pa.concat_tables([good, bad]).combine_chunks()

    def _product_columns(self) -> Iterator[str]:
        yield from ("product_id", "text", "image_ref", *self.plan.attribute_names)

    def schema(self) -> pa.Schema:
        """Return the schema of the tables between the steps."""
        fields = [pa.field(name, pa.string()) for name in ("product_id", "text", "image_ref")]
        fields += [self.plan.schema.field(name) for name in self.plan.attribute_names]
        fields += [pa.field(PART, pa.int32()), pa.field(SOURCE, pa.string()), pa.field(SIDE, pa.int32())]
        fields += [pa.field(PIXELS, pa.large_binary()), pa.field(REJECTION, pa.string())]
        return pa.schema(fields)


def encode_table(table: pa.Table, encoder: Encoder, *, batch_size: int, vector_type: VectorType) -> pa.Table:
    """Encode the rows of a slice: the step for the encoder's actors.

    Batches are cut within the slice, so that its vectors do not depend on what else an actor had to do.

    Args:
        table: rows from SliceReader.
        encoder: model of the shared space.
        batch_size: rows in one forward pass.
        vector_type: element type of the stored vectors.

    Returns:
        The rows without pixels, with `image_vector` and `text_vector`; null where a row has no such side.
    """
    starts = range(0, max(len(table), 1), batch_size)
    return pa.concat_tables([_encode_batch(table.slice(at, batch_size), encoder, vector_type) for at in starts])


def _encode_batch(table: pa.Table, encoder: Encoder, vector_type: VectorType) -> pa.Table:
    dim = encoder.fingerprint.dim
    is_accepted = pc.is_null(table.column(REJECTION)).to_numpy(zero_copy_only=False)
    has_image = pc.is_valid(table.column(PIXELS)).to_numpy(zero_copy_only=False) & is_accepted
    has_text = pc.is_valid(table.column("text")).to_numpy(zero_copy_only=False) & is_accepted
    images = np.zeros((len(table), dim), np.float32)
    texts = np.zeros((len(table), dim), np.float32)
    if has_image.any():
        images[has_image] = encoder.encode_images(_stack_pixels(table.filter(pa.array(has_image))))
    if has_text.any():
        texts[has_text] = encoder.encode_texts(table.column("text").filter(pa.array(has_text)).to_pylist())
    encoded = table.drop_columns([PIXELS, SIDE])
    encoded = encoded.append_column("image_vector", vector_array(images, has_image, vector_type))
    return encoded.append_column("text_vector", vector_array(texts, has_text, vector_type))


@dataclass(frozen=True, slots=True)
class PartPublisher:
    """Publishes complete parts: the last step."""

    storage: Storage
    run_id: str
    num_rows: dict[int, int]
    """Rows of each part, from the plan."""

    def __call__(self, table: pa.Table) -> Part:
        """Publish the part that is in a table of encoded rows.

        Raises:
            RuntimeError: it came without some of its rows, or with others', which would be our mistake.
        """
        parts = pc.unique(table.column(PART)).to_pylist()
        if len(parts) != 1 or len(table) != self.num_rows[parts[0]]:
            raise RuntimeError(f"got {len(table)} rows of the parts {parts}")
        is_accepted = pc.is_null(table.column(REJECTION))
        rejected = table.filter(pc.invert(is_accepted)).column(REJECTION).to_pylist()
        products = table.filter(is_accepted).drop_columns([PART, SOURCE, REJECTION])
        rejections = tuple(Rejection(**json.loads(record)) for record in rejected)
        return publish_part(self.storage, self.run_id, EncodedProducts(parts[0], products, rejections))


def embed_serially(
    reader: SliceReader,
    encoder: Encoder,
    publisher: PartPublisher,
    *,
    slices: Sequence[Slice],
    batch_size: int,
    vector_type: VectorType,
) -> list[Part]:
    """Embed slices in this process, one after the other: what the Ray job must equal.

    Returns:
        The published parts, in the order of the slices.
    """
    return [
        publisher(encode_table(reader(slice_), encoder, batch_size=batch_size, vector_type=vector_type))
        for slice_ in slices
    ]


def table_to_bytes(table: pa.Table) -> bytes:
    """Return a table as an Arrow IPC stream: how it travels between the steps of a job."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def table_from_bytes(data: bytes) -> pa.Table:
    """Return the table in an Arrow IPC stream."""
    return pa.ipc.open_stream(pa.BufferReader(data)).read_all()


def _stack_pixels(table: pa.Table) -> NDArray[np.uint8]:
    """Return uint8 [N, S, S, 3] of the rows' prepared pictures."""
    side = table.column(SIDE)[0].as_py()
    pixels = table.column(PIXELS).to_pylist()
    return np.frombuffer(b"".join(pixels), np.uint8).reshape(len(pixels), side, -1, 3)
