"""One row a query and direction: all that the report's numbers can be worked out from again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from eval.directions import Measured
from eval.evaluation import Evaluation
from eval.measures import rank_of_first
from eval.queries import FREE
from eval.results import hit_places


def query_table(evaluation: Evaluation, measured: Sequence[Measured]) -> pa.Table:
    """Return the queries with what they found.

    Columns: `direction`, `query_id`, `product_id` (null of a query from a file), `cluster` (queries that are
    resampled together), `found_ids` and `found_scores` (the exact nearest, best first), and for each notion of what is
    right `*_num_right`, `*_num_greater` and `*_num_equal` (wrong products above and beside the first right one),
    `*_rank` (null where it cannot be found), and every measure as `*_hit@1` and so on.
    """
    return pa.concat_tables([_of_direction(evaluation, one) for one in measured], promote_options="default")


def _of_direction(evaluation: Evaluation, measured: Measured) -> pa.Table:
    queries = measured.direction.queries
    names = evaluation.index.column("product_id")
    rows = pa.array(queries.rows, mask=queries.rows == FREE)
    found = measured.rows
    is_hit = found >= 0
    offsets = np.append(0, np.cumsum(is_hit.sum(axis=1))).astype(np.int32)
    found_ids = names.take(pa.array(found[is_hit])).combine_chunks()
    columns = {
        "direction": pa.array([measured.direction.name] * len(queries.rows)),
        "query_id": pa.array(queries.ids, pa.string()),
        "product_id": names.take(rows).cast(pa.string()),
        "cluster": pa.array(measured.clusters),
        "found_ids": pa.ListArray.from_arrays(offsets, found_ids),
        "found_scores": pa.ListArray.from_arrays(offsets, pa.array(measured.scores[is_hit])),
    }
    for name, ranks in measured.ranks.items():
        greater, equal = hit_places(ranks)
        rank = rank_of_first(ranks)
        columns |= {
            f"{name}_num_right": pa.array(ranks.judgements.num_right),
            f"{name}_num_greater": pa.array(greater, mask=~np.isfinite(rank)),
            f"{name}_num_equal": pa.array(equal, mask=~np.isfinite(rank)),
            f"{name}_rank": pa.array(rank, mask=~np.isfinite(rank)),
        }
        columns |= {f"{name}_{measure}": pa.array(values) for measure, values in measured.values[name].items()}
    return pa.table(columns)
