"""Which FAISS index fits a number of vectors, and how hard it is searched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Side = Literal["image", "text", "fused"]
"""What products are compared by, and what queries are made from: a picture, a text, or a weighted sum of both."""
SIDES: tuple[Side, Side] = ("image", "text")
"""Those that embeddings have."""
SOURCES: dict[Side, tuple[Side, ...]] = {"image": ("image",), "text": ("text",), "fused": SIDES}
"""By side, what a product's vector is made of; a query that is the product's own vector of it finds itself there."""

CALIBRATED_K = 10
"""Operating points are measured for recall at this depth."""
MIN_IVF_VECTORS = 1000
"""Below this a scan over all vectors takes less time than one query's encoding."""
ID_BYTES = 8
MIN_POINTS_PER_CENTROID = 39
"""FAISS warns of fewer training points for each centroid (faiss/Clustering.h)."""
MAX_CODED_DIMS = 256
"""Dimensions after OPQ: more cost time and hardly raise recall of 512-dimensional CLIP vectors."""
LISTS_BY_VECTORS = ((1_000_000, None), (10_000_000, 16_384), (100_000_000, 65_536), (1_000_000_000, 262_144))
"""Lists above a million vectors, from FAISS's "Guidelines to choose an index"; None is 4 sqrt(N)."""
MAX_LISTS = 1_048_576
MIN_GRAPH_LISTS = 65_536
"""From here on, comparing a query with every centroid takes longer than a graph over them (HNSW)."""
HNSW_EF = 256
"""Depth of the search in that graph: FAISS's 16 sends vectors to wrong lists, and loses recall from 64 probes on."""
MAX_SMALL_CODES_TARGET = 0.97
"""Half-size codes do not reach more on text queries, however hard they are searched (docs/index.md)."""

Kind = Literal["flat", "ivf-pq", "ivf-rabitq", "ivf-sq8"]


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """What to build for one side."""

    factory: str
    """FAISS factory string."""
    reason: str
    """One line for the person who reads the job's output."""

    @property
    def is_exact(self) -> bool:
        """Whether it compares a query with every vector as it is."""
        return self.factory == "Flat"


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """How hard an index is searched."""

    num_probes: int
    """Lists of the IVF that are scanned; ignored by an exact index."""
    rescore_factor: int
    """Candidates that are scored again on the stored vectors, as a multiple of k (of 10 where k is smaller, as that is
    what was calibrated); 0 takes the index's own scores."""
    recall_at_10: float | None = None
    """Measured against exact search on this index's own products; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """An operating point that was tried, what it found of what exact search finds, and what it cost."""

    num_probes: int
    rescore_factor: int
    recall_at_1: float
    recall_at_10: float
    recall_at_100: float
    cpu_ms: float
    """CPU time a query of the ten nearest, in a batch, on the machine that built the index."""
    front_of: tuple[int, ...] = ()
    """The k of 1, 10 and 100 at which no point has more recall for less."""


EXACT = OperatingPoint(num_probes=1, rescore_factor=0, recall_at_10=1.0)


def choose_spec(
    num_vectors: int,
    dim: int,
    *,
    kind: Kind | None = None,
    factory: str | None = None,
    target_recall: float = 0.95,
    memory_bytes: int | None = None,
) -> IndexSpec:
    """Choose a FAISS index.

    Args:
        num_vectors: vectors that will be in it.
        dim: their dimension.
        kind: overrides the choice of a kind.
        factory: a FAISS factory string that overrides the whole choice.
        target_recall: recall@10 that operating points will be calibrated for.
        memory_bytes: what the codes of this side may take in a reader's memory; None is no limit.

    Returns:
        The factory string and why.
    """
    if factory is not None:
        return IndexSpec(factory, "named by --factory")
    if kind == "flat" or (kind is None and num_vectors < MIN_IVF_VECTORS):
        few = "are too few to train IVF-PQ on" if kind is None else "are compared as they are, as --kind says"
        return IndexSpec("Flat", f"exact search: {num_vectors:,} vectors {few}")
    lists = choose_num_lists(num_vectors)
    ivf = f"IVF{lists}_HNSW32" if lists >= MIN_GRAPH_LISTS else f"IVF{lists}"
    if kind == "ivf-sq8":
        return IndexSpec(f"{ivf},SQ8", f"8 bits a dimension: {lists:,} lists, {dim} bytes a vector, mapped from disk")
    if kind == "ivf-rabitq":
        why = f"1 bit a dimension: {lists:,} lists, {dim // 8 + 8} bytes a vector, mapped from disk, quickly trained"
        return IndexSpec(f"RR{dim},{ivf},RaBitQ", why)
    return _choose_codes(num_vectors, dim, ivf, lists, target_recall, memory_bytes)


def _choose_codes(
    num_vectors: int, dim: int, ivf: str, lists: int, target_recall: float, memory_bytes: int | None
) -> IndexSpec:
    """Return IVF-PQ with 4-bit codes of two dimensions each, or of four, where memory is short and the target low."""
    coded_dims = min(MAX_CODED_DIMS, dim - dim % 4)
    codes = coded_dims // 2
    why = f"IVF-PQ: {lists:,} lists for {num_vectors:,} vectors"
    needed = num_vectors * (codes // 2 + ID_BYTES)
    if memory_bytes is not None and needed > memory_bytes:
        if target_recall <= MAX_SMALL_CODES_TARGET:
            codes //= 2
            why += ", small codes to save memory"
        else:
            why += f", {needed / 2**30:.1f} GiB in spite of --memory-gib: smaller codes miss the target recall"
    factory = f"OPQ{codes}_{coded_dims},{ivf},PQ{codes}x4fsr"
    return IndexSpec(factory, f"{why}, {codes // 2} bytes a vector beside its id, candidates re-scored on float16")


def choose_num_lists(num_vectors: int) -> int:
    """Return the lists of an IVF: a power of two near the guideline, with enough training points for each."""
    wanted = MAX_LISTS
    for limit, lists in LISTS_BY_VECTORS:
        if num_vectors <= limit:
            wanted = lists or round(4 * num_vectors**0.5)
            break
    return 1 << (min(wanted, num_vectors // MIN_POINTS_PER_CENTROID).bit_length() - 1)


def num_lists(factory: str) -> int:
    """Return the number of lists in a FAISS factory string; 1 where it has no IVF."""
    found = re.search(r"IVF(\d+)", factory)
    return int(found.group(1)) if found else 1
