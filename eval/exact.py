"""Exact search of one part of a gallery: the nearest products, and how many wrong ones outrank each right one.

Both come out of one matrix product, a tile of queries x products at a time, so that the arithmetic runs at the speed
of the matrix product and memory does not grow with either. Q is the number of queries, N of products, D the dimension,
P of pairs of a query and a right product, k of hits kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.exact_search import Correction, ExactSearch, Found, nothing_found
from eval.judged import Judgements
from eval.query_tile import QueryTile

CPU_TILE = (1_024, 8_192)
GPU_TILE = (8_192, 32_768)
"""Queries x products at a time: 32 MiB of scores on a core, 1 GiB on a GPU."""


def scan(search: ExactSearch, vectors: NDArray[np.float16], first_row: int, *, device: str = "cpu") -> Found:
    """Search one part of the gallery.

    Args:
        search: what is looked for.
        vectors: float16 [N, D]; rows of zeros are products without this side, and not there.
        first_row: row of the first vector.
        device: `cpu` or `cuda`.
    """
    import torch

    query_tile, product_tile = CPU_TILE if device == "cpu" else GPU_TILE
    order = np.argsort(-_num_judged(search), kind="stable")  # so that those with a j-th right product come first
    tiles = [QueryTile(search, order[at : at + query_tile], device) for at in range(0, len(order), query_tile)]
    with torch.inference_mode():
        for start in range(0, len(vectors), product_tile):
            stop = min(start + product_tile, len(vectors))
            products = torch.from_numpy(np.array(vectors[start:stop])).to(device).float()
            absent = ~products.any(dim=1)
            bias = None
            if search.correction is not None:
                products = torch.from_numpy(search.correction.apply(products.cpu().numpy())).to(device)
                if search.correction.bias is not None:
                    bias = torch.from_numpy(search.correction.bias[first_row + start : first_row + stop].copy()).to(
                        device
                    )
            for tile in tiles:
                tile.compare(products, first_row + start, absent if bool(absent.any()) else None, bias)
    return _assemble(search, tiles)


def pair_scores(
    queries: NDArray[np.float32],
    pairs: Judgements,
    vectors: NDArray[np.float32],
    correction: Correction | None = None,
) -> NDArray[np.float32]:
    """Return the score of each pair, float32 [P].

    Args:
        queries: float32 [Q, D].
        pairs: P pairs.
        vectors: float32 [P, D], of the pairs' products.
        correction: how they are compared; None as they are.
    """
    if correction is None:
        return np.einsum("pd,pd->p", queries[pairs.query], vectors).astype(np.float32)
    scores = np.einsum("pd,pd->p", queries[pairs.query], correction.apply(vectors)).astype(np.float32)
    return scores if correction.bias is None else scores - correction.bias[pairs.row]


def _num_judged(search: ExactSearch) -> NDArray[np.int64]:
    most = np.zeros(len(search.queries), np.int64)
    for judged in search.judged:
        most = np.maximum(most, judged.judgements.num_right)
    return most


def _assemble(search: ExactSearch, tiles: list[QueryTile]) -> Found:
    found = nothing_found(search)
    for tile in tiles:
        rows, scores = tile.best_rows.cpu().numpy(), tile.best_scores.cpu().numpy()
        found.rows[tile.positions] = rows
        found.scores[tile.positions] = np.where(rows < 0, np.nan, scores)
        for number, counted in enumerate(tile.counted):
            above = counted.num_above.cpu().numpy()[counted.at]
            found.num_greater[number][counted.pairs] = above
            found.num_equal[number][counted.pairs] = counted.num_from.cpu().numpy()[counted.at] - above
    return found
