"""Hits that are nearly equal to a better one: the same picture twice, cut or compressed anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def distinct(vectors: NDArray[np.float32], threshold: float) -> list[int]:
    """Return which hits remain when of hits that are nearly equal, directly or through others, only the best is kept.

    Args:
        vectors: float32 [N, D] of the hits, best first.
        threshold: cosine similarity above which two are nearly equal.

    Returns:
        Their places, ascending.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    is_near = unit @ unit.T > threshold
    is_taken = np.zeros(len(unit), np.bool_)
    kept = []
    for place in range(len(unit)):
        if is_taken[place]:
            continue
        kept.append(place)
        reached = np.zeros(len(unit), np.bool_)
        reached[place] = True
        while reached.any():
            is_taken |= reached
            reached = is_near[reached].any(axis=0) & ~is_taken
    return kept
