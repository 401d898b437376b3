"""Filters evaluated over the products of an index version: which rows may be found.

N is the number of rows of the version. Columns are read where they lie (memory-mapped), a chunk at a time.
"""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.errors import QueryError
from product_retrieval.querying.filters import And, Exists, Filter, Not, OneOf, Or, Range
from product_retrieval.querying.matching import Matcher, kind_of, matcher

HIDDEN_COLUMNS = ("image_ref",)
"""Where the catalogue keeps its pictures is nothing to be found out by asking."""
MAX_CACHED_BYTES = 64 * 2**20
MAX_NAMES_SHOWN = 12
MIN_LIKENESS = 0.7
"""Of difflib: colour is meant to be color, group_id is not meant to be product_id."""


class Masks:
    """Evaluates filters over one index version, and keeps the latest masks; safe to share between threads."""

    def __init__(
        self,
        schema: pa.Schema,
        column: Callable[[str], pa.ChunkedArray],
        num_rows: int,
        *,
        max_cached_bytes: int = MAX_CACHED_BYTES,
    ) -> None:
        """Remember where the columns are.

        Args:
            schema: names and types of the products' columns.
            column: returns the N values of a column.
            num_rows: N.
            max_cached_bytes: what the kept masks may take, at N bytes each.
        """
        self._schema = schema
        self._column = column
        self._num_rows = num_rows
        self._max_cached = max_cached_bytes // max(num_rows, 1)
        self._cached: OrderedDict[str, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def fields(self) -> dict[str, str]:
        """What can be filtered on, and by which kind of value; types that only exist or not are left out."""
        kinds = {field.name: kind_of(field.type) for field in self._schema if field.name not in HIDDEN_COLUMNS}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def mask(self, filter_: Filter) -> NDArray[np.bool_]:
        """Return which products a filter lets through: bool [N], not to be written to.

        Raises:
            QueryError: there is no such field, or a value is not of the field's type.
        """
        name = repr(filter_)  # not the filter itself: True, 1 and 1.0 are equal and hash alike
        with self._lock:
            if name in self._cached:
                self._cached.move_to_end(name)
                return self._cached[name]
        mask = self.evaluate(filter_)
        mask.setflags(write=False)
        with self._lock:
            self._cached[name] = mask
            while len(self._cached) > self._max_cached:
                self._cached.popitem(last=False)
        return mask

    def type_of(self, field: str, *, asked_by: str = "filter") -> pa.DataType:
        """Return the type of a column that can be filtered on.

        Args:
            field: name of the column.
            asked_by: the part of the query that names it, for the error.

        Raises:
            QueryError: there is none of that name.
        """
        names = [name for name in self._schema.names if name not in HIDDEN_COLUMNS]
        if field not in names:
            close = difflib.get_close_matches(field, names, n=3, cutoff=MIN_LIKENESS)
            known = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {_listed(names)}"
            raise QueryError(f"{asked_by}: these products have no {field!r}; {known}", field=asked_by)
        return self._schema.field(field).type

    def evaluate(self, filter_: Filter) -> NDArray[np.bool_]:
        """Return a mask like `mask`, and do not keep it.

        Raises:
            QueryError: as there.
        """
        match filter_:
            case And(clauses):
                return np.asarray(np.logical_and.reduce([self.evaluate(clause) for clause in clauses]), bool)
            case Or(clauses):
                return np.asarray(np.logical_or.reduce([self.evaluate(clause) for clause in clauses]), bool)
            case Not(clause):
                return np.logical_not(self.evaluate(clause))
            case OneOf() | Range() | Exists():
                return self._over_chunks(filter_.field, matcher(filter_, self.type_of(filter_.field)))

    def _over_chunks(self, field: str, match: Matcher) -> NDArray[np.bool_]:
        mask = np.empty(self._num_rows, bool)
        row = 0
        for chunk in self._column(field).chunks:
            mask[row : row + len(chunk)] = match(chunk)
            row += len(chunk)
        return mask


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMES_SHOWN])
    return shown if len(names) <= MAX_NAMES_SHOWN else f"{shown} and {len(names) - MAX_NAMES_SHOWN} more"
