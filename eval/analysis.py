"""The part of an evaluation that explains its numbers: alignment, hubs, look-alikes, texts, misses, noise."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.alignment import measure_alignment, pair_percentiles
from eval.corrections import measure_corrections
from eval.directions import Measured
from eval.error_analysis import analyse_errors
from eval.evaluation import Evaluation
from eval.exact_search import ExactSearch
from eval.neighbourhoods import measure_hubness, neighbour_agreement
from eval.robustness import measure_robustness
from eval.slices import MIN_QUERIES, attribute_labels, merge_small
from eval.studied import Studied
from eval.vector_health import check_vectors
from product_retrieval.index.spec import SIDES

MAX_STUDIED = 10_000
"""Products, a seeded sample of those that ask, that alignment and neighbourhoods are measured on."""
NEIGHBOURS = 10


def analyse(evaluation: Evaluation, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the sections of the record that explain the numbers; those that the index has no data for are left out."""
    record: dict[str, Any] = {
        "health": {
            side: asdict(check_vectors(evaluation.index.blocks(side), evaluation.index.listed))
            for side in evaluation.index.sides
        },
        "hubness": _hubness(evaluation, measured),
    }
    if not all(side in evaluation.index.sides for side in SIDES):
        return record
    _say("alignment and neighbourhoods")
    studied = study(evaluation, measured)
    if len(studied.rows) >= 2:
        record["alignment"] = describe_alignment(evaluation, studied)
        _say("corrections of the gap and of hubs")
        record["corrections"] = measure_corrections(evaluation, measured)
        _say("misses and their causes")
        record |= analyse_errors(evaluation, measured, studied)
        _say("disturbed texts")
        record["robustness"] = measure_robustness(evaluation, measured)
    return record


def study(evaluation: Evaluation, measured: Sequence[Measured]) -> Studied:
    """Return products that have both sides with their neighbours on either."""
    index = evaluation.index
    asked = np.unique(np.concatenate([one.direction.queries.rows for one in measured]))
    asked = evaluation.sample(asked[asked >= 0], MAX_STUDIED)
    sides = [index.vectors_of(asked, side) for side in SIDES]
    has_both = np.logical_and(*(vectors.any(axis=1) for vectors in sides))
    rows = asked[has_both]
    images, texts = (_unit(vectors[has_both]) for vectors in sides)
    own = evaluation.truth.same_product(rows)
    near = [
        evaluation.search(ExactSearch(vectors, NEIGHBOURS, (), own), side)
        for side, vectors in zip(SIDES, (images, texts), strict=True)
    ]
    percentiles = pair_percentiles(images, texts, seed=evaluation.options.seed)
    return Studied(rows, images, texts, near[0].rows, near[0].scores, near[1].rows, percentiles)


def describe_alignment(evaluation: Evaluation, studied: Studied) -> dict[str, Any]:
    """Return the alignment of all studied products, and of each slice of them."""
    seed = evaluation.options.seed
    agreement = neighbour_agreement(studied.image_neighbours, studied.text_neighbours)
    slices = []
    for column, given in attribute_labels(evaluation.index, studied.rows).items():
        labels = np.array(merge_small(given))
        names = sorted(set(labels.tolist()))
        for name in names if len(names) > 1 else ():
            members = labels == name
            if members.sum() >= MIN_QUERIES:
                images, texts = studied.images[members], studied.texts[members]
                part = measure_alignment(images, texts, seed=seed)
                slices.append(
                    {
                        "column": column,
                        "value": name,
                        "num_products": int(members.sum()),
                        "alignment": part.alignment,
                        "gap": part.gap,
                        "auc": part.similarities.auc,
                        "agreement": float(agreement[members].mean()),
                        "median_percentile": float(np.median(studied.percentiles[members])),
                    }
                )
    return {
        **asdict(measure_alignment(studied.images, studied.texts, seed=seed)),
        "agreement": float(agreement.mean()),
        "agreement_by_chance": NEIGHBOURS / max(min(evaluation.num_products[side] for side in SIDES), 1),
        "median_percentile": float(np.median(studied.percentiles)),
        "slices": slices,
    }


def _hubness(evaluation: Evaluation, measured: Sequence[Measured]) -> dict[str, Any]:
    described = {}
    for one in measured:
        if len(one.rows):
            has_side = np.concatenate([block.any(axis=1) for _, block in evaluation.index.blocks(one.direction.side)])
            described[one.direction.name] = asdict(measure_hubness(one.rows[:, :NEIGHBOURS], has_side))
    return described


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)
