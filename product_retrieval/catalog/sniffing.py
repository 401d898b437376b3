"""What a file is by its first bytes, whatever it is called."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

from product_retrieval.catalog.delimited import BYTE_ORDER_MARK, DELIMITERS
from product_retrieval.catalog.gzip_points import GZIP, GZIP_MAGIC
from product_retrieval.catalog.kinds import Kind

HEAD_BYTES = 4096
"""Enough for every magic word, the last of which lies at byte 257 of a tar, and for the beginning of a CSV header."""
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Content:
    """What the first bytes of a file say."""

    kind: Kind | None
    """None: no catalogue, whatever it is called."""
    description: str
    advice: str = ""
    is_certain: bool = True
    """Whether a magic word says so; text may be anything."""
    is_gzip: bool = False


MAGIC: tuple[tuple[bytes, Content], ...] = (
    (b"PAR1", Content("parquet", "a Parquet file")),
    (b"ARROW1", Content("arrow", "an Arrow file")),
    (b"\xff\xff\xff\xff", Content("arrow", "an Arrow stream")),
    (b"\xff\xd8\xff", Content("folder", "a picture")),
    (b"\x89PNG", Content("folder", "a picture")),
    (b"GIF8", Content("folder", "a picture")),
    (b"II*\0", Content("folder", "a picture")),
    (b"MM\0*", Content("folder", "a picture")),
    (b"PK\x03\x04", Content(None, "a ZIP or Excel file", "unpack it, or export the sheet as CSV")),
    (b"\x28\xb5\x2f\xfd", Content(None, "compressed with Zstandard", "unpack it, or compress it with gzip")),
    (b"BZh", Content(None, "compressed with bzip2", "unpack it, or compress it with gzip")),
    (b"\xfd7zXZ", Content(None, "compressed with xz", "unpack it, or compress it with gzip")),
    (b"%PDF", Content(None, "a PDF", "export the table as CSV")),
    *((mark, Content(None, "UTF-16 text", "save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")) for mark in UTF16_MARKS),
)
EMPTY = Content(None, "empty", "it holds no products")
MARKUP = (
    (b"<!doctype html", Content(None, "an HTML page", "download the catalogue again: this may be an error page")),
    (b"<html", Content(None, "an HTML page", "download the catalogue again: this may be an error page")),
    (b"<?xml", Content(None, "an XML document", "export the catalogue as CSV or JSON lines")),
)
JSON_ARRAY = Content(None, "one JSON array", "write one object a line (jq -c '.[]')", is_certain=False)


def recognise(head: bytes) -> Content | None:
    """Return what a file is by its first bytes, or None where they say nothing.

    Args:
        head: its first HEAD_BYTES bytes, or all of it.
    """
    if not head:
        return EMPTY
    if head.startswith(GZIP_MAGIC):
        return _compressed(head)
    for magic, content in MAGIC:
        if head.startswith(magic):
            return content
    if head[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        return Content("webdataset", "a tar archive")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Content("folder", "a picture")
    return _text(head.removeprefix(BYTE_ORDER_MARK))


def _text(head: bytes) -> Content | None:
    sample = head[:512]
    fewer, more = sorted((sample[0::2].count(0), sample[1::2].count(0)))
    if more > 4 and more * 5 > len(sample) > fewer * 50:  # every other byte of Latin text
        return dict(MAGIC)[UTF16_MARKS[0]]
    begin = sample.lstrip().lower()
    for mark, content in MARKUP:
        if begin.startswith(mark):
            return content
    if begin.startswith(b"{"):
        return Content("jsonl", "JSON lines")
    if begin.startswith(b"["):
        return JSON_ARRAY
    first_line = head.partition(b"\n")[0]
    if 0 not in first_line and any(delimiter in first_line for delimiter in DELIMITERS):
        return Content("csv", "text in columns", is_certain=False)
    return None


def _compressed(head: bytes) -> Content:
    """Return what is compressed in a gzip file."""
    try:
        inner = recognise(zlib.decompressobj(GZIP).decompress(head, HEAD_BYTES))
    except zlib.error:
        inner = None
    if inner is None:
        return Content(None, "compressed with gzip, but not a catalogue inside", "look into it", is_certain=False)
    return replace(inner, is_gzip=True, description=f"{inner.description}, compressed with gzip")
