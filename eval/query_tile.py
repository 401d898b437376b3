"""A tile of queries in an exact search: the nearest products so far, and counts of what outranks the right ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.exact_search import ExactSearch, JudgedSet
from eval.judged import TIE, Judgements

if TYPE_CHECKING:
    import torch

MAX_COMPARED = 16
"""Right products of one query up to which each costs a comparison; from there on a binary search costs less."""


class QueryTile:
    """Some queries, and what was found for them so far."""

    def __init__(self, search: ExactSearch, positions: NDArray[np.int64], device: str) -> None:
        """Put the queries at some positions, int64, on a device; nothing is found for them yet."""
        import torch

        self.positions = positions
        self._queries = torch.from_numpy(np.ascontiguousarray(search.queries[positions])).to(device)
        self._buffer: torch.Tensor | None = None
        self.best_scores = torch.full((len(positions), search.k), -torch.inf, device=device)
        self.best_rows = torch.full((len(positions), search.k), -1, dtype=torch.int64, device=device)
        local = np.full(len(search.queries), -1, np.int64)
        local[positions] = np.arange(len(positions))
        self._excluded = None if search.excluded is None else Pairs(search.excluded, local, device)
        self.counted = [Counted(judged, local, len(positions), device) for judged in search.judged]

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


class Pairs:
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


class Counted:
    """Counts against the right products of a tile's queries."""

    def __init__(self, judged: JudgedSet, local: NDArray[np.int64], num_queries: int, device: str) -> None:
        """Take the pairs of the tile's `num_queries` queries, which have a place in `local`, int64 [Q]."""
        import torch

        judgements = judged.judgements
        self._pairs = Pairs(judgements, local, device)
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
