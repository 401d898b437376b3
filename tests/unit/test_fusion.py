"""Fusing two rankings: by place, not by score; ties and groups are defined."""

from __future__ import annotations

import pytest

from product_retrieval.querying.fusion import Ranked, fuse


def ranking(*rows: int, score: float = 0.5) -> list[Ranked]:
    return [Ranked(row, score, row) for row in rows]


def test_place_on_both_sides_beats_a_better_place_on_one() -> None:
    fused = fuse({"image": ranking(7, 3), "text": ranking(5, 3, score=0.9)})
    assert [hit.row for hit in fused] == [3, 5, 7]
    assert [hit.score for hit in fused] == pytest.approx([2 / 62, 1 / 61, 1 / 61])
    assert fused[0].ranks == {"image": 2, "text": 2}
    assert fused[1].ranks == {"text": 1}


def test_scores_of_the_sides_do_not_matter() -> None:
    low, high = ranking(1, 2, 3, score=0.1), ranking(3, 2, 1, score=0.1)
    assert fuse({"image": low, "text": high}) == fuse({"image": low, "text": ranking(3, 2, 1, score=0.9)})


def test_equal_sums_are_ordered_by_row() -> None:
    assert [hit.row for hit in fuse({"image": ranking(9, 4), "text": ranking(4, 9)})] == [4, 9]
    assert [hit.row for hit in fuse({"image": ranking(8), "text": ranking(2)})] == [2, 8]


def test_one_empty_side_leaves_the_other_as_it_is() -> None:
    assert [hit.row for hit in fuse({"image": ranking(3, 1, 2), "text": []})] == [3, 1, 2]
    assert fuse({"image": [], "text": []}) == []


def test_group_is_one_hit_by_the_product_that_leads_it_where_it_is_ranked_higher() -> None:
    image = [Ranked(1, 0.9, "mug"), Ranked(5, 0.8, "cup")]
    text = [Ranked(6, 0.9, "cup"), Ranked(2, 0.8, "jug"), Ranked(3, 0.7, "mug")]
    fused = fuse({"image": image, "text": text})
    assert [(hit.row, dict(hit.ranks)) for hit in fused] == [
        (6, {"image": 2, "text": 1}),
        (1, {"image": 1, "text": 3}),
        (2, {"text": 2}),
    ]


def test_first_side_leads_where_a_group_has_the_same_place_on_both() -> None:
    assert [hit.row for hit in fuse({"image": [Ranked(9, 0.1, "mug")], "text": [Ranked(1, 0.9, "mug")]})] == [9]
