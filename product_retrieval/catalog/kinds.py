"""The kinds of catalogue and the suffixes of their files."""

from __future__ import annotations

from typing import Literal

Kind = Literal["parquet", "csv", "jsonl", "webdataset", "arrow", "folder"]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz"),
    "jsonl": (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "arrow": (".arrow",),
    "folder": IMAGE_SUFFIXES,
}
GZIP_SUFFIXES = (".gz", ".tgz")
SIDECAR_SUFFIX = ".txt"
