"""A folder of clip-retrieval made into embeddings, block by block: what build_index then reads like any other.

D is the dimension of the shared space, N the products of a block.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.catalog.parquet_rows import read_rows
from product_retrieval.catalog.rejections import Rejection
from product_retrieval.clip_folder import CAPTION, IMAGE_PATH, SIDE_FOLDERS, Block, ClipFolder
from product_retrieval.earlier import content_keys
from product_retrieval.embeddings import (
    MANIFEST,
    RUN,
    EncodedProducts,
    Manifest,
    Part,
    count_reasons,
    part_name,
    publish_part,
    published_parts,
    read_part_record,
    sweep_rejections,
    vector_array,
)
from product_retrieval.encoders.protocol import Encoder, Fingerprint
from product_retrieval.errors import ArtifactError, EncoderError
from product_retrieval.npy_rows import read_vectors
from product_retrieval.storage import Storage, pyarrow_source

logger = logging.getLogger(__name__)

OURS = ("product_id", "text", "image_ref", "image_key", "text_key", "image_vector", "text_vector")
RENAMED = "metadata_"
"""Before the name of a column of the folder that is called like one of ours."""
MAX_THREADS = 8
CHECKED_CAPTIONS = 64
SAME_MODEL = 0.98
"""Least median similarity of captions encoded again: half precision moves a vector by less than 0.001, and vectors of
other weights have next to nothing in common."""


def import_folder(folder: ClipFolder, output: Storage, fingerprint: Fingerprint, *, num_checked: int) -> Manifest:
    """Publish a folder's products as embeddings; parts of a killed import are kept.

    Args:
        folder: what to read.
        output: an empty folder, or one with a part of this import.
        fingerprint: of the model that made the vectors.
        num_checked: captions by which that was checked.

    Raises:
        ArtifactError: a file was changed or cannot be read, or no product has a vector.
    """
    output.put_if_absent(RUN, folder.record)
    published = published_parts(output)

    def publish(block: Block) -> Part:
        name = part_name(block.part)
        if name in published:
            return read_part_record(output, name, folder.run_id)
        return publish_part(output, folder.run_id, read_block(folder, block, fingerprint.dim))

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as threads:
        parts = tuple(threads.map(publish, folder.blocks))
    if not any(part.num_products for part in parts):
        raise ArtifactError(f"{folder.source.uri}: no product has an id and a vector", path=folder.source.uri)
    manifest = Manifest(
        run_id=folder.run_id,
        fingerprint=fingerprint,
        model=str(folder.options.model),
        vector_type="float16",
        options=asdict(folder.options),
        catalog={
            "uri": folder.source.uri,
            "kind": "clip-retrieval",
            "root": folder.source.uri,
            "image_root": folder.options.image_root or "",
            "image_column": "",
            "num_products": sum(block.num_rows for block in folder.blocks),
            "captions_checked": num_checked,
        },
        parts=parts,
        rejected_by_reason=count_reasons(output, parts),
    )
    sweep_rejections(output, parts)
    output.clear_staging()
    output.put_if_absent(MANIFEST, manifest.to_bytes())
    return manifest


def read_block(folder: ClipFolder, block: Block, dim: int) -> EncodedProducts:
    """Read the products of a block.

    A vector that is zero or not finite is left out; a product without an id, of an id that an earlier one has, or
    without any vector is rejected.

    Raises:
        ArtifactError: a file cannot be read, or ends too soon.
    """
    metadata = _read_metadata(folder, block)
    vectors = {side: np.zeros((block.num_rows, dim), np.float32) for side in SIDE_FOLDERS}
    has = {side: np.zeros(block.num_rows, np.bool_) for side in SIDE_FOLDERS}
    for side, file in block.files.vectors.items():
        vectors[side], has[side] = unit_rows(read_vectors(folder.source, file, block.start, block.num_rows))
    sources = [f"{block.files.metadata}:{block.start + row}" for row in range(block.num_rows)]
    ids = sources if folder.id_column is None else metadata.column(folder.id_column).cast(pa.string()).to_pylist()
    rejections = []
    for row, product_id in enumerate(ids):
        if not product_id:
            rejections.append(Rejection(sources[row], "read", "missing_id"))
        elif row in block.repeated:
            rejections.append(Rejection(sources[row], "read", "repeated_id", product_id=product_id))
        elif not any(has[side][row] for side in SIDE_FOLDERS):
            rejections.append(Rejection(sources[row], "encode", "vector_not_finite", product_id=product_id))
    refused = {rejection.source for rejection in rejections}
    good = np.array([row for row, source in enumerate(sources) if source not in refused], np.int64)
    columns = {"product_id": pa.array(ids, pa.string()), **_product_columns(folder, metadata)}
    for side in SIDE_FOLDERS:
        halves = vectors[side].astype(np.float16)
        keys = [halves[row].tobytes() if there else None for row, there in enumerate(has[side])]
        columns[f"{side}_key"] = content_keys(keys)
        columns[f"{side}_vector"] = vector_array(vectors[side], has[side], "float16")
    return EncodedProducts(block.part, pa.table(columns).take(pa.array(good)), tuple(rejections))


def unit_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return float32 [N, D] brought to unit length, and bool [N], which rows have one; the others become zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    has = np.isfinite(norms) & (norms > 0)
    unit = np.zeros_like(vectors)
    unit[has] = vectors[has] / norms[has, None]
    return unit, has


def check_made_by(folder: ClipFolder, encoder: Encoder) -> int:
    """Encode captions again, and compare them with the vectors that they have in the folder.

    Returns:
        How many were compared; 0 where the folder has no captions with vectors, so that the model is only stated.

    Raises:
        EncoderError: the vectors are another model's.
    """
    block = folder.blocks[0] if folder.blocks else None
    if block is None or "text" not in block.files.vectors or CAPTION not in folder.schema.names:
        logger.warning("model_not_checked folder=%s model=%s", folder.source.uri, folder.options.model)
        return 0
    captions = _read_metadata(folder, block).column(CAPTION).to_pylist()
    vectors, has = unit_rows(read_vectors(folder.source, block.files.vectors["text"], block.start, block.num_rows))
    rows = [row for row, caption in enumerate(captions) if has[row] and isinstance(caption, str) and caption.strip()]
    rows = rows[:CHECKED_CAPTIONS]
    if not rows:
        return 0
    encoded = encoder.encode_texts([captions[row] for row in rows])
    median = float(np.median((encoded * vectors[rows]).sum(axis=1)))
    if not median >= SAME_MODEL:
        raise EncoderError(
            f"{folder.source.uri}: {folder.options.model} did not make these vectors: encoded with it, captions have a "
            f"median similarity of {median:.2f} to what text_emb has for them; name the model that --clip_model was "
            "(where --use_mclip made text_emb, index the folder without text_emb)"
        )
    return len(rows)


def _read_metadata(folder: ClipFolder, block: Block) -> pa.Table:
    """Return the metadata of a block with the columns and types of all files."""
    name = block.files.metadata
    path = folder.source.path(name)
    try:
        table = read_rows(pyarrow_source(folder.source, name), block.start, block.start + block.num_rows)
        columns = [
            table.column(field.name).cast(field.type, safe=False)
            if field.name in table.column_names
            else pa.nulls(len(table), field.type)
            for field in folder.schema
        ]
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path}: not readable: {' '.join(str(error).split())[:200]}", path=path) from error
    if len(table) != block.num_rows:
        raise ArtifactError(f"{path}: ends too soon; was it changed meanwhile?", path=path)
    return pa.table(columns, schema=folder.schema)


def _product_columns(folder: ClipFolder, metadata: pa.Table) -> dict[str, pa.ChunkedArray | pa.Array]:
    """Return text, image_ref and the attributes."""
    none = pa.nulls(len(metadata), pa.string())
    captions = metadata.column(CAPTION).cast(pa.string()) if CAPTION in folder.schema.names else none
    references: list[str | None] = [None] * len(metadata)
    if folder.options.image_root is not None and IMAGE_PATH in folder.schema.names:
        beginning = folder.options.image_root.rstrip("/") + "/"
        paths = metadata.column(IMAGE_PATH).cast(pa.string()).to_pylist()
        references = [path.removeprefix(beginning) if path and path.startswith(beginning) else None for path in paths]
    columns = {"text": captions, "image_ref": pa.array(references, pa.string())}
    for name in folder.schema.names:
        if name not in (CAPTION, folder.id_column) or name == IMAGE_PATH:
            columns[f"{RENAMED}{name}" if name in OURS else name] = metadata.column(name)
    return columns
