"""How well a model finds held-out products: hit@k in both directions, for clean and for damaged queries.

Letters: Q queries, N candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from product_retrieval.training.noise import with_typos
from product_retrieval.training.pictures import Pictures

GALLERY_SIZE = 700
GALLERY_SEED = 0
CUT_OFFS = (1, 5, 10)
NUM_RESAMPLES = 2000
TIE_TOLERANCE = 1e-6
"""Scores closer than this are equal: the order of float32 sums differs between batch sizes."""

EncodeImages = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
EncodeTexts = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Held-out products; entry i of each field belongs to product i."""

    titles: tuple[str, ...]
    """Clean titles, the queries."""
    group_ids: tuple[str, ...]
    """Families."""
    pixels: NDArray[np.uint8]
    """[N, S, S, 3]."""


def choose_gallery(held_out: Pictures, *, size: int = GALLERY_SIZE) -> Gallery:
    """Choose one picture each of `size` products, the same for every model.

    Args:
        held_out: pictures of held-out products; of a product's pictures the first is used.
        size: products wanted; fewer are used when there are not as many.

    Returns:
        The products, in the order of their ids.
    """
    first: dict[str, int] = {}
    for at, product_id in enumerate(held_out.product_ids):
        first.setdefault(product_id, at)
    chosen = sorted(first)
    Random(GALLERY_SEED).shuffle(chosen)
    rows = [first[product_id] for product_id in sorted(chosen[:size])]
    return Gallery(
        titles=tuple(held_out.depicted[row].title for row in rows),
        group_ids=tuple(held_out.pictured[row].group_id for row in rows),
        pixels=held_out.pixels[rows],
    )


def evaluate(gallery: Gallery, encode_images: EncodeImages, encode_texts: EncodeTexts) -> dict[str, dict[str, float]]:
    """Measure hit@k with 95 % intervals for each task.

    Args:
        gallery: the held-out products.
        encode_images: uint8 [N, S, S, 3] -> float32 [N, D], L2-normalised.
        encode_texts: texts -> float32 [Q, D], L2-normalised.

    Returns:
        Task -> name -> value: `hit@k`, and `hit@10_low` and `hit@10_high` from a bootstrap over families.
    """
    images, texts = encode_images(gallery.pixels), encode_texts(gallery.titles)
    rng = Random(GALLERY_SEED)
    misspelt = encode_texts([with_typos(title, rng, num_typos=2) for title in gallery.titles])
    shouted = encode_texts([title.upper() for title in gallery.titles])
    groups = np.unique(np.asarray(gallery.group_ids), return_inverse=True)[1]
    same = np.eye(len(groups), dtype=np.bool_)
    family = groups[:, None] == groups[None, :]
    titles = np.asarray([title.lower() for title in gallery.titles])
    same_title = titles[:, None] == titles[None, :]
    tasks = {
        "text_to_image": (texts @ images.T, same),
        "text_to_image_same_title": (texts @ images.T, same_title),
        "text_to_image_family": (texts @ images.T, family),
        "image_to_text": (images @ texts.T, same),
        "image_to_text_family": (images @ texts.T, family),
        "two_typos_to_image": (misspelt @ images.T, same),
        "capitals_to_image": (shouted @ images.T, same),
    }
    return {name: _summary(scores, relevant, groups) for name, (scores, relevant) in tasks.items()}


def hits(scores: NDArray[np.float32], relevant: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Chance that the best relevant candidate is among the first k when ties are broken at random.

    Args:
        scores: float32 [Q, N].
        relevant: bool [Q, N], at least one true in each row.
        k: cut-off.

    Returns:
        float64 [Q] in [0, 1].
    """
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    others = ~relevant
    num_better = (others & (scores > best + TIE_TOLERANCE)).sum(axis=1)
    num_equal = (others & (np.abs(scores - best) <= TIE_TOLERANCE)).sum(axis=1)
    return np.asarray(np.clip((k - num_better) / (num_equal + 1), 0.0, 1.0), dtype=np.float64)


def clustered_interval(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> tuple[float, float]:
    """Bootstrap a 95 % interval of the mean, drawing whole clusters.

    Args:
        values: float64 [Q].
        clusters: int64 [Q], 0 .. C - 1, each used.

    Returns:
        Lower and upper end.

    Source: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
    """
    sums = np.bincount(clusters, weights=values)
    counts = np.bincount(clusters)
    drawn = np.random.default_rng(GALLERY_SEED).integers(0, len(sums), size=(NUM_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _summary(scores: NDArray[np.float32], relevant: NDArray[np.bool_], groups: NDArray[np.int64]) -> dict[str, float]:
    summary = {f"hit@{k}": float(hits(scores, relevant, k).mean()) for k in CUT_OFFS}
    low, high = clustered_interval(hits(scores, relevant, 10), groups)
    return {**summary, "hit@10_low": low, "hit@10_high": high}
