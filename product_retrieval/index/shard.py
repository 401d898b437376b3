"""A shard of a version, opened: a contiguous range of its products, with everything that belongs to them.

FAISS and the files of a shard know local rows, from 0; only the index knows where the shard stands. Q is the number of
queries, C of candidates, D the dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.index.spec import HNSW_EF, Side


@dataclass(frozen=True, slots=True)
class OpenSide:
    """One side of a shard."""

    faiss_index: Any
    """Its ids are local rows."""
    vectors: NDArray[np.float16]
    """float16 [rows, D], memory-mapped; zeros where the product has no such side."""


@dataclass(frozen=True)
class OpenShard:
    """One shard of a version; safe to share between threads."""

    first_row: int
    """Row in the version of the shard's first product."""
    products: pa.Table
    """One row a product: product_id, text, image_ref and the attributes; memory-mapped."""
    rows_by_id: NDArray[np.int64]
    """Local rows in the order of their product ids."""
    sides: Mapping[Side, OpenSide]
    """Those of which the shard has any vectors."""
    tombstones: NDArray[np.int64]
    """Local rows that this version no longer has, ascending."""

    @property
    def num_rows(self) -> int:
        """Rows, tombstones among them."""
        return len(self.products)

    @cached_property
    def listed(self) -> NDArray[np.bool_]:
        """Which rows belong to this version, bool [rows]."""
        is_listed = np.ones(self.num_rows, np.bool_)
        is_listed[self.tombstones] = False
        return is_listed

    @cached_property
    def listed_bits(self) -> NDArray[np.uint8]:
        """The same, eight rows a byte: packed once, as every search of a shard with tombstones needs it."""
        return pack(self.listed)

    def row_of(self, product_id: str) -> int | None:
        """Return the row in the version of a product, or None where it is not in this shard or no longer."""
        ids = self.products.column("product_id")
        low, high = 0, len(self.rows_by_id)
        while low < high:
            middle = (low + high) // 2
            local = int(self.rows_by_id[middle])
            found = ids[local].as_py()
            if found == product_id:
                return self.first_row + local if self.listed[local] else None
            low, high = (middle + 1, high) if found < product_id else (low, middle)
        return None

    def candidates(
        self,
        side: Side,
        queries: NDArray[np.float32],
        *,
        num_candidates: int,
        num_probes: int,
        allowed: NDArray[np.bool_] | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what FAISS finds.

        Args:
            side: that is searched; the shard has it.
            queries: float32 [Q, D], contiguous.
            num_candidates: C.
            num_probes: lists of an IVF that are scanned.
            allowed: bool [rows]; None allows all.

        Returns:
            FAISS's scores float32 [Q, C], and rows in the version int64 [Q, C]; -1 pads.
        """
        index = self.sides[side].faiss_index
        bits = None if allowed is None else self.listed_bits if allowed is self.listed else pack(allowed)
        parameters = search_parameters(index, num_probes, bits)
        scores, rows = index.search(queries, min(num_candidates, index.ntotal), params=parameters)
        return scores, np.where(rows < 0, -1, rows + self.first_row)


def by_shard(
    shards: Sequence[OpenShard], rows: NDArray[np.int64]
) -> Iterator[tuple[OpenShard, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield each shard that has some of the rows, with their places in `rows` and their local rows.

    Raises:
        IndexError: the version has no such row.
    """
    num_rows = sum(shard.num_rows for shard in shards)
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < num_rows:
        raise IndexError(f"rows are from 0 to {num_rows - 1}, not {int(rows.min())} to {int(rows.max())}")
    numbers = np.searchsorted([shard.first_row for shard in shards], rows, side="right") - 1
    for number in np.unique(numbers).tolist():
        places = np.flatnonzero(numbers == number)
        yield shards[number], places, rows[places] - shards[number].first_row


def stored_vectors(shards: Sequence[OpenShard], rows: NDArray[np.int64], side: Side) -> NDArray[np.float16]:
    """Return stored vectors, float16 [len(rows), D], zeros where a product has no such side.

    Raises:
        IndexError: the version has no such row.
    """
    if len(shards) == 1 and side in shards[0].sides:
        return shards[0].sides[side].vectors[rows]
    (dim,) = {opened.vectors.shape[1] for shard in shards for opened in shard.sides.values()}
    stored = np.zeros((len(rows), dim), np.float16)
    for shard, places, local in by_shard(shards, rows):
        if side in shard.sides:
            stored[places] = shard.sides[side].vectors[local]
    return stored


def pack(is_allowed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask as FAISS's bitmaps have it."""
    return np.packbits(is_allowed, bitorder="little")


def search_parameters(index: Any, num_probes: int, allowed_bits: NDArray[np.uint8] | None) -> Any:
    """Return per-call parameters, so that searches with different ones can share an index."""
    import faiss

    # A bitmap costs nothing beside a scan; a selector of ids does from one row in five on.
    selector = None if allowed_bits is None else faiss.IDSelectorBitmap(allowed_bits)
    ivf = ivf_of(index)
    if ivf is None:
        return faiss.SearchParameters(sel=selector)
    # A FastScan index of FAISS 1.15.1 answers nonsense when it is told to probe more lists than it has.
    probes = min(num_probes, ivf.nlist)
    parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
    if isinstance(faiss.downcast_index(ivf.quantizer), faiss.IndexHNSW):
        # Asked for more lists than its depth, a graph returns wrong ones.
        deep = faiss.SearchParametersHNSW(efSearch=max(HNSW_EF, 2 * probes))
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes, quantizer_params=deep)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=parameters)
    return parameters


def ivf_of(index: Any) -> Any | None:
    """Return the IVF inside an index, or None where there is none."""
    import faiss

    try:
        return faiss.extract_index_ivf(index)
    except RuntimeError:  # FAISS's way of saying that there is none inside
        return None
