"""WebDataset catalogues: tar archives of samples, cut into runs of bytes that hold whole ones.

So a worker reads its part in one go, and no list of members travels to it.
"""

from __future__ import annotations

import hashlib
import posixpath
import zlib
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from product_retrieval.catalog.contained import MAX_IMAGE_BYTES
from product_retrieval.catalog.delimited import ParsedRun, table_of_objects
from product_retrieval.catalog.gzip_points import AccessPoint, InflatedFile, Readable, is_gzip, open_at, point_before
from product_retrieval.catalog.planners import Planned, common_schema, identity
from product_retrieval.catalog.repeated import RepeatedIds
from product_retrieval.catalog.slices import REFERENCE, CatalogPlan, ColumnOptions, Slice
from product_retrieval.catalog.source import Source, SourceFile
from product_retrieval.catalog.tar_members import BrokenTarError, iterate_members
from product_retrieval.catalog.tar_samples import Sample, iterate_samples
from product_retrieval.errors import ArtifactError, CatalogError
from product_retrieval.storage import Storage

PICTURE = pa.struct([("bytes", pa.large_binary()), (REFERENCE, pa.string())])
THREADS = 8
"""Archives that are planned at once: over a network, walking one is mostly waiting."""


@dataclass(frozen=True, slots=True)
class _Shard:
    """What planning one archive found."""

    runs: list[tuple[int, int, int]]
    """Per part: first byte, byte after the last, samples."""
    schemas: list[pa.Schema]
    ids: list[pa.Array]
    points: list[AccessPoint]
    has_pictures: bool
    has_ids: bool
    """Whether some JSON states an id."""
    sha256: str
    """Of all headers and of the members that are no pictures."""


def plan_webdataset(source: Source, columns: ColumnOptions, rows_per_part: int, ids: RepeatedIds) -> Planned:
    """Cut archives into runs of samples, without reading the pictures of those that are not compressed.

    Raises:
        CatalogError: an archive is broken, there are no samples, or none has the id column that was named.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        shards = []
        for shard in threads.map(lambda file: _plan_shard(source, file, columns, rows_per_part), source.files):
            for run_ids in shard.ids:
                ids.add(run_ids)
            shards.append(replace(shard, ids=[]))
    slices: list[Slice] = []
    for file, shard in zip(source.files, shards, strict=True):
        first_row = 0
        for start, stop, num_rows in shard.runs:
            slices.append(
                Slice(
                    part=len(slices),
                    file=file.name,
                    start=start,
                    stop=stop,
                    num_rows=num_rows,
                    first_row=first_row,
                    point=point_before(shard.points, start),
                )
            )
            first_row += num_rows
    path = source.root.uri if len(source.files) > 1 else source.root.path(source.files[0].name)
    if not slices:
        raise CatalogError(f"{path}: holds no samples such as 0001.jpg with 0001.txt or 0001.json", path=path)
    if columns.product_id != ColumnOptions().product_id and not any(shard.has_ids for shard in shards):
        raise CatalogError(
            f"{path}: no JSON has {columns.product_id!r} for --columns.product-id; "
            "without the option the key of a sample is its id",
            path=path,
        )
    words = common_schema([schema for shard in shards for schema in shard.schemas])
    schema = pa.schema([(columns.product_id, pa.string()), *(f for f in words if f.name != columns.product_id)])
    if any(shard.has_pictures for shard in shards):
        others = [column for column in schema if column.name != columns.image]
        schema = pa.schema([*others, pa.field(columns.image, PICTURE)])
    digests = [
        [file.name, identity(source, file, lambda shard=shard: shard.sha256)]  # type: ignore[misc]
        for file, shard in zip(source.files, shards, strict=True)
    ]
    return schema, slices, digests


def read_samples(plan: CatalogPlan, slice_: Slice) -> ParsedRun:
    """Return the samples of a slice as rows, and a reason for each whose JSON is broken.

    Raises:
        CatalogError: the archive is damaged or has changed.
    """
    columns = plan.columns
    records: list[dict[str, Any]] = []
    pictures: list[dict[str, Any] | None] = []
    malformed: list[str] = []
    path = posixpath.join(plan.root, slice_.file)
    try:
        with open_at(Storage(plan.root), slice_.file, slice_.point) as file:
            for sample in iterate_samples(file, slice_.start, slice_.stop, with_pictures=True):
                try:
                    records.append(sample.identified(sample.record(), columns.product_id))
                except ValueError as error:
                    malformed.append(str(error)[:300])
                    continue
                at = None if sample.picture is None else reference_to(slice_.file, sample.picture.start)
                pictures.append(None if at is None else {"bytes": sample.picture_bytes, REFERENCE: at})
    except (BrokenTarError, OSError, EOFError, zlib.error, ArtifactError) as error:
        raise _broken(path, error) from error
    has_pictures = columns.image in plan.schema.names and plan.schema.field(columns.image).type == PICTURE
    names = [name for name in plan.schema.names if name != columns.image or not has_pictures]
    rows = table_of_objects(records, pa.schema([plan.schema.field(name) for name in names]))
    return ParsedRun(
        rows.append_column(columns.image, pa.array(pictures, PICTURE)) if has_pictures else rows, tuple(malformed)
    )


def reference_to(file: str, start: int) -> str:
    """Return the reference of the member whose header begins at a byte of an archive."""
    return f"{file}#byte={start}"


def read_member(file: Any, start: int) -> bytes | None:
    """Return the bytes of the member whose header begins at a byte, or None where there is no picture of sane size.

    Args:
        file: the archive, seekable; compressed ones are decompressed from their beginning.
        start: byte of the header, in the decompressed archive.
    """
    compressed = is_gzip(file)
    try:
        opened: Readable = InflatedFile(file) if compressed else file
        for member in iterate_members(opened, start, start + 1):
            data = opened.read(member.size_bytes) if member.size_bytes <= MAX_IMAGE_BYTES else b""
            return data if len(data) == member.size_bytes else None
    except (BrokenTarError, EOFError, zlib.error):
        pass
    return None


def _plan_shard(source: Source, file: SourceFile, columns: ColumnOptions, rows_per_part: int) -> _Shard:
    path = source.root.path(file.name)
    shard = _Shard([], [], [], [], False, False, "")
    has_ids = False
    digest = hashlib.sha256()
    layout = _Layout()
    try:
        with source.root.open(file.name) as raw:
            opened: Readable = InflatedFile(raw, found=shard.points) if is_gzip(raw) else raw
            samples = iterate_samples(opened, 0, None, with_pictures=False)
            while run := list(islice(samples, rows_per_part)):
                records = []
                for sample in run:
                    layout.add(sample)
                    digest.update(repr((sample.key, sample.start, sample.stop, sample.objects, sample.values)).encode())
                    try:
                        record = sample.record()
                    except ValueError:
                        continue
                    has_ids |= columns.product_id in record
                    records.append(sample.identified(record, columns.product_id))
                table = table_of_objects(records, None)
                shard.runs.append((run[0].start, run[-1].stop, len(run)))
                if table.schema not in shard.schemas:
                    shard.schemas.append(table.schema)
                ids = [record[columns.product_id] for record in records]
                shard.ids.append(pa.array([*ids, *[None] * (len(run) - len(ids))], pa.string()))
    except (BrokenTarError, OSError, EOFError, zlib.error, ArtifactError) as error:
        raise _broken(path, error) from error
    layout.check(path)
    return _Shard(shard.runs, shard.schemas, shard.ids, shard.points, layout.has_pictures, has_ids, digest.hexdigest())


class _Layout:
    """Notices samples whose members are scattered over an archive, in a few bytes a sample."""

    def __init__(self) -> None:
        self._keys, self._starts, self._kinds = array("q"), array("q"), array("b")
        self.has_pictures = False

    def add(self, sample: Sample) -> None:
        self._keys.append(hash(sample.key))
        self._starts.append(sample.start)
        has_words = bool(sample.objects or sample.values)
        self._kinds.append((sample.picture is not None) + 2 * has_words)
        self.has_pictures |= sample.picture is not None

    def check(self, path: str) -> None:
        """Refuse an archive in which a key stands once with a picture alone and once with words alone.

        Raises:
            CatalogError: it does.
        """
        keys, kinds = np.frombuffer(self._keys, np.int64), np.frombuffer(self._kinds, np.int8)
        order = np.argsort(keys, kind="stable")
        keys, kinds = keys[order], kinds[order]
        scattered = np.flatnonzero((keys[:-1] == keys[1:]) & (kinds[:-1] + kinds[1:] == 3) & (kinds[:-1] % 3 > 0))
        if len(scattered):
            first, second = sorted(self._starts[order[scattered[0] + k]] for k in (0, 1))
            raise CatalogError(
                f"{path}: the members of a sample are not next to one another (bytes {first} and {second}); "
                "pack it again in the order of names: tar --sort=name",
                path=path,
            )


def _broken(path: str, error: Exception) -> CatalogError:
    return CatalogError(f"{path}: not a readable tar: {' '.join(str(error).split())}", path=path)
