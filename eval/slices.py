"""The same numbers for parts of the queries: by category, brand or any other column, and by what their texts are like.

Q is the number of queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.index import ProductIndex
from product_retrieval.metrics import bootstrap_intervals

MIN_QUERIES = 30
"""Smaller slices are counted together: their intervals would be as wide as the scale."""
MAX_VALUES = 24
"""Values of a column that make slices of their own, the most frequent ones; the others are counted together."""
OTHERS = "(others)"
NO_VALUE = "(none)"
SLICED = ("hit@1", "hit@10", "mrr")
OWN_COLUMNS = ("product_id", "text", "image_ref", "group_id", "duplicate_of")
"""What a product is, not what it is like."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SliceResult:
    """The measures of some of a direction's queries."""

    direction: str
    relevant: str
    column: str
    """By what the queries are divided."""
    value: str
    num_queries: int
    measures: dict[str, Interval]


def attribute_labels(index: ProductIndex, rows: NDArray[np.int64]) -> dict[str, list[str]]:
    """Return for each column that divides the queries' products its label for each of them.

    Words and truth values divide by themselves where some of them are frequent, numbers by quarters.

    Args:
        index: the version.
        rows: int64 [Q].
    """
    labels = {}
    for name in index.column_names:
        if name in OWN_COLUMNS:
            continue
        column = index.column(name)
        values = column.take(pa.array(rows))
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_boolean(column.type):
            labels[name] = [NO_VALUE if value is None else str(value) for value in values.to_pylist()]
        elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            labels[name] = quarter_labels(values.to_numpy().astype(np.float64))
    return labels


def quarter_labels(values: NDArray[np.float64]) -> list[str]:
    """Return which quarter each number is in; equal numbers are in one quarter, and NaN in none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return [NO_VALUE] * len(values)
    limits = np.quantile(known, (0.25, 0.5, 0.75, 1.0))
    names = [f"quarter {number}, to {limit:.4g}" for number, limit in enumerate(limits, start=1)]
    places = np.searchsorted(limits, np.nan_to_num(values), side="left")
    return [names[min(place, 3)] if np.isfinite(v) else NO_VALUE for place, v in zip(places, values, strict=True)]


def measure_slices(
    direction: str,
    relevant: str,
    labels: Mapping[str, Sequence[str]],
    values: Mapping[str, NDArray[np.float64]],
    clusters: NDArray[np.int64],
    *,
    seed: int,
) -> list[SliceResult]:
    """Return the measures of each slice; a column that does not divide the queries gives none.

    Args:
        direction: its name.
        relevant: what counts as right.
        labels: by column, Q labels.
        values: by measure, float64 [Q].
        clusters: int64 [Q]; queries of one cluster are resampled together.
        seed: of the bootstrap.
    """
    measured = {name: values[name] for name in SLICED if name in values}
    together = np.stack(list(measured.values()), axis=1)
    results = []
    for column, given in labels.items():
        merged = np.array(merge_small(given))
        names = sorted(set(merged.tolist()), key=lambda name: (name in (OTHERS, NO_VALUE), name))
        if len([name for name in names if name != OTHERS]) < 2:
            continue
        for name in names:
            members = merged == name
            own = np.unique(clusters[members], return_inverse=True)[1]
            low, high = bootstrap_intervals(together[members], own, seed=seed)
            means = together[members].mean(axis=0)
            intervals = {
                key: Interval(float(means[i]), float(low[i]), float(high[i])) for i, key in enumerate(measured)
            }
            results.append(SliceResult(direction, relevant, column, name, int(members.sum()), intervals))
    return results


def merge_small(labels: Sequence[str]) -> list[str]:
    """Return labels in which rare ones are one."""
    counts = Counter(labels)
    kept = {name for name, count in counts.most_common(MAX_VALUES) if count >= MIN_QUERIES}
    return [name if name in kept else OTHERS for name in labels]
