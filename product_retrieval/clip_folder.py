"""The folder that `clip-retrieval inference` writes, ready to be read block by block.

    img_emb/img_emb_0.npy, text_emb/text_emb_0.npy, metadata/metadata_0.parquet, img_emb/img_emb_1.npy, ...

One of img_emb and text_emb may be missing. Files of one number belong together, row by row. Nothing is unpickled.
Source: clip_inference/writer.py, 2.45.0.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from product_retrieval.catalog.repeated import RepeatedIds
from product_retrieval.earlier import Side
from product_retrieval.embeddings import MANIFEST
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.npy_rows import VectorFile, read_header
from product_retrieval.storage import Storage, pyarrow_source

SIDE_FOLDERS: dict[Side, str] = {"image": "img_emb", "text": "text_emb"}
METADATA = "metadata"
IMAGE_PATH, CAPTION = "image_path", "caption"
BLOCK_ROWS = 16_384
"""Products that are held at once, and that make one part."""
ID_BATCH_ROWS = 65_536
FORMAT = 1
"""Raised when the same folder would become other parts."""
NUMBERED = re.compile(r"(?:.*\D)?(\d{1,18})\.\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFolderOptions:
    """What a folder of clip-retrieval does not say of itself."""

    model: str | None = None
    """Model that made the vectors: hub id or local folder of the weights that --clip_model named."""
    revision: str | None = None
    """Commit, tag or branch of a hub id."""
    product_id: str | None = None
    """Column with the unique id of a product; default: image_path where there is one, else FILE:ROW."""
    image_root: str | None = None
    """Folder that the paths in image_path begin with; without it, products are shown without pictures."""


@dataclass(frozen=True, slots=True)
class FileSet:
    """The files of one number: the same products, row by row."""

    metadata: str
    num_rows: int
    vectors: dict[Side, VectorFile]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one set of files that become one part."""

    part: int
    files: FileSet
    start: int
    num_rows: int
    repeated: frozenset[int]
    """Rows of the block whose id an earlier row has."""


@dataclass(frozen=True, slots=True)
class ClipFolder:
    """A folder whose files were checked against each other."""

    source: Storage
    options: ClipFolderOptions
    schema: pa.Schema
    """Of the metadata of all files."""
    blocks: tuple[Block, ...]
    record: bytes
    """Canonical JSON of what the parts depend on."""

    @property
    def run_id(self) -> str:
        """Short name that each part carries."""
        return hashlib.sha256(self.record).hexdigest()[:16]

    @property
    def id_column(self) -> str | None:
        """Column of the products' ids; None: there is none."""
        return self.options.product_id or (IMAGE_PATH if IMAGE_PATH in self.schema.names else None)


def is_clip_folder(storage: Storage) -> bool:
    """Return whether a folder looks like clip-retrieval's rather than like embeddings of ours."""
    folders = [*SIDE_FOLDERS.values(), METADATA]
    return not storage.exists(MANIFEST) and any(storage.exists(folder) for folder in folders)


def open_clip_folder(storage: Storage, options: ClipFolderOptions, fingerprint: Fingerprint) -> ClipFolder:
    """Check a folder and cut it into blocks, reading headers, footers and ids.

    Args:
        storage: the folder.
        options: what it does not say of itself.
        fingerprint: of the model that is said to have made it.

    Raises:
        ArtifactError: a file is missing, damaged, of another length or dimension than it should be, or a column is
            missing or of types that do not fit together.
    """
    stamps: list[list[Any]] = []
    sets = list(_file_sets(storage, stamps))
    for side in SIDE_FOLDERS:
        for files in sets:
            if side in files.vectors and files.vectors[side].dim != fingerprint.dim:
                found = files.vectors[side]
                raise _error(
                    storage,
                    found.name,
                    f"has vectors of {found.dim} dimensions, but those of {options.model} have {fingerprint.dim}",
                )
    schema = _common_schema(storage, sets)
    if options.product_id is not None and options.product_id not in schema.names:
        names = ", ".join(schema.names)
        raise _error(storage, METADATA, f"no column {options.product_id!r} for the ids; it has {names}")
    for name in (IMAGE_PATH, CAPTION):
        if name in schema.names and not _is_text(schema.field(name).type):
            raise _error(storage, METADATA, f"{name} holds {schema.field(name).type} where text is wanted")
    # The root of pictures is part of it: their references are kept in the parts.
    record = {"clip_retrieval": FORMAT, "files": stamps, "options": asdict(options), "fingerprint": asdict(fingerprint)}
    text = (json.dumps(record, sort_keys=True, indent=1) + "\n").encode()
    folder = ClipFolder(storage, options, schema, (), text)
    repeated = _repeated_rows(folder, sets)
    return ClipFolder(storage, options, schema, tuple(_blocks(sets, repeated)), text)


def _file_sets(storage: Storage, stamps: list[list[Any]]) -> Iterator[FileSet]:
    """Yield the sets of files by number; note name, size and time of change of each file in `stamps`."""
    metadata = _numbered(storage, METADATA, ".parquet", stamps)
    sides = {side: _numbered(storage, folder, ".npy", stamps) for side, folder in SIDE_FOLDERS.items()}
    present = {side: found for side, found in sides.items() if found}
    if not metadata or not present:
        lacking = f"{METADATA}/*.parquet" if not metadata else "img_emb/*.npy or text_emb/*.npy"
        raise _error(storage, "", f"looks like a folder of clip-retrieval, but has no {lacking}")
    for number in sorted({number for found in (metadata, *present.values()) for number in found}):
        for folder, found in ((METADATA, metadata), *((SIDE_FOLDERS[side], found) for side, found in present.items())):
            if number not in found:
                raise _error(storage, folder, f"has no file number {number}, which other folders have")
        vectors = {side: read_header(storage, *found[number]) for side, found in present.items()}
        name, _ = metadata[number]
        num_rows = _num_rows(storage, name)
        for file in vectors.values():
            if file.num_rows != num_rows:
                raise _error(storage, file.name, f"has {file.num_rows} rows, but {name} has {num_rows}")
        yield FileSet(name, num_rows, vectors)


def _numbered(storage: Storage, folder: str, suffix: str, stamps: list[list[Any]]) -> dict[int, tuple[str, int]]:
    """Return by number the name and the size in bytes of a folder's files."""
    found: dict[int, tuple[str, int]] = {}
    for name, size, changed in storage.files_below(folder):
        if not name.endswith(suffix):
            continue
        number = NUMBERED.fullmatch(name.rsplit("/", 1)[-1])
        if number is None:
            raise _error(storage, name, "has no number in its name, so it is not known which files belong to it")
        if (taken := found.get(int(number[1]))) is not None:
            raise _error(storage, name, f"has the same number as {taken[0]}")
        found[int(number[1])] = (name, size)
        stamps.append([name, size, changed])
    return found


def _num_rows(storage: Storage, name: str) -> int:
    with _parquet(storage, name) as parquet:
        return int(parquet.metadata.num_rows)


def _common_schema(storage: Storage, sets: Sequence[FileSet]) -> pa.Schema:
    """Return the columns of all files; whole numbers and fractions of one name become fractions."""
    schemas = []
    for files in sets:
        with _parquet(storage, files.metadata) as parquet:
            schemas.append(parquet.schema_arrow.remove_metadata())
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise _error(storage, METADATA, f"columns of its files do not fit together: {error}") from error
    fields = [pa.field(field.name, pa.string() if pa.types.is_null(field.type) else field.type) for field in schema]
    return pa.schema(fields)


def _repeated_rows(folder: ClipFolder, sets: Sequence[FileSet]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the rows, counted over all files, whose id an earlier row has."""
    ids = RepeatedIds()
    column = folder.id_column
    for files in sets if column is not None else ():
        with _parquet(folder.source, files.metadata) as parquet:
            if column not in parquet.schema_arrow.names:
                ids.add(pa.nulls(files.num_rows, pa.string()))
                continue
            try:
                for batch in parquet.iter_batches(ID_BATCH_ROWS, columns=[column]):
                    ids.add(batch.column(0))
            except (pa.ArrowException, OSError) as error:
                why = " ".join(str(error).split())[:200]
                raise _error(folder.source, files.metadata, f"cannot read ids from {column!r}: {why}") from error
    return ids.rows()


def _is_text(column_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(column_type) or pa.types.is_large_string(column_type))


def _blocks(sets: Sequence[FileSet], repeated: np.ndarray[Any, np.dtype[np.int64]]) -> Iterator[Block]:
    first = part = 0
    for files in sets:
        for start in range(0, files.num_rows, BLOCK_ROWS):
            num_rows = min(BLOCK_ROWS, files.num_rows - start)
            low, high = np.searchsorted(repeated, [first + start, first + start + num_rows])
            rows = frozenset((repeated[low:high] - first - start).tolist())
            yield Block(part, files, start, num_rows, rows)
            part += 1
        first += files.num_rows


def _parquet(storage: Storage, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pyarrow_source(storage, name))
    except (pa.ArrowException, OSError) as error:
        raise _error(storage, name, f"not a readable Parquet file: {' '.join(str(error).split())[:200]}") from error


def _error(storage: Storage, name: str, what: str) -> ArtifactError:
    path = storage.path(name) if name else storage.uri
    return ArtifactError(f"{path}: {what}", path=path)
