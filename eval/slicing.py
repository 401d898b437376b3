"""By what the queries of an evaluation are divided: their products' columns, their texts, and their neighbourhoods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eval.directions import Measured
from eval.evaluation import Evaluation
from eval.queries import FREE
from eval.slices import SliceResult, attribute_labels, measure_slices, quarter_labels
from eval.text_quality import length_label, script_of

CROWDED_AT = 10
"""How near the so-many-th nearest product is says how crowded a query's neighbourhood is."""


def slice_directions(evaluation: Evaluation, measured: Sequence[Measured]) -> list[SliceResult]:
    """Return the measures of every slice of every direction; only the first notion of what is right is sliced."""
    results = []
    for one in measured:
        relevant, values = next(iter(one.values.items()))
        labels = query_labels(evaluation, one)
        results += measure_slices(
            one.direction.name, relevant, labels, values, one.clusters, seed=evaluation.options.seed
        )
    return results


def query_labels(evaluation: Evaluation, measured: Measured) -> dict[str, list[str]]:
    """Return the labels of a direction's queries, by what divides them."""
    rows = measured.direction.queries.rows
    near = measured.scores[:, min(CROWDED_AT, measured.scores.shape[1]) - 1].astype(np.float64)
    labels = {"score of the tenth hit": quarter_labels(near)}
    if len(rows) and rows[0] == FREE:
        return labels
    texts = evaluation.texts(rows)
    if any(texts):
        labels["words of the text"] = [length_label(text) for text in texts]
        labels["script of the text"] = [script_of(text) for text in texts]
    return attribute_labels(evaluation.index, rows) | labels
