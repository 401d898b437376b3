"""What a version of an index says of itself: its shards, every file with its SHA-256, and what was measured.

    builds/<build id>/...          files of one build; a version may name files of several builds
    versions/000001.json           a manifest
    current.json                   the alias: which version is served

A shard is a contiguous range of product rows with all that belongs to them. Its files know local rows only, so they
are the same wherever the shard stands, and versions share them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.index.fused import Fusion, parse_fusion
from product_retrieval.index.spec import MeasuredPoint, OperatingPoint, Side
from product_retrieval.storage import Storage

FORMAT = 2


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a version."""

    path: str
    """Below the index's folder."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ShardSide:
    """One side of a shard."""

    index: StoredFile
    """FAISS; ids are local rows."""
    vectors: StoredFile
    """float16 [num_rows, D] as .npy, by local row; zeros where the product has no such side."""
    num_vectors: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A contiguous range of product rows."""

    first_row: int
    num_rows: int
    """Tombstones among them."""
    products: StoredFile
    rows_by_id: StoredFile
    keys: StoredFile
    """uint8 [num_rows, 32] .npy: by what the pictures and texts behind the vectors are known again."""
    sides: dict[Side, ShardSide]
    """Those of which the shard has any vectors."""
    tombstones: StoredFile | None = None
    """int64 .npy, the local rows that this version no longer has, ascending; None where it has them all."""
    num_tombstones: int = 0


@dataclass(frozen=True, slots=True)
class SideManifest:
    """One side of a version."""

    factory: str
    reason: str
    num_vectors: int
    """Over all shards, those of tombstones among them."""
    trained: StoredFile
    """The empty, trained index that every shard's is a filled copy of."""
    points: dict[Side, OperatingPoint]
    """By kind of query."""
    measured: dict[Side, tuple[MeasuredPoint, ...]] = field(default_factory=dict)
    """By kind of query, all that was tried when the side was trained."""
    plot: StoredFile | None = None
    """The measured points as SVG."""
    fusion: Fusion | None = None
    """Of the fused side, what its vectors are the sums of, and why; None of the others."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a version is from what its index was trained on."""

    trained_build: str
    """Build that trained it."""
    num_trained: int
    """Products of that build."""
    num_added: int
    """Products added since, or added again as their picture or text changed."""
    num_gone: int
    """Products of that build that went, or were added again."""
    share: float
    """Of added and gone in those trained on."""
    lost_recall: float
    """Recall@10 lost since training at the same operating point, of the kind of query that lost most."""
    rebuild_because: str | None
    """Why a rebuild is advisable; None where it is not."""


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """A complete version of an index."""

    build_id: str
    fingerprint: Fingerprint
    model: str
    embeddings_uri: str
    embeddings_run_id: str
    catalog: dict[str, Any]
    num_products: int
    dim: int
    options: dict[str, Any]
    sides: dict[Side, SideManifest]
    shards: tuple[Shard, ...]
    design: StoredFile | None = None
    """What the build that trained it decided; whoever goes on with that build must find it."""
    gates: dict[str, Any] = field(default_factory=dict)
    """What was checked before the version was published, and what was found."""
    peak_memory: dict[str, int] = field(default_factory=dict)
    """By step of the build, the most bytes that one process held."""
    drift: Drift | None = None
    """None where the version was built anew."""
    created: str = ""
    """When it was published, UTC, ISO 8601."""
    version: int = 0
    format: int = FORMAT

    @property
    def image_weight(self) -> float | None:
        """Share of the picture in the fused side; None where there is no such side."""
        fused = self.sides.get("fused")
        return None if fused is None or fused.fusion is None else fused.fusion.image_weight

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON text."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()

    def files(self) -> list[StoredFile]:
        """Return every file that the version names."""
        named: list[StoredFile | None] = [file for side in self.sides.values() for file in (side.trained, side.plot)]
        named.append(self.design)
        for shard in self.shards:
            named += [shard.products, shard.rows_by_id, shard.keys, shard.tombstones]
            named += [file for side in shard.sides.values() for file in (side.index, side.vectors)]
        return [file for file in named if file is not None]


def parse_index_manifest(data: bytes, path: str) -> IndexManifest:
    """Return the manifest in a file's bytes.

    Raises:
        ArtifactError: it is no manifest, or of another format.
    """
    try:
        record: Mapping[str, Any] = json.loads(data)
        if record["format"] != FORMAT:
            age = "a newer" if record["format"] > FORMAT else "an older"
            remedy = "" if record["format"] > FORMAT else "; build the index again"
            raise ArtifactError(f"{path}: written by {age} version (format {record['format']}){remedy}", path=path)
        return IndexManifest(
            **{
                **record,
                "fingerprint": Fingerprint(**record["fingerprint"]),
                "sides": {name: _side(side) for name, side in record["sides"].items()},
                "drift": None if record["drift"] is None else Drift(**record["drift"]),
                "design": None if record["design"] is None else StoredFile(**record["design"]),
                "shards": tuple(_shard(shard) for shard in record["shards"]),
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a manifest of an index: {error}", path=path) from error


def describe_file(storage: Storage, path: str) -> StoredFile:
    """Return a file's record for a manifest."""
    return StoredFile(path, storage.size_bytes(path), storage.sha256(path))


def _side(record: Mapping[str, Any]) -> SideManifest:
    points = {kind: OperatingPoint(**point) for kind, point in record["points"].items()}
    measured = {
        kind: tuple(MeasuredPoint(**{**point, "front_of": tuple(point["front_of"])}) for point in grid)
        for kind, grid in record["measured"].items()
    }
    plot = None if record["plot"] is None else StoredFile(**record["plot"])
    trained = StoredFile(**record["trained"])
    described = {"trained": trained, "points": points, "measured": measured, "plot": plot}
    return SideManifest(**{**record, **described, "fusion": parse_fusion(record.get("fusion"))})


def _shard(record: Mapping[str, Any]) -> Shard:
    sides = {
        name: ShardSide(StoredFile(**side["index"]), StoredFile(**side["vectors"]), side["num_vectors"])
        for name, side in record["sides"].items()
    }
    files = {name: StoredFile(**record[name]) for name in ("products", "rows_by_id", "keys")}
    tombstones = None if record["tombstones"] is None else StoredFile(**record["tombstones"])
    return Shard(**{**record, **files, "sides": sides, "tombstones": tombstones})
