"""How one condition of a filter is compared with a column of a type: `matcher` returns a function from a chunk to bool.

Values are compared as the column holds them: 4.1 with a float32 column as the float32 nearest to it, 2.5 with a
column of whole numbers as what lies between 2 and 3. Null matches nothing, nor does NaN. Texts are ordered by code
point. N is the number of values of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from product_retrieval.errors import QueryError
from product_retrieval.querying.filters import Condition, Exists, OneOf, Range, Scalar
from product_retrieval.querying.ordinals import Ordinals, ordinals_of

Mask: TypeAlias = NDArray[np.bool_]
Matcher: TypeAlias = Callable[[Any], Mask]
"""From a pyarrow.Array of N values to bool [N]."""


def matcher(condition: Condition, column_type: pa.DataType) -> Matcher:
    """Return the function that says which values of a column a condition holds for.

    Args:
        condition: what is asked of the values.
        column_type: the column's type.

    Returns:
        From an array of that type, [N], to bool [N].

    Raises:
        QueryError: a value does not fit the type, or values of the type cannot be compared.
    """
    if isinstance(column_type, pa.BaseExtensionType):
        return _of_storage(matcher(condition, column_type.storage_type))
    if pa.types.is_dictionary(column_type):
        return _of_dictionary(matcher(condition, column_type.value_type))
    if _is_list(column_type):
        return _of_elements(matcher(condition, column_type.value_type))
    if isinstance(condition, Exists):
        return lambda values: _mask(pc.invert(pc.is_null(values, nan_is_null=True)))
    if pa.types.is_null(column_type):
        return lambda values: np.zeros(len(values), bool)
    if _is_text(column_type):
        return _text_matcher(condition, column_type)
    if pa.types.is_boolean(column_type):
        return _truth_matcher(condition)
    if pa.types.is_floating(column_type):
        return _float_matcher(condition, column_type)
    ordinals = ordinals_of(column_type)
    if ordinals is None:
        raise _misfit(condition, f"holds {column_type}, which cannot be compared; it can only be asked to exist")
    return _ordinal_matcher(condition, ordinals)


def kind_of(column_type: pa.DataType) -> str | None:
    """Return what kind of value a column is compared with, in words; None where it only exists or not."""
    if isinstance(column_type, pa.BaseExtensionType):
        return kind_of(column_type.storage_type)
    if pa.types.is_dictionary(column_type) or _is_list(column_type):
        return kind_of(column_type.value_type)
    if _is_text(column_type):
        return "text"
    if pa.types.is_boolean(column_type):
        return "true or false"
    if pa.types.is_floating(column_type):
        return "numbers"
    ordinals = ordinals_of(column_type)
    return ordinals.kind if ordinals else None


def _text_matcher(condition: OneOf | Range, column_type: pa.DataType) -> Matcher:
    for value in _values(condition):
        if not isinstance(value, str):
            raise _misfit(condition, f"holds text; {value!r} is none: write it in quotes")
    # Arrow cannot look values up among views; other texts are compared where they lie.
    compared = pa.large_string() if pa.types.is_string_view(column_type) else column_type
    if isinstance(condition, OneOf):
        wanted = pa.array(condition.values, compared)
        return lambda values: _mask(pc.is_in(values.cast(compared), wanted))
    bounds = [(name, pa.scalar(value, compared)) for name, value in _bounds(condition)]
    return lambda values: _within(values.cast(compared), bounds)


def _truth_matcher(condition: OneOf | Range) -> Matcher:
    if isinstance(condition, Range):
        raise _misfit(condition, "holds true or false, which have no order: use equals")
    for value in condition.values:
        if not isinstance(value, bool):
            raise _misfit(condition, f"holds true or false; {value!r} is neither")
    wanted = pa.array(condition.values, pa.bool_())
    return lambda values: _mask(pc.is_in(values, wanted))


def _float_matcher(condition: OneOf | Range, column_type: pa.DataType) -> Matcher:
    for value in _values(condition):
        if isinstance(value, bool | str):
            raise _misfit(condition, f"holds numbers; {value!r} is none")
    dtype = column_type.to_pandas_dtype()
    with np.errstate(over="ignore"):
        rounded = {value: dtype(_as_float(value)) for value in _values(condition)}
    if isinstance(condition, OneOf):
        wanted = np.array(list(rounded.values()), dtype)
        return lambda values: np.isin(_floats(values), wanted)
    compare = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}
    bounds = [(compare[name], rounded[value]) for name, value in _bounds(condition)]
    return lambda values: np.logical_and.reduce([test(_floats(values), bound) for test, bound in bounds])


def _ordinal_matcher(condition: OneOf | Range, ordinals: Ordinals) -> Matcher:
    """Compare whole numbers, decimals, days and instants: types whose values have neighbours."""
    try:
        if isinstance(condition, OneOf):
            wanted = ordinals.array([at for value in condition.values if (at := ordinals.exactly(value)) is not None])
            return lambda values: _mask(pc.is_in(ordinals.values(values), wanted))
        low, high = ordinals.interval(dict(_bounds(condition)))
    except ValueError as error:
        raise _misfit(condition, f"holds {ordinals.kind}; {error}") from error
    if low > high:
        return lambda values: np.zeros(len(values), bool)
    first, last = ordinals.array([low, high])
    return lambda values: _within(ordinals.values(values), [("gte", first), ("lte", last)])


def _of_storage(match: Matcher) -> Matcher:
    return lambda values: match(values.storage)


def _of_dictionary(match: Matcher) -> Matcher:
    """Compare each entry of a dictionary once, and look up the values."""

    def of_entries(values: Any) -> Mask:
        entries = pa.array(match(values.dictionary))
        return _mask(entries.take(values.indices))

    return of_entries


def _of_elements(match: Matcher) -> Matcher:
    """Say of each list whether one of its elements matches."""

    def of_lists(values: Any) -> Mask:
        matching = match(pc.list_flatten(values))
        mask = np.zeros(len(values), bool)
        mask[pc.list_parent_indices(values).to_numpy(zero_copy_only=False)[matching]] = True
        return mask

    return of_lists


def _within(values: Any, bounds: list[tuple[str, pa.Scalar]]) -> Mask:
    """Return which values lie between bounds, of which there is at least one."""
    compare = {"gt": pc.greater, "gte": pc.greater_equal, "lt": pc.less, "lte": pc.less_equal}
    return np.asarray(np.logical_and.reduce([_mask(compare[name](values, bound)) for name, bound in bounds]), bool)


def _mask(matches: Any) -> Mask:
    """Return bool [N] of a boolean array; what is not known is not so."""
    return np.asarray(pc.fill_null(matches, False).to_numpy(zero_copy_only=False), bool)


def _floats(values: Any) -> NDArray[Any]:
    return np.asarray(values.to_numpy(zero_copy_only=False))  # null becomes NaN, which compares with nothing


def _as_float(value: Scalar) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond every float
        return np.inf if value > 0 else -np.inf  # type: ignore[operator]


def _values(condition: OneOf | Range) -> list[Scalar]:
    return list(condition.values) if isinstance(condition, OneOf) else [value for _, value in _bounds(condition)]


def _bounds(condition: Range) -> list[tuple[str, Scalar]]:
    """Return the bounds that are there, with their names."""
    named = [(name, getattr(condition, name)) for name in ("gt", "gte", "lt", "lte")]
    return [(name, value) for name, value in named if value is not None]


def _is_text(column_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(column_type) or pa.types.is_large_string(column_type) or pa.types.is_string_view(column_type)
    )


def _is_list(column_type: pa.DataType) -> bool:
    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(column_type) for test in tests)


def _misfit(condition: Condition, what: str) -> QueryError:
    return QueryError(f"filter: {condition.field!r} {what}", field="filter")
