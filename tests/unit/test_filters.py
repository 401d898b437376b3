"""Filters: what is one, what it says of every type of column, and that it equals asking each product in turn."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from product_retrieval.errors import QueryError
from product_retrieval.querying.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_JSON_CHARS,
    MAX_VALUES,
    And,
    Exists,
    Not,
    OneOf,
    Or,
    Range,
    parse_filter,
    parse_filter_text,
)
from product_retrieval.querying.masks import Masks

Record = dict[str, Any]


def masks_of(table: pa.Table, **how: int) -> Masks:
    return Masks(table.schema, table.column, len(table), **how)


def matching(values: Any, record: Record, type_: pa.DataType | None = None) -> list[int]:
    """Return the places of the values of one column `x` that a filter without its field matches."""
    column = values if isinstance(values, pa.Array) else pa.array(values, type_)
    mask = masks_of(pa.table({"x": column})).mask(parse_filter({"field": "x", **record}))
    return np.flatnonzero(mask).tolist()


# Shape


def test_filter_becomes_dataclasses() -> None:
    text = """{"and": [{"field": "color", "equals": "red"}, {"field": "size", "in": [1, 2.5, true]},
      {"or": [{"field": "price", "range": {"gte": 10, "lt": 20}}, {"not": {"field": "brand", "exists": true}},
      {"field": "brand", "exists": false}]}]}"""
    assert parse_filter_text(text) == And(
        (
            OneOf("color", ("red",)),
            OneOf("size", (1, 2.5, True)),
            Or((Range("price", gte=10, lt=20), Not(Exists("brand")), Not(Exists("brand")))),
        )
    )


@pytest.mark.parametrize(
    ("text", "field", "says"),
    [
        ("", "filter", "not JSON"),
        ("{", "filter", "not JSON"),
        ("[" * 60_000, "filter", "nested deeper than 8"),
        ('"' + "a" * MAX_JSON_CHARS + '"', "filter", "65,538 characters, at most 65,536"),
        ("1" * 5000, "filter", "not JSON"),
        ("null", "filter", "got null"),
        ("[]", "filter", "got an empty list"),
        ('"red"', "filter", 'got "red"'),
        ("{}", "filter", "got an object with nothing"),
        ('{"field": "color"}', "filter", "got an object with 'field'"),
        ('{"equals": "red"}', "filter", "got an object with 'equals'"),
        ('{"field": "color", "equals": "red", "in": []}', "filter", "with 'field', 'equals', 'in'"),
        ('{"field": "color", "like": "red"}', "filter", "with 'field', 'like'"),
        ('{"and": [], "or": []}', "filter", "expected"),
        ('{"field": 3, "equals": "red"}', "filter.field", "expected the name of a column; got a number"),
        ('{"field": "color", "equals": null}', "filter.equals", '"exists": false'),
        ('{"field": "color", "equals": []}', "filter.equals", "expected a text, a number, true or false; got an empty"),
        ('{"field": "color", "equals": {"a": 1}}', "filter.equals", "got an object with 'a'"),
        ('{"field": "price", "equals": NaN}', "filter.equals", "not a finite number"),
        ('{"field": "price", "equals": 1e999}', "filter.equals", "not a finite number"),
        (f'{{"field": "price", "equals": -1{"0" * 400}}}', "filter.equals", "not a finite number"),
        ('{"field": "color", "equals": "\\ud800"}', "filter.equals", "half of a UTF-16 pair"),
        ('{"field": "\\ud800", "equals": "red"}', "filter.field", "half of a UTF-16 pair"),
        (f'{{"field": "color", "equals": "{"a" * 1001}"}}', "filter.equals", "1,001 characters, at most 1,000"),
        ('{"field": "color", "in": "red"}', "filter.in", "expected a list of at least one value"),
        ('{"field": "color", "in": []}', "filter.in", "got an empty list"),
        ('{"field": "color", "in": ["red", null]}', "filter.in[1]", "null equals nothing"),
        ('{"field": "price", "range": {}}', "filter.range", "expected bounds named gt, gte, lt, lte"),
        ('{"field": "price", "range": {"above": 1}}', "filter.range", "got an object with 'above'"),
        ('{"field": "price", "range": [1, 2]}', "filter.range", "got a list"),
        ('{"field": "price", "range": {"gt": 1, "gte": 1}}', "filter.range", "give gt or gte, not both"),
        ('{"field": "price", "range": {"lt": null}}', "filter.range.lt", "null"),
        ('{"field": "price", "exists": 1}', "filter.exists", "expected true or false; got a number"),
        ('{"and": []}', "filter.and", "at least one filter"),
        ('{"or": {"field": "a", "exists": true}}', "filter.or", "got an object with 'field', 'exists'"),
        ('{"not": [{"field": "a", "exists": true}]}', "filter.not", "got a list"),
        ('{"and": [{"field": "a", "exists": true}, {"not": {"or": [3]}}]}', "filter.and[1].not.or[0]", "a number"),
    ],
)
def test_what_is_no_filter_is_said_where_and_why(text: str, field: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse_filter_text(text)
    assert caught.value.field == field
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{field}: ")
    assert len(str(caught.value)) < 400


def test_filter_of_another_shape_than_json_is_refused() -> None:
    for value in (b"red", object(), {1, 2}, date(2024, 1, 1)):
        with pytest.raises(QueryError, match="expected a text, a number, true or false; got a "):
            parse_filter({"field": "color", "equals": value})


def test_depth_conditions_and_values_are_limited() -> None:
    leaf = {"field": "x", "exists": True}

    def nested(depth: int) -> Record:
        return leaf if depth == 1 else {"not": nested(depth - 1)}

    parse_filter(nested(MAX_DEPTH))
    with pytest.raises(QueryError, match="nested deeper than 8"):
        parse_filter(nested(MAX_DEPTH + 1))
    parse_filter({"and": [leaf] * (MAX_CONDITIONS - 1)})
    with pytest.raises(QueryError, match="more than 64 conditions"):
        parse_filter({"and": [leaf] * MAX_CONDITIONS})
    half = {"field": "x", "in": list(range(MAX_VALUES // 2))}
    parse_filter({"or": [half, half]})
    with pytest.raises(QueryError, match="more than 1000 values"):
        parse_filter({"or": [half, half, {"field": "x", "equals": 1}]})


# Types


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_is_compared_by_code_point(type_: pa.DataType) -> None:
    values = ["red", None, "", "Red", "réd", "杯", "red"]
    assert matching(values, {"equals": "red"}, type_) == [0, 6]
    assert matching(values, {"equals": ""}, type_) == [2]
    assert matching(values, {"in": ["杯", "Red", "blue"]}, type_) == [3, 5]
    assert matching(values, {"range": {"gte": "red"}}, type_) == [0, 4, 5, 6]
    assert matching(values, {"range": {"gt": "Red", "lt": "réd"}}, type_) == [0, 6]
    assert matching(values, {"exists": True}, type_) == [0, 2, 3, 4, 5, 6]
    assert matching(values, {"exists": False}, type_) == [1]


@pytest.mark.parametrize(
    "type_", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.dictionary(pa.int32(), pa.int64())]
)
def test_whole_numbers_are_compared_exactly(type_: pa.DataType) -> None:
    values = [3, None, -5, 0, 100]
    assert matching(values, {"equals": 3}, type_) == [0]
    assert matching(values, {"equals": 3.0}, type_) == [0]
    assert matching(values, {"equals": 3.5}, type_) == []
    assert matching(values, {"in": [10**30, 0, -5]}, type_) == [2, 3]
    assert matching(values, {"range": {"gt": 2.5, "lte": 100.9}}, type_) == [0, 4]
    assert matching(values, {"range": {"gt": 3}}, type_) == [4]
    assert matching(values, {"range": {"lt": -4.5}}, type_) == [2]
    assert matching(values, {"range": {"gte": -1e300, "lt": 10**300}}, type_) == [0, 2, 3, 4]
    assert matching(values, {"range": {"gt": 10**30}}, type_) == []
    assert matching(values, {"range": {"gt": 50, "lt": 10}}, type_) == []
    assert matching(values, {"range": {"gt": 3, "lt": 4}}, type_) == []


def test_numbers_beyond_what_a_float_tells_apart_are_compared_exactly() -> None:
    values = [2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
    assert matching(values, {"equals": 2**53 + 1}, pa.int64()) == [1]
    assert matching(values, {"range": {"gt": 2**53}}, pa.int64()) == [1, 2]
    assert matching(values, {"range": {"lte": -(2**63)}}, pa.int64()) == [3]
    assert matching([2**64 - 1, 0, None], {"equals": 2**64 - 1}, pa.uint64()) == [0]
    assert matching([2**64 - 1, 0, None], {"range": {"gt": -1}}, pa.uint64()) == [0, 1]


@pytest.mark.parametrize("type_", [pa.float16(), pa.float32(), pa.float64()])
def test_floats_are_compared_as_the_column_holds_them(type_: pa.DataType) -> None:
    values = [4.1, None, math.nan, -0.0, math.inf, 7]
    assert matching(values, {"equals": 4.1}, type_) == [0]
    assert matching(values, {"range": {"gte": 4.1, "lte": 4.1}}, type_) == [0]
    assert matching(values, {"equals": 0}, type_) == [3]
    assert matching(values, {"in": [7, 4.1]}, type_) == [0, 5]
    assert matching(values, {"range": {"gt": 4.1}}, type_) == [4, 5]
    assert matching(values, {"range": {"lt": 10**300}}, type_) == [0, 3, 5]
    assert matching(values, {"exists": True}, type_) == [0, 3, 4, 5]
    assert matching(values, {"exists": False}, type_) == [1, 2]


@pytest.mark.parametrize("type_", [pa.decimal32(7, 2), pa.decimal64(12, 2), pa.decimal128(20, 2), pa.decimal256(50, 2)])
def test_decimals_are_compared_as_they_are_written(type_: pa.DataType) -> None:
    values = [Decimal("4.10"), None, Decimal("-0.01"), Decimal("99999.99"), Decimal("4.11")]
    assert matching(values, {"equals": 4.1}, type_) == [0]
    assert matching(values, {"equals": 4.105}, type_) == []
    assert matching(values, {"in": [4.11, -0.01]}, type_) == [2, 4]
    assert matching(values, {"range": {"gt": 4.1, "lt": 4.115}}, type_) == [4]
    assert matching(values, {"range": {"gte": 4.101}}, type_) == [3, 4]
    assert matching(values, {"range": {"lte": 1e300}}, type_) == [0, 2, 3, 4]
    assert matching(values, {"range": {"lt": 0}}, type_) == [2]


def test_truth_is_equal_or_not() -> None:
    values = [True, None, False]
    assert matching(values, {"equals": True}) == [0]
    assert matching(values, {"in": [True, False]}) == [0, 2]
    assert matching(values, {"exists": False}) == [1]


@pytest.mark.parametrize("type_", [pa.date32(), pa.date64()])
def test_days_are_written_as_in_a_calendar(type_: pa.DataType) -> None:
    values = [date(2024, 1, 31), None, date(1969, 12, 31), date(2024, 2, 1)]
    assert matching(values, {"equals": "2024-01-31"}, type_) == [0]
    assert matching(values, {"range": {"gt": "2024-01-31"}}, type_) == [3]
    assert matching(values, {"range": {"gte": "0001-01-01", "lt": "2024-02-01"}}, type_) == [0, 2]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_instants_are_compared_in_their_zone_at_any_resolution(unit: str, zone: str | None) -> None:
    values = (
        pa.array([1_706_702_400, None, 0, 1_706_702_401], pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
    )
    values = values.cast(pa.int64()).cast(pa.timestamp(unit, zone))
    assert matching(values, {"equals": "2024-01-31T12:00:00"}) == [0]
    assert matching(values, {"range": {"gt": "2024-01-31T12:00:00.000001"}}) == [3]
    assert matching(values, {"range": {"gte": "2024-01-31"}}) == [0, 3]
    assert matching(values, {"range": {"gt": "0001-01-01", "lt": "9999-12-31"}}) == [0, 2, 3]
    if zone:
        assert matching(values, {"equals": "2024-01-31T13:00:00+01:00"}) == [0]
        assert matching(values, {"range": {"gt": "0001-01-01T00:00:00+14:00"}}) == [0, 2, 3]


@pytest.mark.parametrize(
    "type_",
    [
        pa.list_(pa.string()),
        pa.large_list(pa.string()),
        pa.list_view(pa.string()),
        pa.large_list_view(pa.string()),
        pa.list_(pa.dictionary(pa.int8(), pa.string())),
    ],
)
def test_lists_match_by_one_of_their_elements(type_: pa.DataType) -> None:
    values = [["red", "round"], None, [], [None], ["blue", None, "red"], ["Red"]]
    assert matching(values, {"equals": "red"}, type_) == [0, 4]
    assert matching(values, {"in": ["round", "Red"]}, type_) == [0, 5]
    assert matching(values, {"range": {"lt": "blue2"}}, type_) == [4, 5]
    assert matching(values, {"exists": True}, type_) == [0, 4, 5]
    assert matching(values, {"exists": False}, type_) == [1, 2, 3]


def test_lists_of_numbers_and_of_fixed_size_match_too() -> None:
    assert matching([[1, 2], None, [3, 4]], {"equals": 3}, pa.list_(pa.int64(), 2)) == [2]
    assert matching([[1.5], None, [3, 40]], {"range": {"gt": 30}}, pa.list_(pa.float32())) == [2]
    assert matching([[[1], [2, 3]], None, [[4], None]], {"in": [3, 4]}, pa.list_(pa.list_(pa.int8()))) == [0, 2]


def test_part_of_a_column_is_compared_as_the_whole() -> None:
    lists = pa.array([["a"], ["b"], None, ["c", "b"]]).slice(1)
    words = pa.array(["a", "b", None, "b"]).dictionary_encode().slice(1)
    pairs = pa.array([[1, 2], [3, 4], None, [5, 3]], pa.list_(pa.int8(), 2)).slice(1)
    assert matching(lists, {"equals": "b"}) == [0, 2]
    assert matching(words, {"equals": "b"}) == [0, 2]
    assert matching(pairs, {"equals": 3}) == [0, 2]


def test_dictionary_with_a_null_entry_has_no_value_there() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 1]), pa.array(["red", None]))
    assert matching(column, {"equals": "red"}) == [0]
    assert matching(column, {"exists": True}) == [0]


def test_column_of_nulls_matches_only_that_it_does_not_exist() -> None:
    for type_ in (pa.null(), pa.string(), pa.int8(), pa.list_(pa.null())):
        value: Any = "a" if type_ == pa.string() else 1
        assert matching([None, None], {"equals": value}, type_) == []
        assert matching([None, None], {"exists": False}, type_) == [0, 1]
        assert matching([], {"equals": value}, type_) == []


def test_types_without_comparison_can_be_asked_to_exist() -> None:
    struct, binary = pa.array([{"a": 1}, None]), pa.array([None, b"a"])
    clock = pa.array([time(1), None])
    assert matching(struct, {"exists": True}) == [0]
    assert matching(binary, {"exists": True}) == [1]
    assert matching(clock, {"exists": False}) == [1]
    for column in (struct, binary, clock):
        with pytest.raises(QueryError, match="which cannot be compared; it can only be asked to exist"):
            matching(column, {"equals": "a"})


def test_extension_types_are_compared_as_what_they_store() -> None:
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None]))
    assert matching(column, {"equals": '{"a": 1}'}) == [0]


@pytest.mark.parametrize(
    ("type_", "record", "says"),
    [
        (pa.string(), {"equals": 3}, "'x' holds text; 3 is none: write it in quotes"),
        (pa.string(), {"range": {"gt": True}}, "'x' holds text; True is none"),
        (pa.int32(), {"equals": "3"}, "'x' holds whole numbers; '3' is no number"),
        (pa.int32(), {"in": [1, True]}, "'x' holds whole numbers; True is no number"),
        (pa.float32(), {"equals": "4.1"}, "'x' holds numbers; '4.1' is none"),
        (pa.float32(), {"range": {"lt": False}}, "'x' holds numbers; False is none"),
        (pa.decimal128(5, 2), {"equals": "4.10"}, "'x' holds numbers; '4.10' is no number"),
        (pa.bool_(), {"equals": 1}, "'x' holds true or false; 1 is neither"),
        (pa.bool_(), {"range": {"gt": False}}, "no order: use equals"),
        (pa.date32(), {"equals": 2024}, "'x' holds dates; write one as '2024-01-31', not 2024"),
        (pa.date32(), {"equals": "31.1.2024"}, "not '31.1.2024'"),
        (pa.timestamp("s"), {"equals": "soon"}, "write one as '2024-01-31T12:00:00', not 'soon'"),
        (pa.timestamp("s"), {"equals": "2024-01-31T12:00:00Z"}, "they have no zone"),
        (pa.timestamp("s", "UTC"), {"equals": 1706702400}, "write one as '2024-01-31T12:00:00Z', not 1706702400"),
        (pa.list_(pa.string()), {"equals": 3}, "'x' holds text"),
        (pa.dictionary(pa.int8(), pa.string()), {"equals": 3}, "'x' holds text"),
    ],
)
def test_value_of_another_type_is_said_even_where_there_are_no_products(
    type_: pa.DataType, record: Record, says: str
) -> None:
    with pytest.raises(QueryError) as caught:
        matching(pa.array([], type_), record)
    assert says in str(caught.value)
    assert caught.value.field == "filter"


# Fields, combinations, cache

SHOP = pa.table(
    {
        "product_id": ["mug", "cup", "jug"],
        "color": ["red", None, "blue"],
        "price": pa.array([4.5, 3.0, None], pa.float32()),
        "tags": [["small"], [], None],
        "image_ref": ["a", "b", "c"],
    }
)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"not": {"field": "color", "equals": "red"}}, ["cup", "jug"]),
        ({"not": {"not": {"field": "color", "equals": "red"}}}, ["mug"]),
        ({"and": [{"field": "color", "exists": True}, {"field": "price", "range": {"gt": 0}}]}, ["mug"]),
        ({"or": [{"field": "color", "equals": "blue"}, {"field": "price", "range": {"lt": 4}}]}, ["cup", "jug"]),
        ({"field": "tags", "equals": "small"}, ["mug"]),
        ({"field": "product_id", "in": ["jug", "mug"]}, ["mug", "jug"]),
    ],
)
def test_conditions_are_combined(record: Record, expected: list[str]) -> None:
    mask = masks_of(SHOP).mask(parse_filter(record))
    assert SHOP.column("product_id").filter(pa.array(mask)).to_pylist() == expected


def test_unknown_field_is_told_its_neighbours() -> None:
    with pytest.raises(QueryError, match="these products have no 'colour'; did you mean 'color'"):
        masks_of(SHOP).mask(Exists("colour"))
    with pytest.raises(QueryError, match="have no 'x'; there are product_id, color, price, tags"):
        masks_of(SHOP).mask(And((Exists("color"), Exists("x"))))


def test_where_pictures_are_kept_cannot_be_asked() -> None:
    with pytest.raises(QueryError, match="these products have no 'image_ref'"):
        masks_of(SHOP).mask(Range("image_ref", gte="a"))


def test_fields_say_what_they_are_compared_with() -> None:
    assert masks_of(SHOP).fields == {"product_id": "text", "color": "text", "price": "numbers", "tags": "text"}


def test_masks_are_kept_and_forgotten_oldest_first() -> None:
    asked: list[str] = []

    def column(name: str) -> pa.ChunkedArray:
        asked.append(name)
        return SHOP.column(name)

    masks = Masks(SHOP.schema, column, 3, max_cached_bytes=6)
    for name in ("color", "price", "color", "tags", "color", "price"):
        masks.mask(Exists(name))
    assert asked == ["color", "price", "tags", "price"]


def test_kept_masks_cannot_be_changed_and_true_is_not_one() -> None:
    masks = masks_of(pa.table({"x": [True, False]}))
    mask = masks.mask(OneOf("x", (True,)))
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False
    with pytest.raises(QueryError):
        masks.mask(OneOf("x", (1,)))


# Filtered == asking each product in turn

NUM_ROWS = 200
Judge = Callable[[Any], bool]


def random_table(seed: int) -> pa.Table:
    """Return products of all types with few distinct values, one in five missing, in chunks of uneven size."""
    generator = np.random.default_rng(seed)

    def some(values: list[Any], type_: pa.DataType) -> pa.ChunkedArray:
        chosen = [
            None if generator.random() < 0.2 else values[generator.integers(len(values))] for _ in range(NUM_ROWS)
        ]
        cuts = [0, *sorted(generator.integers(0, NUM_ROWS, 2).tolist()), NUM_ROWS]
        return pa.chunked_array([pa.array(chosen[a:b], type_) for a, b in itertools.pairwise(cuts)], type_)

    words = ["red", "Red", "", "réd", "blue"]
    days = [date(2023, 12, 31), date(2024, 1, 1), date(1960, 2, 29)]
    instants = [datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 12, 0, 1), datetime(1960, 1, 1)]
    return pa.table(
        {
            "text": some(words, pa.string()),
            "dictionary": some(words, pa.dictionary(pa.int8(), pa.string())),
            "int": some([-2, 0, 1, 2, 2**40], pa.int64()),
            "small": some([0, 1, 2, 255], pa.uint8()),
            "float": some([-2.5, -0.0, 0.1, 1.0, math.nan], pa.float32()),
            "decimal": some([Decimal("-2.50"), Decimal("0.10"), Decimal("1.00")], pa.decimal128(9, 2)),
            "bool": some([True, False], pa.bool_()),
            "day": some(days, pa.date32()),
            "instant": some(instants, pa.timestamp("ms")),
            "zoned": some([instant.replace(tzinfo=UTC) for instant in instants], pa.timestamp("us", "UTC")),
            "tags": some([["red"], ["red", "blue"], [], [None, "réd"]], pa.list_(pa.string())),
            "sizes": some([[1, 2], [], [0]], pa.list_(pa.int32())),
            "nothing": some([None], pa.null()),
        }
    )


LITERALS: dict[str, list[Any]] = {
    **{name: ["red", "Red", "", "réd", "blue", "zzz"] for name in ("text", "dictionary", "tags")},
    **{name: [-2.5, -2, 0, 0.1, 0.5, 1, 2, 2**40, 10**30] for name in ("int", "small", "float", "decimal", "sizes")},
    "bool": [True, False],
    "day": ["2023-12-31", "2024-01-01", "1970-01-01"],
    "instant": ["2024-01-01T12:00:00", "2024-01-01T12:00:00.5", "1960-01-01"],
    "zoned": ["2024-01-01T12:00:00Z", "2024-01-01T13:00:01+01:00", "1960-01-01"],
    "nothing": ["red", 1, True],
}


def random_filter(generator: np.random.Generator, depth: int) -> Record:
    kind = generator.choice(["and", "or", "not"]) if depth and generator.random() < 0.6 else "condition"
    if kind == "not":
        return {"not": random_filter(generator, depth - 1)}
    if kind != "condition":
        return {str(kind): [random_filter(generator, depth - 1) for _ in range(generator.integers(1, 4))]}
    field = str(generator.choice(list(LITERALS)))
    literal = [LITERALS[field][at] for at in generator.permutation(len(LITERALS[field]))]
    records: list[Record] = [{"equals": literal[0]}, {"in": literal[:2]}, {"exists": bool(generator.random() < 0.5)}]
    if field != "bool":
        bounds = {str(generator.choice(["gt", "gte"])): literal[0], str(generator.choice(["lt", "lte"])): literal[1]}
        kept = list(bounds.items())[: int(generator.integers(1, 3))]
        records.append({"range": dict(kept)})
    return {"field": field, **records[int(generator.integers(len(records)))]}


def judged(record: Record, product: Record) -> bool:
    """Say by plain Python whether a product matches."""
    for name, join in (("and", all), ("or", any)):
        if name in record:
            return join(judged(clause, product) for clause in record[name])
    if "not" in record:
        return not judged(record["not"], product)
    value = product[record["field"]]
    values = [one for one in (value if isinstance(value, list) else [value]) if one is not None and one == one]
    if "exists" in record:
        return bool(values) == record["exists"]
    compare: dict[str, Callable[[Any, Any], bool]] = {
        "gt": lambda a, b: a > b,
        "gte": lambda a, b: a >= b,
        "lt": lambda a, b: a < b,
        "lte": lambda a, b: a <= b,
    }
    if "range" in record:
        tests = [(compare[name], bound) for name, bound in record["range"].items()]
        return any(all(test(one, as_held(bound, one)) for test, bound in tests) for one in values)
    return any(one == as_held(wanted, one) for one in values for wanted in record.get("in", [record.get("equals")]))


def as_held(literal: Any, like: Any) -> Any:
    if isinstance(like, datetime):
        moment = datetime.fromisoformat(literal)
        return moment if moment.tzinfo or not like.tzinfo else moment.replace(tzinfo=UTC)
    if isinstance(like, date):
        return date.fromisoformat(literal)
    if isinstance(like, float):
        return float(np.float32(literal))
    return Fraction(repr(literal)) if isinstance(literal, float) and isinstance(like, Decimal) else literal


@pytest.mark.parametrize("seed", range(8))
def test_filtered_is_what_each_product_says_of_itself(seed: int) -> None:
    table, generator = random_table(seed), np.random.default_rng(100 + seed)
    masks, products = masks_of(table), table.to_pylist()
    num_matched = 0
    for _ in range(40):
        record = random_filter(generator, depth=3)
        expected = [judged(record, product) for product in products]
        assert masks.mask(parse_filter_text(json.dumps(record))).tolist() == expected, record
        num_matched += any(expected) and not all(expected)
    assert num_matched > 10


# Whatever arrives is a filter or a QueryError

MUTANTS = [None, True, -1, 2**70, 1e300, "", "red", "2024-01-01", "9999-12-31T23:59:59.999999-23:59", [], [1, "a"], {}]


def mutated(generator: np.random.Generator, value: Any) -> Any:
    """Return JSON with some of its parts replaced by others."""
    if generator.random() < 0.15:
        return MUTANTS[int(generator.integers(len(MUTANTS)))]
    if isinstance(value, dict):
        words = ("field", "and", "not", "range", "gt")
        names = {name if generator.random() < 0.9 else str(generator.choice(words)): name for name in value}
        return {name: mutated(generator, value[was]) for name, was in names.items()}
    return [mutated(generator, one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(4))
def test_mutated_filters_are_filters_or_query_errors(seed: int) -> None:
    masks, generator = masks_of(random_table(seed)), np.random.default_rng(seed)
    num_filters = num_errors = 0
    for _ in range(400):
        record = mutated(generator, random_filter(generator, depth=2))
        try:
            assert masks.mask(parse_filter(record)).shape == (NUM_ROWS,)
            num_filters += 1
        except QueryError:
            num_errors += 1
    assert min(num_filters, num_errors) > 40
