"""Vectors that cannot be right: not finite, not of unit length, or the same for many products.

N is the number of products, D the dimension.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LENGTH_TOLERANCE = 0.01
"""Half precision stores a unit vector with an error of about 0.0005."""
LARGEST_GROUPS = 10
SHOWN_ROWS = 10


@dataclass(frozen=True, slots=True)
class VectorHealth:
    """What is wrong with the vectors of one side."""

    num_products: int
    num_missing: int
    """Products without this side."""
    num_not_finite: int
    num_not_unit: int
    num_constant: int
    """Vectors whose values are all the same."""
    num_duplicated: int
    """Products whose vector, bit for bit, another product has too."""
    num_duplicate_groups: int
    largest_groups: list[list[int]]
    """First rows of the largest groups of products with one vector."""


def check_vectors(blocks: Iterable[tuple[int, NDArray[np.float16]]], is_listed: NDArray[np.bool_]) -> VectorHealth:
    """Look at all vectors of a side; memory grows by some bytes a product.

    Args:
        blocks: first row and float16 [B, D] of each block; rows of zeros have no such side.
        is_listed: bool [num_rows], which rows are products.
    """
    num_present = num_not_finite = num_not_unit = num_constant = 0
    hashes, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for first_row, block in blocks:
        vectors = block.astype(np.float32)
        is_present = block.any(axis=1)
        is_finite = np.isfinite(vectors).all(axis=1)
        lengths = np.linalg.norm(np.where(is_finite[:, None], vectors, 0), axis=1)
        num_present += int(is_present.sum())
        num_not_finite += int((~is_finite).sum())
        num_not_unit += int((is_present & is_finite & (np.abs(lengths - 1) > LENGTH_TOLERANCE)).sum())
        num_constant += int((is_present & (block == block[:, :1]).all(axis=1)).sum())
        present = np.flatnonzero(is_present)
        hashes.append(_hashes(block[present]))
        rows.append(first_row + present)
    groups = _groups(np.concatenate(hashes), np.concatenate(rows))
    num_products = int(is_listed.sum())
    return VectorHealth(
        num_products=num_products,
        num_missing=num_products - num_present,
        num_not_finite=num_not_finite,
        num_not_unit=num_not_unit,
        num_constant=num_constant,
        num_duplicated=sum(len(group) for group in groups),
        num_duplicate_groups=len(groups),
        largest_groups=[group[:SHOWN_ROWS].tolist() for group in groups[:LARGEST_GROUPS]],
    )


def _hashes(vectors: NDArray[np.float16]) -> NDArray[np.uint64]:
    """Return a number for each row, equal for equal rows and, but for a chance of 2^-49 a pair, for no others.

    Source: Dietzfelbinger, Universal hashing and k-wise independent random variables via integer arithmetic, 1996.
    """
    factors = np.random.default_rng(0).integers(1, 2**63, vectors.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    return np.ascontiguousarray(vectors).view(np.uint16).astype(np.uint64) @ factors


def _groups(hashes: NDArray[np.uint64], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows of vectors that are there more than once, the largest groups first."""
    order = np.lexsort((rows, hashes))
    bounds = np.flatnonzero(np.diff(hashes[order])) + 1
    groups = [group for group in np.split(rows[order], bounds) if len(group) > 1] if len(rows) else []
    return sorted(groups, key=lambda group: (-len(group), int(group[0])))
