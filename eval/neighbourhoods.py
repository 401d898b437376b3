"""Whether neighbourhoods agree across the modalities, and whether a few products crowd everybody's hits.

Q is the number of queries, N of products in the gallery, k of hits, B of queries in a bank, D the dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HUB_DEVIATIONS = 3.0
"""A hub is found more often than the mean by so many standard deviations."""
TOP_SHARE = 0.01
BANK_DEPTH = 16
"""Best scores of a product against the bank that its bias is the mean of."""
BIAS_SHARES = (0.25, 0.5, 0.75)
"""Shares of the bias that are tried; Chowdhury et al. tune it, between 0 and 1."""
TILE_ROWS = 8_192


@dataclass(frozen=True, slots=True)
class Hubness:
    """How unevenly hits fall on products."""

    num_queries: int
    num_products: int
    k: int
    skewness: float
    """Of how often a product is a hit: 0 is even, above about 1.5 hubs decide the ranking."""
    largest: int
    """How often the most frequent hit is one."""
    num_hubs: int
    anti_hubs: float
    """Share of products that are nobody's hit."""
    anti_hubs_by_chance: float
    """The same if hits fell at random."""
    top_share: float
    """Share of all hits that go to the 1 % most frequent products."""
    robin_hood: float
    """Share of all hits that would have to be given to others for all to be found equally often."""


def occurrences(rows: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    """Return how often each product is a hit, int64 [num_rows].

    Args:
        rows: int64 [Q, k]; -1 pads.
        num_rows: rows of the gallery.
    """
    return np.bincount(rows[rows >= 0], minlength=num_rows)


def measure_hubness(rows: NDArray[np.int64], is_listed: NDArray[np.bool_]) -> Hubness:
    """Return the hubness of lists of hits.

    Args:
        rows: int64 [Q, k] exact hits; -1 pads.
        is_listed: bool [num_rows], which rows are products that can be found; at least one.
    Source: Radovanovic, Nanopoulos and Ivanovic, Hubs in space, JMLR 2010, section 2; the Robin Hood index as in
        Feldbauer et al., Fast approximate hubness reduction for large high-dimensional data, 2018.
    """
    counts = occurrences(rows, len(is_listed))[is_listed]
    total, mean, deviation = int(counts.sum()), float(counts.mean()), float(counts.std())
    skewness = float(((counts - mean) ** 3).mean() / deviation**3) if deviation > 0 else 0.0
    top = max(math.ceil(TOP_SHARE * len(counts)), 1)
    return Hubness(
        num_queries=len(rows),
        num_products=len(counts),
        k=rows.shape[1],
        skewness=skewness,
        largest=int(counts.max()),
        num_hubs=int(is_hub(counts).sum()),
        anti_hubs=float((counts == 0).mean()),
        anti_hubs_by_chance=math.exp(-mean),
        top_share=float(np.sort(counts)[-top:].sum() / total) if total else 0.0,
        robin_hood=float(np.abs(counts - mean).sum() / 2 / total) if total else 0.0,
    )


def is_hub(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which products are found far more often than the mean, bool like counts."""
    return np.asarray(counts > counts.mean() + HUB_DEVIATIONS * counts.std())


def neighbour_agreement(images: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each product's picture neighbours that are its text neighbours too, float64 [Q].

    Args:
        images: int64 [Q, k] nearest products by picture, the product itself left out; -1 pads.
        texts: int64 [Q, k] the same by text.
    Source: Huh et al., The platonic representation hypothesis, ICML 2024, section 2.1 (mutual k-nearest neighbours).
    """
    is_shared = ((images[:, :, None] == texts[:, None, :]) & (images[:, :, None] >= 0)).any(axis=2)
    return np.asarray(is_shared.sum(axis=1) / max(images.shape[1], 1), np.float64)


def hub_bias(vectors: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how similar each product is to queries in general: the mean of its best scores against a bank, [N].

    A share of it is taken off every score of the product. It is one number a product, so an index can hold it as one
    more dimension; the inverted softmax of QB-Norm needs every query's whole row of scores instead.

    Args:
        vectors: float32 [N, D].
        bank: float32 [B, D] queries that are not among those that are measured; at least one.
    Source: Chowdhury et al., Nearest Neighbor Normalization improves multimodal retrieval, EMNLP 2024, section 3; the
        problem as in Bogolin et al., Cross modal retrieval with querybank normalisation, CVPR 2022.
    """
    depth = min(BANK_DEPTH, len(bank))
    biases = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), TILE_ROWS):
        scores = vectors[start : start + TILE_ROWS] @ bank.T
        biases[start : start + TILE_ROWS] = np.partition(scores, -depth, axis=1)[:, -depth:].mean(axis=1)
    return biases
