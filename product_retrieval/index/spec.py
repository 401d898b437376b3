"""Which FAISS index fits a number of vectors, and how hard it is searched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Side = Literal["image", "text"]
SIDES: tuple[Side, Side] = ("image", "text")

CALIBRATED_K = 10
"""Operating points are measured for recall at this depth."""
MIN_IVF_VECTORS = 1000
"""Below this a scan over all vectors takes less time than one query's encoding."""
MIN_POINTS_PER_CENTROID = 39
"""FAISS warns of fewer training points for each centroid (faiss/Clustering.h)."""
MAX_CODED_DIMS = 256
"""Dimensions after OPQ: more cost time and hardly raise recall of 512-dimensional CLIP vectors."""
LISTS_BY_VECTORS = ((1_000_000, None), (10_000_000, 16_384), (100_000_000, 65_536), (1_000_000_000, 262_144))
"""Lists above a million vectors, from FAISS's "Guidelines to choose an index"; None is 4 sqrt(N)."""
MAX_LISTS = 1_048_576


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


EXACT = OperatingPoint(num_probes=1, rescore_factor=0, recall_at_10=1.0)


def choose_spec(num_vectors: int, dim: int, factory: str | None = None) -> IndexSpec:
    """Choose a FAISS index.

    Args:
        num_vectors: vectors that will be in it.
        dim: their dimension.
        factory: a FAISS factory string that overrides the choice.

    Returns:
        The factory string and why.
    """
    if factory is not None:
        return IndexSpec(factory, "named by --factory")
    if num_vectors < MIN_IVF_VECTORS:
        return IndexSpec("Flat", f"exact search: {num_vectors:,} vectors are too few to train IVF-PQ on")
    num_lists = choose_num_lists(num_vectors)
    coded_dims = min(MAX_CODED_DIMS, dim - dim % 4)
    codes = coded_dims // 2
    return IndexSpec(
        f"OPQ{codes}_{coded_dims},IVF{num_lists},PQ{codes}x4fsr",
        f"IVF-PQ: {num_lists:,} lists for {num_vectors:,} vectors, {codes // 2} bytes a vector beside its id, "
        "candidates re-scored on float16",
    )


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
