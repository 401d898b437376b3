"""Filters on a product's attributes, as they arrive in JSON from somebody who is not trusted.

    {"field": "color", "equals": "red"}
    {"field": "color", "in": ["red", "blue"]}
    {"field": "price", "range": {"gte": 10, "lt": 20}}
    {"field": "brand", "exists": true}
    {"and": [F, ...]}    {"or": [F, ...]}    {"not": F}

What is read here is the shape alone; whether a field exists and a value fits its type is a matter of the index
(masks.py). A filter says yes or no of every product: what has no value matches nothing, so it does match `not`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from product_retrieval.errors import QueryError

Scalar: TypeAlias = str | int | float | bool

MAX_DEPTH = 8
MAX_CONDITIONS = 64
MAX_VALUES = 1000
"""In all lists of one filter together."""
MAX_STRING_CHARS = 1000
MAX_NUMBER = 10**309
"""Beyond every float and decimal that Arrow has; bounds the arithmetic on whole numbers."""
MAX_JSON_CHARS = 65_536
MAX_SHOWN_CHARS = 60
BOUNDS = ("gt", "gte", "lt", "lte")
CONDITIONS = ("equals", "in", "range", "exists")
GRAMMAR = '{"field": NAME} with equals, in, range or exists; or one of {"and": [...]}, {"or": [...]}, {"not": {...}}'


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field has one of these values; a list has it among its elements."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between bounds; of a list, one element does. None is no bound."""

    field: str
    gt: Scalar | None = None
    gte: Scalar | None = None
    lt: Scalar | None = None
    lte: Scalar | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value; neither null nor NaN nor a list without elements is one."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """All of these hold."""

    clauses: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of these holds."""

    clauses: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """This does not hold."""

    clause: Filter


Condition: TypeAlias = OneOf | Range | Exists
Filter: TypeAlias = Condition | And | Or | Not


def parse_filter_text(text: str) -> Filter:
    """Read a filter from JSON text.

    Raises:
        QueryError: it is not JSON, too long, or not a filter.
    """
    if len(text) > MAX_JSON_CHARS:
        raise QueryError(f"filter: {len(text):,} characters, at most {MAX_JSON_CHARS:,} are read", field="filter")
    try:
        record = json.loads(text)
    except RecursionError as error:
        raise QueryError(f"filter: nested deeper than {MAX_DEPTH}", field="filter") from error
    except ValueError as error:
        raise QueryError(f"filter: not JSON: {error}", field="filter") from error
    return parse_filter(record)


def parse_filter(record: object) -> Filter:
    """Read a filter from what JSON became.

    Args:
        record: objects, lists and scalars of any shape and size.

    Returns:
        The filter.

    Raises:
        QueryError: it is not a filter, or larger than the limits of this module; its `field` says where.
    """
    return _Parser().parse(record, "filter", 1)


class _Parser:
    """Counts over one filter what is limited."""

    def __init__(self) -> None:
        self._num_conditions = 0
        self._num_values = 0

    def parse(self, record: object, where: str, depth: int) -> Filter:
        self._num_conditions += 1
        if depth > MAX_DEPTH:
            raise _wrong("filter", f"nested deeper than {MAX_DEPTH}")
        if self._num_conditions > MAX_CONDITIONS:
            raise _wrong("filter", f"more than {MAX_CONDITIONS} conditions")
        if not isinstance(record, Mapping):
            raise _wrong(where, f"expected {GRAMMAR}; got {_shown(record)}")
        keys = [str(key) for key in record]
        if keys == ["not"]:
            return Not(self.parse(record["not"], f"{where}.not", depth + 1))
        if keys in (["and"], ["or"]):
            clauses = self._clauses(record[keys[0]], f"{where}.{keys[0]}", depth)
            return And(clauses) if keys == ["and"] else Or(clauses)
        kinds = [key for key in keys if key != "field"]
        if len(kinds) != 1 or len(keys) != 2 or kinds[0] not in CONDITIONS:
            raise _wrong(where, f"expected {GRAMMAR}; got {_shown(record)}")
        return self._condition(record["field"], kinds[0], record[kinds[0]], where)

    def _clauses(self, record: object, where: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(record, list) or not record:
            raise _wrong(where, f"expected a list of at least one filter; got {_shown(record)}")
        return tuple(self.parse(clause, f"{where}[{at}]", depth + 1) for at, clause in enumerate(record))

    def _condition(self, field: object, kind: str, value: object, where: str) -> Filter:
        if not isinstance(field, str):
            raise _wrong(f"{where}.field", f"expected the name of a column; got {_shown(field)}")
        field = _text(field, f"{where}.field")
        where = f"{where}.{kind}"
        if kind == "equals":
            return OneOf(field, (self._scalar(value, where),))
        if kind == "in":
            if not isinstance(value, list) or not value:
                raise _wrong(where, f"expected a list of at least one value; got {_shown(value)}")
            return OneOf(field, tuple(self._scalar(one, f"{where}[{at}]") for at, one in enumerate(value)))
        if kind == "range":
            return self._range(field, value, where)
        if not isinstance(value, bool):
            raise _wrong(where, f"expected true or false; got {_shown(value)}")
        return Exists(field) if value else Not(Exists(field))

    def _range(self, field: str, value: object, where: str) -> Range:
        bounds = ", ".join(BOUNDS)
        if not isinstance(value, Mapping) or not value or not set(value) <= set(BOUNDS):
            raise _wrong(where, f"expected bounds named {bounds}; got {_shown(value)}")
        for one, other in (("gt", "gte"), ("lt", "lte")):
            if one in value and other in value:
                raise _wrong(where, f"give {one} or {other}, not both")
        return Range(field, **{name: self._scalar(bound, f"{where}.{name}") for name, bound in value.items()})

    def _scalar(self, value: object, where: str) -> Scalar:
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            raise _wrong("filter", f"more than {MAX_VALUES} values")
        if value is None:
            raise _wrong(where, 'null equals nothing; to find what has no value: {"field": NAME, "exists": false}')
        if isinstance(value, str):
            return _text(value, where)
        if not isinstance(value, bool | int | float):
            raise _wrong(where, f"expected a text, a number, true or false; got {_shown(value)}")
        if not abs(value) <= MAX_NUMBER:  # NaN is not either
            raise _wrong(where, "not a finite number that any column could hold")
        return value


def _text(value: str, where: str) -> str:
    """Return a text that can be compared with a column of texts."""
    if len(value) > MAX_STRING_CHARS:
        raise _wrong(where, f"{len(value):,} characters, at most {MAX_STRING_CHARS:,} are compared")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(where, "half of a UTF-16 pair is not a character") from error
    return value


def _shown(value: object) -> str:
    """Return what was given, in few words."""
    if isinstance(value, Mapping):
        return f"an object with {', '.join(_cut(repr(str(key))) for key in list(value)[:3]) or 'nothing'}"
    if isinstance(value, str | bool | float):
        return _cut(json.dumps(value))
    names = {type(None): "null", int: "a number", list: "a list" if value else "an empty list"}
    return names.get(type(value), f"a {type(value).__name__}")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _wrong(where: str, what: str) -> QueryError:
    return QueryError(f"{where}: {what}", field=where)
