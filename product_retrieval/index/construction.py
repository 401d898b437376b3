"""How a FAISS index comes about: trained once, filled in pieces by many, merged by one.

Every piece starts as a copy of the trained, empty index, so pieces can be filled anywhere and in any order; merged
in the order of the rows they hold the same codes in the same lists as one that was filled serially. N is the number
of vectors, D their dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.index.spec import IndexSpec, num_lists

OPQ_ITERATIONS = 20
"""FAISS's default of 50 takes minutes at 512 dimensions."""
MAX_TRAINING_POINTS_PER_LIST = 256
MIN_TRAINING_POINTS = 65_536
"""A product quantizer of FAISS samples down to this by itself; training on more of the vectors is wasted on it."""


def num_training_points(num_vectors: int, spec: IndexSpec) -> int:
    """Return how many vectors to train on."""
    lists = num_lists(spec.factory)
    return min(num_vectors, max(MIN_TRAINING_POINTS, lists * MAX_TRAINING_POINTS_PER_LIST // 4))


def train(vectors: NDArray[np.float32], spec: IndexSpec, *, seed: int) -> bytes:
    """Train an empty index.

    Args:
        vectors: float32 [N, D] training sample.
        spec: what to build.
        seed: of k-means.

    Returns:
        The empty, trained index as FAISS writes it.

    Raises:
        OptionsError: FAISS does not know the factory string, or cannot train it on so few vectors.
    """
    import faiss

    try:
        index = faiss.index_factory(vectors.shape[1], spec.factory, faiss.METRIC_INNER_PRODUCT)
        _configure(index, seed)
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


def merge(pieces: Iterable[bytes]) -> bytes:
    """Merge filled pieces, in order, into one index.

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
    return serialize(merged)


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

    try:
        return faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise ArtifactError(f"not a FAISS index: {error}") from error


def check(index: Any, *, num_vectors: int, dim: int) -> None:
    """Check that an index holds what it should.

    Raises:
        ArtifactError: a count, the dimension or the metric is wrong, or a centroid is not finite.
    """
    import faiss

    ivf = _ivf(index)
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

    if isinstance(index, faiss.IndexPreTransform):
        for position in range(index.chain.size()):
            transform = faiss.downcast_VectorTransform(index.chain.at(position))
            if isinstance(transform, faiss.OPQMatrix):
                transform.niter = OPQ_ITERATIONS
    ivf = _ivf(index)
    if ivf is None:
        return
    ivf.cp.seed = seed
    if _num_gpus():
        ivf.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(ivf.d))


def _stay_on_cpu(index: Any) -> None:
    """Detach the GPU from a trained index: what is written and filled is the same with and without one."""
    ivf = _ivf(index)
    if ivf is not None:
        ivf.clustering_index = None


def _num_gpus() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def _ivf(index: Any) -> Any | None:
    import faiss

    try:
        return faiss.extract_index_ivf(index)
    except RuntimeError:  # FAISS's way of saying that there is none inside
        return None
