"""From a slice of a catalogue to a table that an encoder can take: the step for CPU workers.

The table has a row for each record of the slice, rejected ones too, so that a part is complete when its rows are as
many as its slice's. Columns that start with `__` are ours, the rest are the product's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from product_retrieval.catalog import CatalogPlan, Slice, read_slice
from product_retrieval.catalog.rejections import Rejection, Stage
from product_retrieval.catalog.row_pictures import KEY_BYTES
from product_retrieval.catalog.slices import IMAGE, KNOWN_KEY, SOURCE
from product_retrieval.earlier import EarlierVectors, Side, content_keys
from product_retrieval.embeddings import part_name
from product_retrieval.encoders.protocol import Preparer
from product_retrieval.faults import fault_point
from product_retrieval.images import ImageLimits, decode

PART, SIDE_PX, PIXELS, REJECTION = "__part", "__side_px", "__pixels", "__rejection"
SIDES: tuple[Side, Side] = ("image", "text")
EARLIER: dict[Side, str] = {"image": "__image_earlier", "text": "__text_earlier"}
"""Columns of vectors that are taken over."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What became of a product's picture on its way to the encoder; all fields empty: it has none."""

    prepared: NDArray[np.uint8] | None = None
    """uint8 [S, S, 3]."""
    refusal: tuple[Stage, str, str] | None = None
    """Stage, reason and detail of the rejection."""
    known: bool = False
    """Its vector is an earlier one."""


@dataclass(frozen=True, slots=True)
class SliceReader:
    """Reads a slice and prepares its pictures: the step for CPU workers."""

    plan: CatalogPlan
    """Its slices are not looked at."""
    preparer: Preparer
    limits: ImageLimits
    earlier: EarlierVectors | None = None
    """Vectors that need not be made again."""

    def __call__(self, slice_: Slice) -> pa.Table:
        """Return a row for each record of the slice, with prepared pixels, earlier vectors or a rejection."""
        fault_point(f"read {part_name(slice_.part)}")
        known_keys = None if self.earlier is None else self.earlier.keys_of_references
        sliced = read_slice(self.plan, slice_, known_keys=known_keys)
        table = sliced.table
        images, texts = table.column(IMAGE).to_pylist(), table.column("text").to_pylist()
        keys: dict[Side, pa.Array] = {
            "image": pc.coalesce(table.column(KNOWN_KEY).combine_chunks(), content_keys(images)),
            "text": content_keys(texts),
        }
        known = {} if self.earlier is None else {side: self.earlier.find(side, keys[side]) for side in SIDES}
        is_known = known["image"].is_valid().to_pylist() if known else [False] * len(table)
        pictures = [
            Picture(known=True) if is_known[row] else self._picture(images[row], texts[row])
            for row in range(len(table))
        ]
        return self._table(slice_, table, list(sliced.rejections), pictures, keys, known)

    def _picture(self, image: bytes | None, text: str | None) -> Picture:
        if image is None:
            return Picture() if text is not None else Picture(refusal=("read", "nothing_to_encode", ""))
        decoded = decode(image, self.limits, min_side=self.preparer.min_side)
        if decoded.pixels is None:
            return Picture(refusal=("decode", decoded.reason or "image_not_decodable", decoded.detail))
        return Picture(prepared=self.preparer.prepare_image(decoded.pixels, decoded.box))

    def _table(
        self,
        slice_: Slice,
        table: pa.Table,
        unread: list[Rejection],
        pictures: list[Picture],
        keys: dict[Side, pa.Array],
        known: dict[Side, pa.Array],
    ) -> pa.Table:
        """Join the readable rows with the unread ones, under a schema that is the same for every slice."""
        schema = self.schema()
        sources, ids = table.column(SOURCE).to_pylist(), table.column("product_id").to_pylist()
        refusals = [
            None if picture.refusal is None else written(Rejection(sources[row], *picture.refusal, ids[row]))
            for row, picture in enumerate(pictures)
        ]
        prepared = [picture.prepared for picture in pictures]
        columns = {
            **{name: table.column(name) for name in self._product_columns()},
            **{f"{side}_key": keys[side] for side in SIDES},
            **{EARLIER[side]: vectors for side, vectors in known.items()},
            PART: pa.array([slice_.part] * len(table), pa.int32()),
            SOURCE: table.column(SOURCE),
            SIDE_PX: pa.array([None if one is None else len(one) for one in prepared], pa.int32()),
            PIXELS: pa.array([None if one is None else one.tobytes() for one in prepared], pa.large_binary()),
            REJECTION: pa.array(refusals, pa.string()),
        }
        good = pa.table(columns).select(schema.names).cast(schema)
        bad = pa.Table.from_pylist(
            [{PART: slice_.part, SOURCE: r.source, REJECTION: written(r)} for r in unread], schema
        )
        return pa.concat_tables([good, bad]).combine_chunks()

    def _product_columns(self) -> Iterator[str]:
        yield from ("product_id", "text", "image_ref", *self.plan.attribute_names)

    def schema(self) -> pa.Schema:
        """Return the schema of the tables between the steps."""
        fields = [pa.field(name, pa.string()) for name in ("product_id", "text", "image_ref")]
        fields += [self.plan.schema.field(name) for name in self.plan.attribute_names]
        fields += [pa.field(f"{side}_key", pa.binary(KEY_BYTES)) for side in SIDES]
        if self.earlier is not None:
            fields += [pa.field(EARLIER[side], self.earlier.vector_type) for side in SIDES]
        fields += [pa.field(PART, pa.int32()), pa.field(SOURCE, pa.string()), pa.field(SIDE_PX, pa.int32())]
        fields += [pa.field(PIXELS, pa.large_binary()), pa.field(REJECTION, pa.string())]
        return pa.schema(fields)


def count_earlier(table: pa.Table, side: Side) -> int:
    """Return how many vectors of a slice's table are earlier ones."""
    return len(table) - table.column(EARLIER[side]).null_count if EARLIER[side] in table.column_names else 0


def rejections_in(table: pa.Table) -> list[Rejection]:
    """Return the rejections of a slice's table."""
    return [Rejection(**json.loads(text)) for text in table.column(REJECTION).drop_null().to_pylist()]


def written(rejection: Rejection) -> str:
    """Return a rejection as it stands in its column."""
    return json.dumps(rejection.row())
