"""What every part of an evaluation works on: an open index, its truth, and the cluster that searches it exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eval.directions import count_products
from eval.exact_pass import Workers, search_gallery
from eval.exact_search import ExactSearch, Found
from eval.judgements import CatalogTruth
from eval.options import EvaluateOptions
from product_retrieval.encoders import Encoder
from product_retrieval.index import IndexManifest, ProductIndex, Side
from product_retrieval.search import open_encoder
from product_retrieval.storage import Storage


@dataclass(frozen=True)
class Evaluation:
    """An index under evaluation."""

    options: EvaluateOptions
    index: ProductIndex
    manifest: IndexManifest
    truth: CatalogTruth
    workers: Workers
    kept: Storage
    """Where answers of a long search are kept until the report is written."""

    @cached_property
    def num_products(self) -> dict[Side, int]:
        """Products that have a side, by side."""
        return {side: count_products(self.index, side) for side in self.index.sides}

    @cached_property
    def encoder(self) -> Encoder:
        """The index's own encoder.

        Raises:
            EncoderError: it cannot be loaded.
        """
        return open_encoder(self.manifest, None, self.options.device)

    def search(self, search: ExactSearch, side: Side) -> Found:
        """Search a side's whole gallery exactly, on the cluster."""
        return search_gallery(search, self.index, side, workers=self.workers, kept=self.kept)

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the texts that products' vectors were made from; empty where there is none."""
        if "text" not in self.index.column_names:
            return [""] * len(rows)
        return [text or "" for text in self.index.column("text").take(pa.array(rows)).to_pylist()]

    def sample(self, rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Return a seeded sample of some rows, ascending; all of them where they are no more."""
        if size >= len(rows):
            return rows
        return np.sort(np.random.default_rng(self.options.seed).choice(rows, size, replace=False))
