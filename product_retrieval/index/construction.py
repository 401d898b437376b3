"""How a FAISS index comes about: trained once, filled in pieces by many, merged by one.

Every piece starts as a copy of the trained, empty index, so pieces can be filled anywhere and in any order; merged
in the order of the rows they hold the same codes in the same lists as one that was filled serially. N is the number
of vectors, D their dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.index.shard import ivf_of
from product_retrieval.index.spec import HNSW_EF, IndexSpec, num_lists

OPQ_ITERATIONS = 20
"""FAISS's default of 50 takes minutes at 512 dimensions."""
TRAINING_POINTS_PER_LIST = 64
"""Between FAISS's warning below 39 and its own cut at 256 (faiss/Clustering.h)."""
TRAINING_COPIES = 4
"""Of the sample as float32: as gathered, joined, rotated, and residuals."""
MIN_TRAINING_POINTS = 65_536
"""A product quantizer of FAISS samples down to this by itself; training on more of the vectors is wasted on it."""
MIN_BYTE_LIMIT = 4 << 30
"""No array of a file is larger than the file, but FAISS 1.15.1 also counts a table that it computes for L2 only."""


def num_training_points(num_vectors: int, spec: IndexSpec, dim: int, memory_bytes: int) -> int:
    """Return how many vectors to train on: enough for the lists, no more than memory holds TRAINING_COPIES of."""
    wanted = max(MIN_TRAINING_POINTS, num_lists(spec.factory) * TRAINING_POINTS_PER_LIST)
    return min(num_vectors, wanted, max(memory_bytes // (TRAINING_COPIES * dim * 4), MIN_TRAINING_POINTS))


def train(vectors: NDArray[np.float32], spec: IndexSpec, *, seed: int, num_threads: int | None = None) -> bytes:
    """Train an empty index.

    Args:
        vectors: float32 [N, D] training sample.
        spec: what to build.
        seed: of k-means.
        num_threads: of FAISS; None leaves them as they are.

    Returns:
        The empty, trained index as FAISS writes it.

    Raises:
        OptionsError: FAISS does not know the factory string, or cannot train it on so few vectors.
    """
    import faiss

    if num_threads is not None:
        faiss.omp_set_num_threads(num_threads)
    index = make_index(spec.factory, vectors.shape[1])
    _configure(index, seed)
    try:
        index.train(np.ascontiguousarray(vectors))
    except RuntimeError as error:
        raise OptionsError(
            f"FAISS cannot make {spec.factory!r} of {len(vectors):,} x {vectors.shape[1]}: {error}"
        ) from error
    _stay_on_cpu(index)
    return serialize(index)


def fill(trained: bytes, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> bytes:
    """Add vectors to a copy of a trained, empty index.

    Args:
        trained: from train.
        vectors: float32 [N, D].
        rows: int64 [N], the id of each: its product's row.

    Returns:
        The filled piece as FAISS writes it.
    """
    import faiss

    index = deserialize(trained)
    if isinstance(faiss.downcast_index(index), faiss.IndexFlat):
        index = faiss.IndexIDMap2(index)
    if len(rows):
        index.add_with_ids(np.ascontiguousarray(vectors), rows)
    return serialize(index)


def merge(pieces: Iterable[bytes]) -> Any:
    """Merge filled pieces, in order, into one index, never holding more than one of them beside it.

    Raises:
        ValueError: there are no pieces.
    """
    merged = None
    for data in pieces:
        piece = deserialize(data)
        if merged is None:
            merged = piece
        else:
            merged.merge_from(piece, 0)
    if merged is None:
        raise ValueError("no pieces to merge")
    return merged


def merge_into_file(pieces: Iterable[bytes], path: Path) -> None:
    """Merge filled pieces, in order, and write the index to a file."""
    import faiss

    faiss.write_index(merge(pieces), str(path))


def bytes_per_vector(factory: str, dim: int) -> int:
    """Return what a vector takes in an index, its id included.

    Raises:
        OptionsError: FAISS does not know the factory string.
    """
    index = make_index(factory, dim)
    ivf = ivf_of(index)
    return int(index.sa_code_size() if ivf is None else ivf.code_size) + 8


def make_index(factory: str, dim: int) -> Any:
    """Return an empty, untrained index.

    Raises:
        OptionsError: FAISS does not know the factory string.
    """
    import faiss

    try:
        return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise OptionsError(f"FAISS cannot make {factory!r} of {dim} dimensions: {error}") from error


def serialize(index: Any) -> bytes:
    """Return an index as FAISS writes it."""
    import faiss

    return bytes(faiss.serialize_index(index).tobytes())


def deserialize(data: bytes) -> Any:
    """Return the index in bytes that FAISS wrote.

    Raises:
        ArtifactError: FAISS cannot read them.
    """
    import faiss

    faiss.set_deserialization_vector_byte_limit(max(len(data), MIN_BYTE_LIMIT))
    try:
        return faiss.deserialize_index(np.frombuffer(data, np.uint8), faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE)
    except RuntimeError as error:
        raise ArtifactError(f"not a FAISS index: {error}") from error


def is_mappable(factory: str) -> bool:
    """Return whether an index can be used where it lies in a file: fast-scan codes are copied into memory anyway."""
    return "fs" not in factory


def read_index_file(path: str, size_bytes: int, *, is_mapped: bool) -> Any:
    """Return the index in a local file; mapped, readers on one machine share its arrays.

    Raises:
        ArtifactError: FAISS cannot read it.
    """
    import faiss

    faiss.set_deserialization_vector_byte_limit(max(size_bytes, MIN_BYTE_LIMIT))
    try:
        return faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC if is_mapped else 0)
    except RuntimeError as error:
        raise ArtifactError(f"{path}: not a FAISS index: {error}", path=path) from error


def check(index: Any, *, num_vectors: int, dim: int) -> None:
    """Check that an index holds what it should.

    Raises:
        ArtifactError: a count, the dimension or the metric is wrong, or a centroid is not finite.
    """
    import faiss

    ivf = ivf_of(index)
    listed = num_vectors if ivf is None else sum(ivf.invlists.list_size(i) for i in range(ivf.nlist))
    found = (index.ntotal, listed, index.d, index.metric_type)
    if found != (num_vectors, num_vectors, dim, faiss.METRIC_INNER_PRODUCT):
        raise ArtifactError(f"index has (vectors, in lists, dimension, metric) {found}, not {(num_vectors, dim)}")
    if ivf is not None:
        centroids = ivf.quantizer.reconstruct_n(0, ivf.nlist)
        if not np.isfinite(centroids).all():
            raise ArtifactError("index has centroids that are not finite")


def _configure(index: Any, seed: int) -> None:
    """Seed what is random, keep OPQ short, and let a GPU do the assignments where there is one."""
    import faiss

    inside = ivf_of(index)
    ivf = None if inside is None else faiss.downcast_index(inside)
    if isinstance(index, faiss.IndexPreTransform):
        for position in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(position))
            if isinstance(transform, faiss.OPQMatrix):
                transform.niter = OPQ_ITERATIONS
                if isinstance(ivf, faiss.IndexIVFPQFastScan):
                    # Left alone, it would rotate for 256 centroids where the codes have 16, and take far longer.
                    quantizer = faiss.ProductQuantizer(transform.d_out, ivf.pq.M, ivf.pq.nbits)
                    quantizer.this.disown()
                    transform.pq = quantizer
    if ivf is None:
        return
    if isinstance(ivf, faiss.IndexIVFPQ):
        ivf.do_polysemous_training = False  # minutes of annealing for a filter that is not used here
    quantizer = faiss.downcast_index(ivf.quantizer)
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw.efSearch = HNSW_EF
    ivf.cp.seed = seed
    if _num_gpus():
        ivf.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(ivf.d))


def _stay_on_cpu(index: Any) -> None:
    """Detach the GPU from a trained index: what is written and filled is the same with and without one."""
    ivf = ivf_of(index)
    if ivf is not None:
        ivf.clustering_index = None


def _num_gpus() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0
