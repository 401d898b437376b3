"""Exact search of parts of a gallery: as one comparison of everything would find, however it is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from eval import exact
from eval.exact import pair_scores, scan
from eval.exact_search import Correction, ExactSearch, Found, JudgedSet, merge, nothing_found
from eval.judged import TIE, Judgements

NO_PAIRS = np.empty(0, np.int64)


def pairs(num_queries: int, *query_and_row: tuple[int, int]) -> Judgements:
    query, row = (
        (np.array(column, np.int64) for column in zip(*query_and_row, strict=True))
        if query_and_row
        else (
            NO_PAIRS,
            NO_PAIRS,
        )
    )
    return Judgements(num_queries, query, row, np.ones(len(query)))


def judged(queries: NDArray[np.float32], gallery: NDArray[np.float16], right: Judgements) -> JudgedSet:
    return JudgedSet(right, pair_scores(queries, right, gallery[right.row].astype(np.float32)))


def unit(generator: np.random.Generator, num_rows: int, dim: int) -> NDArray[np.float32]:
    vectors = generator.standard_normal((num_rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_brute_force(search: ExactSearch, gallery: NDArray[np.float16]) -> Found:
    """Compare everything at once, one query after the other."""
    scores = search.queries @ gallery.astype(np.float32).T
    scores[:, ~gallery.any(axis=1)] = -np.inf
    if search.excluded is not None:
        scores[search.excluded.query, search.excluded.row] = -np.inf
    found = nothing_found(search)
    for query, values in enumerate(scores):
        order = [row for row in np.lexsort((np.arange(len(values)), -values)) if np.isfinite(values[row])][: search.k]
        found.rows[query, : len(order)] = order
        found.scores[query, : len(order)] = values[order]
    for number, judged_set in enumerate(search.judged):
        right = judged_set.judgements
        for pair, (query, score) in enumerate(zip(right.query, judged_set.scores, strict=True)):
            wrong = np.delete(scores[query], right.row[right.query == query])
            found.num_greater[number][pair] = (wrong > score + TIE).sum()
            found.num_equal[number][pair] = (np.abs(wrong - score) <= TIE).sum()
    return found


def assert_same(one: Found, other: Found) -> None:
    np.testing.assert_allclose(one.scores, other.scores, atol=2e-6)
    for mine, theirs in zip((*one.num_greater, *one.num_equal), (*other.num_greater, *other.num_equal), strict=True):
        assert mine.tolist() == theirs.tolist()
    assert one.rows.tolist() == other.rows.tolist()


GALLERY = np.array([[1, 0], [0, 1], [0.6, 0.8], [0.8, 0.6], [0.8, 0.6], [0, 0]], np.float16)
TO_THE_RIGHT = np.array([[1, 0]], np.float32)


@pytest.mark.parametrize(
    ("right", "greater", "equal"),
    [
        ([0], [0], [0]),
        ([1], [4], [0]),
        ([2], [3], [0]),
        ([3], [1], [1]),
        ([3, 4], [1, 1], [0, 0]),
        ([0, 1], [0, 3], [0, 0]),
    ],
)
def test_ranks_by_hand(right: list[int], greater: list[int], equal: list[int]) -> None:
    judgements = pairs(1, *((0, row) for row in right))
    found = scan(ExactSearch(TO_THE_RIGHT, 0, (judged(TO_THE_RIGHT, GALLERY, judgements),)), GALLERY, 0)
    assert (found.num_greater[0].tolist(), found.num_equal[0].tolist()) == (greater, equal)


def test_nearest_by_hand_with_ties_in_the_order_of_rows_and_padding() -> None:
    found = scan(ExactSearch(TO_THE_RIGHT, 7), GALLERY, 10)
    assert found.rows.tolist() == [[10, 13, 14, 12, 11, -1, -1]]
    assert np.isnan(found.scores[0, 5:]).all()


def test_excluded_products_are_neither_found_nor_counted() -> None:
    search = ExactSearch(TO_THE_RIGHT, 2, (judged(TO_THE_RIGHT, GALLERY, pairs(1, (0, 3))),), pairs(1, (0, 0)))
    found = scan(search, GALLERY, 0)
    assert (found.rows.tolist(), found.num_greater[0].tolist()) == ([[3, 4]], [0])


@pytest.fixture
def random_search() -> tuple[ExactSearch, NDArray[np.float16]]:
    """Return 37 queries with 0 to 40 right products each in a gallery of 301, with copies and absent products."""
    generator = np.random.default_rng(3)
    gallery = unit(generator, 301, 16).astype(np.float16)
    gallery[50:80] = gallery[7]
    gallery[[5, 100, 300]] = 0
    queries = unit(generator, 37, 16)
    queries[3] = queries[4] = gallery[7].astype(np.float32) / np.linalg.norm(gallery[7].astype(np.float32))
    present = np.flatnonzero(gallery.any(axis=1))
    few = [(q, int(r)) for q in range(37) for r in sorted(generator.choice(present, q % 4, replace=False))]
    many = [(q, int(r)) for q in range(37) for r in sorted(generator.choice(present, 40 * (q % 2), replace=False))]
    sets = tuple(judged(queries, gallery, pairs(37, *chosen)) for chosen in (few, many))
    return ExactSearch(queries, 12, sets, pairs(37, *((q, q) for q in range(37)))), gallery


@pytest.mark.parametrize("tile", [(1_024, 8_192), (5, 7), (1, 301), (37, 1), (10, 64)])
def test_tiles_of_any_shape_find_what_one_comparison_finds(
    tile: tuple[int, int], random_search: tuple[ExactSearch, NDArray[np.float16]], monkeypatch: pytest.MonkeyPatch
) -> None:
    search, gallery = random_search
    monkeypatch.setattr(exact, "CPU_TILE", tile)
    assert_same(scan(search, gallery, 0), by_brute_force(search, gallery))


@pytest.mark.parametrize("cut", [1, 50, 150, 300])
def test_parts_add_up_in_any_order(cut: int, random_search: tuple[ExactSearch, NDArray[np.float16]]) -> None:
    search, gallery = random_search
    first, second = scan(search, gallery[:cut], 0), scan(search, gallery[cut:], cut)
    whole = by_brute_force(search, gallery)
    assert_same(merge(first, second), whole)
    assert_same(merge(second, first), whole)


@pytest.mark.parametrize("rising", [True, False])
def test_a_gallery_in_the_order_of_its_scores_keeps_the_best(rising: bool) -> None:
    angles = np.linspace(0, np.pi / 2, 200)[:: -1 if rising else 1]
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    search = ExactSearch(TO_THE_RIGHT, 5)
    assert_same(scan(search, gallery, 0), by_brute_force(search, gallery))


def test_a_constant_gallery_is_one_tie() -> None:
    gallery = np.tile(np.array([[1, 0]], np.float16), (50, 1))
    search = ExactSearch(TO_THE_RIGHT, 3, (judged(TO_THE_RIGHT, gallery, pairs(1, (0, 20))),))
    found = scan(search, gallery, 0)
    assert (found.rows.tolist(), found.num_greater[0].tolist(), found.num_equal[0].tolist()) == ([[0, 1, 2]], [0], [49])


def test_nothing_is_found_in_an_empty_gallery_or_by_no_queries(
    random_search: tuple[ExactSearch, NDArray[np.float16]],
) -> None:
    search, gallery = random_search
    assert_same(scan(search, gallery[:0], 0), nothing_found(search))
    nobody = replace(search, queries=search.queries[:0], judged=(), excluded=None)
    assert scan(nobody, gallery, 0).rows.shape == (0, 12)


def test_a_correction_compares_as_corrected_vectors_and_scores_do(
    random_search: tuple[ExactSearch, NDArray[np.float16]],
) -> None:
    search, gallery = random_search
    shift = gallery.astype(np.float32).mean(axis=0)
    bias = np.linspace(-0.2, 0.2, len(gallery)).astype(np.float32)
    correction = Correction(shift, bias)
    moved = gallery.astype(np.float32) - shift
    moved[~gallery.any(axis=1)] = 0
    moved[moved.any(axis=1)] /= np.linalg.norm(moved[moved.any(axis=1)], axis=1, keepdims=True)
    scores = search.queries @ moved.T - bias
    scores[:, ~gallery.any(axis=1)] = -np.inf
    right = pairs(37, *((query, 50 + query) for query in range(37)))
    values = pair_scores(search.queries, right, gallery[right.row].astype(np.float32), correction)
    np.testing.assert_allclose(values, scores[right.query, right.row], atol=1e-6)
    found = scan(ExactSearch(search.queries, 5, (JudgedSet(right, values),), None, correction), gallery, 0)
    assert found.rows.tolist() == np.argsort(-scores, axis=1, kind="stable")[:, :5].tolist()
    wrong = np.delete(scores[0], 50)
    assert found.num_greater[0][0] == (wrong > values[0] + TIE).sum()
