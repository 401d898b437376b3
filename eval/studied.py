"""Products that have a picture and a text, with their neighbours on either side: what the analysis looks at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Studied:
    """N products that ask and have both sides."""

    rows: NDArray[np.int64]
    """[N], ascending."""
    images: NDArray[np.float32]
    """[N, D], unit length."""
    texts: NDArray[np.float32]
    """[N, D], unit length."""
    image_neighbours: NDArray[np.int64]
    """[N, k] nearest other products by picture; -1 pads."""
    image_scores: NDArray[np.float32]
    """[N, k]."""
    text_neighbours: NDArray[np.int64]
    """[N, k] by text."""
    percentiles: NDArray[np.float64]
    """[N], see alignment.pair_percentiles."""
