"""Galleries of other sizes, comparisons and slices: against enumeration, simulation and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.comparison import Difference, holm, randomization_p_values
from eval.gallery_size import at_most, hit_at_k_of_size
from eval.judged import JudgedRanks, Judgements
from eval.slices import MIN_QUERIES, OTHERS, measure_slices, merge_small


def one_query(num_greater: list[int], num_equal: list[int]) -> JudgedRanks:
    """Return the ranks of one query with several right products."""
    size = len(num_greater)
    judged = Judgements(1, np.zeros(size, np.int64), np.arange(size), np.ones(size))
    scores = -np.array(num_greater, np.float32)  # fewer above is a higher score
    return JudgedRanks(judged, np.array(num_greater), np.array(num_equal), scores)


@pytest.mark.parametrize("size", range(1, 9))
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(("wrong_above", "num_tied"), [(0, 0), (2, 0), (5, 0), (7, 0), (1, 2), (0, 7)])
def test_smaller_gallery_is_the_mean_over_all_subsets_and_orders(
    wrong_above: int, num_tied: int, k: int, size: int
) -> None:
    num_products = 8
    ranks = one_query([wrong_above], [num_tied])
    outcomes = []
    for drawn in itertools.combinations(range(num_products - 1), size - 1):  # wrong products, best first
        above = sum(wrong < wrong_above for wrong in drawn)
        tied = sum(wrong_above <= wrong < wrong_above + num_tied for wrong in drawn)
        outcomes += [np.mean([above + ahead < k for ahead in range(tied + 1)])]
    found = hit_at_k_of_size(ranks, k, num_products=num_products, size=size)
    assert found == pytest.approx(np.mean(outcomes))


def test_gallery_of_the_whole_size_is_the_measure_itself() -> None:
    ranks = one_query([4, 9], [0, 0])
    assert [hit_at_k_of_size(ranks, k, num_products=1_000, size=1_000)[0] for k in (4, 5)] == [0.0, 1.0]


@pytest.mark.parametrize("size", [0, 11])
def test_gallery_of_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 10 products"):
        hit_at_k_of_size(one_query([0], [0]), 1, num_products=10, size=size)


def test_hypergeometric_tail_is_that_of_enumeration() -> None:
    for marked, drawn, limit in itertools.product(range(7), range(7), range(4)):
        samples = list(itertools.combinations(range(6), drawn))
        share = np.mean([sum(item < marked for item in sample) <= limit for sample in samples])
        assert at_most(limit, 6, marked, drawn) == pytest.approx(share)


def test_p_values_are_even_without_a_difference_and_small_with_one() -> None:
    generator = np.random.default_rng(0)
    clusters = np.arange(60)
    nothing = generator.normal(size=(60, 200))
    p_values = randomization_p_values(nothing, clusters, seed=0, num_shuffles=500)
    assert 0.02 <= (p_values < 0.05).mean() <= 0.09
    assert 0.4 <= (p_values < 0.5).mean() <= 0.6
    better = nothing[:, :1] * 0.1 + 0.2
    assert randomization_p_values(better, clusters, seed=0, num_shuffles=500)[0] == pytest.approx(1 / 501)


def test_few_changes_are_shuffled_as_by_enumeration() -> None:
    changes = np.array([1.0, 2.0, -0.5, 3.0, 1.5])
    signs = np.array(list(itertools.product((-1, 1), repeat=5)))
    exact = (np.abs(signs @ changes) >= abs(changes.sum())).mean()
    assert randomization_p_values(changes[:, None], np.arange(5), seed=1)[0] == pytest.approx(exact, abs=0.015)


def test_queries_of_one_group_count_as_one() -> None:
    changes = np.full((50, 1), 0.1)
    assert randomization_p_values(changes, np.zeros(50, np.int64), seed=0, num_shuffles=200)[0] == 1.0
    assert randomization_p_values(changes, np.arange(50), seed=0, num_shuffles=200)[0] < 0.01


def difference(p_value: float) -> Difference:
    return Difference("text -> image", "product", "hit@10", 10, 0.5, 0.6, 0.0, 0.2, p_value, is_significant=False)


def test_holm_stops_at_the_first_that_is_not_small_enough() -> None:
    marked = holm([difference(p) for p in (0.04, 0.01, 0.02, 0.03)])
    assert [each.is_significant for each in marked] == [False, True, False, False]  # limits 0.0125, 0.0167
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None)
def test_holm_marks_the_smallest_and_never_more_than_each_alone(p_values: list[float]) -> None:
    marked = holm([difference(p) for p in p_values])
    largest_marked = max((each.p_value for each in marked if each.is_significant), default=-1.0)
    for each in marked:
        assert not each.is_significant or each.p_value <= 0.05
        assert each.is_significant or each.p_value >= largest_marked


def test_slices_partition_the_queries_and_average_to_the_whole() -> None:
    generator = np.random.default_rng(0)
    labels = ["red"] * 50 + ["blue"] * 40 + ["teal"] * (MIN_QUERIES - 1) + ["pink"]
    values = {"hit@10": generator.random(len(labels))}
    slices = measure_slices(
        "text -> image",
        "product",
        {"color": labels, "one": ["x"] * len(labels)},
        values,
        np.arange(len(labels)),
        seed=0,
    )
    assert [(each.column, each.value, each.num_queries) for each in slices] == [
        ("color", "blue", 40),
        ("color", "red", 50),
        ("color", OTHERS, 30),
    ]
    total = sum(each.num_queries * each.measures["hit@10"].mean for each in slices)
    assert total / len(labels) == pytest.approx(values["hit@10"].mean())
    assert all(
        each.measures["hit@10"].low <= each.measures["hit@10"].mean <= each.measures["hit@10"].high for each in slices
    )


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=200))
@settings(max_examples=50, deadline=None)
def test_rare_labels_become_one_and_frequent_ones_stay(labels: list[str]) -> None:
    for given_label, merged in zip(labels, merge_small(labels), strict=True):
        assert merged == (given_label if labels.count(given_label) >= MIN_QUERIES else OTHERS)
