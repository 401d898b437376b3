"""The steps from a table of a slice's rows to a published part; the serial loop and the Ray job call the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from product_retrieval.catalog import Slice
from product_retrieval.catalog.rejections import Rejection, Stage
from product_retrieval.catalog.slices import SOURCE
from product_retrieval.earlier import Side
from product_retrieval.embeddings import (
    EncodedProducts,
    Part,
    VectorType,
    are_unit_vectors,
    publish_part,
    vector_array,
    vectors_of,
)
from product_retrieval.encoders.protocol import Encoder
from product_retrieval.slice_reader import (
    EARLIER,
    PART,
    PIXELS,
    REJECTION,
    SIDE_PX,
    SIDES,
    SliceReader,
    count_earlier,
    rejections_in,
    written,
)
from product_retrieval.storage import Storage


def encode_table(table: pa.Table, encoder: Encoder, *, batch_size: int, vector_type: VectorType) -> pa.Table:
    """Encode the rows of a slice: the step for the encoder's actors.

    Batches are cut within the slice, so that its vectors do not depend on what else an actor had to do. A product of
    which the encoder makes no finite unit vector is rejected.

    Args:
        table: rows from SliceReader.
        encoder: model of the shared space.
        batch_size: rows in one forward pass.
        vector_type: element type of the stored vectors.

    Returns:
        The rows without pixels, with `image_vector` and `text_vector`; null where a row has no such side.
    """
    is_accepted = pc.is_null(table.column(REJECTION)).to_numpy(zero_copy_only=False)
    vectors: dict[Side, NDArray[np.float32]] = {}
    has: dict[Side, NDArray[np.bool_]] = {}
    for side in SIDES:
        present = table.column(PIXELS if side == "image" else "text")
        has[side] = pc.is_valid(present).to_numpy(zero_copy_only=False) & is_accepted
        vectors[side] = np.zeros((len(table), encoder.fingerprint.dim), np.float32)
        todo = has[side].copy()
        if EARLIER[side] in table.column_names:
            values, rows = vectors_of(table, EARLIER[side])
            vectors[side][rows] = values
            todo[rows] = False
            has[side][rows] = is_accepted[rows]
        rows = np.flatnonzero(todo)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            vectors[side][batch] = _encode(table, batch, encoder, side)
    is_broken = np.zeros(len(table), np.bool_)
    for side in SIDES:
        is_broken |= has[side] & ~are_unit_vectors(vectors[side])
    encoded = _with_rejections(table, is_broken, "encode", "vector_not_finite")
    encoded = encoded.drop_columns([PIXELS, SIDE_PX])
    for side in SIDES:
        array = vector_array(vectors[side], has[side] & ~is_broken, vector_type)
        encoded = encoded.append_column(f"{side}_vector", array)
    return encoded


def _encode(table: pa.Table, rows: NDArray[np.int64], encoder: Encoder, side: Side) -> NDArray[np.float32]:
    """Return float32 [N, D] of some rows that have this side."""
    if side == "text":
        return encoder.encode_texts(table.column("text").take(pa.array(rows)).to_pylist())
    return encoder.encode_images(_pixels(table, rows))


def _pixels(table: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return uint8 [N, S, S, 3] of consecutive rows among those that have pixels, without copying them."""
    column = table.column(PIXELS).combine_chunks()
    first, stop = column.offset + int(rows[0]), column.offset + int(rows[-1]) + 1
    _, offsets, values = column.buffers()
    bounds = np.frombuffer(offsets, np.int64)
    flat = np.frombuffer(values, np.uint8)[bounds[first] : bounds[stop]]  # a null has no bytes
    side_px = table.column(SIDE_PX)[int(rows[0])].as_py()
    return flat.reshape(len(rows), side_px, -1, 3)


def _with_rejections(table: pa.Table, is_rejected: NDArray[np.bool_], stage: Stage, reason: str) -> pa.Table:
    """Return the table with a rejection in some rows that had none."""
    if not is_rejected.any():
        return table
    column = table.column(REJECTION).to_pylist()
    for row in np.flatnonzero(is_rejected).tolist():
        source, product_id = table.column(SOURCE)[row].as_py(), table.column("product_id")[row].as_py()
        column[row] = written(Rejection(source, stage, reason, product_id=product_id))
    at = table.column_names.index(REJECTION)
    return table.set_column(at, REJECTION, pa.array(column, pa.string()))


@dataclass(frozen=True, slots=True)
class PartPublisher:
    """Publishes complete parts: the last step."""

    storage: Storage
    run_id: str

    def __call__(self, table: pa.Table, *, num_rows: int) -> Part:
        """Publish the part that is in a table of encoded rows.

        Args:
            table: from encode_table.
            num_rows: records of the part's slice, from the plan.

        Raises:
            RuntimeError: it came without some of its rows, or with others', which would be our mistake.
        """
        parts = pc.unique(table.column(PART)).to_pylist()
        if len(parts) != 1 or len(table) != num_rows:
            raise RuntimeError(f"got {len(table)} rows of the parts {parts}")
        is_accepted = pc.is_null(table.column(REJECTION))
        products = table.filter(is_accepted)
        earlier = [name for name in EARLIER.values() if name in products.column_names]
        encoded = EncodedProducts(
            part=parts[0],
            products=products.drop_columns([PART, SOURCE, REJECTION, *earlier]),
            rejections=tuple(rejections_in(table)),
            num_reused_images=count_earlier(products, "image"),
            num_reused_texts=count_earlier(products, "text"),
        )
        return publish_part(self.storage, self.run_id, encoded)


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
    parts = []
    for slice_ in slices:
        encoded = encode_table(reader(slice_), encoder, batch_size=batch_size, vector_type=vector_type)
        parts.append(publisher(encoded, num_rows=slice_.num_rows))
    return parts
