"""One version of an index with all that answers need: opened as a whole, and replaced as a whole."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict
from urllib.parse import quote

from PIL import Image

from product_retrieval.errors import QueryError
from product_retrieval.hits import title_of
from product_retrieval.images import decode
from product_retrieval.pictures import load_picture
from product_retrieval.querying import Answer, Query, open_search
from product_retrieval.storage import Storage
from serve.answers import Facet
from serve.facets import example_titles, facets_of
from serve.problems import ProblemError

SHOWN_SIDE_PX = 640
CACHED_PICTURES = 512
"""Of some 30 KB each."""
HIDDEN_COLUMN = "image_ref"
"""Where the catalogue keeps its pictures is nobody's business."""


class Heading(TypedDict):
    """What every product is shown with, whatever its columns."""

    product_id: str
    title: str
    image_url: str | None


@dataclass(frozen=True, slots=True)
class Described:
    """An answer with its products."""

    answer: Answer
    products: list[dict[str, Any]]
    """One a hit, with all columns."""


class ServedIndex:
    """A version, opened."""

    def __init__(self, storage: Storage, version: int) -> None:
        """Open it, and count what can be chosen from.

        Raises:
            ArtifactError: there is no such version, or a file of it is missing or damaged.
        """
        self.search, self.manifest = open_search(storage, version)
        self.index = self.search.index
        self.columns = [name for name in self.index.column_names if name != HIDDEN_COLUMN]
        self.facets: list[Facet] = facets_of(self.index)
        self.examples: list[str] = example_titles(self.index)
        self.picture: Callable[[str], bytes] = lru_cache(CACHED_PICTURES)(self._picture)

    @property
    def version(self) -> int:
        """Number of the version."""
        return self.manifest.version

    def ask(self, queries: Sequence[Query]) -> tuple[list[Described | QueryError], float, float]:
        """Answer queries together.

        Returns:
            For each query its answer or why there is none; seconds of searching, and of reading products.
        """
        started = time.perf_counter()
        answers = self.search.ask_all(queries)
        searched = time.perf_counter()
        rows = [hit.row for answer in answers if isinstance(answer, Answer) for hit in answer.hits]
        products = iter(self.index.describe(rows))
        described: list[Described | QueryError] = [
            Described(answer, [next(products) for _ in answer.hits]) if isinstance(answer, Answer) else answer
            for answer in answers
        ]
        return described, searched - started, time.perf_counter() - searched

    def row(self, product_id: str, *, field: str = "product_id") -> int:
        """Return the row of a product.

        Raises:
            ProblemError: there is none of that id.
        """
        row = self.index.row_of(product_id)
        if row is None:
            raise ProblemError("no such product in this index", field=field, status=404)
        return row

    def product(self, product_id: str) -> dict[str, Any]:
        """Return a product with all columns.

        Raises:
            ProblemError: there is none of that id.
        """
        (product,) = self.index.describe([self.row(product_id)])
        return product

    def _picture(self, product_id: str) -> bytes:
        """Return a product's picture as JPEG: drawn anew, so that only its pixels reach a browser.

        Raises:
            ProblemError: there is no such product, or it has no picture.
        """
        (product,) = self.index.describe([self.row(product_id)], [HIDDEN_COLUMN])
        catalog = self.manifest.catalog
        data = load_picture(
            catalog["image_root"],
            product[HIDDEN_COLUMN],
            image_column=catalog["image_column"],
            catalog_root=catalog.get("root"),
        )
        pixels = decode(data).pixels if data else None
        if pixels is None:
            raise ProblemError("this product has no picture", field="product_id", status=404)
        image = Image.fromarray(pixels)
        image.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


def heading(product: Mapping[str, Any]) -> Heading:
    """Return what a product is shown with."""
    product_id = str(product["product_id"])
    return Heading(
        product_id=product_id,
        title=title_of(product),
        image_url=f"v1/products/{quote(product_id, safe='')}/image" if product.get(HIDDEN_COLUMN) else None,
    )
