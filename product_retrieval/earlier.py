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
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from product_retrieval.catalog.row_pictures import KEY_BYTES
from product_retrieval.embeddings import published_parts
from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage, pyarrow_source

Side = Literal["image", "text"]

ROW_BITS = 32
"""Of a location, the lower bits are the row in its part and the upper ones the part."""
PARTS_IN_MEMORY = 8
"""Parts whose vectors a reading process keeps, for neighbours of one catalogue are neighbours in the next."""
READ_THREADS = 8
INSIDE_FILE = "#"
"""In the reference of a picture that is kept inside another file: its row there says nothing about its content."""


def content_key(content: bytes) -> bytes:
    """Return the 16 bytes that stand for a picture's file or a text's UTF-8."""
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def content_keys(contents: Sequence[bytes | str | None]) -> pa.Array:
    """Return the keys of pictures' files or of texts, fixed_size_binary[16], null where there is nothing."""
    encoded = [each.encode() if isinstance(each, str) else each for each in contents]
    return pa.array([None if each is None else content_key(each) for each in encoded], pa.binary(KEY_BYTES))


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
    references: KeyTable | None = None
    """By path or URL, for pictures that are not read again; None: every picture is."""

    @classmethod
    def of(cls, storage: Storage, vector_type: pa.DataType, *, trust_references: bool = False) -> EarlierVectors:
        """Read the keys of all parts that are there; embeddings that were never finished serve as well.

        Args:
            storage: folder of the earlier embeddings.
            vector_type: of their vector columns.
            trust_references: whether equal paths and URLs are taken for equal pictures.

        Raises:
            ArtifactError: a part is damaged.
        """
        names = tuple(sorted(published_parts(storage)))
        columns = ["image_key", "text_key", *(["image_ref", "image_vector"] if trust_references else [])]

        def keys(name: str) -> tuple[pa.Array, ...]:
            table = _read_columns(storage, name, columns)
            found = table.column("image_key").combine_chunks(), table.column("text_key").combine_chunks()
            return (*found, _reference_keys(table)) if trust_references else found

        with ThreadPoolExecutor(READ_THREADS) as threads:
            found = list(threads.map(keys, names))
        return cls(
            storage=storage,
            parts=names,
            images=KeyTable.of([keys[0] for keys in found]),
            texts=KeyTable.of([keys[1] for keys in found]),
            vector_type=vector_type,
            references=KeyTable.of([keys[2] for keys in found]) if trust_references else None,
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
        vectors, theirs = self._rows(locations, (f"{side}_vector", f"{side}_key"), (self.vector_type, keys.type))
        return _where_equal(vectors, theirs, keys)

    def keys_of_references(self, references: Sequence[str]) -> list[bytes | None]:
        """Return the picture keys of paths and URLs that are trusted to lead to what they led to before.

        Args:
            references: M paths or URLs.

        Returns:
            M keys, None where the picture must be read.

        Raises:
            ArtifactError: a part is missing or damaged.
        """
        if self.references is None:
            return [None] * len(references)
        wanted = pa.array(references, pa.string())
        locations = self.references.find(content_keys(references))
        types = (pa.binary(KEY_BYTES), pa.string())
        keys, theirs = self._rows(locations, ("image_key", "image_ref"), types)
        found: list[bytes | None] = _where_equal(keys, theirs, wanted).to_pylist()
        return found

    def _rows(
        self, locations: NDArray[np.int64], columns: Sequence[str], types: Sequence[pa.DataType]
    ) -> list[pa.Array]:
        """Return some columns of the rows at M locations, null where a location is -1."""
        chunks = [[pa.nulls(1, each)] for each in types]
        at = np.zeros(len(locations), np.int64)
        length = 1
        parts = np.where(locations < 0, -1, locations >> ROW_BITS)
        for part in np.unique(parts[parts >= 0]).tolist():
            wanted = np.flatnonzero(parts == part)
            rows = pa.array(locations[wanted] & ((1 << ROW_BITS) - 1))
            for chunk, column in zip(chunks, _columns_of(self.storage, self.parts[part], tuple(columns)), strict=True):
                chunk.append(column.take(rows))
            at[wanted] = np.arange(length, length + len(wanted))
            length += len(wanted)
        return [pa.concat_arrays(chunk).take(pa.array(at)) for chunk in chunks]


def _where_equal(values: pa.Array, theirs: pa.Array, ours: pa.Array) -> pa.Array:
    """Return the values of the rows whose keys are the same, null elsewhere."""
    is_same = pc.fill_null(pc.equal(theirs, ours), False).to_numpy(zero_copy_only=False)
    return values.take(pa.array(np.arange(len(values)), mask=~is_same))


def _reference_keys(table: pa.Table) -> pa.Array:
    """Return keys of the references of a part's pictures, null where there is no vector or the picture has no file."""
    has_file = pc.invert(pc.match_substring(table.column("image_ref"), INSIDE_FILE))
    is_trusted = pc.and_kleene(has_file, pc.is_valid(table.column("image_vector")))
    return content_keys(pc.if_else(is_trusted, table.column("image_ref"), None).to_pylist())


def _prefixes(keys: pa.Array) -> NDArray[np.uint64]:
    """Return the first half of each of some keys without nulls."""
    words = np.frombuffer(b"".join(keys.to_pylist()), "<u8").reshape(-1, KEY_BYTES // 8)
    return np.asarray(words[:, 0], np.uint64)


@functools.lru_cache(maxsize=3 * PARTS_IN_MEMORY)
def _columns_of(storage: Storage, name: str, columns: tuple[str, ...]) -> list[pa.Array]:
    table = _read_columns(storage, name, columns)
    return [table.column(column).combine_chunks() for column in columns]


def _read_columns(storage: Storage, name: str, columns: Sequence[str]) -> pa.Table:
    try:
        with pq.ParquetFile(pyarrow_source(storage, name), page_checksum_verification=True) as parquet:
            return parquet.read(columns=list(columns)).select(list(columns))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ArtifactError(f"{storage.path(name)}: {' '.join(str(error).split())}", path=name) from error
