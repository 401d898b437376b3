"""Queries on a small index of two sides: equal to brute force, alone and together; and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from product_retrieval.errors import QueryError
from product_retrieval.index import OperatingPoint, ProductIndex, Side
from product_retrieval.index.construction import deserialize, fill, train
from product_retrieval.index.searcher import SearchedSide
from product_retrieval.index.shard import OpenShard, OpenSide
from product_retrieval.index.spec import EXACT, SIDES, IndexSpec, MeasuredPoint
from product_retrieval.querying import Answer, Filter, Part, ProductPart, ProductSearch, Query, VectorPart, parse_filter

FLAT = IndexSpec("Flat", "")
Vectors = NDArray[np.float32]


def unit(values: Sequence[Sequence[float]] | Vectors) -> Vectors:
    """Return vectors of unit length, as float16 holds them; zeros stay."""
    vectors = np.asarray(values, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float16).astype(np.float32)


def shop_index(
    sides: Mapping[Side, Vectors],
    columns: Mapping[str, Any] | None = None,
    *,
    cuts: Sequence[int] = (),
    tombstones: Sequence[int] = (),
    points: Mapping[Side, OperatingPoint] | None = None,
) -> ProductIndex:
    """Return an index of products p0, p1, ...: exact where no points are given, cut into shards before some rows."""
    num_rows, dim = next(iter(sides.values())).shape
    table = pa.table({"product_id": [f"p{row}" for row in range(num_rows)], **(columns or {})})
    shards = []
    for part in np.split(np.arange(num_rows), list(cuts)):
        opened = {}
        for side, vectors in sides.items():
            present = np.flatnonzero(vectors[part].any(axis=1))
            filled = fill(train(vectors[part], FLAT, seed=0), vectors[part][present], present)
            opened[side] = OpenSide(deserialize(filled), vectors[part].astype(np.float16))
        ids = [f"p{row}" for row in part]
        shards.append(
            OpenShard(
                first_row=int(part[0]),
                products=table.slice(part[0], len(part)),
                rows_by_id=np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64),
                sides=opened,
                tombstones=np.array([row - part[0] for row in tombstones if row in part], np.int64),
            )
        )
    searched = SearchedSide(points or {"image": EXACT, "text": EXACT}, is_exact=points is None)
    return ProductIndex(7, dim, dict.fromkeys(sides, searched), tuple(shards))


COMPASS = unit([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0]])
"""East, north-east, north, north-west, west."""


def towards(*vector: float, made_from: Side = "text", weight: float = 1.0) -> VectorPart:
    return VectorPart(vector=np.array(vector), made_from=made_from, weight=weight)


def rows(answer: Answer) -> list[int]:
    return [hit.row for hit in answer.hits]


def ask(index: ProductIndex, *parts: Part, **how: Any) -> Answer:
    return ProductSearch(index).ask(Query(parts=parts, **how))


# What is asked


def test_vector_of_any_length_finds_its_direction() -> None:
    index = shop_index({"image": COMPASS})
    for scale in (1e-300, 1.0, 1e300):
        answer = ask(index, towards(3 * scale, scale), k=2)
        assert rows(answer) == [0, 1]
        assert [hit.score for hit in answer.hits] == pytest.approx([3 / 10**0.5, 4 / 20**0.5], abs=1e-3)
    assert (answer.score_kind, answer.version, answer.num_allowed) == ("cosine similarity", 7, 5)
    assert [dict(hit.ranks) for hit in answer.hits] == [{"image": 1}, {"image": 2}]


def test_product_finds_others_like_it_and_not_itself() -> None:
    index = shop_index({"image": COMPASS})
    assert rows(ask(index, ProductPart(product_id="p1"), k=2)) == [0, 2]
    assert rows(ask(index, ProductPart(product_id="p1"), k=9)) == [0, 2, 3, 4]


def test_product_that_is_not_its_own_nearest_is_left_out_all_the_same() -> None:
    index = shop_index({"image": unit([[1, 0]] * 4)})
    assert rows(ask(index, ProductPart(product_id="p3"), k=2)) == [0, 1]
    assert rows(ask(index, ProductPart(product_id="p0"), k=2)) == [1, 2]


def test_negative_weight_leads_away() -> None:
    index = shop_index({"image": COMPASS})
    assert rows(ask(index, towards(0, 1), k=5)) == [2, 1, 3, 0, 4]
    assert rows(ask(index, towards(0, 1), towards(1, 0, weight=-0.9), k=3)) == [3, 2, 4]
    assert rows(ask(index, ProductPart(product_id="p2"), ProductPart(product_id="p1", weight=-0.5), k=1)) == [3]


def test_parts_are_weighed_as_directions_whatever_their_length() -> None:
    index = shop_index({"image": COMPASS})
    assert rows(ask(index, towards(1000, 0), towards(0, 1, weight=3), k=1)) == [2]
    for scale in (1e-300, 1e300):
        parts = (towards(1, 0, weight=scale), towards(0, 1, weight=3 * scale))
        assert rows(ask(index, *parts, k=5)) == [2, 1, 3, 0, 4]


def test_sides_are_asked_with_the_same_vector_and_products_with_their_own() -> None:
    index = shop_index({"image": COMPASS, "text": COMPASS[::-1].copy()})
    assert rows(ask(index, towards(1, 0), k=1, against="text")) == [4]
    assert rows(ask(index, ProductPart(product_id="p0"), k=1, against="text")) == [1]


# Both sides


def random_shop(seed: int, num_rows: int = 120, **how: Any) -> ProductIndex:
    """Return an index of random products, one in ten without a picture, with groups of uneven size and attributes."""
    generator = np.random.default_rng(seed)
    image, text = (unit(generator.standard_normal((num_rows, 8)).astype(np.float32)) for _ in SIDES)
    image[generator.random(num_rows) < 0.1] = 0
    groups = [None if row % 11 == 0 else f"g{int(generator.zipf(1.5)) % 30}" for row in range(num_rows)]
    colors = [["red", "blue", None][int(generator.integers(3))] for _ in range(num_rows)]
    prices = pa.array(generator.integers(0, 100, num_rows), pa.float32())
    columns = {"group_id": groups, "color": colors, "price": prices}
    return shop_index({"image": image, "text": text}, columns, **{"cuts": [50, 90], "tombstones": [3, 60], **how})


@pytest.mark.parametrize("k", [1, 10, 60, 200])
def test_both_sides_are_fused_by_rank(k: int) -> None:
    index, asked = random_shop(0), np.random.default_rng(1).standard_normal(8)
    depth = max(k, 50)
    scores: dict[int, float] = {}
    for side in SIDES:
        for place, row in enumerate(rows(ask(index, towards(*asked), against=side, k=depth)), start=1):
            scores[row] = scores.get(row, 0) + 1 / (60 + place)
    expected = sorted(scores, key=lambda row: (-scores[row], row))[:k]
    answer = ask(index, towards(*asked), against="both", k=k)
    assert rows(answer) == expected
    assert [hit.score for hit in answer.hits] == pytest.approx([scores[row] for row in expected])
    assert answer.score_kind == "reciprocal rank"
    assert set(answer.points) == {"image", "text"}


def test_product_without_a_picture_is_like_others_by_its_text() -> None:
    image = COMPASS.copy()
    image[0] = 0
    index = shop_index({"image": image, "text": COMPASS})
    answer = ask(index, ProductPart(product_id="p0"), against="both", k=2)
    assert (rows(answer), set(answer.points)) == ([1, 2], {"text"})


# Groups


def one_of_each(index: ProductIndex, scores: NDArray[np.float64], k: int, own: Sequence[int] = ()) -> list[int]:
    """Return by brute force the best rows of the best groups."""
    groups = index.column("group_id").to_pylist()
    named = [group or f"row {row}" for row, group in enumerate(groups)]
    best: dict[str, int] = {}
    for row in np.lexsort((np.arange(len(scores)), -scores)).tolist():
        if np.isfinite(scores[row]) and named[row] not in {named[one] for one in own}:
            best.setdefault(named[row], row)
    return list(best.values())[:k]


def exact_scores(index: ProductIndex, asked: NDArray[Any], side: Side) -> NDArray[np.float64]:
    """Return float64 [N], -inf where a row cannot be found."""
    stored = index.vectors_of(np.arange(index.num_rows), side).astype(np.float64)
    return np.where(index.listed & stored.any(axis=1), stored @ asked, -np.inf)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 7, 25, 100])
def test_collapsed_is_the_best_of_each_group_and_as_many_as_wanted(seed: int, k: int) -> None:
    index, asked = random_shop(seed), np.random.default_rng(seed + 50).standard_normal(8)
    expected = one_of_each(index, exact_scores(index, asked, "text"), k)
    answer = ask(index, towards(*asked), against="text", k=k, collapse="group_id")
    assert rows(answer) == expected
    assert len(expected) == k or k == 100


def test_groups_larger_than_what_is_asked_for_at_once_do_not_hide_the_others() -> None:
    vectors = unit([[1, row / 1000] for row in range(400)])
    index = shop_index({"image": vectors}, {"group_id": [row // 100 for row in range(400)]})
    answer = ask(index, towards(1, 0), k=4, collapse="group_id")
    assert rows(answer) == [0, 100, 200, 300]
    assert rows(ask(index, towards(1, 0), k=9, collapse="group_id")) == [0, 100, 200, 300]


def test_variants_of_a_product_are_not_like_it_where_groups_are_collapsed() -> None:
    index = shop_index({"image": COMPASS}, {"group_id": ["a", "a", "b", "b", None]})
    assert rows(ask(index, ProductPart(product_id="p0"), k=9)) == [1, 2, 3, 4]
    assert rows(ask(index, ProductPart(product_id="p0"), k=9, collapse="group_id")) == [2, 4]
    assert rows(ask(index, ProductPart(product_id="p4"), k=9, collapse="group_id")) == [3, 1]


def test_groups_are_fused_as_groups() -> None:
    image, text = COMPASS, unit([[0, 1], [0, 1], [1, 1], [1, 0], [-1, 0]])
    index = shop_index({"image": image, "text": text}, {"group_id": ["a", "b", "b", "a", None]})
    answer = ask(index, towards(1, 0), against="both", collapse="group_id", k=5)
    assert [(hit.row, dict(hit.ranks)) for hit in answer.hits] == [
        (0, {"image": 1, "text": 1}),
        (1, {"image": 2, "text": 2}),
        (4, {"image": 3, "text": 3}),
    ]


def test_groups_may_be_numbered_or_a_dictionary() -> None:
    for groups in (pa.array([5, 5, None, 6, 6], pa.int16()), pa.array(["a", "a", None, "b", "b"]).dictionary_encode()):
        index = shop_index({"image": COMPASS}, {"article": groups})
        assert rows(ask(index, towards(1, 0), k=5, collapse="article")) == [0, 2, 3]


# Filters and thresholds


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("against", SIDES)
def test_filtered_is_the_best_of_what_matches(seed: int, against: Side) -> None:
    index, generator = random_shop(seed), np.random.default_rng(seed)
    products = index.describe(range(index.num_rows))
    for _ in range(10):
        least, color = int(generator.integers(100)), str(generator.choice(["red", "blue", "green"]))
        record = {"or": [{"field": "color", "equals": color}, {"field": "price", "range": {"gte": least}}]}
        matches = np.array([product["color"] == color or product["price"] >= least for product in products])
        asked = generator.standard_normal(8)
        scores = np.where(matches, exact_scores(index, asked, against), -np.inf)
        expected = [row for row in np.argsort(-scores, kind="stable")[:10].tolist() if np.isfinite(scores[row])]
        answer = ask(index, towards(*asked), against=against, filter=parse_filter(record))
        assert rows(answer) == expected
        assert answer.num_allowed == (matches & index.listed).sum()


def test_filter_holds_for_collapsed_and_fused_hits_too() -> None:
    index = random_shop(2)
    red = parse_filter({"field": "color", "equals": "red"})
    answer = ask(index, towards(*range(8)), against="both", collapse="group_id", k=30, filter=red)
    described = index.describe(rows(answer), ["color", "group_id"])
    assert {product["color"] for product in described} == {"red"}
    named = [product["group_id"] for product in described if product["group_id"]]
    assert len(named) == len(set(named)) > 3


def test_hits_below_the_threshold_are_left_out() -> None:
    index = shop_index({"image": COMPASS})
    assert rows(ask(index, towards(1, 0), min_score=0.5)) == [0, 1]
    assert rows(ask(index, towards(1, 0), min_score=-1.0)) == [0, 1, 2, 3, 4]
    assert rows(ask(index, towards(-1, -1), min_score=0.9)) == []


# Ties, batches


def test_equal_scores_are_ordered_by_row() -> None:
    index = shop_index({"image": unit([[1, 0]] * 5), "text": unit([[1, 0]] * 5)}, cuts=[2])
    for against in ("image", "text", "both"):
        assert rows(ask(index, towards(1, 0), against=against, k=3)) == [0, 1, 2]


def random_query(generator: np.random.Generator, columns: Sequence[Filter | None]) -> Query:
    parts: list[Part] = [
        VectorPart(vector=generator.standard_normal(8), made_from=SIDES[int(generator.integers(2))])
        for _ in range(int(generator.integers(1, 3)))
    ]
    if generator.random() < 0.4:
        weight = float(generator.choice([1.0, -0.5]))
        parts.append(ProductPart(product_id=f"p{generator.integers(125)}", weight=weight))
    against = ("image", "text", "both")[int(generator.integers(3))]
    return Query(
        parts=tuple(parts),
        against=against,
        k=int(generator.choice([1, 3, 10, 60])),
        filter=columns[int(generator.integers(len(columns)))],
        min_score=0.1 if against != "both" and generator.random() < 0.3 else None,
        collapse="group_id" if generator.random() < 0.3 else None,
        exact=bool(generator.random() < 0.3),
    )


@pytest.mark.parametrize("seed", range(5))
def test_queries_together_get_what_they_get_alone(seed: int) -> None:
    index, generator = random_shop(seed), np.random.default_rng(seed)
    records = [
        {"field": "color", "equals": "red"},
        {"field": "price", "range": {"lt": 30}},
        {"field": "x", "equals": 1},
    ]
    queries = [random_query(generator, [None, *map(parse_filter, records)]) for _ in range(60)]
    together = ProductSearch(index).ask_all(queries)
    num_errors = 0
    for query, answer in zip(queries, together, strict=True):
        (alone,) = ProductSearch(index).ask_all([query])
        if isinstance(answer, QueryError):
            assert str(answer) == str(alone)
            num_errors += 1
            continue
        assert isinstance(alone, Answer)
        assert rows(answer) == rows(alone)
        assert [hit.score for hit in answer.hits] == pytest.approx([hit.score for hit in alone.hits], abs=1e-6)
        assert replace(answer, hits=()) == replace(alone, hits=())
    assert 0 < num_errors < 40


def test_queries_that_are_searched_for_alike_are_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    search = ProductIndex.search

    def counted(self: ProductIndex, queries: Vectors, **how: Any) -> Any:
        calls.append((len(queries), how["k"]))
        return search(self, queries, **how)

    monkeypatch.setattr(ProductIndex, "search", counted)
    red, same = (parse_filter({"field": "color", "equals": "red"}) for _ in range(2))
    asked = [{}, {}, {"k": 3}, {"filter": red}, {"filter": same}, {"exact": True}]
    queries = [Query(parts=(towards(*range(8)),), **how) for how in asked]
    ProductSearch(random_shop(0)).ask_all(queries)
    assert sorted(calls) == [(1, 3), (1, 10), (2, 10), (2, 10)]


def test_no_queries_get_no_answers() -> None:
    assert ProductSearch(random_shop(0)).ask_all([]) == []


# How hard


def test_recall_takes_the_cheapest_point_that_was_measured_to_reach_it() -> None:
    chosen = OperatingPoint(8, 4, 0.96)
    index = shop_index({"image": COMPASS}, points={"image": chosen, "text": chosen})
    tried = [(1, 4, 0.7, 0.2), (16, 4, 0.99, 0.9), (8, 4, 0.96, 0.5), (4, 16, 0.96, 0.4), (8, 32, 0.94, 0.8)]
    measured = [MeasuredPoint(probes, factor, 0, recall, 0, cost) for probes, factor, recall, cost in tried]
    search = ProductSearch(index, {"image": {"text": measured}})

    def taken(**how: Any) -> OperatingPoint | None:
        return search.ask(Query(parts=(towards(1, 0),), **how)).points["image"]

    assert taken() == chosen
    assert taken(recall=0.7) == OperatingPoint(1, 4, 0.7)
    assert taken(recall=0.71) == OperatingPoint(4, 16, 0.96)
    assert taken(recall=0.97) == OperatingPoint(16, 4, 0.99)
    with pytest.raises(QueryError, match=r"for text queries against image reaches .* 0\.995; the best has 0\.990"):
        taken(recall=0.995)


def test_what_the_chosen_point_lost_since_training_the_others_are_taken_to_have_lost() -> None:
    index = shop_index({"image": COMPASS}, points={"text": OperatingPoint(8, 4, 0.94)})
    measured = [MeasuredPoint(8, 4, 0, 0.96, 0, 0.5), MeasuredPoint(16, 4, 0, 0.98, 0, 0.9)]
    search = ProductSearch(index, {"image": {"text": measured}})
    answer = search.ask(Query(parts=(towards(1, 0),), recall=0.95))
    assert answer.points["image"] == OperatingPoint(16, 4, pytest.approx(0.96))


def test_recall_of_an_index_without_a_grid_is_that_of_its_points() -> None:
    points: dict[Side, OperatingPoint] = {"image": OperatingPoint(1, 2, 0.99), "text": OperatingPoint(4, 8, 0.9)}
    index = shop_index({"image": COMPASS}, points=points)
    assert ask(index, towards(1, 0), recall=0.85).points == {"image": points["text"]}
    assert ask(index, towards(1, 0, made_from="image"), recall=0.99).points == {"image": points["image"]}
    with pytest.raises(QueryError, match=r"reaches a recall@10 of 0\.95; the best has 0\.900"):
        ask(index, towards(1, 0), recall=0.95)


def test_point_that_is_named_is_taken_and_exact_needs_none() -> None:
    points: dict[Side, OperatingPoint] = {"image": OperatingPoint(1, 2, 0.9), "text": OperatingPoint(4, 8, 0.9)}
    index, own = shop_index({"image": COMPASS}, points=points), OperatingPoint(3, 5)
    assert ask(index, towards(1, 0), point=own).points == {"image": own}
    assert ask(index, towards(1, 0), exact=True).points == {"image": None}
    assert ask(index, towards(1, 0)).points == {"image": points["text"]}
    assert ask(shop_index({"image": COMPASS}), towards(1, 0), recall=1.0).points == {"image": None}


def test_mix_is_searched_for_as_its_hardest_part() -> None:
    points: dict[Side, OperatingPoint] = {"image": OperatingPoint(1, 2), "text": OperatingPoint(4, 8)}
    index = shop_index({"image": COMPASS}, points=points)
    like = ProductPart(product_id="p0")
    assert ask(index, like).points == {"image": points["image"]}
    assert ask(index, like, towards(0, 1)).points == {"image": points["text"]}
    assert ask(index, like, ProductPart(product_id="p4", weight=-0.5)).points == {"image": points["text"]}


# What is refused


@pytest.mark.parametrize(
    ("how", "field", "says"),
    [
        ({"k": 0}, "k", "k is from 1 to 1000, not 0"),
        ({"k": 1001}, "k", "not 1001"),
        ({"parts": ()}, "parts", "from 1 to 16 parts, not 0"),
        ({"parts": (towards(1, 0),) * 17}, "parts", "not 17"),
        ({"parts": (towards(1, 0, weight=0),)}, "parts[0].weight", "a number other than 0, not 0"),
        ({"parts": (towards(1, 0), towards(1, 0, weight=float("nan")))}, "parts[1].weight", "not nan"),
        ({"recall": 0.9, "exact": True}, "exact", "recall and exact contradict each other"),
        ({"recall": 0.9, "point": OperatingPoint(1, 1)}, "point", "recall and point contradict each other"),
        ({"recall": 95}, "recall", "above 0 and at most 1, not 95"),
        ({"recall": float("nan")}, "recall", "not nan"),
        ({"point": OperatingPoint(0, 1)}, "point", "num_probes is from 1"),
        ({"point": OperatingPoint(1, 10**6)}, "point", "rescore_factor from 0 to 1,000"),
        ({"min_score": 1.5}, "min_score", "from -1 to 1, not 1.5"),
        ({"min_score": float("nan")}, "min_score", "not nan"),
        ({"min_score": 0.2, "against": "both"}, "min_score", "name one side"),
        ({"parts": (towards(1, 0, 0),)}, "parts[0].vector", "has 3 numbers; those of this index have 2"),
        ({"parts": (VectorPart(vector=[1, 10**400]),)}, "parts[0].vector", "not a list of numbers"),  # type: ignore
        ({"parts": (VectorPart(vector=np.array(0.5)),)}, "parts[0].vector", "not one list"),
        ({"parts": (VectorPart(vector=np.ones((1, 2))),)}, "parts[0].vector", "not one list of numbers"),
        ({"parts": (towards(1, 0), towards(1, float("nan")))}, "parts[1].vector", "not finite"),
        ({"parts": (towards(1, float("-inf")),)}, "parts[0].vector", "not finite"),
        ({"parts": (towards(0, 0),)}, "parts[0].vector", "all zeros"),
        ({"parts": (towards(1, 1), towards(2, 2, weight=-1))}, "parts", "cancel each other out"),
        ({"parts": (ProductPart(product_id="x" * 5000),)}, "parts[0].product_id", "no such product in this index: 'x"),
        ({"parts": (ProductPart(product_id="p1"),)}, "parts[0].product_id", "'p1' has no image: ask against the other"),
        ({"parts": (ProductPart(product_id="p2"),)}, "parts[0].product_id", "no such product in this index: 'p2'"),
        ({"against": "text"}, "against", "this index has no text side; it has image"),
        ({"against": "both"}, "against", "this index has no text side; it has image"),
        ({"collapse": "group"}, "collapse", "these products have no 'group'; did you mean 'group_id'?"),
        ({"collapse": "tags"}, "collapse", "'tags' holds list"),
        ({"collapse": "price"}, "collapse", "'price' holds double"),
        ({"filter": parse_filter({"field": "price", "equals": "a"})}, "filter", "'price' holds numbers; 'a' is none"),
    ],
)
def test_what_cannot_be_answered_is_said_in_words(how: dict[str, Any], field: str, says: str) -> None:
    image = COMPASS.copy()
    image[1] = 0
    columns = {"group_id": list("abcde"), "tags": [["a"]] * 5, "price": [1.0] * 5}
    index = shop_index({"image": image}, columns, tombstones=[2])
    with pytest.raises(QueryError) as caught:
        ProductSearch(index).ask(Query(**{"parts": (towards(1, 0),), **how}))
    assert caught.value.field == field
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


def test_error_costs_only_its_own_query() -> None:
    queries = [Query(parts=(part,), k=1) for part in (towards(1, 0), towards(1, 0, 0), towards(-1, 0))]
    first, second, third = ProductSearch(shop_index({"image": COMPASS})).ask_all(queries)
    assert isinstance(first, Answer)
    assert isinstance(second, QueryError)
    assert isinstance(third, Answer)
    assert (rows(first), rows(third)) == ([0], [4])
