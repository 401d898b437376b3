"""What every index is measured on: one file of vectors, queries of both kinds, and their exact neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.clip_like import ClipLike, Geometry, write_embeddings
from benchmarks.peers.index_libraries import K
from product_retrieval.embeddings import MANIFEST, read_manifest, read_part, vectors_of
from product_retrieval.index import Side
from product_retrieval.storage import Storage

SIDES: tuple[Side, Side] = ("image", "text")
TRUTH_BLOCK = 20_000
SEED = 7


def make_data(folder: Path, num_products: int, *, num_queries: int, num_threads: int = 2) -> None:
    """Make embeddings, their picture vectors as one file, queries and true neighbours; what is there is kept.

    Args:
        folder: for `embeddings/`, `vectors.npy`, `queries-*.npy` and `truth-*.npy`.
        num_products: in the embeddings, each with a picture and a text.
        num_queries: of each kind.
        num_threads: blocks of products made at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = ClipLike(Geometry(), seed=SEED)
    embeddings = Storage.at(folder / "embeddings")
    if not embeddings.exists(MANIFEST):
        write_embeddings(embeddings, source, num_products, num_threads=num_threads)
    if not (folder / "vectors.npy").exists():
        write_vectors(embeddings, folder / "vectors.npy")
    for kind in SIDES:
        if not (folder / f"truth-{kind}.npy").exists():
            queries = source.queries(kind, num_queries, num_products=num_products)
            truth = exact_neighbours(queries, np.load(folder / "vectors.npy", mmap_mode="r"), K)
            np.save(folder / f"queries-{kind}.npy", queries)
            np.save(folder / f"truth-{kind}.npy", truth)


def write_vectors(embeddings: Storage, path: Path) -> None:
    """Write the picture vectors of embeddings as float32 [N, D] of unit length, one part at a time."""
    manifest = read_manifest(embeddings)
    staged = path.with_suffix(".partial.npy")
    shape = (manifest.num_products, manifest.fingerprint.dim)
    out: Any = np.lib.format.open_memmap(staged, mode="w+", dtype=np.float32, shape=shape)
    first = 0
    for part in manifest.parts:
        vectors, rows = vectors_of(read_part(embeddings, part, ["image_vector"]), "image_vector")
        out[first + rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)  # float16 rounded them
        first += part.num_products
    out.flush()
    del out
    staged.rename(path)


def exact_neighbours(queries: NDArray[np.float32], vectors: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the rows of the k vectors of largest inner product, best first.

    Args:
        queries: float32 [Q, D].
        vectors: float32 [N, D]; may be memory-mapped.
        k: at most N.

    Returns:
        int64 [Q, k]; equal scores in the order of rows, but which of those that tie for the last place is arbitrary.
    """
    rows = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(vectors), TRUTH_BLOCK):
        block = queries @ np.asarray(vectors[start : start + TRUTH_BLOCK]).T
        best = np.argpartition(-block, min(k, block.shape[1] - 1), axis=1)[:, :k]
        rows = np.hstack([rows, best + start])
        scores = np.hstack([scores, np.take_along_axis(block, best, 1)])
        order = np.lexsort((rows, -scores), axis=1)[:, :k]
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    return rows
