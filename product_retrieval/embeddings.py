"""Embeddings on disk: Parquet parts with plain fixed-size vectors, a rejected table, and a manifest written last.

    data/part-00000.parquet       product_id, text, image_ref, attributes, and key and vector of picture and text
    rejected/part-00000-*.parquet product_id, source, stage, reason, detail
    run.json                      what the parts are made of; written first
    manifest.json                 names every part with rows, bytes and SHA-256; written last

A part appears whole or not at all, and only once: it is put under its final name by a single put-if-absent, whoever
and how many try. Its Parquet metadata names its run and its rejected file, so a killed job can be finished from
what lies there. D is the dimension of the shared space.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from product_retrieval.catalog.rejections import REJECTION_SCHEMA, Rejection
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage, to_buffer

FORMAT = 1
"""Version of this layout; readers refuse a newer one."""
MANIFEST, RUN = "manifest.json", "run.json"
VECTOR_COLUMNS = ("image_vector", "text_vector")
KEY_COLUMNS = ("image_key", "text_key")
"""What each vector was made of; see earlier.py."""
NORM_TOLERANCE = 2e-3
"""Largest error of a unit vector's length after rounding to float16."""

VectorType = Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Part:
    """One committed part."""

    name: str
    num_products: int
    num_rejected: int
    size_bytes: int
    sha256: str
    rejected_name: str | None
    num_reused_images: int = 0
    """Vectors taken over from earlier embeddings."""
    num_reused_texts: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """A complete set of embeddings."""

    run_id: str
    fingerprint: Fingerprint
    model: str
    vector_type: VectorType
    options: dict[str, Any]
    catalog: dict[str, Any]
    parts: tuple[Part, ...]
    rejected_by_reason: dict[str, int]
    format: int = FORMAT

    @property
    def num_products(self) -> int:
        """Products with at least one vector."""
        return sum(part.num_products for part in self.parts)

    @property
    def num_rejected(self) -> int:
        """Products without vectors."""
        return sum(part.num_rejected for part in self.parts)

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON text."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True, slots=True)
class EncodedProducts:
    """The products of one part, encoded."""

    part: int
    products: pa.Table
    """product_id, text, image_ref, attributes, the two key columns and the two vector columns."""
    rejections: Sequence[Rejection] = field(default_factory=tuple)
    num_reused_images: int = 0
    num_reused_texts: int = 0


def part_name(part: int) -> str:
    """Return the name of a part below the embeddings' folder."""
    return f"data/part-{part:06d}.parquet"


def vector_type_of(vector_type: VectorType, dim: int) -> pa.DataType:
    """Return the Arrow type of a vector column, `fixed_size_list<vector_type>[dim]`."""
    return pa.list_(pa.float16() if vector_type == "float16" else pa.float32(), dim)


def are_unit_vectors(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say of each row of float32 [N, D] whether it is finite and of unit length."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        return np.asarray(np.abs(norms - 1) < NORM_TOLERANCE)  # NaN is not


def vector_array(vectors: NDArray[np.float32], is_valid: NDArray[np.bool_], vector_type: VectorType) -> pa.Array:
    """Return vectors as an Arrow array that any reader understands.

    Args:
        vectors: float32 [N, D]; rows that are not valid are ignored.
        is_valid: bool [N]; False becomes null.
        vector_type: element type in the file.

    Returns:
        `fixed_size_list<vector_type>[D]` of length N.

    Raises:
        ValueError: a valid row is not a finite unit vector.
    """
    if not are_unit_vectors(vectors[is_valid]).all():
        raise ValueError("a vector is not finite or not of unit length")
    arrow_type = vector_type_of(vector_type, vectors.shape[1])
    flat = pa.array(vectors.astype(vector_type).reshape(-1), arrow_type.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(~is_valid))


def vectors_of(table: pa.Table, column: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a vector column without its nulls.

    Args:
        table: rows of a part.
        column: `image_vector` or `text_vector`.

    Returns:
        float32 [M, D] and the int64 [M] rows of `table` that they belong to.
    """
    values = table.column(column).combine_chunks()
    rows = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
    flat = values.filter(values.is_valid()).flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(rows), values.type.list_size), rows.astype(np.int64)


def publish_part(storage: Storage, run_id: str, encoded: EncodedProducts) -> Part:
    """Publish a part under its final name; if it is there already, leave it and return what is there.

    Args:
        storage: the embeddings' folder.
        run_id: what the part is made of; a part of another run is never accepted.
        encoded: the rows.

    Returns:
        The part that is now visible, from this call or an earlier one.

    Raises:
        ArtifactError: the name is taken by another run.
    """
    rejected_name = _publish_rejections(storage, encoded) if encoded.rejections else None
    metadata = {
        "run_id": run_id,
        "part": str(encoded.part),
        "num_rejected": str(len(encoded.rejections)),
        "rejected_name": rejected_name or "",
        "num_reused_images": str(encoded.num_reused_images),
        "num_reused_texts": str(encoded.num_reused_texts),
    }
    table = encoded.products.replace_schema_metadata(metadata)
    name, data = part_name(encoded.part), to_buffer(lambda file: _write_parquet(table, file))
    if storage.put_if_absent(name, data):
        return Part(
            name=name,
            num_products=len(table),
            num_rejected=len(encoded.rejections),
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            rejected_name=rejected_name,
            num_reused_images=encoded.num_reused_images,
            num_reused_texts=encoded.num_reused_texts,
        )
    winner = read_part_record(storage, name, run_id)
    if rejected_name and winner.rejected_name != rejected_name:
        storage.delete(rejected_name)
    return winner


def read_part_record(storage: Storage, name: str, run_id: str) -> Part:
    """Return what a published part says of itself, with its size and SHA-256 as they are on disk.

    Raises:
        ArtifactError: it is of another run, or not readable.
    """
    try:
        with storage.open(name) as file, pq.ParquetFile(file) as parquet:
            metadata = {k.decode(): v.decode() for k, v in (parquet.schema_arrow.metadata or {}).items()}
            num_products = parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{storage.path(name)}: not a readable part; delete it and run again", path=name) from error
    if metadata.get("run_id") != run_id:
        raise ArtifactError(
            f"{storage.path(name)}: belongs to another run (other catalogue, model or options); "
            "choose another --output or delete this one",
            path=name,
        )
    return Part(
        name=name,
        num_products=num_products,
        num_rejected=int(metadata["num_rejected"]),
        size_bytes=storage.size_bytes(name),
        sha256=storage.sha256(name),
        rejected_name=metadata["rejected_name"] or None,
        num_reused_images=int(metadata["num_reused_images"]),
        num_reused_texts=int(metadata["num_reused_texts"]),
    )


def published_parts(storage: Storage) -> set[str]:
    """Return the names of the parts that are there."""
    return {f"data/{name}" for name in storage.names("data") if name.endswith(".parquet")}


def count_reasons(storage: Storage, parts: Sequence[Part]) -> dict[str, int]:
    """Return how many products were rejected for each reason, most frequent first."""
    counts: dict[str, int] = {}
    for name in [part.rejected_name for part in parts if part.rejected_name]:
        with storage.open(name) as file:
            reasons = pq.read_table(file, columns=["reason"]).column("reason")
        for count in pc.value_counts(reasons).to_pylist():
            counts[count["values"]] = counts.get(count["values"], 0) + count["counts"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def sweep_rejections(storage: Storage, parts: Sequence[Part]) -> None:
    """Delete rejected files that no part names: leftovers of writers that died before their part was published."""
    named = {part.rejected_name for part in parts}
    for name in storage.names("rejected"):
        if f"rejected/{name}" not in named:
            storage.delete(f"rejected/{name}")


def read_manifest(storage: Storage) -> Manifest:
    """Read the manifest of a complete set of embeddings.

    Raises:
        ArtifactError: there is none, so nothing there is complete; or it is of a newer format.
    """
    if not storage.exists(MANIFEST):
        raise ArtifactError(f"{storage.uri}: no {MANIFEST}; either no embeddings or not finished: run embed again")
    return parse_manifest(storage.read(MANIFEST), storage.path(MANIFEST))


def parse_manifest(data: bytes, path: str) -> Manifest:
    """Return the manifest in a file's bytes.

    Raises:
        ArtifactError: it is no manifest, or of a newer format.
    """
    try:
        record: Mapping[str, Any] = json.loads(data)
        if record["format"] > FORMAT:
            raise ArtifactError(f"{path}: written by a newer version (format {record['format']})", path=path)
        return Manifest(
            **{
                **record,
                "fingerprint": Fingerprint(**record["fingerprint"]),
                "parts": tuple(Part(**part) for part in record["parts"]),
            }
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{path}: not a manifest of embeddings: {error}", path=path) from error


def read_part(storage: Storage, part: Part, columns: Sequence[str] | None = None, *, verify: bool = True) -> pa.Table:
    """Read the rows of a part.

    Args:
        storage: the embeddings' folder.
        part: from the manifest.
        columns: which to read; None reads all.
        verify: compare size and SHA-256 with the manifest first.

    Raises:
        ArtifactError: the file is missing, or not what the manifest says.
    """
    if verify and storage.sha256(part.name) != part.sha256:
        raise ArtifactError(
            f"{storage.path(part.name)}: SHA-256 differs from the manifest: damaged or replaced",
            path=part.name,
        )
    with storage.open(part.name) as file:
        return pq.read_table(file, columns=None if columns is None else list(columns))


def iterate_parts(storage: Storage, manifest: Manifest, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the verified rows of each part, in order."""
    for part in manifest.parts:
        yield read_part(storage, part, columns)


def _publish_rejections(storage: Storage, encoded: EncodedProducts) -> str:
    name = f"rejected/part-{encoded.part:06d}-{uuid.uuid4().hex[:8]}.parquet"
    table = pa.Table.from_pylist([rejection.row() for rejection in encoded.rejections], REJECTION_SCHEMA)
    storage.put_if_absent(name, to_buffer(lambda file: pq.write_table(table, file, compression="zstd")))
    return name


def _write_parquet(table: pa.Table, file: Any) -> None:
    # Dictionaries make vectors seven times slower to write and larger; byte streams compress their exponents.
    vectors = [f"{name}.list.element" for name in VECTOR_COLUMNS if name in table.column_names]
    text = [name for name in table.column_names if name not in VECTOR_COLUMNS]
    pq.write_table(
        table,
        file,
        compression="zstd",
        use_dictionary=text,
        use_byte_stream_split=vectors,
        write_page_checksum=True,
    )
