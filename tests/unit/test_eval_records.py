"""Limits, options, and TREC's formats, re-scored by TREC's own software."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import pytrec_eval

from eval.judged import Judgements, judge_hits
from eval.measures import hit_at_k, recall_at_k
from eval.options import EvaluateOptions, Limit, parse_limit
from eval.records import check_limits, key_of
from eval.trec import distinct, qrels_lines, quoted, run_lines
from product_retrieval.errors import OptionsError, RetrievalError

RESULTS: list[dict[str, Any]] = [
    {"name": "text -> image", "relevant": "product", "measures": {"hit@10": {"mean": 0.6}, "mrr": {"mean": 0.3}}},
    {"name": "text -> image", "relevant": "group", "measures": {"hit@10": {"mean": 0.8}, "mrr": {"mean": 0.5}}},
]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("text_to_image.recall@10=0.6", Limit("text_to_image", None, "recall@10", 0.6)),
        ("text_to_image.group.hit@1=.4", Limit("text_to_image", "group", "hit@1", 0.4)),
        (" query_text_to_image.judged.mrr=1 ", Limit("query_text_to_image", "judged", "mrr", 1.0)),
    ],
)
def test_limits_are_read(text: str, limit: Limit) -> None:
    assert parse_limit(text) == limit


@pytest.mark.parametrize("text", ["", "hit@10", "text_to_image=0.5", "a.hit@10=high", "a.b.c.d=1", "a.hit@10=0.5=1"])
def test_what_is_no_limit_is_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(ValueError, match="a limit is such as"):
        EvaluateOptions(index="i", output="o", fail_under=(text,))


def test_limits_hold_or_name_every_mean_that_is_below() -> None:
    check_limits(RESULTS, ["text_to_image.hit@10=0.6", "text_to_image.group.hit@10=0.8"])
    with pytest.raises(RetrievalError, match=r"product\.hit@10 is 0\.6000, below 0\.61; .*group\.mrr is 0\.5000"):
        check_limits(RESULTS, ["text_to_image.hit@10=0.61", "text_to_image.group.mrr=0.9"])


@pytest.mark.parametrize("limit", ["image_to_text.hit@10=0.1", "text_to_image.hit@3=0.1", "text_to_image.judged.mrr=0"])
def test_limit_on_what_was_not_measured_names_what_was(limit: str) -> None:
    with pytest.raises(OptionsError, match=r"there are text_to_image\.group\.hit@10"):
        check_limits(RESULTS, [limit])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": ()}, "--ks"),
        ({"ks": (0, 1)}, "--ks"),
        ({"num_queries": 0}, "--num-queries must be at least 1"),
        ({"queries": "q.jsonl"}, "--queries and --judgements go together"),
        ({"judgements": "q.qrels"}, "--queries and --judgements go together"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluateOptions(index="i", output="o", **options)


def test_names_of_directions_in_options_and_files() -> None:
    assert key_of("query text -> image") == "query_text_to_image"


def test_trec_software_gets_the_same_numbers_from_the_files() -> None:
    generator = np.random.default_rng(0)
    query_ids = [f"q {number}%\t" for number in range(20)]
    product_ids = [f"prod uct-{number}\n" for number in range(50)]
    rows = np.array([generator.permutation(50)[:10] for _ in range(20)])
    rows[3, 6:] = -1
    scores = np.sort(generator.random((20, 10)).astype(np.float32), axis=1)[:, ::-1].copy()
    pairs = sorted({(query, int(row)) for query in range(20) for row in generator.integers(0, 50, 4)})
    judged = Judgements(20, np.array([q for q, _ in pairs]), np.array([r for _, r in pairs]), np.ones(len(pairs)))
    run: dict[str, dict[str, float]] = {}
    for line in run_lines(query_ids, rows, scores, product_ids):
        query, _, product, _, score, _ = line.split()
        run.setdefault(query, {})[product] = float(score)
    qrels: dict[str, dict[str, int]] = {}
    for line in qrels_lines(query_ids, judged, product_ids):
        query, _, product, relevance = line.split()
        qrels.setdefault(query, {})[product] = int(relevance)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"recall.10", "success.10"}).evaluate(run)
    ranks = judge_hits(judged, rows, scores)
    for number, query_id in enumerate(query_ids):
        assert theirs[quoted(query_id)]["recall_10"] == pytest.approx(recall_at_k(ranks, 10)[number])
        assert theirs[quoted(query_id)]["success_10"] == pytest.approx(hit_at_k(ranks, 10)[number])


def test_scores_in_a_run_fall_strictly_although_hits_tie() -> None:
    lines = run_lines(["q"], np.array([[3, 1, 2]]), np.array([[0.5, 0.5, 0.5]], np.float32), list("abcd"))
    scores = [np.float32(line.split()[4]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3


def test_product_that_the_index_lacks_counts_and_cannot_be_found() -> None:
    judged = Judgements(1, np.array([0, 0]), np.array([-1, 2]), np.array([1.0, 3.0]))
    assert list(qrels_lines(["q"], judged, list("abc"))) == ["q 0 not-in-the-index-0 1\n", "q 0 c 3\n"]


def test_queries_of_one_id_get_names_that_differ() -> None:
    assert distinct(["a", "b", "a", "a"]) == ["a", "b", "a#2", "a#3"]
