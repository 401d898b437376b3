"""Which rows make a shard, and which a piece of one: follows from the parts and a number of rows, from nothing else.

A shard is some parts, or chosen rows of them; a piece is what one worker adds to a shard at a time. The same parts and
the same number of rows give the same layout on every machine, so that a killed build finds its files again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from product_retrieval.embeddings import Manifest
from product_retrieval.index.construction import bytes_per_vector
from product_retrieval.index.spec import IndexSpec

PIECE_ROWS = 65_536
"""Products that one worker adds at a time: what a killed build loses at most, per worker."""
MAX_SHARD_ROWS = 1 << 24
MIN_SHARD_ROWS = 1 << 10
COPIES = 3
"""Of a FAISS index, while pieces are merged into it: the index, a piece, and what the allocator holds on to."""
PRODUCT_BYTES = 1_000
"""Of one product's columns, twice, and of its id while the ids are ordered; an estimate."""


@dataclass(frozen=True)
class PartRows:
    """Rows of one part of the embeddings."""

    part: int
    num_rows: int
    rows: NDArray[np.int64] | None = None
    """Which rows of the part, ascending; None takes all."""


@dataclass(frozen=True)
class ShardPlan:
    """What a shard is made of."""

    name: str
    """Of its folder below the build's."""
    sources: tuple[PartRows, ...]

    @functools.cached_property
    def num_rows(self) -> int:
        """Products in the shard."""
        return sum(source.num_rows for source in self.sources)

    def located(self) -> Iterator[tuple[int, PartRows]]:
        """Yield the sources, each with the local row of its first product."""
        first = 0
        for source in self.sources:
            yield first, source
            first += source.num_rows

    def pieces(self) -> list[list[tuple[int, PartRows]]]:
        """Return the sources, located, in groups that one worker adds at a time."""
        located = iter(self.located())
        return [[next(located) for _ in group] for group in _groups(self.sources, PIECE_ROWS)]


def all_rows(manifest: Manifest) -> list[PartRows]:
    """Return all rows of embeddings."""
    return [PartRows(number, part.num_products) for number, part in enumerate(manifest.parts) if part.num_products]


def plan_shards(sources: Sequence[PartRows], shard_rows: int) -> list[ShardPlan]:
    """Cut rows into shards of at most shard_rows each, or of one part, where a part has more."""
    groups = _groups(sources, shard_rows)
    return [ShardPlan(f"shard-{number:05d}", tuple(group)) for number, group in enumerate(groups)]


def rows_for_memory(specs: Sequence[IndexSpec], dim: int, memory_bytes: int) -> int:
    """Return how many rows a shard may have so that no step of a build needs more memory: a power of two."""
    row_bytes = PRODUCT_BYTES + COPIES * max(bytes_per_vector(spec.factory, dim) for spec in specs)
    rows = max(memory_bytes // row_bytes, 1)
    return int(min(max(1 << (int(rows).bit_length() - 1), MIN_SHARD_ROWS), MAX_SHARD_ROWS))


def _groups(sources: Sequence[PartRows], num_rows: int) -> list[list[PartRows]]:
    """Gather neighbours as long as their rows do not exceed a number."""
    groups: list[list[PartRows]] = []
    held = 0
    for source in sources:
        if not groups or held + source.num_rows > num_rows:
            groups.append([])
            held = 0
        groups[-1].append(source)
        held += source.num_rows
    return groups
