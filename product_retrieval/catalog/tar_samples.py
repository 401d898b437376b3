"""The samples of a WebDataset archive: members side by side under one key, that together are a product.

The key of `chairs/0017.seg.png` is `chairs/0017`, its extension `seg.png`: a member's path up to the first dot of its
last component (WebDataset, "The WebDataset Format").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from product_retrieval.catalog.contained import MAX_IMAGE_BYTES
from product_retrieval.catalog.delimited import as_written
from product_retrieval.catalog.gzip_points import Readable
from product_retrieval.catalog.kinds import IMAGE_SUFFIXES
from product_retrieval.catalog.tar_members import BrokenTarError, Member, iterate_members

NAME = re.compile(r"(?:\./)*(?P<key>(?:.*/)?[^/.][^/.]*)\.(?P<extension>[^/]*)", re.DOTALL)
"""Key and extension; names without a dot, or whose last component begins with one, belong to no sample."""
NUMBERS = frozenset({"cls", "cls2", "class", "count", "index", "inx"})
TEXTS = frozenset({"caption", "description", "id", "label", "text", "title", "transcript", "url"})
MAX_TEXT_BYTES = 16 << 20
"""A longer member is no text about one product."""


@dataclass(slots=True)
class Sample:
    """The members of one key that stand side by side."""

    key: str
    start: int
    """Byte of its first header."""
    stop: int = 0
    extensions: set[str] = field(default_factory=set)
    values: dict[str, Any] = field(default_factory=dict)
    """Columns from its text members."""
    objects: list[tuple[str, bytes]] = field(default_factory=list)
    """Extension and bytes of its JSON members."""
    picture: Member | None = None
    picture_rank: tuple[int, int, str] = (0, 0, "")
    picture_bytes: bytes | None = None
    problem: str | None = None
    """Why it cannot be read."""

    def record(self) -> dict[str, Any]:
        """Return its columns without the picture.

        Raises:
            ValueError: its JSON is broken; the text says how.
        """
        if self.problem:
            raise ValueError(f"{self.key}: {self.problem}")
        record: dict[str, Any] = {}
        for extension, data in sorted(self.objects, key=lambda pair: (pair[0].count("."), pair[0]), reverse=True):
            try:
                found = json.loads(data.decode("utf-8", errors="replace").removeprefix("\ufeff"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{self.key}.{extension}: not JSON ({error})") from error
            if not isinstance(found, dict):
                raise ValueError(f"{self.key}.{extension}: not a JSON object")
            record |= found
        return record | self.values

    def identified(self, record: dict[str, Any], id_column: str) -> dict[str, Any]:
        """Return its columns with an id as text: the one that its JSON states, else the key."""
        return {id_column: as_written(record.get(id_column, self.key))} | {
            name: value for name, value in record.items() if name != id_column
        }


def iterate_samples(file: Readable, start: int, stop: int | None, *, with_pictures: bool) -> Iterator[Sample]:
    """Yield the samples of an archive in order.

    A member whose extension the sample already has begins another sample with the same key.

    Args:
        file: the archive, at or before `start`.
        start: byte of the first header.
        stop: byte after the last sample; None reads to the end.
        with_pictures: read the bytes of pictures too.

    Raises:
        BrokenTarError: the archive is cut off or damaged.
    """
    sample: Sample | None = None
    for member in iterate_members(file, start, stop):
        parts = NAME.fullmatch(member.name)
        if parts is None:
            continue
        key, extension = parts["key"], parts["extension"].lower()
        if sample is None or key != sample.key or extension in sample.extensions:
            if sample:
                yield sample
            sample = Sample(key, member.start)
        sample.extensions.add(extension)
        sample.stop = member.stop
        _take(sample, member, extension, file, with_pictures=with_pictures)
    if sample:
        yield sample


def _take(sample: Sample, member: Member, extension: str, file: Readable, *, with_pictures: bool) -> None:
    """Add a member to its sample; what is neither picture, text nor JSON is not read."""
    name, _, kind = extension.rpartition(".")
    if f".{kind}" in IMAGE_SUFFIXES:
        rank = (extension.count("."), IMAGE_SUFFIXES.index(f".{kind}"), extension)
        if sample.picture is None or rank < sample.picture_rank:
            sample.picture, sample.picture_rank = member, rank
            is_read = with_pictures and member.size_bytes <= MAX_IMAGE_BYTES
            sample.picture_bytes = _whole(file, member) if is_read else None
        return
    if kind not in {"json", "txt"} and (name or kind not in NUMBERS | TEXTS):
        return
    if member.size_bytes > MAX_TEXT_BYTES:
        sample.problem = f".{extension} holds {member.size_bytes} bytes, more than {MAX_TEXT_BYTES}"
        return
    data = _whole(file, member)
    if kind == "json":
        sample.objects.append((extension, data))
        return
    text = data.decode("utf-8", errors="replace").removeprefix("\ufeff").strip()
    column = (name or "text") if kind == "txt" else kind
    sample.values[column] = int(text) if kind in NUMBERS and _is_plain_integer(text) else text or None


def _whole(file: Readable, member: Member) -> bytes:
    data = file.read(member.size_bytes)
    if len(data) < member.size_bytes:
        raise BrokenTarError(f"cut off at byte {member.data + len(data)}, within {member.name[:80]!r}")
    return data


def _is_plain_integer(text: str) -> bool:
    return len(text) < 19 and re.fullmatch(r"0|-?[1-9]\d*", text, re.ASCII) is not None
