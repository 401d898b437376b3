"""The fused side: of each product, the weighted sum of its picture's and its text's vector, of unit length.

A product with one vector keeps that one. N is the number of products, D the dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.embeddings import vectors_of
from product_retrieval.index.spec import SIDES, Side

MIN_LENGTH = 1e-3
"""Of a sum: below it the direction is rounding, as vectors are kept in float16."""


@dataclass(frozen=True, slots=True)
class MeasuredWeight:
    """A weight that was tried, and how well the other products of a group were found with it, by kind of query."""

    image_weight: float
    reciprocal_rank: dict[Side, float]
    """Mean over the queries of 1 / place of the first of them."""
    hit_at_10: dict[Side, float]
    """Share of the queries that have one of them among the first ten."""

    @property
    def mean_reciprocal_rank(self) -> float:
        """Mean over the kinds of query."""
        return sum(self.reciprocal_rank.values()) / len(self.reciprocal_rank)


@dataclass(frozen=True, slots=True)
class Fusion:
    """What the vectors of a fused side are the sums of."""

    image_weight: float
    """w of w x picture + (1 - w) x text."""
    measured: tuple[MeasuredWeight, ...] = ()
    """What was tried; nothing where the weight was named."""
    num_queries: dict[Side, int] | None = None
    """By kind; None where nothing was tried."""
    num_products: int | None = None
    """Products of the sample that was searched; None where nothing was tried."""


def parse_fusion(record: Mapping[str, Any] | None) -> Fusion | None:
    """Return what a manifest says of a fused side; None where it says nothing."""
    if record is None:
        return None
    return Fusion(**{**record, "measured": tuple(MeasuredWeight(**each) for each in record["measured"])})


def describe_fusion(fusion: Fusion) -> str:
    """Return the weight and why it was chosen, in one line."""
    weight = f"{fusion.image_weight:g} x picture + {1 - fusion.image_weight:g} x text"
    if not fusion.measured or fusion.num_queries is None:
        return f"{weight}, named by --fused-weight"
    chosen = next(each for each in fusion.measured if each.image_weight == fusion.image_weight)
    found = " and ".join(
        f"{chosen.reciprocal_rank[kind]:.3f} of {fusion.num_queries[kind]:,} {kind} queries" for kind in SIDES
    )
    return f"{weight}: the best of {len(fusion.measured)} weights tried, MRR {found} for others of their group"


def coefficients(
    images: NDArray[np.float32], texts: NDArray[np.float32], image_weight: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return by what a product's vectors are multiplied, so that their sum has unit length.

    Args:
        images: float32 [N, D], unit length; zeros where a product has no picture.
        texts: float32 [N, D], unit length; zeros where a product has no text.
        image_weight: share of the picture, from 0 to 1.

    Returns:
        float32 [N] for the pictures and float32 [N] for the texts. Of vectors that cancel each other out, the heavier
        one is taken alone (the picture, where both weigh the same).
    """
    has_image, has_text = images.any(axis=1), texts.any(axis=1)
    of_image = np.where(has_text, image_weight, 1.0) * has_image
    of_text = np.where(has_image, 1.0 - image_weight, 1.0) * has_text
    cosines = np.einsum("nd,nd->n", images, texts, dtype=np.float64)
    squares = of_image**2 + of_text**2 + 2 * of_image * of_text * cosines
    cancels = squares < MIN_LENGTH**2
    is_image = cancels & has_image & (image_weight >= 0.5)
    of_image = np.where(cancels, is_image, of_image)
    of_text = np.where(cancels, has_text & ~is_image, of_text)
    lengths = np.sqrt(np.where(cancels, 1.0, squares))
    return (of_image / lengths).astype(np.float32), (of_text / lengths).astype(np.float32)


def fuse_vectors(images: NDArray[np.float32], texts: NDArray[np.float32], image_weight: float) -> NDArray[np.float32]:
    """Return the weighted sums, float32 [N, D] of unit length, zeros where a product has neither; see coefficients."""
    of_image, of_text = coefficients(images, texts, image_weight)
    return np.asarray(of_image[:, None] * images + of_text[:, None] * texts, np.float32)


def side_vectors(
    table: pa.Table, side: Side, image_weight: float | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the vectors of a side that products of a part have.

    Args:
        table: rows of a part, with the vector columns that the side is made of.
        side: which.
        image_weight: share of the picture in the fused side; the other sides need none.

    Returns:
        float32 [M, D] and the int64 [M] rows of `table` that they belong to.

    Raises:
        ValueError: the fused side is asked for without a weight.
    """
    if side != "fused":
        return vectors_of(table, f"{side}_vector")
    if image_weight is None:
        raise ValueError("the fused side has no weight")
    images, texts = (with_gaps(table, made_of) for made_of in SIDES)
    rows = np.flatnonzero(images.any(axis=1) | texts.any(axis=1))
    return fuse_vectors(images[rows], texts[rows], image_weight), rows


def with_gaps(table: pa.Table, side: Side) -> NDArray[np.float32]:
    """Return the unit vectors of a side by row, float32 [N, D], zeros where a product has none."""
    present, rows = vectors_of(table, f"{side}_vector")
    vectors = np.zeros((len(table), present.shape[1]), np.float32)
    vectors[rows] = present / np.linalg.norm(present, axis=1, keepdims=True)
    return vectors
