"""Metrics from counts: by hand, against every order of the ties, and with intervals that repeat."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from eval.judged import JudgedRanks, Judgements
from eval.results import summarize
from product_retrieval.metrics import (
    bootstrap_interval,
    chance_hit_at_k,
    expected_hit_at_k,
    expected_reciprocal_rank,
)


def counts(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def mean_over_tie_orders(num_greater: int, num_equal: int, value: Callable[[int], float]) -> float:
    """Return the mean of a function of the rank over every order of the right product and those that tie with it."""
    tied = ["right", *(f"wrong {i}" for i in range(num_equal))]
    ranks = [num_greater + 1 + order.index("right") for order in itertools.permutations(tied)]
    return sum(value(rank) for rank in ranks) / len(ranks)


@pytest.mark.parametrize(
    ("num_greater", "num_equal", "k", "hit"),
    [(0, 0, 1, 1.0), (1, 0, 1, 0.0), (1, 0, 2, 1.0), (0, 1, 1, 0.5), (0, 3, 1, 0.25), (2, 3, 4, 0.5), (9, 9, 5, 0.0)],
)
def test_hit_by_hand(num_greater: int, num_equal: int, k: int, hit: float) -> None:
    assert expected_hit_at_k(counts(num_greater), counts(num_equal), k).tolist() == [hit]


@pytest.mark.parametrize(
    ("num_greater", "num_equal", "reciprocal"),
    [
        (0, 0, 1.0),
        (1, 0, 0.5),
        (3, 0, 0.25),
        (0, 1, 0.75),
        (1, 1, (1 / 2 + 1 / 3) / 2),
        (0, 2, (1 + 1 / 2 + 1 / 3) / 3),
    ],
)
def test_reciprocal_rank_by_hand(num_greater: int, num_equal: int, reciprocal: float) -> None:
    assert expected_reciprocal_rank(counts(num_greater), counts(num_equal)).tolist() == pytest.approx([reciprocal])


@pytest.mark.parametrize("num_greater", [0, 1, 4])
@pytest.mark.parametrize("num_equal", [0, 1, 2, 5])
def test_expected_values_are_means_over_every_order_of_ties(num_greater: int, num_equal: int) -> None:
    greater, equal = counts(num_greater), counts(num_equal)
    for k in range(1, 12):
        expected = mean_over_tie_orders(num_greater, num_equal, lambda rank, k=k: float(rank <= k))
        assert expected_hit_at_k(greater, equal, k)[0] == pytest.approx(expected)
    expected = mean_over_tie_orders(num_greater, num_equal, lambda rank: 1 / rank)
    assert expected_reciprocal_rank(greater, equal)[0] == pytest.approx(expected)


def test_queries_do_not_influence_one_another() -> None:
    greater, equal = counts(0, 3, 1, 0), counts(5, 0, 2, 0)
    alone = [expected_reciprocal_rank(greater[i : i + 1], equal[i : i + 1])[0] for i in range(4)]
    assert expected_reciprocal_rank(greater, equal).tolist() == pytest.approx(alone)


def test_no_queries_have_no_values() -> None:
    assert expected_hit_at_k(counts(), counts(), 1).shape == (0,)
    assert expected_reciprocal_rank(counts(), counts()).shape == (0,)


@pytest.mark.parametrize(("greater", "equal", "k"), [((0,), (0,), 0), ((0, 0), (0,), 1)])
def test_wrong_cutoff_or_lengths_raise(greater: tuple[int, ...], equal: tuple[int, ...], k: int) -> None:
    with pytest.raises(ValueError, match="need k >= 1 and equal shapes"):
        expected_hit_at_k(counts(*greater), counts(*equal), k)


@pytest.mark.parametrize("num_products", [1, 2, 5, 9])
def test_chance_is_that_of_drawing_without_replacement(num_products: int) -> None:
    for relevant, k in itertools.product(range(1, num_products + 1), range(1, num_products + 1)):
        missed = math.comb(num_products - relevant, k) / math.comb(num_products, k)
        assert chance_hit_at_k(counts(relevant), num_products, k)[0] == pytest.approx(1 - missed)


def test_chance_beyond_the_gallery_is_certain() -> None:
    assert chance_hit_at_k(counts(1), 3, 10).tolist() == [1.0]


def test_interval_is_the_same_for_one_seed_and_another_for_another() -> None:
    values = np.random.default_rng(0).random(50)
    clusters = [f"c{i % 10}" for i in range(50)]
    first = bootstrap_interval(values, clusters, seed=1)
    assert first == bootstrap_interval(values, clusters, seed=1)
    assert first != bootstrap_interval(values, clusters, seed=2)
    assert first[0] < values.mean() < first[1]


def test_interval_does_not_depend_on_the_order_of_the_queries() -> None:
    values, clusters = np.array([0.0, 1.0, 0.5, 0.25]), ["a", "b", "a", "c"]
    order = [2, 3, 0, 1]
    shuffled = bootstrap_interval(values[order], [clusters[i] for i in order], seed=0)
    assert shuffled == pytest.approx(bootstrap_interval(values, clusters, seed=0))


def test_interval_of_one_cluster_or_equal_values_has_no_width() -> None:
    assert bootstrap_interval(np.array([0.0, 1.0]), ["a", "a"], seed=0) == (0.5, 0.5)
    assert bootstrap_interval(np.array([0.25, 0.25, 0.25]), ["a", "b", "c"], seed=0) == (0.25, 0.25)


def test_interval_of_clusters_is_wider_than_of_as_many_single_queries() -> None:
    values = np.repeat(np.array([0.0, 1.0] * 10), 10)
    low, high = bootstrap_interval(values, [str(i // 10) for i in range(200)], seed=0)
    low_single, high_single = bootstrap_interval(values, [str(i) for i in range(200)], seed=0)
    assert high - low > 2 * (high_single - low_single)


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        values = generator.random(40)
        low, high = bootstrap_interval(values, [str(i) for i in range(40)], seed=seed, num_resamples=200)
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(("num_values", "num_clusters"), [(0, 0), (1, 2), (2, 1)])
def test_interval_of_nothing_or_of_other_lengths_raises(num_values: int, num_clusters: int) -> None:
    with pytest.raises(ValueError, match="need one cluster a value"):
        bootstrap_interval(np.zeros(num_values), ["a"] * num_clusters, seed=0)


def test_summary_by_hand() -> None:
    judged = Judgements(3, counts(0, 1, 2), counts(0, 1, 2), np.ones(3))
    ranks = JudgedRanks(judged, counts(0, 1, 0), counts(0, 0, 1), np.array([0.9, 0.8, 0.7], np.float32))
    one_cluster = np.zeros(3, np.int64)
    is_answerable = np.ones(3, np.bool_)
    result = summarize("text -> image", "product", ranks, is_answerable, one_cluster, num_products=4, ks=(1, 2), seed=0)
    first = result.measures["hit@1"]
    assert [first.mean, first.low, first.high] == pytest.approx([0.5] * 3)  # one cluster: nothing to resample
    assert [first.worst, first.best, first.chance] == pytest.approx([1 / 3, 2 / 3, 0.25])
    assert result.measures["hit@2"].mean == pytest.approx(1.0)
    assert result.measures["hit@2"].chance == pytest.approx(0.5)
    assert result.measures["mrr"].mean == pytest.approx((1 + 0.5 + 0.75) / 3)
    assert result.measures["mrr"].chance is None
    assert result.median_rank == 1.5
    assert (result.num_right, result.num_unanswerable) == (1.0, 0)
    assert (result.num_queries, result.num_products, result.num_tied) == (3, 4, 1)
    assert result.curve == pytest.approx([0.5, 1.0, 1.0, 1.0])
