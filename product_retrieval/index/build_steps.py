"""The steps from embeddings to a version of an index; the Ray job spreads them over workers.

A row is a product's position over all parts in the order of the manifest, so every step can tell the rows of its
parts without asking the others. Files appear below `builds/<build id>/`, each by one put-if-absent, so a killed build
finds its pieces again.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.embeddings import KEY_COLUMNS, VECTOR_COLUMNS, Manifest, iterate_parts, read_part, vectors_of
from product_retrieval.errors import ArtifactError
from product_retrieval.index.calibration import calibrate
from product_retrieval.index.construction import fill, merge
from product_retrieval.index.searcher import ProductIndex, rescore
from product_retrieval.index.spec import MAX_LISTS, SIDES, OperatingPoint, Side
from product_retrieval.storage import Storage

NUM_GATE_PRODUCTS = 100
"""Products that must find themselves before a version is published."""
MIN_SELF_FOUND = 0.99
"""Of an exhaustive search; what it misses, the codes have confused with other products."""
EVERYTHING = OperatingPoint(num_probes=MAX_LISTS, rescore_factor=32)


@dataclass(frozen=True, slots=True)
class Build:
    """What a build reads and where it writes."""

    embeddings: Storage
    manifest: Manifest
    output: Storage
    build_id: str

    def path(self, name: str) -> str:
        """Return a file of this build below the index's folder."""
        return f"builds/{self.build_id}/{name}"

    def first_row(self, part: int) -> int:
        """Return the row of a part's first product."""
        return sum(p.num_products for p in self.manifest.parts[:part])

    def vectors(self, part: int, side: Side) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the unit vectors of a part's side, float32 [M, D], and their rows, int64 [M]."""
        column = f"{side}_vector"
        table = read_part(self.embeddings, self.manifest.parts[part], [column])
        vectors, rows = vectors_of(table, column)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # float16 rounded them
        return vectors, rows + self.first_row(part)


def count_vectors(build: Build, part: int) -> dict[Side, int]:
    """Return how many vectors each side of a part has."""
    table = read_part(build.embeddings, build.manifest.parts[part], VECTOR_COLUMNS)
    return {side: len(table) - table.column(f"{side}_vector").null_count for side in SIDES}


def sample_vectors(build: Build, part: int, side: Side, *, share: float, seed: int) -> NDArray[np.float32]:
    """Return a random share of a part's vectors, float32 [about share x M, D], the same for the same seed."""
    vectors, rows = build.vectors(part, side)
    generator = np.random.default_rng([seed, part])
    chosen = generator.random(len(rows)) < share
    return vectors[chosen] if share < 1 else vectors


def fill_piece(build: Build, trained: bytes, parts: Sequence[int], side: Side, piece: int) -> str:
    """Fill a copy of the trained index with the vectors of some parts and publish it as a piece.

    Returns:
        The piece's name; an earlier run's piece of that name is left as it is.
    """
    name = build.path(f"pieces/{side}-{piece:05d}.faiss")
    if build.output.exists(name):
        return name
    filled = [build.vectors(part, side) for part in parts]
    vectors = np.concatenate([vectors for vectors, _ in filled])
    rows = np.concatenate([rows for _, rows in filled])
    build.output.put_if_absent(name, fill(trained, vectors, rows))
    return name


def merge_pieces(build: Build, pieces: Sequence[str], side: Side) -> str:
    """Merge the pieces of a side, in order, and publish the index; return its name."""
    name = build.path(f"{side}.faiss")
    if not build.output.exists(name):
        build.output.put_if_absent(name, merge(build.output.read(piece) for piece in pieces))
    return name


def gather_vectors(build: Build, side: Side) -> str:
    """Publish the float16 vectors of a side by row, zeros where a product has none; return the file's name."""
    name = build.path(f"{side}.vectors.npy")
    if not build.output.exists(name):
        vectors = np.zeros((build.manifest.num_products, build.manifest.fingerprint.dim), np.float16)
        for part in range(len(build.manifest.parts)):
            values, rows = build.vectors(part, side)
            vectors[rows] = values
        buffer = io.BytesIO()
        np.save(buffer, vectors, allow_pickle=False)
        build.output.put_if_absent(name, buffer.getvalue())
    return name


def gather_products(build: Build) -> tuple[str, str]:
    """Publish the products by row, and their rows in the order of their ids; return the names of both files.

    Raises:
        ArtifactError: a product id occurs twice.
    """
    products, order = build.path("products.arrow"), build.path("rows_by_id.npy")
    if build.output.exists(products) and build.output.exists(order):
        return products, order
    tables = []
    for table in iterate_parts(build.embeddings, build.manifest):
        tables.append(
            table.drop_columns([name for name in (*KEY_COLUMNS, *VECTOR_COLUMNS) if name in table.column_names])
        )
    table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables]).combine_chunks()
    ids = table.column("product_id").to_pylist()
    rows_by_id = sorted(range(len(ids)), key=ids.__getitem__)
    for first, second in itertools.pairwise(rows_by_id):
        if ids[first] == ids[second]:
            raise ArtifactError(f"{build.embeddings.uri}: product id {ids[first]!r} occurs twice")
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    build.output.put_if_absent(products, sink.getvalue())
    buffer = io.BytesIO()
    np.save(buffer, np.array(rows_by_id, np.int64), allow_pickle=False)
    build.output.put_if_absent(order, buffer.getvalue())
    return products, order


def calibrate_side(
    index: ProductIndex, side: Side, *, num_lists: int, target_recall: float, num_queries: int, seed: int
) -> dict[str, OperatingPoint]:
    """Measure how hard a side must be searched, by kind of query; see calibration.calibrate."""
    points: dict[str, OperatingPoint] = {}
    for kind in SIDES:
        if kind in index.sides:
            queries, rows = _sample_queries(index, kind, num_queries, seed)
            points[kind] = calibrate(
                index,
                against=side,
                query_kind=kind,
                queries=queries,
                own_rows=rows,
                num_lists=num_lists,
                target_recall=target_recall,
            )
    return points


def check_gates(index: ProductIndex, *, seed: int) -> dict[str, Any]:
    """Check that products find themselves; return what was found, for the manifest.

    Raises:
        ArtifactError: too many do not; the version must not be published.
    """
    found: dict[str, Any] = {}
    for side in index.sides:
        queries, rows = _sample_queries(index, side, NUM_GATE_PRODUCTS, seed)
        found_rows = index.search(queries, against=side, k=1, point=EVERYTHING).rows
        # On the stored vectors, not by FAISS's word; and by score, not by row: a duplicate is as good an answer.
        scores = rescore(queries, found_rows, index.sides[side].vectors)[:, 0]
        share = float(((found_rows[:, 0] >= 0) & (scores > 0.999)).mean()) if len(rows) else 1.0
        if share < MIN_SELF_FOUND:
            raise ArtifactError(f"{side} side: only {share:.0%} of sampled products find themselves; not published")
        found[f"{side}_self_found"] = share
    return found


def _sample_queries(
    index: ProductIndex, side: Side, num_queries: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return random products' vectors of a side, float32 [Q, D], and their rows, int64 [Q]."""
    stored = index.sides[side].vectors
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(len(stored), min(len(stored), 2 * num_queries), replace=False))
    vectors = stored[rows].astype(np.float32)
    present = np.flatnonzero(vectors.any(axis=1))[:num_queries]
    vectors = vectors[present]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rows[present]
