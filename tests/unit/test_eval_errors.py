"""Misses, look-alikes, suspicious and disturbed texts: by hand, and what must hold for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.lookalikes import choose_tau, confused_pairs, connected, find_lookalikes, tell_apart
from eval.misses import HEADINGS, heading_names, sort_misses
from eval.perturbations import DISTURBANCES, disturbed
from eval.text_quality import suspicious_texts


@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_miss_has_exactly_one_heading(num_queries: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    is_miss = generator.random(num_queries) < 0.6
    conditions = {name: generator.random(num_queries) < 0.3 for name in list(HEADINGS)[:-1]}
    kinds, headings = sort_misses(is_miss, conditions)
    assert sum(kind.num_misses for kind in kinds) == is_miss.sum()
    assert ((headings >= 0) == is_miss).all()
    for number, name in enumerate(heading_names(headings)):
        if name is None:
            continue
        first = next((h for h in conditions if conditions[h][number]), list(HEADINGS)[-1])
        assert name == first


def test_unknown_heading_is_refused() -> None:
    with pytest.raises(ValueError, match="no such headings: bad luck"):
        sort_misses(np.ones(1, np.bool_), {"bad luck": np.ones(1, np.bool_)})


def test_shares_of_no_misses_are_zero() -> None:
    kinds, _ = sort_misses(np.zeros(3, np.bool_), {})
    assert [kind.share for kind in kinds] == [0.0] * len(HEADINGS)


def test_look_alikes_are_groups_of_other_products() -> None:
    rows = np.array([[1, 2], [0, 3], [0, -1], [1, -1]])
    scores = np.array([[0.99, 0.5], [0.99, 0.97], [0.5, np.nan], [0.97, np.nan]], np.float32)
    found = find_lookalikes(np.arange(4), rows, scores, np.arange(4), tau=0.9)
    assert (found.num_ambiguous, found.num_groups, found.largest, found.groups) == (3, 1, 3, [[0, 1, 3]])
    listings = np.array([0, 0, 2, 3])  # 0 and 1 are listings of one product: alike, but not to be told apart
    found = find_lookalikes(np.arange(4), rows, scores, listings, tau=0.9)
    assert found.groups == [[1, 3]]
    nobody = find_lookalikes(np.arange(4), rows, scores, np.arange(4), tau=1.1)
    assert (nobody.num_ambiguous, nobody.groups) == (0, [])


def test_tau_is_reached_by_few() -> None:
    scores = np.linspace(0, 1, 1_001, dtype=np.float32)[:, None]
    assert 0 < (scores >= choose_tau(scores)).mean() < 0.2
    assert choose_tau(np.empty((3, 0), np.float32)) == 1.0


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_connected_is_the_closure(pairs: list[tuple[int, int]]) -> None:
    reached = {number: {number} for pair in pairs for number in pair}
    for _ in reached:
        for a, b in pairs:
            reached[a] |= reached[b]
            reached[b] |= reached[a]
    assert connected(pairs) == {number: min(members) for number, members in reached.items()}


def test_mutual_pairs_come_first_and_once() -> None:
    pairs = confused_pairs(
        np.array([0, 1, 2, 3]), np.array([1, 0, 5, -1]), np.array([0.7, 0.7, 0.99, np.nan], np.float32)
    )
    assert [(pair.row, pair.found, pair.is_mutual) for pair in pairs] == [(0, 1, True), (2, 5, False)]


def test_what_tells_two_products_apart() -> None:
    own = {"text": "red oak chair", "color": "red", "price": 3.0, "image_ref": "a"}
    other = {"text": "blue oak chair", "color": "blue", "price": 3.0, "image_ref": "b"}
    told = tell_apart(own, other, ["image_ref"])
    assert told.attributes == {"color": ("red", "blue")}
    assert (told.own_words, told.other_words) == (["red"], ["blue"])


def test_each_kind_of_suspicious_text_is_found() -> None:
    texts = {
        "": "empty",
        "Red chair": "short",
        "<b>Oak</b> table with four legs": "markup",
        "AB12-99 XK7-3321 chair B9981": "codes",
        "BUY THIS LOVELY SOFA": "shouting",
        "Plain pine shelf with a door": None,
    }
    found = suspicious_texts(list(texts), np.arange(len(texts)), np.arange(len(texts)), None)
    by_row = {row: {each.kind for each in found if row in each.rows} for row in range(len(texts))}
    for row, kind in enumerate(texts.values()):
        assert by_row[row] == (set() if kind is None else {kind})


def test_text_of_another_group_is_shared_and_of_the_own_group_is_not() -> None:
    texts = ["Oak table, large", "oak  table, LARGE", "Pine shelf, large", "Pine shelf, large"]
    shared = next(
        each for each in suspicious_texts(texts, np.arange(4), np.array([0, 1, 2, 2]), None) if each.kind == "shared"
    )
    assert shared.rows == [0, 1]


def test_products_whose_picture_contradicts_come_lowest_first() -> None:
    texts = ["a long enough text"] * 4
    percentiles = np.array([0.9, 0.005, np.nan, 0.001])
    found = suspicious_texts(texts, np.arange(4) + 10, np.zeros(4, np.int64), percentiles)
    contradicts = next(each for each in found if each.kind == "contradicts")
    assert (contradicts.num_products, contradicts.rows) == (2, [13, 11])


@pytest.mark.parametrize("kind", DISTURBANCES, ids=lambda kind: kind.name)
@given(text=st.text(max_size=60), seed=st.integers(0, 9), amount=st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=25, deadline=None)
def test_any_text_can_be_disturbed_and_always_alike(kind, text: str, seed: int, amount: float) -> None:
    once, again = (disturbed([text, "x"], kind, amount, categories=["sofa"], seed=seed) for _ in range(2))
    assert once == again
    assert once[1:] == disturbed(["x"], kind, amount, categories=["sofa"], seed=seed)  # whatever stands beside it
    assert disturbed([text], kind, 0.0, categories=[], seed=seed) == [text]


@pytest.mark.parametrize("kind", DISTURBANCES, ids=lambda kind: kind.name)
def test_much_noise_changes_most_texts(kind) -> None:
    texts = [f"Large oak table number {number} with four round legs, sofa style" for number in range(50)]
    changed = disturbed(texts, kind, kind.amounts[-1], categories=["sofa", "lamp"], seed=0)
    assert sum(a != b for a, b in zip(texts, changed, strict=True)) > 25
