"""What a re-ranker is asked, which of its answers are orders, and how the one that comes along ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from product_retrieval.errors import OptionsError
from serve.ranking import is_order, load_reranker
from serve.word_match import build, fused_order, matched_shares, words_of


@pytest.mark.parametrize("order", [[], [0], [2, 0, 1], (1, 2), np.array([1, 0]), range(3)])
def test_distinct_places_are_an_order(order: object) -> None:
    assert is_order(order, 3)


@pytest.mark.parametrize("order", [None, 1, "abc", [0, 0], [3], [-1], [0, None], [[0]], [float("nan")]])
def test_anything_else_is_no_order(order: object) -> None:
    assert not is_order(order, 3)


def test_a_reranker_is_an_application_or_a_function_that_returns_one() -> None:
    assert load_reranker("serve.word_match:build")._bound_deployment.name == build()._bound_deployment.name


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("serve.no_such:build", "cannot be imported"),
        ("serve.word_match:nothing", "cannot be imported"),
        ("serve.word_match:COLUMN", "no Serve application, but str"),
        ("serve.word_match:WordMatch", "but Deployment: bind it"),
        ("builtins:dict", "no Serve application, but dict"),
    ],
)
def test_what_is_no_reranker_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(OptionsError, match=complaint):
        load_reranker(name)


def test_words_are_found_in_any_case_and_script() -> None:
    assert words_of("Straße, LAMPE 20-W/ランプ") == {"strasse", "lampe", "20", "w", "ランプ"}


def test_a_rare_word_weighs_more_than_one_that_all_have() -> None:
    lamp_only, with_number, neither = matched_shares({"lamp", "x200"}, ["oak lamp", "lamp X200", "chair"])
    assert neither == 0 < lamp_only < 0.5 < with_number == pytest.approx(1)
    assert matched_shares({"sofa"}, ["lamp", "chair"]) == [0, 0]


def test_a_product_with_the_words_passes_better_places_without_them() -> None:
    assert fused_order([0, 0, 0, 1.0]) == [3, 0, 1, 2]
    assert fused_order([0, 0.5, 1.0, 0]) == [2, 1, 0, 3]


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=30))
def test_the_order_is_whole_and_keeps_retrievals_where_words_say_nothing(shares: list[float]) -> None:
    order = fused_order(shares)
    assert sorted(order) == list(range(len(shares)))
    for share in {0.0, 0.25, 0.5, 1.0}:
        alike = [at for at in order if shares[at] == share]
        assert alike == sorted(alike)
