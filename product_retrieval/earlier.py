"""Vectors of earlier embeddings, found again by the content that they were made of.

Every part keeps, beside each vector, a key of the bytes behind it: BLAKE2b of the picture's file, or of the text. A
product whose picture or text is one that the same model has encoded before gets that vector, whatever its id, row or
price is now. N is the number of keys, M of keys that are looked for.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from product_retrieval.embeddings import KEY_BYTES, published_parts
from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage, pyarrow_source

Side = Literal["image", "text"]

ROW_BITS = 32
"""Of a location, the lower bits are the row in its part and the upper ones the part."""
PARTS_IN_MEMORY = 8
"""Parts whose vectors a reading process keeps, for neighbours of one catalogue are neighbours in the next."""
READ_THREADS = 8


def content_key(content: bytes) -> bytes:
    """Return the 16 bytes that stand for a picture's file or a text's UTF-8."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Where the vector of each key lies; 16 bytes a key, shared by the processes of a machine."""

    prefixes: NDArray[np.uint64]
    """uint64 [N], the first half of each key, ascending."""
    locations: NDArray[np.uint64]
    """uint64 [N], part and row."""

    @classmethod
    def of(cls, parts: Sequence[pa.Array]) -> KeyTable:
        """Build the table.

        Args:
            parts: per part its keys by row, fixed_size_binary[16], null where there is no vector.
        """
        prefixes, locations = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for part, keys in enumerate(parts):
            rows = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False)).astype(np.uint64)
            prefixes.append(_prefixes(keys.drop_null()))
            locations.append(rows | np.uint64(part << ROW_BITS))
        order = np.lexsort((np.concatenate(locations), np.concatenate(prefixes)))
        return cls(np.concatenate(prefixes)[order], np.concatenate(locations)[order])

    def find(self, keys: pa.Array) -> NDArray[np.int64]:
        """Look keys up by their first half.

        Args:
            keys: fixed_size_binary[16] of length M, null where nothing is looked for.

        Returns:
            int64 [M]: the location of the first such key, or of none, -1.
        """
        found = np.full(len(keys), -1, np.int64)
        rows = np.flatnonzero(keys.is_valid().to_numpy(zero_copy_only=False))
        if not len(self.prefixes) or not len(rows):
            return found
        wanted = _prefixes(keys.drop_null())
        at = np.minimum(np.searchsorted(self.prefixes, wanted), len(self.prefixes) - 1)
        is_there = self.prefixes[at] == wanted
        found[rows[is_there]] = self.locations[at[is_there]]
        return found


@dataclass(frozen=True, slots=True)
class EarlierVectors:
    """The vectors of earlier embeddings, to be taken over into new ones."""

    storage: Storage
    parts: tuple[str, ...]
    images: KeyTable
    texts: KeyTable
    vector_type: pa.DataType
    """fixed_size_list<float16 or float32>[D]."""

    @classmethod
    def of(cls, storage: Storage, vector_type: pa.DataType) -> EarlierVectors:
        """Read the keys of all parts that are there; embeddings that were never finished serve as well.

        Args:
            storage: folder of the earlier embeddings.
            vector_type: of their vector columns.

        Raises:
            ArtifactError: a part is damaged.
        """
        names = tuple(sorted(published_parts(storage)))

        def keys(name: str) -> tuple[pa.Array, pa.Array]:
            table = _read_columns(storage, name, ("image_key", "text_key"))
            return table.column("image_key").combine_chunks(), table.column("text_key").combine_chunks()

        with ThreadPoolExecutor(READ_THREADS) as threads:
            found = list(threads.map(keys, names))
        return cls(
            storage=storage,
            parts=names,
            images=KeyTable.of([image for image, _ in found]),
            texts=KeyTable.of([text for _, text in found]),
            vector_type=vector_type,
        )

    def find(self, side: Side, keys: pa.Array) -> pa.Array:
        """Return the vectors of the keys that were encoded before.

        Args:
            side: of pictures or of texts.
            keys: fixed_size_binary[16] of length M, null where nothing is looked for.

        Returns:
            `vector_type` of length M, null where there is none.

        Raises:
            ArtifactError: a part is missing or damaged.
        """
        locations = (self.images if side == "image" else self.texts).find(keys)
        chunks = [pa.nulls(1, self.vector_type)]
        at = np.zeros(len(keys), np.int64)
        length = 1
        parts = np.where(locations < 0, -1, locations >> ROW_BITS)
        for part in np.unique(parts[parts >= 0]).tolist():
            wanted = np.flatnonzero(parts == part)
            vectors, their_keys = _vectors_and_keys(self.storage, self.parts[part], side)
            rows = pa.array(locations[wanted] & ((1 << ROW_BITS) - 1))
            is_same = [a == b for a, b in zip(their_keys.take(rows), keys.take(pa.array(wanted)), strict=True)]
            chunks.append(vectors.take(rows))
            at[wanted] = np.where(is_same, np.arange(length, length + len(rows)), 0)
            length += len(rows)
        return pa.concat_arrays(chunks).take(pa.array(at))


def _prefixes(keys: pa.Array) -> NDArray[np.uint64]:
    """Return the first half of each of some keys without nulls."""
    words = np.frombuffer(b"".join(keys.to_pylist()), "<u8").reshape(-1, KEY_BYTES // 8)
    return np.asarray(words[:, 0], np.uint64)


@functools.lru_cache(maxsize=2 * PARTS_IN_MEMORY)
def _vectors_and_keys(storage: Storage, name: str, side: Side) -> tuple[pa.Array, pa.Array]:
    table = _read_columns(storage, name, (f"{side}_vector", f"{side}_key"))
    return table.column(0).combine_chunks(), table.column(1).combine_chunks()


def _read_columns(storage: Storage, name: str, columns: Sequence[str]) -> pa.Table:
    try:
        with pq.ParquetFile(pyarrow_source(storage, name), page_checksum_verification=True) as parquet:
            return parquet.read(columns=list(columns)).select(list(columns))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ArtifactError(f"{storage.path(name)}: {' '.join(str(error).split())}", path=name) from error
