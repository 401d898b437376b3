"""Two reports on the same queries: which measures differ by more than chance, and which queries changed.

Queries are matched by direction and id. The test shuffles which report each query's values come from, whole clusters
at a time, and asks how often chance alone makes a difference as large; Holm's correction keeps the chance of any false
alarm among all measures at 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from product_retrieval.errors import ArtifactError
from product_retrieval.metrics import bootstrap_intervals

NUM_SHUFFLES = 10_000
SHUFFLES_AT_ONCE = 256
ALPHA = 0.05
MAX_CHANGED = 20
"""Queries of each direction that are named, those whose first right product moved most."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How a measure differs between two reports."""

    direction: str
    relevant: str
    measure: str
    num_queries: int
    """Asked in both."""
    before: float
    now: float
    low: float
    high: float
    """95 % interval of now - before."""
    p_value: float
    """Of the paired randomisation test, two-sided, not corrected."""
    is_significant: bool
    """After Holm's correction over all measures of the comparison."""


@dataclass(frozen=True, slots=True)
class ChangedQuery:
    """A query whose first right product moved."""

    direction: str
    relevant: str
    query_id: str
    rank_before: float | None
    rank_now: float | None
    """None: not found."""


def compare_tables(before: pa.Table, now: pa.Table, *, seed: int) -> tuple[list[Difference], list[ChangedQuery]]:
    """Compare two tables of queries.

    Args:
        before: queries.parquet of the older report.
        now: of the newer.
        seed: of the shuffles and the bootstrap.

    Returns:
        Every measure that both have, in the newer one's order, and the queries that moved most.

    Raises:
        ArtifactError: they have no query in common.
    """
    rows_before, rows_now = _matched(before, now)
    if not len(rows_now):
        raise ArtifactError("the two reports have no query in common, so there is nothing to compare")
    before, now = before.take(pa.array(rows_before)), now.take(pa.array(rows_now))
    differences: list[Difference] = []
    changed: list[ChangedQuery] = []
    directions = np.array(now.column("direction").to_pylist())
    for direction in dict.fromkeys(directions.tolist()):
        asked = pa.array(np.flatnonzero(directions == direction))
        pair = before.take(asked), now.take(asked)
        for relevant in ("product", "group", "judged"):
            measures = _measures(pair, relevant)
            if measures:
                differences += _differences(pair, direction, relevant, measures, seed)
                changed += _changed(pair, direction, relevant)
    return holm(differences), changed


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """Mark what is significant when all are looked at together.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics, 1979.
    """
    order = sorted(range(len(differences)), key=lambda i: differences[i].p_value)
    significant = set()
    for place, number in enumerate(order):
        if differences[number].p_value > ALPHA / (len(order) - place):
            break
        significant.add(number)
    return [
        Difference(**{**asdict(difference), "is_significant": number in significant})
        for number, difference in enumerate(differences)
    ]


def randomization_p_values(
    changes: NDArray[np.float64], clusters: NDArray[np.int64], *, seed: int, num_shuffles: int = NUM_SHUFFLES
) -> NDArray[np.float64]:
    """Return how often chance makes the mean change as large, two-sided, float64 [M].

    Args:
        changes: float64 [Q, M], now - before.
        clusters: int64 [Q], from 0; queries of one cluster change sides together.
        seed: of the shuffles.
        num_shuffles: random choices of sides.
    Source: Smucker, Allan and Carterette, A comparison of statistical significance tests for information retrieval
        evaluation, CIKM 2007.
    """
    sums = np.stack([np.bincount(clusters, column) for column in changes.T], axis=1)
    observed = np.abs(sums.sum(axis=0))
    generator = np.random.default_rng(seed)
    as_large = np.zeros(changes.shape[1])
    for start in range(0, num_shuffles, SHUFFLES_AT_ONCE):
        count = min(SHUFFLES_AT_ONCE, num_shuffles - start)
        signs = generator.integers(0, 2, (count, len(sums)), dtype=np.int8).astype(np.float64) * 2 - 1
        as_large += (np.abs(signs @ sums) >= observed - 1e-9).sum(axis=0)
    return (as_large + 1) / (num_shuffles + 1)


def _matched(before: pa.Table, now: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of both tables that are the same query; of several photos of a product, the same in order."""
    places = {key: row for row, key in enumerate(_keys(before))}
    pairs = [(places[key], row) for row, key in enumerate(_keys(now)) if key in places]
    if not pairs:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first, second = zip(*pairs, strict=True)
    return np.array(first), np.array(second)


def _keys(table: pa.Table) -> list[tuple[str, str, int]]:
    seen: dict[tuple[str, str], int] = {}
    keys = []
    for direction, query_id in zip(
        table.column("direction").to_pylist(), table.column("query_id").to_pylist(), strict=True
    ):
        seen[direction, query_id] = seen.get((direction, query_id), -1) + 1
        keys.append((direction, query_id, seen[direction, query_id]))
    return keys


def _measures(pair: tuple[pa.Table, pa.Table], relevant: str) -> list[str]:
    shared = [
        field.name
        for field in pair[1].schema
        if field.name.startswith(f"{relevant}_") and pa.types.is_floating(field.type)
        if field.name != f"{relevant}_rank"
    ]
    return [
        name.removeprefix(f"{relevant}_")
        for name in shared
        if name in pair[0].column_names and all(table.column(name).null_count == 0 for table in pair)
    ]


def _differences(
    pair: tuple[pa.Table, pa.Table], direction: str, relevant: str, measures: Sequence[str], seed: int
) -> list[Difference]:
    before, now = (
        np.stack([table.column(f"{relevant}_{name}").to_numpy() for name in measures], axis=1) for table in pair
    )
    clusters = np.unique(pair[1].column("cluster").to_numpy(), return_inverse=True)[1].astype(np.int64)
    low, high = bootstrap_intervals(now - before, clusters, seed=seed)
    p_values = randomization_p_values(now - before, clusters, seed=seed)
    return [
        Difference(
            direction=direction,
            relevant=relevant,
            measure=name,
            num_queries=len(now),
            before=float(before[:, i].mean()),
            now=float(now[:, i].mean()),
            low=float(low[i]),
            high=float(high[i]),
            p_value=float(p_values[i]),
            is_significant=False,
        )
        for i, name in enumerate(measures)
    ]


def _changed(pair: tuple[pa.Table, pa.Table], direction: str, relevant: str) -> list[ChangedQuery]:
    before, now = (table.column(f"{relevant}_rank").to_pylist() for table in pair)
    names = pair[1].column("query_id").to_pylist()
    moved = [
        (abs(_inverse(after) - _inverse(earlier)), row)
        for row, (earlier, after) in enumerate(zip(before, now, strict=True))
        if earlier != after
    ]
    most = sorted(moved, key=lambda change: (-change[0], change[1]))[:MAX_CHANGED]
    return [ChangedQuery(direction, relevant, names[row], before[row], now[row]) for _, row in most]


def _inverse(rank: float | None) -> float:
    return 0.0 if rank is None else 1.0 / rank


def describe_comparison(
    record: Mapping[str, Any], differences: Sequence[Difference], changed: Sequence[ChangedQuery]
) -> dict[str, Any]:
    """Return a comparison for a report's record.

    Args:
        record: of the report that is compared with.
        differences: from compare_tables.
        changed: from compare_tables.
    """
    return {
        **{name: record[name] for name in ("index", "version", "model", "fingerprint", "num_products")},
        "differences": [asdict(difference) for difference in differences],
        "changed": [asdict(query) for query in changed],
    }
