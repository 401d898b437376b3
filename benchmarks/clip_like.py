"""Vectors with the geometry of CLIP's, of any number, as embeddings that `build_index` reads.

    python -m benchmarks.clip_like --products 200000 --output out/clip-like
    python -m rayjobs.build_index --embeddings out/clip-like --output out/clip-like-index

What makes an index's life hard, and is here: all pictures lie in a narrow cone around a common mean; what differs is of
low intrinsic dimension, in categories of very unequal size that are flat in directions of their own; texts lie in
another cone, share only part of what they say with their picture, and are noisier, so that text queries are off the
distribution of the picture vectors that they search. Vectors come in blocks, each from a seed of its own: the first N
products are the same however many are made, in whatever order.

Writes parts and a manifest below --output; a run that was killed is finished by running it again.

R is the number of dimensions that carry content, L those in which a category's products differ, D the vectors'.
Source: Liang et al., Mind the Gap, NeurIPS 2022 (cones and gap); the numbers are this file's own choice.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.earlier import content_keys
from product_retrieval.embeddings import (
    MANIFEST,
    RUN,
    EncodedProducts,
    Manifest,
    Part,
    VectorType,
    part_name,
    publish_part,
    read_part_record,
    vector_array,
)
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.index import Side
from product_retrieval.storage import Storage

BLOCK_ROWS = 10_000
"""Products of one seed, and of one part."""
SPACE, LATENT, IMAGE, TEXT, QUERY = range(5)
"""Second word of a generator's seed: what it draws."""
MODEL = "clip-like"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modality:
    """What a vector of one side is made of: lengths of orthogonal parts, whose squares add up to about 1."""

    mean: float
    content: float
    own: float
    """Of what only this side says, in R directions of its own."""
    noise: float
    """Equal in all directions."""
    blur: float
    """How far the content of two views of a product differs, as a multiple of the content's length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The shape of the whole set."""

    dim: int = 512
    content_dims: int = 160
    local_dims: int = 24
    num_categories: int = 3000
    zipf_exponent: float = 0.8
    """Size of the n-th largest category: proportional to n to the power of minus this."""
    decay: float = 0.45
    """Spread of the n-th direction of content: proportional to n to the power of minus this."""
    category_share: float = 0.6
    """Of the variance of content, what lies between categories."""
    mean_cosine: float = 0.33
    """Of the means of both sides: their gap."""
    image: Modality = Modality(mean=0.70, content=0.66, own=0.0, noise=0.27, blur=0.25)
    text: Modality = Modality(mean=0.70, content=0.33, own=0.46, noise=0.43, blur=0.5)


class ClipLike:
    """A set of products without end, from a seed."""

    def __init__(self, geometry: Geometry, *, seed: int) -> None:
        self.geometry = geometry
        self.seed = seed
        rng = np.random.default_rng([seed, SPACE])
        g = geometry
        axes, _ = np.linalg.qr(rng.standard_normal((g.dim, 2 + 2 * g.content_dims)))
        axes = axes.T.astype(np.float32)  # orthonormal: two means, shared content, content of one side
        gap = float(np.sqrt(1 - g.mean_cosine**2))
        self._means = {"image": axes[0], "text": g.mean_cosine * axes[0] + gap * axes[1]}
        self._content_axes = axes[2 : 2 + g.content_dims]
        self._own_axes = axes[2 + g.content_dims :]
        self._spread = _unit_power(np.arange(1, g.content_dims + 1, dtype=np.float32) ** -g.decay)
        self._centres = rng.standard_normal((g.num_categories, g.content_dims), np.float32) * self._spread
        local = rng.standard_normal((g.num_categories, g.local_dims, g.content_dims), np.float32) * self._spread
        self._local = local * _unit_power(np.arange(1, g.local_dims + 1, dtype=np.float32) ** -0.5)[:, None]
        sizes = np.arange(1, g.num_categories + 1) ** -g.zipf_exponent
        self._category_ends = np.cumsum(sizes / sizes.sum())

    def categories(self, block: int) -> NDArray[np.int64]:
        """Return the category of each product of a block, int64 [BLOCK_ROWS]."""
        drawn = np.random.default_rng([self.seed, LATENT, block]).random(BLOCK_ROWS)
        return np.minimum(np.searchsorted(self._category_ends, drawn), self.geometry.num_categories - 1)

    def vectors(self, block: int, side: Side) -> NDArray[np.float32]:
        """Return the vectors of a block's products, float32 [BLOCK_ROWS, D] of unit length."""
        rng = np.random.default_rng([self.seed, IMAGE if side == "image" else TEXT, block])
        return self._view(self._content(block), side, rng)

    def queries(self, kind: Side, num_queries: int, *, num_products: int) -> NDArray[np.float32]:
        """Return other pictures, or other words, of random products among the first ones.

        Args:
            kind: what the queries are.
            num_queries: how many.
            num_products: among how many products.

        Returns:
            float32 [num_queries, D] of unit length, none of them the vector of a product.
        """
        rng = np.random.default_rng([self.seed, QUERY, 0 if kind == "image" else 1])
        rows = np.sort(rng.integers(0, num_products, num_queries))
        blocks, offsets = np.divmod(rows, BLOCK_ROWS)
        content = np.concatenate([self._content(int(b))[offsets[blocks == b]] for b in np.unique(blocks)])
        return rng.permutation(self._view(content, kind, rng))

    def _content(self, block: int) -> NDArray[np.float32]:
        """Return what a block's products are, float32 [BLOCK_ROWS, R], of length 1 on average."""
        g = self.geometry
        categories = self.categories(block)
        rng = np.random.default_rng([self.seed, LATENT, block, 1])
        within = rng.standard_normal((BLOCK_ROWS, g.local_dims), np.float32)
        order = np.argsort(categories, kind="stable")
        content = np.sqrt(g.category_share) * self._centres[categories]
        for rows in np.split(order, np.flatnonzero(np.diff(categories[order])) + 1):
            content[rows] += np.sqrt(1 - g.category_share) * within[rows] @ self._local[categories[rows[0]]]
        return np.asarray(content, np.float32)

    def _view(self, content: NDArray[np.float32], side: Side, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return one picture or text of each product, float32 [M, D]."""
        g = self.geometry
        modality: Modality = getattr(g, side)
        blurred = content + modality.blur * rng.standard_normal(content.shape, np.float32) * self._spread
        vectors = modality.content / np.sqrt(1 + modality.blur**2) * (blurred @ self._content_axes)
        vectors += modality.mean * self._means[side]
        vectors += modality.noise / np.sqrt(g.dim) * rng.standard_normal(vectors.shape, np.float32)
        if modality.own:
            own = rng.standard_normal(content.shape, np.float32) * self._spread
            vectors += modality.own * (own @ self._own_axes)
        vectors = vectors.astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def write_embeddings(
    output: Storage,
    source: ClipLike,
    num_products: int,
    *,
    sides: Sequence[Side] = ("image", "text"),
    vector_type: VectorType = "float16",
    num_threads: int = 1,
) -> Manifest:
    """Write the first products of a set as embeddings.

    Args:
        output: folder; of a run that was killed, parts are kept.
        source: of the vectors.
        num_products: how many.
        sides: which vectors they have; the others are null.
        vector_type: in the files.
        num_threads: blocks made at once.

    Returns:
        The manifest, published.
    """
    described = {"geometry": asdict(source.geometry), "seed": source.seed}
    record = {**described, "num_products": num_products, "sides": list(sides), "vector_type": vector_type}
    run = (json.dumps(record, sort_keys=True, indent=1) + "\n").encode()
    run_id = hashlib.sha256(run).hexdigest()[:16]
    output.put_if_absent(RUN, run)
    write = functools.partial(_write_block, output, source, run_id, num_products, sides, vector_type)
    with ThreadPoolExecutor(num_threads) as threads:
        parts = tuple(threads.map(write, range(-(-num_products // BLOCK_ROWS))))
    weights = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    manifest = Manifest(
        run_id=run_id,
        fingerprint=Fingerprint(MODEL, weights, weights, "none", source.geometry.dim),
        model=MODEL,
        vector_type=vector_type,
        options=record,
        catalog={"uri": MODEL, "kind": MODEL, "num_products": num_products, "fingerprint": weights},
        parts=parts,
        rejected_by_reason={},
    )
    output.put_if_absent(MANIFEST, manifest.to_bytes())
    return manifest


def _write_block(
    output: Storage,
    source: ClipLike,
    run_id: str,
    num_products: int,
    sides: Sequence[Side],
    vector_type: VectorType,
    block: int,
) -> Part:
    if output.exists(part_name(block)):
        return read_part_record(output, part_name(block), run_id)
    rows = np.arange(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, num_products))
    categories = source.categories(block)[: len(rows)]
    columns = {
        "product_id": pa.array([f"p{row:09d}" for row in rows]),
        "text": pa.array([f"thing {row} of kind {category}" for row, category in zip(rows, categories, strict=True)]),
        "image_ref": pa.nulls(len(rows), pa.string()),
        "category": pa.array([f"kind-{category}" for category in categories]),
        "price": pa.array((rows * 7919 % 10_000 + 99) / 100),
    }
    for side in ("image", "text"):
        is_there = np.full(len(rows), side in sides)
        zeros = np.zeros((len(rows), source.geometry.dim), np.float32)
        vectors = source.vectors(block, side)[: len(rows)] if side in sides else zeros
        keys = [f"{side}-{source.seed}-{row}" if side in sides else None for row in rows]
        columns[f"{side}_key"] = content_keys(keys)
        columns[f"{side}_vector"] = vector_array(vectors, is_there, vector_type)
    return publish_part(output, run_id, EncodedProducts(block, pa.table(columns)))


def _unit_power(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values scaled so that their squares add up to 1."""
    return np.asarray(values / np.linalg.norm(values), np.float32)


def main() -> None:
    """Write a set of embeddings."""
    parser = argparse.ArgumentParser(description="Vectors with the geometry of CLIP's, as embeddings.")
    parser.add_argument("--products", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=Geometry().dim)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sides", nargs="+", choices=("image", "text"), default=["image", "text"])
    parser.add_argument("--threads", type=int, default=1, help="blocks of 10,000 products made at once")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    source = ClipLike(Geometry(dim=options.dim), seed=options.seed)
    manifest = write_embeddings(
        Storage.at(options.output), source, options.products, sides=options.sides, num_threads=options.threads
    )
    size_bytes = sum(part.size_bytes for part in manifest.parts)
    print(
        f"{options.output}: {manifest.num_products:,} products, {len(manifest.parts)} parts, {size_bytes / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
