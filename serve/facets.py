"""What a shopper can choose from: columns of few values with their counts, and some titles to try."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from product_retrieval.hits import TITLE_COLUMNS
from product_retrieval.index import ProductIndex
from serve.answers import Facet, FacetValue

MAX_FACETS = 8
MAX_VALUES = 24
PROBED_ROWS = 65_536
"""Rows that tell which columns have few values; only those are then counted as a whole."""
NUM_EXAMPLES = 8
MAX_EXAMPLE_CHARS = 48
NOT_FACETS = {"product_id", "image_ref", *TITLE_COLUMNS}


def facets_of(index: ProductIndex) -> list[Facet]:
    """Return the columns of texts or yes and no that have from 2 to 24 values, each with its values by their number."""
    found = []
    for name in index.column_names:
        if name in NOT_FACETS or not _has_few_values(index.column(name)):
            continue
        counted = _counted(index, name)
        if 2 <= len(counted) <= MAX_VALUES:
            found.append(Facet(field=name, values=counted))
    return found[:MAX_FACETS]


def example_titles(index: ProductIndex) -> list[str]:
    """Return the titles of some products, spread over the catalogue; without those too long to be shown."""
    name = next((column for column in TITLE_COLUMNS if column in index.column_names), None)
    if name is None or not index.num_products:
        return []
    rows = np.unique(np.linspace(0, index.num_rows - 1, 8 * NUM_EXAMPLES).astype(np.int64))
    rows = rows[index.listed[rows]]
    titles = [product[name] for product in index.describe(rows.tolist(), [name])]
    fitting = [title for title in titles if isinstance(title, str) and 0 < len(title.strip()) <= MAX_EXAMPLE_CHARS]
    distinct = list(dict.fromkeys(fitting))
    return distinct[:: max(1, len(distinct) // NUM_EXAMPLES)][:NUM_EXAMPLES]


def _has_few_values(column: pa.ChunkedArray) -> bool:
    types = pa.types
    if not (types.is_string(column.type) or types.is_large_string(column.type) or types.is_boolean(column.type)):
        return False
    return int(pc.count_distinct(column.slice(0, PROBED_ROWS)).as_py()) <= MAX_VALUES


def _counted(index: ProductIndex, name: str) -> list[FacetValue]:
    column = index.column(name)
    if index.num_products < index.num_rows:
        column = column.filter(pa.array(index.listed))
    counts = [(one["values"], one["counts"]) for one in pc.value_counts(column).to_pylist()]
    present = [(value, count) for value, count in counts if value is not None and value != ""]
    ordered = sorted(present, key=lambda one: (-one[1], str(one[0])))
    return [FacetValue(value=value, count=count) for value, count in ordered]
