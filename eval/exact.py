"""Exact search of one part of a gallery: the nearest products, and how many wrong ones outrank each right one.

Both come out of one matrix product, a tile of queries x products at a time, so that the arithmetic runs at the speed
of the matrix product and memory does not grow with either. Q is the number of queries, N of products, D the dimension,
P of pairs of a query and a right product, k of hits kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.judged import TIE, Judgements
from product_retrieval.index.ranking import best

if TYPE_CHECKING:
    import torch

CPU_TILE = (1_024, 8_192)
GPU_TILE = (8_192, 32_768)
"""Queries x products at a time: 32 MiB of scores on a core, 1 GiB on a GPU."""
MAX_COMPARED = 16
"""Right products of one query up to which each costs a comparison; from there on a binary search costs less."""


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """One notion of what is right, and how the right products score."""

    judgements: Judgements
    scores: NDArray[np.float32]
    """[P], of the pairs."""


@dataclass(frozen=True, slots=True)
class Correction:
    """Another way to compare: with the products' mean taken off their vectors, or a bias taken off their scores."""

    shift: NDArray[np.float32] | None = None
    """[D], taken off every product before it is scaled to unit length again."""
    bias: NDArray[np.float32] | None = None
    """[num_rows], by row, taken off every score of the product."""

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return products as they are compared, float32 [N, D]; rows of zeros stay so."""
        if self.shift is None:
            return vectors
        moved = np.where(vectors.any(axis=1, keepdims=True), vectors - self.shift, 0)
        return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), np.float32)


@dataclass(frozen=True, slots=True)
class ExactSearch:
    """What is looked for in a gallery."""

    queries: NDArray[np.float32]
    """[Q, D]."""
    k: int
    """Nearest products to keep; 0 keeps none."""
    judged: tuple[JudgedSet, ...] = ()
    excluded: Judgements | None = None
    """Pairs that are neither right nor wrong, nor found: such as a query's own product."""
    correction: Correction | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a part of the gallery holds."""

    rows: NDArray[np.int64]
    """[Q, k] nearest products, best first, of equal ones the lower row first; -1 pads."""
    scores: NDArray[np.float32]
    """[Q, k]; NaN beside padding."""
    num_greater: tuple[NDArray[np.int64], ...]
    """For each judged set [P], wrong products that score higher than the pair's right one."""
    num_equal: tuple[NDArray[np.int64], ...]
    """For each judged set [P], wrong products that score the same."""


def nothing_found(search: ExactSearch) -> Found:
    """Return what an empty gallery holds."""
    shape = (len(search.queries), search.k)
    greater, equal = (tuple(np.zeros(len(judged.scores), np.int64) for judged in search.judged) for _ in range(2))
    return Found(np.full(shape, -1, np.int64), np.full(shape, np.nan, np.float32), greater, equal)


def merge(one: Found, other: Found) -> Found:
    """Return what two parts of a gallery hold together; the order of the parts does not matter."""
    k = one.rows.shape[1]
    hits = best(np.hstack([one.rows, other.rows]), np.hstack([one.scores, other.scores]), k)
    greater = tuple(a + b for a, b in zip(one.num_greater, other.num_greater, strict=True))
    equal = tuple(a + b for a, b in zip(one.num_equal, other.num_equal, strict=True))
    return Found(hits.rows, hits.scores, greater, equal)


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
    tiles = [_QueryTile(search, order[at : at + query_tile], device) for at in range(0, len(order), query_tile)]
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


class _QueryTile:
    """Some queries, and what was found for them so far."""

    def __init__(self, search: ExactSearch, positions: NDArray[np.int64], device: str) -> None:
        import torch

        self.positions = positions
        self._queries = torch.from_numpy(np.ascontiguousarray(search.queries[positions])).to(device)
        self._buffer: torch.Tensor | None = None
        self.best_scores = torch.full((len(positions), search.k), -torch.inf, device=device)
        self.best_rows = torch.full((len(positions), search.k), -1, dtype=torch.int64, device=device)
        local = np.full(len(search.queries), -1, np.int64)
        local[positions] = np.arange(len(positions))
        self._excluded = None if search.excluded is None else _Pairs(search.excluded, local, device)
        self.counted = [_Counted(judged, local, len(positions), device) for judged in search.judged]

    def compare(
        self, products: torch.Tensor, first_row: int, absent: torch.Tensor | None, bias: torch.Tensor | None
    ) -> None:
        """Take the products of a tile into account; tiles come in ascending order of their rows."""
        import torch

        if self._buffer is None or self._buffer.shape[1] != len(products):
            self._buffer = torch.empty(len(self.positions), len(products), device=products.device)
        scores = torch.mm(self._queries, products.T, out=self._buffer)
        if bias is not None:
            scores -= bias
        if absent is not None:
            scores[:, absent] = -torch.inf
        if self._excluded is not None:
            query, column = self._excluded.within(first_row, len(products))
            scores[query, column] = -torch.inf
        if self.best_scores.shape[1]:
            self._offer(scores, first_row)
        for counted in self.counted:
            counted.count(scores, first_row)

    def _offer(self, scores: torch.Tensor, first_row: int) -> None:
        import torch

        k = self.best_scores.shape[1]
        floor = self.best_scores[:, -1:]  # of equal scores the lower row is kept, and it is held already
        if scores.shape[1] > k and bool(torch.isneginf(floor).any()):
            kth = torch.topk(scores, k, dim=1).values[:, -1:]
            is_better = (scores >= kth) & (scores > floor)
        else:
            is_better = scores > floor
        flat = is_better.flatten().nonzero().squeeze(1)
        if not len(flat):
            return
        query, column = flat // scores.shape[1], flat % scores.shape[1]
        num_better = torch.bincount(query, minlength=len(scores))
        place = torch.arange(len(flat), device=flat.device) - (num_better.cumsum(0) - num_better)[query]
        width = int(num_better.max())
        offered = torch.full((len(scores), width), -torch.inf, device=scores.device)
        rows = torch.full((len(scores), width), -1, dtype=torch.int64, device=scores.device)
        offered[query, place] = scores[query, column]
        rows[query, place] = column + first_row
        together = torch.cat([self.best_scores, offered], dim=1)
        order = torch.sort(together, dim=1, descending=True, stable=True).indices[:, :k]
        self.best_scores = together.gather(1, order)
        self.best_rows = torch.cat([self.best_rows, rows], dim=1).gather(1, order)


class _Pairs:
    """Pairs of a tile's queries and products, found again by the products' rows."""

    def __init__(self, judgements: Judgements, local: NDArray[np.int64], device: str) -> None:
        """Take the pairs whose query has a place in `local`, int64 [Q] with -1 elsewhere."""
        kept = np.flatnonzero(local[judgements.query] >= 0)
        kept = kept[np.argsort(judgements.row[kept], kind="stable")]
        self._query, self._row, self._device = local[judgements.query[kept]], judgements.row[kept], device

    def within(self, first_row: int, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return places of queries and columns of products of the pairs in a tile."""
        import torch

        start, stop = np.searchsorted(self._row, (first_row, first_row + num_rows))
        query, column = self._query[start:stop], self._row[start:stop] - first_row
        return torch.from_numpy(query).to(self._device), torch.from_numpy(column).to(self._device)


class _Counted:
    """Counts against the right products of a tile's queries."""

    def __init__(self, judged: JudgedSet, local: NDArray[np.int64], num_queries: int, device: str) -> None:
        import torch

        judgements = judged.judgements
        self._pairs = _Pairs(judgements, local, device)
        self.pairs = np.flatnonzero(local[judgements.query] >= 0)
        """Positions of the tile's pairs in the judged set."""
        query, scores = local[judgements.query[self.pairs]], judged.scores[self.pairs]
        order = np.lexsort((scores, query))  # of each query by rising score
        self.pairs, query, scores = self.pairs[order], query[order], scores[order]
        first = np.searchsorted(query, query)
        self.at = (query, np.arange(len(query)) - first)
        """Row and column of each pair in the counts."""
        width = int(np.bincount(query, minlength=1).max(initial=0)) if len(query) else 0
        limits = np.full((num_queries, width), np.inf, np.float32)
        limits[self.at] = scores
        self._num_with = [int((np.isfinite(limits[:, j])).nonzero()[0].max(initial=-1)) + 1 for j in range(width)]
        self._above = torch.from_numpy(limits + np.float32(TIE)).to(device)
        self._beside = torch.from_numpy(limits - np.float32(TIE)).to(device)
        self.num_above = torch.zeros(limits.shape, dtype=torch.int64, device=device)
        self.num_from = torch.zeros(limits.shape, dtype=torch.int64, device=device)

    def count(self, scores: torch.Tensor, first_row: int) -> None:
        """Count the wrong products of a tile; the scores are as they were afterwards."""
        import torch

        if not self.num_above.shape[1]:
            return
        query, column = self._pairs.within(first_row, scores.shape[1])
        right = scores[query, column]
        scores[query, column] = -torch.inf
        if self.num_above.shape[1] <= MAX_COMPARED:
            for j, stop in enumerate(self._num_with):
                self.num_above[:stop, j] += _num_true(scores[:stop] > self._above[:stop, j, None])
                self.num_from[:stop, j] += _num_true(scores[:stop] >= self._beside[:stop, j, None])
        else:
            self.num_above += _num_passed(self._above, scores, is_above=True)
            self.num_from += _num_passed(self._beside, scores, is_above=False)
        scores[query, column] = right


def _num_true(values: torch.Tensor) -> torch.Tensor:
    """Return the number of true values of each row, int64 [Q]."""
    import torch

    if values.is_cuda:
        return values.sum(dim=1)
    rows = values.numpy()
    return torch.tensor([np.count_nonzero(row) for row in rows])  # ten times faster than a sum over an axis


def _num_passed(limits: torch.Tensor, scores: torch.Tensor, *, is_above: bool) -> torch.Tensor:
    """Return how many scores of each row are above its limits, or from them on; int64 like `limits`."""
    import torch

    num_limits = limits.shape[1]
    place = torch.searchsorted(limits, scores.contiguous(), side="left" if is_above else "right")
    counts = torch.zeros(len(limits), num_limits + 1, dtype=torch.int64, device=limits.device)
    counts.scatter_add_(1, place, torch.ones((), dtype=torch.int64, device=limits.device).expand(place.shape))
    return counts[:, 1:].flip(1).cumsum(1).flip(1)


def _num_judged(search: ExactSearch) -> NDArray[np.int64]:
    most = np.zeros(len(search.queries), np.int64)
    for judged in search.judged:
        most = np.maximum(most, judged.judgements.num_right)
    return most


def _assemble(search: ExactSearch, tiles: list[_QueryTile]) -> Found:
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
