"""The folders that Hugging Face's `datasets` writes and reads: what `save_to_disk` leaves, and `imagefolder`.

Layouts: `Dataset.save_to_disk` writes state.json, which names the Arrow files, beside them; `DatasetDict.save_to_disk`
writes a folder of that kind for each split. An image folder has metadata.csv, .jsonl or .parquet with a `file_name`
relative to it (datasets documentation, "Create an image dataset").
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from product_retrieval.catalog.delimited import column_names
from product_retrieval.catalog.slices import ColumnOptions
from product_retrieval.errors import CatalogError
from product_retrieval.storage import Storage, pyarrow_source

if TYPE_CHECKING:
    from product_retrieval.catalog.source import Source, SourceFile

STATE = "state.json"
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
HEAD_BYTES = 1 << 20


def saved_files(root: Storage, files: Sequence[SourceFile], uri: str) -> list[SourceFile] | None:
    """Return the Arrow files of a data set that `save_to_disk` left, or None where there is none.

    Only files that its state names count: `datasets` leaves caches beside them.

    Raises:
        CatalogError: there are several splits, or a file is missing.
    """
    states = [file.name for file in files if posixpath.basename(file.name) == STATE]
    if not states:
        return None
    if len(states) > 1:
        splits = sorted(posixpath.dirname(name) or "." for name in states)
        raise CatalogError(
            f"{uri}: holds a data set in the splits {', '.join(splits)}; "
            f"name one, such as {posixpath.join(uri, splits[0])}",
            path=uri,
        )
    path, folder = root.path(states[0]), posixpath.dirname(states[0])
    try:
        names = [posixpath.join(folder, entry["filename"]) for entry in json.loads(root.read(states[0]))["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(f"{path}: does not name the files of a data set ({error!r})", path=path) from error
    by_name = {file.name: file for file in files}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise CatalogError(f"{path}: names {missing[0]}, which is not there; copy the data set again", path=path)
    return [by_name[name] for name in names]


def with_file_names(source: Source, columns: ColumnOptions) -> ColumnOptions:
    """Return the columns of an image folder: its file names are pictures, and ids where there are no others.

    Options that somebody has set stay.
    """
    if not all(posixpath.basename(file.name) in METADATA for file in source.files):
        return columns
    names, default = _column_names(source), ColumnOptions()
    if FILE_NAME not in names:
        return columns
    if columns.image == default.image and default.image not in names:
        columns = replace(columns, image=FILE_NAME)
    if columns.product_id == default.product_id and default.product_id not in names:
        columns = replace(columns, product_id=FILE_NAME)
    return columns


def below_its_folder(values: pa.Array | pa.ChunkedArray, column: str, file: str) -> pa.Array | pa.ChunkedArray:
    """Return file names of an image folder relative to the catalogue's root; all other values as they are."""
    folder = posixpath.dirname(file)
    if column != FILE_NAME or not folder or posixpath.basename(file) not in METADATA:
        return values
    return pc.binary_join_element_wise(folder, values.cast(pa.string()), "/")


def _column_names(source: Source) -> list[str]:
    """Return the columns of the first metadata file, or none where it is broken: its planner says how."""
    name = source.files[0].name
    try:
        if name.endswith(".parquet"):
            return list(pq.read_schema(pyarrow_source(source.root, name)).names)
        with source.root.open(name) as file:
            first_line = file.read(HEAD_BYTES).decode("utf-8-sig", errors="replace").partition("\n")[0]
        if name.endswith(".jsonl"):
            return list(json.loads(first_line))
        return column_names(f"{first_line}\n".encode())
    except (ValueError, TypeError, OSError, pa.ArrowException):
        return []
