"""How well the pictures and the texts of the same products lie together in the shared space.

All functions take unit vectors: images float32 [N, D] and texts float32 [N, D], the same product in a row. What is
compared in pairs is computed on seeded samples, so that nothing grows with N squared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
MAX_PAIRS = 200_000
"""Random pairs behind the uniformity and the similarity of products that do not belong together."""
NUM_BINS = 60
COMPARED_TEXTS = 1_000
"""Other products that each product's own pair is compared with."""
TILE_ROWS = 4_096


@dataclass(frozen=True, slots=True)
class Similarities:
    """Cosine similarity of pictures with their own texts, and with those of other products."""

    edges: list[float]
    """NUM_BINS + 1 limits of the bins."""
    own: list[float]
    """Share of the own pairs in each bin."""
    other: list[float]
    """Share of the other pairs in each bin."""
    own_mean: float
    other_mean: float
    overlap: float
    """Share that both distributions have in common, from 0 to 1."""
    auc: float
    """Chance that an own pair is more similar than another one; ties count half."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The alignment of the modalities in numbers."""

    num_pairs: int
    alignment: float
    """Mean squared distance of a picture and its own text, 0 to 4: lower is better."""
    image_uniformity: float
    text_uniformity: float
    """Log mean of exp(-2 d^2) over random pairs, 0 where all vectors are one: lower is spread out more."""
    gap: float
    """Distance of the mean picture and the mean text."""
    centroid_cosine: float
    image_dimensions: float
    text_dimensions: float
    """Directions that the vectors really use."""
    similarities: Similarities


def measure_alignment(images: Vectors, texts: Vectors, *, seed: int) -> Alignment:
    """Return the alignment of at least two products.

    Raises:
        ValueError: the shapes differ, or there are fewer than two products.
    """
    if images.shape != texts.shape or len(images) < 2:
        raise ValueError(f"need two products or more and equal shapes, got {images.shape} and {texts.shape}")
    mean_image, mean_text = images.mean(axis=0), texts.mean(axis=0)
    lengths = float(np.linalg.norm(mean_image) * np.linalg.norm(mean_text))
    return Alignment(
        num_pairs=len(images),
        alignment=alignment(images, texts),
        image_uniformity=uniformity(images, seed=seed),
        text_uniformity=uniformity(texts, seed=seed),
        gap=float(np.linalg.norm(mean_image - mean_text)),
        centroid_cosine=float(mean_image @ mean_text) / lengths if lengths > 0 else 0.0,
        image_dimensions=effective_dimensions(images),
        text_dimensions=effective_dimensions(texts),
        similarities=similarities(images, texts, seed=seed),
    )


def alignment(images: Vectors, texts: Vectors) -> float:
    """Return the mean squared distance of a picture and its own text.

    Source: Wang and Isola, Understanding contrastive representation learning through alignment and uniformity on the
        hypersphere, ICML 2020, section 4.1 with alpha = 2.
    """
    return float(((images - texts) ** 2).sum(axis=1).mean())


def uniformity(vectors: Vectors, *, seed: int) -> float:
    """Return the log of the mean Gaussian potential of random pairs of different rows.

    Source: Wang and Isola, as above, with t = 2.
    """
    first, second = random_pairs(len(vectors), seed=seed)
    squared = ((vectors[first] - vectors[second]) ** 2).sum(axis=1, dtype=np.float64)
    return float(np.log(np.exp(-2 * squared).mean()))


def effective_dimensions(vectors: Vectors) -> float:
    """Return the participation ratio of the covariance's eigenvalues: D for a ball, 1 for a line, 0 for a point.

    Source: Gao et al., A theory of multineuronal dimensionality, dynamics and measurement, 2017, equation 4.
    """
    covariance = np.cov(vectors, rowvar=False, dtype=np.float64).reshape(vectors.shape[1], -1)
    total, squared = float(np.trace(covariance)), float((covariance**2).sum())
    return total**2 / squared if squared > 1e-30 else 0.0


def similarities(images: Vectors, texts: Vectors, *, seed: int) -> Similarities:
    """Return how own pairs and other pairs are distributed."""
    own = np.einsum("nd,nd->n", images, texts)
    first, second = random_pairs(len(images), seed=seed)
    other = np.einsum("nd,nd->n", images[first], texts[second])
    low, high = float(min(own.min(), other.min())), float(max(own.max(), other.max()))
    edges = np.linspace(low, max(high, low + 1e-6), NUM_BINS + 1)
    shares = [np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / len(values) for values in (own, other)]
    return Similarities(
        edges=edges.tolist(),
        own=shares[0].tolist(),
        other=shares[1].tolist(),
        own_mean=float(own.mean()),
        other_mean=float(other.mean()),
        overlap=float(np.minimum(*shares).sum()),
        auc=area_under_curve(own, other),
    )


def area_under_curve(own: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the chance that a value of the first is larger than one of the second; ties count half.

    Source: Mann and Whitney, On a test of whether one of two random variables is stochastically larger than the
        other, 1947.
    """
    ordered = np.sort(other)
    below, not_above = np.searchsorted(ordered, own, "left"), np.searchsorted(ordered, own, "right")
    return float((below + not_above).mean() / (2 * len(ordered)))


def pair_percentiles(images: Vectors, texts: Vectors, *, seed: int) -> NDArray[np.float64]:
    """Return for each product the share of other products' texts that its picture is less similar to than to its own.

    1 is perfect, 0.5 what chance gives, and a low one a sign of a wrong picture or a wrong text. Ties count half.

    Args:
        images: float32 [N, D].
        texts: float32 [N, D].
        seed: of the texts that are compared with, COMPARED_TEXTS at most.

    Returns:
        float64 [N]; 1 where there is no other product.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[: COMPARED_TEXTS + 1])
    values = np.ones(len(images))
    for start in range(0, len(images), TILE_ROWS):
        rows = np.arange(start, min(start + TILE_ROWS, len(images)))
        scores = images[rows] @ texts[chosen].T
        own = np.einsum("nd,nd->n", images[rows], texts[rows])[:, None]
        is_other = chosen[None, :] != rows[:, None]
        lower = (is_other & (scores < own - 1e-6)).sum(axis=1) + (is_other & (np.abs(scores - own) <= 1e-6)).sum(
            axis=1
        ) / 2
        num_others = is_other.sum(axis=1)
        values[rows] = np.where(num_others > 0, lower / np.maximum(num_others, 1), 1.0)
    return values


def random_pairs(
    num_rows: int, *, seed: int, num_pairs: int = MAX_PAIRS
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of different rows, int64 each: all of them where they are few, else a seeded sample."""
    if num_rows * (num_rows - 1) <= num_pairs:
        first, second = np.nonzero(~np.eye(num_rows, dtype=bool))
        return first, second
    generator = np.random.default_rng(seed)
    first = generator.integers(num_rows, size=num_pairs)
    return first, (first + generator.integers(1, num_rows, size=num_pairs)) % num_rows
