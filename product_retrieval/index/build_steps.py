"""The steps from embeddings to the pieces of an index; the Ray job spreads them over workers.

A row is a product's position in its shard, so a piece can be filled without asking the others. Files appear below
`builds/<build id>/`, each by one put-if-absent, so a killed build finds what it has done again. D is the dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from product_retrieval.embeddings import VECTOR_COLUMNS, Manifest, read_part
from product_retrieval.errors import ArtifactError
from product_retrieval.index.construction import fill, train
from product_retrieval.index.fused import side_vectors
from product_retrieval.index.layout import PartRows, ShardPlan
from product_retrieval.index.spec import SIDES, SOURCES, IndexSpec, Side
from product_retrieval.storage import Storage


@dataclass(frozen=True, slots=True)
class Build:
    """What a build reads and where it writes."""

    embeddings: Storage
    manifest: Manifest
    output: Storage
    build_id: str
    image_weight: float | None = None
    """Share of the picture in the fused side; None where there is no such side."""

    def path(self, name: str) -> str:
        """Return a file of this build below the index's folder."""
        return f"builds/{self.build_id}/{name}"

    def read(self, source: PartRows, columns: Sequence[str] | None = None) -> pa.Table:
        """Return rows of a part, of which sample_vectors has compared the SHA-256; its pages are checked again.

        Raises:
            ArtifactError: the part cannot be read, or a page is damaged.
        """
        part = self.manifest.parts[source.part]
        try:
            with self.embeddings.open(part.name) as file:
                wanted = None if columns is None else list(columns)
                table = pq.read_table(file, columns=wanted, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            path = self.embeddings.path(part.name)
            raise ArtifactError(f"{path}: {' '.join(str(error).split())}", path=path) from error
        return table if source.rows is None else table.take(pa.array(source.rows))

    def vectors(self, source: PartRows, side: Side) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the vectors of a side, float32 [M, D], as they will be stored, and their places in the source [M]."""
        table = self.read(source, [f"{made_of}_vector" for made_of in SOURCES[side]])
        vectors, rows = side_vectors(table, side, self.image_weight)
        return as_stored(vectors), rows


def as_stored(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors of unit length, rounded to float16, so that an exact index and the stored ones give one score."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit.astype(np.float16), np.float32)


def count_vectors(build: Build, part: int) -> dict[Side, int]:
    """Return how many vectors each side of a part has, from the footer of its file.

    Raises:
        ArtifactError: the part cannot be read.
    """
    name = build.manifest.parts[part].name
    try:
        with build.embeddings.open(name) as file, pq.ParquetFile(file) as parquet:
            metadata = parquet.metadata
    except (pa.ArrowException, OSError) as error:
        path = build.embeddings.path(name)
        raise ArtifactError(f"{path}: not a readable part: {' '.join(str(error).split())}", path=path) from error
    if not metadata.num_rows:
        return dict.fromkeys(SIDES, 0)  # all its products were rejected; a part without rows has no statistics
    nulls = dict.fromkeys(VECTOR_COLUMNS, 0)
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            if (top := column.path_in_schema.split(".")[0]) in nulls:
                nulls[top] += column.statistics.null_count
    return {side: metadata.num_rows - nulls[f"{side}_vector"] for side in SIDES}


def sample_vectors(
    build: Build, source: PartRows, *, shares: Mapping[Side, float], seed: int
) -> dict[Side, NDArray[np.float16]]:
    """Compare a part's SHA-256 with the manifest, and return random shares of its vectors.

    Args:
        build: whose part it is.
        source: the part.
        shares: by side, the probability with which a vector is taken.
        seed: the same one gives the same vectors.

    Returns:
        By side, float16 [about share x M, D].

    Raises:
        ArtifactError: the file is missing, or not what the manifest says.
    """
    columns = {f"{made_of}_vector" for side in shares for made_of in SOURCES[side]}
    table = read_part(build.embeddings, build.manifest.parts[source.part], sorted(columns))
    table = table if source.rows is None else table.take(pa.array(source.rows))
    sampled = {}
    for number, (side, share) in enumerate(shares.items()):
        vectors, _ = side_vectors(table, side, build.image_weight)
        chosen = np.random.default_rng([seed, source.part, number]).random(len(vectors)) < share
        sampled[side] = as_stored(vectors[chosen]).astype(np.float16)
    return sampled


def trained_name(build: Build, side: Side) -> str:
    """Return the name of the empty, trained index of a side."""
    return build.path(f"{side}.trained.faiss")


def publish_trained(
    build: Build,
    side: Side,
    spec: IndexSpec,
    samples: Sequence[NDArray[np.float16]],
    *,
    seed: int,
    num_threads: int | None = None,
) -> str:
    """Train an empty index on the samples of all parts, float16 [n, D] each, and publish it; return its name."""
    name = trained_name(build, side)
    if not build.output.exists(name):
        vectors = np.concatenate(samples, dtype=np.float32)
        build.output.put_if_absent(name, train(vectors, spec, seed=seed, num_threads=num_threads))
    return name


def piece_name(build: Build, plan: ShardPlan, side: Side, piece: int) -> str:
    """Return the name of a piece of a shard."""
    return build.path(f"{plan.name}/pieces/{side}-{piece:05d}.faiss")


def fill_piece(build: Build, plan: ShardPlan, side: Side, piece: int, trained: str) -> str:
    """Fill a copy of the trained index with one piece of a shard's vectors and publish it.

    Returns:
        The piece's name; an earlier run's piece of that name is left as it is.
    """
    name = piece_name(build, plan, side, piece)
    if not build.output.exists(name):
        filled = [(build.vectors(source, side), first) for first, source in plan.pieces()[piece]]
        vectors = np.concatenate([vectors for (vectors, _), _ in filled])
        rows = np.concatenate([places + first for (_, places), first in filled])
        build.output.put_if_absent(name, fill(build.output.read(trained), vectors, rows))
    return name
