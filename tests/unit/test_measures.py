"""Metrics over several right products and any ties: by hand, against every order of the ties, and TREC's code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.judged import NOT_FOUND, JudgedRanks, Judgements, judge_hits
from eval.measures import capped_recall_at_k, hit_at_k, ndcg_at_k, rank_of_first, recall_at_k, reciprocal_rank

Gallery = Sequence[tuple[float, float]]
"""Score and gain of each product; a gain of 0 is a wrong one."""


def ranked(*galleries: Gallery) -> JudgedRanks:
    """Return the ranks of galleries, one a query."""
    query, row, gain, greater, equal, score = [], [], [], [], [], []
    for number, gallery in enumerate(galleries):
        wrong = [s for s, g in gallery if g == 0]
        for place, (s, g) in enumerate(gallery):
            if g > 0:
                query.append(number)
                row.append(place)
                gain.append(g)
                greater.append(sum(w > s for w in wrong))
                equal.append(sum(w == s for w in wrong))
                score.append(s)
    judged = Judgements(len(galleries), np.array(query, np.int64), np.array(row, np.int64), np.array(gain, np.float64))
    return JudgedRanks(judged, np.array(greater, np.int64), np.array(equal, np.int64), np.array(score, np.float32))


def orders(gallery: Gallery) -> list[list[float]]:
    """Return the gains from the top, for every order of the products that tie."""
    by_score = [[g for s, g in gallery if s == score] for score in sorted({s for s, _ in gallery}, reverse=True)]
    return [
        [g for group in choice for g in group]
        for choice in itertools.product(*(list(itertools.permutations(group)) for group in by_score))
    ]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def dcg(gains: Sequence[float], k: int) -> float:
    return sum(g / math.log2(rank + 1) for rank, g in enumerate(gains[:k], start=1))


RIGHT_FIRST: Gallery = [(0.9, 1), (0.5, 0), (0.1, 0)]
TWO_RIGHT: Gallery = [(0.9, 0), (0.8, 1), (0.5, 0), (0.4, 1), (0.1, 0)]
NOTHING_RIGHT: Gallery = [(0.9, 0), (0.1, 0)]


@pytest.mark.parametrize(
    ("gallery", "k", "hit", "recall", "capped"),
    [
        (RIGHT_FIRST, 1, 1.0, 1.0, 1.0),
        (TWO_RIGHT, 1, 0.0, 0.0, 0.0),
        (TWO_RIGHT, 2, 1.0, 0.5, 0.5),
        (TWO_RIGHT, 4, 1.0, 1.0, 1.0),
        ([(0.9, 1), (0.8, 1), (0.7, 1)], 2, 1.0, 2 / 3, 1.0),
        (NOTHING_RIGHT, 2, 0.0, 0.0, 0.0),
    ],
)
def test_hits_and_recalls_by_hand(gallery: Gallery, k: int, hit: float, recall: float, capped: float) -> None:
    ranks = ranked(gallery)
    found = [f(ranks, k).tolist() for f in (hit_at_k, recall_at_k, capped_recall_at_k)]
    assert found == [[hit], pytest.approx([recall]), pytest.approx([capped])]


def test_reciprocal_rank_first_rank_and_ndcg_by_hand() -> None:
    ranks = ranked(RIGHT_FIRST, TWO_RIGHT, NOTHING_RIGHT)
    assert reciprocal_rank(ranks).tolist() == [1.0, 0.5, 0.0]
    assert rank_of_first(ranks).tolist() == [1.0, 2.0, math.inf]
    ideal = 1 + 1 / math.log2(3)
    assert ndcg_at_k(ranks, 10).tolist() == pytest.approx([1, (1 / math.log2(3) + 1 / math.log2(5)) / ideal, 0])


def test_a_constant_scorer_gets_what_chance_gets_and_its_bounds_say_so() -> None:
    ranks = ranked([(0.0, 1), *[(0.0, 0)] * 9])
    assert hit_at_k(ranks, 1).tolist() == pytest.approx([0.1])
    assert hit_at_k(ranks, 1, "best").tolist() == [1.0]
    assert hit_at_k(ranks, 9, "worst").tolist() == [0.0]
    assert reciprocal_rank(ranks).tolist() == pytest.approx([sum(1 / r for r in range(1, 11)) / 10])


def test_many_ties_cost_no_memory_and_stay_exact() -> None:
    one = Judgements(1, np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1))
    ranks = JudgedRanks(one, np.array([7]), np.array([999_999]), np.array([0.5], np.float32))
    expected = math.fsum(1 / rank for rank in range(8, 1_000_008)) / 1_000_000
    assert reciprocal_rank(ranks)[0] == pytest.approx(expected, rel=1e-12)


galleries = st.lists(
    st.tuples(st.sampled_from([0.9, 0.5, 0.1]), st.sampled_from([0.0, 0.0, 1.0, 3.0])), min_size=1, max_size=6
)


@given(gallery=galleries, k=st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_expected_values_are_means_over_every_order_of_ties(gallery: Gallery, k: int) -> None:
    ranks, every = ranked(gallery), orders(gallery)
    num_right = sum(g > 0 for _, g in gallery)
    right = [[g > 0 for g in gains] for gains in every]
    assert hit_at_k(ranks, k)[0] == pytest.approx(mean([any(r[:k]) for r in right]))
    if num_right:
        assert recall_at_k(ranks, k)[0] == pytest.approx(mean([sum(r[:k]) / num_right for r in right]))
        assert capped_recall_at_k(ranks, k)[0] == pytest.approx(mean([sum(r[:k]) / min(k, num_right) for r in right]))
        assert reciprocal_rank(ranks)[0] == pytest.approx(mean([1 / (r.index(True) + 1) for r in right]))
        assert rank_of_first(ranks)[0] == pytest.approx(mean([r.index(True) + 1 for r in right]))
        ideal = dcg(sorted((g for _, g in gallery), reverse=True), k)
        assert ndcg_at_k(ranks, k)[0] == pytest.approx(mean([dcg(gains, k) / ideal for gains in every]))


@given(gallery=galleries, k=st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_bounds_are_those_of_the_worst_and_the_best_order(gallery: Gallery, k: int) -> None:
    ranks, every = ranked(gallery), orders(gallery)
    found = [any(g > 0 for g in gains[:k]) for gains in every]
    assert hit_at_k(ranks, k, "worst")[0] == min(found)
    assert hit_at_k(ranks, k, "best")[0] == max(found)
    if any(g > 0 for _, g in gallery):
        ideal = dcg(sorted((g for _, g in gallery), reverse=True), k)
        values = [dcg(gains, k) / ideal for gains in every]
        assert ndcg_at_k(ranks, k, "worst")[0] == pytest.approx(min(values))
        assert ndcg_at_k(ranks, k, "best")[0] == pytest.approx(max(values))


def random_run(
    num_queries: int, depth: int, gains: Sequence[int], seed: int
) -> tuple[Judgements, np.ndarray, np.ndarray]:
    """Return judgements of 50 products and a run of distinct scores, some of them below 0."""
    generator = np.random.default_rng(seed)
    judged = generator.choice(gains, size=(num_queries, 50))
    rows = np.argsort(generator.random((num_queries, 50)), axis=1)[:, :depth]
    scores = -np.sort(generator.permuted(np.tile(np.arange(-50, 50), (num_queries, 1)), axis=1)[:, :depth] / -64.0)
    query, row = np.nonzero(judged)
    gain = judged[query, row].astype(np.float64)
    return Judgements(num_queries, query, row, gain), rows, -np.sort(-scores, axis=1).astype(np.float32)


@pytest.mark.parametrize("depth", [1, 20, 50])
@pytest.mark.parametrize("gains", [(0, 0, 0, 1), (0, 0, 1, 2, 3), (1,), (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)])
def test_metrics_are_those_of_trec_eval(depth: int, gains: tuple[int, ...]) -> None:
    judged, rows, scores = random_run(40, depth, gains, seed=depth)
    ranks = judge_hits(judged, rows, scores)
    qrels: dict[str, dict[str, int]] = {}
    for query, row, gain in zip(judged.query, judged.row, judged.gain, strict=True):
        qrels.setdefault(f"q{query}", {})[f"p{row}"] = int(gain)
    run = {
        f"q{query}": {f"p{row}": float(score) for row, score in zip(rows[query], scores[query], strict=True)}
        for query in range(40)
    }
    measured = {
        **{f"success_{k}": hit_at_k(ranks, k) for k in (1, 5, 10)},
        **{f"recall_{k}": recall_at_k(ranks, k) for k in (5, 10, 100)},
        "recip_rank": reciprocal_rank(ranks),
        **{f"ndcg_cut_{k}": ndcg_at_k(ranks, k) for k in (5, 10)},
    }
    judge = pytrec_eval.RelevanceEvaluator(qrels, {"success.1,5,10", "recall.5,10,100", "recip_rank", "ndcg_cut.5,10"})
    theirs = judge.evaluate(run)
    assert len(theirs) == len(qrels)
    for name, values in measured.items():
        for query, expected in theirs.items():
            assert values[int(query[1:])] == pytest.approx(expected[name], abs=1e-9), (name, query)


def test_what_is_not_in_a_list_is_never_found_and_short_lists_are_fine() -> None:
    judged = Judgements(3, np.array([0, 1, 2]), np.array([5, 6, 7]), np.ones(3))
    rows = np.array([[5, -1], [1, 2], [-1, -1]])
    scores = np.array([[0.5, np.nan], [0.5, 0.4], [np.nan, np.nan]], np.float32)
    ranks = judge_hits(judged, rows, scores)
    assert ranks.num_greater.tolist() == [0, NOT_FOUND, NOT_FOUND]
    assert hit_at_k(ranks, 100).tolist() == [1.0, 0.0, 0.0]
    assert rank_of_first(ranks).tolist() == [1.0, math.inf, math.inf]


def test_hits_of_one_score_tie() -> None:
    judged = Judgements(1, np.array([0]), np.array([3]), np.ones(1))
    ranks = judge_hits(judged, np.array([[1, 2, 3, 4]]), np.array([[0.9, 0.5, 0.5, 0.5]], np.float32))
    assert (ranks.num_greater.tolist(), ranks.num_equal.tolist()) == ([1], [2])


def test_k_below_one_is_refused() -> None:
    for measure in (hit_at_k, recall_at_k, capped_recall_at_k, ndcg_at_k):
        with pytest.raises(ValueError, match="at least 1"):
            measure(ranked(RIGHT_FIRST), 0)
