"""Which weight a fused side gets: the one with which products find others of their group best.

A product's own text would find its own fused vector by the text in it, whatever the weight, so a query looks for the
other products of its group_id, and the product that asks is left out. So are those of the group with the very same text
(of a text query; the same picture of a picture's): they would say no more than the product itself. Whole groups are
sampled, together with products that have none, and the sample is searched exactly. G is the number of sampled products,
Q of queries, D the dimension.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.index.build_steps import Build
from product_retrieval.index.fused import Fusion, MeasuredWeight, coefficients, with_gaps
from product_retrieval.index.layout import PartRows
from product_retrieval.index.shard_files import part_columns
from product_retrieval.index.spec import SIDES, Side
from product_retrieval.metrics import expected_hit_at_k, expected_reciprocal_rank

WEIGHTS = tuple(step / 10 for step in range(11))
SAMPLED_PRODUCTS = 20_000
"""About how many products are searched: two vectors of each, 80 MiB of 512 dimensions as float32."""
NUM_QUERIES = 1_000
"""Of each kind at most."""
MIN_QUERIES = 20
"""Of each kind: fewer say too little to choose by."""
MAX_OF_GROUP = 8
"""Products of one group that are sampled from a part: a group may be as large as a brand."""
BLOCK_QUERIES = 128
"""Compared with the whole sample at once: a block of scores is 10 MiB."""
SAME = 1 - 1e-3
"""Cosine from which on two vectors are those of the same text or picture, kept in float16."""
TIE = 1e-6
"""Scores closer than this are equal: single precision rounds a cosine by about as much."""
DIGITS = 4
"""Of a mean reciprocal rank; what differs by less is a tie, won by the weight nearest one half."""
GROUP = "group_id"


@dataclass(frozen=True, slots=True)
class ProductSample:
    """Some products of a part, in whole groups."""

    groups: NDArray[np.uint64]
    """uint64 [G], a hash of the group, or of the product's id where it has none."""
    vectors: Mapping[Side, NDArray[np.float16]]
    """By side float16 [G, D], zeros where there is none."""


@dataclass(frozen=True, slots=True)
class _Tally:
    """How the first right product of each query ranks, by weight: int64 [Q, weights]."""

    num_greater: NDArray[np.int64]
    num_equal: NDArray[np.int64]


def sample_groups(build: Build, source: PartRows, share: float, seed: int) -> ProductSample:
    """Return a share of the groups of a part; every part takes the same groups.

    Args:
        build: whose part it is.
        source: the part.
        share: of all groups, and of the products without one, from 0 to 1.
        seed: the same one gives the same products.

    Raises:
        ArtifactError: the part cannot be read, or its group_id is neither text nor numbers.
    """
    columns = ["product_id", *([GROUP] if GROUP in part_columns(build, source.part) else [])]
    table = build.read(source, [*columns, *(f"{side}_vector" for side in SIDES)])
    groups = hash_groups(table, seed, where=build.manifest.parts[source.part].name)
    taken = np.flatnonzero(groups < np.uint64(min(int(share * 2**64), 2**64 - 1)))
    taken = taken[_places_in_group(groups[taken]) < MAX_OF_GROUP]
    vectors = {side: with_gaps(table.take(pa.array(taken)), side).astype(np.float16) for side in SIDES}
    return ProductSample(groups[taken], vectors)


def hash_groups(table: pa.Table, seed: int, *, where: str) -> NDArray[np.uint64]:
    """Return for each product a hash of its group, or of its id where it has none, uint64 [rows]."""
    ids = table.column("product_id").to_pylist()
    names: list[str | None] = [None] * len(ids)
    if GROUP in table.column_names:
        try:
            names = pc.cast(table.column(GROUP), pa.string()).to_pylist()
        except pa.ArrowException as error:
            raise ArtifactError(f"{where}: {GROUP} is neither text nor numbers: {error}", path=where) from error
    key = seed.to_bytes(16, "little", signed=True)
    hashed = [
        hashlib.blake2b(f"group {name}".encode() if name else f"product {own}".encode(), digest_size=8, key=key)
        for name, own in zip(names, ids, strict=True)
    ]
    return np.frombuffer(b"".join(each.digest() for each in hashed), np.uint64)


def choose_weight(samples: Sequence[ProductSample], seed: int) -> Fusion:
    """Measure every weight with text queries and with image queries, and choose the best.

    Args:
        samples: of all parts.
        seed: of the choice of queries.

    Returns:
        The weight of the highest reciprocal rank, its mean taken over both kinds; of equals the one nearest one half.

    Raises:
        OptionsError: too few products have another of their group, so a weight must be named.
    """
    groups = np.concatenate([sample.groups for sample in samples])
    vectors = {side: np.concatenate([sample.vectors[side] for sample in samples]).astype(np.float32) for side in SIDES}
    by_weight = [coefficients(vectors["image"], vectors["text"], weight) for weight in WEIGHTS]
    ranks, hits = {}, {}
    for number, kind in enumerate(SIDES):
        asking = _asking(groups, vectors[kind], np.random.default_rng([seed, number]))
        if len(asking) < MIN_QUERIES:
            raise OptionsError(
                f"--fused measures its weight on products that look for others of their {GROUP}, and only "
                f"{len(asking)} of {len(groups):,} sampled products have a {kind} of their own and another product to "
                f"find, not {MIN_QUERIES}; name the share of the picture instead: --fused-weight 0.5"
            )
        tally = _tally(groups, vectors, kind, asking, by_weight)
        columns = list(zip(tally.num_greater.T, tally.num_equal.T, strict=True))
        ranks[kind] = [expected_reciprocal_rank(greater, equal) for greater, equal in columns]
        hits[kind] = [expected_hit_at_k(greater, equal, 10) for greater, equal in columns]
    measured = tuple(
        MeasuredWeight(
            weight,
            {kind: round(float(ranks[kind][number].mean()), DIGITS) for kind in SIDES},
            {kind: round(float(hits[kind][number].mean()), DIGITS) for kind in SIDES},
        )
        for number, weight in enumerate(WEIGHTS)
    )
    best = max(measured, key=lambda each: (round(each.mean_reciprocal_rank, DIGITS), -abs(each.image_weight - 0.5)))
    return Fusion(best.image_weight, measured, {kind: len(ranks[kind][0]) for kind in SIDES}, len(groups))


def _asking(
    groups: NDArray[np.uint64], vectors: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return random products with a vector of a kind and something to find: int64 [up to NUM_QUERIES] places."""
    _, of_group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    candidates = generator.permutation(np.flatnonzero((sizes[of_group] > 1) & vectors.any(axis=1)))
    found: list[int] = []
    members = _members(of_group)
    for place in candidates.tolist():
        others = vectors[members[of_group[place]]] @ vectors[place]
        if (others < SAME).any():
            found.append(place)
        if len(found) == NUM_QUERIES:
            break
    return np.array(found, np.int64)


def _tally(
    groups: NDArray[np.uint64],
    vectors: Mapping[Side, NDArray[np.float32]],
    kind: Side,
    asking: NDArray[np.int64],
    by_weight: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> _Tally:
    """Count for each query and weight the wrong products that score higher than the best right one, and the same.

    Args:
        groups: uint64 [G].
        vectors: by side float32 [G, D].
        kind: of the queries.
        asking: int64 [Q] places of the products that ask.
        by_weight: from coefficients, float32 [G] for pictures and for texts of each weight.
    """
    greater, equal = (np.zeros((len(asking), len(by_weight)), np.int64) for _ in range(2))
    for start in range(0, len(asking), BLOCK_QUERIES):
        block = asking[start : start + BLOCK_QUERIES]
        scores = {side: vectors[kind][block] @ vectors[side].T for side in SIDES}
        is_of_group = groups[block, None] == groups[None, :]
        is_left_out = is_of_group & (scores[kind] >= SAME)
        is_left_out[np.arange(len(block)), block] = True
        is_right = is_of_group & ~is_left_out
        for number, (of_image, of_text) in enumerate(by_weight):
            fused = scores["image"] * of_image + scores["text"] * of_text
            fused -= np.where(is_right, fused, -np.inf).max(axis=1, keepdims=True)
            fused[is_of_group] = -np.inf
            greater[start : start + len(block), number] = (fused > TIE).sum(axis=1)
            equal[start : start + len(block), number] = (np.abs(fused) <= TIE).sum(axis=1)
    return _Tally(greater, equal)


def _places_in_group(groups: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return of each product how many of its group come before it."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    places = np.empty(len(groups), np.int64)
    places[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return places


def _members(of_group: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the places of each group's products, by the group's number."""
    order = np.argsort(of_group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(of_group[order])) + 1)
