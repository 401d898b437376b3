"""Runs and judgements in TREC's formats, so that anyone can score them again with other software.

    trec_eval -m recall.10 trec/text_to_image.product.qrels trec/text_to_image.run

A query is called by the id of its own product, or by its id in the file of queries; white space in ids is
written as %20 and so on, since the formats separate by it. TREC's software orders ties by itself: scores are written
so that they fall strictly, in the order in which the products were found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from eval.directions import Measured
from eval.judged import Judgements
from product_retrieval.index import ProductIndex
from product_retrieval.storage import Storage

SPACE = re.compile(r"[\s%]")
RUN_NAME = "multimodal-product-retrieval"


def write_trec(output: Storage, index: ProductIndex, measured: Sequence[Measured]) -> None:
    """Write `trec/DIRECTION.run` and `trec/DIRECTION.RELEVANT.qrels` below a report's folder."""
    product_ids = index.column("product_id").to_pylist()
    for one in measured:
        name = one.direction.name.replace(" -> ", "_to_").replace(" ", "_")
        names = distinct(one.direction.queries.ids)
        files = {f"{name}.run": run_lines(names, one.rows, one.scores, product_ids)}
        for relevant, ranks in one.ranks.items():
            files[f"{name}.{relevant}.qrels"] = qrels_lines(names, ranks.judgements, product_ids)
        for file, lines in files.items():
            output.delete(f"trec/{file}")
            output.put_if_absent(f"trec/{file}", "".join(lines).encode())


def distinct(query_ids: Sequence[str]) -> list[str]:
    """Return ids that differ: of several queries with one, such as photos of a product, the later get #2, #3 ..."""
    seen: Counter[str] = Counter()
    names = []
    for query_id in query_ids:
        seen[query_id] += 1
        names.append(query_id if seen[query_id] == 1 else f"{query_id}#{seen[query_id]}")
    return names


def run_lines(
    query_ids: Sequence[str], rows: NDArray[np.int64], scores: NDArray[np.float32], product_ids: Sequence[str]
) -> Iterator[str]:
    """Yield a TREC run, a line a hit: QUERY Q0 PRODUCT RANK SCORE NAME.

    Args:
        query_ids: Q ids.
        rows: int64 [Q, K], best first; -1 pads.
        scores: float32 [Q, K].
        product_ids: by row.
    """
    for query_id, hits, values in zip(query_ids, rows.tolist(), scores.tolist(), strict=True):
        below = np.float32(np.inf)  # trec_eval reads single precision
        for rank, (row, score) in enumerate(zip(hits, values, strict=True), start=1):
            if row >= 0:
                below = min(np.float32(score), np.nextafter(below, np.float32(-np.inf)))
                yield f"{quoted(query_id)} Q0 {quoted(product_ids[row])} {rank} {float(below)!r} {RUN_NAME}\n"


def qrels_lines(query_ids: Sequence[str], judgements: Judgements, product_ids: Sequence[str]) -> Iterator[str]:
    """Yield TREC qrels, a line a judgement: QUERY 0 PRODUCT RELEVANCE.

    A right product that the index lacks is called by the number of its judgement: it counts, and cannot be found.
    """
    pairs = zip(judgements.query.tolist(), judgements.row.tolist(), judgements.gain.tolist(), strict=True)
    for number, (query, row, gain) in enumerate(pairs):
        name = quoted(product_ids[row]) if row >= 0 else f"not-in-the-index-{number}"
        yield f"{quoted(query_ids[query])} 0 {name} {gain:g}\n"


def quoted(name: str) -> str:
    """Return an id without white space; `%` itself is written as %25, so that the id can be read back."""
    return SPACE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)
