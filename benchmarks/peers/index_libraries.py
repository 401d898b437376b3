"""Other libraries' indexes: how each is built, and opened for search.

Runs in the environment of the library in question, so nothing is imported here that is not numpy; each function
imports its own. Settings are those that a library's documentation recommends or has as defaults. N is the number of
vectors, D their dimension.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "text"]
Knobs = Mapping[str, int]
Search = Callable[[NDArray[np.float32], Kind, Knobs], NDArray[np.int64]]
"""Queries, what they are, and how hard to search; returns int64 [Q, K] rows, -1 or any number that is no row pads."""

K = 10
BYTES_PER_VECTOR = 80
"""Memory that autofaiss is given: what an index here may take."""


@dataclass(frozen=True, slots=True)
class Source:
    """What an index is built from: the same vectors twice."""

    vectors: Path
    """float32 [N, D] .npy file."""
    embeddings: Path
    """The artefact that the file was made from."""


def build_faiss_hnsw(source: Source, folder: Path) -> None:
    """Build faiss's graph of 8-bit vectors."""
    import faiss

    vectors = np.load(source.vectors)
    index = faiss.index_factory(vectors.shape[1], "HNSW32,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))


def open_faiss_hnsw(folder: Path) -> tuple[Search, str]:
    """Open it."""
    import faiss

    index = faiss.read_index(str(folder / "index.faiss"))

    def search(queries: NDArray[np.float32], _: Kind, knobs: Knobs) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(
            queries, K, params=faiss.SearchParametersHNSW(efSearch=knobs["efSearch"])
        )[1]
        return found

    return search, "HNSW32,SQ8, efConstruction 40 (default)"


def build_autofaiss(source: Source, folder: Path) -> None:
    """Let autofaiss choose within the memory that an index here may take."""
    from autofaiss import build_index

    num_vectors = len(np.load(source.vectors, mmap_mode="r"))
    limit = f"{num_vectors * BYTES_PER_VECTOR / 1e6:.1f}MB"
    embeddings = folder / "embeddings"
    embeddings.mkdir()
    (embeddings / "0.npy").symlink_to(source.vectors.resolve())
    built, _ = build_index(
        str(embeddings),
        index_path=str(folder / "index.faiss"),
        index_infos_path=str(folder / "infos.json"),
        metric_type="ip",
        max_index_memory_usage=limit,
        current_memory_available="16G",
    )
    if built is None:  # it reports this and returns
        raise RuntimeError(f"autofaiss found no index of {limit}")


def open_autofaiss(folder: Path) -> tuple[Search, str]:
    """Open what it chose."""
    import faiss

    index = faiss.read_index(str(folder / "index.faiss"))
    infos = json.loads((folder / "infos.json").read_text())
    space = faiss.ParameterSpace()
    has_graph = "HNSW" in infos["index_key"]

    def search(queries: NDArray[np.float32], _: Kind, knobs: Knobs) -> NDArray[np.int64]:
        probes = knobs.get("nprobe")
        graph = f",efSearch={max(2 * probes, 128)}" if has_graph and probes else ""
        space.set_index_parameters(index, f"nprobe={probes}{graph}" if probes else infos["index_param"])
        found: NDArray[np.int64] = index.search(queries, K)[1]
        return found

    return search, f"{infos['index_key']}, its choice: {infos['index_param']}"


def build_hnswlib(source: Source, folder: Path) -> None:
    """Build hnswlib's graph with the settings of its examples."""
    import hnswlib

    vectors = np.load(source.vectors)
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), ef_construction=200, M=16)
    index.add_items(vectors)
    index.save_index(str(folder / "index.bin"))
    (folder / "dim").write_text(str(vectors.shape[1]))


def open_hnswlib(folder: Path) -> tuple[Search, str]:
    """Open it."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=int((folder / "dim").read_text()))
    index.load_index(str(folder / "index.bin"))
    index.set_num_threads(1)

    def search(queries: NDArray[np.float32], _: Kind, knobs: Knobs) -> NDArray[np.int64]:
        index.set_ef(knobs["ef"])
        found: NDArray[np.uint64] = index.knn_query(queries, k=K)[0]
        return found.astype(np.int64)

    return search, "float32, M 16, ef_construction 200"


def build_usearch(dtype: str) -> Callable[[Source, Path], None]:
    """Return what builds a usearch graph of vectors of a type."""

    def build(source: Source, folder: Path) -> None:
        from usearch.index import Index

        vectors = np.load(source.vectors)
        index = Index(ndim=vectors.shape[1], metric="ip", dtype=dtype)
        index.add(np.arange(len(vectors)), vectors)
        index.save(str(folder / "index.usearch"))

    return build


def open_usearch(folder: Path) -> tuple[Search, str]:
    """Open it."""
    from usearch.index import Index

    index = Index.restore(str(folder / "index.usearch"), view=False)

    def search(queries: NDArray[np.float32], _: Kind, knobs: Knobs) -> NDArray[np.int64]:
        index.expansion_search = knobs["expansion"]
        keys = np.asarray(index.search(queries, K, threads=1).keys)
        return keys.reshape(len(queries), -1).astype(np.int64)

    return search, f"connectivity {index.connectivity}, expansion_add {index.expansion_add} (defaults)"


def build_scann(source: Source, folder: Path) -> None:
    """Build as ScaNN's documentation advises for this size."""
    import scann

    vectors = np.load(source.vectors)
    leaves = round(len(vectors) ** 0.5)
    builder = scann.scann_ops_pybind.builder(vectors, K, "dot_product")
    builder = builder.tree(num_leaves=leaves, num_leaves_to_search=leaves // 20, training_sample_size=len(vectors))
    builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
    target = folder / "index"
    target.mkdir()
    builder.build().serialize(str(target))
    (folder / "leaves").write_text(str(leaves))


def open_scann(folder: Path) -> tuple[Search, str]:
    """Open it."""
    import scann

    searcher = scann.scann_ops_pybind.load_searcher(str(folder / "index"))
    leaves = int((folder / "leaves").read_text())

    def search(queries: NDArray[np.float32], _: Kind, knobs: Knobs) -> NDArray[np.int64]:
        options = {"pre_reorder_num_neighbors": knobs["reorder"], "leaves_to_search": min(knobs["leaves"], leaves)}
        if len(queries) == 1:
            return np.asarray(searcher.search(queries[0], final_num_neighbors=K, **options)[0], np.int64)[None]
        return np.asarray(searcher.search_batched(queries, final_num_neighbors=K, **options)[0], np.int64)

    return search, f"{leaves:,} leaves (root of N), anisotropic 4-bit codes of 2 dimensions, float32 re-scoring"


def build_lancedb(source: Source, folder: Path) -> None:
    """Build LanceDB's default IVF_PQ."""
    import lancedb
    import pyarrow as pa

    vectors = np.load(source.vectors, mmap_mode="r")
    dim = vectors.shape[1]
    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])

    def batches() -> Any:
        for start in range(0, len(vectors), 10_000):
            block = np.asarray(vectors[start : start + 10_000])
            rows = pa.array(np.arange(start, start + len(block)))
            flat = pa.array(block.reshape(-1))
            yield pa.record_batch([rows, pa.FixedSizeListArray.from_arrays(flat, dim)], schema=schema)

    table = lancedb.connect(str(folder)).create_table("vectors", batches(), schema=schema)
    table.create_index(metric="dot", index_type="IVF_PQ", vector_column_name="vector")


def open_lancedb(folder: Path) -> tuple[Search, str]:
    """Open it."""
    import lancedb

    table = lancedb.connect(str(folder)).open_table("vectors")

    def search(queries: NDArray[np.float32], _: Kind, knobs: Knobs) -> NDArray[np.int64]:
        rows = np.full((len(queries), K), -1)
        for i, query in enumerate(queries):
            found = table.search(query).nprobes(knobs["nprobes"]).refine_factor(knobs["refine"]).limit(K)
            # Without the distance it warns at every query, which takes longer than the search.
            column = found.select(["row", "_distance"]).to_arrow().column("row").to_numpy()
            rows[i, : len(column)] = column
        return rows

    return search, "partitions and sub-vectors as by default, float32 re-scoring"
