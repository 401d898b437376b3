"""Types whose values can be counted: whole numbers, decimals, days, instants; each as the integer that it counts to.

A bound that lies between two values of the type (2.5 for whole numbers, half a cent, noon for days) is moved to the
one that decides the same, so that comparing is exact at any size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, TypeAlias

import pyarrow as pa

from product_retrieval.querying.filters import Scalar

Position: TypeAlias = Callable[[Scalar], Fraction]
"""From what the filter says to the number that the column would count it as; ValueError where it is something else."""

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
MS_PER_DAY = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_DECIMAL_DIGITS = 76
MAX_DECIMAL128_DIGITS = 38
EXACT = Context(prec=MAX_DECIMAL_DIGITS)
DAY_EXAMPLE = "2024-01-31"
INSTANT_EXAMPLE = "2024-01-31T12:00:00"


@dataclass(frozen=True, slots=True)
class Ordinals:
    """What can be counted, and how."""

    kind: str
    """In words."""
    position: Position
    lowest: int
    highest: int
    values: Callable[[Any], Any]
    """From an array of the column's type to one that compares with what `array` makes."""
    array: Callable[[Sequence[int]], pa.Array]
    """From integers between `lowest` and `highest`."""

    def exactly(self, value: Scalar) -> int | None:
        """Return the integer of a value; None where the column cannot hold it.

        Raises:
            ValueError: it is of another kind.
        """
        at = self.position(value)
        return int(at) if at.denominator == 1 and self.lowest <= at <= self.highest else None

    def interval(self, bounds: Mapping[str, Scalar]) -> tuple[int, int]:
        """Return the first and the last integer between bounds; the last is the smaller where nothing is.

        Args:
            bounds: by `gt`, `gte`, `lt` or `lte`.

        Raises:
            ValueError: a bound is of another kind.
        """
        low, high = self.lowest, self.highest
        for name, value in bounds.items():
            at = self.position(value)
            if name in ("gt", "gte"):
                low = max(low, math.floor(at) + 1 if name == "gt" else math.ceil(at))
            else:
                high = min(high, math.ceil(at) - 1 if name == "lt" else math.floor(at))
        return (low, high) if low <= high else (1, 0)


def ordinals_of(column_type: pa.DataType) -> Ordinals | None:
    """Return how the values of a type are counted; None where they are not."""
    types = pa.types
    if types.is_integer(column_type):
        return _integers(column_type)
    if types.is_decimal(column_type) and column_type.scale >= 0:
        return _decimals(column_type)
    if types.is_date(column_type):
        return _days(column_type)
    if types.is_timestamp(column_type):
        return _instants(column_type)
    return None


def _integers(column_type: pa.DataType) -> Ordinals:
    bits = column_type.bit_width
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pa.types.is_signed_integer(column_type) else (0, 2**bits - 1)
    )
    return Ordinals("whole numbers", _number, low, high, lambda values: values, lambda at: pa.array(at, column_type))


def _decimals(column_type: pa.DataType) -> Ordinals:
    scale, digits = column_type.scale, column_type.precision
    # Arrow cannot look values up in the two smallest types of decimal.
    is_small = digits <= MAX_DECIMAL128_DIGITS
    wide = pa.decimal128(MAX_DECIMAL128_DIGITS, scale) if is_small else pa.decimal256(MAX_DECIMAL_DIGITS, scale)
    most = 10**digits - 1
    return Ordinals(
        "numbers",
        lambda value: _number(value) * 10**scale,
        -most,
        most,
        lambda values: values.cast(wide),
        lambda at: pa.array([Decimal(one).scaleb(-scale, EXACT) for one in at], wide),
    )


def _days(column_type: pa.DataType) -> Ordinals:
    is_32 = pa.types.is_date32(column_type)
    counted = pa.int32() if is_32 else pa.int64()
    per_day = 1 if is_32 else MS_PER_DAY

    def position(value: Scalar) -> Fraction:
        return Fraction((_day(value) - EPOCH.date()).days * per_day)

    return Ordinals(
        "dates", position, *_limits(counted), lambda values: values.cast(counted), lambda at: pa.array(at, counted)
    )


def _instants(column_type: pa.DataType) -> Ordinals:
    per_second, has_zone = PER_SECOND[column_type.unit], column_type.tz is not None

    def position(value: Scalar) -> Fraction:
        since = _instant(value, has_zone=has_zone) - EPOCH
        microseconds = (since.days * 86_400 + since.seconds) * 10**6 + since.microseconds
        return Fraction(microseconds * per_second, 10**6)

    kind = "times with a zone" if has_zone else "times"
    counted = pa.int64()
    return Ordinals(
        kind, position, *_limits(counted), lambda values: values.cast(counted), lambda at: pa.array(at, counted)
    )


def _number(value: Scalar) -> Fraction:
    """Return a number as it was written: 0.1 is a tenth, not the nearest float."""
    if isinstance(value, bool | str):
        raise ValueError(f"{value!r} is no number")
    return Fraction(repr(value)) if isinstance(value, float) else Fraction(value)


def _day(value: Scalar) -> date:
    try:
        return date.fromisoformat(str(value) if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"write one as {DAY_EXAMPLE!r}, not {value!r}") from error


def _instant(value: Scalar, *, has_zone: bool) -> datetime:
    example = f"{INSTANT_EXAMPLE}Z" if has_zone else INSTANT_EXAMPLE
    try:
        instant = datetime.fromisoformat(str(value) if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"write one as {example!r}, not {value!r}") from error
    if instant.tzinfo is not None and not has_zone:
        raise ValueError(f"they have no zone: write one as {example!r}, not {value!r}")
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _limits(counted: pa.DataType) -> tuple[int, int]:
    most = 2 ** (counted.bit_width - 1)
    return -most, most - 1
