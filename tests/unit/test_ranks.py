"""Counting who scores higher than the right product: the same however the gallery is cut."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from eval.ranks import QUERY_ROWS, Counts, best_right_scores, count_block

NONE = np.empty(0, np.int64)


def rows(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def count(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float16],
    relevant: list[NDArray[np.int64]],
    exclude: list[NDArray[np.int64]] | None = None,
    *,
    block_rows: int = 1000,
) -> Counts:
    """Count over all blocks, one after the other."""
    best = best_right_scores(queries, lambda rows: gallery[rows].astype(np.float32), relevant)
    exclude = exclude or [NONE] * len(queries)
    blocks = [
        count_block(queries, best, relevant, gallery[first : first + block_rows], first, exclude)
        for first in range(0, len(gallery), block_rows)
    ]
    return Counts(
        np.sum([block.num_greater for block in blocks], axis=0), np.sum([block.num_equal for block in blocks], axis=0)
    )


GALLERY = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6], [0.8, 0.6], [0, 0]], np.float16)
TO_THE_RIGHT = np.array([[1, 0]], np.float32)


@pytest.mark.parametrize(
    ("relevant", "num_greater", "num_equal"),
    [(rows(0), 0, 0), (rows(1), 4, 0), (rows(2), 3, 0), (rows(3), 1, 1), (rows(3, 4), 1, 0), (rows(0, 1), 0, 0)],
)
def test_rank_of_the_best_right_product_by_hand(relevant: NDArray[np.int64], num_greater: int, num_equal: int) -> None:
    counts = count(TO_THE_RIGHT, GALLERY, [relevant])
    assert (counts.num_greater.tolist(), counts.num_equal.tolist()) == ([num_greater], [num_equal])
    assert counts.num_greater.dtype == np.int64


def test_best_score_is_that_of_the_best_right_product() -> None:
    best = best_right_scores(TO_THE_RIGHT, lambda rows: GALLERY[rows].astype(np.float32), [rows(1, 2, 3)])
    assert best.dtype == np.float32
    np.testing.assert_allclose(best, [0.8], atol=1e-3)


def test_excluded_products_count_neither_way() -> None:
    counts = count(TO_THE_RIGHT, GALLERY, [rows(3)], [rows(0)])
    assert (counts.num_greater.tolist(), counts.num_equal.tolist()) == ([0], [1])
    counts = count(TO_THE_RIGHT, GALLERY, [rows(3)], [rows(0, 4)])
    assert (counts.num_greater.tolist(), counts.num_equal.tolist()) == ([0], [0])


def test_products_without_the_side_are_not_counted() -> None:
    opposite = np.array([[-1, 0]], np.float32)
    gallery = np.array([[0, 1], [0, 0], [1, 0]], np.float16)
    assert count(opposite, gallery, [rows(2)]).num_greater.tolist() == [1]
    assert count(opposite, gallery, [rows(0)]).num_equal.tolist() == [0]


def test_scores_that_differ_by_rounding_are_ties() -> None:
    queries = np.array([[1, 0]], np.float32)
    gallery = np.array([[0.5, 0.1], [0.5, 0.2], [0.50048828125, 0]], np.float16)
    counts = count(queries, gallery, [rows(0)])
    assert (counts.num_greater.tolist(), counts.num_equal.tolist()) == ([1], [1])


@pytest.mark.parametrize("block_rows", [1, 2, 7, 64, 199, 200])
def test_blocks_add_up_to_the_whole(block_rows: int) -> None:
    generator = np.random.default_rng(0)
    gallery = generator.integers(-3, 4, (200, 4)).astype(np.float16)  # whole numbers: many exact ties, and zero rows
    queries = generator.integers(-3, 4, (30, 4)).astype(np.float32)
    relevant = [np.sort(generator.choice(200, 1 + i % 3, replace=False)) for i in range(30)]
    exclude = [np.setdiff1d(generator.choice(200, i % 4, replace=False), right) for i, right in enumerate(relevant)]
    whole = count(queries, gallery, relevant, exclude)
    cut = count(queries, gallery, relevant, exclude, block_rows=block_rows)
    assert cut.num_greater.tolist() == whole.num_greater.tolist()
    assert cut.num_equal.tolist() == whole.num_equal.tolist()


def test_counts_equal_those_of_a_plain_loop() -> None:
    generator = np.random.default_rng(1)
    gallery = generator.integers(-3, 4, (60, 4)).astype(np.float16)
    queries = generator.integers(-3, 4, (20, 4)).astype(np.float32)
    relevant = [generator.choice(60, 2, replace=False) for _ in range(20)]
    counts = count(queries, gallery, relevant, block_rows=13)
    for i, query in enumerate(queries):
        scores = gallery.astype(np.float32) @ query
        best = scores[relevant[i]].max()
        wrong = [row for row in range(60) if row not in relevant[i] and gallery[row].any()]
        assert counts.num_greater[i] == sum(scores[row] > best for row in wrong)
        assert counts.num_equal[i] == sum(scores[row] == best for row in wrong)


def test_more_queries_than_one_tile_are_each_counted() -> None:
    num_queries = QUERY_ROWS + 3
    queries = np.tile(TO_THE_RIGHT, (num_queries, 1))
    relevant = [rows(query % 5) for query in range(num_queries)]
    counts = count(queries, GALLERY, relevant)
    expected = np.array([0, 4, 3, 1, 1])
    assert counts.num_greater.tolist() == expected[np.arange(num_queries) % 5].tolist()


def test_counting_leaves_its_input_alone() -> None:
    queries, gallery = TO_THE_RIGHT.copy(), GALLERY.copy()
    count(queries, gallery, [rows(1)], [rows(0)])
    assert (queries == TO_THE_RIGHT).all()
    assert (gallery == GALLERY).all()
